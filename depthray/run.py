"""A run is a folder: recipe, progress, TensorBoard, checkpoints. `record` trains into it and goes on where it stopped.

RUN/recipe.yaml  progress.jsonl  tensorboard/  checkpoints/epoch-0003-step-00000120/
"""

from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import numpy as np
import torch

from depthray import checkpoint, distributed, models, progress
from depthray import recipe as recipes
from depthray.data.frames import Frames
from depthray.errors import DataError, UsageError
from depthray.meter import Interval
from depthray.protocols import PROTOCOLS
from depthray.sections import Recipe
from depthray.state import State, begin, restore
from depthray.tensorboard import Board
from depthray.train import Epoch, fit
from depthray.words import read_yaml

OF_TRAINING = ("train_loss", "lr", "bad_steps", "seconds")  # the numbers of an epoch that are no scores
STOP = "STOP"  # a file of this name in the run's folder ends training after the step under way, saved
# A run may be lengthened, moved or shown differently when it is taken up again; all else would make it another run.
FREE_ON_RESUME = {
    "about",
    "data.root",
    "data.workers",
    "train.epochs",
    "train.max_minutes",
    "train.patience",
    "train.log_seconds",
    "train.save_every_steps",
    "train.keep_best",
    "finetune.epochs",
}


def check_model(recipe: Recipe, *, pretrained: bool) -> None:
    """Build the network without memory for its weights, to meet what is wrong with its section in a moment.

    With `pretrained`, the weights it begins with are read (and fetched) as well, and must fit.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter")
        network = models.build_model(recipe.model, recipe.data.inputs, pretrained=pretrained)
    check_targets(network, recipe)


def check_targets(network: torch.nn.Module, recipe: Recipe) -> None:
    """Raise UsageError for a target that the network does not predict."""
    gives = getattr(network, "gives", ("depth",))
    if missing := [key for key in recipe.data.targets if key not in gives]:
        raise UsageError(
            f"model.name={recipe.model.name} predicts {' and '.join(key for key in gives if key != 'pyramid')}, and "
            f"data.targets wants {missing[0]}; give another model.name, or data.targets of what it predicts"
        )


def prepare(run: Path, recipe: Recipe, *, resume: bool) -> None:
    """Make the run's folder, or check that this recipe may go on in it.

    Raises UsageError for a folder that holds a run when `resume` is not asked, and for a recipe that differs.
    """
    saved = run / "recipe.yaml"
    if saved.exists():
        if not resume:
            raise UsageError(f"{run} already holds a run; give --resume to go on with it, or another --out")
        _same(recipes.parse(read_yaml(saved), where=str(saved), training=False), recipe, run)
    try:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        saved.write_text(recipes.dump(recipe), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the run folder {run}: {error.strerror}") from None
    (run / STOP).unlink(missing_ok=True)


def _same(old: Recipe, new: Recipe, run: Path) -> None:
    changed = {key: pair for key, pair in recipes.difference(old, new).items() if key not in FREE_ON_RESUME}
    if changed:
        what = ", ".join(f"{key} was {before}, is {after}" for key, (before, after) in changed.items())
        raise UsageError(f"{run} was trained with another recipe ({what}); use the same words, or another --out")


def record(
    recipe: Recipe, run: Path, device: torch.device, *, show: Callable[[progress.Record], None] = lambda _: None
) -> Iterator[Epoch]:
    """Train a recipe into a prepared run folder, from its newest good checkpoint if it has one; yields each epoch.

    Every process calls it; rank 0 writes. `show` is given each progress record on rank 0.
    """
    frames = Frames.open(recipe)
    log = _Log(run, show)
    state = _start(recipe, run, device, frames, log)
    check_targets(state.model, recipe)
    state.stop = (run / STOP).exists
    if not distributed.is_main():
        yield from (event for event in fit(recipe, state, frames) if isinstance(event, Epoch))
        return
    for doubt in frames.doubts():
        log.note(doubt)
    first_step = state.position.step
    writer = checkpoint.Writer(run / "checkpoints", keep_best=recipe.train.keep_best, monitor=recipe.eval.monitor)
    board: Board | None = None
    try:
        for event in fit(recipe, state, frames):
            if board is None:
                writer.reserve(state.contents({}, fingerprint=frames.fingerprint))
                board = _board(recipe, run, first_step=first_step)
            if isinstance(event, Interval):
                log.interval(event)
                board.scalars(event.step, _curves(event))
                continue
            metrics = event.metrics if isinstance(event, Epoch) else {}
            writer.save(state.contents(metrics, fingerprint=frames.fingerprint))
            if isinstance(event, Epoch):
                log.epoch(event)
                _draw(board, event)
                yield event
            elif event.reason:
                log.note(f"stopped at step {state.position.step}: {event.reason}; go on with --resume")
    finally:
        writer.wait()
        if board:
            board.close()


def _start(recipe: Recipe, run: Path, device: torch.device, frames: Frames, log: _Log) -> State:
    """The state to begin with; rank 0 chooses the checkpoint for all."""
    found = checkpoint.latest(run / "checkpoints", log.note) if distributed.is_main() else None
    found = distributed.broadcast(found)
    if found is None:
        return begin(recipe, device)
    contents = checkpoint.load(found, state=True)
    if contents.fingerprint != frames.fingerprint:
        raise DataError(
            f"the frames in {recipe.data.root or recipe.data.source} are not those of {found}: "
            f"their fingerprint differs; give the data the run began with, or start a new run"
        )
    state = restore(contents, recipe, device)
    if distributed.is_main():
        log.note(f"resumed from {found.name} (epoch {state.position.epoch}, step {state.position.step})")
    return state


class _Log:
    """Progress records to the run's file and to whoever watches; only rank 0 has something to say."""

    def __init__(self, run: Path, show: Callable[[progress.Record], None]) -> None:
        self.run, self.show = run, show

    def _write(self, record: progress.Record) -> None:
        if distributed.is_main():
            progress.append(self.run, record)
            self.show(record)

    def interval(self, event: Interval) -> None:
        self._write({"kind": "interval", **asdict(event)})

    def epoch(self, event: Epoch) -> None:
        self._write({"kind": "epoch", "epoch": event.number, "step": event.step, **event.metrics})
        if event.ended:
            self.note(f"training ended: {event.ended}")

    def note(self, text: str) -> None:
        self._write({"kind": "note", "text": text})


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
    """TensorBoard, opened only after the first step: importing its writer takes a second nobody should wait for."""
    board = Board(run / "tensorboard", first_step=first_step)
    scored = PROTOCOLS[recipe.eval.protocol].scores(recipe.data.targets)
    board.hparams(recipes.flatten(recipe), [f"val/{name}" for name in scored])
    return board


def _draw(board: Board, event: Epoch) -> None:
    curves = {f"val/{key}": value for key, value in scores_of(event.metrics).items()}
    board.scalars(event.step, {**curves, "train/epoch_loss": event.metrics["train_loss"]})
    board.pictures(event.step, event.frames)
    depths = [row for row in event.frames if row.kind == "depth"]
    for name in ("truth", "prediction") if depths else ():
        maps = [getattr(row, name).ravel() for row in depths]
        board.histogram(event.step, f"depth/{name}", np.concatenate([depth[depth > 0] for depth in maps]))


def scores_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """What an epoch's numbers say of the validation frames."""
    return {key: value for key, value in metrics.items() if key not in OF_TRAINING}


def stop_on_signals(run: Path, say: Callable[[str], None]) -> None:
    """On SIGTERM or the first Ctrl-C, ask the run to save and stop; a second Ctrl-C ends at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        (run / STOP).touch()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("stopping after the step under way, with a checkpoint; Ctrl-C again ends at once")

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)


def summary(run: Path) -> tuple[Path, dict[str, float]]:
    """The best checkpoint of a run and its metrics. Raises CheckpointError where there is none yet."""
    best = checkpoint.resolve(run)
    scores: dict[str, float] = json.loads((best / "metrics.json").read_text(encoding="utf-8"))
    return best, scores
