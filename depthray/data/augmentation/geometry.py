"""What of a frame a training sample shows: crops, sizes, rolls of the camera and flips, composed into one affine map.

All maps and the camera follow the same map, so that a sample is sampled once from its frame, however many changes there
are; warp.py does so on the CPU and device_changes.py on a device.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.errors import DataError

FALLBACK_FOCAL = 1.0  # image widths, of the camera assumed for rotations where a sample has no intrinsics
KITTI_BENCHMARK = (352, 1216)  # height, width in pixels of the images of KITTI's depth benchmark
# Linear interpolation averages over a triangle of variance 1/6 pixel, as the area average of this shrinking does.
SHRINKS = math.sqrt(2)

Size = tuple[int, int]  # height, width in pixels


class Affine(NamedTuple):
    """x, y -> xx x + xy y + x0, yx x + yy y + y0; in plain floats, as arrays this small take longer."""

    xx: float = 1.0
    xy: float = 0.0
    x0: float = 0.0
    yx: float = 0.0
    yy: float = 1.0
    y0: float = 0.0

    def after(self, first: Affine) -> Affine:
        """This map of what the first one gives."""
        return Affine(
            self.xx * first.xx + self.xy * first.yx,
            self.xx * first.xy + self.xy * first.yy,
            self.xx * first.x0 + self.xy * first.y0 + self.x0,
            self.yx * first.xx + self.yy * first.yx,
            self.yx * first.xy + self.yy * first.yy,
            self.yx * first.x0 + self.yy * first.y0 + self.y0,
        )

    def inverse(self) -> Affine:
        """The map back."""
        by = self.xx * self.yy - self.xy * self.yx
        linear = Affine(self.yy / by, -self.xy / by, 0.0, -self.yx / by, self.xx / by, 0.0)
        return linear.after(Affine(x0=-self.x0, y0=-self.y0))

    def matrix(self) -> NDArray[np.float64]:
        """-> (2,3)"""
        return np.array(self).reshape(2, 3)


class View(NamedTuple):
    """What a picture shows of a frame, and the camera that would take it. Each method is one more change."""

    name: str  # of the frame, for errors
    frame: Size
    size: Size  # of the picture
    place: Affine  # of a pixel of the picture in the frame: x is the column, y the row
    camera: Affine | None  # pinhole matrix in pixels of the picture, but its last row; None where it is not known
    # Top, left, height, width in the frame, where the picture is just these pixels, resized or not, flipped or not.
    window: tuple[int, int, int, int] | None
    turned: bool = False
    flipped: bool = False  # left and right exchanged
    upside_down: bool = False

    @staticmethod
    def of(sample: Sample) -> View:
        """The view of a complete frame (H,W)."""
        height, width = sample["image"].shape[:2]
        camera = Affine(*sample["intrinsics"][:2].ravel().tolist()) if "intrinsics" in sample else None
        return View(sample.get("id", ""), (height, width), (height, width), Affine(), camera, (0, 0, height, width))

    @property
    def intrinsics(self) -> NDArray[np.float32]:
        """(3,3) pinhole matrix in pixels of the picture, for a frame with a known camera."""
        assert self.camera is not None
        return np.array((*self.camera, 0, 0, 1), np.float32).reshape(3, 3)

    @property
    def is_cut(self) -> bool:
        """Whether the pixels are those of the frame, none between them."""
        return self.window is not None and self.window[2:] == self.size

    @property
    def scales(self) -> tuple[float, float]:
        """Pixels of the frame in one of the picture, down and across."""
        return math.hypot(self.place.xy, self.place.yy), math.hypot(self.place.xx, self.place.yx)

    @property
    def boxes(self) -> tuple[int, int]:
        """Rows and columns of the frame that are averaged before anything else: powers of 2, for large shrinking."""
        down, across = (max(0, math.floor(math.log2(scale / SHRINKS) + 1e-9)) for scale in self.scales)
        return 2**down, 2**across

    @property
    def taps(self) -> tuple[float, float]:
        """The weight of each neighbour in the average of 3 rows, and of 3 columns, before interpolation.

        With it interpolation blurs a shrunk picture as the average over the areas of its pixels does, which is what
        pictures are made with outside of training: a box of n pixels has the variance n^2 / 12, interpolation 1/6 on
        average, and 3 taps with the weight w at both sides have 2 w.
        """
        scales = (scale / box for scale, box in zip(self.scales, self.boxes, strict=True))
        down, across = (max(0.0, (scale**2 - 2) / 24) for scale in scales)
        return down, across

    def cut(self, corner: tuple[int, int], size: Size) -> View:
        """The pixels (h,w) from the row and column of their corner on."""
        (y, x), (h, w) = corner, size
        window = None
        if self.window is not None and self.is_cut:
            top, left, height, width = self.window
            row = height - y - h if self.upside_down else y
            window = (top + row, left + (width - x - w if self.flipped else x), h, w)
        camera = None if self.camera is None else Affine(x0=-x, y0=-y).after(self.camera)
        return self._replace(size=size, place=self.place.after(Affine(x0=x, y0=y)), camera=camera, window=window)

    def crop(self, share: float, *, left: float, top: float) -> View:
        """`share` of the sides; left and top in [0,1) are its position in the free margin."""
        height, width = self.size
        return self.crop_to((max(1, round(share * height)), max(1, round(share * width))), left=left, top=top)

    def crop_to(self, size: Size, *, left: float, top: float) -> View:
        """A crop (h,w); left and top in [0,1) are its position in the free margin. A DataError if it is too large."""
        (height, width), (h, w) = self.size, size
        if h > height or w > width:
            raise DataError(
                f"frame '{self.name}' has {height}x{width} pixels where {h}x{w} are cut out; "
                "lower data.size, or give augment.crop_mode=resize"
            )
        return self.cut((int(top * (height - h + 1)), int(left * (width - w + 1))), size)

    def kitti_benchmark_crop(self) -> View:
        """The 352x1216 pixels at the middle of the bottom, which the images of KITTI's benchmark show."""
        (height, width), (h, w) = self.size, KITTI_BENCHMARK
        if h > height or w > width:
            raise DataError(
                f"frame '{self.name}' has {height}x{width} pixels, fewer than the {h}x{w} of augment.crop_mode=kb; "
                "it is for frames of KITTI at their own size"
            )
        return self.cut((height - h, (width - w) // 2), KITTI_BENCHMARK)

    def resize(self, size: Size) -> View:
        """The same at another size (h,w); the edges of both coincide, not the centres of their outer pixels."""
        if size == self.size:
            return self
        down, across = self.size[0] / size[0], self.size[1] / size[1]
        camera = None if self.camera is None else _scale(1 / across, 1 / down).after(self.camera)
        # Of a part that is cut after a resize, or turned, no whole pixels of the frame are the window any more.
        window = self.window if self.is_cut else None
        place = self.place.after(_scale(across, down))
        return self._replace(size=size, place=place, camera=camera, window=window)

    def rotate(self, degrees: float) -> View:
        """The camera rolled about its optical axis: depth and intrinsics keep their values."""
        # The inverse: where each pixel of the result comes from. Rolling keeps z, so there is nothing to divide by.
        inverse = _roll(self.camera or _assumed_camera(self.size), -degrees)
        return self._replace(place=self.place.after(inverse), window=None, turned=True)

    def mirror(self) -> View:
        """The same scene with left and right exchanged."""
        move = Affine(xx=-1, x0=self.size[1] - 1)
        # The mirrored camera's x axis is reversed as well, which keeps the focal length positive.
        camera = None if self.camera is None else move.after(self.camera).after(Affine(xx=-1))
        return self._replace(place=self.place.after(move), camera=camera, flipped=not self.flipped)

    def mirror_rows(self) -> View:
        """The same scene with top and bottom exchanged."""
        move = Affine(yy=-1, y0=self.size[0] - 1)
        camera = None if self.camera is None else move.after(self.camera).after(Affine(yy=-1))
        return self._replace(place=self.place.after(move), camera=camera, upside_down=not self.upside_down)


def zoom_share(crop: Size, frame: Size) -> float:
    """A crop (h,w) and the frame (H,W) it is of -> h/H and w/W, which differ by rounding alone, as one number."""
    return math.sqrt(math.prod(crop) / math.prod(frame))


def zoom_depth(sample: Sample, share: float, *, measured: tuple[float, float]) -> Sample:
    """A crop of `share` of a frame -> the same with its depth in metres times `share`; the camera is left alone.

    Resized back to the frame's size, the crop has the focal length f / share. A pinhole camera maps a point to the
    pixel f X / Z + c, so the same picture of size X / Z is taken with the focal length f at the depth

        Z' = Z * f / (f / share) = Z * share,

    and a network that is not given the camera can only learn depth for one focal length, that of complete frames.
    It is the label transform of Metric3D (Yin et al. 2023, section 3.2: D_c = D f_c / f, with f_c = f and f / share
    for f), and what sparse-to-dense (Ma and Karaman 2018) does: it zooms by s = 1 / share and divides depth by s.
    With the intrinsics of the crop, which have the focal length f / share, the points (X, Y, Z) become
    share (X, Y, Z): the scene in a smaller scale, of the same shape and in the same picture.

    `measured` are the limits in metres within which a sensor's depth counts. They are those of the depth before,
    as what is out of the sensor's reach, or clipped at its end, does not become right by a zoom: it is unmeasured.
    """
    zoomed: dict[str, Any] = dict(sample)
    factor = np.float32(share)
    if "depth_scale" in zoomed:  # depth is still as stored, and zoomed where it is made metres, by `to_device`
        steps, before, limited = zoomed["depth_scale"]
        limited = max(limited, measured != (0, math.inf))
        zoomed["depth_scale"] = np.array([steps, before * factor, limited], np.float32)
    elif "depth" in zoomed:
        depth, (least, most) = zoomed["depth"], measured
        zoomed["depth"] = np.where((depth > least) & (depth < most), depth * factor, np.float32(0))
    for key in ("sparse", "teacher", "sigma"):
        if key in zoomed:
            zoomed[key] = zoomed[key] * factor
    return zoomed  # type: ignore[return-value]


def _scale(across: float, down: float) -> Affine:
    """-> the map that multiplies positions, of which the left edge of an image is at -0.5"""
    return Affine(xx=across, x0=(across - 1) / 2, yy=down, y0=(down - 1) / 2)


def _assumed_camera(size: Size) -> Affine:
    """(H,W) -> centred pinhole camera with the fallback focal length"""
    height, width = size
    focal = FALLBACK_FOCAL * width
    return Affine(xx=focal, x0=(width - 1) / 2, yy=focal, y0=(height - 1) / 2)


def _roll(camera: Affine, degrees: float) -> Affine:
    """Pinhole camera -> the map of the pixels when it rolls by degrees."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return camera.after(Affine(xx=cos, xy=-sin, yx=sin, yy=cos)).after(camera.inverse())
