"""What an evaluation found, and its written form: JSON for programs, Markdown for people, CSV with a line a frame."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray import bootstrap, metrics
from depthray.errors import UsageError
from depthray.metrics import METRICS, RANGES, UNITS
from depthray.protocols import Protocol


@dataclass(frozen=True)
class Row:
    """One frame, scored."""

    index: int
    id: str
    scene: str
    source: str
    sums: NDArray[np.float64]  # (R,K), see metrics.image_sums
    broken: int  # predicted pixels that were NaN or infinite

    @property
    def abs_rel(self) -> float:
        """Over all depths; NaN without a scored pixel."""
        return float(metrics.image_scores(self.sums[0])[METRICS.index("abs_rel")])


@dataclass(frozen=True)
class Evaluation:
    """The frames that were scored, by index. The same whatever number of processes scored them."""

    protocol: Protocol
    rows: Sequence[Row]
    about: Mapping[str, str] = field(default_factory=dict)  # what was scored: checkpoint, data, split, fingerprint

    @property
    def sums(self) -> NDArray[np.float64]:
        """-> (N,R,K) float64, see metrics.image_sums."""
        return np.stack([row.sums for row in self.rows])

    @property
    def table(self) -> NDArray[np.float64]:
        """-> (N,M) float64 metrics over all depths in the order of METRICS; NaN for a frame without a scored pixel."""
        return metrics.image_scores(self.sums[:, 0])

    def scores(self) -> dict[str, float]:
        """The mean over frames by metric."""
        return metrics.average(self.table)

    def ranked(self) -> list[Row]:
        """The frames that could be scored, lowest abs_rel first."""
        return sorted((row for row in self.rows if not math.isnan(row.abs_rel)), key=lambda row: row.abs_rel)

    def summary(self) -> dict[str, Any]:
        """Everything but the single frames: overall with 95 % intervals, by range of depth, by source, by scene."""
        scenes = [row.scene for row in self.rows]
        return {
            "protocol": {"name": self.protocol.name, "about": self.protocol.about},
            **self.about,
            "frames": len(self.rows),
            "frames_scored": len(self.ranked()),
            "scene_count": len(set(scenes)),
            "pixels": int(self.sums[:, 0, 0].sum()),
            "broken_pixels": sum(row.broken for row in self.rows),
            "interval": _what_was_drawn(scenes),
            "overall": self._overall(),
            "ranges": [self._range(number) for number in range(1, len(RANGES))],
            "sources": self._groups([row.source for row in self.rows]),
            "scenes": self._groups(scenes),
        }

    def write(self, out: Path) -> None:
        """Write evaluation.json, .md and .csv into a folder, which is made if need be."""
        found = self.summary()
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / "evaluation.json").write_text(as_json(found), encoding="utf-8")
            (out / "evaluation.md").write_text(markdown(found), encoding="utf-8")
            (out / "evaluation.csv").write_text(as_csv(self), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write the report to {out}: {error.strerror}; give another --out") from None

    def _overall(self) -> dict[str, dict[str, float]]:
        scored = ~np.isnan(self.table[:, 0])
        scenes = [row.scene for row, kept in zip(self.rows, scored, strict=True) if kept]
        low, high = bootstrap.intervals(self.table[scored], scenes)
        ends = zip(self.scores().items(), low, high, strict=True)
        return {name: {"mean": mean, "low": float(a), "high": float(b)} for (name, mean), a, b in ends}

    def _range(self, number: int) -> dict[str, Any]:
        pixels = self.sums[:, number, 0]
        share = float(pixels.sum() / self.sums[:, 0, 0].sum())
        found = metrics.scores(self.sums, number)
        return {"range": RANGES[number], "frames": int((pixels > 0).sum()), "share": share, **found}

    def _groups(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Scores of the frames of each name, worst first."""
        table, members = self.table, defaultdict(list)
        for place, name in enumerate(names):
            members[name].append(place)
        groups = [
            {"name": name, "frames": len(places), **metrics.average(table[places])}
            for name, places in sorted(members.items())
        ]
        return sorted(groups, key=lambda group: (math.isnan(group["abs_rel"]), -group["abs_rel"]))


def as_json(found: Mapping[str, Any]) -> str:
    """A summary as JSON, with null for what could not be scored."""
    return json.dumps(_without_nan(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(evaluation: Evaluation) -> str:
    """A line a frame: index, id, scene, source, scored pixels and every metric at full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "id", "scene", "source", "pixels", *METRICS])
    for row, values in zip(evaluation.rows, evaluation.table.tolist(), strict=True):
        writer.writerow([row.index, row.id, row.scene, row.source, int(row.sums[0, 0]), *values])
    return text.getvalue()


def markdown(found: Mapping[str, Any], *, scenes: int | None = None) -> str:
    """A summary as Markdown whose tables also line up in a terminal; only the worst `scenes` if given."""
    parts = [
        f"# Scores under protocol {found['protocol']['name']}",
        found["protocol"]["about"],
        _table(["", ""], _facts(found)),
        "## Overall",
        _table(["metric", "mean over frames", "95 % interval"], _overall_lines(found["overall"])),
        "## By true depth",
        _grouped(found["ranges"], "range"),
        "## By source",
        _grouped(found["sources"], "name"),
        "## By scene, worst first",
        _grouped(found["scenes"][:scenes], "name"),
    ]
    hidden = len(found["scenes"][scenes:]) if scenes else 0
    return "\n\n".join([*parts, f"... and {hidden} scenes more"] if hidden else parts) + "\n"


def _facts(found: Mapping[str, Any]) -> list[list[str]]:
    skipped = ("protocol", "overall", "ranges", "sources", "scenes")
    return [[key.replace("_", " "), str(value)] for key, value in found.items() if key not in skipped]


def _overall_lines(overall: Mapping[str, Mapping[str, float]]) -> Iterable[list[str]]:
    for name, value in overall.items():
        yield [_headed(name), _number(value["mean"]), f"{_number(value['low'])} to {_number(value['high'])}"]


def _grouped(groups: Sequence[Mapping[str, Any]], key: str) -> str:
    extra = [name for name in ("frames", "share") if groups and name in groups[0]]
    head = ["range" if key == "range" else "", *extra, *(_headed(name) for name in METRICS)]
    lines = [[str(group[key]), *(_number(group[name]) for name in (*extra, *METRICS))] for group in groups]
    return _table(head, lines)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (head, *lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(line, widths) for line in (cells[0], rule, *cells[1:]))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _headed(metric: str) -> str:
    return f"{metric} [{UNITS[metric]}]" if metric in UNITS else metric


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.4f}"


def _what_was_drawn(scenes: Sequence[str]) -> str:
    count = len(set(scenes))
    what = f"{count} scenes" if count > 1 else f"{len(scenes)} frames (there is one scene: it says nothing of others)"
    return f"95 %, {bootstrap.RESAMPLES} bootstrap draws of {what}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
