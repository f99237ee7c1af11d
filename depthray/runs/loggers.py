"""What a run logs while it trains: records of progress, and curves and images for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from depthray import distributed
from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.evaluation.protocols import PROTOCOLS
from depthray.runs import layout, progress
from depthray.runs.tensorboard import Board
from depthray.storage.environment import retry_seconds
from depthray.storage.os_errors import is_transient
from depthray.storage.retry import Retry
from depthray.training.loop import Epoch
from depthray.training.throughput import Interval

OF_TRAINING = ("train_loss", "lr", "bad_steps", "seconds")  # the numbers of an epoch that are no scores


class ProgressLog:
    """Writes progress records to the run's file and shows them; only rank 0 does."""

    def __init__(self, run: Path, show: Callable[[progress.Record], None]) -> None:
        self.file, self.show = progress.Appender(run, retry_seconds=retry_seconds()), show

    def _write(self, record: progress.Record) -> None:
        if distributed.is_main():
            self.file.append(record)
            self.show(record)

    def flush(self) -> None:
        """Write the records that wait, also after a failure of the disk."""
        # At the end of a run nothing would add them later.
        Retry(retry_seconds(), is_transient=is_transient).run(self.file.flush)

    def interval(self, event: Interval) -> None:
        self._write({"kind": "interval", **asdict(event)})

    def epoch(self, event: Epoch) -> None:
        self._write({"kind": "epoch", "epoch": event.number, "step": event.step, **event.metrics})
        if event.note:
            self.note(event.note)
        for path, scores in event.further.items():
            self.further(path, scores, epoch=event.number, step=event.step)

    def further(self, path: str, scores: Mapping[str, float], *, epoch: int, step: int) -> None:
        """Log the scores of a data set of `eval.also`."""
        shown = " ".join(f"{key} {value:.4f}" for key, value in scores.items())
        text = f"epoch {epoch}, {path}: {shown}"
        self._write({"kind": "further", "set": path, "epoch": epoch, "step": step, **scores, "text": text})

    def state(self, state: progress.RecordedState, text: str, *, epoch: int, step: int, **details: int) -> None:
        """Log that the run is in another state since that epoch and step, with a text for people."""
        self._write(progress.state_record(state, text, epoch=epoch, step=step, **details))

    def note(self, text: str) -> None:
        self._write({"kind": "note", "text": text})


class Curves:
    """TensorBoard of a run, opened with its first event; a disk that fails leaves a gap and does not end the run.

    It is opened only after the first step: importing its writer takes a second, which training should not wait for.
    """

    def __init__(self, recipe: Recipe, run: Path, log: Callable[[str], None]) -> None:
        self.recipe, self.run, self.log = recipe, run, log
        self.board: Board | None = None
        self.is_open = self.failed = False

    def open(self, *, first_step: int) -> None:
        """Hide what an earlier process wrote about the steps after the first one, as these are trained again.

        Only the first call does.
        """
        if not self.is_open:
            self.is_open = True
            self._draw(first_step, lambda board: None)

    def interval(self, event: Interval) -> None:
        # If this opens a new file, what was drawn from this step on is hidden, and drawn again.
        self._draw(event.step - 1, lambda board: board.scalars(event.step, _curves(event)))

    def epoch(self, event: Epoch) -> None:
        self._draw(event.step - 1, lambda board: _draw(board, event))

    def further(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Draw the scores of data sets of `eval.also`, by their short names."""
        curves = {f"also/{name}/{metric}": value for name, each in scores.items() for metric, value in each.items()}
        self._draw(step - 1, lambda board: board.scalars(step, curves))

    def close(self) -> None:
        self._draw(0, lambda board: board.close(), reopen=False)  # a writer that failed is not opened only to be closed

    def _draw(self, first_step: int, action: Callable[[Board], None], *, reopen: bool = True) -> None:
        # The writer's thread fails after the call that caused it, so any call may raise; the next opens a new file.
        try:
            if self.board is None and reopen:
                self.board = _board(self.recipe, self.run, first_step=first_step)
            if self.board is not None:
                action(self.board)
        except OSError as error:
            self.board = None
            if not self.failed:  # each event fails while the disk does; one line is enough
                self.log(f"storage: TensorBoard has a gap: {error.strerror or error}; training continues")
            self.failed = True


def _curves(event: Interval) -> dict[str, float]:
    return {
        "train/loss": event.loss,
        "train/lr": event.lr,
        "speed/images_per_second": event.images_per_second,
        "speed/data_wait_share": event.wait_share,
        "speed/memory_gib": event.memory_gib,
        "train/skipped_steps": float(event.bad_steps),
    }


def _board(recipe: Recipe, run: Path, *, first_step: int) -> Board:
    board = Board(run / layout.TENSORBOARD, first_step=first_step)
    scored = PROTOCOLS[recipe.eval.protocol].scores(recipe.data.targets)
    # The HParams tab lists runs by the scores that are named here, before there is a first one.
    board.hparams(recipes.flatten(recipe), [f"val/{name}" for name in scored])
    return board


def _draw(board: Board, event: Epoch) -> None:
    curves = {f"val/{key}": value for key, value in scores_of(event.metrics).items()}
    if event.number:
        curves["train/epoch_loss"] = event.metrics["train_loss"]
    board.scalars(event.step, curves)
    board.contact_sheet(event.step, event.frames)
    depths = [row for row in event.frames if row.kind == "depth"]
    for name in ("truth", "prediction") if depths else ():  # 0 stands for unmeasured depth
        maps = [getattr(row, name).ravel() for row in depths]
        board.histogram(event.step, f"depth/{name}", np.concatenate([depth[depth > 0] for depth in maps]))


def scores_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """The validation scores among the metrics of an epoch."""
    return {key: value for key, value in metrics.items() if key not in OF_TRAINING}
