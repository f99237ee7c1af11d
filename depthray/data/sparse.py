"""Sparse depth made from measured depth, as a sensor or a tracker would have it: a pure function of its seed.

In training the places change with (seed, epoch, sample id); in evaluation they depend on (sample id, pattern) alone, so
that every epoch and every model is asked the same. They are drawn at the size the network sees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.config.sections import Sparse
from depthray.data.augment import generator_of
from depthray.errors import DataError

Metres = NDArray[np.float32]
Places = NDArray[np.intp]  # (N) indices into the flattened map

FIELD_OF_VIEW = 60.0  # degrees from left to right, of a camera that is not known
AZIMUTH_STEP = 0.2  # degrees between two shots of a beam, as spinning LiDARs have it at 10 to 20 Hz
CORNER_QUALITY = 0.01  # of the strongest corner
CORNER_DISTANCE = 2.0  # pixels between two corners
LEAST_SHARE = 0.05  # of the true depth: what noise leaves of it, as a sample of 0 m would be none


class PatternInput(NamedTuple):
    """What a pattern may look at."""

    depth: Metres  # (H,W), 0 = unmeasured
    samples: int
    generator: np.random.Generator
    image: NDArray[np.uint8] | None  # (H,W,3) RGB
    intrinsics: NDArray[np.float32] | None  # (3,3) in pixels of the depth

    @property
    def measured(self) -> Places:
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
    made: Sample = sample.copy()
    view = {"image": sample.get("image"), "intrinsics": sample.get("intrinsics")}
    made["sparse"] = sample_depth(depth, section, generator=generator_of(f"sparse:{key}"), **view)  # type: ignore[arg-type]
    return made


def sample_depth(
    depth: Metres,
    section: Sparse,
    *,
    generator: np.random.Generator,
    image: NDArray[np.uint8] | None = None,
    intrinsics: NDArray[np.float32] | None = None,
) -> Metres:
    """(H,W) metres [, (H,W,3) RGB, (3,3) camera] -> (H,W) metres at the sampled pixels, 0 elsewhere.

    Only measured pixels are sampled. `samples=0` gives an empty map, whatever the pattern.
    """
    sparse = np.zeros_like(depth, dtype=np.float32)
    if section.samples == 0 and section.pattern != "stored":
        return sparse
    view = PatternInput(depth, section.samples, generator, image, intrinsics)
    places = _lines(view, LIDARS[section.pattern]) if section.pattern in LIDARS else PATTERNS[section.pattern](view)
    sparse.flat[places] = _noisy(depth.flat[places], section.noise, generator)
    return sparse


def _exact(view: PatternInput) -> Places:
    """So many measured pixels, none of them twice; fewer samples of the same seed are a part of more."""
    return view.generator.permutation(view.measured)[: view.samples]


def _bernoulli(view: PatternInput) -> Places:
    """Each measured pixel by itself, as often as gives so many samples on average; their number varies."""
    measured = view.measured
    return measured[view.generator.random(len(measured)) * len(measured) < view.samples]


def _grid(view: PatternInput) -> Places:
    """About so many places at equal distances over the map; those without a measurement are left out."""
    height, width = view.depth.shape
    down = min(height, max(1, round(np.sqrt(view.samples * height / width))))
    across = min(width, max(1, round(view.samples / down)))
    rows = ((np.arange(down) + 0.5) * height / down).astype(np.intp)
    columns = ((np.arange(across) + 0.5) * width / across).astype(np.intp)
    return _kept(view, (rows[:, None] * width + columns).ravel())


def _features(view: PatternInput) -> Places:
    """The strongest corners of the image that are measured, then its steepest pixels, as a tracker would have them."""
    if view.image is None:
        raise DataError("data.sparse.pattern=features looks for corners of the image, which is missing")
    grey = cv2.cvtColor(view.image, cv2.COLOR_RGB2GRAY)
    mask = (view.depth > 0).astype(np.uint8)
    found = cv2.goodFeaturesToTrack(grey, view.samples, CORNER_QUALITY, CORNER_DISTANCE, mask=mask)
    corners = np.zeros((0, 2), np.intp) if found is None else found.reshape(-1, 2).astype(np.intp)
    slope = np.hypot(cv2.Scharr(grey, cv2.CV_32F, 1, 0), cv2.Scharr(grey, cv2.CV_32F, 0, 1))
    slope[corners[:, 1], corners[:, 0]] = np.inf
    slope[mask == 0] = -1
    ranked = np.argsort(-slope, axis=None, kind="stable")
    return _kept(view, ranked[: view.samples])


def _stored(view: PatternInput) -> Places:
    """All there is: the samples are the data set's own."""
    return view.measured


PATTERNS: dict[str, Callable[[PatternInput], Places]] = {
    "exact": _exact,
    "bernoulli": _bernoulli,
    "grid": _grid,
    "features": _features,
    "stored": _stored,
}


def _lines(view: PatternInput, beams: Beams) -> Places:
    """The pixels that a LiDAR at the camera's own place hits: beams of constant elevation, swept from left to right."""
    height, width = view.depth.shape
    fx, fy, cx, cy = _camera(view)
    left, right = np.degrees(np.arctan((np.array([-0.5, width - 0.5]) - cx) / fx))
    start = left + AZIMUTH_STEP * view.generator.random()  # where a turn begins is not known
    azimuth = np.radians(np.arange(start, right, AZIMUTH_STEP))
    elevation = np.radians(np.linspace(beams.top, beams.bottom, beams.lines))[:, None]
    columns = np.rint(cx + fx * np.tan(azimuth)).astype(np.intp)
    # A cone of constant elevation meets the picture in a hyperbola: farther from the middle, farther from the horizon.
    rows = np.rint(cy - fy * np.tan(elevation) / np.cos(azimuth)).astype(np.intp)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return _kept(view, np.unique((rows * width + columns)[inside]))


def _camera(view: PatternInput) -> tuple[float, float, float, float]:
    """-> fx, fy, cx, cy in pixels of the depth; of a usual camera where there is no other."""
    if view.intrinsics is not None:
        (fx, _, cx), (_, fy, cy), _ = view.intrinsics.astype(float).tolist()
        return fx, fy, cx, cy
    height, width = view.depth.shape
    focal = width / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2))
    return focal, focal, (width - 1) / 2, (height - 1) / 2


def _kept(view: PatternInput, places: Places) -> Places:
    return places[view.depth.flat[places] > 0]


def _noisy(metres: Metres, noise: float, generator: np.random.Generator) -> Metres:
    """(N) metres -> (N) metres with a Gaussian error of `noise` times the depth."""
    if noise == 0:
        return metres
    factor = np.maximum(1 + noise * generator.standard_normal(len(metres)), LEAST_SHARE)
    return (metres * factor).astype(np.float32)
