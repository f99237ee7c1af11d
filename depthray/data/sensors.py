"""Depth sensors other than a list of exact points: where each measures, and with what errors.

Numbers are of published measurements and data sheets, at the sensor's own resolution. `data.sparse.errors` multiplies
the errors; where a sensor sees nothing does not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Metres
from depthray.config.sections import Sparse
from depthray.data import viewpoints
from depthray.imaging.camera import Camera

Map = NDArray[np.float32]

# Structured light, as the Kinect of 2010. Its disparity has steps of 1/8 pixel: at 1 m a step is 2.9 mm, at 3 m 26 mm
# (Khoshelham and Elberink 2012). Deviation along the axis by Nguyen, Izadi and Lovell 2012, and 0.8 pixels across it.
KINECT_FOCAL, KINECT_BASELINE, KINECT_STEPS = 575.0, 0.075, 8
KINECT_RANGE = (0.5, 10.0)  # metres
KINECT_ACROSS = 0.8  # pixels of its own image
# Time of flight, as the Kinect of 2013: 0.5 to 4.5 m by its maker, deviation of about 1.5 mm a square metre of distance
# squared on grey (Fankhauser et al. 2015: 1 to 5 mm up to 3 m), and pixels that fly between front and back at edges.
TOF_RANGE = (0.5, 4.5)
TOF_NOISE = 0.0015
TOF_BASELINE = 0.02
# The VL53L5CX: 8x8 zones over 45 x 45 degrees, 2 cm to 4 m, 5 % of the distance in daylight (its data sheet).
ZONES, ZONE_DEGREES, ZONE_RANGE, ZONE_NOISE = 8, 45.0, (0.02, 4.0), 0.05
ZONE_DEPTH = 0.1  # of the distance: what is within it is one echo
LIDAR_NOISE = 0.03  # metres, "accuracy" in the data sheets of Velodyne
FEATURE_NOISE = 0.01  # a metre of distance squared: one pixel of disparity at a focal length of 330 and 0.3 m of motion
# A return is lost where reflectance / distance squared is below this: black (0.1) beyond 4 m, white never indoors.
WEAKEST = 0.1 / 16
SHINY = 0.96  # of full scale: a reflection of the light itself
GRAZING = 4.0  # the slope of a surface, 76 degrees, beyond which nothing comes back
PATCH = 8  # pixels of a patch of equal luck: holes are patches, not single pixels
HOLES_MOST = 0.6  # of what was measured that is hidden at most


class Scene(NamedTuple):
    """What a sensor looks at."""

    depth: Metres  # (H,W), 0 = unknown
    image: NDArray[np.uint8] | None  # (H,W,3) RGB
    camera: Camera
    generator: np.random.Generator


def structured_light(scene: Scene, section: Sparse) -> Metres:
    """(H,W) depth -> (H,W) metres: with the projector's shadow, holes on black, shiny and grazing surfaces, in steps"""
    camera, errors = scene.camera, section.errors
    measured = _shaken(scene, KINECT_ACROSS * camera.fx / KINECT_FOCAL * errors)
    returned = _returns(scene) & _within(measured, section.range or KINECT_RANGE)
    returned &= viewpoints.sees(scene.depth, camera, baseline=section.baseline or KINECT_BASELINE)
    deviation = 0.0012 + 0.0019 * (measured - 0.4) ** 2
    noisy = measured + errors * deviation * _normal(scene)
    if errors:
        steps = KINECT_STEPS * KINECT_FOCAL * KINECT_BASELINE
        noisy = steps / np.maximum(np.rint(steps / np.maximum(noisy, 0.1)), 1)
    return _kept(noisy, returned)


def time_of_flight(scene: Scene, section: Sparse) -> Metres:
    """(H,W) depth -> (H,W) metres: limited range, noise that grows with distance and darkness, flying pixels"""
    errors = section.errors
    flying = _flying(scene) if errors else scene.depth
    returned = _returns(scene, grazing=math.inf) & _within(scene.depth, section.range or TOF_RANGE)
    returned &= viewpoints.sees(scene.depth, scene.camera, baseline=section.baseline or TOF_BASELINE)
    deviation = TOF_NOISE * scene.depth**2 / np.sqrt(np.maximum(_reflectance(scene), 0.05))
    return _kept(flying + errors * deviation * _normal(scene), returned)


def zones(scene: Scene, section: Sparse) -> Metres:
    """(H,W) depth -> (H,W) metres at the middles of 8x8 zones: the strongest echo of each, 0 elsewhere"""
    height, width = scene.depth.shape
    camera, reach = scene.camera, math.tan(math.radians(ZONE_DEGREES / 2))
    rows = _edges(camera.cy, camera.fy * reach, height)
    columns = _edges(camera.cx, camera.fx * reach, width)
    signal = _reflectance(scene) / np.maximum(scene.depth, 0.1) ** 2
    sparse = np.zeros_like(scene.depth)
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            window = (slice(top, bottom), slice(left, right))
            echo = _strongest_echo(scene.depth[window], signal[window])
            noisy = echo * (1 + section.errors * ZONE_NOISE * scene.generator.standard_normal())
            low, high = section.range or ZONE_RANGE
            if low <= echo <= high and noisy > 0:
                sparse[(top + bottom) // 2, (left + right) // 2] = noisy
    return sparse


def own_holes(scene: Scene, section: Sparse) -> Metres:
    """(H,W) depth of a sensor -> (H,W) the same with further holes in the shape of its own, to learn to fill them"""
    depth, generator = scene.depth, scene.generator
    hidden = np.zeros(depth.shape, bool)
    for _ in range(2):
        again = _moved_randomly(depth == 0, generator)
        if ((hidden | again) & (depth > 0)).sum() <= HOLES_MOST * (depth > 0).sum():
            hidden |= again
    if not (hidden & (depth > 0)).any():  # a frame without holes
        hidden = _patches(depth.shape, generator) < 0.2
    return np.where(hidden, np.float32(0), depth)


SENSORS: dict[str, Callable[[Scene, Sparse], Metres]] = {
    "structured-light": structured_light,
    "tof": time_of_flight,
    "zones": zones,
    "holes": own_holes,
}


def _returns(scene: Scene, *, grazing: float = GRAZING) -> NDArray[np.bool_]:
    """-> (H,W) where light comes back: not from black, shiny and grazing surfaces, nor from edges"""
    reflectance = _reflectance(scene)
    luck = np.exp(_patches(scene.depth.shape, scene.generator) - 0.5)  # 0.6 to 1.6
    strong = reflectance / np.maximum(scene.depth, 0.1) ** 2 * luck > WEAKEST
    returned = (scene.depth > 0) & strong & (reflectance < SHINY) & (_slope(scene) < grazing)
    return np.asarray(returned, bool)


def _reflectance(scene: Scene) -> Map:
    """-> (H,W) in [0,1], for which the green of the image stands; grey without an image"""
    if scene.image is None:
        return np.full(scene.depth.shape, 0.5, np.float32)
    return np.asarray(cv2.GaussianBlur(scene.image[..., 1], (3, 3), 0) / 255, np.float32)


def _slope(scene: Scene) -> Map:
    """-> (H,W) tangent of the angle between a surface and the image plane; large at edges"""
    depth = np.where(scene.depth > 0, scene.depth, np.float32(np.nan))
    down, across = (np.nan_to_num(np.gradient(depth, axis=axis)) for axis in (0, 1))
    camera = scene.camera
    slope = np.hypot(down * camera.fy, across * camera.fx) / np.maximum(scene.depth, 0.1)
    return np.asarray(slope, np.float32)


def _flying(scene: Scene) -> Metres:
    """-> (H,W) metres; at edges anything between front and back"""
    depth, kernel = scene.depth, np.ones((3, 3), np.uint8)
    behind = cv2.dilate(depth, kernel)
    front = cv2.erode(np.where(depth > 0, depth, np.float32(np.inf)), kernel)
    front = np.where(depth > 0, front, 0)
    mixed = front + (behind - front) * scene.generator.random(depth.shape)
    is_edge = (depth > 0) & (behind > front * (1 + 2 * viewpoints.STEP))
    return np.where(is_edge, mixed, depth).astype(np.float32)


def _shaken(scene: Scene, deviation: float) -> Metres:
    """-> (H,W) metres, each read some pixels to the side"""
    if deviation == 0:
        return scene.depth
    height, width = scene.depth.shape
    down, across = np.rint(deviation * scene.generator.standard_normal((2, height, width))).astype(np.intp)
    rows = (np.arange(height)[:, None] + down).clip(0, height - 1)
    columns = (np.arange(width) + across).clip(0, width - 1)
    return np.asarray(scene.depth[rows, columns], np.float32)


def _strongest_echo(depth: Metres, signal: Map) -> float:
    """(h,w) metres and strength of the return -> metres of the surface with the strongest sum; 0 for none"""
    known = depth > 0
    if not known.any():
        return 0.0
    bins = np.floor(np.log(depth[known]) / math.log1p(ZONE_DEPTH)).astype(int)
    strengths = np.bincount(bins - bins.min(), weights=signal[known])
    chosen = bins == strengths.argmax() + bins.min()
    return float(np.average(depth[known][chosen], weights=signal[known][chosen] + 1e-9))


def _edges(centre: float, reach: float, side: int) -> NDArray[np.intp]:
    """-> (9) pixels at which zones of one direction end"""
    ends = np.rint(np.linspace(centre - reach, centre + reach, ZONES + 1))
    return ends.clip(0, side).astype(np.intp)


def _within(depth: Metres, limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (depth >= limits[0]) & (depth <= limits[1])


def _normal(scene: Scene) -> NDArray[np.float64]:
    return scene.generator.standard_normal(scene.depth.shape)


def _patches(shape: tuple[int, ...], generator: np.random.Generator) -> Map:
    """-> (H,W) smooth random numbers in [0,1]"""
    coarse = generator.random([side // PATCH + 2 for side in shape]).astype(np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def _moved_randomly(mask: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.bool_]:
    """(H,W) -> the same mirrored or not, and rolled by any number of pixels"""
    flips = generator.random(2) < 0.5
    shift = [int(generator.integers(side)) for side in mask.shape]
    mirrored = np.flip(mask, tuple(axis for axis in (0, 1) if flips[axis]))
    return np.roll(mirrored, shift, (0, 1))


def _kept(metres: NDArray[np.floating], returned: NDArray[np.bool_]) -> Metres:
    return np.where(returned & (metres > 0), metres, 0).astype(np.float32)
