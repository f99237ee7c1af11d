"""Steps added up into the values of a progress line: loss, speed, time waiting for data, memory, time left."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from depthray.config.sections import Recipe
from depthray.training.state import State
from depthray.training.step import StepResult


@dataclass(frozen=True)
class Interval:
    """The steps between two progress lines."""

    epoch: int  # the current one, from 1
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    wait_share: float  # of the time, spent waiting for data
    memory_gib: float
    eta_seconds: float
    bad_steps: int
    overflow_steps: int = 0  # of fp16, while it finds the scale of its loss


class ThroughputMeter:
    """Adds up the steps between two progress lines."""

    def __init__(self, recipe: Recipe) -> None:
        self.every, self.batch_size = recipe.train.log_seconds, recipe.train.batch_size
        self._restart()

    def _restart(self) -> None:
        self.since = time.perf_counter()
        self.losses: list[float] = []
        self.images, self.waited, self.took, self.lr = 0, 0.0, 0.0, 0.0

    def add(self, results: Iterable[StepResult], *, lr: float, waited: float, took: float) -> None:
        """Count one step, and the results that are known since the last one: its own, or that of the step before."""
        # A skipped step took time but has no loss.
        self.losses += [result.loss for result in results if math.isfinite(result.loss)]
        self.images += self.batch_size  # of all workers: the batch is the global one
        self.waited += waited
        self.took += took
        self.lr = lr

    @property
    def due(self) -> bool:
        """Whether a line is due."""
        return time.perf_counter() - self.since >= self.every

    def interval(self, state: State, steps_per_epoch: int) -> Interval:
        """The steps since the last interval; the next one begins."""
        at, epochs = state.position, state.phases.epochs
        steps = epochs * steps_per_epoch
        interval = Interval(
            epoch=at.epoch + 1,
            epochs=epochs,
            step=at.step,
            steps=steps,
            loss=sum(self.losses) / len(self.losses) if self.losses else math.nan,
            lr=self.lr,
            images_per_second=self.images / self.took,
            wait_share=self.waited / self.took,
            memory_gib=memory_gib(state.device),
            eta_seconds=(steps - at.step) * self.took * self.batch_size / self.images,  # at the speed of this interval
            bad_steps=at.bad_steps,
            overflow_steps=at.overflow_steps,
        )
        self._restart()
        return interval


def memory_gib(device: torch.device) -> float:
    """Peak memory of this process: on the GPU if it has one, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30  # of tensors alone, without what the allocator keeps
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts it in KiB
