"""What a network says of crops and clips, in its written forms: tables, JSON and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.robustness.consistency import CropChange, Flicker
from depthray.imaging import plots, sheets

CROPS = (
    "A part of each frame, at a random place, is predicted alone and compared with the whole. Factor: by which its "
    "metres are multiplied, which for a network that takes the size of things in the picture as their distance is the "
    "share itself. Change: mean change of depth; shape: what is left of it after the factor of each frame."
)
FLICKER = (
    "Mean change of depth from a frame to the next, after optical flow has moved one onto the other. Scale: what the "
    "whole picture has in common. Worst: what one pair of frames in twenty exceeds."
)
CROP_AXIS = "crop in % of both sides"


def sections(crops: Mapping[str, Sequence[CropChange]], clips: Mapping[str, Flicker], clip: str) -> list[str]:
    """By network -> Markdown; nothing of what was not measured."""
    parts = []
    if any(crops.values()):
        lines = [
            [name, f"{each.share:.0%}", f"{each.factor:.3f}", _percent(each.change), _percent(each.shape)]
            for name, changes in crops.items()
            for each in changes
        ]
        head = ["network", "of both sides", "factor", "change", "shape"]
        parts += ["## Crops", markdown_table(head, lines), CROPS]
    if clips:
        lines = [
            [name, str(len(each.pairs)), *map(_percent, (each.change, each.scale, each.worst)), str(each.cuts)]
            for name, each in clips.items()
        ]
        head = ["network", "pairs", "change", "scale", "worst", "cuts left out"]
        parts += [f"## Flicker on {clip}", markdown_table(head, lines), FLICKER]
    return parts


def tree(crops: Sequence[CropChange], flicker: Flicker | None) -> dict[str, Any]:
    """Of a network, for JSON."""
    found: dict[str, Any] = {"crops": [each._asdict() for each in crops]} if crops else {}
    if flicker is not None:
        totals = {"change": flicker.change, "scale": flicker.scale, "worst": flicker.worst, "cuts": flicker.cuts}
        found["flicker"] = {**totals, "pairs": [pair._asdict() for pair in flicker.pairs]}
    return found


def plot(crops: Mapping[str, Sequence[CropChange]], clips: Mapping[str, Flicker]) -> sheets.RgbImage:
    """By network -> (H,W,3) uint8 RGB: factor, change and shape by the size of a crop, and the pairs of a clip."""
    known = {name: changes for name, changes in crops.items() if changes}
    panels = []
    if known:
        shares = [100.0, *(100 * each.share for each in next(iter(known.values())))]  # the whole has no change
        factors = [
            plots.PlotLine(name, shares, [100.0, *(100 * each.factor for each in of)]) for name, of in known.items()
        ]
        as_share = plots.PlotLine("size taken for distance", shares, shares)
        panels.append(plots.SharePanel("metres in % of the whole's", [*factors, as_share], CROP_AXIS))
        for title, key in (("change of depth in %", "change"), ("change of shape in %", "shape")):
            lines = [
                plots.PlotLine(name, shares, [0.0, *(100 * getattr(each, key) for each in of)])
                for name, of in known.items()
            ]
            panels.append(plots.SharePanel(title, lines, CROP_AXIS))
    if clips:
        ranked = {name: sorted(100 * pair.change for pair in each.pairs) for name, each in clips.items()}
        lines = [plots.PlotLine(name, np.linspace(0, 100, len(each)).tolist(), each) for name, each in ranked.items()]
        panels.append(
            plots.SharePanel("flicker: change a frame in %", lines, "% of pairs of frames, the calmest first")
        )
    return plots.draw_shares(panels)


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
