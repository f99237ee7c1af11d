"""An evaluation and its written forms: JSON for programs, Markdown for people, CSV with a line a frame."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.config.metric_names import rank_key
from depthray.config.sections import TEACHER_MONITORS, Uncertainty
from depthray.errors import UsageError, count_of
from depthray.evaluation import bootstrap, metrics
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.metrics import METRICS, RANGES, SUMS, UNITS
from depthray.evaluation.protocols import Protocol
from depthray.evaluation.uncertainty import confidence_report, confidence_scores, valid_mask_scores
from depthray.evaluation.uncertainty.sparsification import FrameConfidence
from depthray.imaging import sheets
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import to_json


@dataclass(frozen=True)
class ScoredFrame:
    """One frame with its scores."""

    index: int
    id: str
    scene: str
    source: str
    sums: NDArray[np.float64] | None  # (R,K), see metrics.image_sums; None where depth is not compared
    broken: int  # predicted pixels that were NaN or infinite
    extra: Mapping[str, float] = field(default_factory=dict)  # other scores by metric, such as those of the mask
    confidence: FrameConfidence | None = None  # what it says of the confidence that is predicted; None: of none
    validity: NDArray[np.float64] | None = None  # of the mask of valid pixels, see valid_mask_scores; None: of none

    @property
    def abs_rel(self) -> float:
        """Over all depths; NaN without a scored pixel."""
        return self.score("abs_rel")

    def score(self, name: str) -> float:
        """A metric of this frame; NaN if it has none."""
        if name in self.extra or self.sums is None or name not in METRICS:
            return self.extra.get(name, math.nan)
        return float(metrics.image_scores(self.sums[0])[METRICS.index(name)])


@dataclass(frozen=True)
class Evaluation:
    """The frames that were scored, by index. The same whatever number of processes scored them.

    With `whole` they are those of one of several processes, and `whole` the scores of all frames.
    """

    protocol: Protocol
    rows: Sequence[ScoredFrame]
    about: Mapping[str, str] = field(default_factory=dict)  # what was scored: checkpoint, data, split, fingerprint
    whole: Mapping[str, float] | None = None
    uncertainty: Uncertainty = "none"  # the distribution that the network predicts of ln depth
    sets: Mapping[str, Evaluation] = field(default_factory=dict)  # of several data sets each by itself, by name

    @staticmethod
    def of(protocol: Protocol, rows: Sequence[ScoredFrame], uncertainty: Uncertainty = "none") -> Evaluation:
        """The evaluation of frames; where the protocol has several sets, of those that count, and of each set."""
        if not protocol.sets:
            return Evaluation(protocol, rows, uncertainty=uncertainty)
        by_set = {each.name: [row for row in rows if row.source == each.name] for each in protocol.sets}
        sets = {
            name: Evaluation(protocol.of_set(name), own, uncertainty=uncertainty) for name, own in by_set.items() if own
        }
        counted = {each.name for each in protocol.sets if each.overall}
        # Where none is left, as of a side of the split that only the others have, it is their scores that are wanted.
        overall = [row for row in rows if row.source in counted] or rows
        return Evaluation(protocol, overall, sets=sets, uncertainty=uncertainty)

    @property
    def all_rows(self) -> Sequence[ScoredFrame]:
        """The frames of all sets, of those too that do not count in the overall scores."""
        return [row for each in self.sets.values() for row in each.rows] or self.rows

    @cached_property
    def sums(self) -> NDArray[np.float64]:
        """-> (N,R,K) float64, see metrics.image_sums; 0 where depth is not compared."""
        nothing = np.zeros((len(RANGES), len(SUMS)))  # a count of 0, by which all its metrics are NaN
        return np.stack([nothing if row.sums is None else row.sums for row in self.rows])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The metrics that were scored: those of depth, if it was compared, then those of each frame's `extra`."""
        return (*(METRICS if self.has_depth else ()), *dict.fromkeys(name for row in self.rows for name in row.extra))

    @cached_property
    def has_depth(self) -> bool:
        """Whether depth was compared."""
        return any(row.sums is not None for row in self.rows)

    @cached_property
    def table(self) -> NDArray[np.float64]:
        """-> (N,M) float64 metrics over all depths in the order of `names`; NaN for a frame without a scored pixel."""
        depth = metrics.image_scores(self.sums[:, 0]) if self.has_depth else np.empty((len(self.rows), 0))
        names = self.names[depth.shape[1] :]  # after those of depth come the others
        extra = [[row.extra.get(name, math.nan) for name in names] for row in self.rows]
        return np.concatenate([depth, np.array(extra, np.float64).reshape(len(extra), len(names))], axis=1)

    def scores(self) -> dict[str, float]:
        """The mean over frames by metric; of a pooled protocol, depth over the pixels of all frames.

        Scores of the confidence that a network predicts are means over frames in any case, those of its mask of valid
        pixels over the pixels of all frames.
        """
        if self.whole is not None:
            return dict(self.whole)
        frames = [row.confidence for row in self.rows if row.confidence is not None]
        masks = [row.validity for row in self.rows if row.validity is not None]
        confidence = confidence_scores.means(frames) if frames else {}
        validity = valid_mask_scores.means(masks) if masks else {}
        return self._mean(range(len(self.rows))) | confidence | validity

    def scores_by_set(self) -> dict[str, float]:
        """Of several data sets the scores of each, as NAME/METRIC."""
        return {f"{name}/{key}": value for name, each in self.sets.items() for key, value in each.scores().items()}

    @property
    def ranked_by(self) -> str:
        """The metric by which frames are ranked: the first."""
        return self.names[0]

    def ranked(self) -> list[ScoredFrame]:
        """The frames that could be scored, best first."""
        # rank_key is lower where better: some metrics are better when higher.
        values = {row.index: rank_key(self.ranked_by, row.score(self.ranked_by)) for row in self.rows}
        scored = (row for row in self.rows if not math.isnan(values[row.index]))
        return sorted(scored, key=lambda row: values[row.index])

    def best_median_worst(self, each: int = 2) -> list[tuple[str, ScoredFrame]]:
        """The best, median and worst frames with a label, none of them twice."""
        ranked = self.ranked()
        middle = max(0, (len(ranked) - each) // 2)
        parts = {"best": ranked[:each], "median": ranked[middle : middle + each], "worst": ranked[::-1][:each]}
        chosen: dict[int, tuple[str, ScoredFrame]] = {}
        for label, rows in parts.items():
            for row in rows:  # of few frames one can be best and worst: the first label stays
                chosen.setdefault(row.index, (label, row))
        return list(chosen.values())

    def summary(self) -> dict[str, Any]:
        """Everything but the single frames: overall with 95 % intervals, by range of depth, by source, by scene."""
        scenes = [row.scene for row in self.rows]
        return {
            "protocol": {"name": self.protocol.name, "about": self.protocol.about},
            **self.about,
            "frames": len(self.rows),
            "frames_scored": len(self.ranked()),
            "scene_count": len(set(scenes)),
            **({"pixels": int(self.sums[:, 0, 0].sum())} if self.has_depth else {}),
            "broken_pixels": sum(row.broken for row in self.rows),
            "interval": _describe_interval(scenes),
            "overall": self._overall(),
            **self._confidence(),
            **self._valid_mask(),
            "ranges": [self._range(number) for number in range(1, len(RANGES))] if self.has_depth else [],
            **({"sets": [_describe_set(name, each) for name, each in self.sets.items()]} if self.sets else {}),
            "sources": self._groups([row.source for row in self.rows]),
            "scenes": self._groups(scenes),
        }

    def write(self, out: Path) -> None:
        """Write evaluation.json, .md and .csv into a folder, which is made if need be; of confidence a picture too."""
        summary = self.summary()
        with translate_os_errors(out, to=UsageError, doing="write the report", advice="give another --out"):
            out.mkdir(parents=True, exist_ok=True)
            (out / "evaluation.json").write_text(as_json(summary), encoding="utf-8")
            (out / "evaluation.md").write_text(markdown(summary), encoding="utf-8")
            (out / "evaluation.csv").write_text(as_csv(self), encoding="utf-8")
            if "confidence" in summary:
                sheets.save_png(out / "confidence.png", confidence_report.plot(summary["confidence"]))

    def _mean(self, positions: Sequence[int]) -> dict[str, float]:
        """Scores over some of the frames, by their positions in `rows`."""
        chosen = list(positions)
        means = metrics.average(self.table[chosen], self.names)
        # Pooled scores replace the means of depth; metrics of masks stay means over frames.
        return means | (metrics.scores(self.sums[chosen], pooled=True) if self._is_pooled else {})

    @property
    def _is_pooled(self) -> bool:
        return self.protocol.pooled and self.has_depth

    def _overall(self) -> dict[str, dict[str, float]]:
        means, scenes = self._mean(range(len(self.rows))), [row.scene for row in self.rows]
        # Pooled metrics are not linear in the sums, so they are computed from the sums of each draw.
        ends = dict(zip(self.names, bootstrap.intervals(self.table, scenes).T.tolist(), strict=True))
        if self._is_pooled:
            pooled = bootstrap.intervals(self.sums[:, 0], scenes, finish=metrics.image_scores)
            ends |= zip(METRICS, pooled.T.tolist(), strict=True)
        return {name: {"mean": means[name], "low": ends[name][0], "high": ends[name][1]} for name in self.names}

    def _confidence(self) -> dict[str, Any]:
        rows = [(row.confidence, row.scene) for row in self.rows if row.confidence is not None]
        if not rows:
            return {}
        frames, scenes = zip(*rows, strict=True)
        return {"confidence": confidence_scores.summary(frames, scenes, family=self.uncertainty)}

    def _valid_mask(self) -> dict[str, Any]:
        rows = [(row.validity, row.scene) for row in self.rows if row.validity is not None]
        if not rows:
            return {}
        frames, scenes = zip(*rows, strict=True)
        return {"valid_mask": valid_mask_scores.summary(frames, scenes)}

    def _range(self, number: int) -> dict[str, Any]:
        pixels = self.sums[:, number, 0]
        share = float(pixels.sum() / self.sums[:, 0, 0].sum())  # of all scored pixels
        scores = metrics.scores(self.sums, number, pooled=self._is_pooled)
        return {"range": RANGES[number], "frames": int((pixels > 0).sum()), "share": share, **scores}

    def _groups(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Scores of the frames of each name, worst first."""
        members, first = defaultdict(list), self.ranked_by
        for position, name in enumerate(names):
            members[name].append(position)
        groups = [
            {"name": name, "frames": len(positions), **self._mean(positions)}
            for name, positions in sorted(members.items())
        ]
        # Groups without a score last: NaN compares with nothing.
        return sorted(groups, key=lambda group: (math.isnan(group[first]), -rank_key(first, group[first])))


def _describe_set(name: str, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "name": name,
        "protocol": evaluation.protocol.name,
        "frames": len(evaluation.rows),
        **evaluation.scores(),
    }


def as_json(summary: Mapping[str, Any]) -> str:
    """A summary as JSON, with null for what could not be scored."""
    return to_json(summary, indent=2, ensure_ascii=False) + "\n"


def as_csv(evaluation: Evaluation) -> str:
    """A line a frame: index, id, scene, source, scored pixels of depth and every metric at full precision."""
    if evaluation.sets:
        evaluation = Evaluation(evaluation.protocol, evaluation.all_rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "id", "scene", "source", "pixels", *evaluation.names])
    pixels = evaluation.sums[:, 0, 0].astype(int).tolist()
    for row, count, values in zip(evaluation.rows, pixels, evaluation.table.tolist(), strict=True):
        writer.writerow([row.index, row.id, row.scene, row.source, count, *values])
    return text.getvalue()


def markdown(summary: Mapping[str, Any], *, scenes: int | None = None) -> str:
    """A summary as Markdown whose tables also line up in a terminal; only the worst `scenes` if given."""
    names = tuple(summary["overall"])
    parts = [
        f"# Scores under protocol {summary['protocol']['name']}",
        summary["protocol"]["about"],
        markdown_table(["", ""], _facts(summary)),
        "## Overall",
        markdown_table(["metric", "mean over frames", "95 % interval"], _overall_lines(summary["overall"])),
        *(confidence_report.sections(summary["confidence"]) if "confidence" in summary else []),
        *(valid_mask_scores.sections(summary["valid_mask"]) if "valid_mask" in summary else []),
        *(["## By true depth", _group_table(summary["ranges"], METRICS)] if summary["ranges"] else []),
        *(
            ["## By data set", _set_table(summary["sets"], names)]
            if "sets" in summary
            else ["## By source", _group_table(summary["sources"], names)]
        ),
        "## By scene, worst first",  # what a reader looks for first
        _group_table(summary["scenes"][:scenes], names),
    ]
    hidden = len(summary["scenes"][scenes:]) if scenes else 0  # the terminal shows the worst; files hold all
    return "\n\n".join([*parts, f"... and {count_of(hidden, 'scene')} more"] if hidden else parts) + "\n"


def _facts(summary: Mapping[str, Any]) -> list[list[str]]:
    skipped = ("protocol", "overall", "confidence", "valid_mask", "ranges", "sets", "sources", "scenes")
    return [[key.replace("_", " "), str(value)] for key, value in summary.items() if key not in skipped]


def _overall_lines(overall: Mapping[str, Mapping[str, float]]) -> Iterable[list[str]]:
    for name, value in overall.items():
        yield [
            metric_title(name),
            _format_number(value["mean"]),
            f"{_format_number(value['low'])} to {_format_number(value['high'])}",
        ]


def _group_table(groups: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    # One function for ranges, sources and scenes, whose groups differ in the name of their first column.
    label = "range" if "range" in groups[0] else "name"
    counts = [name for name in ("frames", "share") if name in groups[0]]
    head = ["range" if label == "range" else "", *counts, *(metric_title(name) for name in names)]
    return markdown_table(
        head, [[str(group[label]), *(_format_number(group[name]) for name in (*counts, *names))] for group in groups]
    )


def _set_table(sets: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    # A set with labels alone has no other scores, and may not count in the overall ones.
    names = [*names, *(key for key in TEACHER_MONITORS if key not in names and any(key in each for each in sets))]
    head = ["", "protocol", "frames", *(metric_title(name) for name in names)]
    rows = [
        [
            each["name"],
            each["protocol"],
            str(each["frames"]),
            *(_format_number(each.get(name, math.nan)) for name in names),
        ]
        for each in sets
    ]
    return markdown_table(head, rows)


def metric_title(metric: str) -> str:
    """A metric with its unit, as "rmse [m]"; the bare name of one without a unit."""
    return f"{metric} [{UNITS[metric]}]" if metric in UNITS else metric


def _format_number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "-" if math.isnan(value) else f"{value:.4f}"


def _describe_interval(scenes: Sequence[str]) -> str:
    count = len(set(scenes))
    what = f"{count} scenes" if count > 1 else f"{len(scenes)} frames (of one scene: no evidence about others)"
    return f"95 %, {bootstrap.RESAMPLES} bootstrap draws of {what}"
