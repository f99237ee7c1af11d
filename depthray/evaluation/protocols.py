"""Named evaluation protocols: which pixels are scored and how a prediction is compared with the truth.

A protocol is named in every table, since the same weights score differently under another one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from depthray.config import own_code
from depthray.config.sections import MASK_MONITORS, Data, DepthKind, Recipe
from depthray.data.mixing import data_sets
from depthray.errors import UsageError, did_you_mean
from depthray.evaluation import legacy_metrics
from depthray.evaluation.crops import Crop, RelativeCrop
from depthray.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from torch import Tensor  # recipes are checked without waiting for torch

    from depthray.batch import Batch, Prediction
    from depthray.evaluation.alignment import ComparedDepth

    Extra = Callable[[Prediction, Batch, "ComparedDepth | None"], dict[str, Tensor]]


@dataclass(frozen=True)
class Protocol:
    """Pixels with min_depth < truth < max_depth inside the crop count; predictions are clamped to `clamp`."""

    name: str
    about: str
    min_depth: float = 1e-3
    max_depth: float = 10.0
    crop: Crop | RelativeCrop | None = None
    clamp: tuple[float, float] | None = None  # metres; None = min_depth to max_depth
    size: tuple[int, int] | None = None  # height, width of the truth, resized by nearest pixel; None = its own
    align: Literal["none", "depth", "disparity", "median"] = "none"  # what is fitted to each frame's truth
    pooled: bool = False  # a score is over the pixels of all frames, not the mean over frames
    extra: Extra | None = None  # scores of the protocol's own, (B,) by name
    own: tuple[str, ...] = ()  # the names of those
    needs: tuple[str, ...] = ("depth",)  # what the network must predict for them
    usual: bool = True  # whether METRICS and MASK_MONITORS are scored
    shares: Extra | None = None  # `extra` of a network whose depth is a share of each image's largest
    margin: float = 0.0  # share of each side at which no sparse depth is given: samples are of scored pixels
    sets: tuple[SetProtocol, ...] = ()  # how each of several data sets is scored, whose frames have its name as source

    mask_limits: tuple[float, float] = (0.0, math.inf)  # metres within which a predicted mask of valid pixels means yes

    def of_set(self, name: str) -> Protocol:
        """How the frames of a data set of `sets` are scored; of one data set this protocol itself."""
        return next((each.protocol for each in self.sets if each.name == name), self)

    @property
    def limits(self) -> tuple[float, float]:
        """The metres that predictions are clamped to."""
        return self.clamp or (self.min_depth, self.max_depth)

    @property
    def accepts(self) -> tuple[DepthKind, ...]:
        """The kinds of predicted depth whose scores mean something: what is fitted to the truth need not be known."""
        return (*ACCEPTS[self.align], *(("relative",) if self.shares else ()))

    def scores(self, targets: Collection[str]) -> tuple[str, ...]:
        """The names that are scored of a network that predicts these batch keys."""
        own = self.own if set(self.needs) <= set(targets) else ()
        usual = METRICS if self.usual and "depth" in targets else ()
        return (*usual, *own, *(MASK_MONITORS if self.usual and "mask" in targets else ()))


class SetProtocol(NamedTuple):
    """How one of several data sets is scored."""

    name: str
    protocol: Protocol
    overall: bool  # whether its frames count in the overall scores


ACCEPTS: dict[str, tuple[DepthKind, ...]] = {  # by what is fitted
    "none": ("metric",),
    "median": ("metric", "relative"),
    "depth": ("metric", "relative", "affine-depth"),
    "disparity": ("metric", "relative", "affine-disparity"),
}
MEANING: dict[DepthKind, str] = {
    "metric": "metres",
    "relative": "shares of each image's largest depth (loss.target=relative)",
    "affine-depth": "right up to a scale and a shift of each image (loss.ssi alone)",
    "affine-disparity": "right up to a scale and a shift of each image's 1 / depth (loss.ssi alone)",
}
NO_LIMIT = 1000.0  # metres; farther than anything measured
# The digits are those of Garg's code, which rounds the product down.
GARG = RelativeCrop(rows=(0.40810811, 0.99189189), columns=(0.03594771, 0.96405229))
PLAIN = Protocol("plain", "1 mm < truth < 10 m, whole image, prediction clamped to that range")
# Code after BTS calls this crop Eigen's; DenseDepth's, the next, is another one of that name.
NYU_BTS = Protocol(
    "nyu-bts",
    "1 mm < truth < 10 m, rows 45:471 and columns 41:601 of 480x640, prediction clamped to that range; raw depth",
    crop=Crop(rows=(45, 471), columns=(41, 601), size=(480, 640)),
)
NYU_EIGEN_FILLED = Protocol(
    "nyu-eigen-filled",
    "0 < truth, rows 20:460 and columns 24:616 of 480x640, prediction clamped to 0.1-10 m, pixels of all frames "
    "pooled; depth with its holes filled",
    min_depth=0.0,
    max_depth=NO_LIMIT,
    crop=Crop(rows=(20, 460), columns=(24, 616), size=(480, 640)),
    clamp=(0.1, 10.0),
    pooled=True,
)
# 228x304 is what sparse-to-dense cuts from frames of 240x320.
NYU_S2D = Protocol(
    "nyu-s2d",
    "0 < truth, the middle 228x304 of the truth at 240x320, prediction not clamped; sparse depth of these pixels alone",
    min_depth=0.0,
    max_depth=NO_LIMIT,
    crop=Crop(rows=(6, 234), columns=(8, 312), size=(240, 320)),
    clamp=(1e-6, NO_LIMIT),  # what has a logarithm
    size=(240, 320),
    margin=0.025,
)
KITTI_GARG = Protocol(
    "kitti-garg",
    "1 mm < truth < 80 m, the crop of Garg et al. 2016 of the whole image, prediction clamped to that range",
    max_depth=80.0,
    crop=GARG,
)
# AdaBins and those after it apply Garg's crop to what KITTI's benchmark crop has left.
KITTI_GARG_KB = replace(
    KITTI_GARG,
    name="kitti-garg-kb",
    about="1 mm < truth < 80 m, the crop of Garg et al. 2016 of the 352x1216 at the middle of the bottom, "
    "prediction clamped to that range",
    crop=replace(GARG, within=(352, 1216)),
)
AFFINE_DEPTH = Protocol(
    "affine-depth",
    "1 mm < truth < 10 m, whole image, scale and shift of depth fitted to each frame's truth by least squares, "
    "then clamped to that range",
    align="depth",
)
AFFINE_DISPARITY = Protocol(
    "affine-disparity",
    "1 mm < truth < 10 m, whole image, scale and shift of 1/depth fitted to each frame's truth by least squares, "
    "then inverted and clamped to that range",
    align="disparity",
)
MEDIAN_SCALED = Protocol(
    "median-scaled",
    "1 mm < truth < 10 m, whole image, each frame multiplied by the ratio of the medians of truth and prediction, "
    "then clamped to that range",
    align="median",
)
AFFINE_DEPTH_NYU = replace(
    AFFINE_DEPTH,
    name="affine-depth-nyu",
    about="the pixels of nyu-bts, scale and shift of depth fitted to each frame's truth there by least squares, then "
    "clamped to 1 mm-10 m",
    crop=NYU_BTS.crop,
)
AFFINE_DISPARITY_NYU = replace(
    AFFINE_DISPARITY,
    name="affine-disparity-nyu",
    about="the pixels of nyu-bts, scale and shift of 1/depth fitted to each frame's truth there by least squares, "
    "then inverted and clamped to 1 mm-10 m",
    crop=NYU_BTS.crop,
)
AFFINE_DEPTH_KITTI = replace(
    AFFINE_DEPTH,
    name="affine-depth-kitti",
    about="the pixels of kitti-garg, scale and shift of depth fitted to each frame's truth there by least squares, "
    "then clamped to 1 mm-80 m",
    max_depth=KITTI_GARG.max_depth,
    crop=GARG,
)
AFFINE_DISPARITY_KITTI = replace(
    AFFINE_DISPARITY,
    name="affine-disparity-kitti",
    about="the pixels of kitti-garg, scale and shift of 1/depth fitted to each frame's truth there by least squares, "
    "then inverted and clamped to 1 mm-80 m",
    max_depth=KITTI_GARG.max_depth,
    crop=GARG,
)
MEDIAN_SCALED_KITTI = replace(
    MEDIAN_SCALED,
    name="median-scaled-kitti",
    about="the pixels of kitti-garg, each frame multiplied by the ratio of the medians of truth and prediction there, "
    "then clamped to 1 mm-80 m",
    max_depth=KITTI_GARG.max_depth,
    crop=GARG,
)
PLAIN_SSIM = replace(
    PLAIN,
    name="plain-ssim",
    about=f"{PLAIN.about}; also SSIM of depth, 10 m as 1, over the windows that are measured throughout",
    extra=partial(legacy_metrics.depth_ssim, data_range=10.0),
    own=("ssim",),
)
LEGACY_001 = Protocol(
    "legacy-001",
    "mae over all pixels, unmeasured ones too, of the truth squashed to 320x320 and clamped at 10 m",
    extra=legacy_metrics.mae_at_320,
    own=("mae",),
    usual=False,
)
LEGACY_003 = Protocol(
    "legacy-003",
    "ssim and mse over all pixels at 56x56, the truth as a share of its largest depth, and so the prediction unless it "
    "is one already (loss.target=relative)",
    extra=legacy_metrics.relative_at_56,
    shares=partial(legacy_metrics.relative_at_56, shares=True),
    own=("ssim", "mse"),
    usual=False,
)
LEGACY_004 = Protocol(
    "legacy-004",
    "soft_iou: the mean of the soft IoU of the mask's probability and that of depth as a share of 10 m",
    extra=legacy_metrics.mixed_soft_iou,
    own=("soft_iou", "soft_iou_mask", "soft_iou_depth"),
    needs=("depth", "mask"),
    usual=False,
)
_ALL = (
    *(PLAIN, NYU_BTS, NYU_EIGEN_FILLED, NYU_S2D, KITTI_GARG, KITTI_GARG_KB),
    *(AFFINE_DEPTH, AFFINE_DEPTH_NYU, AFFINE_DEPTH_KITTI),
    *(AFFINE_DISPARITY, AFFINE_DISPARITY_NYU, AFFINE_DISPARITY_KITTI),
    *(MEDIAN_SCALED, MEDIAN_SCALED_KITTI),
    *(PLAIN_SSIM, LEGACY_001, LEGACY_003, LEGACY_004),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


def check(name: str, *, where: str) -> None:
    """Raise a `UsageError` if there is no protocol of that name."""
    named(name, where=where)


def named(name: str, *, where: str = "recipe") -> Protocol:
    """The protocol of a name; one's own is imported, where that is allowed (see `own_code`). Else a `UsageError`."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if not own_code.is_of(own_code.PROTOCOL, name):
        known = [*PROTOCOLS, *own_code.entry_points(own_code.PROTOCOL)]
        raise UsageError(f"{where}: eval.protocol: no protocol '{name}'{did_you_mean(name, known)}")
    protocol = own_code.resolve(own_code.PROTOCOL, name, where=where)
    if not isinstance(protocol, Protocol):
        raise UsageError(
            f"{where}: eval.protocol={name}: is {type(protocol).__name__}, not a Protocol of "
            "depthray.evaluation.protocols"
        )
    if protocol.name in PROTOCOLS or not re.fullmatch(r"[\w.-]+", protocol.name):
        raise UsageError(
            f"{where}: eval.protocol={name}: its name '{protocol.name}' "
            f"{'is one of depthray' if protocol.name in PROTOCOLS else 'is no name of a file'}; tables are told apart "
            "by it: choose another, of letters, digits and -"
        )
    return protocol


def check_kind(recipe: Recipe, *, where: str) -> None:
    """Raise a `UsageError` where the protocol compares what is not in metres with metres."""
    kind, name = recipe.depth_kind, recipe.eval.protocol
    if "depth" in recipe.data.targets and kind not in named(name, where=where).accepts:
        fitting = [other for other, protocol in PROTOCOLS.items() if kind in protocol.accepts]
        raise UsageError(
            f"{where}: eval.protocol={name} does not fit depth that is {MEANING[kind]}; choose from: "
            f"{', '.join(fitting)}"
        )


def of(recipe: Recipe) -> Protocol:
    """The protocol of a recipe, as it scores a network that was trained by it; of several data sets those of each."""
    sets, recipes = data_sets.resolve(recipe).data.sets, data_sets.recipes_of(recipe)
    protocols = [_of_one_set(each) for each in recipes]
    if not sets:
        return protocols[0]
    each_set = tuple(
        SetProtocol(each.name, protocol, each.overall) for each, protocol in zip(sets, protocols, strict=True)
    )
    return _of_sets(each_set)


def _of_one_set(recipe: Recipe) -> Protocol:
    protocol = named(recipe.eval.protocol)
    if recipe.model.valid_mask:  # by the limits that it was trained with, whatever is scored of depth
        protocol = replace(protocol, mask_limits=(recipe.data.min_depth, recipe.data.max_depth))
    is_share = recipe.depth_kind == "relative"
    return replace(protocol, extra=protocol.shares) if is_share and protocol.shares else protocol


def _of_sets(sets: tuple[SetProtocol, ...]) -> Protocol:
    """The protocol of the overall scores: that of all sets that count in them, or their names and what they say."""
    counted = list(dict.fromkeys(each.protocol for each in sets if each.overall))
    if len(counted) == 1:
        return replace(counted[0], sets=sets)
    by_set = "; ".join(f"{each.name}: {each.protocol.about}" for each in sets if each.overall)
    name = "+".join(dict.fromkeys(protocol.name for protocol in counted))
    # Frames are scored by the protocols of their sets; what is left to this one is how scores are averaged.
    pooled = all(protocol.pooled for protocol in counted)
    return replace(counted[0], name=name, about=by_set, pooled=pooled, sets=sets)


def scored_data(recipe: Recipe) -> Data:
    """The data section of a recipe as it is scored: sparse depth of the pixels that are, and the size of all tiles."""
    data = data_sets.resolve(recipe).data
    height, width = (side * recipe.eval.tiles for side in data.size)
    data = data.model_copy(update={"size": (height, width)})
    margin = max(named(each.eval.protocol).margin for each in data_sets.recipes_of(recipe))
    if data.sparse.margin >= margin:
        return data
    return data.model_copy(update={"sparse": data.sparse.model_copy(update={"margin": margin})})


def compare(prediction: Tensor, truth: Tensor, protocol: Protocol) -> ComparedDepth:
    """(B,1,h,w) and (B,1,H,W) metres -> both at the protocol's size, the prediction as it is scored, scored pixels."""
    from torch.nn import functional

    from depthray.evaluation.alignment import ComparedDepth

    # Truth by the nearest pixel: a mean over a hole or an edge was never measured.
    if protocol.size and protocol.size != tuple(truth.shape[-2:]):
        truth = functional.interpolate(truth, size=protocol.size, mode="nearest-exact")
    depth, valid = apply(prediction, truth, protocol)
    return ComparedDepth(depth, truth, valid)


def apply(prediction: Tensor, truth: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """(B,1,h,w) and (B,1,H,W) metres -> (B,1,H,W) float32 prediction in metres, (B,1,H,W) bool scored pixels.

    The prediction is resized bilinearly to the truth's size, aligned and clamped; infinity becomes the upper end of the
    clamp, NaN the lower. The truth has the protocol's size already.
    """
    import torch
    from torch.nn import functional

    from depthray.evaluation import alignment

    low, high = protocol.limits
    # Before resizing: one NaN would spread to its neighbours. Float, as autocast may have left 16 bits.
    depth = torch.nan_to_num(prediction.float(), nan=low, posinf=high, neginf=low)
    if depth.shape[-2:] != truth.shape[-2:]:
        depth = functional.interpolate(depth, size=truth.shape[-2:], mode="bilinear", align_corners=False)
    valid = (truth > protocol.min_depth) & (truth < protocol.max_depth)
    if protocol.crop:
        inside = torch.zeros(truth.shape[-2:], dtype=torch.bool, device=truth.device)
        inside[protocol.crop.window(*truth.shape[-2:])] = True
        valid &= inside
    # After the crop: the fit is over the pixels that are scored, and no others.
    if protocol.align != "none":
        depth = alignment.ALIGN[protocol.align](depth, truth, valid=valid, limits=protocol.limits)
    return depth.clamp(low, high), valid
