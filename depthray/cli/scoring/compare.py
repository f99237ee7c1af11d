"""`depthray compare`: which of several checkpoints is better on the same frames, and whether that is beyond luck."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.cli.evaluate import recipe_of
from depthray.cli.flags import trust
from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.output.markdown_output import print_markdown
from depthray.errors import UsageError
from depthray.runs import layout, locate
from depthray.runtimes.open import read_recipe
from depthray.storage.remote import is_remote
from depthray.training.preflight import check

if TYPE_CHECKING:  # torch takes seconds to import
    import torch

    from depthray.config.sections import Recipe
    from depthray.evaluation.comparing.comparison import Candidate, Comparison


def main(argv: list[str]) -> int:
    """Compare checkpoints as the command line asks."""
    arguments = build_parser().parse_intermixed_args(argv)
    places, overrides = _split(arguments.words, arguments.baseline)
    # Only now: --help need not wait for torch.
    from depthray import distributed
    from depthray.evaluation.comparing import comparison_report

    device = distributed.start()
    try:
        result, path = compare(places, overrides, arguments, device)
        if distributed.is_main():
            name = f"{arguments.split}-{result.sets[0].protocol}-compared"
            out = arguments.out or layout.evaluation(path, name, remote=is_remote(places[0]))
            comparison_report.write(result, out)
            print_markdown(comparison_report.markdown(result))
            print(f"written: {out}/comparison.md, .json, .csv and .png")
    finally:
        distributed.stop()
    return 0


def compare(
    places: Sequence[str], overrides: Sequence[str], arguments: argparse.Namespace, device: torch.device
) -> tuple[Comparison, Path]:
    """The comparison with the first of the places, and the checkpoint that it is."""
    from depthray.evaluation.comparing.comparison import compare_candidates

    requests = [
        argparse.Namespace(**{**vars(arguments), "overrides": overrides, "data": data}) for data in _sets(arguments)
    ]
    candidates, frames = open_candidates(places, requests)
    result = compare_candidates(candidates, frames, side=arguments.split, device=device, trust=arguments.trust)
    return result, candidates[0].path


def open_candidates(
    places: Sequence[str], requests: Sequence[argparse.Namespace]
) -> tuple[list[Candidate], list[Recipe]]:
    """The candidates at these places, and of each request the recipe of the first of them that says what is scored.

    Raises UsageError where another of them cannot be scored so.
    """
    from depthray.evaluation.comparing.comparison import Candidate, recipe_on

    trusted = requests[0].trust
    names, paths = short_names(places), [locate.resolve(Path(place)) for place in places]
    frames = [recipe_of(paths[0], request) for request in requests]
    candidates = [
        Candidate(name, path, read_recipe(path, trust=trusted)) for name, path in zip(names, paths, strict=True)
    ]
    for candidate in candidates[1:]:
        for recipe in frames:
            check(recipe_on(candidate.recipe, recipe), where=candidate.name, training=False)
    return candidates, frames


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray compare`."""
    parser = CommandParser(
        prog="depthray compare",
        description="Score checkpoints, exports or runs (their best checkpoints) on the same frames, and say which "
        "differences from the first are beyond the luck of which scenes were scored.",
        epilog="Overrides: eval.protocol=nyu-bts, data.encoding=uint16_mm and whatever else of data.* and eval.* "
        "differs from the first one's recipe, which says what is scored.",
    )
    parser.add_argument("words", nargs="+", metavar="RUN", help="checkpoints, exports or runs, then overrides")
    parser.add_argument(
        "--baseline", metavar="RUN", help="the one that the others are compared with; default: the first"
    )
    parser.add_argument(
        "--data", metavar="PATH", action="append", help="frames, again for each set; default: its recipe's"
    )
    parser.add_argument("--source", help="form of the frames: folder, ./frames.py, ...; default: as PATH looks")
    parser.add_argument("--split", default="val", help="train, val, test or all; default: val")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; default: in the first run's folder")
    trust.add_flag(parser)
    return parser


def short_names(places: Sequence[str]) -> list[str]:
    """The last parts of the places that tell them apart."""
    parts = [[part for part in place.rstrip("/").split("/") if part] for place in places]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    raise UsageError(f"{places[0]} is given twice; a comparison needs different checkpoints")


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """-> checkpoints, exports or runs, and overrides."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides


def _split(words: Sequence[str], baseline: str | None) -> tuple[list[str], list[str]]:
    """-> the checkpoints, the baseline first, and the overrides."""
    places, overrides = split_words(words)
    if baseline is not None:
        places = [baseline, *(place for place in places if place != baseline)]
    if len(places) < 2:
        raise UsageError(f"depthray compare {' '.join(places)}: give at least two checkpoints, exports or runs")
    return places, overrides


def _sets(arguments: argparse.Namespace) -> list[str | None]:
    """The paths of --data; None for the frames of the baseline's own recipe."""
    return arguments.data or [None]
