"""The spread of predictions as a part of an export: all networks and the mirrored image in one graph."""

from __future__ import annotations

from torch import nn

from depthray.checkpoints import load as checkpoints
from depthray.checkpoints.load import CheckpointContents
from depthray.errors import UsageError
from depthray.runtimes import export_folder
from depthray.runtimes.spread import Spread, SpreadNetwork, check_alike, check_metres, factor_of


def spread_of(
    spread: Spread, network: nn.Module, contents: CheckpointContents, *, trust: bool = False
) -> tuple[nn.Module, str]:
    """A checkpoint's network and what it comes from -> the network of the spread, times its factor, and its name.

    Raises UsageError for depth without metres, and for further networks that see another input or are exports.
    """
    check_metres(contents.recipe)
    networks, digests = [network], []
    for path in spread.others:
        if export_folder.is_export(path):
            raise UsageError(f"ensemble {path}: is an export; give the checkpoint that it was made of")
        other = checkpoints.load(path, trust=trust)
        check_alike(contents.recipe, other.recipe, path)
        networks.append(checkpoints.build_network(other, where=path).eval().requires_grad_(False))
        digests.append(other.weights_sha256)
    name = spread.name_of(digests)
    factor = factor_of(contents.temperature, name)
    return SpreadNetwork(networks, flip=spread.flip, factor=factor).eval(), name
