"""The names that the library transformers gives to DINOv2 and Depth Anything V2, turned into the published ones."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from depthray.weights.translation import Weights

MARK = "embeddings.patch_embeddings.projection.weight"
ROOTS = ("", "dinov2.", "dinov2_with_registers.", "backbone.")
EMBEDDINGS = {
    "cls_token": "cls_token",
    "mask_token": "mask_token",
    "register_tokens": "register_tokens",
    "position_embeddings": "pos_embed",
    "patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "patch_embeddings.projection.bias": "patch_embed.proj.bias",
}
BLOCK = {  # parts of a transformer's block
    "norm1": "norm1",
    "norm2": "norm2",
    "attention.output.dense": "attn.proj",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
HEAD = (  # patterns of the decoder of Depth Anything; levels of the fusion are counted from the coarsest
    (r"neck\.reassemble_stage\.layers\.(\d)\.projection\.", r"depth_head.projects.\1."),
    (r"neck\.reassemble_stage\.layers\.(\d)\.resize\.", r"depth_head.resize_layers.\1."),
    (r"head\.conv1\.", "depth_head.scratch.output_conv1."),
    (r"head\.conv2\.", "depth_head.scratch.output_conv2.0."),
    (r"head\.conv3\.", "depth_head.scratch.output_conv2.2."),
)
FUSION = {"projection": "out_conv", "residual_layer1": "resConfUnit1", "residual_layer2": "resConfUnit2"}


def publish(weights: Weights) -> Weights:
    """The weights by their published names where these are names of transformers; else as they are."""
    root = next((root for root in ROOTS if f"{root}{MARK}" in weights), None)
    if root is None:
        return weights
    # Depth Anything's encoder has a prefix; of DINOv2 alone it goes with the root.
    prefix = "pretrained." if any(key.startswith("neck.") for key in weights) else ""
    encoder = {key.removeprefix(root): value for key, value in weights.items() if key.startswith(root)}
    renamed = {f"{prefix}{key}": value for key, value in _encoder(encoder).items()}
    for key, value in weights.items():
        if key.startswith(("neck.", "head.")):
            renamed[_head_name(key)] = value
    return renamed


def _encoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key.startswith("embeddings."):
            name = key.removeprefix("embeddings.")
            renamed[EMBEDDINGS.get(name, name)] = value
        elif key.startswith("layernorm."):
            renamed[f"norm.{key.removeprefix('layernorm.')}"] = value
        elif found := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(\w+)", key):
            _rename_block(renamed, found, weights)
    return renamed


def _rename_block(renamed: dict[str, Tensor], found: re.Match[str], weights: dict[str, Tensor]) -> None:
    block, part, kind = found.groups()
    if part == "attention.attention.query":
        # Three layers there, one here.
        path = f"encoder.layer.{block}.attention.attention"
        three = [weights[f"{path}.{name}.{kind}"] for name in ("query", "key", "value")]
        renamed[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(three)
    elif part in BLOCK:
        name = "gamma" if kind == "lambda1" else kind
        renamed[f"blocks.{block}.{BLOCK[part]}.{name}"] = weights[found.string]


def _head_name(key: str) -> str:
    for pattern, name in HEAD:
        if re.match(pattern, key):
            return re.sub(pattern, name, key)
    if found := re.fullmatch(r"neck\.convs\.(\d)\.(\w+)", key):
        return f"depth_head.scratch.layer{int(found[1]) + 1}_rn.{found[2]}"
    if found := re.fullmatch(r"neck\.fusion_stage\.layers\.(\d)\.(\w+)\.(.+)", key):
        rest = found[3].replace("convolution", "conv")
        return f"depth_head.scratch.refinenet{4 - int(found[1])}.{FUSION.get(found[2], found[2])}.{rest}"
    return key
