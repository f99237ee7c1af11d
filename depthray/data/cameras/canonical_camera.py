"""The canonical camera of `data.canonical_focal`: depth for any focal length from a network that has seen one.

A pinhole camera maps a point to the pixel f X / Z + c, so that the same picture is taken with the focal length f at the
depth Z and with F at Z F / f: from pixels alone nobody can tell the two apart. Metric3D (Yin et al. 2023, ICCV,
arXiv:2307.10984, section 3.2) removes the ambiguity by a canonical camera of one focal length F, in two ways:

    label   the picture stays, depth becomes D_c = D F / f in training, and the answer D = D_c f / F
    image   the picture is resized by F / f, so that its focal length is F; depth stays as it is

A network that sees the ray of each pixel (model.rays) can learn metres of any camera without either, as UniDepth does
(Piccinelli et al. 2024, CVPR, arXiv:2403.18913): `none`. Where it is unsure, it then tends to the mean in metres, which
crops do not change, and not to that of the canonical camera, which they do.

f is the focal length of the picture that the network sees, after crops and resizing: sqrt(fx fy) where its pixels are
not square. The image transform scales columns by F / fx and rows by F / fy, which makes them square. For square pixels
both are those of the published code (github.com/YvanYin/Metric3D): LabelScaleCononical and ResizeCanonical in
training/mono/utils/transform.py. Of others it takes fx in training and (fx + fy) / 2 in tests and for the image.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.config.sections import Data
from depthray.data.augmentation.geometry import zoom_depth
from depthray.errors import DataError

LARGEST = 8  # longer sides of data.size: beyond, a camera is that of another image rather than this one's
SMALLEST = 16  # pixels of a side


def focal_length(matrix: NDArray[Any]) -> float:
    """(3,3) pinhole matrix -> its focal length in pixels, the geometric mean of fx and fy"""
    return math.sqrt(float(matrix[0, 0]) * float(matrix[1, 1]))


def label_factor(matrix: NDArray[Any], data: Data) -> float:
    """(3,3) in pixels of a network's input -> F / f, by which metres become those of the canonical camera, else 1"""
    return data.canonical_focal / focal_length(matrix) if data.scales_labels else 1.0


def canonical_size(size: tuple[int, int], matrix: NDArray[Any], data: Data, *, name: str = "") -> tuple[int, int]:
    """Height, width of a frame and its (3,3) -> those at which its focal lengths are `data.canonical_focal`.

    Raises DataError, with the name of the frame, for a camera that cannot be that of the frame.
    """
    focal = data.canonical_focal
    rows, columns = round(size[0] * focal / float(matrix[1, 1])), round(size[1] * focal / float(matrix[0, 0]))
    if min(rows, columns) < SMALLEST or max(rows, columns) > LARGEST * max(data.size):
        raise DataError(
            f"{_named(name)}with fx {matrix[0, 0]:g} and fy {matrix[1, 1]:g} px its {size[1]}x{size[0]} pixels become "
            f"{columns}x{rows} at data.canonical_focal={focal:g}; is the camera that of another image?"
        )
    return rows, columns


def with_camera(sample: Sample, data: Data) -> Sample:
    """The sample (H,W) with a pinhole camera: its own, else `data.intrinsics`, or those of its data set.

    Raises DataError where it has none and the network needs one.
    """
    sample.pop("distortion", None)  # which is of points in space, and no network looks at
    if "intrinsics" in sample:
        return sample
    if (given := _default(sample, data)) is not None:
        fx, fy, cx, cy = given
        return {**sample, "intrinsics": np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)}
    if data.canonical_focal:
        raise DataError(
            f"{_named(sample.get('id', ''))}no camera is known, and data.canonical_focal={data.canonical_focal:g} "
            "needs one for each frame; give data.intrinsics=fx,fy,cx,cy in pixels of the frames"
        )
    return sample


def to_canonical(sample: Sample, data: Data, limits: tuple[float, float]) -> Sample:
    """A training sample (h,w) as it is shown -> with its depth that of the canonical camera, by `label`.

    What counts of it is still what is within the limits in metres, as far as `data.max_depth` of the canonical camera,
    beyond which a network may have no depth.
    """
    if not data.scales_labels:
        return sample
    factor, (least, most) = label_factor(sample["intrinsics"], data), limits
    # All of it, as `limits` of the batch say what counts.
    changed: dict[str, Any] = dict(zoom_depth(sample, factor, measured=(0, math.inf)))
    changed["limits"] = np.array([least * factor, min(most * factor, data.max_depth)], np.float32)
    return changed  # type: ignore[return-value]


def _default(sample: Sample, data: Data) -> tuple[float, ...] | None:
    """fx, fy, cx, cy of frames that have no camera; of several data sets those of the frame's own."""
    # Joined, frames have the name of their set as source.
    own = next((each.intrinsics for each in data.sets if each.name == sample.get("source")), None)
    return own or data.intrinsics


def _named(name: str) -> str:
    return f"frame '{name}': " if name else ""
