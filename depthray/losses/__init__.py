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

import torch
from torch import Tensor

from depthray.batch import Batch, Prediction
from depthray.config.sections import LOSS_OPTIONS, Loss
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
MAPS = {"depth": "depth", "pyramid": "pyramid", "logits": "mask"}  # parameter of a term: map of a prediction


def total(prediction: Prediction, batch: Batch, section: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """Prediction and truth, each (B,1,H,W) of its own size -> (B,) weighted sum, and (B,) unweighted by term."""
    frames = with_shares(batch) if section.target == "relative" else batch
    terms = {name: _term(name, LossInputs(prediction, frames, name), section) for name in section.terms}
    weighted = torch.stack([weight * terms[name] for name, weight in section.terms.items()])
    return weighted.sum(dim=0), terms


def unused_outputs(maps: Collection[str], section: Loss) -> tuple[str, ...]:
    """Those maps of a prediction that no term of the section uses."""
    used = {MAPS[key] for name in section.terms for key in _parameters(name) if key in MAPS}
    return tuple(key for key in maps if key not in used)


def _term(name: str, inputs: LossInputs, section: Loss) -> Tensor:
    """Prediction and truth, each (B,1,H,W) of its own size -> (B,) value of a term."""
    # Only what the term asks for is resized to the prediction: the properties of LossInputs compute when read.
    arguments = {key: getattr(section if key in LOSS_OPTIONS else inputs, key) for key in _parameters(name)}
    return TERMS[name](**arguments)


@cache
def _parameters(name: str) -> tuple[str, ...]:
    return tuple(inspect.signature(TERMS[name]).parameters)
