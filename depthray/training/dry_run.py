"""The first step of a training gone through in a moment: networks without memory, losses on one blank image."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from depthray import losses, models
from depthray.batch import COLOURS, Batch
from depthray.config.sections import Data, Model, Optim, Recipe
from depthray.data.source import keys_to_read
from depthray.errors import DataError, UsageError
from depthray.training.optim import build_optimiser

IDS = ("semantics", "instances")


def cache_key(recipe: Recipe) -> Recipe:
    """What a rehearsal depends on: recipes with the same outline have the same fault, or none."""
    section = recipe.optim
    return Recipe(
        data=recipe.data,
        model=recipe.model,
        loss=recipe.loss.model_copy(update=dict.fromkeys(recipe.loss.terms, 1.0)),
        optim=Optim(name=section.name, encoder_lr=0.5 if section.encoder_lr != 1 else 1.0),
        curriculum=recipe.curriculum,
    )


def check_first_step(recipe: Recipe, *, pretrained: bool) -> None:
    """Raise UsageError for what would end a training of the recipe at its first step, the frames aside.

    With `pretrained`, the weights that the network begins with are read (and fetched) too.
    """
    try:
        for size in dict.fromkeys((recipe.data.size, *recipe.curriculum.sizes)):
            network, prediction = _forward(recipe.model, recipe.data, size, pretrained=pretrained)
            solid: Any = {key: _solid(value) for key, value in prediction.items()}
            losses.total(solid, _blank(recipe.data, size, device="cpu"), recipe.loss)
            build_optimiser(network, recipe.optim)
    except DataError as error:
        raise UsageError(str(error)) from None
    except (RuntimeError, ValueError, IndexError, TypeError) as error:  # torch's, of sizes that do not fit together
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"the network or its loss cannot be computed with these model, data and loss: {reason}"
        ) from None


@lru_cache(maxsize=8)  # weights of the loss are searched more often than networks
def _forward(
    model: Model, data: Data, size: tuple[int, int], *, pretrained: bool
) -> tuple[nn.Module, dict[str, Tensor | list[Tensor]]]:
    """A network and its prediction (1,1,h,w) of an image (H,W), neither with memory."""
    check_model(Recipe(model=model, data=data), pretrained=pretrained)
    with torch.device("meta"), torch.no_grad():
        network = models.build_model(model, data.inputs, pretrained=False).eval()
        prediction: Any = models.run(network, _blank(data, size, device="meta"))
    return network, prediction


def _blank(data: Data, size: tuple[int, int], *, device: str) -> Batch:
    """One image of (H,W) with everything that frames of the section have: grey, and a wall 1 m away."""
    batch: dict[str, Any] = {"intrinsics": torch.eye(3, device=device)[None]}
    for key in keys_to_read(data) - {"intrinsics"}:
        shape = (1, 3 if key in COLOURS else 1, *size)
        batch[key] = torch.ones(shape, dtype=torch.long if key in IDS else torch.float32, device=device)
    batch["valid"] = batch["depth"].bool()
    return batch  # type: ignore[return-value]


def _solid(value: Tensor | list[Tensor]) -> Any:
    """Maps without memory -> maps of ones of the same sizes."""
    return [_solid(level) for level in value] if isinstance(value, list) else torch.ones(value.shape)


def check_model(recipe: Recipe, *, pretrained: bool) -> None:
    """Build the network without memory for its weights, to meet what is wrong with its section in a moment.

    With `pretrained`, the weights it begins with are read (and fetched) as well, and must fit.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
        network = models.build_model(recipe.model, recipe.data.inputs, pretrained=pretrained)
    check_targets(network, recipe)


def check_targets(network: torch.nn.Module, recipe: Recipe) -> None:
    """Raise UsageError for a target that the network does not predict."""
    gives = getattr(network, "gives", ("depth",))
    if missing := [key for key in recipe.data.targets if key not in gives]:
        raise UsageError(
            f"model.name={recipe.model.name} predicts {' and '.join(key for key in gives if key != 'pyramid')}, and "
            f"data.targets wants {missing[0]}; give another model.name, or data.targets of what it predicts"
        )
