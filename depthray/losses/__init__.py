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
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from depthray.batch import Batch, Prediction
from depthray.config import own_code
from depthray.config.sections import LOSS_OPTIONS, Loss
from depthray.errors import UsageError
from depthray.losses import affine, depth, gradients, likelihood, masks, pyramid, teacher, validity
from depthray.losses.loss_inputs import LossInputs, resize_area, with_shares
from depthray.models.layers.inputs import fill_sparse

Term = Callable[..., Tensor]
MODULES: tuple[ModuleType, ...] = (depth, gradients, affine, pyramid, likelihood, masks, validity)
# A term is the function with the name of its weight in the recipe; what a module merely imports is none.
TERMS: dict[str, Term] = {
    name: getattr(module, name)
    for module in MODULES
    for name in Loss.model_fields
    if name not in LOSS_OPTIONS and getattr(getattr(module, name, None), "__module__", "") == module.__name__
}
# What terms of one's own are given by these names: tensors of LossInputs and keys of the recipe's section.
KNOWN = {name for name, value in vars(LossInputs).items() if isinstance(value, property)} | {*LOSS_OPTIONS}
LEAST_SPREAD = 0.02  # added to the loss of spread samples: where they are nearly right, the rest is noise of the truth
MAPS = {
    "depth": "depth",
    "pyramid": "pyramid",
    "monocular": "monocular",
    "logits": "mask",
    "log_sigma": "log_sigma",
    "valid_logits": "valid",
}  # parameter of a term: map of a prediction


def total(prediction: Prediction, batch: Batch, section: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """Prediction and truth, each (B,1,H,W) of its own size -> (B,) weighted sum, and (B,) unweighted by term.

    With `over_spread` the sum is a share of that of the spread samples.
    """
    chosen = _weighted_terms(section)
    return _weighted_sum(chosen, prediction, batch, section)


def prepare(section: Loss) -> Callable[[Prediction, Batch], Tensor]:
    """`total` of one section, without values by term: all that is no arithmetic is done here, once.

    What it returns works on tensors alone, so that torch.compile traces it as one graph.
    """
    chosen = _weighted_terms(section)

    def weighted_sum(prediction: Prediction, batch: Batch) -> Tensor:
        """Prediction and truth, each (B,1,H,W) of its own size -> (B,) weighted sum"""
        return _weighted_sum(chosen, prediction, batch, section)[0]

    return weighted_sum


def prepare_sets(sections: Sequence[Loss]) -> Callable[[Prediction, Batch], Tensor]:
    """As `prepare`, of a section for each data set: an image has the loss of its own set, by the batch's `set`."""
    numbers: dict[Loss, list[int]] = {}
    for number, section in enumerate(sections):
        numbers.setdefault(section, []).append(number)
    parts = [(prepare(section), tuple(each)) for section, each in numbers.items()]

    def loss_by_set(prediction: Prediction, batch: Batch) -> Tensor:
        """Prediction and truth, each (B,1,H,W) of its own size -> (B,) weighted sum of the terms of each image's set"""
        values = []
        for loss, own in parts:
            # All images, of which those of other sets have no valid pixel: one size, whatever sets a batch has.
            chosen = torch.stack([batch["set"] == number for number in own]).any(dim=0)  # (B)
            values.append(torch.where(chosen, loss(prediction, _void_but(batch, chosen)), 0.0))
        return torch.stack(values).sum(dim=0)

    return loss_by_set


def _void_but(batch: Batch, chosen: Tensor) -> Batch:
    """The batch with no valid pixel in those images (B) that are not chosen."""
    inside = chosen.view(-1, 1, 1, 1)
    kept: Batch = batch.copy()
    if "valid" in batch:
        kept["valid"] = batch["valid"] & inside
    if "teacher_valid" in batch:
        kept["teacher_valid"] = batch["teacher_valid"] & inside
    if "mask" in batch:
        known = batch["mask_valid"] if "mask_valid" in batch else torch.ones_like(batch["mask"], dtype=torch.bool)
        kept["mask_valid"] = known & inside
    return kept


def _weighted_sum(
    terms: list[_WeightedTerm], prediction: Prediction, batch: Batch, section: Loss
) -> tuple[Tensor, dict[str, Tensor]]:
    """Prediction and truth, each (B,1,H,W) of its own size -> (B,) weighted sum, and (B,) unweighted by term."""
    frames = with_shares(batch) if section.target == "relative" else batch
    values = {term.name: term.value(prediction, frames) for term in terms if not term.of_teacher}
    if section.teacher.weights:
        labels = teacher.labels(batch, section)
        values |= {term.name: term.value(prediction, labels) for term in terms if term.of_teacher}
    if section.over_spread:
        return _over_spread(values, terms, prediction, frames), values
    return _sum(terms, values), values


def _over_spread(values: dict[str, Tensor], terms: list[_WeightedTerm], prediction: Prediction, batch: Batch) -> Tensor:
    """(B,) values of terms -> (B,) weighted sum as a share of that of the spread samples.

    Terms of what is predicted along with depth are no part of the share: a likelihood, which may be negative and is of
    errors in units of their own size, the cross-entropy of a mask of valid pixels, and depth without samples.
    """
    auxiliary = [term for term in terms if {"log_sigma", "valid_logits", "monocular"} & {*term.tensors}]
    shared = [term for term in terms if term not in auxiliary]
    of_depth = [term for term in shared if {"depth", "pyramid"} & {*term.tensors}]
    if not of_depth:
        return _sum(terms, values)
    with torch.no_grad():
        maps = _spread_samples(prediction, batch)
        spread = _sum(of_depth, {term.name: term.value(maps, batch) for term in of_depth})
    share = _sum(shared, values) / (spread + LEAST_SPREAD)
    return share + _sum(auxiliary, values) if auxiliary else share


def _spread_samples(prediction: Prediction, batch: Batch) -> Prediction:
    """The prediction with spread samples for its depth (B,1,h,w), the image's mean depth where it has no sample."""
    spread, truth, valid = fill_sparse(batch["sparse"].float()), batch["depth"], batch["valid"]
    count = valid.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1)
    mean = torch.where(valid, truth, 0.0).sum(dim=(1, 2, 3), keepdim=True) / count
    spread = torch.where(spread > 0, spread, mean)
    maps: Prediction = prediction.copy()
    maps["depth"] = resize_area(spread, prediction["depth"].shape[-2:])
    if "pyramid" in prediction:
        maps["pyramid"] = [resize_area(spread, level.shape[-2:]) for level in prediction["pyramid"]]
    return maps


def unused_outputs(maps: Collection[str], *sections: Loss) -> tuple[str, ...]:
    """Those maps of a prediction that no term of the sections uses."""
    names = {name for section in sections for name in section.weights | section.teacher.weights}
    used = {MAPS[key] for name in names for key in _parameters(function(name)) if key in MAPS}
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
        if not set(_parameters(term)) & {*MAPS}:
            raise UsageError(f"{label}: takes nothing that a network predicts; write {form}")


def function(name: str, *, where: str = "recipe") -> Term:
    """The function of a term; of one's own it is imported, where that is allowed (see `own_code`)."""
    if name in TERMS:
        return TERMS[name]
    term = own_code.resolve(own_code.LOSS, name, where=where)
    if not inspect.isfunction(term):
        raise UsageError(f"{where}: loss.terms.{name}: is {type(term).__name__}, not a function of Python")
    return term


@dataclass(frozen=True)
class _WeightedTerm:
    """A term of a section: its function, the tensors it is given, and the section's options for it."""

    name: str
    weight: float
    function: Term
    tensors: tuple[str, ...]
    options: dict[str, Any]
    of_teacher: bool = False  # what it compares with

    def value(self, prediction: Prediction, batch: Batch) -> Tensor:
        """Prediction and truth, each (B,1,H,W) of its own size -> (B,) value of the term, unweighted."""
        is_ours = self.of_teacher or self.name in TERMS
        inputs = LossInputs(prediction, batch, self.name if is_ours else f"terms.{self.name}")
        # Only what the term asks for is resized to the prediction: the properties of LossInputs compute when read.
        value = self.function(**{key: getattr(inputs, key) for key in self.tensors}, **self.options)
        if not is_ours:
            _check_value(self.name, value, len(batch["valid"]))
        return value * teacher.image_confidence(inputs) if self.of_teacher else value


def _weighted_terms(section: Loss) -> list[_WeightedTerm]:
    measured = [_weighted_term(name, weight, section) for name, weight in section.weights.items()]
    labels = [
        replace(_weighted_term(name, weight, section), name=f"teacher.{name}", of_teacher=True)
        for name, weight in section.teacher.weights.items()
    ]
    return measured + labels


def _weighted_term(name: str, weight: float, section: Loss) -> _WeightedTerm:
    term = function(name)
    parameters = _parameters(term)
    tensors = tuple(key for key in parameters if key not in LOSS_OPTIONS)
    options = {key: getattr(section, key) for key in parameters if key in LOSS_OPTIONS}
    return _WeightedTerm(name, weight, term, tensors, options)


def _sum(terms: list[_WeightedTerm], values: dict[str, Tensor]) -> Tensor:
    """(B,) values of terms -> (B,) their weighted sum."""
    return torch.stack([term.weight * values[term.name] for term in terms]).sum(dim=0)


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
