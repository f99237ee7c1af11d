"""Exports of a served version: made when it is promoted, kept where they pass their gate, and timed against PyTorch.

    STORE/NAME/exports/VERSION/TARGET/       an export, see depthray/runtimes/export_folder.py
    STORE/NAME/exports/VERSION/speeds.json   images a second at the promotion: {"openvino": 31.2, "eager": 24.0}

Replicas open the fastest, and the next where that one fails. They do not measure: one that starts under load would time
the load.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from depthray.errors import DepthrayError
from depthray.runtimes.open import EAGER
from depthray.storage import local
from depthray.storage.strict_json import finite_tree
from serve.registry import golden
from serve.settings import Runtime

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.batch import Sample
    from depthray.predict import Predictor

SPEEDS = "speeds.json"
BATCH = 4  # images of a timed pass: more than one, as under load, and less than a full batch
GATE = 12  # frames that an export is compared on, at each size and batch: a promotion should not take minutes
ROUNDS = 7  # passes of each runtime, in turn, so that other work slows all alike


@dataclass(frozen=True)
class RuntimeRequest:
    """Which exports a promotion makes."""

    runtime: Runtime = "auto"  # model.runtime
    calibrate: str | None = None  # data to calibrate 8-bit integers by, and to compare on; None: rendered rooms
    source: str | None = None  # the form of these data; None: as they look

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets to export to; 8-bit integers only by frames of the user's own."""
        if self.runtime == "auto":
            return ("openvino", "openvino-int8") if self.calibrate else ("openvino",)
        return () if self.runtime == EAGER else (self.runtime,)


def make(checkpoint: Path, folder: Path, request: RuntimeRequest, log: Callable[[str], None]) -> dict[str, float]:
    """Export a checkpoint, time all and write them into a folder; images a second by runtime, the fastest first.

    A target that cannot be made here, or whose export fails its gate, is a line of the log.
    """
    unfinished = folder.with_name(f"{local.UNFINISHED}{uuid4().hex}")
    try:
        paths = {EAGER: checkpoint, **_export(checkpoint, unfinished, request, log)}
        if len(paths) == 1:
            return {}
        measured = _time(paths)
        (unfinished / SPEEDS).write_text(json.dumps(finite_tree(measured)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier promotion of this version
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return measured


def speeds(folder: Path) -> dict[str, float]:
    """Images a second by runtime when they were made, the fastest first; none where there are no exports."""
    try:
        tree = json.loads((folder / SPEEDS).read_bytes())
        measured = {name: float(speed) for name, speed in tree.items() if (folder / name).is_dir() or name == EAGER}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return _sorted(measured) if len(measured) > 1 else {}


def _export(checkpoint: Path, folder: Path, request: RuntimeRequest, log: Callable[[str], None]) -> dict[str, Path]:
    """The exports that passed their gate, by target."""
    from depthray.export import write

    made = {}
    for target in request.targets:
        try:
            wanted = write.ExportRequest(target, folder / target, request.calibrate, request.source, gate=GATE)
            write.export(checkpoint, wanted)
        except DepthrayError as error:
            log(f"{target}: not used: {error}")
            shutil.rmtree(folder / target, ignore_errors=True)  # the report of a gate that it did not pass
        else:
            made[target] = folder / target
    return made


def _time(paths: Mapping[str, Path]) -> dict[str, float]:
    """Images a second of each, on golden images at its own size."""
    from depthray.predict import load

    predictors = {name: load(path, device="cpu") for name, path in paths.items()}
    data = predictors[EAGER].recipe.data
    sample = golden.samples(data.inputs, data.size)[0]
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(ROUNDS + 1):
        for name, predictor in predictors.items():
            seconds[name].append(_seconds(predictor, sample))
    # Without the first pass, which allocates and compiles.
    return _sorted({name: BATCH / statistics.median(values[1:]) for name, values in seconds.items()})


def _seconds(predictor: Predictor, sample: Sample) -> float:
    started = time.perf_counter()
    predictor.run([sample] * BATCH)
    return time.perf_counter() - started


def _sorted(measured: Mapping[str, float]) -> dict[str, float]:
    sound = {name: speed for name, speed in measured.items() if math.isfinite(speed)}
    return dict(sorted(sound.items(), key=lambda item: -item[1]))
