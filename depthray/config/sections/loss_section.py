"""The section `loss`: a weight for each term, and what the terms make of depth."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from depthray.config.sections.section import Amount, Fraction, PositiveFloat, Section

LOSS_OPTIONS = (
    *("silog_lambda", "silog_unbiased", "depth_range"),
    *("multiscale_weights", "multiscale_norm", "multiscale_relative"),
    *("target", "ssi_space", "ssi_form"),
    *("over_spread", "valid_missing", "terms", "teacher"),
)


ALIGNED_TERMS = ("ssi", "ssi_gradient")  # blind to scale and shift
RANGE_TERMS = ("ssim", "ms_ssim", "depth_bce", "depth_dice")  # relative to depth_range
# What the numbers of a predicted depth map mean: metres; a share of the image's largest depth; or depth whose values,
# or whose inverses, are right up to an unknown scale and shift of each image.
DepthKind = Literal["metric", "relative", "affine-depth", "affine-disparity"]


def _join_keys(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        joined |= _join_keys(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return joined


class TeacherLoss(Section):
    """Weights of the terms that compare with the depth of a teacher, see docs/distillation.md."""

    l1: Amount = Field(0.0, description="mean |error| in metres")
    abs_rel: Amount = Field(0.0, description="mean |error| / the teacher's depth")
    log_l1: Amount = Field(0.0, description="mean |error of ln depth|")
    log_rmse: Amount = Field(0.0, description="root of the mean squared error of ln depth")
    silog: Amount = Field(0.0, description="scale-invariant log error (Eigen et al. 2014), with loss.silog_lambda")
    gradient: Amount = Field(0.0, description="mean |error of forward differences|, x plus y")
    gradient_matching: Amount = Field(0.0, description="|differences of the error| at 4 scales (MiDaS)")
    ssi: Amount = Field(0.0, description="error after scale and shift are aligned (MiDaS, Depth Anything)")
    ssi_gradient: Amount = Field(0.0, description="gradient matching of the aligned image (MiDaS, Depth Anything V2)")
    laplace_nll: Amount = Field(0.0, description="likelihood of the teacher's depth, Laplace (Poggi et al. 2020)")
    gaussian_nll: Amount = Field(0.0, description="likelihood of the teacher's depth, Gaussian")
    sure: PositiveFloat = Field(
        0.05,
        description="a label with a standard deviation that is a larger share of its depth weighs this / that share",
    )

    @property
    def weights(self) -> dict[str, float]:
        """Weight by term, of the terms whose weight is above 0."""
        return {key: value for key, value in self if key != "sure" and value > 0}


class Loss(Section):
    """Weights of the loss terms of depthray/losses, and their options; a weight of 0 leaves a term out."""

    l1: Amount = Field(0.0, description="mean |error| in metres")
    l2: Amount = Field(0.0, description="mean squared error in square metres")
    rmse: Amount = Field(0.0, description="root of the mean squared error, in metres")
    abs_rel: Amount = Field(0.0, description="mean |error| / depth, as the metric of that name")
    log_l1: Amount = Field(0.0, description="mean |error of ln depth|")
    log_rmse: Amount = Field(0.0, description="root of the mean squared error of ln depth")
    berhu: Amount = Field(0.0, description="reverse Huber, threshold 0.2 of the largest error")
    silog: Amount = Field(0.0, description="scale-invariant log error (Eigen et al. 2014)")
    gradient: Amount = Field(0.0, description="mean |error of forward differences|, x plus y")
    sobel: Amount = Field(0.0, description="mean |error of Sobel derivatives|, x plus y")
    gradient_matching: Amount = Field(0.0, description="|differences of the error| at 4 scales (MiDaS)")
    normals: Amount = Field(0.0, description="1 - cosine between normals of the two surfaces")
    smoothness: Amount = Field(0.0, description="edge-aware smoothness of inverse depth (Godard et al. 2017)")
    ssi: Amount = Field(0.0, description="error after scale and shift of each image are aligned (MiDaS)")
    ssi_gradient: Amount = Field(0.0, description="gradient matching of the aligned image (MiDaS: 0.5 of ssi)")
    ssim: Amount = Field(0.0, description="1 - SSIM of depth")
    ms_ssim: Amount = Field(0.0, description="1 - multi-scale SSIM of depth")
    multiscale: Amount = Field(0.0, description="error at every scale of a model with a depth pyramid")
    monocular: Amount = Field(
        0.0,
        description="mean |error of ln depth| of what model.sparse_fusion=late predicts without samples",
    )
    depth_bce: Amount = Field(0.0, description="binary cross-entropy of depth as a share of depth_range")
    depth_dice: Amount = Field(0.0, description="Dice loss of depth as a share of depth_range")
    laplace_nll: Amount = Field(
        0.0, description="negative log likelihood of ln depth, Laplace, of model.uncertainty=laplace"
    )
    gaussian_nll: Amount = Field(
        0.0, description="negative log likelihood of ln depth, Gaussian, of model.uncertainty=gaussian"
    )
    mask_bce: Amount = Field(0.0, description="binary cross-entropy of the mask's logits")
    mask_dice: Amount = Field(0.0, description="Dice loss of the mask's probability")
    mask_rmse: Amount = Field(0.0, description="root of the mean squared error of the mask's probability")
    mask_ssim: Amount = Field(0.0, description="1 - SSIM of the mask's probability")
    valid_bce: Amount = Field(
        0.0, description="binary cross-entropy of model.valid_mask: 1 where depth is measured and within its limits"
    )
    terms: dict[str, Amount] = Field(
        {}, description="weights of one's own terms by name: {mypkg.losses.mine: 0.1, ./losses.py:edges: 0.2}"
    )
    teacher: TeacherLoss = TeacherLoss()
    target: Literal["metric", "relative"] = Field(
        "metric",
        description="what depth terms compare with: metres, or shares of the image's largest valid depth (then "
        "model.max_depth=1); see docs/models.md",
    )
    over_spread: bool = Field(
        False,
        description="with sparse depth: the loss of an image is divided by that of its spread samples, so that images "
        "of few samples do not outweigh the others",
    )
    valid_missing: Amount = Field(
        1.0,
        description="valid_bce: weight of pixels without a measurement, which count as invalid; 0 of LiDAR and other "
        "truth that has gaps everywhere",
    )
    ssi_space: Literal["disparity", "depth"] = Field(
        "disparity", description="ssi, ssi_gradient: what is aligned, 1 / depth (MiDaS) or depth"
    )
    ssi_form: Literal["mse", "mae", "trim"] = Field(
        "trim", description="mse: least squares; mae: median and mean deviation; trim: that, less the largest 20 %"
    )
    silog_lambda: Fraction = Field(0.85, description="share of the common scale error that silog ignores")
    silog_unbiased: bool = Field(False, description="silog: variance over n - 1 pixels, as in AdaBins")
    depth_range: PositiveFloat = Field(
        10.0, description="metres that count as 1 for ssim, ms_ssim, depth_bce, depth_dice"
    )
    multiscale_weights: tuple[Amount, ...] = Field((1.0, 0.7, 0.5, 0.3, 0.2), description="weights, finest first")
    multiscale_norm: Literal["l1", "l2"] = Field("l1", description="error of a scale")
    multiscale_relative: bool = Field(False, description="error of a scale as a share of the true depth")

    @model_validator(mode="before")
    @classmethod
    def _join_names(cls, section: Any) -> Any:
        """Names of own terms as one text: an override `loss.terms.mypkg.losses.mine=0.1` is read as nested sections."""
        if not isinstance(section, dict) or not isinstance(section.get("terms"), dict):
            return section
        return {**section, "terms": _join_keys(section["terms"])}

    def __hash__(self) -> int:
        return hash(tuple((key, tuple(value.items()) if isinstance(value, dict) else value) for key, value in self))

    @property
    def weights(self) -> dict[str, float]:
        """Weight by term, of the terms whose weight is above 0; depthray's first, then one's own."""
        ours = {key: value for key, value in self if key not in LOSS_OPTIONS}
        return {key: value for key, value in (ours | self.terms).items() if value > 0}

    @property
    def depth_kind(self) -> DepthKind:
        """What the numbers of a depth map are that these terms train."""
        # Of one's own terms the function's name decides: mypkg.losses.mask_edges is not of depth.
        names = self.weights | self.teacher.weights
        of_depth = {name for name in names if not re.split(r"[.:]", name)[-1].startswith(("mask_", "valid_"))}
        if not of_depth:
            return "metric"
        aligned = of_depth.intersection(ALIGNED_TERMS)
        if aligned and of_depth <= {*ALIGNED_TERMS, "normals", "smoothness"}:  # the last two fix no scale either
            return "affine-depth" if self.ssi_space == "depth" else "affine-disparity"
        return self.target

    @model_validator(mode="after")
    def _check_names(self) -> Loss:
        if ours := [name for name in self.terms if name in Loss.model_fields]:
            raise ValueError(f"loss.terms is for terms of one's own; write loss.{ours[0]}={self.terms[ours[0]]:g}")
        return self

    @model_validator(mode="after")
    def _check_some_weight(self) -> Loss:
        if not self.weights and not self.teacher.weights:
            raise ValueError("every loss weight is 0; give at least one, e.g. loss.l1=1")
        if self.over_spread and self.teacher.weights:
            raise ValueError(
                "loss.over_spread divides by the loss of the spread samples, which loss.teacher is no part of; leave "
                "one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _check_range_of_shares(self) -> Loss:
        used = [name for name in RANGE_TERMS if name in self.weights]
        if self.target == "relative" and used and self.depth_range != 1:
            raise ValueError(f"loss.target=relative: shares end at 1, so loss.{used[0]} needs loss.depth_range=1")
        return self
