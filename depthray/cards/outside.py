"""Whether an input is like the frames that a network was trained on: what is not, in a sentence each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from depthray.cards.measured import PhotoLight, light
from depthray.checkpoints.model_facts import Span, TrainedLimits
from depthray.config.sections import Data
from depthray.data.resize import resize_colour, size_for_inference

STRETCH = 1.25  # factor in the aspect of a photograph: 3:2 where training had 4:3 is answered silently, 16:9 is not
SIZE = 1.5  # factor in the size of a photograph
FOCAL = 1.15  # factor in the focal length, which is one in metres
LIGHT = 0.5  # share of the least brightness or sharpness, or of what is left to white
BEYOND = 0.1  # share of the predicted pixels


def warnings(
    limits: TrainedLimits,
    section: Data,
    image: NDArray[np.uint8],
    *,
    focal: float | None = None,
    depth: NDArray[np.float32] | None = None,
) -> list[str]:
    """(H,W,3) uint8 RGB, its fx in pixels and its predicted depth (h,w) in metres -> what is not as in training"""
    height, width = image.shape[:2]
    size = size_for_inference((height, width), section)
    seen = light(resize_colour(image, size))
    camera = None if focal is None else focal * size[1] / width
    return of_input(limits, section, (height, width), seen, focal=camera, depth=depth)


def of_input(
    limits: TrainedLimits,
    section: Data,
    size: tuple[int, int],
    seen: PhotoLight,
    *,
    focal: float | None = None,
    depth: NDArray[np.float32] | None = None,
) -> list[str]:
    """The same of a photograph of (H,W) pixels whose input to the network was measured; `focal` in pixels of that."""
    found = [*_size(limits, section, size), *_light(limits, seen)]
    if focal is not None and limits.input_focal is not None:
        found += of_focal(limits.input_focal, focal)
    if depth is not None and limits.depth is not None:
        found += _depth(limits.depth, depth)
    return found


def of_focal(known: Span, focal: float) -> list[str]:
    """A focal length and those of training, in the same pixels -> what is wrong, if anything is."""
    factor = focal / min(max(focal, known[0]), known[1])
    if max(factor, 1 / factor) <= FOCAL:
        return []
    wrong = f"{max(factor, 1 / factor):.2f} times too {'small' if factor > 1 else 'large'}"
    return [f"focal length {focal:.0f} px, where training had {_range(known)} px: metres are likely {wrong}"]


def _size(limits: TrainedLimits, section: Data, size: tuple[int, int]) -> Iterator[str]:
    if section.resizes_to_focal:  # whatever size it has, the network sees it at that of its camera
        return
    height, width = size
    rows, columns = size_for_inference(size, section)
    if section.fit == "native":
        low, high = min(limits.width[0], limits.height[0]) / SIZE, max(limits.width[1], limits.height[1]) * SIZE
        if min(size) < low or max(size) > high:
            yield (
                f"size {width}x{height}: it was trained on {_range(limits.width)} x {_range(limits.height)} pixels, "
                "and sees a photograph as it is"
            )
        return
    if rows > height * SIZE and columns > width * SIZE:
        yield f"size {width}x{height}: enlarged to {columns}x{rows}, it lacks the detail of frames it was trained on"
    aspects = limits.width[0] / limits.height[1], limits.width[1] / limits.height[0]
    if section.fit == "exact" and not aspects[0] / STRETCH <= width / height <= aspects[1] * STRETCH:
        yield (
            f"size {width}x{height}: made {columns}x{rows} it is stretched as no frame was that it was trained on "
            f"({_range(limits.width)} x {_range(limits.height)})"
        )


def _light(limits: TrainedLimits, seen: PhotoLight) -> Iterator[str]:
    dark, bright = limits.brightness
    if seen.brightness < LIGHT * dark:
        yield f"dark: its mean brightness is {seen.brightness:.2f}, in training it was {_span(limits.brightness)}"
    if 1 - seen.brightness < LIGHT * (1 - bright):
        yield f"bright: its mean brightness is {seen.brightness:.2f}, in training it was {_span(limits.brightness)}"
    if seen.sharpness < LIGHT * limits.sharpness[0]:
        yield f"blurred: its sharpness is {seen.sharpness:.3f}, in training it was {_span(limits.sharpness, 3)}"


def _depth(known: Span, depth: NDArray[np.float32]) -> Iterator[str]:
    share = float(((depth < known[0]) | (depth > known[1])).mean())
    if share > BEYOND:
        yield f"depth: {share:.0%} of it is beyond the {_span(known)} m it was trained on".replace("%", " %")


def _range(span: Span) -> str:
    low, high = round(span[0]), round(span[1])
    return f"{low}" if low == high else f"{low} to {high}"


def _span(span: Span, digits: int = 2) -> str:
    return f"{span[0]:.{digits}f} to {span[1]:.{digits}f}"
