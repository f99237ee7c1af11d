"""The confidence of a network for people: tables, and a picture of sparsification and reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.uncertainty.confidence_scores import SCORES
from depthray.imaging import plots
from depthray.imaging.sheets import RgbImage

TITLES = {
    "nll": "NLL of ln depth",
    "coverage68": "in the 68 % interval",
    "coverage95": "in the 95 % interval",
    "ause_rmse": "AUSE, RMSE [m]",
    "aurg_rmse": "AURG, RMSE [m]",
    "ause_abs_rel": "AUSE, AbsRel",
    "aurg_abs_rel": "AURG, AbsRel",
    "rmse_of_80": "RMSE of the surest 80 % [m]",
    "rmse_drop": "by which that is lower",
}
SHARES = ("coverage68", "coverage95", "rmse_drop")  # in percent
GROUPED = 10  # steps of confidence in one point of the picture
NOTE = (
    "Intervals hold 68 % and 95 % of the pixels of a network that knows how wrong it is. AUSE is how far its order of "
    "pixels is from that of their errors (0 is best), AURG what it gains over no order; a constant has an AUSE of the "
    "sum of both. By frame, then the mean over frames."
)


def sections(confidence: Mapping[str, Any]) -> list[str]:
    """A summary of `confidence_scores` as Markdown: a table of scores, and one by range of depth."""
    overall = confidence["overall"]
    lines = [
        [TITLES[name], _cell(name, value["mean"]), f"{_cell(name, value['low'])} to {_cell(name, value['high'])}"]
        for name, value in overall.items()
    ]
    share = {each: _ratio(overall, each) for each in ("rmse", "abs_rel")}
    lines.append(["AUSE below that of a constant, RMSE", share["rmse"], ""])
    lines.append(["AUSE below that of a constant, AbsRel", share["abs_rel"], ""])
    lines.append(
        [
            "RMSE lower without the fifth of all pixels of the largest sigma",
            _percent(confidence["pooled_rmse_drop"]),
            "",
        ]
    )
    ranges = [
        [each["range"], *(_cell(name, each[name]) for name in SCORES)]
        for each in confidence["ranges"]
        if not np.isnan(each["nll"])
    ]
    return [
        f"## Confidence ({confidence['distribution']})",
        markdown_table(["", "mean over frames", "95 % interval"], lines),
        markdown_table(["range", *(TITLES[name] for name in SCORES)], ranges),
        NOTE,
    ]


def plot(confidence: Mapping[str, Any]) -> RgbImage:
    """(H,W,3) uint8 RGB: sparsification of RMSE and AbsRel, coverage of intervals, how often confidence is right."""
    curves, reliability = confidence["sparsification"], confidence["reliability"]
    removed = [100 * share for share in curves["removed"]]
    names = {
        "rmse": {"rmse": "by sigma", "rmse_oracle": "by the error itself", "rmse_by_depth": "by depth alone"},
        "abs_rel": {"abs_rel": "by confidence", "abs_rel_oracle": "by the error itself"},
    }
    panels = [
        plots.SharePanel(
            title,
            [plots.PlotLine(label, removed, curves[key]) for key, label in names[metric].items()],
            "% of pixels removed, the least sure first",
        )
        for metric, title in (("rmse", "RMSE [m] of the rest"), ("abs_rel", "AbsRel of the rest"))
    ]
    levels = [100 * level for level in reliability["interval"]]
    covered = [100 * share for share in reliability["coverage"]]
    panels.append(
        plots.SharePanel(
            "% of pixels in the interval",
            [plots.PlotLine("network", levels, covered), plots.PlotLine("exact", [0, 100], [0, 100])],
            "% that the interval should hold",
        )
    )
    sure, right = _grouped(confidence["confidence"])
    panels.append(
        plots.SharePanel(
            "% of pixels right within 10 %",
            [plots.PlotLine("network", sure, right), plots.PlotLine("exact", [0, 100], [0, 100])],
            "confidence in %",
        )
    )
    return plots.draw_shares(panels)


def _grouped(bins: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    """Percent of confidence and percent right of it, in groups of GROUPED steps that have pixels."""
    sure, right = [], []
    for start in range(0, len(bins), GROUPED):
        group = bins[start : start + GROUPED]
        count = sum(each["count"] for each in group)
        if count:
            middle = sum(each["count"] * (each["from"] + 0.5 / len(bins)) for each in group) / count
            sure.append(100 * middle)
            right.append(100 * sum(each["right"] for each in group) / count)
    return sure, right


def _ratio(overall: Mapping[str, Mapping[str, float]], name: str) -> str:
    """How far AUSE is below that of a constant, in percent."""
    ause, aurg = (overall[f"{each}_{name}"]["mean"] for each in ("ause", "aurg"))
    return _percent(aurg / (ause + aurg)) if ause + aurg > 0 else "-"


def _cell(name: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    return _percent(value) if name in SHARES else f"{value:.4f}"


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f} %"
