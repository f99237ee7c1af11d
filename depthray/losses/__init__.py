"""Loss terms, one function each; a recipe names and weighs them.

A term is the mean over each image's valid pixels, so that the average over images does not depend on how a batch is
dealt over processes or micro-batches. It is 0, with gradient 0, for an image without valid pixels, and is computed in
float32 whatever the prediction's dtype.

A term is a function of tensors of one size. Its parameters say what it needs: `total` passes each by its name, either a
tensor of `LossInputs`, where the truth is resized to the prediction, or an option of the recipe's `loss` section. So a
term can be called with tensors alone, and which outputs of a network a recipe leaves unused can be read from it too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from depthray.batch import Batch, Prediction
from depthray.config import own_code
from depthray.config.sections import LOSS_OPTIONS, Loss
from depthray.errors import UsageError
from depthray.losses import affine, depth, gradients, masks, pyramid
from depthray.losses.loss_inputs import LossInputs, with_shares

Term = Callable[..., Tensor]
MODULES: tuple[ModuleType, ...] = (depth, gradients, affine, pyramid, masks)
# A term is the function with the name of its weight in the recipe; what a module merely imports is none.
TERMS: dict[str, Term] = {
    name: getattr(module, name)
    for module in MODULES
    for name in Loss.model_fields
    if name not in LOSS_OPTIONS and getattr(getattr(module, name, None), "__module__", "") == module.__name__
}
# What terms of one's own are given by these names: tensors of LossInputs and keys of the recipe's section.
KNOWN = {name for name, value in vars(LossInputs).items() if isinstance(value, property)} | {*LOSS_OPTIONS}
MAPS = {"depth": "depth", "pyramid": "pyramid", "logits": "mask"}  # parameter of a term: map of a prediction


def total(prediction: Prediction, batch: Batch, section: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """Prediction and truth, each (B,1,H,W) of its own size -> (B,) weighted sum, and (B,) unweighted by term."""
    frames = with_shares(batch) if section.target == "relative" else batch
    terms = {name: _term(name, prediction, frames, section) for name in section.weights}
    weighted = torch.stack([weight * terms[name] for name, weight in section.weights.items()])
    return weighted.sum(dim=0), terms


def unused_outputs(maps: Collection[str], section: Loss) -> tuple[str, ...]:
    """Those maps of a prediction that no term of the section uses."""
    used = {MAPS[key] for name in section.weights for key in _parameters(function(name)) if key in MAPS}
    return tuple(key for key in maps if key not in used)


def check(section: Loss, *, where: str) -> None:
    """Raise UsageError for terms of one's own that cannot be imported, or need what there is not."""
    for name in section.terms:
        term = function(name, where=where)
        label, form = (
            f"{where}: loss.terms.{name}",
            "def NAME(depth, truth, *, valid), of names that docs/own-code.md lists",
        )
        own_code.check_call(term, label=label, form=form, **dict.fromkeys(_parameters(term)))
        if not set(_parameters(term)) & {"depth", "pyramid", "logits"}:
            raise UsageError(f"{label}: takes nothing that a network predicts; write {form}")


def function(name: str, *, where: str = "recipe") -> Term:
    """The function of a term; of one's own it is imported, where that is allowed (see `own_code`)."""
    if name in TERMS:
        return TERMS[name]
    term = own_code.resolve(own_code.LOSS, name, where=where)
    if not inspect.isfunction(term):
        raise UsageError(f"{where}: loss.terms.{name}: is {type(term).__name__}, not a function of Python")
    return term


def _term(name: str, prediction: Prediction, batch: Batch, section: Loss) -> Tensor:
    """Prediction and truth, each (B,1,H,W) of its own size -> (B,) value of a term."""
    inputs = LossInputs(prediction, batch, name if name in TERMS else f"terms.{name}")
    # Only what the term asks for is resized to the prediction: the properties of LossInputs compute when read.
    term = function(name)
    arguments = {key: getattr(section if key in LOSS_OPTIONS else inputs, key) for key in _parameters(term)}
    value = term(**arguments)
    if name not in TERMS:
        _check_value(name, value, len(batch["valid"]))
    return value


def _check_value(name: str, value: Any, count: int) -> None:
    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if shape != (count,):
        raise UsageError(
            f"loss.terms.{name}: returned {shape} of {count} images; return a tensor ({count},), the mean over each "
            "image's valid pixels"
        )


@cache
def _parameters(term: Term) -> tuple[str, ...]:
    """What a term is given. Parameters of one's own that depthray does not know keep their defaults."""
    parameters = inspect.signature(term).parameters
    return tuple(parameters if term in TERMS.values() else KNOWN & parameters.keys())
