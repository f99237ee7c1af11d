"""MoGe and MoGe-2 (Wang et al. 2025), of which the DINOv2 encoder fits; the decoder predicts maps of points."""

from __future__ import annotations

from torch import nn

from depthray.weights.families import dinov2
from depthray.weights.translation import ENCODER, Hints, Translation, Weights

BACKBONES = ("encoder.backbone.", "backbone.")  # of MoGe-2, of MoGe
DECODERS = ("neck.", "points_head.", "mask_head.", "normal_head.", "scale_head.", "head.")
CONSTANTS = ("image_mean", "image_std", "encoder.image_mean", "encoder.image_std")  # of ImageNet, as here


def recognise(weights: Weights) -> bool:
    """Whether these are the names of a MoGe."""
    return bool(_backbone(weights)) and any(key in weights for key in CONSTANTS)


def translate(weights: Weights, network: nn.Module, hints: Hints) -> Translation:
    """The encoder."""
    prefix = _backbone(weights)
    backbone = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    return Translation(
        what=f"a MoGe {dinov2.describe(backbone)}",
        fits=dinov2.fitting(backbone),
        weights=dinov2.encoder_weights(backbone),
        prefix=ENCODER,
        idle=tuple(key for key in weights if key in CONSTANTS or key == f"{prefix}mask_token"),
        lost=tuple(key for key in weights if not key.startswith(prefix) and key not in CONSTANTS),
        why_lost="its decoder predicts maps of points, and no network here has such a one",
    )


def _backbone(weights: Weights) -> str:
    return next((prefix for prefix in BACKBONES if f"{prefix}cls_token" in weights), "")
