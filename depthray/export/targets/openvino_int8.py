"""OpenVINO in 8-bit integers: weights and activations quantised by NNCF on calibration frames.

Where that costs more of the score than the gate allows, NNCF returns the layers that cost most to 32 bits, one by one,
until the score is back.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depthray.export.graph import Inputs, TracedGraph
from depthray.export.targets import TargetRequest, WrittenModel, openvino

PRECISIONS = ("int8",)
PACKAGES = (*openvino.PACKAGES, "nncf")
FILE = openvino.FILE
MOST_RETURNED = 24  # layers to 32 bits: each costs a pass over the calibration frames
RANKED_BY = 8  # frames


def write(traced: TracedGraph, folder: Path, request: TargetRequest) -> WrittenModel:
    """Quantise and write the model."""
    model, versions = openvino.convert(traced)
    frames = [_arrays(inputs) for inputs in request.calibration()]
    with _quiet():
        nncf = import_nncf()
        quantised = quantise(nncf, model, frames, traced)
        expected = request.score(_compute(model))
        if _drop(expected, request.score(_compute(quantised))) > request.most_drop:
            request.note("Quantised throughout it lost too much: layers that cost most are in 32 bits.")
            quantised = _quantise_within(nncf, model, frames, request, traced)
    openvino.save(quantised, folder)
    return WrittenModel(FILE, {"nncf": version("nncf"), **versions})


def quantise(nncf: Any, model: Any, frames: Sequence[list[Any]], traced: TracedGraph) -> Any:
    """A model of 8-bit integers, its ranges those of these frames."""
    return nncf.quantize(model, nncf.Dataset(frames), **_options(nncf, frames, traced))


def import_nncf() -> Any:
    """NNCF, without the package by which it reports its use to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import nncf

    return nncf


def _options(nncf: Any, frames: Sequence[list[Any]], traced: TracedGraph) -> dict[str, Any]:
    has_attention = any("attention" in str(node.target) for node in traced.program.graph.nodes)
    return {
        "preset": nncf.QuantizationPreset.MIXED,  # asymmetric activations: those after SiLU and GELU go below 0
        "target_device": nncf.TargetDevice.CPU,
        "subset_size": len(frames),
        "model_type": nncf.ModelType.TRANSFORMER if has_attention else None,
    }


def _quantise_within(
    nncf: Any, model: Any, frames: Sequence[list[Any]], request: TargetRequest, traced: TracedGraph
) -> Any:
    """A model whose score is within what is allowed, or as near as returning layers to 32 bits takes it."""

    def validate(compiled: Any, _frames: Any) -> tuple[float, None]:
        return request.score(_runner(compiled)), None

    return nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(frames),
        validation_dataset=nncf.Dataset(frames),
        validation_fn=validate,
        max_drop=request.most_drop,
        drop_type=nncf.DropType.RELATIVE,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=MOST_RETURNED, ranking_subset_size=min(RANKED_BY, len(frames))
        ),
        **_options(nncf, frames, traced),
    )


def _compute(model: Any) -> Any:
    """What a model computes on this CPU."""
    from openvino import Core

    return _runner(Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))


def _runner(compiled: Any) -> Any:
    def run(inputs: Inputs) -> list[Tensor]:
        outputs = compiled(_arrays(inputs))
        return [torch.from_numpy(outputs[index].copy()) for index in range(len(compiled.outputs))]

    return run


def _arrays(inputs: Inputs) -> list[Any]:
    return [tensor.contiguous().numpy() for tensor in inputs]


def _drop(expected: float, score: float) -> float:
    return 1 - score / expected if expected > 0 else 0.0


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and log lines of NNCF."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
