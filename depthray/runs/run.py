"""A run is a folder: recipe, progress, TensorBoard, checkpoints. `record` trains into it and goes on where it stopped.

RUN/recipe.yaml  progress.jsonl  tensorboard/  checkpoints/epoch-0003-step-00000120/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import torch

from depthray import distributed
from depthray.checkpoints import load, save, select
from depthray.config import recipe as recipes
from depthray.config.overrides import read_yaml
from depthray.config.sections import Recipe
from depthray.errors import DataError, UsageError
from depthray.runs import download, progress
from depthray.runs.control import STOP as STOP
from depthray.runs.control import asked_to_stop
from depthray.runs.control import stop_on_signals as stop_on_signals
from depthray.runs.control import stopped as stopped
from depthray.runs.loggers import Curves, Log
from depthray.runs.loggers import scores_of as scores_of
from depthray.runs.upload import Mirror, send
from depthray.storage.local import explained, replace, sync_folder
from depthray.storage.remote import Folder, StorageError, is_remote, patience
from depthray.training import preflight
from depthray.training.dry_run import check_targets
from depthray.training.frames import Frames
from depthray.training.loop import Epoch, fit
from depthray.training.outside import Outside
from depthray.training.state import State, begin, restore
from depthray.training.throughput import Interval

PREPARING = 30.0  # seconds to wait for a store before a run: whoever starts it is there to see to it
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


def prepare(run: Path | str, recipe: Recipe, *, resume: bool) -> None:
    """Make the run's folder, or check that this recipe may go on in it.

    Raises UsageError for a folder that holds a run when `resume` is not asked, and for a recipe that differs.
    """
    if is_remote(run):
        _prepare_remote(Folder(run, patience=PREPARING), recipe, resume=resume)
        return
    run = Path(run)
    saved = run / "recipe.yaml"
    if saved.exists():
        if not resume:
            raise UsageError(f"{run} already holds a run; give --resume to go on with it, or another --out")
        _same(preflight.parse(read_yaml(saved), where=str(saved), training=False), recipe, run)
    try:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        replace(saved, recipes.dump(recipe).encode())  # in whole: without it the checkpoints cannot be gone on with
        sync_folder(run)
    except OSError as error:
        raise UsageError(f"cannot write the run folder {run}: {error.strerror}") from None
    (run / STOP).unlink(missing_ok=True)


def _prepare_remote(run: Folder, recipe: Recipe, *, resume: bool) -> None:
    if run.size(download.RECIPE) is not None:
        if not resume:
            raise UsageError(f"{run} already holds a run; give --resume to go on with it, or another --out")
        where = f"{run}/{download.RECIPE}"
        _same(preflight.parse(read_yaml(download.recipe_file(run.url)), where=where, training=False), recipe, run)
    if run.size(download.IDENTITY) is None or not resume:
        run.write(download.IDENTITY, uuid4().hex.encode())
    run.write(download.RECIPE, recipes.dump(recipe).encode())
    run.remove(STOP)
    (download.working_folder(run.url) / STOP).unlink(missing_ok=True)


def _same(old: Recipe, new: Recipe, run: Path | Folder) -> None:
    changed = {key: pair for key, pair in recipes.difference(old, new).items() if key not in FREE_ON_RESUME}
    if changed:
        what = ", ".join(f"{key} was {before}, is {after}" for key, (before, after) in changed.items())
        raise UsageError(f"{run} was trained with another recipe ({what}); use the same words, or another --out")


def record(
    recipe: Recipe,
    run: Path | str,
    device: torch.device,
    *,
    show: Callable[[progress.Record], None] = lambda _: None,
    outside: Outside | None = None,
) -> Iterator[Epoch]:
    """Train a recipe into a prepared run folder, from its newest good checkpoint if it has one; yields each epoch.

    Every process calls it; rank 0 writes. `show` is given each progress record on rank 0; `outside` is who started it.
    A run that lies remote is written into the working folder of rank 0's machine, and from there copied to its place
    while training goes on.
    """
    frames = Frames.open(recipe)
    remote = Folder(run, patience=patience()) if is_remote(run) else None
    run = download.working_folder(run) if remote else Path(run)
    log = Log(run, show)
    state = _start(recipe, run, device, frames, log, remote)
    check_targets(state.model, recipe)
    state.stop = lambda: asked_to_stop(run)
    state.outside = outside or state.outside
    if not distributed.is_main():
        yield from (event for event in fit(recipe, state, frames) if isinstance(event, Epoch))
        return
    for doubt in frames.doubts():
        log.note(doubt)
    with _mirrored(remote, run, state, log):
        yield from _main(recipe, run, state, frames, log)


def _main(recipe: Recipe, run: Path, state: State, frames: Frames, log: Log) -> Iterator[Epoch]:
    """The run on rank 0: trained, saved, logged and drawn."""
    section, first_step = recipe.train, state.position.step
    writer = save.Writer(
        run / select.FOLDER,
        keep_best=section.keep_best,
        monitor=recipe.eval.monitor,
        patience=patience(),
        say=log.note,
    )
    curves = Curves(recipe, run, log.note)
    begun = False
    try:
        for event in fit(recipe, state, frames):
            if not begun:
                begun = True
                writer.reserve(state.contents({}, fingerprint=frames.fingerprint))
                curves.open(first_step=first_step)
            if isinstance(event, Interval):
                log.interval(event)
                curves.interval(event)
                continue
            metrics = event.metrics if isinstance(event, Epoch) else {}
            state.outside.check()
            writer.save(state.contents(metrics, fingerprint=frames.fingerprint))
            if isinstance(event, Epoch):
                log.epoch(event)
                curves.epoch(event)
                yield event
            elif event.asked:
                writer.wait()
                log.note(f"saved at step {state.position.step}, as workers are about to change")
                state.outside.saved()
            elif event.reason:
                log.note(f"stopped at step {state.position.step}: {event.reason}; go on with --resume")
    except KeyboardInterrupt:
        writer.hurry()
        raise
    finally:
        try:
            writer.wait()
        finally:
            curves.close()
        log.flush()


@contextmanager
def _mirrored(remote: Folder | None, run: Path, state: State, log: Log) -> Iterator[None]:
    """Copy a run to where it lies remote while the body trains; when that fails for good, training stops, saved."""
    if remote is None:
        yield
        return
    mirror = Mirror(remote, run, log.note, patience=patience())
    state.stop = lambda: mirror.error is not None or asked_to_stop(run)
    try:
        yield
    except GeneratorExit:  # the caller wants no more epochs
        mirror.close()
        raise
    except Exception as error:
        with suppress(StorageError):  # what ended training is said, not what followed
            mirror.close()
        raise error
    except BaseException:
        mirror.close(wait=False)
        raise
    mirror.close()


def _start(
    recipe: Recipe, run: Path, device: torch.device, frames: Frames, log: Log, remote: Folder | None = None
) -> State:
    """The state to begin with; rank 0 chooses the checkpoint for all."""
    found = _choose(run, log, remote) if distributed.is_main() else None
    found = distributed.broadcast(found)
    if found and remote and not distributed.is_main():
        with explained(run):
            found = download.ensure(remote, run, found.name)
    if found is None:
        if distributed.is_main() and _has_trained(run):
            log.note("begins again at step 0: no checkpoint had been saved yet")
        return begin(recipe, device)
    contents = load.load(found, state=True)
    if contents.fingerprint != frames.fingerprint:
        raise DataError(
            f"the frames in {recipe.data.root or recipe.data.source} are not those of {found}: "
            f"their fingerprint differs; give the data the run began with, or start a new run"
        )
    state = restore(contents, recipe, device)
    if distributed.is_main():
        workers = f"{count} workers" if (count := distributed.world_size()) > 1 else "1 worker"
        at = state.position
        log.note(f"resumed from {found.name} (epoch {at.epoch}, step {at.step}) on {workers}")
    return state


def _has_trained(run: Path) -> bool:
    path = run / progress.FILE
    return path.exists() and progress.TRAINED in path.read_bytes()


def _choose(run: Path, log: Log, remote: Folder | None) -> Path | None:
    """The newest good checkpoint of a run; where other machines need it too, it lies remote as well."""
    if remote:
        with explained(run):
            download.take_up(remote, run, log.note)
    found = select.latest(run / select.FOLDER, log.note)
    if found and remote and distributed.world_size() > 1 and found.name not in download.complete(remote):
        send(remote, found)
    return found
