"""DepthNet of many inputs and five scales (seed system 000): image, sparse depth and classes in, a depth pyramid out.

A contracting and an expanding half joined by skips, with a prediction at 1/32, 1/16, 1/8 and 1/4 of the size and one
at 1/2 that is upsampled to the input's. The original stacked RGB, one channel of sparse depth and two of zeros,
read no classes, had no norm and left the sign of its depth open: `stacking: original`, `norm: none`, `head: none`
(or `elu`, its post-processing).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.errors import UsageError
from depthray.models.layers.depth_head import START, Completion, DepthHead
from depthray.models.layers.inputs import InputStack, input_channels

Norm = Literal["group", "none"]
Head = Literal["sigmoid", "elu", "none"]

GROUPS = 8  # of a norm, whatever its channels, as in the original
EMBEDDED = 8  # channels of an embedded class
CLASSES = {"embedding": 1024, "onehot": 41}  # every id of NYU Depth v2; its usual 40 classes and 0 for none
DOWN = ((32, 1), (64, 1), (128, 2), (256, 2), (256, 2), (512, 2))  # channels and convolutions of each halving
UP = (256, 128, 64, 32, 32)  # channels of each doubling

VARIANTS: dict[str, dict[str, Any]] = {
    "depthnet-no-norm": {"norm": "none"},
    "depthnet-onehot": {"semantics": "onehot"},
    "depthnet-original": {"norm": "none", "stacking": "original", "head": "elu"},
}


class ClassChannels(nn.Module):
    """Class ids as channels. An id outside 0 .. classes - 1 is unknown: a row of its own, or no channel set.

    Only those below 0 should come here: `models.check_ids` refuses frames with others.
    """

    def __init__(self, kind: Literal["embedding", "onehot"], classes: int) -> None:
        super().__init__()
        self.num_classes = classes
        # One row more than classes: the last is the unknown class.
        self.embedding = nn.Embedding(classes + 1, EMBEDDED) if kind == "embedding" else None
        self.channels = EMBEDDED if kind == "embedding" else classes

    def forward(self, ids: Tensor) -> Tensor:
        """(B,1,H,W) ids -> (B,C,H,W)"""
        known = (ids >= 0) & (ids < self.num_classes)
        index = torch.where(known, ids, self.num_classes)  # (B,1,H,W)
        if self.embedding is not None:
            embedded: Tensor = self.embedding(index[:, 0]).permute(0, 3, 1, 2)  # (B,H,W,8) -> (B,8,H,W)
            return embedded
        numbers = torch.arange(self.num_classes, device=ids.device).view(1, -1, 1, 1)
        return (index == numbers).float()  # (B,1,H,W) against (1,C,1,1) -> (B,C,H,W)


class ClassStack(nn.Module):
    """All inputs stacked: classes as `Classes` has them, everything else as every model here sees it."""

    def __init__(self, inputs: tuple[str, ...], classes: ClassChannels, *, max_depth: float) -> None:
        super().__init__()
        self.inputs = inputs
        rest = tuple(key for key in inputs if key != "semantics")
        self.rest = InputStack(rest, max_depth=max_depth) if rest else None
        self.classes = classes if "semantics" in inputs else None
        self.widths = {key: input_channels((key,)) for key in rest}  # channels by input, in the order of the stack
        if self.classes:
            self.widths["semantics"] = classes.channels
        self.count = sum(self.widths.values())

    def forward(self, batch: Batch) -> Tensor:
        """inputs of a batch -> (B,C,H,W) of about unit size"""
        channels = [self.rest(batch)] if self.rest is not None else []
        if self.classes is not None:
            channels.append(self.classes(batch["semantics"]))
        return torch.cat(channels, dim=1)


class OriginalStack(nn.Module):
    """The six channels of the original: RGB, sparse depth as a share of max_depth, two of zeros."""

    count = 6  # as many as its ancestor's two RGB frames had; the seed filled what it did not use with zeros

    def __init__(self, inputs: tuple[str, ...], *, max_depth: float) -> None:
        super().__init__()
        if "image" not in inputs:
            raise UsageError("model.stacking=original: needs 'image' among data.inputs")
        if "intrinsics" in inputs:
            raise UsageError("model.stacking=original: has no channels for model.rays; leave one of them out")
        self.inputs = tuple(key for key in inputs if key in ("image", "sparse"))
        self.max_depth = max_depth
        self.image = InputStack(("image",), max_depth=max_depth)

    def forward(self, batch: Batch) -> Tensor:
        """inputs of a batch -> (B,6,H,W)"""
        image = self.image(batch)
        blank = torch.zeros_like(image[:, :1])
        sparse = batch["sparse"] / self.max_depth if "sparse" in self.inputs else blank
        return torch.cat([image, sparse, blank, blank], dim=1)


def _block(in_channels: int, out_channels: int, *, norm: Norm, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(GROUPS, out_channels) if norm == "group" else nn.Identity(),
        nn.ReLU(inplace=True),
    )


def _down(in_channels: int, out_channels: int, *, blocks: int, norm: Norm) -> nn.Sequential:
    """Halve the size, then convolve on."""
    more = [_block(out_channels, out_channels, norm=norm) for _ in range(blocks - 1)]
    return nn.Sequential(_block(in_channels, out_channels, norm=norm, stride=2), *more)


class DepthNet(nn.Module):
    """Six halvings, five doublings joined to the half that came before, five predictions."""

    stride = 64  # six halvings; each doubling is joined to the map of exactly that size
    outputs = ("depth", "pyramid")

    def __init__(
        self,
        stack: ClassStack | OriginalStack,
        *,
        norm: Norm,
        head: Head,
        dropout: float,
        max_depth: float,
        completion: Completion | None = None,
    ) -> None:
        super().__init__()
        self.inputs = stack.inputs
        self.kind = head
        self.max_depth = max_depth
        self.stack = stack
        self.drop = nn.Dropout2d(dropout)
        widths = [width for width, _ in DOWN]
        self.down = nn.ModuleList(
            _down(width_in, width_out, blocks=blocks, norm=norm)
            for width_in, (width_out, blocks) in zip((stack.count, *widths), DOWN, strict=False)
        )
        # Channels after each doubling with its skip; the last one has none.
        joined = [width + skip for width, skip in zip(UP, (*widths[-2:0:-1], 0), strict=True)]
        self.up = nn.ModuleList(
            _block(width_in, width_out, norm=norm)
            for width_in, width_out in zip((widths[-1], *joined), UP, strict=False)
        )
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for channels in joined)
        # The original was not guided by sparse depth.
        self.guided = head == "sigmoid" and isinstance(stack, ClassStack)
        self._init_convolutions()
        self.metres = self._depth_head(completion, channels=joined[-1])
        self._init_heads()

    def forward(self, batch: Batch) -> Prediction:
        """(B,C,H,W) inputs -> (B,1,H,W) depth and a pyramid at 1/4, 1/8, 1/16, 1/32, metres, float32"""
        stacked = self.stack(batch)
        maps = self._decode(self._features(stacked))
        logits = self._logits(maps)
        full = F.interpolate(logits[-1], size=stacked.shape[-2:], mode="bilinear", align_corners=False)  # (B,1,H,W)
        prediction: Prediction = (
            self.metres.predict(full, batch, maps[-1]) if self.kind == "sigmoid" else {"depth": self._metres(full)}
        )
        # For training alone: samples are spread once more for it, which would be a third of an exported graph's nodes.
        if not torch.compiler.is_exporting():
            prediction["pyramid"] = self._pyramid(logits[-2::-1], batch)
        return prediction

    def _pyramid(self, logits: list[Tensor], batch: Batch) -> list[Tensor]:
        """four (B,1,h,w) of logits, finest first, inputs of a batch -> (B,1,h,w) metres of each"""
        if self.kind == "sigmoid":
            return self.metres.coarse(logits, batch)
        return [self._metres(level) for level in logits]

    def _features(self, stacked: Tensor) -> list[Tensor]:
        """(B,C,H,W) inputs -> six maps, 1/2 to 1/64 of the size"""
        features = [self.down[0](stacked)]
        for down in list(self.down)[1:]:
            # Dropout on the way down alone: the skips are the maps before it.
            features.append(down(self.drop(features[-1])))
        return features

    def _decode(self, features: list[Tensor]) -> list[Tensor]:
        """six maps, finest first -> five maps (B,C,h,w), coarsest first"""
        *skips, current = features
        maps = []
        # The finest map is no skip: the original's last doubling has none.
        for up, skip in zip(self.up, [*skips[:0:-1], None], strict=True):
            current = up(F.interpolate(self.drop(current), scale_factor=2, mode="bilinear", align_corners=False))
            current = current if skip is None else torch.cat([current, skip], dim=1)  # (B,C+S,2h,2w)
            maps.append(current)
        return maps

    def _logits(self, maps: list[Tensor]) -> list[Tensor]:
        """five maps (B,C,h,w) -> five (B,1,h,w) of logits"""
        return [head(level).float() for head, level in zip(self.heads, maps, strict=True)]

    def _metres(self, logits: Tensor) -> Tensor:
        """(B,1,h,w) logits of the original's heads -> (B,1,h,w) metres"""
        return F.elu(logits) + 1 if self.kind == "elu" else logits

    def _depth_head(self, completion: Completion | None, *, channels: int) -> DepthHead:
        if completion and completion.refine and not self.guided:
            raise UsageError(
                "model.refine: the original network has no refinement; leave model.stacking and model.head as they are"
            )
        if completion and not completion.is_depth_alone and self.kind != "sigmoid":
            key = "uncertainty" if completion.uncertainty != "none" else "valid_mask"
            raise UsageError(f"model.{key}: the original heads predict depth alone; leave model.head as it is")
        inputs = tuple(key for key in self.inputs if self.guided or key != "sparse")
        return DepthHead("sigmoid", max_depth=self.max_depth, inputs=inputs, channels=channels, completion=completion)

    def _init_convolutions(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)  # as in the original

    def _init_heads(self) -> None:
        """Heads that begin at a usual depth, or at the samples."""
        for head in self.heads:
            assert isinstance(head, nn.Conv2d)
            self.metres.init_bias(head)
            if self.kind != "sigmoid":
                nn.init.constant_(head.bias, self._first_logit())  # type: ignore[arg-type]

    def _first_logit(self) -> float:
        """What ELU + 1, or the bare output, needs for START * max_depth metres."""
        metres = START * self.max_depth
        # ELU + 1 is x + 1 above 0 and e^x below.
        inverse = metres - 1 if metres >= 1 else math.log(metres)
        return inverse if self.kind == "elu" else metres


def build(
    *,
    norm: Norm = "group",
    semantics: Literal["embedding", "onehot"] = "embedding",
    classes: Annotated[int, Field(gt=0, le=65536)] | None = None,
    stacking: Literal["inputs", "original"] = "inputs",
    head: Head = "sigmoid",
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    max_depth: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0,
    inputs: tuple[str, ...] = ("image", "sparse", "semantics"),
    completion: Completion | None = None,
) -> DepthNet:
    """The network of a recipe's `model` section; any inputs go, e.g. ("image",) or ("image", "sparse").

    `classes`: ids are 0 .. classes - 1; by default 1024 embedded, 41 one-hot.
    `head`: metres = max_depth * sigmoid, or ELU + 1, or the bare output, which may be negative.
    """
    count = CLASSES[semantics] if classes is None else classes
    stack = (
        OriginalStack(inputs, max_depth=max_depth)
        if stacking == "original"
        else ClassStack(inputs, ClassChannels(semantics, count), max_depth=max_depth)
    )
    return DepthNet(stack, norm=norm, head=head, dropout=dropout, max_depth=max_depth, completion=completion)
