"""ONNX models, computed by ONNX Runtime on the CPU.

What the file holds is checked before the runtime sees it: standard operators alone, and all weights inside the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from depthray.runtimes.export_folder import ExportFolder
from depthray.runtimes.ports import FoundPort, check_ports

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

TARGETS = ("onnx", "tensorrt")  # the latter is the same file with the script that builds an engine of it
DEVICES = ("cpu",)
PACKAGES = ("onnx", "onnxruntime")
OWN_THREADS = True
STANDARD = ("", "ai.onnx")  # the domain of standard operators, by both of its names


def load(folder: ExportFolder, *, threads: int, device: torch.device) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The function of a checked model: inputs (B,C,H,W) -> outputs (B,1,H,W)."""
    data = folder.read_file(folder.spec.model_file)
    check(folder, data)
    session = open_session(data, threads=threads)
    inputs = [port.name for port in folder.spec.inputs]
    outputs = [port.name for port in folder.spec.outputs]

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        arrays = [tensor.contiguous().numpy() for tensor in tensors]
        return [torch.from_numpy(array) for array in session.run(outputs, dict(zip(inputs, arrays, strict=True)))]

    return run


def open_session(data: bytes, *, threads: int) -> Any:
    """The session of a model that was checked."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # A thread that waits for another one yields its core instead of spinning: in a server something else needs it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what it cannot do is raised; it need not be printed as well
    # Bytes can begin as ORT's own format and be a sound protobuf as well: what is opened must be what was checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def check(folder: ExportFolder, data: bytes) -> None:
    """CheckpointError unless the bytes are a model of standard operators, with all its weights and the spec's ports."""
    import onnx

    model = onnx.load_model_from_string(data)
    if fault := _fault(model):
        raise folder.refusal(fault)
    weights = {each.name for each in model.graph.initializer}
    inputs = {each.name: _port(each) for each in model.graph.input if each.name not in weights}
    check_ports(folder, inputs, {each.name: _port(each) for each in model.graph.output})


def _fault(model: ModelProto) -> str:
    """What keeps a model from a runtime; "" if nothing does."""
    import onnx

    domains = {each.domain for each in model.opset_import} | {each.domain for each in _nodes(model.graph)}
    if custom := sorted(domains - set(STANDARD)):
        return f"it has operators of '{custom[0][:80]}', and only standard ones are run"
    if model.functions or model.training_info or model.graph.sparse_initializer:
        return "it has functions, training steps or sparse weights, which no export of depthray has"
    unknown = sorted({each.op_type for each in _nodes(model.graph) if not onnx.defs.has(each.op_type)})
    if unknown:
        return f"ONNX has no operator '{unknown[0][:80]}'"
    for tensor in _tensors(model.graph):
        if tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT:
            return f"the weights '{tensor.name[:80]}' are in another file"
    return ""


def _nodes(graph: Any) -> Iterator[NodeProto]:
    """The nodes of a graph and of those inside its loops and branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: Any) -> Iterator[TensorProto]:
    """The tensors that a graph holds, as weights and as attributes."""
    yield from graph.initializer
    for node in _nodes(graph):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse = (attribute.sparse_tensor, *attribute.sparse_tensors)
            yield from (tensor for each in sparse for tensor in (each.values, each.indices))
            for inner in (attribute.g, *attribute.graphs):
                yield from inner.initializer


def _port(value: Any) -> FoundPort:
    """The type and shape that a graph declares for an input or output."""
    import onnx

    tensor = value.type.tensor_type
    names = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.INT64: "int64"}
    dtype = names.get(tensor.elem_type, f"type {tensor.elem_type}")
    return FoundPort(dtype, [each.dim_value if each.HasField("dim_value") else None for each in tensor.shape.dim])
