"""Named evaluation protocols: which pixels are scored and how a prediction is brought to the truth.

A protocol is named in every table, since the same weights score differently under another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from depthray.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor  # recipes are checked without waiting for torch


@dataclass(frozen=True)
class Crop:
    """Rows and columns that are scored, in pixels of an image of a reference size."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    size: tuple[int, int]  # height, width of the reference


@dataclass(frozen=True)
class Protocol:
    """Pixels with min_depth < truth < max_depth inside the crop count; predictions are clamped to that range."""

    name: str
    about: str
    min_depth: float = 1e-3
    max_depth: float = 10.0
    crop: Crop | None = None


PLAIN = Protocol("plain", "1 mm < truth < 10 m, whole image, prediction clamped to that range")
NYU_BTS = Protocol(
    "nyu-bts",
    "1 mm < truth < 10 m, rows 45:471 and columns 41:601 of 480x640, prediction clamped to that range",
    crop=Crop(rows=(45, 471), columns=(41, 601), size=(480, 640)),
)
PROTOCOLS = {protocol.name: protocol for protocol in (PLAIN, NYU_BTS)}


def check(name: str, *, where: str) -> None:
    """Raise a `UsageError` if there is no protocol of that name."""
    if name not in PROTOCOLS:
        raise UsageError(f"{where}: eval.protocol: no protocol '{name}'{did_you_mean(name, PROTOCOLS)}")


def apply(prediction: Tensor, truth: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """(B,1,h,w) and (B,1,H,W) metres -> (B,1,H,W) float32 prediction in metres, (B,1,H,W) bool scored pixels.

    The prediction is resized bilinearly to the truth's size and clamped; infinity becomes max_depth, NaN min_depth.
    """
    import torch
    from torch.nn import functional

    low, high = protocol.min_depth, protocol.max_depth
    depth = torch.nan_to_num(prediction.float(), nan=low, posinf=high, neginf=low)
    if depth.shape[-2:] != truth.shape[-2:]:
        depth = functional.interpolate(depth, size=truth.shape[-2:], mode="bilinear", align_corners=False)
    valid = (truth > low) & (truth < high)
    if protocol.crop:
        valid &= _inside(protocol.crop, truth)
    return depth.clamp(low, high), valid


def _inside(crop: Crop, truth: Tensor) -> Tensor:
    """(B,1,H,W) -> (H,W) bool, True inside the crop.

    On other sizes than the reference the crop scales in proportion: a pixel is inside if its centre is.
    Of 240x320, nyu-bts keeps rows 22:235 and columns 20:300.
    """
    import torch

    height, width = truth.shape[-2:]
    inside = torch.zeros((height, width), dtype=torch.bool, device=truth.device)
    rows = _scaled(crop.rows, height, reference=crop.size[0])
    columns = _scaled(crop.columns, width, reference=crop.size[1])
    inside[rows, columns] = True
    return inside


def _scaled(span: tuple[int, int], length: int, *, reference: int) -> slice:
    """The pixels of `length` whose centres lie in a span of `reference` pixels; in whole numbers, so exactly."""
    start, stop = (-((reference - 2 * edge * length) // (2 * reference)) for edge in span)
    return slice(start, stop)
