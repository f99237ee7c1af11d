"""Exports of a served version: made when it is promoted, kept where they pass their gate, and timed against PyTorch.

    STORE/NAME/exports/VERSION/TARGET/       an export, see depthray/runtimes/export_folder.py
    STORE/NAME/exports/VERSION/TARGET.npz    its predictions for the golden images
    STORE/NAME/exports/VERSION/speeds.json   images a second at the promotion: {"openvino": 31.2, "eager": 24.0}

Replicas open the fastest, and the next where that one fails. They do not measure: one that starts under load would time
the load. An export has passed its gate, and is compared with what it predicted itself: in bf16 and in 8-bit integers
single pixels differ from the checkpoint's by more than scores do.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from depthray.errors import DepthrayError
from depthray.exporting import fastest
from depthray.runtimes.open import EAGER
from depthray.storage import local
from depthray.storage.strict_json import finite_tree
from serve.registry import golden
from serve.settings import Runtime

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.predict import Predictor

SPEEDS = "speeds.json"
BATCH = 4  # images of a timed pass: more than one, as under load, and less than a full batch
ROUNDS = 7  # passes of each runtime


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
            return fastest.auto_targets(calibrated=bool(self.calibrate))
        return () if self.runtime == EAGER else (self.runtime,)


def make(checkpoint: Path, folder: Path, request: RuntimeRequest, log: Callable[[str], None]) -> dict[str, float]:
    """Export a checkpoint, time all and write them into a folder; images a second by runtime, the fastest first.

    A target that cannot be made here, or whose export fails its gate, is a line of the log.
    """
    from depthray.predict import load

    unfinished = folder.with_name(f"{local.UNFINISHED}{uuid4().hex}")
    try:
        exports = fastest.export_passing(
            checkpoint, unfinished, request.targets, data=request.calibrate, form=request.source, log=log
        )
        predictors = {EAGER: load(checkpoint, device="cpu"), **_sound(exports, log)}
        if len(predictors) == 1:
            return {}
        measured = _time(predictors)
        (unfinished / SPEEDS).write_text(json.dumps(finite_tree(measured)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier promotion of this version
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return measured


def are_made(folder: Path, request: RuntimeRequest) -> bool:
    """Whether a folder has all exports of a request, with what each predicts, which once was not stored."""
    made = speeds(folder)
    return all(each in made and golden_of(folder, each).is_file() for each in request.targets)


def speeds(folder: Path) -> dict[str, float]:
    """Images a second by runtime when they were made, the fastest first; none where there are no exports."""
    try:
        tree = json.loads((folder / SPEEDS).read_bytes())
        measured = {name: float(speed) for name, speed in tree.items() if (folder / name).is_dir() or name == EAGER}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return _sorted(measured) if len(measured) > 1 else {}


def golden_of(folder: Path, runtime: str) -> Path:
    """Where the predictions of an export for the golden images are, in the folder of all exports of a version."""
    return folder / f"{runtime}.npz"


def _sound(exports: Mapping[str, Path], log: Callable[[str], None]) -> dict[str, Predictor]:
    """Exports that can be opened and predict valid maps for the golden images, which are stored; others are removed."""
    from depthray.predict import load

    predictors = {}
    for name, path in exports.items():
        try:
            predictor = load(path, device="cpu")
            golden.write(golden_of(path.parent, name), golden.answers(predictor))
        except DepthrayError as error:
            log(f"{name}: not used: {error}")
            shutil.rmtree(path)
        else:
            predictors[name] = predictor
    return predictors


def _time(predictors: Mapping[str, Predictor]) -> dict[str, float]:
    """Images a second of each, on golden images at its own size."""
    data = predictors[EAGER].recipe.data
    sample = golden.samples(data)[0]
    calls = {name: partial(predictor.run, [sample] * BATCH) for name, predictor in predictors.items()}
    return _sorted({name: BATCH / seconds for name, seconds in fastest.median_seconds(calls, rounds=ROUNDS).items()})


def _sorted(measured: Mapping[str, float]) -> dict[str, float]:
    sound = {name: speed for name, speed in measured.items() if math.isfinite(speed)}
    return dict(sorted(sound.items(), key=lambda item: -item[1]))
