"""OpenVINO in 8-bit integers: weights and activations quantised by NNCF on calibration frames.

Where that costs more of the score than the gate allows, NNCF returns the layers that cost most to 32 bits, one by one,
until the score is back: at most MOST_RETURNED of them, judged by SCORED of the calibration frames.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depthray.exporting.graph import Inputs, TracedGraph
from depthray.exporting.quiet import quiet
from depthray.exporting.targets import TargetRequest, WrittenModel, openvino

PRECISIONS = ("int8",)
PACKAGES = (*openvino.PACKAGES, "nncf")
FILE = openvino.FILE
MOST_RETURNED = 12  # layers to 32 bits
SCORED = 24  # frames that a model is scored on
RANKED = 6  # frames by which layers are ranked: each layer costs a compilation and a pass over these
SILENCE = 8.0  # seconds, after which a line says what is going on


def write(traced: TracedGraph, folder: Path, request: TargetRequest) -> WrittenModel:
    """Quantise and write the model."""
    model, versions = openvino.convert(traced)
    frames = [_arrays(inputs) for inputs in request.calibration()]
    nncf = import_nncf()  # first, as it sets the level of its log
    with quiet("nncf"):
        quantised = quantise(nncf, model, frames, request, traced)
    openvino.save(quantised, folder)
    return WrittenModel(FILE, {"nncf": version("nncf"), **versions})


def import_nncf() -> Any:
    """NNCF, without the package by which it reports its use to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import nncf

    return nncf


def quantise(nncf: Any, model: Any, frames: Sequence[list[Any]], request: TargetRequest, traced: TracedGraph) -> Any:
    """A model of 8-bit integers whose score is within what is allowed, or as near as returning layers takes it."""
    count = min(SCORED, len(frames))
    positions = [step * len(frames) // count for step in range(count)]  # evenly spread, and so over scenes
    has_attention = any("attention" in str(node.target) for node in traced.program.graph.nodes)
    with _Progress(request, frames=len(frames), scored=count) as progress:
        quantised = nncf.quantize_with_accuracy_control(
            model,
            calibration_dataset=nncf.Dataset(frames, progress.calibrating),
            validation_dataset=nncf.Dataset(positions),
            validation_fn=progress.score,
            max_drop=request.most_drop,
            drop_type=nncf.DropType.RELATIVE,
            preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: those after SiLU and GELU go below 0
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(frames),
            model_type=nncf.ModelType.TRANSFORMER if has_attention else None,
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                # Weights in 7 of the 8 bits: CPUs without VNNI add products in 16 bits, which would overflow.
                overflow_fix=nncf.OverflowFix.ENABLE
            ),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=MOST_RETURNED,
                ranking_subset_size=max(1, min(RANKED, count - 1)),  # fewer, by which `score` knows them
                num_ranking_workers=1,
            ),
        )
    progress.note_returned()
    return quantised


class _Progress:
    """Scores models for NNCF, and says how far it is whenever that was said long ago.

    It scores the model in 32 bits, then that in 8; only where the second is too bad it goes on, first by a few frames
    for each layer, then by all frames for each layer that was returned.
    """

    def __init__(self, request: TargetRequest, *, frames: int, scored: int) -> None:
        self._request, self._frames, self._scored = request, frames, scored
        self._shown = 0
        self._scores: list[float] = []  # of all frames: in 32 bits, in 8, with layers returned
        self._ranked = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Progress:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def calibrating(self, frame: list[Any]) -> list[Any]:
        """The frame, counted."""
        self._shown += 1
        return frame

    def score(self, compiled: Any, items: Iterable[int]) -> tuple[float, list[float]]:
        """What NNCF takes of a model on some of the frames."""
        positions = list(items)
        scores = self._request.score(_runner(compiled), positions)
        if len(positions) == self._scored:
            self._scores.append(scores.mean)
            if len(self._scores) > 1:
                self._say_score()
        else:
            self._ranked += len(self._scores) > 1
        return scores.mean, scores.each

    def note_returned(self) -> None:
        """Note for the report that layers are in 32 bits, and why."""
        if self._steps > 0:
            self._request.note(
                f"In 8 bits throughout the score was worse by {self._drop(1):.1%} on {self._scored} of the calibration "
                f"frames. In {self._steps} steps the layers that cost most went back to 32 bits: {self._drop(-1):.1%}."
            )

    @property
    def _steps(self) -> int:
        return len(self._scores) - 2

    def _say_score(self) -> None:
        allowed = self._request.most_drop
        what = f"{self._steps} of at most {MOST_RETURNED} layers returned" if self._steps else "8 bits throughout"
        self._request.say(f"{what}: score worse by {self._drop(-1):.2%}, {allowed:.2%} are allowed")
        if not self._steps and self._drop(-1) > allowed:
            self._request.say("ranking all layers, to return those that cost most to 32 bits; this takes minutes")

    def _drop(self, index: int) -> float:
        return 1 - self._scores[index] / self._scores[0] if self._scores[0] > 0 else 0.0

    def _watch(self) -> None:
        while not self._ended.wait(SILENCE):
            self._request.say(f"{self._stage()}, {time.monotonic() - self._began:.0f} s so far")

    def _stage(self) -> str:
        if not self._scores:
            return f"quantising: {min(self._shown, self._frames)} of {self._frames} frames"
        if len(self._scores) == 1:
            return "scoring"
        return f"ranking layers: {self._ranked} done" if len(self._scores) == 2 else "returning layers"


def _runner(compiled: Any) -> Any:
    def run(inputs: Inputs) -> list[Tensor]:
        outputs = compiled(_arrays(inputs))
        return [torch.from_numpy(outputs[index].copy()) for index in range(len(compiled.outputs))]

    return run


def _arrays(inputs: Inputs) -> list[Any]:
    return [tensor.contiguous().numpy() for tensor in inputs]
