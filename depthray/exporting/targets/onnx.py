"""ONNX: one file of standard operators with its weights inside."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from depthray.errors import UsageError
from depthray.exporting.graph import TracedGraph
from depthray.exporting.quiet import quiet
from depthray.exporting.targets import TargetRequest, WrittenModel

if TYPE_CHECKING:
    from onnx import ModelProto

PRECISIONS = ("fp32",)
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FILE = "model.onnx"
OPSET = 20  # the first with all that torch exports here; ONNX Runtime 1.17 and OpenVINO 2024 read it
MOST_BYTES = 2**31 - 2**20  # a protobuf holds no more, and weights in a second file are not read back
AXES = {0: "batch", 2: "height", 3: "width"}
_CONVERTED: WeakKeyDictionary[TracedGraph, Any] = WeakKeyDictionary()  # OpenVINO and TensorRT read the same model


def write(traced: TracedGraph, folder: Path, request: TargetRequest) -> WrittenModel:
    """Write the model, checked by ONNX's own checker."""
    weights = sum(each.numel() * each.element_size() for each in traced.graph.state_dict().values())
    if weights > MOST_BYTES:
        raise UsageError(f"--to onnx: {weights / 1e9:.1f} GB of weights, and a file of ONNX holds 2 GB")
    model = convert(traced)
    (folder / FILE).write_bytes(model.SerializeToString())
    return WrittenModel(FILE, versions_of(model))


def convert(traced: TracedGraph) -> ModelProto:
    """The model of a graph, its ports named as the keys of a batch; made once a graph, not to be changed."""
    if traced not in _CONVERTED:
        _CONVERTED[traced] = _convert(traced)
    model: ModelProto = _CONVERTED[traced]
    return model


def _convert(traced: TracedGraph) -> ModelProto:
    import onnx

    graph = traced.graph
    with quiet("torch.onnx", "onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            traced.program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
        )
    assert program is not None  # it is for a file only
    model = program.model_proto
    _name_axes(model, traced)
    onnx.checker.check_model(model, full_check=True)
    return model


def versions_of(model: ModelProto) -> dict[str, str]:
    """What a reader of the file must know: the opset, the version of the format and who wrote it."""
    opset = next(each.version for each in model.opset_import if each.domain == "")
    packages = {name: version(name) for name in ("onnx", "onnxscript")}
    return {"onnx opset": str(opset), "onnx ir": str(model.ir_version), **packages}


def _name_axes(model: ModelProto, traced: TracedGraph) -> None:
    """Plain names for the axes of inputs that may change; those of torch are symbols such as s77."""
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_param"):
                name = AXES[axis]
                dim.dim_param = name if axis == 0 or traced.graph.stride == 1 else f"{traced.graph.stride}*{name}"
    del model.graph.value_info[:]  # shapes in between, in the same symbols; runtimes infer them
    for value in model.graph.output:
        _forget_symbols(value)


def _forget_symbols(value: Any) -> None:
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_param"):
            dim.dim_param = AXES[axis] if axis == 0 else f"output_{AXES[axis]}"
