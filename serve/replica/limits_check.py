"""An image that is served against the frames that its network was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.backend import ModelCard


def warnings(
    card: ModelCard, size: tuple[int, int], sample: Mapping[str, Any], maps: Mapping[str, NDArray[np.float32]]
) -> tuple[str, ...]:
    """What of an image of (H,W) pixels, its input to the network and its maps (h,w) is not as in training."""
    if card.facts is None:
        return ()
    from depthray.cards import outside
    from depthray.cards.measured import light

    seen = light(np.clip(sample["image"], 0, 255).astype(np.uint8))
    return tuple(outside.of_input(card.facts.limits, card.section, size, seen, depth=maps.get("depth")))


def focal(card: ModelCard, size: tuple[int, int], sample: Mapping[str, Any]) -> tuple[float, float] | None:
    """The focal lengths of training in pixels of an image of (H,W) pixels; None where they are not known, or any is."""
    if card.canonical_focal:
        return None
    known = card.facts.limits.input_focal if card.facts else None
    scale = size[1] / sample["image"].shape[1]
    return (known[0] * scale, known[1] * scale) if known else None
