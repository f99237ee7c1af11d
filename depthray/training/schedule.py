"""Learning rate and momentum as pure functions of the step, and the plateau of scores that lowers the rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from depthray.config.sections import Optim, Recipe, Schedule

# As torch's OneCycleLR has them by default.
ONECYCLE_RISE = 0.3  # share of the steps, where optim.warmup_steps is 0
ONECYCLE_START = 1 / 25  # of the peak
ONECYCLE_END = 1e-4  # of the start, where optim.min_lr is 0
ONECYCLE_MOMENTUM = (0.85, 0.95)  # at the peak of the rate, and at both ends
BETTER = 1e-4  # a score counts as better only if it is lower by this share: noise would delay every drop


@dataclass(frozen=True)
class Phases:
    """Epochs of a run's two phases."""

    first: int
    second: int

    @staticmethod
    def of(recipe: Recipe, *, ended: int = 0) -> Phases:
        """Those of a recipe; `ended` is the epoch after which `train.patience` ended the first, 0 if it has not."""
        return Phases(ended or recipe.train.epochs, recipe.finetune.epochs)

    @property
    def epochs(self) -> int:
        """Epochs of both."""
        return self.first + self.second


@dataclass(frozen=True)
class _Place:
    """A step within its phase."""

    schedule: Schedule
    peak: float
    step: int  # from the start of the phase
    steps: int  # of the phase


def learning_rate(recipe: Recipe, step: int, *, steps_per_epoch: int, drops: int = 0, ended: int = 0) -> float:
    """The rate of step `step` (from 0) of a run: a pure function of it, the plateau's `drops`, and `Phases.of`."""
    at, section = _place(recipe, step, steps_per_epoch=steps_per_epoch, ended=ended), recipe.optim
    if at.schedule == "onecycle":
        return _legacy_onecycle(section, at) if section.onecycle == "legacy" else _onecycle_rate(section, at)
    if at.step < section.warmup_steps:
        # The + 1 gives the first step a rate above 0.
        return at.peak * (at.step + 1) / section.warmup_steps
    if at.schedule == "cosine":
        done = (at.step - section.warmup_steps) / max(1, at.steps - section.warmup_steps)
        return _half_cosine(at.peak, section.min_lr, done)
    if at.schedule == "step":
        epoch = max(0, at.step // steps_per_epoch - section.step_delay)
        return at.peak * float(section.step_factor ** (epoch // section.step_epochs))
    if at.schedule == "plateau":
        # The inner min: a peak that is below min_lr already is not raised to it.
        return max(at.peak * float(section.step_factor**drops), min(at.peak, section.min_lr))
    return at.peak


def momentum(recipe: Recipe, step: int, *, steps_per_epoch: int, ended: int = 0) -> float | None:
    """The momentum of step `step` (from 0) of a run, where the schedule changes it; else None."""
    at, section = _place(recipe, step, steps_per_epoch=steps_per_epoch, ended=ended), recipe.optim
    if at.schedule != "onecycle" or section.onecycle == "legacy" or not section.cycle_momentum:
        return None
    low, high = ONECYCLE_MOMENTUM
    return _onecycle(section, at, start=high, peak=low, end=high)


def _place(recipe: Recipe, step: int, *, steps_per_epoch: int, ended: int) -> _Place:
    """Schedule and peak rate of the phase of a step, the step counted from its start, and the steps it has."""
    begins = Phases.of(recipe, ended=ended).first * steps_per_epoch
    if recipe.finetune.epochs and step >= begins:
        section = recipe.finetune  # counted from its own start: it has a warm-up of its own
        return _Place(section.schedule, section.lr, step - begins, section.epochs * steps_per_epoch)
    # Of the epochs that were planned: when patience ends the phase is not known before.
    return _Place(recipe.optim.schedule, recipe.optim.lr, step, recipe.train.epochs * steps_per_epoch)


def _onecycle_rate(section: Optim, at: _Place) -> float:
    start = at.peak * ONECYCLE_START
    return _onecycle(section, at, start=start, peak=at.peak, end=section.min_lr or start * ONECYCLE_END)


def _onecycle(section: Optim, at: _Place, *, start: float, peak: float, end: float) -> float:
    """From start to peak over the warm-up steps (else 30 % of all), then to end, as half cosines; like torch's."""
    # Torch lets the peak fall between two steps, and the last step have the end's value.
    top, last = (section.warmup_steps or ONECYCLE_RISE * at.steps) - 1, at.steps - 1
    if at.step <= top:
        return _half_cosine(start, peak, at.step / top if top else 1.0)
    return _half_cosine(peak, end, (at.step - top) / (last - top) if last > top else 1.0)


def _legacy_onecycle(section: Optim, at: _Place) -> float:
    """As depthray 0.2 had it: the peak a step later, and the end a step after the last."""
    rise = section.warmup_steps or max(1, round(ONECYCLE_RISE * at.steps))
    if at.step < rise:
        return _half_cosine(at.peak * ONECYCLE_START, at.peak, at.step / rise)
    return _half_cosine(at.peak, section.min_lr, (at.step - rise) / max(1, at.steps - rise))


def _half_cosine(start: float, end: float, done: float) -> float:
    """Half a cosine from start (done = 0) to end (done = 1, and after)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Plateau:
    """Counts the drops of the rate: one after every `patience` + 1 epochs in a row without a better score."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = math.inf
        self.waited = 0
        self.drops = 0

    def update(self, score: float) -> int:
        """Count an epoch's validation score (lower is better; NaN never is better) and return the drops so far."""
        if score < self.best - (BETTER * abs(self.best) if math.isfinite(self.best) else 0):
            self.best, self.waited = score, 0
            return self.drops
        self.waited += 1
        if self.waited > self.patience:
            self.drops, self.waited = self.drops + 1, 0
        return self.drops

    def state_dict(self) -> dict[str, float]:
        """Plain numbers, for a checkpoint."""
        return {"best": self.best, "waited": self.waited, "drops": self.drops}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from what `state_dict` returned."""
        self.best = float(state["best"])
        self.waited, self.drops = int(state["waited"]), int(state["drops"])
