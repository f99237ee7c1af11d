"""EfficientNets and EfficientNet-Lites, under the names of torchvision, of timm and of the published PyTorch ports.

All three name the same layers. Each name is parsed into what it means, (block, layer, kind), and a weight goes to the
weight of the network that means the same, whatever that one's style is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from depthray.weights.translation import ENCODER, Hints, Translation, Weights, encoder_of

CLASSIFIERS = ("classifier.", "_fc.")
WIDTHS = {  # channels of the first and of the last block, blocks in all, squeeze-and-excitation -> name
    (16, 320, 16, True): "efficientnet_b0",
    (16, 320, 23, True): "efficientnet_b1",
    (16, 352, 23, True): "efficientnet_b2",
    (24, 384, 26, True): "efficientnet_b3",
    (24, 448, 32, True): "efficientnet_b4",
    (16, 320, 16, False): "efficientnet_lite0",
    (16, 320, 21, False): "efficientnet_lite1",
    (16, 352, 21, False): "efficientnet_lite2",
}
BUILT = ("efficientnet_b0", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


class Layer(NamedTuple):
    """What a name means."""

    block: tuple[int, int]  # stage and number in it; ports number through, in stage 0
    role: str  # expand, depthwise, squeeze, excite or project, each with its norm: expand_bn ...
    kind: str  # weight, bias, running_mean ...


# Names of layers in a block by style. In a first block, which does not expand, timm and torchvision shift them.
PORT = {
    "_expand_conv": "expand",
    "_bn0": "expand_bn",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_bn",
    "_se_reduce": "squeeze",
    "_se_expand": "excite",
    "_project_conv": "project",
    "_bn2": "project_bn",
}
TIMM_FIRST = {
    "conv_dw": "depthwise",
    "bn1": "depthwise_bn",
    "se.conv_reduce": "squeeze",
    "se.conv_expand": "excite",
    "conv_pw": "project",
    "bn2": "project_bn",
}
TIMM = {
    "conv_pw": "expand",
    "bn1": "expand_bn",
    "conv_dw": "depthwise",
    "bn2": "depthwise_bn",
    "se.conv_reduce": "squeeze",
    "se.conv_expand": "excite",
    "conv_pwl": "project",
    "bn3": "project_bn",
}
TORCHVISION_FIRST = {
    "block.0.0": "depthwise",
    "block.0.1": "depthwise_bn",
    "block.1.fc1": "squeeze",
    "block.1.fc2": "excite",
    "block.2.0": "project",
    "block.2.1": "project_bn",
}
TORCHVISION = {
    "block.0.0": "expand",
    "block.0.1": "expand_bn",
    "block.1.0": "depthwise",
    "block.1.1": "depthwise_bn",
    "block.2.fc1": "squeeze",
    "block.2.fc2": "excite",
    "block.3.0": "project",
    "block.3.1": "project_bn",
}
OUTER = {  # what stands outside of the blocks, in any style
    **{"_conv_stem": "stem", "_bn0": "stem_bn", "_conv_head": "head", "_bn1": "head_bn"},
    **{"conv_stem": "stem", "bn1": "stem_bn", "conv_head": "head", "bn2": "head_bn"},
    **{"features.0.0": "stem", "features.0.1": "stem_bn", "features.8.0": "head", "features.8.1": "head_bn"},
}


def recognise(weights: Weights) -> bool:
    """Whether these are names of an EfficientNet in one of the styles."""
    marks = ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight", "features.1.0.block.0.0.weight")
    stems = ("_conv_stem.weight", "conv_stem.weight", "features.0.0.weight")
    return any(mark in weights for mark in marks) and any(stem in weights for stem in stems)


def translate(weights: Weights, network: nn.Module, hints: Hints) -> Translation:
    """The encoder, each weight under the name that means the same there."""
    encoder = encoder_of(network)
    ours = {layer: key for key, layer in parse([] if encoder is None else encoder.state_dict()).items()}
    meant = parse(weights)
    # An encoder may end before the last convolution, which is the classifier's part then.
    unneeded = {key for key, layer in meant.items() if layer.role.startswith("head") and layer not in ours}
    idle = tuple(key for key in weights if key.startswith(CLASSIFIERS) or key in unneeded)
    name = WIDTHS.get(_outline(weights, meant), "")
    return Translation(
        what=f"an EfficientNet ({name or 'of unknown width'})",
        fits=f"model.encoder={name}" if name in BUILT else f"model.encoder=timm/{name}" if name else "no encoder here",
        weights={
            ENCODER + ours.get(meant.get(key, Layer((0, 0), "", key)), key): value
            for key, value in weights.items()
            if key not in idle
        },
        prefix=ENCODER,
        idle=idle,
    )


def parse(keys: Iterable[str]) -> dict[str, Layer]:
    """Name -> what it means, blocks numbered through; names of no known style are left out."""
    parsed = {key: layer for key in keys if (layer := _parse_one(key)) is not None}
    blocks = sorted({layer.block for layer in parsed.values() if layer.block[0] >= 0})
    number = {block: (0, index) for index, block in enumerate(blocks)}
    return {key: layer._replace(block=number.get(layer.block, layer.block)) for key, layer in parsed.items()}


def _parse_one(key: str) -> Layer | None:
    path, _, kind = key.rpartition(".")
    if path in OUTER:
        return Layer((-1, 0), OUTER[path], kind)
    if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)", path):
        return _layer((0, int(found[1])), PORT.get(found[2]), kind)
    if found := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.([\w.]+)", path):
        style = TIMM_FIRST if found[1] == "0" else TIMM
        return _layer((int(found[1]), int(found[2])), style.get(found[3]), kind)
    if found := re.fullmatch(r"features\.(\d+)\.(\d+)\.([\w.]+)", path):
        style = TORCHVISION_FIRST if found[1] == "1" else TORCHVISION
        return _layer((int(found[1]), int(found[2])), style.get(found[3]), kind)
    return None


def _layer(block: tuple[int, int], role: str | None, kind: str) -> Layer | None:
    return None if role is None else Layer(block, role, kind)


def _outline(weights: Weights, meant: dict[str, Layer]) -> tuple[int, int, int, bool]:
    projections = {layer.block: key for key, layer in meant.items() if layer[1:] == ("project", "weight")}
    channels = [weights[projections[block]].shape[0] for block in sorted(projections)]
    excited = any(layer.role == "squeeze" for layer in meant.values())
    return (channels[0], channels[-1], len(channels), excited) if channels else (0, 0, 0, excited)
