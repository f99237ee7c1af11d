"""Whether the inputs and outputs that a model file has are the ones that `model.json` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from depthray.errors import CheckpointError
from depthray.runtimes.export_folder import NAME, ExportFolder, Port


class FoundPort(NamedTuple):
    """An input or output as a model file has it."""

    dtype: str
    shape: Sequence[int | None]  # None: any


def check_ports(folder: ExportFolder, inputs: Mapping[str, FoundPort], outputs: Mapping[str, FoundPort]) -> None:
    """CheckpointError unless the ports of the folder's model file are those of its spec."""
    spec = folder.spec
    _check_names(folder, "inputs", list(inputs), [port.name for port in spec.inputs])
    _check_names(folder, "outputs", list(outputs), [port.name for port in spec.outputs])
    for port in spec.inputs:
        found = inputs[port.name]
        if found.dtype != port.dtype or not _fits(found.shape, _input_shape(folder, port), exact=True):
            raise _refusal(folder, port, found)
    for port in spec.outputs:
        found = outputs[port.name]
        # Not exact: a runtime may leave sizes open that it has not inferred. Predictions are checked as they come.
        if found.dtype != port.dtype or not _fits(found.shape, (None, port.channels, None, None), exact=False):
            raise _refusal(folder, port, found)


def _check_names(folder: ExportFolder, kind: str, found: list[str], expected: list[str]) -> None:
    if sorted(found) != sorted(expected):
        raise folder.refusal(f"its {kind} are {', '.join(found)[:100]}, not {', '.join(expected)}")


def _input_shape(folder: ExportFolder, port: Port) -> Sequence[int | None]:
    spec = folder.spec
    size = (None, None) if spec.dynamic_size else spec.size
    return port.shape(None if spec.dynamic_batch else 1, size)


def _fits(found: Sequence[int | None], expected: Sequence[int | None], *, exact: bool) -> bool:
    if len(found) != len(expected):
        return False
    return all(one == other or (not exact and None in (one, other)) for one, other in zip(found, expected, strict=True))


def _refusal(folder: ExportFolder, port: Port, found: FoundPort) -> CheckpointError:
    shape = ", ".join("any" if side is None else str(side) for side in found.shape)
    return folder.refusal(f"{port.name} is {found.dtype} ({shape}), not as {NAME} says")
