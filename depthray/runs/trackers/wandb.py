"""Weights & Biases: a run in RUN/wandb, which `wandb sync` uploads later; at once with WANDB_MODE=online."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class WandbTracker:
    """A run of Weights & Biases."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else errors are sent home, offline or not
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "depthray"),
            name=run.name,
            dir=str(run),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(settings),
            settings=wandb.Settings(silent=True, console="off"),  # the terminal is that of the run's own progress
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


def open_tracker(run: Path, settings: Mapping[str, Any]) -> WandbTracker:
    """A new run of Weights & Biases with the recipe's keys as its configuration."""
    return WandbTracker(run, settings)
