"""What is differentiated: a step's batches through the network and its loss, compiled or captured if wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from torch import Tensor

from depthray import distributed, losses, models
from depthray.batch import Batch, Prediction
from depthray.config.sections import Loss, Recipe
from depthray.data.mixing import data_sets
from depthray.training.state import State
from depthray.training.steps import depthwise_gradients
from depthray.training.steps.step_graph import StepGraph

LossSections = Loss | tuple[Loss, ...]  # of all images, or of each data set


class Objective:
    """The loss of each image of a step and its gradient, as a recipe trains it; it lasts for many epochs."""

    def __init__(self, recipe: Recipe, state: State) -> None:
        section, curriculum = recipe.train, recipe.curriculum
        outputs: tuple[str, ...] = getattr(state.model, "outputs", ("depth",))
        unused = losses.unused_outputs(outputs, *data_sets.losses_of(recipe))
        self.network = distributed.wrap(state.model, sync_batchnorm=section.sync_batchnorm, unused_outputs=unused)
        self.compiles = section.compile
        if self.compiles:
            # Not dynamic: sizes differ only between stages of a curriculum, and code for any size is slower.
            self.network = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]
        self.precision, self.scaler = state.precision, state.scaler
        stages = (1 + len(curriculum.sizes)) * (1 + len(curriculum.scale_weights))
        self.graph = StepGraph(state.model, most=stages) if section.cuda_graph else None
        self._losses: dict[LossSections, Callable[[Prediction, Batch], Tensor]] = {}

    def backward(self, batches: Iterable[Batch], section: LossSections, *, parts: int, images: int) -> Tensor:
        """`parts` micro-batches (b,C,H,W) on the device -> (B,) loss of each image.

        Gradients are of the mean over the global batch; `images` are those of this process.
        """

        def compute(batches: Iterable[Batch]) -> Tensor:
            return self._differentiate(batches, section, parts=parts, images=images)

        if self.graph is None:
            return compute(batches)
        return self.graph.run([_with_every_map(batch) for batch in batches], compute, key=(section, images))

    def _differentiate(self, batches: Iterable[Batch], section: LossSections, *, parts: int, images: int) -> Tensor:
        per_image = []
        for number, batch in enumerate(batches, start=1):
            # Gradients travel between processes once a step, with the last micro-batch.
            with distributed.hold_gradients(self.network, hold=number < parts):
                loss = self._loss(batch, section)
                self.scaler.scale(loss.sum() / images).backward()  # type: ignore[no-untyped-call]
            per_image.append(loss.detach())
        return torch.cat(per_image)

    def _loss(self, batch: Batch, section: LossSections) -> Tensor:
        """A batch (b,C,H,W) -> (b,) loss of each image, with gradient"""
        if section not in self._losses:  # one for each stage of a curriculum of weights
            loss = losses.prepare(section) if isinstance(section, Loss) else losses.prepare_sets(section)
            self._losses[section] = torch.compile(loss, dynamic=False) if self.compiles else loss
        if self.compiles:
            batch = _with_every_map(batch)
        # What torch.compile makes of a network is not changed from outside.
        gradients = nullcontext() if self.compiles else depthwise_gradients.active(self.precision)
        with self.precision.autocast(), gradients:
            prediction = models.run(self.network, batch)
        return self._losses[section](prediction, batch)


def _with_every_map(batch: Batch) -> Batch:
    """The tensors of a batch, with keys that are the same for every batch of a run: what is made for one fits all."""
    tensors: Batch = {key: value for key, value in batch.items() if isinstance(value, Tensor)}  # type: ignore[assignment]
    if "mask" in tensors and "mask_valid" not in tensors:  # left out where no pixel is void
        tensors["mask_valid"] = torch.ones_like(tensors["mask"], dtype=torch.bool)
    return tensors
