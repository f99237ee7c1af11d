"""What loss terms are computed from: predicted maps, and the truth resized to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from depthray.batch import Batch, Prediction, constant
from depthray.data.source import YES
from depthray.errors import DataError, UsageError


@dataclass(frozen=True)
class LossInputs:
    """A prediction and its batch as one term needs them. Its properties have the names of the terms' parameters."""

    prediction: Prediction
    batch: Batch
    term: str

    @property
    def depth(self) -> Tensor:
        """(B,1,h,w) metres, as predicted."""
        return self._predicted("depth")  # type: ignore[no-any-return]

    @property
    def pyramid(self) -> list[Tensor]:
        """Coarser levels (B,1,h,w) in metres, as predicted."""
        return self._predicted("pyramid")  # type: ignore[no-any-return]

    @property
    def monocular(self) -> Tensor:
        """(B,1,h,w) metres without samples, as predicted."""
        return self._predicted("monocular")  # type: ignore[no-any-return]

    @property
    def logits(self) -> Tensor:
        """(B,1,h,w) of the mask, as predicted."""
        return self._predicted("mask")  # type: ignore[no-any-return]

    @property
    def log_sigma(self) -> Tensor:
        """(B,1,h,w) ln of the standard deviation of ln depth, as predicted."""
        return self._predicted("log_sigma")  # type: ignore[no-any-return]

    @property
    def valid_logits(self) -> Tensor:
        """(B,1,h,w) of the mask of valid pixels, as predicted."""
        return self._predicted("valid")  # type: ignore[no-any-return]

    @property
    def has_depth(self) -> Tensor:
        """(B,1,h,w) bool at the size of `valid_logits`: there is a depth within its limits, measured or not."""
        has_depth = self._given("valid")
        if "measurable" in self.batch:
            has_depth = has_depth | ((self.batch["measurable"] == YES) & ~(self._given("depth") > 0))
        return resize_nearest(has_depth, self.valid_logits.shape[-2:])

    @property
    def is_known(self) -> Tensor:
        """(B,1,h,w) bool at the size of `valid_logits`: depth is measured, or the data set says what is there."""
        is_known = self._given("depth") > 0
        if "measurable" in self.batch:
            is_known = is_known | (self.batch["measurable"] > 0)
        return resize_nearest(is_known, self.valid_logits.shape[-2:])

    @property
    def truth(self) -> Tensor:
        """(B,1,h,w) metres at the size of the predicted depth, never interpolated."""
        return resize_nearest(self._given("depth"), self.depth.shape[-2:])

    @property
    def valid(self) -> Tensor:
        """(B,1,h,w) bool at the size of the predicted depth."""
        return resize_nearest(self._given("valid"), self.depth.shape[-2:])

    @property
    def confidence(self) -> Tensor | None:
        """(B,1,h,w) in (0,1] of the labels of a teacher at the size of the predicted depth; None of measured depth."""
        if "confidence" not in self.batch:
            return None
        return resize_nearest(self.batch["confidence"], self.depth.shape[-2:])

    @property
    def image(self) -> Tensor:
        """(B,3,h,w) in [0,1] at the size of the predicted depth."""
        return resize_area(self._given("image"), self.depth.shape[-2:])

    @property
    def intrinsics(self) -> Tensor:
        """(B,3,3) camera in pixels of the predicted depth."""
        camera: Tensor = self._given("intrinsics")
        return scale_camera(camera, old=self._given("depth").shape[-2:], new=self.depth.shape[-2:])

    @property
    def mask(self) -> Tensor:
        """(B,1,h,w) 0 or 1 at the size of the logits; 1 where the mask covers over half of a pixel's known part."""
        covered = resize_area(self._given("mask"), self.logits.shape[-2:])
        if "mask_valid" not in self.batch:
            return (covered > 0.5).float()
        return (covered > 0.5 * resize_area(self.batch["mask_valid"].float(), self.logits.shape[-2:])).float()

    @property
    def mask_valid(self) -> Tensor | None:
        """(B,1,h,w) bool at the size of the logits: at least half of a pixel is known; None where all are."""
        if "mask_valid" not in self.batch:
            return None
        return resize_area(self.batch["mask_valid"].float(), self.logits.shape[-2:]) >= 0.5

    def _predicted(self, key: str) -> Any:
        if key not in self.prediction:
            raise UsageError(
                f"loss.{self.term} needs '{key}' of the network, which predicts {' and '.join(self.prediction)} only; "
                f"set loss.{self.term}=0, or choose another model.name (depthray models lists them)"
            )
        return self.prediction[key]  # type: ignore[literal-required]

    def _given(self, key: str) -> Any:
        if key not in self.batch:
            source = "depth" if key == "valid" else key
            raise DataError(
                f"loss.{self.term} needs '{source}', which the frames do not have; use data that has it (with "
                f"data.targets or data.inputs naming it where it is one of those), or set loss.{self.term}=0"
            )
        return self.batch[key]  # type: ignore[literal-required]


def with_shares(batch: Batch) -> Batch:
    """The batch with depth (B,1,H,W) as shares of each image's largest valid depth, which loss.target=relative trains.

    The largest is that of the network's input size: a coarser prediction does not see another one.
    """
    if "depth" not in batch:
        return batch
    valid = batch["valid"]
    largest = torch.where(valid, batch["depth"], 0.0).amax(dim=(1, 2, 3), keepdim=True)  # (B,1,1,1)
    shares = batch.copy()
    shares["depth"] = batch["depth"] / torch.where(largest > 0, largest, 1.0)
    return shares


def resize_nearest(values: Tensor, size: Sequence[int]) -> Tensor:
    """(B,1,H,W) float or bool -> (B,1,h,w), each pixel the original one nearest to its centre."""
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    # Interpolated depth would put surfaces between foreground and background. Plain "nearest" shifts maps.
    resized = functional.interpolate(values.float(), size=tuple(size), mode="nearest-exact")
    return resized.bool() if values.dtype == torch.bool else resized


def resize_area(values: Tensor, size: Sequence[int]) -> Tensor:
    """(B,C,H,W) -> (B,C,h,w), each pixel the mean of what it covers."""
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return functional.adaptive_avg_pool2d(values.float(), (size[0], size[1]))


def scale_camera(intrinsics: Tensor, *, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """(B,3,3) in pixels of the old (H,W) -> (B,3,3) in pixels of the new; pixel centres are at whole numbers."""
    # With centres at whole numbers the image begins at -1/2, which is where the shift of the centre comes from.
    y, x = (after / before for after, before in zip(new, old, strict=True))
    device, dtype = intrinsics.device, intrinsics.dtype
    scale = constant(((x,), (y,), (1.0,)), device=device, dtype=dtype)
    shift = ((0.0, 0.0, (x - 1) / 2), (0.0, 0.0, (y - 1) / 2), (0.0, 0.0, 0.0))
    move = constant(shift, device=device, dtype=dtype)
    return intrinsics * scale + move
