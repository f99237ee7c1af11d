"""DINOv2's transformers (Oquab et al. 2023), with registers (Darcet et al. 2023) or without, also timm's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from depthray.weights.translation import ENCODER, Hints, Translation, Weights

SIZES = {384: "vits", 768: "vitb", 1024: "vitl", 1536: "vitg"}  # by the width of a token
BUILT = ("vits", "vitb", "vitl")
MARKS = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.ls1.gamma")
UNUSED = ("mask_token", "head.")  # patches are never masked here
REGISTERS = "register_tokens"


def recognise(weights: Weights) -> bool:
    """Whether these are the names of a DINOv2."""
    return all(mark in weights for mark in MARKS)


def translate(weights: Weights, network: nn.Module, hints: Hints) -> Translation:
    """The encoder of a `dpt`; the decoder is not in the file."""
    return Translation(
        what=f"a DINOv2 {describe(weights)}",
        fits=fitting(weights),
        weights=encoder_weights(weights),
        prefix=ENCODER,
        idle=tuple(key for key in weights if key.startswith(UNUSED)),
    )


def encoder_weights(weights: Weights) -> dict[str, Tensor]:
    """The weights of a DINOv2 by the names that they have in our networks."""
    renamed = {
        REGISTERS if key == "reg_token" else key: value for key, value in weights.items() if not key.startswith(UNUSED)
    }
    if "reg_token" in weights and "pos_embed" in renamed:
        # timm adds the class token's position to the token itself, and stores the positions of patches alone.
        positions = renamed["pos_embed"]
        renamed["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return {f"{ENCODER}{key}": value for key, value in renamed.items()}


def describe(weights: Weights) -> str:
    """Its size and registers, for people."""
    size, count = size_of(weights), register_count(weights)
    name = f"ViT-{size[-1].upper()}" if size else f"ViT of width {weights['cls_token'].shape[-1]}"
    return name + (f" with {count} registers" if count else "")


def size_of(weights: Weights) -> str:
    """vits, vitb, vitl, vitg; "" for another width."""
    token = weights.get("cls_token")
    return SIZES.get(token.shape[-1], "") if token is not None else ""


def register_count(weights: Weights) -> int:
    """How many register tokens it has."""
    tokens = weights.get(REGISTERS, weights.get("reg_token"))
    return 0 if tokens is None else tokens.shape[1]


def fitting(weights: Weights) -> str:
    """The keys of a recipe whose network it fits."""
    size, count = size_of(weights), register_count(weights)
    if size not in BUILT:
        return "no network here"
    return f"model.name=dpt model.size={size}" + (f" model.registers={count}" if count else "")
