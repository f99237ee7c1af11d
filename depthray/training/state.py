"""Everything that changes while a recipe is trained, and its way into a checkpoint and back.

Random numbers are no part of it: weights, order, augmentation and dropout are drawn from (seed, epoch, step, rank), so
a position is enough to continue, at any world size. What follows is equal to the last bit on CPUs in float32, and on
GPUs with train.deterministic; without it GPUs add some gradients in an order that changes from run to run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from depthray import models
from depthray.checkpoints.load import CheckpointContents
from depthray.checkpoints.model_facts import ModelFacts
from depthray.checkpoints.origin import Origin
from depthray.config.sections import Recipe
from depthray.errors import CheckpointError
from depthray.evaluation.comparing.paired import FrameScores
from depthray.runtimes import allocator
from depthray.runtimes.precision import Precision
from depthray.training import averaging, optim, schedule
from depthray.training.freezing import Freezing
from depthray.training.gain import Scores
from depthray.training.steps.step_graph import check_graph
from depthray.weights import start as weights


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0  # epochs finished
    step_in_epoch: int = 0  # steps of the current epoch
    step: int = 0  # steps in all
    seconds: float = 0.0  # wall clock in training, over all resumes
    loss_sum: float = 0.0  # of the current epoch, over its good steps
    good_steps: int = 0  # of the current epoch
    bad_steps: int = 0  # steps skipped for a non-finite loss or gradient, in all
    overflow_steps: int = 0  # steps skipped while fp16 found the scale of its loss, in all
    overflows_in_row: int = 0
    bad_in_row: int = 0
    best: float = math.inf  # lowest rank key of a validation score
    best_epoch: int = 0
    mark: float = math.inf  # the rank key that the next must be below by train.min_delta
    mark_epoch: int = 0
    first_phase: int = 0  # epochs of the first of two phases, where train.patience ended it


@dataclass(frozen=True)
class Hooks:
    """Callbacks of whoever started the run. The defaults do nothing; on a Ray cluster `cluster.elastic` gives them."""

    stop_requested: Callable[[], bool] = lambda: False  # called after each step and epoch; rank 0's answer counts
    save_requested: Callable[[], bool] = lambda: False  # called on each process after each step
    before_save: Callable[[], None] = lambda: None  # called on rank 0; raises where another group has taken over
    saved: Callable[[], None] = lambda: None  # called on rank 0 once a requested save point is on disk


@dataclass
class State:
    """Model, optimiser and averages of a run on one process, its position, and the hooks of whoever started it."""

    recipe: Recipe
    device: torch.device
    model: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: averaging.Average | None
    plateau: schedule.Plateau
    precision: Precision
    freezing: Freezing
    position: Position = field(default_factory=Position)
    hooks: Hooks = field(default_factory=Hooks)
    origin: Origin | None = None  # of the weights that the run started from
    notes: tuple[str, ...] = ()  # lines about them, of a run that begins
    can_predict: bool = False  # the run begins, with weights of a whole network
    before: Scores = field(default_factory=dict)  # what those weights scored, before anything was trained

    @property
    def predictor(self) -> nn.Module:
        """The model that is validated and saved: the averaged one where the recipe averages."""
        return self.model if self.average is None else self.average.network(self.model)

    @property
    def phases(self) -> schedule.Phases:
        """The epochs of the run's two phases."""
        return schedule.Phases.of(self.recipe, ended=self.position.first_phase)

    @property
    def is_out_of_time(self) -> bool:
        """Whether `train.max_minutes` is over."""
        limit = self.recipe.train.max_minutes * 60
        return limit > 0 and self.position.seconds >= limit

    def should_stop(self) -> bool:
        """Whether this process would end the run: a stop was requested, or the time limit is over."""
        return self.hooks.stop_requested() or self.is_out_of_time

    def restart_optimiser(self, lr: float) -> None:
        """A fresh optimiser and plateau for a new phase."""
        self.freezing.release()  # the optimiser has all that is trained in any epoch
        self.optimiser = optim.build_optimiser(self.model, self.recipe.optim, lr=lr)
        self.freezing.apply(self.position.epoch)
        self.plateau = schedule.Plateau(self.recipe.optim.plateau_patience)

    def contents(
        self, metrics: dict[str, float], *, fingerprint: str, facts: ModelFacts | None = None
    ) -> CheckpointContents:
        """What a checkpoint of this moment holds; the tensors are the live ones."""
        state: dict[str, Any] = {
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": self.plateau.state_dict(),
            "position": asdict(self.position),
        }
        # The weights file holds the average, which is what predicts; training continues from the raw weights.
        if self.average is not None:
            state["average"] = self.average.state_dict()
            state["model"] = self.model.state_dict()
        if self.before:
            state["before"] = {name: scores.state_dict() for name, scores in self.before.items()}
        return CheckpointContents(
            weights=dict(self.predictor.state_dict()),
            state=state,
            recipe=self.recipe,
            metrics=metrics,
            epoch=self.position.epoch,
            step=self.position.step,
            fingerprint=fingerprint,
            origin=self.origin,
            arithmetic=self.precision.describe(deterministic=self.recipe.train.deterministic),
            facts=facts,
        )


def begin(recipe: Recipe, device: torch.device, *, start: bool = True) -> State:
    """The state before the first step; the same on every process. `start=False` when weights follow anyway."""
    precision = Precision.of(recipe.train.precision, device)
    precision.apply(deterministic=recipe.train.deterministic)
    allocator.keep_freed_memory()
    torch.manual_seed(recipe.seed)
    model = models.build_model(recipe.model, recipe.data.inputs)
    report = weights.start(model, recipe.model) if start else weights.StartReport()
    model = model.to(device)
    if recipe.train.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if recipe.train.cuda_graph:
        check_graph(device)
    freezing = Freezing(model, recipe.optim, batchnorm=recipe.train.freeze_batchnorm)
    return State(
        recipe=recipe,
        device=device,
        model=model,
        optimiser=optim.build_optimiser(model, recipe.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=precision.scaled),
        average=None if recipe.optim.average == "none" else averaging.Average(model, recipe.optim),
        plateau=schedule.Plateau(recipe.optim.plateau_patience),
        precision=precision,
        origin=report.origin,
        notes=(*report.notes, *([precision.warning] if precision.warning else [])),
        can_predict=report.can_predict(recipe.depth_kind),
        freezing=freezing,
    )


def restore(contents: CheckpointContents, recipe: Recipe, device: torch.device) -> State:
    """The state of a checkpoint, to continue from exactly there."""
    state = begin(recipe, device, start=False)
    state.origin = contents.origin
    saved = contents.state
    try:
        state.model.load_state_dict(saved.get("model", contents.weights))
        if state.average is not None:
            state.average.load_state_dict(saved["average"])
        state.position = Position(**saved["position"])
        state.optimiser.load_state_dict(saved["optimiser"])
        # The device may have changed to another kind, with another format: only fp16 has a scale, and begins without.
        if state.scaler.is_enabled() and saved["scaler"]:
            state.scaler.load_state_dict(saved["scaler"])
        state.plateau.load_state_dict(saved["plateau"])
        before = saved.get("before", {})
        state.before = {name: FrameScores.from_state_dict(scores) for name, scores in before.items()}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"the checkpoint at step {contents.step} does not fit this recipe: {reason}") from None
    return state
