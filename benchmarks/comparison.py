"""How often `depthray compare` is wrong: pairs of one recipe under several seeds, and pairs with a known difference.

    python benchmarks/comparison.py [--recipe demo] [--seeds 7] [--rooms 60] [--data FRAMES] [override ...]

Trains a recipe under each seed, scores all on frames that none has seen (rendered rooms, or the held-out scenes of
--data), and compares every pair. Then with networks that are worse by 5 %, made by blending: ln of each predicted depth
is moved towards that of the image's median by the share that makes AbsRel so much worse, which changes each frame as it
will. Each network is held to itself blended, and to every worse one blended to be 5 % worse than it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import torch
from torch import nn

import depthray
from depthray import models
from depthray.__main__ import main as command
from depthray.batch import Batch, Prediction
from depthray.cli import evaluate as evaluate_command
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.sources import open_source
from depthray.evaluation import protocols
from depthray.evaluation.comparing.paired import FrameScores, compare
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.markdown_table import markdown_table
from depthray.runs import locate
from depthray.runtimes.open import open_model

FRAMES_A_ROOM = 4
RENDER_SEED = 7  # of rooms that are in no recipe
WORSE = 1.05
SHARES = (0.0, 0.1, 0.2, 0.4, 0.8)  # of a blend that are scored; between them scores of frames are interpolated
VERDICTS = ("better", "within luck", "worse", "too few scenes")


class Blended(nn.Module):
    """A network whose ln depth is moved by a share towards that of the image's median."""

    stride = 1

    def __init__(self, network: nn.Module, share: float) -> None:
        super().__init__()
        self.network, self.share = network, share
        self.inputs: tuple[str, ...] = network.inputs  # type: ignore[assignment]

    def forward(self, batch: Batch) -> Prediction:
        """A batch -> `depth` (B,1,H,W) metres, blended"""
        depth = models.run(self.network, batch)["depth"].float()
        middle = depth.flatten(1).median(dim=1).values[:, None, None, None]
        return {"depth": depth ** (1 - self.share) * middle**self.share}


def main(argv: list[str] | None = None) -> None:
    """Train, score, compare, and print how often a difference was found."""
    args = _parse(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder, frames, side = args.runs or Path(temporary), args.data, "val"
        runs = [_train(folder / f"seed-{seed}", seed, args) for seed in range(args.seeds)]
        if frames is None:
            frames, side = str(Path(temporary) / "rooms"), "all"
            count = str(FRAMES_A_ROOM * args.rooms)
            command(["data", "render", frames, "--frames", count, "--seed", str(RENDER_SEED), "--layout", "folder"])
        grades = [_graded(run, frames, side) for run in runs]
    print("AbsRel by seed:", " ".join(f"{_mean(each[0]):.4f}" for each in grades))
    print(markdown_table(["pairs", *VERDICTS, "of"], [[name, *_counted(found)] for name, found in verdicts(grades)]))


def verdicts(grades: Sequence[Sequence[FrameScores]]) -> Iterable[tuple[str, list[str]]]:
    """Scores of each network by SHARES -> what was found of each kind of pair."""
    firsts = [each[0] for each in grades]
    pairs = [(first, second) for first, second in permutations(range(len(grades)), 2) if first < second]
    yield "two seeds", [_verdict(firsts[first], firsts[second]) for first, second in pairs]
    larger = [replace(each, table=WORSE * each.table) for each in firsts]
    yield "two seeds, errors of the second 5 % larger", [_verdict(firsts[i], larger[j]) for i, j in pairs]
    blended = [worse(each, WORSE * _mean(each[0])) for each in grades]
    yield "one network, blended to be 5 % worse", [_verdict(*pair) for pair in zip(firsts, blended, strict=True)]
    # Of a pair the better network is the first, for a blend of the other one to reach that.
    pairs = [
        (i, j) for i, j in permutations(range(len(grades)), 2) if 1 <= _mean(firsts[j]) / _mean(firsts[i]) <= WORSE
    ]
    found = [_verdict(firsts[i], worse(grades[j], WORSE * _mean(firsts[i]))) for i, j in pairs]
    yield "another seed, blended to be 5 % worse", found


def worse(grades: Sequence[FrameScores], target: float) -> FrameScores:
    """Scores of a network by SHARES -> those of the share whose mean AbsRel is the target."""
    means = [_mean(each) for each in grades]
    rising = (at for at in range(len(means) - 1) if means[at] <= target < means[at + 1])
    low = next(rising, len(means) - 2)  # where it never is so bad, the last
    part = min((target - means[low]) / (means[low + 1] - means[low]), 1.0)
    table = (1 - part) * grades[low].table + part * grades[low + 1].table
    return replace(grades[0], table=table)


def _graded(run: Path, data: str, side: str) -> list[FrameScores]:
    """AbsRel of a network's frames at each of SHARES."""
    path = locate.resolve(run)
    recipe = evaluate_command.recipe_of(path, argparse.Namespace(trust=False, overrides=[], data=data, source=None))
    source, network = open_source(recipe.data), open_model(path, device=torch.device("cpu")).network.eval()
    chosen = split.side(source.frames, recipe.data, side)
    graded = []
    for share in SHARES:
        batches = eval_batches(source, chosen, protocols.scored_data(recipe), batch_size=recipe.eval.batch_size)
        result = evaluate(Blended(network, share), batches, protocol=protocols.of(recipe), device=torch.device("cpu"))
        graded.append(_abs_rel(FrameScores.of(result, "abs_rel")))
    return graded


def _train(run: Path, seed: int, args: argparse.Namespace) -> Path:
    if not run.exists():
        depthray.train(args.recipe, f"seed={seed}", *args.overrides, data=args.data, out=run)
    return run


def _abs_rel(scores: FrameScores) -> FrameScores:
    column = scores.names.index("abs_rel")
    return replace(scores, names=("abs_rel",), table=scores.table[:, column : column + 1])


def _mean(scores: FrameScores) -> float:
    return scores.means()["abs_rel"]


def _verdict(first: FrameScores, second: FrameScores) -> str:
    return compare(first, second)[0].verdict


def _counted(found: Sequence[str]) -> list[str]:
    counts = Counter(found)
    return [*(str(counts[verdict]) for verdict in VERDICTS), str(len(found))]


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--seeds", type=int, default=7)
    parser.add_argument("--rooms", type=int, default=60)
    parser.add_argument("--data", help="train on these frames, and score those that are held out; default: rooms")
    parser.add_argument(
        "--runs", type=Path, help="a folder with runs of before, seed-0 and on; missing ones are trained"
    )
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    main()
