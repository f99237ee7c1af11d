"""OpenVINO: a description of the graph and its weights in 32 bits, for CPUs above all."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from depthray.exporting.graph import TracedGraph
from depthray.exporting.targets import TargetRequest, WrittenModel, onnx
from depthray.runtimes.backends.openvino import has_bf16

PRECISIONS = ("fp32", "bf16")
PACKAGES = (*onnx.PACKAGES, "openvino")
FILE = "model.xml"


def write(traced: TracedGraph, folder: Path, request: TargetRequest) -> WrittenModel:
    """Write the model; bf16 is no matter of the file but of how it is computed, which `model.json` says."""
    if request.precision == "bf16" and not has_bf16():
        request.note("This CPU has no bf16: OpenVINO computed in 32 bits here, so the gate has not seen bf16.")
    model, versions = convert(traced)
    save(model, folder)
    return WrittenModel(FILE, versions)


def convert(traced: TracedGraph) -> tuple[Any, dict[str, str]]:
    """The model of a graph, by way of ONNX, and the versions of what wrote it."""
    import openvino
    from openvino.passes import ConstantFolding, Manager

    # Not openvino.convert_model, which reports its use to its makers.
    source = onnx.convert(traced)
    model = openvino.Core().read_model(source.SerializeToString(), b"")
    manager = Manager()
    manager.register_pass(ConstantFolding())  # else biases are computed, and NNCF does not know them for biases
    manager.run_passes(model)
    return model, {"openvino": version("openvino"), **onnx.versions_of(source)}


def save(model: Any, folder: Path) -> None:
    """Write model.xml and model.bin with weights as they are."""
    import openvino

    openvino.save_model(model, folder / FILE, compress_to_fp16=False)
