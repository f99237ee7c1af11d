"""`depthray completion`: the error of a completion checkpoint against the number of sparse samples it is given."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthray.errors import UsageError
from depthray.runs import layout, locate

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do without it
    import torch
    from torch import nn

    from depthray.config.sections import Recipe
    from depthray.data.source import Source
    from depthray.evaluation.evaluate import Batches
    from depthray.imaging import plots

SAMPLES = (0, 5, 50, 200, 500, 5000)
COUNTED = ("exact", "bernoulli", "grid", "features")  # patterns in which data.sparse.samples says how many
SHOWN = ("rmse", "mae", "abs_rel", "imae", "delta1")  # in the table people read; the files hold all
SPREAD = ("rmse", "abs_rel")
NOTE = "In brackets: 95 % intervals. Spread: the samples alone, spread over the map, which a network has to beat."
DRAWN = ("rmse", "abs_rel", "delta1")


@dataclass(frozen=True)
class Point:
    """The scores with so many samples."""

    samples: int  # asked for
    given: float  # mean number a frame had; fewer where less is measured
    frames: int
    scores: dict[str, dict[str, float]]  # metric -> mean, low, high
    spread: dict[str, float]  # metric -> mean of the samples spread over the map, without any network


@dataclass(frozen=True)
class Curve:
    """Scores against the number of samples, and what was scored."""

    about: dict[str, Any]
    points: Sequence[Point]

    @property
    def names(self) -> list[str]:
        """The metrics."""
        return list(self.points[0].scores)

    def markdown(self) -> str:
        """A table for people, which lines up in a terminal too."""
        names = [name for name in SHOWN if name in self.names] or self.names
        head = ["samples", "given", *(_headed(name) for name in names), *(f"spread {_headed(name)}" for name in SPREAD)]
        lines = [
            [
                *(str(p.samples), f"{p.given:.1f}"),
                *(_interval(**p.scores[name]) for name in names),
                *(f"{p.spread[name]:.4f}" if p.given and name in p.spread else "-" for name in SPREAD),
            ]
            for p in self.points
        ]
        facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in self.about.items()]
        title = "# Error against the number of samples"
        return "\n".join([title, "", *facts, "", *_table(head, lines), "", NOTE, ""])

    def csv(self) -> str:
        """A line a point: samples, given, frames and the mean of every metric at full precision."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["samples", "given", "frames", *self.names, *(f"spread_{name}" for name in self.names)])
        for point in self.points:
            means = [point.scores[name]["mean"] for name in self.names]
            spread = [point.spread.get(name) for name in self.names]
            writer.writerow([point.samples, point.given, point.frames, *means, *spread])
        return text.getvalue()

    def json(self) -> str:
        """All of it, with null for what could not be scored."""
        points = [
            {
                **{"samples": p.samples, "given": p.given, "frames": p.frames},
                **{"scores": _nulled(p.scores), "spread": _nulled({"mean": p.spread})["mean"]},
            }
            for p in self.points
        ]
        return json.dumps({**self.about, "points": points}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, out: Path) -> None:
        """Write completion.md, .csv, .json and .png into a folder, which is made if need be."""
        from depthray.imaging import plots, sheets

        names = [name for name in DRAWN if name in self.names] or self.names[:3]
        panels = [plots.Panel(_headed(name), [self._line(name)]) for name in names]
        try:
            out.mkdir(parents=True, exist_ok=True)
            for form in ("md", "csv", "json"):
                text = {"md": self.markdown, "csv": self.csv, "json": self.json}[form]()
                (out / f"completion.{form}").write_text(text, encoding="utf-8")
            sheets.save_png(out / "completion.png", plots.draw_curves(panels, x_label="sparse samples a frame"))
        except OSError as error:
            raise UsageError(f"cannot write the curve to {out}: {error.strerror}; give another --out") from None

    def _line(self, name: str) -> plots.PlotLine:
        """A metric against the number of samples."""
        from depthray.imaging import plots

        mean, low, high = ([p.scores[name][end] for p in self.points] for end in ("mean", "low", "high"))
        return plots.PlotLine(name, [p.samples for p in self.points], mean, low, high)


def main(argv: list[str]) -> int:
    """Score a checkpoint at each number of samples as the command line asks."""
    arguments = build_parser().parse_intermixed_args(argv)
    # Only now: --help need not wait for torch.
    from depthray import distributed
    from depthray.cli.evaluate import recipe_of

    path = locate.resolve(arguments.checkpoint)
    recipe = recipe_of(path, arguments)
    check(recipe, where=str(arguments.checkpoint))
    device = distributed.start()
    try:
        found = completion_curve(path, recipe, arguments.samples, side=arguments.split, device=device)
        if distributed.is_main():
            out = arguments.out or _default_out(path, arguments.split)
            found.write(out)
            print(found.markdown())
            print(f"written: {out}/completion.md, .csv, .json and .png")
    finally:
        distributed.stop()
    return 0


def check(recipe: Recipe, *, where: str) -> None:
    """Refuse a recipe to which the number of samples means nothing."""
    if "sparse" not in recipe.data.inputs:
        raise UsageError(
            f"{where}: its inputs are {', '.join(recipe.data.inputs)}; an error against the number of samples takes a "
            "checkpoint trained with 'sparse' among data.inputs, such as data.inputs=[image,sparse]"
        )
    if "depth" not in recipe.data.targets:
        raise UsageError(f"{where}: it was taught {', '.join(recipe.data.targets)}, not depth")
    if recipe.data.sparse.pattern not in COUNTED:
        raise UsageError(
            f"{where}: data.sparse.pattern={recipe.data.sparse.pattern} has no number of samples; "
            f"add the word data.sparse.pattern=exact (or {', '.join(COUNTED[1:])})"
        )


def completion_curve(path: Path, recipe: Recipe, samples: Sequence[int], *, side: str, device: torch.device) -> Curve:
    """Score one side of a recipe's data with a checkpoint's weights, once for each number of samples."""
    from depthray.data import split
    from depthray.data.sources import open_source
    from depthray.predict import load

    model = load(path, device=str(device)).model
    source = open_source(recipe.data)
    chosen = split.side(source.frames, recipe.data, side)
    points = [
        _point(model, with_samples(recipe, number), source, chosen, device=device) for number in sorted(set(samples))
    ]
    return Curve(_about(path, recipe, side=side, fingerprint=source.fingerprint), points)


def with_samples(recipe: Recipe, number: int) -> Recipe:
    """The recipe with another number of samples."""
    sparse = recipe.data.sparse.model_copy(update={"samples": number})
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"sparse": sparse})})


def _point(model: nn.Module, recipe: Recipe, source: Source, chosen: Sequence[int], *, device: torch.device) -> Point:
    from depthray import distributed
    from depthray.data.loader import eval_batches
    from depthray.evaluation.evaluate import evaluate
    from depthray.evaluation.protocols import PROTOCOLS

    def batches() -> Batches:
        rank, world_size, size = distributed.rank(), distributed.world_size(), recipe.eval.batch_size
        return eval_batches(source, chosen, recipe.data, batch_size=size, rank=rank, world_size=world_size)

    counts: dict[int, float] = {}
    protocol = PROTOCOLS[recipe.eval.protocol]
    found = evaluate(model, _counting(batches(), counts), protocol=protocol, device=device)
    spread = evaluate(_spread(), batches(), protocol=protocol, device=device)
    # One pair a frame, added up in the order of the frames: the same for any number of processes.
    given = dict(sorted(distributed.gather(list(counts.items()))))
    mean = math.fsum(given.values()) / len(given)
    return Point(recipe.data.sparse.samples, mean, len(found.rows), found.summary()["overall"], spread.scores())


def _spread() -> nn.Module:
    """What any completion network has to beat: the samples, and between them what they say of their neighbourhood."""
    from torch import nn

    from depthray.batch import Batch, Prediction
    from depthray.models.layers.inputs import fill_sparse

    class Spread(nn.Module):
        inputs = ("sparse",)
        stride = 1

        def forward(self, batch: Batch) -> Prediction:
            """(B,1,H,W) sparse depth -> (B,1,H,W) depth, metres"""
            return {"depth": fill_sparse(batch["sparse"])}

    return Spread()


def _counting(batches: Batches, counts: dict[int, float]) -> Iterator[Any]:
    """The same batches, the number of samples of each frame noted on the way."""
    for indices, batch in batches:
        counts.update(zip(indices, (batch["sparse"] > 0).sum(dim=(1, 2, 3)).tolist(), strict=True))
        yield indices, batch


def _about(path: Path, recipe: Recipe, *, side: str, fingerprint: str) -> dict[str, Any]:
    data, (height, width) = recipe.data, recipe.data.size
    return {
        "checkpoint": str(path),
        "protocol": recipe.eval.protocol,
        "data": f"{data.root} ({data.source})" if data.root else data.source,
        "data_fingerprint": fingerprint,
        "split": side,
        "network_size": f"{height}x{width}" if data.fit == "exact" else f"shorter side {min(data.size)}",
        "pattern": data.sparse.pattern,
        "noise": data.sparse.noise,
    }


def build_parser() -> argparse.ArgumentParser:
    from depthray.cli.evaluate import add_frames

    parser = argparse.ArgumentParser(
        prog="depthray completion",
        description="Error of a checkpoint that takes sparse depth, against the number of samples a frame.",
        epilog="Words: data.sparse.pattern=grid, data.sparse.noise=0.02, eval.protocol=nyu-s2d and the like.",
    )
    add_frames(parser)
    parser.add_argument("--samples", type=_number, nargs="+", default=SAMPLES, help=f"default: {_listed(SAMPLES)}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write; default: in the run's folder")
    return parser


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number of samples; words come before --samples")
    return int(text)


def _listed(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _default_out(path: Path, side: str) -> Path:
    return layout.evaluation(path.resolve(), f"{side}-completion")


def _headed(name: str) -> str:
    from depthray.evaluation.metrics import UNITS

    return f"{name} [{UNITS[name]}]" if name in UNITS else name


def _interval(mean: float, low: float, high: float) -> str:
    return "-" if math.isnan(mean) else f"{mean:.4f} ({low:.4f} to {high:.4f})"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in (head, *lines)) for column in range(len(head))]
    rows = [head, ["-" * width for width in widths], *lines]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]


def _nulled(scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    return {
        name: {end: None if math.isnan(value) else value for end, value in score.items()}
        for name, score in scores.items()
    }
