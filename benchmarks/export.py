"""Milliseconds an image of each runtime, for every recipe, next to PyTorch's own, in one run.

    python benchmarks/export.py                                       # every recipe, random weights
    python benchmarks/export.py --checkpoint runs/unet --data packed  # a trained one, with what it loses

Both are given the same tensors, already on their way to the network: files, resizing and HTTP are not in it. Sides are
measured in turn, several rounds, and the table has medians. The baseline is eager float32 in channels_last, which is
what depthray itself runs. Exports are those of `depthray export`, opened as `depthray predict` opens them; those of
random weights pass the gate whatever they lose, since there is nothing to lose.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from depthray import models
from depthray.batch import Batch
from depthray.checkpoints import load, save
from depthray.checkpoints.load import CheckpointContents
from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.evaluation.markdown_table import markdown_table
from depthray.exporting.export_frames import CPU, on_device, open_frames
from depthray.exporting.gate import Parity
from depthray.exporting.write import ExportRequest, export
from depthray.runs import locate
from depthray.runtimes.open import open_model
from depthray.training import preflight

BASELINE = "channels_last"
EXPORTS = {  # side: target, precision
    "onnx": ("onnx", "fp32"),
    "openvino": ("openvino", "fp32"),
    "openvino bf16": ("openvino", "bf16"),
    "openvino int8": ("openvino-int8", "int8"),
}
ROUND = 0.4  # seconds of one measurement, at least
ANYTHING = 1e9  # a bound for what has no score to lose
Run = Callable[[], Any]


class Exported(NamedTuple):
    """An export and what it costs of the score."""

    folder: Path
    parity: Parity


def main() -> int:
    """Print a table for each recipe, threads and batch."""
    args = build_parser().parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="depthray-bench-") as work, torch.inference_mode():
        for name, checkpoint in checkpoints(args, Path(work)):
            results += measured(name, checkpoint, args, Path(work) / f"{name}-exports")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=None, help="default: all that are shipped")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint or run in place of random weights")
    parser.add_argument("--data", help="frames to calibrate and compare with; default: rendered rooms")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", nargs="+", default=[], help="sides to leave out, such as compile")
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    return parser


def checkpoints(args: argparse.Namespace, work: Path) -> Iterator[tuple[str, Path]]:
    """Names with their checkpoints: the one that is given, or untrained ones."""
    if args.checkpoint:
        yield args.checkpoint.name, locate.resolve(args.checkpoint)
        return
    for name in args.recipes or recipes.names():
        yield name, untrained(preflight.load(name, training=False), work / name)


def untrained(recipe: Recipe, folder: Path) -> Path:
    """A checkpoint of random weights whose norms have seen random images."""
    torch.manual_seed(0)
    network = models.build_model(recipe.model, recipe.data.inputs)
    with torch.inference_mode(False), torch.no_grad():
        for norm in (part for part in network.modules() if isinstance(part, nn.BatchNorm2d)):
            norm.momentum = 1.0
        models.run(network.train(), inputs(recipe, 2))
    contents = CheckpointContents(network.state_dict(), {}, recipe, {}, 0, 0, "")
    return save.write(folder / "checkpoints", contents)


def inputs(recipe: Recipe, batch: int) -> Batch:
    """Rendered frames at the recipe's size, as a network takes them."""
    frames = open_frames(recipe.data, None, None, calibration=4, gate=4 * batch)
    _, loaded = next(iter(frames.batches(frames.gate, size=recipe.data.size, batch_size=batch)))
    return on_device(loaded, recipe.data)


def measured(name: str, checkpoint: Path, args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """The table of a checkpoint for each number of threads and batch, printed."""
    exports = {
        side: exported(checkpoint, work / side.replace(" ", "-"), *target, args)
        for side, target in EXPORTS.items()
        if side not in args.without
    }
    results = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        for batch in args.batches:
            contents = load.load(checkpoint)
            runs = sides(checkpoint, contents, exports, threads=threads, batch=batch, without=args.without)
            seconds = in_turn(runs, args.rounds)
            rows = [row(side, seconds, batch, exports) for side in runs]
            print(f"\n{name}, {contents.recipe.data.size}, {threads} threads, batch {batch}\n")
            print(markdown_table(["", "ms an image", "times the baseline", "AbsRel or IoU worse by"], rows), flush=True)
            results.append({"name": name, "threads": threads, "batch": batch, "seconds": seconds})
    return results


def exported(checkpoint: Path, out: Path, target: str, precision: str, args: argparse.Namespace) -> Exported:
    """The export of a checkpoint to a target; of a trained one, under the gate."""
    few: dict[str, Any] = {} if args.checkpoint else {"calibration": 8, "gate": 4, "bound": ANYTHING}
    request = ExportRequest(target=target, out=out, precision=precision, data=args.data)
    with torch.inference_mode(False):
        return Exported(out, export(checkpoint, replace(request, **few)))


def sides(
    checkpoint: Path,
    contents: CheckpointContents,
    exports: dict[str, Exported],
    *,
    threads: int,
    batch: int,
    without: Sequence[str],
) -> dict[str, Run]:
    """Side -> one pass over a batch."""
    frames = inputs(contents.recipe, batch)
    runs: dict[str, Run] = {}

    def add(side: str, network: nn.Module, given: Any) -> None:
        if side not in without:
            runs[side] = lambda: models.run(network, given)

    def network() -> nn.Module:
        return load.build_network(contents, where=checkpoint).eval()

    plain: Any = {
        key: value.contiguous() if isinstance(value, torch.Tensor) else value for key, value in frames.items()
    }
    add("eager", network(), plain)
    add(BASELINE, network().to(memory_format=torch.channels_last), frames)
    if "compile" not in without:
        torch.compiler.reset()
        add("compile", _compiled(network().to(memory_format=torch.channels_last)), frames)
    for side, each in exports.items():
        add(side, open_model(each.folder, device=CPU, threads=threads).network, frames)
    return runs


def _compiled(network: nn.Module) -> nn.Module:
    compiled: Any = torch.compile(network)
    return compiled  # type: ignore[no-any-return]


def in_turn(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Side -> the median over rounds of the seconds of a pass."""
    passes = {side: _passes(run) for side, run in runs.items()}
    times: dict[str, list[float]] = {side: [] for side in runs}
    for _ in range(rounds):
        for side, run in runs.items():
            began = time.perf_counter()
            for _ in range(passes[side]):
                run()
            times[side].append((time.perf_counter() - began) / passes[side])
    return {side: statistics.median(values) for side, values in times.items()}


def _passes(run: Run) -> int:
    """How many passes fill a round; the first two, which compile and reserve memory, do not count."""
    run()
    run()
    began = time.perf_counter()
    run()
    return max(1, round(ROUND / (time.perf_counter() - began)))


def row(side: str, seconds: dict[str, float], batch: int, exports: dict[str, Exported]) -> list[str]:
    """A line of the table."""
    ratio = seconds[BASELINE] / seconds[side]
    loss = f"{max(each.worst_drop for each in exports[side].parity.rows):+.2%}" if side in exports else ""
    return [side, f"{1000 * seconds[side] / batch:.2f}", f"{ratio:.2f}", loss]


if __name__ == "__main__":
    sys.exit(main())
