"""Sparse depth made from measured depth, as a sensor or a tracker would have it: a pure function of its seed.

In training the sampled pixels change with (seed, epoch, sample id); in evaluation they depend on (sample id, pattern)
alone, so that every epoch and every model gets the same input. They are drawn at the size the network gets. Points,
their number and their errors are here; cameras of depth, which measure maps, are in `sensors`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Metres, Sample
from depthray.config.sections import Sparse
from depthray.data import viewpoints
from depthray.data.augmentation.augment import generator_of
from depthray.data.sensors import FEATURE_NOISE, LIDAR_NOISE, SENSORS, Scene
from depthray.errors import DataError
from depthray.imaging.camera import Camera, assumed_camera

Pixels = NDArray[np.intp]  # (N) indices into the flattened map

FIELD_OF_VIEW = 60.0  # degrees from left to right, of an unknown camera
AZIMUTH_STEP = 0.2  # degrees between two shots of a beam, as spinning LiDARs have it at 10 to 20 Hz
CORNER_QUALITY = 0.01  # of the strongest corner
CORNER_DISTANCE = 2.0  # pixels between two corners
LEAST_SHARE = 0.05  # of the true depth that noise leaves at least: a sample of 0 m would be no sample


class PatternInput(NamedTuple):
    """The data that a pattern may use."""

    depth: Metres  # (H,W), 0 = unmeasured
    samples: int
    generator: np.random.Generator
    image: NDArray[np.uint8] | None  # (H,W,3) RGB
    intrinsics: NDArray[np.float32] | None  # (3,3) in pixels of the depth

    @property
    def measured(self) -> Pixels:
        """-> (N) indices of the measured pixels."""
        return np.flatnonzero(self.depth > 0)


class Beams(NamedTuple):
    """The beams of a spinning LiDAR, at equal angles."""

    lines: int
    top: float  # degrees above the optical axis
    bottom: float


LIDARS = {
    "lidar64": Beams(64, 2.0, -24.8),
    "lidar16": Beams(16, 15.0, -15.0),
    "lidar8": Beams(8, 15.0, -15.0),
}


def attach(sample: Sample, section: Sparse, *, key: str, training: bool = False) -> Sample:
    """Sample (H,W) with depth -> the same with `sparse` (H,W) in metres; the draw is a pure function of the key.

    In training some images get none, by data.sparse.dropout.
    """
    if section.pattern == "stored":
        if "sparse" not in sample:
            raise DataError(
                f"frame '{sample['id']}': data.sparse.pattern=stored, but the data set has no sparse depth; "
                "use data.sparse.pattern=exact or another that is sampled from depth"
            )
        depth = sample["sparse"]
    elif "depth" in sample:
        depth = sample["depth"]
    else:
        raise DataError(f"frame '{sample['id']}' has no depth to sample the input 'sparse' from")
    result: Sample = sample.copy()
    if training and section.dropout and generator_of(f"dropout:{key}").random() < section.dropout:
        result["sparse"] = np.zeros_like(depth, dtype=np.float32)
        return result
    result["sparse"] = sample_depth(
        depth,
        section,
        generator=generator_of(f"sparse:{key}"),
        image=sample.get("image"),
        intrinsics=sample.get("intrinsics"),
    )
    return result


def sample_depth(
    depth: Metres,
    section: Sparse,
    *,
    generator: np.random.Generator,
    image: NDArray[np.uint8] | None = None,
    intrinsics: NDArray[np.float32] | None = None,
) -> Metres:
    """(H,W) metres [, (H,W,3) RGB, (3,3) camera] -> (H,W) metres at the sampled pixels, 0 elsewhere.

    Only measured pixels are sampled, `stored` samples apart only those inside of the margin. `samples=0` gives an empty
    map, whatever the pattern.
    """
    count = section.samples if isinstance(section.samples, int) else _draw_count(section.samples, generator)
    if count == 0 and section.pattern != "stored":
        return np.zeros_like(depth, dtype=np.float32)
    inside = depth if section.pattern == "stored" else _clear_margin(depth, section.margin)
    scene = PatternInput(inside, count, generator, image, intrinsics)
    pixels, metres = _measure(scene, section)
    sparse = np.zeros_like(depth, dtype=np.float32)
    sparse.flat[pixels] = _add_errors(metres, section, generator)
    return sparse


def _draw_count(limits: tuple[int, int], generator: np.random.Generator) -> int:
    """A number between two, by the cube of a uniform one: of 0 to 5000 half are below 625, and one in twenty is 0.

    So few samples, with which a network is wrong most, do not drown the rest, and no number of them is rare.
    """
    low, high = limits
    return low + round((high - low) * generator.random() ** 3)


def _measure(scene: PatternInput, section: Sparse) -> tuple[Pixels, Metres]:
    """-> (N) pixels with a sample, (N) metres"""
    pattern = section.pattern
    if pattern in SENSORS:
        measured = SENSORS[pattern](Scene(scene.depth, scene.image, _camera(scene), scene.generator), section)
    elif pattern in LIDARS and (section.lost or section.tilt or section.baseline):
        measured = _scan_amiss(scene, LIDARS[pattern], section)
    else:
        pixels = _scan_lines(scene, LIDARS[pattern]) if pattern in LIDARS else PATTERNS[pattern](scene)
        return pixels, scene.depth.flat[pixels]
    pixels = np.flatnonzero(measured)
    return pixels, measured.flat[pixels]


def _exact(scene: PatternInput) -> Pixels:
    """Exactly `samples` measured pixels without repetition; fewer samples of the same seed are a subset of more."""
    return scene.generator.permutation(scene.measured)[: scene.samples]


def _bernoulli(scene: PatternInput) -> Pixels:
    """Each measured pixel independently, with a probability that gives `samples` on average; their number varies."""
    measured = scene.measured
    return measured[scene.generator.random(len(measured)) * len(measured) < scene.samples]


def _grid(scene: PatternInput) -> Pixels:
    """About `samples` pixels at equal distances over the map; those without a measurement are left out."""
    height, width = scene.depth.shape
    down = min(height, max(1, round(np.sqrt(scene.samples * height / width))))
    across = min(width, max(1, round(scene.samples / down)))
    rows = ((np.arange(down) + 0.5) * height / down).astype(np.intp)
    columns = ((np.arange(across) + 0.5) * width / across).astype(np.intp)
    return _only_measured(scene, (rows[:, None] * width + columns).ravel())


def _features(scene: PatternInput) -> Pixels:
    """The strongest corners of the image that are measured, as a tracker finds them, then its steepest pixels."""
    if scene.image is None:
        raise DataError("data.sparse.pattern=features looks for corners of the image, which is missing")
    grey = cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY)
    mask = (scene.depth > 0).astype(np.uint8)
    tracked = cv2.goodFeaturesToTrack(grey, scene.samples, CORNER_QUALITY, CORNER_DISTANCE, mask=mask)
    corners = np.zeros((0, 2), np.intp) if tracked is None else tracked.reshape(-1, 2).astype(np.intp)
    # A flat image has few corners; its steepest pixels make up the number, ranked behind all corners.
    slope = np.hypot(cv2.Scharr(grey, cv2.CV_32F, 1, 0), cv2.Scharr(grey, cv2.CV_32F, 0, 1))
    slope[corners[:, 1], corners[:, 0]] = np.inf
    slope[mask == 0] = -1
    ranked = np.argsort(-slope, axis=None, kind="stable")
    return _only_measured(scene, ranked[: scene.samples])


def _stored(scene: PatternInput) -> Pixels:
    """All measured pixels: the samples are the data set's own."""
    return scene.measured


PATTERNS: dict[str, Callable[[PatternInput], Pixels]] = {
    "exact": _exact,
    "bernoulli": _bernoulli,
    "grid": _grid,
    "features": _features,
    "stored": _stored,
}


def _scan_lines(scene: PatternInput, beams: Beams) -> Pixels:
    """The pixels that a LiDAR at the camera's position hits: beams of constant elevation, swept from left to right."""
    height, width = scene.depth.shape
    rows, columns = _beam_pixels(scene, beams)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return _only_measured(scene, np.unique((rows * width + columns)[inside]))


def _scan_amiss(scene: PatternInput, beams: Beams, section: Sparse) -> Metres:
    """-> (H,W) metres of a LiDAR next to the camera, whose place and rotation are not quite known

    It does not see all that the camera sees, and sees, behind edges, what the camera does not: projected into the image
    such a point is on the surface in front, with the depth of that behind.
    """
    height, width = scene.depth.shape
    camera, generator = _camera(scene), scene.generator
    rows, columns = _beam_pixels(scene, beams)  # (lines,shots), (shots)
    rows, columns = np.broadcast_arrays(rows, columns)
    hit = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    hit = hit & (generator.random((beams.lines, 1)) >= section.lost) & (generator.random(rows.shape) >= section.lost)
    seen = viewpoints.view(scene.depth, camera, baseline=section.baseline)
    places = viewpoints.back(rows[hit], columns[hit], seen, camera, baseline=section.baseline)
    yaw, pitch, roll = np.radians(section.tilt) * generator.standard_normal(3)
    x, y = places.columns - camera.cx, places.rows - camera.cy
    across = np.rint(camera.cx + x - roll * y + camera.fx * np.tan(yaw)).astype(np.intp)
    down = np.rint(camera.cy + y + roll * x + camera.fy * np.tan(pitch)).astype(np.intp)
    inside = (places.metres > 0) & (down >= 0) & (down < height) & (across >= 0) & (across < width)
    sparse = np.full(scene.depth.shape, np.inf, np.float32)
    np.minimum.at(sparse, (down[inside], across[inside]), places.metres[inside].astype(np.float32))
    return np.where(np.isfinite(sparse), sparse, np.float32(0))


def _beam_pixels(scene: PatternInput, beams: Beams) -> tuple[Pixels, Pixels]:
    """-> (lines,shots) rows and (shots) columns, beyond the image too"""
    width = scene.depth.shape[1]
    fx, fy, cx, cy = _camera(scene)
    left, right = np.degrees(np.arctan((np.array([-0.5, width - 0.5]) - cx) / fx))
    start = left + AZIMUTH_STEP * scene.generator.random()  # where a turn begins is arbitrary
    azimuth = np.radians(np.arange(start, right, AZIMUTH_STEP))
    elevation = np.radians(np.linspace(beams.top, beams.bottom, beams.lines))[:, None]
    columns = np.rint(cx + fx * np.tan(azimuth)).astype(np.intp)
    # A cone of constant elevation meets the image in a hyperbola: farther from the middle, farther from the horizon.
    rows = np.rint(cy - fy * np.tan(elevation) / np.cos(azimuth)).astype(np.intp)
    return rows, columns


def _clear_margin(depth: Metres, margin: float) -> Metres:
    """(H,W) metres -> (H,W) metres, 0 in a border of that share of each side; a pixel is inside if its centre is."""
    if margin == 0:
        return depth
    inside = [np.abs((np.arange(side) + 0.5) / side - 0.5) < 0.5 - margin for side in depth.shape]
    return np.where(inside[0][:, None] & inside[1], depth, np.float32(0))


def _camera(scene: PatternInput) -> Camera:
    """-> the camera in pixels of the depth; an assumed one where it is unknown"""
    if scene.intrinsics is None:
        return assumed_camera(*scene.depth.shape, degrees=FIELD_OF_VIEW)
    (fx, _, cx), (_, fy, cy), _ = scene.intrinsics.astype(float).tolist()
    return Camera(fx, fy, cx, cy)


def _only_measured(scene: PatternInput, pixels: Pixels) -> Pixels:
    return pixels[scene.depth.flat[pixels] > 0]


def _add_errors(metres: Metres, section: Sparse, generator: np.random.Generator) -> Metres:
    """(N) metres -> (N) metres with the errors of points: relative, those of the sensor, and outliers."""
    metres = _add_noise(metres, section.noise, generator)
    if section.errors and section.pattern in (*LIDARS, "features"):
        deviation = LIDAR_NOISE if section.pattern in LIDARS else FEATURE_NOISE * metres**2
        noisy = metres + section.errors * deviation * generator.standard_normal(len(metres))
        metres = np.maximum(noisy, LEAST_SHARE * metres).astype(np.float32)
    if section.outliers:
        wrong = generator.random(len(metres)) < section.outliers
        metres = np.where(wrong, generator.permutation(metres), metres)  # as of a tracker that mixes up points
    return metres


def _add_noise(metres: Metres, noise: float, generator: np.random.Generator) -> Metres:
    """(N) metres -> (N) metres with a Gaussian error of `noise` times the depth."""
    if noise == 0:
        return metres
    factor = np.maximum(1 + noise * generator.standard_normal(len(metres)), LEAST_SHARE)
    return (metres * factor).astype(np.float32)
