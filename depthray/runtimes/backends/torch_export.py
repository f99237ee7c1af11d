"""Programs of `torch.export`, computed by PyTorch without the Python code of the network."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from depthray.runtimes import torch_archive
from depthray.runtimes.export_folder import ExportFolder
from depthray.runtimes.ports import FoundPort, check_ports

TARGETS = ("torch-export",)
DEVICES = ("cpu", "cuda")
PACKAGES = ("torch",)
GAIN = "; the speed of PyTorch, without its code of the network"
DTYPES = {7: "float32", 5: "int64"}  # torch._export.serde.schema.ScalarType


def load(folder: ExportFolder, *, threads: int, device: torch.device) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The function of a checked program: inputs (B,C,H,W) -> outputs (B,1,H,W). PyTorch's own threads compute it."""
    try:
        safe, tree = torch_archive.rebuild(folder.read_file(folder.spec.model_file))
    except torch_archive.UnsafeArchiveError as error:
        raise folder.refusal(str(error)) from None
    _check_ports(folder, tree["graph_module"])
    program = torch.export.load(io.BytesIO(safe))
    _check_operators(folder, program)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    # Without guards, which are source code in the file; whoever calls it checks sizes.
    module: Any = program.module(check_guards=False)
    module.validate_inputs = False

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        with torch.inference_mode():
            # Contiguous, as it was traced: views of other layouts of memory may be impossible.
            return list(module(*(tensor.contiguous() for tensor in tensors)))

    return run


def _check_operators(folder: ExportFolder, program: ExportedProgram) -> None:
    """The operators of a program as their names were resolved: those of ATen, and arithmetic of sizes."""
    for target in (node.target for node in program.graph.nodes if node.op == "call_function"):
        standard = isinstance(target, OpOverload) and target.namespace == "aten"
        if not standard and getattr(target, "__module__", "") not in ("_operator", "math", "torch"):
            raise folder.refusal(f"it has the operator '{str(target)[:80]}', and only standard ones are run")


def _check_ports(folder: ExportFolder, graph_module: dict[str, Any]) -> None:
    """The inputs and outputs that the program declares, which have positions but not our names, against the spec."""
    values, signature = graph_module["graph"]["tensor_values"], graph_module["signature"]
    try:
        inputs = [values[_tensor_name(spec["user_input"])] for spec in signature["input_specs"] if "user_input" in spec]
        outputs = [values[_tensor_name(spec["user_output"])] for spec in signature["output_specs"]]
        found = [_found_ports(each) for each in (inputs, outputs)]
    except (KeyError, TypeError):
        raise folder.refusal("its inputs and outputs are not all tensors") from None
    named = []
    for ports, kind, spec in zip(found, ("inputs", "outputs"), (folder.spec.inputs, folder.spec.outputs), strict=True):
        if len(ports) != len(spec):
            raise folder.refusal(f"it has {len(ports)} {kind} instead of {len(spec)}")
        named.append({port.name: each for port, each in zip(spec, ports, strict=True)})
    check_ports(folder, *named)


def _tensor_name(spec: dict[str, Any]) -> str:
    name: str = spec["arg"]["as_tensor"]["name"]
    return name


def _found_ports(values: list[dict[str, Any]]) -> list[FoundPort]:
    return [
        FoundPort(DTYPES.get(value["dtype"], f"type {value['dtype']}"), [side.get("as_int") for side in value["sizes"]])
        for value in values
    ]
