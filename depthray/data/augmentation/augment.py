"""Random changes of a training sample: a pure function of (seed, epoch, sample id).

The same sample of the same epoch is changed alike in any process, of any number of them. All that is random is drawn
here, geometry by geometry.py, colours by photometry.py and camera_changes.py, pasted depth by cutdepth.py; warp.py
samples the frame once for all of the geometry.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from depthray.batch import Sample
from depthray.config.sections import Augment
from depthray.data.augmentation import camera_changes, cutdepth, photometry
from depthray.data.augmentation.geometry import Size, View, zoom_depth, zoom_share
from depthray.data.augmentation.warp import show

# Changes that came later have random numbers of their own: what is drawn for recipes of before stays, to the bit.
LATER = ("vflip", "gamma", "bts_colour", "motion_blur", "jpeg", "cutdepth")
Generators = tuple[np.random.Generator, np.random.Generator | None]


class SampleChanges(NamedTuple):
    """The changes drawn for a sample, to be made on a device."""

    view: View
    drawn: photometry.Drawn
    noise: tuple[float, int]  # its standard deviation in values of 255, and a seed
    camera: camera_changes.CameraChanges
    cut: cutdepth.Cut | None


class Geometry(NamedTuple):
    """The geometry drawn for a sample."""

    view: View
    share: float  # of the frame's sides that its crop has, by which depth is zoomed; 1 = depth stays


def augment(
    sample: Sample,
    section: Augment,
    *,
    seed: int,
    epoch: int,
    size: Size | None = None,
    frame_size: Size | None = None,
    measured: tuple[float, float] = (0.0, math.inf),
    depth_scale: float = 1.0,
) -> Sample:
    """Sample (H,W) -> changed sample of size (h,w) pixels, its own size if None; maps stay in metres and ids.

    `frame_size` is the size of complete frames of which plain crops are cut, their own if None; `measured` are the
    limits in metres within which depth counts, `depth_scale` multiplies it at last, as a curriculum of sizes asks. See
    the recipe's `augment` section for all else.
    """
    generator, later = _generators(sample, section, seed=seed, epoch=epoch)
    view, share = _draw_geometry(sample, section, (generator, later), size=size, frame_size=frame_size)
    camera, cut = _draw_later(section, later, view, measured)
    shown = _scale_depth(show(sample, view), share, depth_scale, measured=measured)
    exposed = camera_changes.expose(shown, camera)
    coloured = photometry.change_colours(exposed, photometry.draw(section, generator))
    compressed = camera_changes.compress(coloured, camera)
    return compressed if cut is None else cutdepth.paste(compressed, cut)


def draw_changes(
    sample: Sample,
    section: Augment,
    *,
    seed: int,
    epoch: int,
    size: Size | None = None,
    frame_size: Size | None = None,
    measured: tuple[float, float] = (0.0, math.inf),
    depth_scale: float = 1.0,
) -> tuple[Sample, SampleChanges]:
    """The changes that `augment` makes, for a device, and the sample (H,W) with all that is not of pixels changed."""
    generator, later = _generators(sample, section, seed=seed, epoch=epoch)
    view, share = _draw_geometry(sample, section, (generator, later), size=size, frame_size=frame_size)
    changed = _scale_depth(sample.copy(), share, depth_scale, measured=measured)
    if "intrinsics" in changed:
        changed["intrinsics"] = view.intrinsics
    camera, cut = _draw_later(section, later, view, measured)
    drawn = photometry.draw(section, generator)
    noise = photometry.draw_noise(drawn, generator)
    return changed, SampleChanges(view, drawn, noise, camera, cut)


def _draw_geometry(
    sample: Sample,
    section: Augment,
    generators: Generators,
    *,
    size: Size | None = None,
    frame_size: Size | None = None,
) -> Geometry:
    """What a sample (H,W) shows of its frame, as `augment` draws it."""
    # All are always drawn, so that switching one change on leaves the others as they were.
    flip, share, left, top, turn = generators[0].random(5).tolist()  # floats: numbers of NumPy compute slowly
    rows_flip = 1.0 if generators[1] is None else generators[1].random()
    view, zoom = View.of(sample), 1.0
    size = size or view.size
    if section.crop_mode == "resize":
        if section.crop < 1:
            view = view.crop(section.crop + (1 - section.crop) * share, left=left, top=top)
            zoom = zoom_share(view.size, view.frame) if section.zoom_depth else 1.0
        view = view.resize(size)
    elif section.crop_mode == "kb":
        view = view.kitti_benchmark_crop()
    else:
        view = view.resize(frame_size or view.size)
    if section.rotate > 0:
        view = view.rotate(section.rotate * (2 * turn - 1))
    if flip < section.hflip:
        view = view.mirror()
    if rows_flip < section.vflip:
        view = view.mirror_rows()
    if section.crop_mode != "resize":
        view = view.crop_to(size, left=left, top=top)
    return Geometry(view, zoom)


def _scale_depth(sample: Sample, share: float, depth_scale: float, *, measured: tuple[float, float]) -> Sample:
    """Sample (H,W) -> its depth zoomed by a crop's share, then multiplied by a curriculum's scale."""
    if share != 1:
        sample = zoom_depth(sample, share, measured=measured)
    if depth_scale != 1:
        sample = zoom_depth(sample, depth_scale, measured=(0, math.inf))  # beyond max_depth it is void as ever
    return sample


def _draw_later(
    section: Augment, later: np.random.Generator | None, view: View, measured: tuple[float, float]
) -> tuple[camera_changes.CameraChanges, cutdepth.Cut | None]:
    if later is None:
        return camera_changes.NO_CHANGES, None
    camera = camera_changes.draw(section, later)
    return camera, cutdepth.draw(section, later, size=view.size, measured=measured)


def _generators(sample: Sample, section: Augment, *, seed: int, epoch: int) -> Generators:
    key = f"{seed}:{epoch}:{sample['id']}"
    is_on = any(getattr(section, each) for each in LATER)  # else not made: it takes as long as all that is drawn by it
    return generator_of(key), generator_of(f"{key}:later") if is_on else None


def generator_of(key: str) -> np.random.Generator:
    """The random numbers of a key: the same in every process, unlike those of any other key."""
    digest = blake2b(key.encode(), digest_size=16).digest()
    return np.random.default_rng([int.from_bytes(digest[:8]), int.from_bytes(digest[8:])])
