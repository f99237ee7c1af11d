"""Batch normalisation folded into the convolutions before it (Jacob et al. 2018, section 3.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batchnorm(network: nn.Module, run: Callable[[], object]) -> Callable[[], None]:
    """Fold, in place, each normalisation of what a convolution gave, as one pass, `run`, shows. Returns the undo."""
    pairs = _pairs(network, run)
    folded: dict[nn.Module, nn.Module] = {conv: fuse_conv_bn_eval(conv, norm) for conv, norm in pairs.items()}
    folded |= {norm: nn.Identity() for norm in pairs.values()}
    _replace(network, folded)
    return lambda: _replace(network, {new: old for old, new in folded.items()})


def _pairs(network: nn.Module, run: Callable[[], object]) -> dict[nn.Conv2d, nn.BatchNorm2d]:
    """Convolution -> the normalisation that follows, of those that are called once."""
    pairs: dict[nn.Conv2d, nn.BatchNorm2d] = {}
    calls: Counter[nn.Module] = Counter()
    last: list[tuple[nn.Conv2d, Tensor]] = []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[layer] += 1
        if isinstance(layer, nn.Conv2d):
            last[:] = [(layer, output)]
        # The very tensor: nothing between the two layers has changed it.
        elif isinstance(layer, nn.BatchNorm2d) and last and last[0][1] is inputs[0]:
            pairs[last[0][0]] = layer

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) or _is_foldable(layer)]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return {conv: norm for conv, norm in pairs.items() if calls[conv] == calls[norm] == 1}


def _is_foldable(layer: nn.Module) -> bool:
    # The class itself: timm's subclass has an activation in it.
    return type(layer) is nn.BatchNorm2d and layer.running_mean is not None


def _replace(network: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Replace layers wherever they are in the network."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in replacements:
                setattr(parent, name, replacements[child])
