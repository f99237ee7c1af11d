"""Where a network ends, in words: for the card, the service and its page."""

from __future__ import annotations

from collections.abc import Sequence

from depthray.checkpoints.model_facts import ModelFacts, Span, TrainedLimits
from depthray.config.sections import Recipe
from depthray.evaluation.protocols import MEANING

CANONICAL = "It predicts for any focal length, and needs that of each photograph (data.canonical_focal)."
FOCAL = "Metres follow the focal length: at twice that of training, in pixels of the input, they come out as half."


def lines(facts: ModelFacts | None, recipe: Recipe) -> list[str]:
    """Where the network ends, a line each: inputs beyond are answered with a warning."""
    height, width = recipe.data.size
    kind = recipe.depth_kind
    metres = f"metres, {recipe.data.max_depth:g} at most"
    found = [f"Depth is {metres if kind == 'metric' else MEANING[kind]}."]
    fit = {
        "exact": f"is made {width}x{height} pixels",
        "aspect": f"is made {min(height, width)} pixels on its shorter side",
        "native": "keeps its size",
    }
    data = recipe.data
    resized = f"is made {data.canonical_focal:g} px of focal length" if data.resizes_to_focal else fit[data.fit]
    found.append(f"A photograph {resized} before the network sees it.")
    if data.canonical_focal:
        found.append(CANONICAL)
    if facts is None:
        return found
    return [*found, *_trained_limits(facts.data.places, facts.limits, any_focal=data.canonical_focal > 0)]


def _trained_limits(places: Sequence[str], known: TrainedLimits, *, any_focal: bool) -> list[str]:
    sizes = f"{_range(known.width)} x {_range(known.height)} pixels"
    camera = f"fx {_range(known.focal)} px" if known.focal else "with a camera that was not recorded"
    where = f" ({', '.join(places)})" if places else ""
    depth = f", {known.depth[0]:.1f} to {known.depth[1]:.1f} m away" if known.depth else ""
    return [
        f"Trained on photographs{where} of {sizes}, {camera}{depth}.",
        f"Their mean brightness was {known.brightness[0]:.2f} to {known.brightness[1]:.2f} of white, their sharpness "
        f"{known.sharpness[0]:.3f} to {known.sharpness[1]:.3f} (of {known.measured} frames).",
        *([FOCAL] if known.focal and not any_focal else []),
    ]


def _range(span: Span) -> str:
    low, high = round(span[0]), round(span[1])
    return f"{low}" if low == high else f"{low} to {high}"
