"""The verbs of the command line as functions: `depthray.train`, `evaluate`, `predict_set` ...; and `tuning.tune`.

They are another way into the commands: they take the same overrides, `data=` where a command takes `--data`, make the
same checks and write the same files. A mistake is a `DepthrayError` with the line that the command would print, by the
keywords of the function. What takes longer than a few seconds says so on stderr.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthray import predict as prediction
from depthray.cli import evaluate as evaluate_command
from depthray.cli import train as train_command
from depthray.cli.flags import spread_flags
from depthray.cli.scoring import compare as compare_command
from depthray.config import own_code
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.python_words import flags_of, in_keywords, keywords_of, speaks_python, translate
from depthray.runs import console, locate, progress
from depthray.storage.folders import open_folder
from depthray.waiting import Heartbeat

if TYPE_CHECKING:  # torch takes seconds to import, and a mistake in an override should show at once
    from depthray.evaluation.comparing.comparison import Comparison
    from depthray.evaluation.evaluate import EvaluationReport
    from depthray.exporting.gate import Parity
    from depthray.predict import Predictor

Place = str | os.PathLike[str]  # a path, or the address of a store


@dataclass(frozen=True)
class TrainedRun:
    """A run after training. It stands for its folder wherever a path does: `depthray.load(run)`."""

    path: Path | str  # the folder, or the address of a remote run
    checkpoint: Path | str  # the best one
    scores: dict[str, float] = field(default_factory=dict)  # of the best checkpoint on the validation frames
    finished: bool = True  # False: it was stopped, and `resume=True` goes on

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class PredictedSet:
    """A data set after its prediction. It stands for its place wherever data do: `depthray.train(data=predicted)`."""

    path: str  # the folder, or its address
    frames: int  # that have a prediction
    failed: dict[str, str] = field(default_factory=dict)  # id of a frame that has none -> the reason

    def __fspath__(self) -> str:
        return self.path


@speaks_python
def train(
    recipe: Place = "",
    /,
    *overrides: str,
    data: Place | None = None,
    start: Place | None = None,
    out: Place | None = None,
    resume: bool = False,
    gpu: bool = False,
    trust: bool = False,
) -> TrainedRun:
    """Train a recipe in this process and print its progress: `train("unet-lite", "train.epochs=20", data="frames")`.

    `recipe` is a name or a YAML file, `overrides` are as on the command line, `data` is where the frames are, `start` a
    run whose weights it starts from, `out` the run's folder (default: runs/RECIPE-DATE). `resume=True` resumes the run
    in `out`. The GPU is used where there is one; `gpu=True` insists on it. `trust=True` runs code that comes with
    `start` or the run to resume. An interrupt leaves the checkpoint of the last epoch.

    Raises UsageError, DataError and the other errors of `depthray.errors`, and makes no folder where a check fails.
    """
    run = _run_folder(recipe, out, resume=resume)
    display = console.Display()
    options: dict[str, Any] = {"data": data, "start": start, "resume": resume, "gpu": gpu, "trust": trust}
    try:
        with closing(train_events(recipe, *overrides, out=run, **options)) as events:
            for record in events:
                display.show(_in_python(record))
    finally:
        display.close()
    return _trained(run)


@speaks_python
def train_events(
    recipe: Place = "",
    /,
    *overrides: str,
    data: Place | None = None,
    start: Place | None = None,
    out: Place | None = None,
    resume: bool = False,
    gpu: bool = False,
    trust: bool = False,
) -> Generator[progress.Record, None, None]:
    """Train as `train` does, and yield each progress record as it is written, printing nothing.

    A record is a dict with its `kind`: "interval" (step, loss, lr, images_per_second, eta_seconds ...), "epoch" (the
    scores), "state" or "note" (text); `depthray.runs.progress` describes them. Overrides are checked by this call; the
    run begins with the first record, and closing the generator ends it, with a checkpoint of the last epoch to resume
    from.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("depthray.train is one process; for several use the command: torchrun -m depthray train ...")
    run = _run_folder(recipe, out, resume=resume)
    flags = {"data": data, "from": start, "out": run, "resume": resume, "gpu": gpu, "local": True, "trust": trust}
    words = [os.fspath(recipe)] if recipe else []
    arguments = train_command.build_parser().parse_intermixed_args([*words, *overrides, *flags_of(flags)])
    with own_code.trusting(trust), Heartbeat(f"the run at {run}" if resume else "the recipe"):
        loaded = train_command.load_recipe(arguments)
    return _train(loaded, run, arguments)


def _train(recipe: Recipe, run: Path | str, arguments: argparse.Namespace) -> Generator[progress.Record, None, None]:
    with own_code.trusting(arguments.trust), in_keywords(keywords_of(train_events)):
        yield from _train_trusted(recipe, run, arguments)


def _train_trusted(
    recipe: Recipe, run: Path | str, arguments: argparse.Namespace
) -> Generator[progress.Record, None, None]:
    from depthray import distributed
    from depthray.runs.run import record_events

    waiting: list[progress.Record] = []
    recipe = train_command.prepare_run(
        run, recipe, arguments, log=lambda text: waiting.append({"kind": "note", "text": text})
    )
    device = distributed.start(gpu=arguments.gpu or None)
    try:
        with train_command.discarded_unless_trained(run, resume=arguments.resume):
            yield from waiting
            waiting.clear()
            with closing(record_events(recipe, run, device, show=waiting.append)) as events:
                for _ in events:  # each has written its records, and notes before it
                    yield from waiting
                    waiting.clear()
            yield from waiting
    finally:
        distributed.stop()


@speaks_python
def evaluate(
    checkpoint: Place,
    /,
    *overrides: str,
    data: Place | None = None,
    source: str | None = None,
    split: str = "val",
    out: Place | None = None,
    trust: bool = False,
    confidence: str | None = None,
    ensemble: Sequence[Place] = (),
) -> EvaluationReport:
    """Score a checkpoint, an export or a run's best checkpoint: `evaluate(run, "eval.protocol=nyu-bts", split="test")`.

    `overrides` are of data.* and eval.*; `data` and `source` name other frames, and their form where it is not
    recognised. The result has `scores`, `evaluation` with each frame, and `write(folder)`; with `out` it is written
    there at once. `trust=True` runs code that comes with the checkpoint or is the export. `confidence` and `ensemble`
    are as for `load`.
    """
    from depthray import distributed
    from depthray.evaluation.evaluate import evaluate_checkpoint

    place = os.fspath(checkpoint)
    flags = {"data": data, "source": source, "split": split, "out": out, "trust": trust}
    arguments = evaluate_command.build_parser().parse_intermixed_args([place, *overrides, *flags_of(flags)])
    with Heartbeat(f"{place} to be evaluated"):
        path = locate.resolve(arguments.checkpoint)
        recipe = evaluate_command.recipe_of(path, arguments)
        spread = spread_flags.given(confidence, [Path(each) for each in ensemble])
        device = distributed.start()
        try:
            report = evaluate_checkpoint(path, recipe, side=split, device=device, trust=trust, spread=spread)
        finally:
            distributed.stop()
    if out is not None:
        report.write(out)
    return report


@speaks_python
def compare(
    baseline: Place,
    *others: Place,
    overrides: Sequence[str] = (),
    data: Place | Sequence[Place] = (),
    source: str | None = None,
    split: str = "val",
    out: Place | None = None,
    trust: bool = False,
) -> Comparison:
    """Score checkpoints, exports or runs on the same frames: `compare("runs/a", "runs/b", data="frames").sets`.

    `data` is a data set or several; without it the frames are those of the baseline's recipe. Each of `sets` has
    `scores`, a candidate each, with the differences from the baseline and their 95 % intervals over scenes. With `out`
    the tables and the plot are written there. `trust=True` runs code that comes with a checkpoint or is an export.
    """
    from depthray import distributed
    from depthray.evaluation.comparing import comparison_report

    places = [os.fspath(each) for each in (baseline, *others)]
    sets = [data] if isinstance(data, str | os.PathLike) else data
    flags = [word for each in sets for word in flags_of({"data": each})]
    flags += flags_of({"source": source, "split": split, "trust": trust})
    arguments = compare_command.build_parser().parse_intermixed_args([*places, *flags])
    with Heartbeat(f"{' and '.join(places)} to be compared"):
        device = distributed.start()
        try:
            result, _ = compare_command.compare(places, overrides, arguments, device)
        finally:
            distributed.stop()
    if out is not None:
        comparison_report.write(result, Path(out))
    return result


@speaks_python
def export(
    checkpoint: Place,
    /,
    *,
    to: str,
    out: Place,
    calibrate: Place | None = None,
    source: str | None = None,
    precision: str | None = None,
    bound: float | None = None,
    trust: bool = False,
    confidence: str | None = None,
    ensemble: Sequence[Place] = (),
) -> Parity:
    """Export a checkpoint or a run's best one for `depthray.load`: `export(run, to="onnx", out="exported")`.

    `to` is onnx, openvino, openvino-int8, torch-export, aoti or tensorrt. It is compared with the checkpoint on frames
    of `calibrate`, or of rendered rooms, and the comparison returned. Raises ParityError, and writes the report alone,
    where it differs by more than `bound`; UsageError where `out` exists. `trust=True` runs code that comes with the
    checkpoint. With `confidence="flip"` and `ensemble`, as for `load`, the spread of predictions is in the export.
    """
    from depthray.exporting import write

    request = write.ExportRequest(
        target=to,
        out=Path(out),
        data=None if calibrate is None else os.fspath(calibrate),
        form=source,
        precision=precision,
        bound=bound,
        trust=trust,
        spread=spread_flags.given(confidence, [Path(each) for each in ensemble]),
    )
    write.refuse_existing(request.out)  # before a checkpoint is downloaded
    own_code.allow([source or ""])
    with Heartbeat(f"{os.fspath(checkpoint)} to be exported and compared"):
        return write.export(locate.resolve(Path(checkpoint)), request)


@speaks_python
def predict_set(
    checkpoint: Place,
    /,
    *overrides: str,
    data: Place,
    out: Place,
    source: str = "",
    to: str = "shards",
    as_labels: bool = False,
    rate: float = 0.0,
    frames_per_part: int | None = None,
    device: str = "",
    precision: str = "fp32",
    confidence: str = "",
    ensemble: Sequence[Place] = (),
    batch: int | None = None,
    trust: bool = False,
) -> PredictedSet:
    """Predict every frame of a data set in this process: `predict_set("runs/a", data="frames", out="predicted")`.

    `overrides` are of data.* and say how frames are read; `source` names their form where it is not recognised. `to` is
    shards, png for a folder of files, or rosbag2 for bags, with `rate` in frames a second where frames have no times.
    With `as_labels` the shards keep all that the frames have, and the prediction is beside it as `teacher`.
    `confidence` and `ensemble` are those of `load`, for shards with `sigma`. An interrupted call is continued by the
    same one. A frame that cannot be read is no error but one of `failed`. `trust=True` runs code that comes with the
    checkpoint.

    Raises UsageError for what does not fit together, DataError where `out` has other predictions or other files.
    """
    from depthray.predicted_sets import set_parts, set_plan

    request = set_plan.SetRequest(
        model=os.fspath(checkpoint),
        data=os.fspath(data),
        out=os.fspath(out),
        source=source,
        overrides=overrides,
        to=to,
        as_labels=as_labels,
        rate=rate,
        frames_per_part=set_plan.FRAMES_PER_PART if frames_per_part is None else frames_per_part,
        device=device,
        precision=precision,
        confidence=confidence,
        ensemble=tuple(os.fspath(each) for each in ensemble),
        batch=prediction.BATCH if batch is None else batch,
        trust=trust,
    )
    with Heartbeat(f"the frames of {request.data} to be predicted"):
        frames, plan = set_plan.prepare(request)
        set_parts.predict_all(plan, frames)
        summary = set_parts.finish(plan)
    return PredictedSet(plan.request.out, summary.frames, summary.failed)


@speaks_python
def load(
    path: Place,
    *,
    device: str | None = None,
    precision: str = "fp32",
    trust: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (),
    tiles: int = 1,
    confidence: str | None = None,
    ensemble: Sequence[Place] = (),
) -> Predictor:
    """The predictor of a checkpoint, a run's best checkpoint or an export; on the GPU where there is one.

    `path` may be the address of a store, from which it is downloaded into the cache of this machine. `precision` is
    fp32, tf32, bf16, fp16, or auto. A prediction is the mean with that of the mirrored image (`flip`) and with those at
    multiples of the network's size (`scales`); images of `tiles` times that size are predicted in tiles too. Confidence
    is the network's own, or by the difference to the mirrored image (`confidence="flip"`) and to other checkpoints
    (`ensemble`). Code that comes with it, one's own of a checkpoint or an export that is native code, is run only with
    `trust`: it could do anything.
    """
    options: dict[str, Any] = {"precision": precision, "flip": flip, "scales": scales, "tiles": tiles}
    with Heartbeat(f"{os.fspath(path)} to be loaded"):
        return prediction.load(path, device=device, trust=trust, confidence=confidence, ensemble=ensemble, **options)


def _in_python(record: progress.Record) -> progress.Record:
    """A record whose text says what a caller of Python does next."""
    return record | {"text": translate(record["text"], keywords_of(train))} if "text" in record else record


def _run_folder(recipe: Place, out: Place | None, *, resume: bool) -> Path | str:
    if out is None and resume:
        raise UsageError("resume=True needs out=RUN, the folder of the run to resume")
    return train_command.run_folder(recipe, out)


def _trained(run: Path | str) -> TrainedRun:
    """The run as it is now."""
    from depthray.runs.loggers import scores_of

    best, metrics = locate.summary(run)
    state = progress.last_state(progress.read_from(open_folder(run)))
    return TrainedRun(run, best, scores_of(metrics), finished=state is not None and state.state == "finished")
