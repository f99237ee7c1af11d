"""A run is a folder (`depthray.runs.layout`): `prepare` makes it, `record` trains into it or resumes it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from depthray import distributed
from depthray.cards import run_card
from depthray.checkpoints import load, save, select
from depthray.config import advice
from depthray.config import recipe as recipes
from depthray.config.overrides import read_yaml
from depthray.config.sections import Recipe
from depthray.errors import CheckpointError, DataError, DepthrayError, UsageError
from depthray.runs import download, gain_report, progress, untrained
from depthray.runs.control import is_stop_requested
from depthray.runs.layout import CHECKPOINTS, EVALUATIONS, IDENTITY, MODEL_CARD, RECIPE, RESULTS_PICTURE, STOP
from depthray.runs.loggers import Curves, ProgressLog, ResultFiles
from depthray.runs.progress import RecordedState
from depthray.runs.upload import Uploader
from depthray.runtimes import device_errors, export_folder
from depthray.storage.environment import retry_seconds
from depthray.storage.folders import AnyFolder, open_folder
from depthray.storage.local import replace, sync_folder
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.remote import RemoteFolder, StorageError, is_remote
from depthray.training import preflight
from depthray.training.dry_run import check_targets
from depthray.training.frames import Frames
from depthray.training.freezing import trained_share
from depthray.training.loop import Epoch, SavePoint, fit
from depthray.training.state import Hooks, State, begin, restore
from depthray.training.throughput import Interval

PREPARING = 30.0  # seconds to wait for a store before a run starts, while its user still waits for the command
# A resumed run may be lengthened, moved or shown differently; any other change would make it another run.
FREE_ON_RESUME = {
    "about",
    "data.root",
    "data.workers",
    "augment.device",
    "train.epochs",
    "train.max_minutes",
    "train.patience",
    "train.log_seconds",
    "train.save_every_steps",
    "train.keep_best",
    "eval.zero_shot",
    "eval.also",
    "finetune.epochs",
}
ROOT_OF_SET = re.compile(r"data\.sets\.\d+\.root$")


def prepare(run: Path | str, recipe: Recipe, *, resume: bool) -> None:
    """Make the run's folder, or check that this recipe may resume the run in it.

    Raises UsageError for a folder that holds a run when `resume` is not requested, and for a recipe that differs. A run
    without a step holds nothing: its folder is taken.
    """
    if is_remote(run):
        _prepare_remote(RemoteFolder(run, retry_seconds=PREPARING), recipe, resume=resume)
        return
    run = Path(run)
    saved = run / RECIPE
    if export_folder.is_export(run):
        raise UsageError(f"{run} is an export, which is not trained; give its checkpoint as --from, and another --out")
    if saved.exists():
        _check_resume(saved, recipe, open_folder(run), resume=resume, where=str(saved))
    try:
        (run / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        replace(saved, recipes.dump(recipe).encode())  # atomic: without it no checkpoint could be resumed from
        sync_folder(run)
    except OSError as error:
        raise UsageError(f"cannot write the run folder {run}: {error.strerror}") from None
    (run / STOP).unlink(missing_ok=True)  # of an earlier attempt: it would stop this one after its first step


def _prepare_remote(run: RemoteFolder, recipe: Recipe, *, resume: bool) -> None:
    if run.size(RECIPE) is not None:
        _check_resume(download.recipe_file(run.url), recipe, run, resume=resume, where=f"{run}/{RECIPE}")
    # A new id: working folders of an earlier run at this address, on any machine, are not resumed from.
    if run.size(IDENTITY) is None or not resume:
        run.write(IDENTITY, uuid4().hex.encode())
    run.write(RECIPE, recipes.dump(recipe).encode())
    run.remove(STOP)
    (download.working_folder(run.url) / STOP).unlink(missing_ok=True)


def _check_resume(saved: Path, recipe: Recipe, run: AnyFolder, *, resume: bool, where: str) -> None:
    """Raise UsageError unless the run of a saved recipe is to be resumed, and with the same recipe, or has no step."""
    if untrained.is_free(run):
        if not resume:
            untrained.clear(run)
        return
    if not resume:
        raise UsageError(f"{run.url} already holds a run; give --resume to resume it, or another --out")
    # Not checked as a recipe to train: it was, and what matters here is only whether it differs.
    old = preflight.parse(read_yaml(saved), where=where, training=False)
    different = recipes.difference(old, recipe)
    changed = {key: pair for key, pair in different.items() if key not in FREE_ON_RESUME and not ROOT_OF_SET.match(key)}
    if changed:
        differences = ", ".join(f"{key} was {before}, is {after}" for key, (before, after) in changed.items())
        raise UsageError(
            f"{run.url} was trained with another recipe ({differences}); use the same overrides, or another --out"
        )


def record(
    recipe: Recipe,
    run: Path | str,
    device: torch.device,
    *,
    show: Callable[[progress.Record], None] = lambda _: None,
    hooks: Hooks | None = None,
) -> Iterator[Epoch]:
    """Train a recipe into a prepared run folder, from its newest good checkpoint if it has one; yields each epoch.

    See `record_events`, which yields what happens between the epochs too.
    """
    # Closed at once where the caller ends this generator: what is written then must not wait for the garbage collector.
    with closing(record_events(recipe, run, device, show=show, hooks=hooks)) as events:
        yield from (event for event in events if isinstance(event, Epoch))


def record_events(
    recipe: Recipe,
    run: Path | str,
    device: torch.device,
    *,
    show: Callable[[progress.Record], None] = lambda _: None,
    hooks: Hooks | None = None,
) -> Generator[Epoch | Interval, None, None]:
    """Train a recipe into a prepared run folder, from its newest good checkpoint if it has one; yields what happens.

    Every process calls it; rank 0 writes, and passes each progress record to `show`. `hooks` are the launcher's.
    A remote run is written into the working folder of rank 0's machine and uploaded from there while it trains.
    """
    frames = Frames.open(recipe, device=device)
    remote = RemoteFolder(run, retry_seconds=retry_seconds()) if is_remote(run) else None
    folder = download.working_folder(run) if remote else Path(run)
    log = ProgressLog(folder, show)
    with device_errors.explained_in_training(recipe, device):
        state = _start(recipe, folder, device, frames, log, remote)
        check_targets(state.model, recipe)
    state.hooks = given = hooks or Hooks()
    if not distributed.is_main():  # the others train the same steps, and neither save nor log
        with device_errors.explained_in_training(recipe, device):
            yield from (event for event in fit(recipe, state, frames) if not isinstance(event, SavePoint))
            gain_report.join(recipe, state, frames)
        return
    warnings = (*state.notes, *_advice(recipe, state, frames), *_plan_of_scores(recipe, state, frames))
    for warning in (*warnings, *frames.sanity_warnings()):
        log.note(warning)
    with (
        _uploaded(remote, folder, log, state) as upload_error,
        _failures_logged(log, state),
        device_errors.explained_in_training(recipe, device),
    ):
        state.hooks = dataclasses.replace(
            given,
            stop_requested=lambda: bool(given.stop_requested() or upload_error() or is_stop_requested(folder)),
        )
        yield from _train(recipe, folder, state, frames, log, upload_error)
        if error := upload_error():
            raise error


def _advice(recipe: Recipe, state: State, frames: Frames) -> list[str]:
    """Of a run that begins: how much of the network trains, what it leaves unread, and what so many frames suggest."""
    if state.position.step:
        return []
    network: Any = state.model
    ignored = [key for key in recipe.data.inputs if key not in network.inputs]
    unread = [f"this network does not read {', '.join(ignored)} of data.inputs"] if ignored else []
    trained, total = trained_share(state.model)
    share = [f"trains {trained:,} of {total:,} parameters ({trained / total:.1%})"] if trained < total else []
    steps = state.phases.epochs * frames.steps_per_epoch
    return [
        frames.describe_split(),
        *share,
        *unread,
        *advice.lines(recipe, frames=len(frames.split.train), steps=steps),
    ]


def _train(
    recipe: Recipe,
    run: Path,
    state: State,
    frames: Frames,
    log: ProgressLog,
    upload_error: Callable[[], StorageError | None],
) -> Iterator[Epoch | Interval]:
    """The run on rank 0: trained, saved, logged and drawn."""
    first_step = state.position.step
    writer = save.CheckpointWriter(
        run / CHECKPOINTS,
        keep_best=recipe.train.keep_best,
        monitor=recipe.eval.monitor,
        retry_seconds=retry_seconds(),
        log=log.note,
    )
    curves, results = Curves(recipe, run, log.note), ResultFiles(run, recipe.eval.monitor, log.note)
    has_stepped = False
    end = None  # of the run, once training has come to it
    try:
        for event in fit(recipe, state, frames):
            curves.open(first_step=first_step)
            if not has_stepped and state.position.step:  # only now the optimiser has its state, and so its final size
                has_stepped = True
                writer.reserve(state.contents({}, fingerprint=frames.fingerprint))
            if isinstance(event, Interval):
                log.interval(event)
                curves.interval(event)
                yield event
                continue
            state.hooks.before_save()  # a group of workers that was replaced must not write any more
            writer.save(_contents(event, state, frames, writer))
            if isinstance(event, Epoch):
                log.epoch(event)
                results.epoch()
                curves.epoch(event)
                curves.further(event.step, {frames.further_name(path): each for path, each in event.further.items()})
                end = end or _end_after(event)
                yield event
            elif event.requested:
                writer.wait()
                log.note(f"saved at step {state.position.step}, as workers are about to change")
                state.hooks.saved()
            else:
                end = end or _end_after(event)
        end = end or RecordedState("finished", "all epochs done")  # it was resumed after its last epoch
        # A stop after uploading failed was requested by nobody; the caller raises the error and records that.
        reached, end = None if upload_error() else end, None
        writer.wait()
        gain_report.report(recipe, run, state, frames, is_over=_is_over(reached, state), log=log, curves=curves)
        end = reached
    except GeneratorExit:
        end = end or RecordedState("stopped", "its caller ended it")
        raise
    except KeyboardInterrupt:
        writer.hurry()  # whoever interrupts does not wait for a disk that fails
        end = RecordedState("stopped", "interrupted")
        raise
    finally:
        try:
            writer.wait()
        finally:
            curves.close()
            results.close()
            card, reports = run / MODEL_CARD, run / EVALUATIONS
            run_card.write_best(run / CHECKPOINTS, card, reports=reports, curves=RESULTS_PICTURE, log=log.note)
        _log_end(log, state, end)  # only now: what is recorded as an end can be resumed from
        log.flush()


def _contents(
    event: Epoch | SavePoint, state: State, frames: Frames, writer: save.CheckpointWriter
) -> load.CheckpointContents:
    """What a checkpoint after an event holds: intervals of its scores where it is not soon replaced."""
    metrics, facts = (event.metrics if isinstance(event, Epoch) else {}), frames.facts
    if isinstance(event, Epoch) and event.intervals and (event.ended or writer.is_among_best(metrics)):
        facts = dataclasses.replace(facts, scores=(event.intervals(),))
    return state.contents(metrics, fingerprint=frames.fingerprint, facts=facts)


def _plan_of_scores(recipe: Recipe, state: State, frames: Frames) -> list[str]:
    """What is scored before the first step, which may take a while, in a line."""
    if not (state.can_predict and recipe.eval.zero_shot and state.phases.epochs):
        return []
    count = len(frames.split.val) + sum(len(each.indices) for each in frames.further)
    return [f"the weights can predict: they are scored as they are, as epoch 0, on {count} frames"]


def _is_over(end: RecordedState | None, state: State) -> bool:
    """Whether the run has come to an end that its user planned: to all epochs, or to its time limit."""
    if end is None or end.state == "finished":
        return end is not None
    return state.is_out_of_time and not state.hooks.stop_requested()  # whoever asks for a stop waits for no scores


def _end_after(event: Epoch | SavePoint) -> RecordedState | None:
    """How the run ended, if this was the last epoch or save of it."""
    if isinstance(event, Epoch):
        return RecordedState("stopped" if event.stopped else "finished", event.ended) if event.ended else None
    return RecordedState("stopped", event.reason) if event.reason else None


def _log_end(log: ProgressLog, state: State, end: RecordedState | None) -> None:
    if end is None:  # it failed: what failed logs it
        return
    at = state.position
    if at.step_in_epoch:  # amid an epoch
        text = f"stopped at step {at.step}: {end.reason}; resume with --resume"
    else:
        text = f"training ended: {end.reason}"
    log.state(end, text, epoch=at.epoch, step=at.step)


@contextmanager
def _failures_logged(log: ProgressLog, state: State) -> Iterator[None]:
    """Record a failure that would repeat itself. Others, as of a lost worker, may be followed by a restart."""
    try:
        yield
    except DepthrayError as error:
        _log_failure(log, state, error)
        raise


def _log_failure(log: ProgressLog, state: State, error: DepthrayError) -> None:
    at = state.position
    with suppress(DepthrayError):  # the disk may be what failed
        log.state(RecordedState("failed", str(error)), f"failed: {error}", epoch=at.epoch, step=at.step)


@contextmanager
def _uploaded(
    remote: RemoteFolder | None, run: Path, log: ProgressLog, state: State
) -> Iterator[Callable[[], StorageError | None]]:
    """Upload a remote run while the body trains. It is given a function: the error that ended uploading for good."""
    if remote is None:
        yield lambda: None
        return
    uploader = Uploader(remote, run, log.note, retry_seconds=retry_seconds())
    try:
        yield lambda: uploader.error
    except GeneratorExit:  # the caller wants no more epochs
        _upload_rest(uploader, log, state)
        raise
    except Exception as error:
        with suppress(StorageError):  # the error that ended training is raised, not one that followed from it
            uploader.close()
        raise error
    except BaseException:
        uploader.close(wait=False)  # interrupted: what is not uploaded yet is by --resume
        raise
    _upload_rest(uploader, log, state)


def _upload_rest(uploader: Uploader, log: ProgressLog, state: State) -> None:
    """Upload what training left. Where that fails, so has the run, although its end was recorded before."""
    try:
        uploader.close()
    except StorageError as error:
        _log_failure(log, state, error)
        raise


def _start(
    recipe: Recipe,
    run: Path,
    device: torch.device,
    frames: Frames,
    log: ProgressLog,
    remote: RemoteFolder | None = None,
) -> State:
    """The state to begin with; rank 0 chooses the checkpoint, reads it, and sends it to all.

    A thousand processes that read it would ask a file server for its bytes a thousand times, at every restart.
    """
    checkpoint = distributed.broadcast(_choose(run, log, remote) if distributed.is_main() else None)
    running, workers = RecordedState("running", ""), distributed.world_size()
    if checkpoint is None:
        if distributed.is_main():
            has_trained = any(record["kind"] == "interval" for record in progress.read(run))
            text = "begins again at step 0: no checkpoint had been saved yet" if has_trained else "training starts"
            log.state(running, text, epoch=0, step=0, workers=workers)
        return begin(recipe, device)  # every rank: seeds make the same network on each
    contents = distributed.made_by_main(partial(load.load, checkpoint, state=True))
    # Position and order of frames are functions of the data: with others the run could not be continued exactly.
    if contents.fingerprint != frames.fingerprint:
        raise DataError(
            f"the frames in {recipe.data.place} are not those of {checkpoint}: "
            f"their fingerprint differs; give the data the run began with, or start a new run"
        )
    state = restore(contents, recipe, device)
    if distributed.is_main():
        at, on = state.position, f"{workers} workers" if workers > 1 else "1 worker"
        text = f"resumed from {checkpoint.name} (epoch {at.epoch}, step {at.step}) on {on}"
        log.state(running, text, epoch=at.epoch, step=at.step, workers=workers)
    return state


def _choose(run: Path, log: ProgressLog, remote: RemoteFolder | None) -> Path | None:
    """The newest good checkpoint of a run, on this machine."""
    if remote:
        with translate_os_errors(run, to=CheckpointError, doing="write checkpoints"):
            download.prepare_to_resume(remote, run, log.note)
    return select.latest(run / CHECKPOINTS, log.note)
