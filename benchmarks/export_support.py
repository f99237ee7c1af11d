"""What can be exported to what: tries every architecture, variant and recipe, and writes docs/export-support.md.

    python benchmarks/export_support.py --write          # half an hour; with --aoti one more

Networks are those of tests/support/export_cases.py: random weights, repeated blocks left out. A target passes where its
maps are within 1e-4 of the network's, relative to the largest value, at three sizes and two batches; one in 8-bit
integers where it is quantised and its maps are finite, for what it loses is for the gate to say, of each checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from export_cases import ExportCase, build, cases, write_traced  # noqa: E402

from depthray.errors import DepthrayError  # noqa: E402
from depthray.evaluation.markdown_table import markdown_table  # noqa: E402
from depthray.exporting import targets  # noqa: E402
from depthray.exporting.graph import ExportGraph, TracedGraph, build_graph, difference, trace  # noqa: E402
from depthray.runtimes.open import backend, names  # noqa: E402

PAGE = ROOT / "docs" / "export-support.md"
BOUND = 1e-4
SHAPES = ((2, 64, 96), (1, 96, 80), (3, 1, 33))  # batch, least height and width
PASSED, ANY, FIXED = "passed", "any size", "one size"
NOT_TRIED = "not tried"
HEAD = ("network", "sides", "size", *targets.names())


def main() -> int:
    """Try all, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--aoti", action="store_true", help="compile each architecture by AOTInductor as well")
    parser.add_argument("--only", help="cases whose name contains this")
    args = parser.parse_args()
    rows = []
    for case in cases():
        if args.only is None or args.only in str(case):
            rows.append(row_of(case, aoti=args.aoti and not case.options))
            print(" | ".join(rows[-1]), flush=True)
    if args.write:
        PAGE.write_text(page(rows), encoding="utf-8")
    return 0


def page(rows: list[list[str]]) -> str:
    """The page of these rows."""
    return "\n\n".join([INTRODUCTION, markdown_table(HEAD, rows)]) + "\n"


INTRODUCTION = """# What exports to what

Made by `benchmarks/export_support.py`; `tests/depthray/exporting/test_exported_networks.py` holds it true.

`passed`: the maps of the exported network are within 1e-4 of the network's own, relative to their largest value, in
float32, at three sizes and two batches. Of `openvino-int8`: it is quantised and gives finite maps; what that costs is
measured by the gate of each export, on frames. `openvino` computes in bf16 with `--precision bf16`, from the same
file. `tensorrt` is the file of `onnx` with a script that no one has run here. `any size`: any batch, height and width
that are multiples of what `sides` says, up to `--max-side`; other frames are padded."""


def row_of(case: ExportCase, *, aoti: bool) -> list[str]:
    """A line of the table."""
    network = build(case)
    reference = ExportGraph(copy.deepcopy(network), ("depth", "mask"))
    try:
        graph = build_graph(network, ("depth", "mask"))
        traced = trace(graph, size=(graph.round_up(64), graph.round_up(96)), largest_side=1024)
    except DepthrayError as error:
        return [str(case), "", "", *(f"refused: {error}" for _ in targets.names())]
    cells = [cell(name, traced, reference, aoti=aoti) for name in targets.names()]
    return [
        str(case),
        f"multiples of {graph.stride}",
        ANY if traced.dynamic_size else f"{FIXED}: {traced.note}",
        *cells,
    ]


def cell(name: str, traced: TracedGraph, reference: ExportGraph, *, aoti: bool) -> str:
    """Whether a target takes a network, and why not."""
    if name == "aoti" and not aoti:
        return NOT_TRIED
    if name == "tensorrt":
        return "untested"
    try:
        with tempfile.TemporaryDirectory() as folder:
            return verdict(name, compute(name, traced, Path(folder)), traced, reference)
    except Exception as error:  # whatever goes wrong is the reason
        return f"refused: {' '.join(str(error).split())[:80]}"


def compute(name: str, traced: TracedGraph, folder: Path) -> Any:
    """The function of an export that is written and opened."""
    calibration = list(examples(traced)) if "int8" in name else []
    written = write_traced(traced, name, folder, calibration=calibration)
    runtime = next(each for each in names() if name in backend(each).TARGETS)
    return backend(runtime).load(written, threads=1, device=torch.device("cpu"))


def verdict(name: str, run: Any, traced: TracedGraph, reference: ExportGraph) -> str:
    """`passed`, or how far the maps are off."""
    worst = 0.0
    for example in examples(traced):
        with torch.no_grad():
            worst = max(worst, difference(run(example), reference(*example)))
    if "int8" in name:
        return PASSED if math.isfinite(worst) else "refused: its maps are not finite"
    return PASSED if worst < BOUND else f"refused: maps are off by {worst:.1g}"


def examples(traced: TracedGraph) -> Iterator[tuple[torch.Tensor, ...]]:
    """Inputs of several shapes, or of the only one."""
    graph = traced.graph
    for batch, height, width in SHAPES:
        sides = [graph.round_up(max(side, traced.smallest_side)) for side in (height, width)]
        size = (sides[0], sides[1]) if traced.dynamic_size else traced.size
        yield graph.example(batch if traced.dynamic_batch else 1, *size)


if __name__ == "__main__":
    sys.exit(main())
