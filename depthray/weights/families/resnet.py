"""ResNets of torchvision, whose names timm's ResNets of the same depths share."""

from __future__ import annotations

import re

from torch import nn

from depthray.weights.translation import ENCODER, Hints, Translation, Weights, split

# Blocks of the four layers, and whether they are bottlenecks -> layers in all.
DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
BUILT = (18, 34, 50, 101)  # those that are encoders here
CLASSIFIER = ("fc.",)


def recognise(weights: Weights) -> bool:
    """Whether these are the names of a ResNet."""
    return "conv1.weight" in weights and "layer1.0.conv1.weight" in weights


def translate(weights: Weights, network: nn.Module, hints: Hints) -> Translation:
    """The encoder; the classifier is not needed."""
    kept, idle = split(weights, CLASSIFIER)
    depth = _depth(weights)
    return Translation(
        what=f"a ResNet-{depth} of torchvision or timm" if depth else "a ResNet of unusual depth",
        fits=f"model.encoder=resnet{depth}" if depth in BUILT else "no encoder here",
        weights={f"{ENCODER}{key}": value for key, value in kept.items()},
        prefix=ENCODER,
        idle=idle,
    )


def _depth(weights: Weights) -> int | None:
    blocks = [0, 0, 0, 0]
    for key in weights:
        if (found := re.match(r"layer([1-4])\.(\d+)\.", key)) is not None:
            layer, block = int(found[1]) - 1, int(found[2])
            blocks[layer] = max(blocks[layer], block + 1)
    return DEPTHS.get((tuple(blocks), "layer1.0.conv3.weight" in weights))
