"""Whether class and instance ids help completion: the same recipe with and without them, at equal steps and seeds.

    python benchmarks/semantics.py --data PACKED [--recipe depthnet] [--seeds 3] [--out FOLDER] [override ...]

Trains image and sparse depth, then with class ids, then with instance ids too, each under every seed, and scores all on
the held-out scenes. Scores are means over seeds, with what the best and the worst seed has; differences from the first
are of frames in pairs, each the mean of its seeds, with 95 % intervals over scenes. Inputs that the data lack are left
out, and said. Runs that are in FOLDER from before are taken as they are.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import depthray
from depthray.config.sections import Data
from depthray.data.sources import open_source, recognise
from depthray.errors import UsageError
from depthray.evaluation.comparing.paired import FrameScores, MetricDifference, compare
from depthray.evaluation.markdown_table import markdown_table

INPUTS = {
    "image, sparse": ("image", "sparse"),
    "+ semantics": ("image", "sparse", "semantics"),
    "+ instances": ("image", "sparse", "semantics", "instances"),
}
SHOWN = ("rmse", "abs_rel", "delta1")


def main(argv: list[str] | None = None) -> None:
    """Train, score, and print the table."""
    args = _parse(argv)
    known = _known_inputs(args.data, args.source)
    chosen = {name: inputs for name, inputs in INPUTS.items() if known.issuperset({*inputs} - {"sparse"})}
    if len(chosen) < 2:
        raise UsageError(f"{args.data}: has no class ids, so there is nothing to compare")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        scores = {
            name: [_score(folder, args, seed, inputs) for seed in range(args.seeds)] for name, inputs in chosen.items()
        }
    print(f"{args.recipe} on {args.data}, {args.seeds} seeds, {' '.join(args.overrides) or 'as it is'}\n")
    print(
        markdown_table(["inputs", *(title for name in SHOWN for title in (name, "of seeds", "change"))], rows(scores))
    )
    for name in INPUTS.keys() - chosen.keys():
        print(f"{name}: not in these data")


def rows(scores: dict[str, list[FrameScores]]) -> list[list[str]]:
    """Scores of each seed by name of the inputs, the first of which others are compared with -> cells by line."""
    means = {name: _mean(each) for name, each in scores.items()}
    first = next(iter(means.values()))
    found = []
    for name, mean in means.items():
        differences = {each.metric: each for each in compare(None if mean is first else first, mean)}
        cells = []
        for metric in SHOWN:
            by_seed = [each.means()[metric] for each in scores[name]]
            ends = f"{min(by_seed):.4f} to {max(by_seed):.4f}"
            cells += [f"{mean.means()[metric]:.4f}", ends, _change(differences[metric])]
        found.append([name, *cells])
    return found


def _mean(scores: Sequence[FrameScores]) -> FrameScores:
    """The frames' scores, each the mean of the seeds."""
    return replace(scores[0], table=np.mean([each.table for each in scores], axis=0))


def _change(each: MetricDifference) -> str:
    if each.difference is None or each.before is None or not each.before.mean:
        return ""
    mean, low, high = (100 * value / each.before.mean for value in each.difference)
    return f"{mean:+.1f} % ({low:+.1f} to {high:+.1f}) {each.verdict}"


def _score(folder: Path, args: argparse.Namespace, seed: int, inputs: Sequence[str]) -> FrameScores:
    run = folder / f"{'-'.join(inputs)}-{seed}"
    if not run.exists():
        words = (f"data.inputs={','.join(inputs)}", f"seed={seed}", *args.overrides)
        depthray.train(args.recipe, *words, data=args.data, out=run)
    return FrameScores.of(depthray.evaluate(run).evaluation, "rmse")


def _known_inputs(place: str, source: str | None) -> frozenset[str]:
    section = Data(root=place, source=source or recognise(place), inputs=INPUTS["+ instances"])
    return open_source(section, verify=False).keys


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="of the recipe, such as train.epochs=4"
    )
    parser.add_argument("--data", required=True, help="frames with class ids, of several scenes")
    parser.add_argument("--source", help="form of the frames; default: as they look")
    parser.add_argument("--recipe", default="depthnet")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder of the runs; default: one that is deleted")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    main()
