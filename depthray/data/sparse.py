"""Sparse depth made from measured depth, as a sensor or a tracker would have it: a pure function of its seed.

In training the sampled pixels change with (seed, epoch, sample id); in evaluation they depend on (sample id, pattern)
alone, so that every epoch and every model gets the same input. They are drawn at the size the network gets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Metres, Sample
from depthray.config.sections import Sparse
from depthray.data.augmentation.augment import generator_of
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


def attach(sample: Sample, section: Sparse, *, key: str) -> Sample:
    """Sample (H,W) with depth -> the same with `sparse` (H,W) in metres; the draw is a pure function of the key."""
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
    sparse = np.zeros_like(depth, dtype=np.float32)
    if section.samples == 0 and section.pattern != "stored":
        return sparse
    inside = depth if section.pattern == "stored" else _clear_margin(depth, section.margin)
    scene = PatternInput(inside, section.samples, generator, image, intrinsics)
    if section.pattern in LIDARS:
        pixels = _scan_lines(scene, LIDARS[section.pattern])
    else:
        pixels = PATTERNS[section.pattern](scene)
    sparse.flat[pixels] = _add_noise(depth.flat[pixels], section.noise, generator)
    return sparse


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
    fx, fy, cx, cy = _camera(scene)
    left, right = np.degrees(np.arctan((np.array([-0.5, width - 0.5]) - cx) / fx))
    start = left + AZIMUTH_STEP * scene.generator.random()  # where a turn begins is arbitrary
    azimuth = np.radians(np.arange(start, right, AZIMUTH_STEP))
    elevation = np.radians(np.linspace(beams.top, beams.bottom, beams.lines))[:, None]
    columns = np.rint(cx + fx * np.tan(azimuth)).astype(np.intp)
    # A cone of constant elevation meets the image in a hyperbola: farther from the middle, farther from the horizon.
    rows = np.rint(cy - fy * np.tan(elevation) / np.cos(azimuth)).astype(np.intp)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return _only_measured(scene, np.unique((rows * width + columns)[inside]))


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


def _add_noise(metres: Metres, noise: float, generator: np.random.Generator) -> Metres:
    """(N) metres -> (N) metres with a Gaussian error of `noise` times the depth."""
    if noise == 0:
        return metres
    factor = np.maximum(1 + noise * generator.standard_normal(len(metres)), LEAST_SHARE)
    return (metres * factor).astype(np.float32)
