"""Depth of an image, as `Predictor.predict` returns it: a NumPy array that knows its image and what its numbers are."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.errors import UsageError
from depthray.imaging import export, sheets
from depthray.imaging.camera import Camera, as_camera, assumed_camera
from depthray.imaging.sheets import RgbImage

METRES = "metres"
_WIDEST = 480  # pixels of a picture in a notebook


class DepthMap(np.ndarray[tuple[int, int], np.dtype[np.float32]]):
    """(H,W) float32 depth along the optical axis: metres, where `meaning` says so.

    It is an array, so whatever takes an array takes it; what is computed from it is a plain array again. A slice or a
    copy is still a map of depth, without the image, which has other pixels.
    """

    image: NDArray[np.uint8] | None  # (H,W,3) RGB, upright
    meaning: str  # "metres", or what the numbers are instead
    sigma: NDArray[np.float32] | None  # (H,W) the deviation of depth, in its unit; None where it was not predicted
    confidence: NDArray[np.float32] | None  # (H,W) in [0,1], the probability that depth is right within 10 percent
    valid: NDArray[np.bool_] | None  # (H,W) whether there is a depth to measure; None where it was not predicted

    def __new__(
        cls,
        depth: NDArray[Any],
        *,
        image: NDArray[np.uint8] | None = None,
        meaning: str = METRES,
        sigma: NDArray[np.float32] | None = None,
        confidence: NDArray[np.float32] | None = None,
        valid: NDArray[np.bool_] | None = None,
    ) -> DepthMap:
        """(H,W) depth, and what is known besides: its image (H,W,3); deviation, confidence, where it is valid (H,W)."""
        made: DepthMap = np.asarray(depth, np.float32).view(cls)
        made.image, made.meaning, made.sigma, made.confidence = image, meaning, sigma, confidence
        made.valid = valid
        return made

    def __array_finalize__(self, source: Any) -> None:
        # Of what is no map of depth nobody knows the unit.
        self.image, self.meaning = None, getattr(source, "meaning", "of unknown unit")
        self.sigma = self.confidence = self.valid = None

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        # Half a depth, or whether it is below 2, is no depth of the image.
        return np.asarray(array)[()] if return_scalar else np.asarray(array)

    def __reduce__(self) -> Any:
        return _restore, (np.asarray(self), self.image, self.meaning, self.sigma, self.confidence, self.valid)

    @property
    def metres(self) -> NDArray[np.float32]:
        """(H,W) float32 metres, a plain array. Raises UsageError where the numbers are something else."""
        if self.meaning != METRES:
            raise UsageError(
                f"this depth is {self.meaning}, not metres; the numbers themselves are numpy.asarray(depth)"
            )
        return np.asarray(self)

    def png16(self, *, keep_invalid: bool = False) -> bytes:
        """-> the bytes of a 16-bit grey PNG in millimetres, 0 = invalid, at most 65.535 m.

        With `keep_invalid` pixels that are not `valid` have the depth that was predicted of them.
        """
        return export.encode_depth_png(self._shown(keep_invalid))

    def points(
        self,
        camera: Camera | Sequence[float] | NDArray[Any] | None = None,
        *,
        degrees: float = 60.0,
        min_confidence: float = 0.0,
        keep_invalid: bool = False,
    ) -> NDArray[np.void]:
        """-> (N,) records `xyz` (float32 metres: x right, y down, z forward) and `rgb` (uint8), one a pixel with depth.

        `camera` is a matrix (3,3) or fx, fy, cx, cy in pixels of the image. Without it the camera is assumed to see
        `degrees` from left to right, and widths and heights of the points are a guess. Pixels of less than
        `min_confidence` have no point, and those that are not `valid` none without `keep_invalid`.
        """
        if self.image is None:
            raise UsageError("this part of a depth map has no image; take the points of the whole map")
        known = assumed_camera(*self.shape, degrees=degrees) if camera is None else as_camera(camera)
        if min_confidence > 0 and self.confidence is None:
            raise UsageError("this depth has no confidence; train a network with model.uncertainty=laplace")
        depth = export.confident(self._shown(keep_invalid), self.confidence, min_confidence)
        return export.points(depth, self.image, camera=known)

    def _shown(self, keep_invalid: bool) -> NDArray[np.float32]:
        """(H,W) metres, 0 where they are not valid"""
        return self.metres if keep_invalid else export.valid_only(self.metres, self.valid)

    def colour(self, near: float | None = None, far: float | None = None) -> RgbImage:
        """-> (H,W,3) uint8 RGB: near is red, far is blue, grey has no depth, or none that is `valid`.

        `near` and `far` are in metres, as the map, and its own ends by default: give both to compare maps.
        """
        if near is None or far is None:
            own = sheets.depth_scale([self._coloured])
            near, far = own.near if near is None else near, own.far if far is None else far
        if not near < far:
            raise UsageError(f"colours from {near:g} to {far:g}: near must be below far")
        return sheets.colour_depth(self._coloured, near=near, far=far)

    @property
    def _coloured(self) -> NDArray[np.float32]:
        """(H,W) depth, 0 where it is not valid, whatever its unit"""
        return export.valid_only(np.asarray(self), self.valid)

    def _repr_html_(self) -> str | None:
        """The image and its depth in colours, for notebooks; None, so that numbers are shown, for what is no map."""
        if self.ndim != 2 or not self.size:
            return None
        near, far, _ = sheets.depth_scale([self._coloured])
        coloured = self.colour(near, far)
        pictures = [coloured] if self.image is None else [self.image, coloured]
        unit = " m" if self.meaning == METRES else ""
        scale = f"red {near:g}{unit} to blue {far:g}{unit}"
        what = "" if self.meaning == METRES else f" ({self.meaning})"
        shown = "".join(f'<img src="data:image/png;base64,{_small_png(each)}"> ' for each in pictures)
        return f"<div>{shown}<br>depth{what}, {self.shape[1]}x{self.shape[0]}, {scale}</div>"


def _restore(
    depth: NDArray[np.float32],
    image: NDArray[np.uint8] | None,
    meaning: str,
    sigma: NDArray[np.float32] | None = None,
    confidence: NDArray[np.float32] | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> DepthMap:
    return DepthMap(depth, image=image, meaning=meaning, sigma=sigma, confidence=confidence, valid=valid)


def _small_png(picture: RgbImage) -> str:
    """(H,W,3) uint8 RGB -> a PNG of a width that fits into a notebook, in base64."""
    height, width = picture.shape[:2]
    if width > _WIDEST:
        size = (_WIDEST, max(1, round(height * _WIDEST / width)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return base64.b64encode(sheets.encode_png(picture)).decode()
