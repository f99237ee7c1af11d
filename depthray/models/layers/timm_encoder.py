"""Encoders of timm, by name: any network of it whose features can be had, and its vision transformers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthray.errors import UsageError, did_you_mean
from depthray.models.layers.encoder import Encoder, widen
from depthray.models.layers.inputs import IMAGENET_MEAN, IMAGENET_STD

PREFIX = "timm/"
# A transformer is built for one size of image. The first of these that a network's class knows frees it from that.
ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
TAPS = 4  # blocks of a transformer whose tokens become maps, evenly spread, the last among them


class TimmEncoder(Encoder):
    """timm's network without its classifier; maps at 1/4 to 1/32 of the size, or at 1/2 too where it has one."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.imagenet = name
        self.network = create_network(name)
        config = published_config(name)
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.is_channels_last = str(getattr(self.network, "output_fmt", "")).endswith("NHWC")
        widths: list[int] = self.network.feature_info.channels()
        reductions: list[int] = self.network.feature_info.reduction()
        # A network of patches drops what does not fill one, in every step down; any other rounds up by itself.
        self.stride = reductions[-1] if reductions[0] > 2 else 1
        self.pyramid = TokenPyramid(widths[0]) if len(set(reductions)) == 1 else None
        self.channels = tuple(widths)

    def widen(self, inputs: tuple[str, ...]) -> None:
        """Make the first convolution as wide as the inputs."""
        # timm names it differently in each family, but it is always the first that is registered.
        first = next(module for module in self.network.modules() if isinstance(module, nn.Conv2d))
        widen(first, inputs)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """(B,C,H,W) inputs -> maps (B,c,h,w), finest first."""
        maps = self.network(inputs)
        if self.is_channels_last:
            maps = [level.permute(0, 3, 1, 2) for level in maps]  # (B,h,w,c) -> (B,c,h,w)
        pyramid: list[Tensor] = maps if self.pyramid is None else self.pyramid(maps)
        return pyramid


class TokenPyramid(nn.Module):
    """Four maps of one size to 4, 2, 1 and 1/2 times that size, as decoders of convolutions expect (Li et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up_4 = nn.ConvTranspose2d(width, width, 4, stride=4)
        self.up_2 = nn.ConvTranspose2d(width, width, 2, stride=2)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """four maps (B,C,h,w) -> (B,C,4h,4w), (B,C,2h,2w), (B,C,h,w), (B,C,ceil(h/2),ceil(w/2))"""
        first, second, third, last = maps
        return [self.up_4(first), self.up_2(second), third, F.max_pool2d(last, 2, ceil_mode=True)]


def create_network(name: str, **options: Any) -> Any:
    """timm's network of features for a name with or without `timm/`; `options` are those of timm.create_model.

    Raises UsageError for a name that timm lacks or that it cannot build as an encoder.
    """
    timm = import_timm()
    short = name.removeprefix(PREFIX)
    if short.split(".")[0] not in timm.list_models():
        raise UsageError(f"model.encoder={name}: timm has no '{short}'{did_you_mean(short, timm.list_models())}")
    if blocks := _transformer_blocks(short):
        options["out_indices"] = tuple(blocks * tap // TAPS - 1 for tap in range(1, TAPS + 1))
    failure = ""
    for any_size in ANY_SIZE:
        try:
            return timm.create_model(short, features_only=True, **any_size, **options)
        except (TypeError, RuntimeError, AttributeError) as error:  # a TypeError if the class lacks the option
            failure = " ".join(str(error).split())[:160]
    raise UsageError(f"model.encoder={name}: timm does not build it as an encoder ({failure})")


def _transformer_blocks(short: str) -> int:
    """How many blocks a network has whose maps are all of one size; 0 for any other."""
    with torch.device("meta"):  # only its shape is wanted
        complete = import_timm().create_model(short)
    levels = getattr(complete, "feature_info", [])
    reductions = {level["reduction"] for level in levels} if isinstance(levels, list) else set()
    return len(levels) if len(reductions) == 1 else 0


def published_config(name: str) -> dict[str, Any]:
    """timm's record of a network's published weights: mean, std, license, address."""
    config = import_timm().get_pretrained_cfg(name.removeprefix(PREFIX))
    # Without a record of published weights there is nothing to match; ImageNet's numbers do no harm.
    return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} if config is None else dict(config.to_dict())


def import_timm() -> Any:
    """The library, or a UsageError that says how to install it."""
    try:
        import timm
    except ImportError:
        raise UsageError("model.encoder=timm/...: timm is not installed; pip install 'depthray[timm]'") from None
    return timm
