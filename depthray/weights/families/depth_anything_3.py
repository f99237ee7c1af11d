"""Depth Anything 3 (Lin et al. 2025): its metric and monocular models, which are a DINOv2 under a DPT decoder.

The decoder is the one of Depth Anything V2 but for its end: depth is exp(x) in units of a camera with a focal length of
300 pixels, and a second branch finds the sky. The any-view models have rotary positions and are other transformers.
"""

from __future__ import annotations

from torch import nn

from depthray.weights.families import dinov2
from depthray.weights.translation import ENCODER, Hints, Misfit, Translation, Weights

BACKBONE, HEAD = "backbone.pretrained.", "head."
MARKS = (f"{BACKBONE}cls_token", f"{HEAD}projects.0.weight", f"{HEAD}scratch.output_conv1.weight")
ANY_VIEW = (f"{BACKBONE}camera_token", f"{HEAD}scratch.refinenet1_aux.", "cam_enc.", "cam_dec.")
LAST = (f"{HEAD}scratch.output_conv2.2.", f"{HEAD}scratch.sky_output_conv2.")
UNUSED = (f"{BACKBONE}mask_token", f"{HEAD}scratch.refinenet4.resConfUnit1.", f"{HEAD}norm.")


def recognise(weights: Weights) -> bool:
    """Whether these are the names of a Depth Anything 3."""
    return all(mark in weights for mark in MARKS)


def translate(weights: Weights, network: nn.Module, hints: Hints) -> Translation:
    """Encoder and decoder without the end of the decoder. Misfit for an any-view model."""
    backbone = {key.removeprefix(BACKBONE): value for key, value in weights.items() if key.startswith(BACKBONE)}
    size = dinov2.describe(backbone)
    if any(key.startswith(ANY_VIEW) for key in weights):
        raise Misfit(
            f"is a Depth Anything 3 {size} for any number of views, whose transformer has rotary positions, which none "
            "here has; DA3METRIC-LARGE and DA3MONO-LARGE fit model.name=dpt model.size=vitl"
        )
    dropped = (*LAST, *UNUSED)
    return Translation(
        what=f"a Depth Anything 3 {size} for single images",
        fits=dinov2.fitting(backbone),
        weights={translate_key(key): value for key, value in weights.items() if not key.startswith(dropped)},
        idle=tuple(key for key in weights if key.startswith(UNUSED)),
        lost=tuple(key for key in weights if key.startswith(LAST)),
        why_lost="its last layer gives exp(x) for a focal length of 300 pixels, and no network here has such a one",
        fresh=("depth_head.scratch.output_conv2.2.",),
    )


def translate_key(key: str) -> str:
    """The name that a published weight has here."""
    if key.startswith(BACKBONE):
        return ENCODER + key.removeprefix(BACKBONE)
    return "depth_" + key if key.startswith(HEAD) else key
