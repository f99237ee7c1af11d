"""What the checks of gpu.py share: a device, recipes, batches of noise, and `fit` on the same batch again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depthray import losses, models
from depthray.batch import Batch, to_device
from depthray.config.sections import Recipe
from depthray.data.curriculum import loss_at
from depthray.data.source import keys_to_read
from depthray.training import preflight
from depthray.training.loop import fit
from depthray.training.state import Hooks, State, begin
from depthray.training.throughput import Interval

ONE_STAGE = ("curriculum.sizes=[]", "curriculum.chunks=1", "train.log_seconds=0.000001", "train.save_every_steps=0")


@dataclass(frozen=True)
class Bench:
    """Where the checks run and how large they are: `small` is for a test, on a CPU in seconds."""

    device: torch.device
    folder: Path  # for what checks write
    recipes: Sequence[str]
    small: bool = False

    @property
    def is_gpu(self) -> bool:
        """Whether figures mean anything; the checks themselves run on a CPU too."""
        return self.device.type == "cuda"

    @property
    def steps(self) -> int:
        """Steps of a training."""
        return 2 if self.small else 20

    @property
    def images(self) -> int:
        """Images of a batch of the checks."""
        return 2 if self.small else 8

    def recipe(self, name: str, *overrides: str) -> Recipe:
        """A recipe in one stage, whose batch is that of the checks."""
        size = ("data.size=32,32",) if self.small else ()
        return preflight.load(name, [*ONE_STAGE, *size, f"train.batch_size={self.images}", *overrides])

    def begin(self, recipe: Recipe, device: torch.device | None = None) -> State:
        """The state before the first step, with random weights, which are the same on each device."""
        return begin(recipe, device or self.device, start=False)

    def synchronize(self) -> None:
        """Wait for the GPU."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)


def batch_of(recipe: Recipe, images: int, *, pinned: bool = False, seed: int = 0) -> Batch:
    """Noise as a loader gives it: colour (B,3,H,W) uint8, its channels last in memory, depth 1 to 5 m, ids, masks."""
    generator = torch.Generator().manual_seed(seed)
    height, width = recipe.data.size

    def plane(low: float, high: float) -> Tensor:
        """(B,1,H,W), smooth, since a network has to learn something of it."""
        coarse = torch.rand(images, 1, 4, 4, generator=generator) * (high - low) + low
        return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")

    made: dict[str, Any] = {}
    for key in ("image", "background"):
        colour = torch.randint(0, 256, (images, height, width, 3), generator=generator, dtype=torch.uint8)
        made[key] = colour.permute(0, 3, 1, 2)
    made["depth"] = plane(1, 5)
    sampled = torch.rand(images, 1, height, width, generator=generator) < 0.01
    made["sparse"] = torch.where(sampled, made["depth"], torch.zeros(()))
    made["mask"] = (plane(0, 1) > 0.5).float()
    made["semantics"] = made["instances"] = 211 * plane(0, 4).long()
    wanted = keys_to_read(recipe.data) | {*recipe.data.inputs, *recipe.data.targets}
    batch: dict[str, Any] = {key: value for key, value in made.items() if key in wanted}
    if pinned:
        batch = {key: value.pin_memory() for key, value in batch.items()}
    names = [str(number) for number in range(images)]
    return {**batch, "intrinsics": torch.eye(3).repeat(images, 1, 1), **dict.fromkeys(("id", "scene", "source"), names)}  # type: ignore[typeddict-item]


def loss_of(state: State, batch: Batch) -> Tensor:
    """The mean loss of a batch, () on the device, in the format of the state; without a gradient unless enabled."""
    recipe = state.recipe
    ready = to_device(batch, state.device, min_depth=recipe.data.min_depth, max_depth=recipe.data.max_depth)
    with state.precision.autocast():
        prediction = models.run(state.model, ready)
    section = loss_at(0, recipe.curriculum, last=recipe.loss)
    return losses.total(prediction, ready, section)[0].mean()


@dataclass
class OneBatch:
    """The frames of a run whose every step has the same batch: no loader is timed, and a loss has to fall."""

    batch: Batch
    accumulate: int = 1
    steps_per_epoch: int = 1_000_000
    further: list[Any] = field(default_factory=list)

    def train_epoch(self, epoch: int, **_: Any) -> Iterator[list[Batch]]:
        """The batch, without end."""
        while True:
            yield [self.batch] * self.accumulate


def train(state: State, frames: Any, steps: int) -> list[tuple[float, Interval]]:
    """Take so many steps by `fit`; of each when it was reported and its interval."""
    last = state.position.step + steps - 1
    state.hooks = Hooks(stop_requested=lambda: state.position.step >= last)  # asked in a step, before it is counted
    events = fit(state.recipe, state, frames)
    return [(time.perf_counter(), event) for event in events if isinstance(event, Interval)]


def relative(one: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors over the largest value of the first."""
    one, other = one.detach().double().cpu(), other.detach().double().cpu()
    return float((one - other).abs().max() / one.abs().max().clamp(min=1e-30))
