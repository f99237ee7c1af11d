"""OpenVINO models, computed on the CPU; those of 8-bit integers as well.

The description of the graph is checked before the runtime sees it: operators of OpenVINO's own sets alone, and weights
within the file of weights.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import torch
from torch import Tensor

from depthray.runtimes.export_folder import ExportFolder, Port
from depthray.runtimes.ports import FoundPort, check_ports

TARGETS = ("openvino", "openvino-int8")
DEVICES = ("cpu",)
PACKAGES = ("openvino",)
OWN_THREADS = True
HEADER = b'<?xml version="1.0"?>'
DTYPES = {"f32": "float32", "i64": "int64"}
_OPERATOR_SET = re.compile(r"opset\d{1,2}")


def load(folder: ExportFolder, *, threads: int, device: torch.device) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The function of a checked model: inputs (B,C,H,W) -> outputs (B,1,H,W)."""
    spec = folder.spec
    graph = folder.read_file(spec.model_file)
    weights = folder.read_file(weights_file(spec.model_file))
    check(folder, graph, len(weights))
    compiled = compile_graph(graph, weights, threads=threads, precision=spec.precision)
    return _runner(compiled, [port.name for port in spec.inputs], [port.name for port in spec.outputs])


def compile_graph(graph: bytes, weights: bytes | None, *, threads: int, precision: str) -> Any:
    """A graph that was checked, for this machine."""
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Several processes of one machine, such as replicas, would all be pinned to its first cores.
        "ENABLE_CPU_PINNING": False,
        # Named even for 32 bits: on CPUs that have bf16 OpenVINO would choose it, and the gate did not test that.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    model = core.read_model(model=graph) if weights is None else core.read_model(model=graph, weights=weights)
    return core.compile_model(model, "CPU", settings)


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this CPU; elsewhere it takes 32 bits for it."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _runner(compiled: Any, inputs: list[str], outputs: list[str]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    own = threading.local()  # a request computes one thing at a time

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        arrays = [tensor.contiguous().numpy() for tensor in tensors]
        # Outputs are copied: the memory of the request is overwritten by the next call.
        maps = own.request.infer(dict(zip(inputs, arrays, strict=True)), share_inputs=True, share_outputs=False)
        return [torch.from_numpy(maps[name]) for name in outputs]

    return run


def weights_file(model_file: str) -> str:
    """The name of the weights that belong to a description of a graph."""
    return PurePath(model_file).with_suffix(".bin").name


def check(folder: ExportFolder, data: bytes, weights: int) -> None:
    """CheckpointError unless the bytes describe a graph of standard operators over so many bytes of weights."""
    # As OpenVINO writes it. Another encoding, or entities, could read differently here than in its own parser.
    if not data.startswith(HEADER) or b"\0" in data or b"<!DOCTYPE" in data:
        raise folder.refusal("not an OpenVINO model")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        raise folder.refusal("not an OpenVINO model") from None
    for layer in root.iter("layer"):  # those inside loops and branches as well
        _check_layer(folder, layer, weights)
    layers = root.findall("./layers/layer")
    inputs = [_input(each) for each in layers if each.get("type") == "Parameter"]
    outputs = [_output(root, layers, each.get("id", "")) for each in layers if each.get("type") == "Result"]
    spec = folder.spec
    check_ports(folder, _by_name(inputs, spec.inputs), _by_name(outputs, spec.outputs))


def _check_layer(folder: ExportFolder, layer: Element, weights: int) -> None:
    kind, version = layer.get("type", ""), layer.get("version", "")
    if not _OPERATOR_SET.fullmatch(version):
        raise folder.refusal(f"operator '{kind[:80]}' is of '{version[:80]}', and only standard ones are run")
    if kind != "Const":
        return
    data = layer.find("data")
    offset, size = (-1, -1) if data is None else (_number(data, "offset"), _number(data, "size"))
    if offset < 0 or size < 0 or offset + size > weights:
        raise folder.refusal(f"its weights '{layer.get('name', '')[:80]}' are outside of the file of weights")


def _number(element: Element, key: str) -> int:
    text = element.get(key, "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1


def _input(layer: Element) -> tuple[list[str], FoundPort]:
    data = layer.find("data")
    shape = "" if data is None else data.get("shape", "")
    dtype = "" if data is None else data.get("element_type", "")
    sides = [int(side) if side.isdecimal() else None for side in re.split(r"\s*,\s*", shape)]
    return _names(layer.find("./output/port")), FoundPort(DTYPES.get(dtype, dtype[:20]), sides)


def _output(root: Element, layers: Sequence[Element], result: str) -> tuple[list[str], FoundPort]:
    """The names and type of what a result layer is connected to."""
    for edge in root.findall("./edges/edge"):
        if edge.get("to-layer") != result:
            continue
        source = next((each for each in layers if each.get("id") == edge.get("from-layer")), None)
        ports = [] if source is None else source.findall("./output/port")
        port = next((each for each in ports if each.get("id") == edge.get("from-port")), None)
        if port is not None:
            sides = [int(text) if (text := each.text or "").isdecimal() else None for each in port.findall("dim")]
            return _names(port), FoundPort(DTYPES.get(port.get("precision", "").lower().replace("fp", "f"), ""), sides)
    return [], FoundPort("", [])


def _names(port: Element | None) -> list[str]:
    return [] if port is None else port.get("names", "").split(",")


def _by_name(found: Sequence[tuple[list[str], FoundPort]], ports: Sequence[Port]) -> dict[str, FoundPort]:
    """What was found, by that of its names which is a port's: converting adds our name to those of a tensor."""
    wanted = {port.name for port in ports}
    return {next((name for name in names if name in wanted), ",".join(names)): port for names, port in found}
