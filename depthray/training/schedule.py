"""Learning rates as a pure function of the step, and the plateau of scores that lowers them."""

from __future__ import annotations

import math

from depthray.config.sections import Optim, Recipe, Schedule

# Both as torch's OneCycleLR has them by default.
ONECYCLE_RISE = 0.3  # share of the steps, where optim.warmup_steps is 0
ONECYCLE_START = 1 / 25  # of the peak
BETTER = 1e-4  # a score counts as better only if it is lower by this share: noise would delay every drop


def learning_rate(recipe: Recipe, step: int, *, steps_per_epoch: int, drops: int = 0) -> float:
    """The rate of step `step` (from 0) of a run: a pure function of it and of the plateau's `drops`."""
    schedule, peak, step, steps = _phase(recipe, step, steps_per_epoch=steps_per_epoch)
    section = recipe.optim
    if schedule == "onecycle":
        return _onecycle(section, lr=peak, step=step, steps=steps)
    if step < section.warmup_steps:
        # The + 1 gives the first step a rate above 0.
        return peak * (step + 1) / section.warmup_steps
    if schedule == "cosine":
        done = (step - section.warmup_steps) / max(1, steps - section.warmup_steps)
        return _half_cosine(peak, section.min_lr, done)
    if schedule == "step":
        return peak * float(section.step_factor ** (step // steps_per_epoch // section.step_epochs))
    if schedule == "plateau":
        # The inner min: a peak that is below min_lr already is not raised to it.
        return max(peak * float(section.step_factor**drops), min(peak, section.min_lr))
    return peak


def _phase(recipe: Recipe, step: int, *, steps_per_epoch: int) -> tuple[Schedule, float, int, int]:
    """Schedule and peak rate of the phase of a step, the step counted from its start, and the steps it has."""
    first = recipe.train.epochs * steps_per_epoch
    if recipe.finetune.epochs and step >= first:
        section = recipe.finetune  # counted from its own start: it has a warm-up of its own
        return section.schedule, section.lr, step - first, section.epochs * steps_per_epoch
    return recipe.optim.schedule, recipe.optim.lr, step, first


def _onecycle(section: Optim, *, lr: float, step: int, steps: int) -> float:
    """Up from a 25th of the peak over the warm-up steps (else 30 % of all), then down to min_lr, as half cosines."""
    rise = section.warmup_steps or max(1, round(ONECYCLE_RISE * steps))
    if step < rise:
        return _half_cosine(lr * ONECYCLE_START, lr, step / rise)
    return _half_cosine(lr, section.min_lr, (step - rise) / max(1, steps - rise))


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
