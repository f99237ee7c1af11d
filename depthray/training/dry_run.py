"""The first step of a training as a dry run: networks on the meta device, without memory, losses on one blank image.

`preflight` holds a recipe against itself without torch; this is the part that needs the network.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from depthray import losses, models
from depthray.batch import COLOURS, Batch
from depthray.config import own_code
from depthray.config.sections import Data, Loss, Model, Optim, Recipe
from depthray.data.mixing import data_sets
from depthray.data.source import Source, keys_to_read
from depthray.errors import DataError, UsageError
from depthray.training.frames import Frames
from depthray.training.freezing import Freezing
from depthray.training.label_check import check_labels
from depthray.training.optim import build_optimiser
from depthray.weights import start as weights

IDS = ("semantics", "instances")


def check_before_run(recipe: Recipe, *, start: bool, source: Source | None = None) -> str:
    """The fingerprint of the recipe's frames. Raises what is wrong with its network or data before a run is made.

    `source` are the frames, where they have been opened already.
    """
    check_model(recipe, start=start)
    if own_code.names_in(recipe):  # of depthray's own, its tests know that they can be computed
        with own_code.one_line("the first step fails", own=True):
            check_first_step(recipe, start=False)
    frames = Frames(recipe, source) if source else Frames.open(recipe)
    check_labels(frames)
    return frames.fingerprint


def check_model(recipe: Recipe, *, start: bool) -> None:
    """Build the network on the meta device: what is wrong with its section shows in a moment, without its weights.

    With `start`, the initial weights are read (and downloaded) as well, and must fit.
    """
    with torch.device("meta"):
        network = models.build_model(recipe.model, recipe.data.inputs)
    if start:
        weights.start(network, recipe.model)
    check_targets(network, recipe)
    check_optimiser(network, recipe.optim)


def check_optimiser(network: nn.Module, section: Optim) -> None:
    """Raise UsageError for what the section freezes or sets a rate of and the network does not have; it is changed."""
    Freezing(network, section)
    build_optimiser(network, section)


def check_targets(network: nn.Module, recipe: Recipe) -> None:
    """Raise UsageError for a target that the network does not predict."""
    outputs = getattr(network, "outputs", ("depth",))
    if missing := [key for key in recipe.data.targets if key not in outputs]:
        targets = " and ".join(key for key in outputs if key in ("depth", "mask"))
        raise UsageError(
            f"model.name={recipe.model.name} predicts {targets}, and data.targets wants {missing[0]}; give another "
            "model.name, or data.targets of what it predicts"
        )


def check_first_step(recipe: Recipe, *, start: bool) -> None:
    """Raise UsageError for what would end a training of the recipe at its first step, its frames apart.

    With `start`, the initial weights are read (and downloaded) as well, and must fit.
    """
    try:
        # Every size of the curriculum: one of a later stage would only fail epochs into the run.
        for size in dict.fromkeys((recipe.data.size, *recipe.curriculum.sizes)):
            network, prediction = _forward(recipe.model, recipe.data, size, start=start)
            # Losses read values (a count of valid pixels, a maximum), which meta tensors do not have.
            ones: Any = {key: _ones(value) for key, value in prediction.items()}
            for section in dict.fromkeys(data_sets.losses_of(recipe)):
                losses.total(ones, _blank(recipe.data, size, device="cpu"), section)
        check_optimiser(copy.deepcopy(network), recipe.optim)  # the network is cached, and freezing changes it
    except DataError as error:
        raise UsageError(str(error)) from None
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # torch's, of sizes that do not fit together
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"the network or its loss cannot be computed with these model, data and loss: {reason}"
        ) from None


def cache_key(recipe: Recipe) -> Recipe:
    """The parts of a recipe that `check_first_step` depends on: for recipes with equal keys it has one result."""
    section = recipe.optim
    sets = tuple(
        each.model_copy(update={"weight": float(each.is_used), "loss": _with_ones(each.loss) if each.loss else None})
        for each in recipe.data.sets
    )
    return Recipe(
        data=recipe.data.model_copy(update={"sets": sets}),
        model=recipe.model,
        # Which terms there are matters, their weights do not; of the optimiser only what may not exist in a network.
        loss=_with_ones(recipe.loss),
        optim=Optim(
            name=section.name,
            encoder_lr=0.5 if section.encoder_lr not in (0, 1) else section.encoder_lr,
            layer_decay=0.5 if section.layer_decay != 1 else 1.0,
            freeze=section.freeze,
            freeze_epochs=section.freeze_epochs,
        ),
        curriculum=recipe.curriculum,
    )


def _with_ones(section: Loss) -> Loss:
    """The section with a weight of 1 for each of its terms."""
    ones = dict.fromkeys(section.weights, 1.0)
    own = {name: one for name, one in ones.items() if name in section.terms}
    teacher = section.teacher.model_copy(update=dict.fromkeys(section.teacher.weights, 1.0) | {"sure": 1.0})
    ours: dict[str, Any] = {name: one for name, one in ones.items() if name not in own}
    return section.model_copy(update=ours | {"terms": own, "teacher": teacher})


@lru_cache(maxsize=8)  # a search varies loss weights more often than networks
def _forward(
    model: Model, data: Data, size: tuple[int, int], *, start: bool
) -> tuple[nn.Module, dict[str, Tensor | list[Tensor]]]:
    """A network and its prediction (1,1,h,w) of an image (H,W), both on the meta device."""
    check_model(Recipe(model=model, data=data), start=start)
    with torch.device("meta"), torch.no_grad():
        network = models.build_model(model, data.inputs).eval()
        prediction: Any = models.run(network, _blank(data, size, device="meta"))
    return network, prediction


def _blank(data: Data, size: tuple[int, int], *, device: str) -> Batch:
    """One image (1,C,H,W) with everything that frames of the section have: white, and a wall 1 m away."""
    batch: dict[str, Any] = {"intrinsics": torch.eye(3, device=device)[None]}
    for key in keys_to_read(data) - {"intrinsics"}:
        shape = (1, 3 if key in COLOURS else 1, *size)
        batch[key] = torch.ones(shape, dtype=torch.long if key in IDS else torch.float32, device=device)
    batch["valid"] = batch["depth"].bool()  # a wall without holes, whatever data.min_depth and max_depth are
    batch["teacher_valid"] = batch["valid"]
    return batch  # type: ignore[return-value]


def _ones(value: Tensor | list[Tensor]) -> Any:
    """Maps (1,1,h,w) on the meta device -> maps of ones of the same sizes on the CPU."""
    return [_ones(level) for level in value] if isinstance(value, list) else torch.ones(value.shape)
