"""How often `depthray compare` is wrong: pairs of one recipe under two seeds, and pairs with a known difference.

    python benchmarks/comparison.py [--recipe demo] [--seeds 7] [--rooms 60] [override ...]

Trains a recipe under each seed, scores all on rendered rooms that none has seen, and compares every pair. Then every
error of the second of each pair is made larger by 5 %, as if its network were worse by that.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import depthray
from depthray.__main__ import main as command
from depthray.evaluation.comparing.paired import FrameScores, compare
from depthray.evaluation.markdown_table import markdown_table

FRAMES_A_ROOM = 4
RENDER_SEED = 7  # of rooms that are in no recipe
WORSE = 1.05


def main() -> None:
    """Train, compare, and print how often a difference was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--rooms", type=int, default=60)
    parser.add_argument(
        "--runs", type=Path, help="a folder with runs of before, seed-0 and on; missing ones are trained"
    )
    args = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.runs or Path(temporary)
        runs = [_train(folder / f"seed-{seed}", args.recipe, seed, args.overrides) for seed in range(args.seeds)]
        rooms = Path(temporary) / "rooms"
        frames = str(FRAMES_A_ROOM * args.rooms)
        command(["data", "render", str(rooms), "--frames", frames, "--seed", str(RENDER_SEED), "--layout", "folder"])
        (compared,) = depthray.compare(*runs, data=rooms, split="all").sets
    scores = [_abs_rel(each.frames) for each in compared.scores]
    print("AbsRel by seed:", " ".join(f"{each.means()['abs_rel']:.4f}" for each in scores))
    pairs = list(combinations(scores, 2))
    same: Counter[str] = Counter(compare(*pair)[0].verdict for pair in pairs)
    other: Counter[str] = Counter(compare(first, _worse(second))[0].verdict for first, second in pairs)
    known: Counter[str] = Counter(compare(first, _worse(first))[0].verdict for first in scores)
    head = ["pairs", "better", "within luck", "worse"]
    rows = {"two seeds": same, "two seeds, the second 5 % worse": other, "one network, made 5 % worse": known}
    print(markdown_table(head, [[name, *(str(found[key]) for key in head[1:])] for name, found in rows.items()]))


def _train(run: Path, recipe: str, seed: int, overrides: list[str]) -> Path:
    if not run.exists():
        depthray.train(recipe, f"seed={seed}", *overrides, out=run)
    return run


def _abs_rel(scores: FrameScores) -> FrameScores:
    column = scores.names.index("abs_rel")
    return replace(scores, names=("abs_rel",), table=scores.table[:, column : column + 1])


def _worse(scores: FrameScores) -> FrameScores:
    return replace(scores, table=scores.table * WORSE)


if __name__ == "__main__":
    main()
