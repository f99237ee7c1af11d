"""Networks without the blocks that repeat the code of the block before: a test of code needs each once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from depthray import models
from depthray.config.sections import Model
from depthray.models import bifpn, dpt

REPEATED = 1  # blocks of equal shape that are kept in a row: the others are the same code once more


def build_shallow(section: Model, inputs: tuple[str, ...]) -> nn.Module:
    """The network of a section with random weights, shallow where it repeats itself."""
    with _few_blocks():
        network = models.build_model(section, inputs)
    for parent in list(network.modules()):
        for key, child in list(parent.named_children()):
            if type(child) is nn.Sequential and len(child) > REPEATED:
                setattr(parent, key, nn.Sequential(*_without_repeats(child)))
    return network


def _without_repeats(blocks: nn.Sequential) -> Iterator[nn.Module]:
    """The blocks without those that have the shapes of the REPEATED before them."""
    shapes = [(type(block), [tuple(each.shape) for each in block.parameters()]) for block in blocks]
    for index, block in enumerate(blocks):
        before = shapes[max(0, index - REPEATED) : index]
        if len(before) < REPEATED or not shapes[index][1] or any(shape != shapes[index] for shape in before):
            yield block


@contextmanager
def _few_blocks() -> Iterator[None]:
    """While a network is built, transformers have a block a tap and BiFPN has one of its blocks in parallel."""
    shapes: dict[Any, Any] = dict(dpt.SHAPES)
    taps, blocks = (0, 1, 2, 3), bifpn.BLOCKS
    dpt.SHAPES.update({key: shape._replace(blocks=len(taps), taps=taps) for key, shape in shapes.items()})
    bifpn.BLOCKS = 1
    try:
        yield
    finally:
        dpt.SHAPES.update(shapes)
        bifpn.BLOCKS = blocks
