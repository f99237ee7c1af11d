"""Whether depthray is right on a GPU, and how fast: one command, a JSON line for each check, in at most 8 minutes.

    python benchmarks/gpu.py [--minutes 8] [--only trains steps] [--recipes unet-resnet34] > gpu.jsonl

A line has the check, `ok` (true, false, or null where there is nothing to pass), its figures and the seconds it took.
A check that fails or raises does not stop the others; one for which no time is left says so. It needs PyTorch,
torchvision, Pillow, NumPy, OpenCV, h5py, PyYAML, rich, safetensors and tenacity, and neither Ray nor pydantic nor
albumentations, and runs from a checkout that is not installed. The exit code is 1 where a check failed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "docs" / "scaling")]

NEEDED = ("torch", "torchvision", "PIL", "numpy", "cv2", "h5py", "yaml", "rich", "safetensors", "tenacity")
if missing := [name for name in NEEDED if find_spec(name) is None]:
    print(json.dumps({"check": "packages", "ok": False, "missing": missing}))
    sys.exit(1)

import pydantic_stand_in  # noqa: E402

STOOD_IN = pydantic_stand_in.install()  # before anything of depthray is imported

import gpu_correctness as right  # noqa: E402
import gpu_speed as speed  # noqa: E402
import torch  # noqa: E402
from gpu_bench import Bench  # noqa: E402

RECIPES = (
    *("unet-resnet34", "fpn-resnet101", "bifpn-efficientnet-b0", "depthnet"),
    *("depthmasknet", "masknet", "dpt-vits", "demo"),
)
GROUP_NORM = ("depthnet", "demo")  # whose layouts CUDA treats differently from the CPU
Check = tuple[str, Callable[[], dict[str, Any]]]


def main(argv: list[str]) -> int:
    """Run the checks and print a line for each."""
    args = build_parser().parse_args(argv)
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):  # one process, whatever launched it
        os.environ.pop(key, None)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    ends, failed = time.monotonic() + 60 * args.minutes, 0
    with tempfile.TemporaryDirectory(prefix="depthray-gpu-") as folder:
        bench = Bench(device, Path(folder), args.recipes, small=args.small)
        for name, check in checks(bench):
            if args.only and name.partition("/")[0] not in args.only:
                continue
            if time.monotonic() > ends:
                line: dict[str, Any] = {"check": name, "ok": None, "why": f"no time left of {args.minutes:g} minutes"}
            else:
                line = run(name, check)
            failed += line["ok"] is False
            print(json.dumps(line, allow_nan=False), flush=True)
    return 1 if failed else 0


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no check begins (default: 8)")
    parser.add_argument("--only", nargs="+", metavar="CHECK", help="checks of these names, without the recipe")
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="NAME", help="default: the eight recipes")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU if there is one)")
    parser.add_argument("--small", action="store_true", help="a few steps of small images: whether the checks run")
    return parser


def checks(bench: Bench) -> Iterator[Check]:
    """What is checked, the more important first; the roof is measured once, for all speeds."""
    roof: dict[str, Any] = {}

    def measure() -> dict[str, Any]:
        roof.update(roof or speed.roofs(bench))
        return dict(roof)

    def steps(name: str, mode: str) -> dict[str, Any]:
        return speed.steps(bench, name, mode, measure())

    first, *others = bench.recipes
    grouped = [name for name in bench.recipes if name in GROUP_NORM]
    yield from (("device", partial(right.device, bench)), ("arithmetic", partial(right.arithmetic, bench)))
    yield "roofs", measure
    yield from _each("trains", bench, bench.recipes, right.trains)
    for check in (right.half, right.saves, right.scores, right.memory):
        yield check.__name__, partial(check, bench)
    yield from _each("syncs", bench, bench.recipes, right.syncs)
    yield from _speeds(steps, bench.recipes, ("eager",))
    for workers in (0, 2) if bench.small else (0, 4, 8, 14):
        yield f"loads/{workers}", partial(speed.loads, bench, first, workers)
    yield from _each("resumes", bench, bench.recipes, right.resumes)
    yield from _each("predicts", bench, bench.recipes, right.predicts)
    yield from _speeds(steps, (first,), ("graph",) if bench.small else ("fp32", "tf32", "graph", "compile"))
    yield from _speeds(steps, grouped, ("contiguous",))
    yield from _speeds(steps, others, ("graph",))
    yield from _each("latency", bench, (first,), speed.latency)
    yield from _each("compiles", bench, bench.recipes, speed.compiles)
    yield from _speeds(steps, () if bench.small else others, ("compile",))
    yield "group", partial(_group, bench)  # last, as it changes what other processes there are


def _each(
    name: str, bench: Bench, recipes: Sequence[str], check: Callable[[Bench, str], dict[str, Any]]
) -> Iterator[Check]:
    return ((f"{name}/{recipe}", partial(check, bench, recipe)) for recipe in recipes)


def _speeds(
    steps: Callable[[str, str], dict[str, Any]], recipes: Sequence[str], modes: Sequence[str]
) -> Iterator[Check]:
    return ((f"steps/{recipe}/{mode}", partial(steps, recipe, mode)) for recipe in recipes for mode in modes)


def _group(bench: Bench) -> dict[str, Any]:
    given = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": str(bench.device.index or 0)}
    os.environ.update(given | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"})
    try:
        return right.group(bench)
    finally:
        for key in given:
            del os.environ[key]


def run(name: str, check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The line of one check; an error of any kind is one more figure."""
    started = time.monotonic()
    try:
        facts = check()
    except Exception as error:
        facts = {"ok": False, "error": " ".join(f"{type(error).__name__}: {error}".split())[:400]}
    finally:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
    shown = {"check": name, "ok": facts.pop("ok"), **facts, "seconds": round(time.monotonic() - started, 2)}
    return {key: _plain(value) for key, value in shown.items()}


def _plain(value: Any) -> Any:
    """A figure of 5 digits, as JSON has it."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
