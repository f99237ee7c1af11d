"""Loss terms, one function each; a recipe names and weighs them.

A term is the mean over each image's valid pixels, so that the average over images does not depend on how a batch is
dealt over processes or micro-batches. It is 0, with gradient 0, for an image without valid pixels, and is computed in
float32 whatever the prediction's dtype. Terms are functions of tensors of one size; `total` finds those tensors by the
names of the function's parameters, the truth brought to the size of the prediction (inputs.py), and its options among
the recipe's keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from depthray.batch import Batch, Prediction
from depthray.config.sections import LOSS_OPTIONS, Loss
from depthray.losses import depth, gradients, masks, pyramid, structure
from depthray.losses.inputs import Case

Term = Callable[..., Tensor]
MODULES: tuple[ModuleType, ...] = (depth, gradients, structure, pyramid, masks)
# A term is the function that is named as its weight in the recipe.
TERMS: dict[str, Term] = {
    name: getattr(module, name)
    for module in MODULES
    for name in Loss.model_fields
    if name not in LOSS_OPTIONS and getattr(getattr(module, name, None), "__module__", "") == module.__name__
}
MAPS = {"depth": "depth", "pyramid": "pyramid", "logits": "mask"}  # name of a term's parameter: map of a prediction


def total(prediction: Prediction, batch: Batch, section: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """Prediction and truth, each (B,1,H,W) of its own size -> (B,) weighted sum, and (B,) unweighted by term."""
    terms = {name: _term(name, Case(prediction, batch, name), section) for name in section.terms}
    weighted = torch.stack([weight * terms[name] for name, weight in section.terms.items()])
    return weighted.sum(dim=0), terms


def unread(maps: Collection[str], section: Loss) -> tuple[str, ...]:
    """Of the maps of a prediction those that no term of the section reads."""
    read = {MAPS[key] for name in section.terms for key in _parameters(name) if key in MAPS}
    return tuple(key for key in maps if key not in read)


def _term(name: str, case: Case, section: Loss) -> Tensor:
    """(B,) value of a term."""
    return TERMS[name](
        **{key: getattr(section, key) if key in LOSS_OPTIONS else getattr(case, key)() for key in _parameters(name)}
    )


@cache
def _parameters(name: str) -> tuple[str, ...]:
    return tuple(inspect.signature(TERMS[name]).parameters)
