"""What a number of training frames suggests for a fine-tuning: steps, rate, what to freeze, augmentation."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from depthray.config.sections import Recipe

BATCH = 16  # frames of the steps below
MUCH = 5  # a recipe whose steps differ by this factor is worth a line
FEW = 200  # frames below which an encoder with weights is better left as it is


@dataclass(frozen=True)
class Advice:
    """For a network that starts from pretrained weights, with AdamW, one-cycle and 16 frames a step."""

    steps: int
    lr: float
    freeze: str  # overrides
    augment: str  # overrides


TABLE = {
    60: Advice(400, 1e-3, "optim.encoder_lr=0", "augment.crop=0.7 augment.rotate=5 augment.brightness=0.4"),
    800: Advice(3000, 1e-3, "optim.encoder_lr=0.3", "augment.crop=0.8 augment.rotate=3 augment.brightness=0.3"),
    10_000: Advice(10_000, 1e-3, "optim.encoder_lr=0.3", "augment.crop=0.8 augment.brightness=0.2"),
    100_000: Advice(30_000, 1e-3, "optim.encoder_lr=1", "augment.crop=0.9 augment.brightness=0.2"),
}


def advise(frames: int) -> Advice:
    """The advice for a number of training frames: steps between those of the table, the rest of the nearest row."""
    counts = list(TABLE)
    logs = [math.log(count) for count in counts]
    place = math.log(max(frames, 1))
    above = min(max(bisect.bisect(logs, place), 1), len(logs) - 1)  # outside of the table its outer line continues
    low, high = TABLE[counts[above - 1]], TABLE[counts[above]]
    share = (place - logs[above - 1]) / (logs[above] - logs[above - 1])
    steps = math.exp((1 - share) * math.log(low.steps) + share * math.log(high.steps))
    nearest = TABLE[min(counts, key=lambda count: abs(math.log(count) - place))]
    return Advice(max(1, round(steps)), nearest.lr, nearest.freeze, nearest.augment)


def lines(recipe: Recipe, *, frames: int, steps: int) -> list[str]:
    """Lines for whoever trains a recipe for some steps on some frames; none where it is about as advised."""
    advice, batch = advise(frames), recipe.train.batch_size
    advised, planned = advice.steps * BATCH, steps * batch  # images
    section, result = recipe.optim, []
    if steps and not advised / MUCH <= planned <= advised * MUCH:
        result.append(
            f"advice: {frames} training frames usually take about {max(1, round(advised / frames))} epochs, here "
            f"{planned / frames:.3g}; see Fine-tuning in docs/training.md"
        )
    if frames < FEW and recipe.model.weights and section.encoder_lr > 0 and not section.freeze:
        result.append(
            f"advice: with {frames} training frames keep the encoder as it is ({advice.freeze}) and change frames more "
            f"({advice.augment})"
        )
    return result
