"""What a run logs while it trains: records of progress, a table of results, curves and images for TensorBoard."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from depthray import distributed
from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.evaluation import protocols
from depthray.evaluation.report import metric_title
from depthray.imaging import plots, sheets
from depthray.runs import layout, progress, trackers
from depthray.runs.progress import Record
from depthray.runs.tensorboard import Board
from depthray.storage.environment import retry_seconds
from depthray.storage.local import replace
from depthray.storage.os_errors import is_transient
from depthray.storage.retry import Retry
from depthray.training.loop import Epoch
from depthray.training.throughput import Interval

_PICTURE_EVERY = 30.0  # seconds between two pictures: drawing one takes a third of a second, which training waits for
_SCORES = ("abs_rel", "rmse", "delta1", "iou")  # drawn, where they are scored; else the first three
_PANELS = 3
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


class ResultFiles:
    """RUN/results.csv and results.png, the scores by epoch; a disk that fails leaves them old and the run goes on."""

    def __init__(self, run: Path, monitor: str, log: Callable[[str], None]) -> None:
        self.run, self.monitor, self.log = run, monitor, log
        self._drawn = time.monotonic()
        self._undrawn = self._failed = False
        self._is_wanted = "csv" in trackers.chosen()

    def epoch(self) -> None:
        """Write the table after an epoch was recorded, and now and then the picture."""
        if not self._is_wanted:
            return
        self._undrawn = True
        self._write(draw=time.monotonic() - self._drawn >= _PICTURE_EVERY)

    def close(self) -> None:
        """Draw what is not drawn yet."""
        if self._undrawn:
            self._write(draw=True)

    def _write(self, *, draw: bool) -> None:
        try:
            # All epochs from the records: a run that was resumed, or went back, has others than this process has seen.
            epochs = progress.epochs(progress.read(self.run))
            replace(self.run / layout.RESULTS_TABLE, as_table(epochs).encode())
            if draw and len(epochs) > 1:  # one point is no curve
                replace(self.run / layout.RESULTS_PICTURE, draw_results(epochs, monitor=self.monitor))
            if draw:
                self._drawn, self._undrawn = time.monotonic(), False
        except OSError as error:
            if not self._failed:  # each epoch fails while the disk does; one line is enough
                self.log(f"storage: {layout.RESULTS_TABLE} is old: {error.strerror or error}; training continues")
            self._failed = True


def as_table(epochs: Sequence[Record]) -> str:
    """Records of epochs -> CSV, a line an epoch: its number and step, scores, numbers of training; empty for NaN."""
    names = dict.fromkeys(name for record in epochs for name in record if name not in ("kind", "time"))
    ordered = ["epoch", "step", *(name for name in names if name not in ("epoch", "step"))]
    text = io.StringIO()
    table = csv.DictWriter(text, ordered, restval="", lineterminator="\n", extrasaction="ignore")
    table.writeheader()
    table.writerows(epochs)
    return text.getvalue()


def draw_results(epochs: Sequence[Record], *, monitor: str) -> bytes:
    """Records of epochs -> a PNG of their loss, the score that ranks the checkpoints, and two others."""
    names = dict.fromkeys(name for record in epochs for name in record)
    scores = [name for name in names if name not in (*OF_TRAINING, "kind", "time", "epoch", "step")]
    usual = [name for name in _SCORES if name in scores] or scores
    chosen = [*([monitor] if monitor in scores else []), *(name for name in usual if name != monitor)][:_PANELS]
    panels = [plots.Panel("training loss", [_curve("train_loss", [each for each in epochs if each["epoch"]])])]
    panels += [plots.Panel(metric_title(name), [_curve(name, epochs)]) for name in chosen]
    return sheets.encode_png(plots.draw_epochs(panels))


def _curve(name: str, epochs: Sequence[Record]) -> plots.PlotLine:
    """The line of a metric; the file has null for what is not finite."""
    values = [math.nan if each.get(name) is None else float(each[name]) for each in epochs]
    return plots.PlotLine(name, [each["epoch"] for each in epochs], values)


class Curves:
    """TensorBoard of a run and the trackers of `--log`, opened with its first event.

    A disk that fails leaves a gap in TensorBoard and does not end the run. It is opened only after the first step:
    importing its writer takes a second, which training should not wait for.
    """

    def __init__(self, recipe: Recipe, run: Path, log: Callable[[str], None]) -> None:
        self.recipe, self.run, self.log = recipe, run, log
        chosen = trackers.chosen()
        self.is_wanted = "tensorboard" in chosen
        self.trackers = trackers.Trackers(run, recipes.flatten(recipe), log)
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
        self.trackers.log(event.step, _curves(event))

    def epoch(self, event: Epoch) -> None:
        self._draw(event.step - 1, lambda board: _draw(board, event))
        self.trackers.log(event.step, _scores(event))

    def further(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Draw the scores of data sets of `eval.also`, by their short names."""
        curves = {f"also/{name}/{metric}": value for name, each in scores.items() for metric, value in each.items()}
        self._draw(step - 1, lambda board: board.scalars(step, curves))
        self.trackers.log(step, curves)

    def close(self) -> None:
        self.trackers.close()
        self._draw(0, lambda board: board.close(), reopen=False)  # a writer that failed is not opened only to be closed

    def _draw(self, first_step: int, action: Callable[[Board], None], *, reopen: bool = True) -> None:
        # The writer's thread fails after the call that caused it, so any call may raise; the next opens a new file.
        try:
            if self.board is None and reopen and self.is_wanted:
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
    scored = protocols.of(recipe).scores(recipe.data.targets)
    # The HParams tab lists runs by the scores that are named here, before there is a first one.
    board.hparams(recipes.flatten(recipe), [f"val/{name}" for name in scored])
    return board


def _draw(board: Board, event: Epoch) -> None:
    board.scalars(event.step, _scores(event))
    board.contact_sheets(event.step, event.frames)
    depths = [row for row in event.frames if row.kind == "depth"]
    for name in ("truth", "prediction") if depths else ():  # 0 stands for unmeasured depth
        maps = [getattr(row, name).ravel() for row in depths]
        board.histogram(event.step, f"depth/{name}", np.concatenate([depth[depth > 0] for depth in maps]))


def _scores(event: Epoch) -> dict[str, float]:
    """The curves of an epoch."""
    curves = {f"val/{key}": value for key, value in scores_of(event.metrics).items()}
    return curves | ({"train/epoch_loss": event.metrics["train_loss"]} if event.number else {})


def scores_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """The validation scores among the metrics of an epoch."""
    return {key: value for key, value in metrics.items() if key not in OF_TRAINING}
