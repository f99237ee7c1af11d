"""What the test-time options of prediction gain and cost: flip averaging, other sizes, tiles.

    python benchmarks/passes.py RUN --data NYU [--split val] [--frames 200] [override ...]

Each option scores the same frames as one pass does; differences are in pairs of them, with intervals over scenes. Time
is that of a frame of the evaluation, frames read and scored included, and as a multiple of one pass.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from depthray.cli import evaluate as evaluate_command
from depthray.config import recipe as recipes
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.sources import open_source
from depthray.errors import UsageError
from depthray.evaluation import protocols
from depthray.evaluation.comparing.paired import FrameScores, MetricDifference, compare
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.markdown_table import markdown_table
from depthray.runs import locate
from depthray.runtimes.open import open_model
from depthray.runtimes.passes import Passes

OPTIONS = {
    "one pass": (),
    "flip": ("eval.flip=true",),
    "scales 0.75, 1.25": ("eval.scales=[0.75,1.25]",),
    "scales 1.25, 1.5": ("eval.scales=[1.25,1.5]",),
    "flip, scales 0.75, 1.25": ("eval.flip=true", "eval.scales=[0.75,1.25]"),
    "tiles 2": ("eval.tiles=2",),
    "tiles 2, flip": ("eval.tiles=2", "eval.flip=true"),
    "tiles 3": ("eval.tiles=3",),
}
SHOWN = ("abs_rel", "rmse", "delta1")


def main(argv: list[str] | None = None) -> None:
    """Score under each option and print a table."""
    args = _parse(argv)
    path = locate.resolve(args.run)
    request = argparse.Namespace(trust=False, overrides=args.overrides, data=args.data, source=args.source)
    plain = evaluate_command.recipe_of(path, request)
    source, opened = open_source(plain.data), open_model(path, device=torch.device("cpu"))
    chosen = split.side(source.frames, plain.data, args.split)[: args.frames]
    first: FrameScores | None = None
    usual = 0.0
    rows = []
    warm_up = eval_batches(source, chosen, protocols.scored_data(plain), batch_size=plain.eval.batch_size)
    evaluate(opened.network, warm_up, protocol=protocols.of(plain), device=opened.device)  # frames are cached then too
    for name in args.only or OPTIONS:
        recipe = recipes.override(plain, OPTIONS[name], where=name)
        try:
            Passes.of(recipe.eval).check(recipe.data, metric=recipe.depth_kind == "metric")
        except UsageError as error:  # as of completion, which flips alone
            print(f"{name}: left out: {error}")
            continue
        batches = eval_batches(source, chosen, protocols.scored_data(recipe), batch_size=recipe.eval.batch_size)
        began = time.perf_counter()
        evaluation = evaluate(
            opened.network,
            batches,
            protocol=protocols.of(recipe),
            device=opened.device,
            passes=Passes.of(recipe.eval),
        )
        seconds = (time.perf_counter() - began) / len(chosen)
        scores = FrameScores.of(evaluation, recipe.eval.monitor)
        found = {each.metric: each for each in compare(first, scores)}
        first, usual = first or scores, usual or seconds
        cells = [cell for metric in SHOWN for cell in _cells(found[metric])]
        rows.append([name, *cells, f"{1000 * seconds:.0f}", f"{seconds / usual:.1f}"])
    print(f"{len(chosen)} frames of {len({source.frames[index].scene for index in chosen})} scenes, {path}\n")
    head = ["", *(title for metric in SHOWN for title in (metric, "change")), "ms / frame", "x one pass"]
    print(markdown_table(head, rows))


def _cells(each: MetricDifference) -> list[str]:
    """A score, and its change in per cent with the interval and what that says."""
    if each.difference is None or each.before is None or not each.before.mean:
        return [f"{each.after.mean:.4f}", ""]
    mean, low, high = (100 * value / each.before.mean for value in each.difference)
    return [f"{each.after.mean:.4f}", f"{mean:+.1f} % ({low:+.1f} to {high:+.1f}) {each.verdict}"]


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a checkpoint, an export or a run")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of data.* and eval.*")
    parser.add_argument("--data", help="the frames; default: those the recipe names")
    parser.add_argument("--source", help="form of the frames; default: as they look")
    parser.add_argument("--split", default="val")
    parser.add_argument("--frames", type=int, default=200, help="at most so many")
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), help="these; the first is what others are held to")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    main()
