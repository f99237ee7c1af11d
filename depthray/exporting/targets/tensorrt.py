"""TensorRT: the ONNX model and a script that builds an engine of it on the machine with the GPU.

There is no GPU where depthray is tested: the script follows the manual of `trtexec` and has not been run.
"""

from __future__ import annotations

from pathlib import Path

from depthray.exporting.graph import ExportGraph, TracedGraph
from depthray.exporting.targets import TargetRequest, WrittenModel, onnx
from depthray.runtimes.export_folder import input_port

PRECISIONS = ("fp32",)
PACKAGES = onnx.PACKAGES
SCRIPT = "trtexec.sh"
MOST_BATCH, USUAL_BATCH = 16, 8
USUAL_SIDE = 1024  # pixels: an engine for larger ones takes more memory than most users have


def write(traced: TracedGraph, folder: Path, request: TargetRequest) -> WrittenModel:
    """Write the model and the script."""
    written = onnx.write(traced, folder, request)
    (folder / SCRIPT).write_text(script(traced), encoding="utf-8")
    request.note(f"{SCRIPT} is untested here: no GPU was at hand. What the gate compared is model.onnx.")
    return written


def script(traced: TracedGraph) -> str:
    """The script for `trtexec`, with shapes to optimise for."""
    shapes = _shapes(traced)
    flags = [f"--{name}Shapes={shape} \\" for name, shape in shapes.items()]
    return "\n".join(
        [
            "#!/bin/sh",
            "# Builds model.engine for the GPU of this machine. UNTESTED by depthray; needs TensorRT 10 or later.",
            "# Add --fp16 or --bf16 for speed, and compare: neither has passed the parity gate.",
            'cd "$(dirname "$0")" || exit 1',
            "exec trtexec --onnx=model.onnx --saveEngine=model.engine \\",
            *(f"  {flag}" for flag in flags),
            '  --memPoolSize=workspace:4096 --noTF32 "$@"',
            "",
        ]
    )


def _shapes(traced: TracedGraph) -> dict[str, str]:
    """The smallest, usual and largest shapes; none where nothing is dynamic."""
    graph = traced.graph
    if not (traced.dynamic_batch or traced.dynamic_size):
        return {}
    height, width = (graph.round_up(side) for side in traced.size)
    largest = max(USUAL_SIDE // graph.stride * graph.stride, height, width)
    small = graph.round_up(max(64, graph.stride))
    sizes = {"min": (small, small), "opt": (height, width), "max": (largest, largest)}
    batches = {"min": 1, "opt": USUAL_BATCH, "max": MOST_BATCH} if traced.dynamic_batch else dict.fromkeys(sizes, 1)
    return {
        name: _shape(graph, batches[name], size if traced.dynamic_size else (height, width))
        for name, size in sizes.items()
    }


def _shape(graph: ExportGraph, batch: int, size: tuple[int, int]) -> str:
    return ",".join(f"{key}:{'x'.join(map(str, input_port(key).shape(batch, size)))}" for key in graph.inputs)
