"""Scale on paper: expected efficiency from 1 to 1,024 GPUs, sizes of loaders, shards and storage, and of a service.

    python benchmarks/scaling.py                                    # print the tables of docs/scaling.md
    python benchmarks/scaling.py --page docs/scaling.md --chart docs/examples/scaling.svg
    python benchmarks/scaling.py --check                            # the model against this machine, about a minute

Closed formulas and a seeded simulation: the same tables every time. What is published, measured or assumed stands in
scaling_machines.py, the networks are counted in scaling_networks.py, the formulas are in scaling_training.py and
scaling_upkeep.py.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import scaling_chart
import scaling_training as training
from scaling_machines import GB, INDEX_BYTES, LOAD_FIXED, LOAD_PIXEL, T4, Cluster
from scaling_networks import Network, counted
from scaling_tables import TABLES

Found = dict[str, dict[str, float]]

MARKED = r"(<!-- table {name} -->\n).*?(<!-- end -->)"


def main() -> int:
    """Print the tables, write them into a page, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the model with this machine")
    parser.add_argument("--page", type=Path, help="put the tables where the page has marks for them")
    parser.add_argument("--chart", type=Path, help="write the chart of efficiency")
    args = parser.parse_args()
    if args.check:
        print(checked())
        return 0
    if args.chart:
        args.chart.write_text(scaling_chart.draw() + "\n", encoding="utf-8")
    if args.page:
        args.page.write_text(filled(args.page.read_text(encoding="utf-8")), encoding="utf-8")
    if not (args.page or args.chart):
        for name, made in TABLES.items():
            print(f"{name}\n\n{made()}\n")
    return 0


def filled(page: str) -> str:
    """The page with its tables as they come out now."""
    for name, made in TABLES.items():
        page, times = re.subn(
            MARKED.format(name=name), lambda found, made=made: f"{found[1]}{made()}\n{found[2]}", page, flags=re.S
        )
        if times != 1:
            raise SystemExit(f"the page has {times} places for the table '{name}'; it needs one")
    return page


def checked() -> str:
    """Measured on this machine, what the formulas make of it, and the error."""
    from scaling_check import measured

    before = os.getloadavg()[0]
    found = measured()
    lines = [f"{'':58}{'model':>10}{'measured':>10}{'error':>9}"]
    lines += [
        f"{what:58}{model:10.3g}{seen:10.3g}{(model / seen - 1) * 100:+8.1f}%" for what, model, seen in _compared(found)
    ]
    return "\n".join([*lines, "", *_speeds(found), f"load of the machine: {before:.1f} before"])


def _compared(found: Found) -> list[tuple[str, float, float]]:
    """What, by the model, as measured."""
    from scaling_check import RECIPE, SIDES, SIZE

    one, two, alone = found["1"], found["2"], found["one"]
    net, cluster = counted(RECIPE, SIZE), _loopback(two)
    reduced = training.all_reduce(net.gradient_bytes, cluster, 2)
    return [
        ("step of 2 workers, ms: theirs without sums + all-reduce", (two["apart"] + reduced) * 1e3, two["step"] * 1e3),
        ("the same from 1 worker's step", (one["step"] + reduced) * 1e3, two["step"] * 1e3),
        (
            "the same if the all-reduce were hidden, as on a GPU",
            _hidden(net, cluster, two["apart"]) * 1e3,
            two["step"] * 1e3,
        ),
        ("efficiency of 2 workers", one["step"] / (one["step"] + reduced), one["step"] / two["step"]),
        ("images/s of 2 loaders from 1", 2 / one["loader"], 2 / two["loader"]),
        *((f"ms of a core to load {side}x{side}", _load(side), 1e3 * alone[f"loader {side}"]) for side in SIDES),
        ("bytes of index a frame", INDEX_BYTES, alone["index_bytes"]),
    ]


def _loopback(two: dict[str, float]) -> Cluster:
    """Two processes of this machine as nodes of one GPU each, by what gloo took for a large and a small sum."""
    from scaling_check import BLOCK

    return Cluster("loopback", T4, 1, 1.0, BLOCK / two["block"], 0.0, two["small"] / 4, "", start=two["small"] / 2)


def _load(side: int) -> float:
    return 1e3 * (LOAD_FIXED + LOAD_PIXEL * side**2)


def _speeds(found: Found) -> list[str]:
    from scaling_check import BLOCK

    one, two, alone = found["1"], found["2"], found["one"]
    stages = {"forward pass": "pass", "JPEG in": "decode", "PNG out": "encode"}
    coding = ", ".join(f"{words} {alone[name] * 1e3:.1f}" for words, name in stages.items())
    return [
        f"all-reduce by gloo on loopback: {BLOCK / two['block'] / GB:.2f} GB/s, {two['small'] * 1e3:.2f} ms for 1 kB",
        f"a step without sums: one worker {one['apart'] * 1e3:.0f} ms, each of two {two['apart'] * 1e3:.0f} ms",
        f"index of shards: {alone['index_seconds'] * 1e6:.0f} us of a core a frame",
        f"ms of a core an image: {coding}",
    ]


def _hidden(net: Network, cluster: Cluster, apart: float) -> float:
    """When the last bucket is done if reducing costs the network nothing: forward is a third of a step."""
    done = 0.0
    for bucket in net.buckets:
        done = max(done, apart * (1 + 2 * bucket.ready) / 3) + training.all_reduce(bucket.bytes, cluster, 2)
    return max(done, apart)


if __name__ == "__main__":
    sys.exit(main())
