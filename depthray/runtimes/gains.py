"""What each runtime would gain on this machine: a stack of convolutions, timed against PyTorch.

Networks differ, and so do their gains; which runtimes are worth an export is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from depthray.runtimes.backends import onnx, openvino
from depthray.runtimes.open import missing

LAYERS, CHANNELS, SIZE = 6, 32, (48, 64)  # a pass takes milliseconds
SECONDS = 0.6  # for all of them
_GRID = 0.05  # of 8-bit values


def measured() -> dict[str, float]:
    """Runtime and precision -> how many times as fast as PyTorch's 32 bits, channels last; of those that are here."""
    threads = torch.get_num_threads()
    image = np.random.default_rng(0).random((1, CHANNELS, *SIZE), np.float32)
    layers = [layer for _ in range(LAYERS) for layer in (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU())]
    network = nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)
    tensor = torch.from_numpy(image).to(memory_format=torch.channels_last)
    calls: dict[str, Callable[[], Any]] = {"": lambda: network(tensor)}
    if not missing("onnx"):
        session = onnx.open_session(_model(network), threads=threads)
        calls["onnx fp32"] = lambda: session.run(None, {"x": image})
        if not missing("openvino"):
            calls |= _openvino_calls(network, image, threads=threads)
    with torch.inference_mode():
        seconds = _seconds(calls)
    return {name: seconds[""] / value for name, value in seconds.items() if name}


def _openvino_calls(
    network: nn.Sequential, image: np.ndarray[Any, Any], *, threads: int
) -> dict[str, Callable[[], Any]]:
    def call(precision: str) -> Callable[[], Any]:
        data = _model(network, quantized=precision == "int8")
        request = openvino.compile_graph(data, None, threads=threads, precision=precision).create_infer_request()
        return lambda: request.infer({"x": image})

    # A precision that the CPU lacks would be computed in 32 bits.
    precisions = ["fp32", *(["bf16"] if openvino.has_bf16() else []), "int8"]
    return {f"openvino {precision}": call(precision) for precision in precisions}


def _model(network: nn.Sequential, *, quantized: bool = False) -> bytes:
    """The network as ONNX, in 8 bits by pairs of quantising and back, which a runtime fuses into convolutions."""
    from onnx import TensorProto, helper, numpy_helper

    values = {key: value.detach().numpy().copy() for key, value in network.named_parameters()}
    values |= {"grid": np.array(_GRID, np.float32), "zero": np.array(0, np.int8)}
    nodes: list[Any] = []
    last = "x"
    for index, layer in enumerate(network):
        if isinstance(layer, nn.ReLU):
            nodes.append(helper.make_node("Relu", [last], [f"y{index}"]))
        else:
            inputs = [_rounded(name, nodes) if quantized else name for name in (last, f"{index}.weight")]
            nodes.append(helper.make_node("Conv", [*inputs, f"{index}.bias"], [f"y{index}"], pads=[1, 1, 1, 1]))
        last = f"y{index}"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, CHANNELS, *SIZE)) for name in ("x", last)]
    weights = [numpy_helper.from_array(value, key) for key, value in values.items()]
    graph = helper.make_graph(nodes, "convolutions", ports[:1], ports[1:], weights)
    model: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    return model


def _rounded(name: str, nodes: list[Any]) -> str:
    """The name of a value in 8 bits, after the nodes that make it so."""
    from onnx import helper

    nodes.append(helper.make_node("QuantizeLinear", [name, "grid", "zero"], [f"{name}_8bit"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{name}_8bit", "grid", "zero"], [f"{name}_back"]))
    return f"{name}_back"


def _seconds(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The shortest time of each, all in turn: other programs then slow none of them alone."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times[""]) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}
