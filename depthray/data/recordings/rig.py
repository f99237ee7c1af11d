"""A colour and a depth camera: their places, and a frame as the colour camera sees it without distortion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.readers.files import check_camera
from depthray.data.readers.zbuffer import nearest_depths
from depthray.data.recordings.messages import CameraMessage, Link
from depthray.errors import DataError
from depthray.imaging import distortion

Maps = tuple[NDArray[np.float32], NDArray[np.float32]]
Pose = tuple[float, ...]  # 12: three rows of rotation and translation, from the depth camera to the colour camera

FISHEYE = ("equidistant", "fisheye", "kannala_brandt")
BROWN = ("", "plumb_bob", "rational_polynomial", "brown_conrady", "modified_brown_conrady")
INVERSE = "inverse_brown_conrady"  # of librealsense: the polynomial of BROWN removes the distortion, not adds it
SAME = (1e-3, 0.5)  # share of a focal length, and pixels, by which cameras of one pixel grid may differ
IDENTITY: Pose = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)


class Lens(NamedTuple):
    """A camera in pixels of its image."""

    height: int  # 0 where it is not stated
    width: int
    matrix: tuple[float, ...]  # 9
    model: str = ""
    distortion: tuple[float, ...] = ()  # () = none

    def as_matrix(self) -> NDArray[np.float64]:
        """(3,3) pinhole matrix."""
        return np.array(self.matrix, np.float64).reshape(3, 3)


class Rig(NamedTuple):
    """How a frame is made of a colour and a depth image."""

    colour: Lens | None  # None = not known
    depth: Lens | None = None
    pose: Pose | None = None  # None: both have the same pixels


def lens_of(message: CameraMessage, *, rectified: bool) -> Lens | None:
    """The camera of an image, or of its rectified version; None where it is not calibrated."""
    across, down = message.binning
    matrix = np.array(message.matrix or (0,) * 9, np.float64).reshape(3, 3)
    distortion = message.distortion if any(message.distortion) and not rectified else ()
    if rectified and any(message.projection):
        matrix = np.array(message.projection, np.float64).reshape(3, 4)[:, :3]
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        return None
    # The matrix is that of the sensor's complete image, of which this may be a part, or every second pixel.
    matrix[:2, 2] -= message.offset
    matrix = np.diag([1 / across, 1 / down, 1]) @ matrix
    return Lens(
        message.height // down, message.width // across, tuple(matrix.reshape(-1).tolist()), message.model, distortion
    )


def given_lens(numbers: Sequence[float]) -> Lens:
    """fx, fy, cx, cy in pixels of an image of any size -> its camera"""
    fx, fy, cx, cy = numbers
    return Lens(0, 0, (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0))


def given_pose(numbers: Sequence[float]) -> Pose:
    """x, y, z in metres and quaternion x, y, z, w of the depth camera in the colour camera's frame -> its pose"""
    return _pose(_place(numbers[:3], numbers[3:]))


def find_pose(links: Iterable[Link], *, depth: str, colour: str) -> Pose | None:
    """The pose between two coordinate frames by a chain of transforms; None where none joins them."""
    steps: dict[str, list[tuple[str, NDArray[np.float64]]]] = {}
    for link in links:
        place = _place(link.translation, link.rotation)
        steps.setdefault(link.child, []).append((link.parent, place))
        steps.setdefault(link.parent, []).append((link.child, np.asarray(np.linalg.inv(place), np.float64)))
    reached, waiting = {depth.lstrip("/"): np.eye(4)}, [depth.lstrip("/")]
    while waiting:
        name = waiting.pop(0)
        for other, step in steps.get(name, ()):
            if other not in reached:
                reached[other] = step @ reached[name]
                waiting.append(other)
    found = reached.get(colour.lstrip("/"))
    return None if found is None else _pose(found)


def is_same_view(one: Lens | None, other: Lens | None, *, distortion: bool = True) -> bool:
    """Whether two cameras have the same pixels, as far as they are known, distortion being considered or not."""
    if one is None or other is None:
        return True
    sizes = [(lens.height, lens.width) for lens in (one, other) if lens.height]
    focal, pixels = SAME
    matrices = np.array([one.matrix, other.matrix]).reshape(2, 3, 3)
    apart = np.abs(matrices[0] - matrices[1])
    near = apart[[0, 1], [0, 1]].max() <= focal * matrices[0, 0, 0] and apart[:2, 2].max() <= pixels
    return len(set(sizes)) <= 1 and bool(near) and (not distortion or one.distortion == other.distortion)


def is_identity(pose: Pose) -> bool:
    """Whether a pose moves nothing: by less than a tenth of a millimetre and of a milliradian."""
    return bool(np.abs(np.subtract(pose, IDENTITY)).max() < 1e-4)


def assemble(
    rig: Rig, image: NDArray[np.uint8], depth: NDArray[np.float32], *, undistort: bool, where: str
) -> dict[str, Any]:
    """(H,W,3) colour, (h,w) metres, both as recorded -> image, depth and intrinsics as of one pinhole camera"""
    _check_size(rig.colour, image, where=where, what="colour")
    _check_size(rig.depth, depth, where=where, what="depth")
    maps = None
    if undistort and rig.colour is not None and rig.colour.distortion:
        maps = undistortion(rig.colour._replace(height=image.shape[0], width=image.shape[1]))
    if rig.pose is not None:
        assert rig.colour is not None and rig.depth is not None, where  # or there would be no pose
        depth = register(depth, rig.depth, rig.colour, rig.pose, size=image.shape[:2])
    elif depth.shape != image.shape[:2]:
        raise DataError(
            f"{where}: depth is {depth.shape[1]}x{depth.shape[0]}, colour {image.shape[1]}x{image.shape[0]}, and no "
            "cameras are recorded to register one to the other: give data.recording.intrinsics and "
            "data.recording.depth_intrinsics (fx,fy,cx,cy)"
        )
    elif maps is not None:
        depth = np.asarray(cv2.remap(depth, *maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT), np.float32)
    if maps is not None:
        image = np.asarray(cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8)
    arrays: dict[str, Any] = {"image": image, "depth": depth}
    if rig.colour is not None:
        if not undistort and (kept := kept_lens(rig.colour)) is not None:
            arrays["distortion"] = kept
        arrays["intrinsics"] = check_camera(rig.colour.as_matrix().astype(np.float32), where=where)
    return arrays


def register(
    depth: NDArray[np.float32], seen_by: Lens, colour: Lens, pose: Pose, *, size: tuple[int, ...]
) -> NDArray[np.float32]:
    """(h,w) metres of the depth camera -> (H,W) metres of the colour camera without distortion; of several the nearest.

    Depth is not interpolated. Where the colour camera has more pixels to a degree, a measurement covers as many of
    them as it does; what is seen by colour alone stays unmeasured.
    """
    place = np.array(pose, np.float64).reshape(3, 4)
    factor = max(1, math.ceil(max(colour.matrix[0] / seen_by.matrix[0], colour.matrix[4] / seen_by.matrix[4]) - 0.05))
    ends = rays(seen_by, depth.shape, factor)
    matrix = colour.as_matrix()
    metres = np.repeat(np.repeat(depth, factor, axis=0), factor, axis=1)
    measured = metres > 0
    points = ends[:, measured] * metres[measured]
    across, down, distance = (matrix @ place[:, :3]).astype(np.float32) @ points + (matrix @ place[:, 3:]).astype(
        np.float32
    )
    ahead = distance > 0
    rows, columns = (np.rint(axis[ahead] / distance[ahead]).astype(np.int64) for axis in (down, across))
    return nearest_depths(rows, columns, distance[ahead], shape=size)


@lru_cache(maxsize=8)
def undistortion(lens: Lens) -> Maps:
    """Camera -> two (H,W): column and row of the recorded image to sample for each pixel without distortion."""
    matrix, size = lens.as_matrix(), (lens.width, lens.height)
    if lens.model == INVERSE:
        return _inverse_undistortion(lens)
    make = cv2.fisheye.initUndistortRectifyMap if lens.model in FISHEYE else cv2.initUndistortRectifyMap
    # The same matrix before and after: only the distortion is removed, and the camera stays right.
    across, down = make(matrix, _coefficients(lens), np.eye(3), matrix, size, cv2.CV_32FC1)
    return np.asarray(across, np.float32), np.asarray(down, np.float32)


@lru_cache(maxsize=8)
def rays(lens: Lens, shape: tuple[int, ...], factor: int = 1) -> NDArray[np.float32]:
    """Camera, (h,w) -> (3,h*factor,w*factor) where a metre along each ray ends, of `factor`^2 rays a pixel."""
    height, width = shape
    # Pixel centres are at whole numbers.
    columns, rows = ((np.arange(count * factor) - (factor - 1) / 2) / factor for count in (width, height))
    points = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 1, 2).astype(np.float64)
    if not lens.distortion or lens.model == INVERSE:
        flat = (points.reshape(-1, 2) - lens.as_matrix()[:2, 2]) / lens.as_matrix()[[0, 1], [0, 1]]
        if lens.distortion:
            flat = _add_polynomial(flat, lens)
    else:
        remove = cv2.fisheye.undistortPoints if lens.model in FISHEYE else cv2.undistortPoints
        flat = np.asarray(remove(points, lens.as_matrix(), _coefficients(lens)), np.float64).reshape(-1, 2)
    ends = np.concatenate([flat, np.ones((len(flat), 1))], axis=1).T
    return ends.astype(np.float32).reshape(3, height * factor, width * factor)


def _add_polynomial(flat: NDArray[np.float64], lens: Lens) -> NDArray[np.float64]:
    """(N,2) directions -> (N,2) with the distortion of a lens's polynomial"""
    ahead = np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
    moved, _ = cv2.projectPoints(ahead, np.zeros(3), np.zeros(3), np.eye(3), _coefficients(lens))
    return np.asarray(moved, np.float64).reshape(-1, 2)


def _inverse_undistortion(lens: Lens) -> Maps:
    """Camera whose polynomial removes distortion -> two (H,W): column and row of the recorded image to sample."""
    matrix = lens.as_matrix()
    pixels = np.stack(np.meshgrid(np.arange(lens.width), np.arange(lens.height)), axis=-1).reshape(-1, 1, 2)
    # What OpenCV calls to undistort is to invert the polynomial, which here distorts.
    seen = cv2.undistortPoints(pixels.astype(np.float64), matrix, _coefficients(lens), P=matrix)
    across, down = np.asarray(seen, np.float32).reshape(lens.height, lens.width, 2).transpose(2, 0, 1)
    return np.ascontiguousarray(across), np.ascontiguousarray(down)


def check_model(lens: Lens, *, where: str) -> None:
    """Refuse a distortion that is not known."""
    known = (*BROWN, INVERSE, *FISHEYE)
    if lens.distortion and lens.model not in known:
        raise DataError(
            f"{where}: distortion is '{lens.model}'; known are {', '.join(name for name in known if name)}"
            ": data.recording.undistort=false keeps images as they are"
        )


def kept_lens(lens: Lens) -> NDArray[np.float64] | None:
    """The lens as frames carry it, (9); None for one that they cannot: of another model, or of more coefficients."""
    if not any(lens.distortion):
        return distortion.as_numbers("", ())
    model = distortion.FISHEYE if lens.model in FISHEYE else distortion.BROWN
    model = distortion.INVERSE if lens.model == INVERSE else model
    numbers = lens.distortion[:4] if model == distortion.FISHEYE else lens.distortion
    if lens.model not in (*BROWN, INVERSE, *FISHEYE) or len(numbers) > max(distortion.COUNTS[model]):
        return None
    return distortion.as_numbers(model, numbers)


def _coefficients(lens: Lens) -> NDArray[np.float64]:
    return np.array(lens.distortion[:4] if lens.model in FISHEYE else lens.distortion, np.float64)


def _check_size(lens: Lens | None, array: NDArray[Any], *, where: str, what: str) -> None:
    height, width = array.shape[:2]
    if lens is not None and lens.height and (lens.height, lens.width) != (height, width):
        key = "intrinsics" if what == "colour" else "depth_intrinsics"
        raise DataError(
            f"{where}: {what} is {width}x{height}, but its camera is recorded for {lens.width}x{lens.height}; give "
            f"that of the image: data.recording.{key}=fx,fy,cx,cy"
        )


def _place(translation: Sequence[float], rotation: Sequence[float]) -> NDArray[np.float64]:
    """Metres and quaternion x, y, z, w -> (4,4)"""
    x, y, z, w = np.asarray(rotation, np.float64) / (np.linalg.norm(rotation) or 1.0)
    place = np.eye(4)
    place[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    place[:3, 3] = translation
    return place


def _pose(place: NDArray[np.float64]) -> Pose:
    return tuple(place[:3].reshape(-1).tolist())
