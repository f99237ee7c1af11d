"""Depth Anything V2 (Yang et al. 2024), metric or relative; V1 has the same names and is always relative.

Files of both kinds have equal names and shapes. They differ in what the last layer means: metric ones give a share of
`max_depth` by a sigmoid, relative ones disparity without a unit. Only the name of a file says which one it is.
"""

from __future__ import annotations

import re

from torch import nn

from depthray.weights.families import dinov2
from depthray.weights.translation import ENCODER, Hints, Misfit, Translation, Weights

MARKS = ("pretrained.cls_token", "depth_head.projects.0.weight", "depth_head.scratch.output_conv1.weight")
BACKBONE = "pretrained."
# Published but unused: patches are never masked here, and the coarsest level joins no other.
UNUSED = ("pretrained.mask_token", "depth_head.scratch.refinenet4.resConfUnit1.")
LAST = "depth_head.scratch.output_conv2.2."
# Metres by a part of a file's or repository's name, in small letters.
RANGES = {"hypersim": 20.0, "indoor": 20.0, "vkitti": 80.0, "outdoor": 80.0}


def recognise(weights: Weights) -> bool:
    """Whether these are the names of a Depth Anything V2 or V1."""
    return all(mark in weights for mark in MARKS)


def translate(weights: Weights, network: nn.Module, hints: Hints) -> Translation:
    """The whole network; of a relative one all but the last layer, where the recipe requests that."""
    token = {"cls_token": weights["pretrained.cls_token"]}
    what = f"a Depth Anything {dinov2.describe(token)}"
    relative = _is_relative(hints, what=what)
    metres = hints.max_depth or next((RANGES[part] for part in RANGES if part in _joined(hints.names)), None)
    return Translation(
        what=f"{what}, {'relative' if relative else 'metric'}",
        fits=dinov2.fitting(token),
        weights={translate_key(key): value for key, value in weights.items() if not key.startswith(UNUSED)},
        idle=tuple(key for key in weights if key.startswith(UNUSED)),
        fresh=(LAST,) if relative else (),
        max_depth=None if relative else metres,
        notes=("it predicts disparity without a unit: its last layer starts anew",) if relative else (),
    )


def _is_relative(hints: Hints, *, what: str) -> bool:
    known = hints.depth or _kind(hints.names)
    if hints.requested == "relative":
        return True
    if known == "relative":
        raise Misfit(
            f"is {what}, relative: it predicts disparity without a unit, not metres; give a metric one, or "
            "model.weights_depth=relative, with which its last layer starts anew"
        )
    if not known and hints.requested == "auto":
        raise Misfit(
            f"is {what}, and its name does not say whether metric or relative; give model.weights_depth=metric or "
            "model.weights_depth=relative, with which its last layer starts anew"
        )
    return False


def translate_key(key: str) -> str:
    """The name that a published weight has here."""
    return ENCODER + key.removeprefix(BACKBONE) if key.startswith(BACKBONE) else key


def _kind(names: tuple[str, ...]) -> str:
    joined = _joined(names)
    if "metric" in joined or any(part in joined for part in RANGES):
        return "metric"
    published = r"depth_anything_(v2_)?vit[sblg](14)?\b|depth_anything_v2_(small|base|large|giant)"
    return "relative" if re.search(published, joined) else ""


def _joined(names: tuple[str, ...]) -> str:
    return " ".join(names).lower().replace("-", "_")
