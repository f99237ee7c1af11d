"""Which runtime computes a checkpoint fastest on this machine: exports that pass their gate, timed against PyTorch.

What `depthray serve promote` serves and what `depthray tune` measures is decided here, so that the two are the same.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from depthray.errors import DepthrayError
from depthray.runtimes.backends import openvino
from depthray.runtimes.open import missing

# What is tried where the user names no runtime: which is faster depends on the network and on the processor.
AUTO = ("openvino", "onnx")
BF16 = "openvino-bf16"  # only where the CPU computes in it
INT8 = "openvino-int8"  # only with frames of the user's own: rendered ones say too little of 8-bit integers
PRECISIONS = {BF16: ("openvino", "bf16")}  # targets that are another in a precision that is not its first
GATE = 12  # frames that an export is compared on, at each size and batch: nobody waits minutes for it


def auto_targets(*, calibrated: bool) -> tuple[str, ...]:
    """The targets of `auto` on this machine."""
    has_bf16 = not missing("openvino") and openvino.has_bf16()
    return (*AUTO, *([BF16] if has_bf16 else []), *([INT8] if calibrated else []))


def export_passing(
    checkpoint: Path,
    folder: Path,
    targets: Iterable[str],
    *,
    data: str | None = None,
    form: str | None = None,
    gate: int = GATE,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Path]:
    """Export to each target, into a folder by its name below `folder`; those that passed their gate.

    One that cannot be made here, or does not pass, is a line of the log.
    """
    from depthray.exporting import write

    made = {}
    exporter = write.Exporter(checkpoint)
    for name in targets:
        target, precision = PRECISIONS.get(name, (name, None))
        try:
            exporter.export(write.ExportRequest(target, folder / name, data, form, precision, gate=gate))
        except DepthrayError as error:
            log(f"{name}: not used: {error}")
            shutil.rmtree(folder / name, ignore_errors=True)  # the report of a gate that it did not pass
        else:
            made[name] = folder / name
    return made


def median_seconds(calls: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """The median seconds of each call, all in turn, so that other work of the machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    # Without the first pass, which allocates and compiles.
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}
