"""The families of weight files: one file a family, which recognises its names and translates them into ours."""

from __future__ import annotations

from typing import Any

from torch import nn

from depthray.weights.families import (
    depth_anything_3,
    depth_anything_v2,
    dinov2,
    efficientnet,
    moge,
    own,
    resnet,
    timm_names,
)
from depthray.weights.families.transformers_names import publish
from depthray.weights.translation import ENCODER, Hints, Translation, Weights

# `own` is last: it takes whatever shares names with the network, and all that is left.
FAMILIES: tuple[Any, ...] = (depth_anything_v2, depth_anything_3, moge, dinov2, efficientnet, resnet)


def translate(weights: Weights, network: nn.Module, hints: Hints) -> Translation:
    """The weights by the names of the network. Raises Misfit for files that cannot start one."""
    if timm_names.is_timm(network) and not any(key.startswith(ENCODER) for key in weights):
        return timm_names.translate(weights, network, hints)
    published = publish(weights)
    family = next((family for family in FAMILIES if family.recognise(published)), own)
    translation: Translation = family.translate(published, network, hints)
    return translation
