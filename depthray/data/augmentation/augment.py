"""Random changes of a training sample: a pure function of (seed, epoch, sample id).

The same sample of the same epoch is changed alike in any process, of any number of them. All that is random is drawn
here, geometry by geometry.py and colours by photometry.py; warp.py samples the frame once for all of the geometry.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from depthray.batch import Sample
from depthray.config.sections import Augment
from depthray.data.augmentation import photometry
from depthray.data.augmentation.geometry import Size, View, zoom_depth, zoom_share
from depthray.data.augmentation.warp import show


class SampleChanges(NamedTuple):
    """The changes drawn for a sample, to be made on a device."""

    view: View
    drawn: photometry.Drawn
    noise: tuple[float, int]  # its standard deviation in values of 255, and a seed


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
) -> Sample:
    """Sample (H,W) -> changed sample of size (h,w) pixels, its own size if None; maps stay in metres and ids.

    `frame_size` is the size of complete frames of which plain crops are cut, their own if None; `measured` are the
    limits in metres within which depth counts. See the recipe's `augment` section for all else.
    """
    generator = generator_of(f"{seed}:{epoch}:{sample['id']}")
    view, share = draw_geometry(sample, section, generator, size=size, frame_size=frame_size)
    shown = show(sample, view)
    if share != 1:
        shown = zoom_depth(shown, share, measured=measured)
    return photometry.change_colours(shown, photometry.draw(section, generator))


def draw_changes(
    sample: Sample,
    section: Augment,
    *,
    seed: int,
    epoch: int,
    size: Size | None = None,
    frame_size: Size | None = None,
    measured: tuple[float, float] = (0.0, math.inf),
) -> tuple[Sample, SampleChanges]:
    """The changes that `augment` makes, for a device, and the sample (H,W) with all that is not of pixels changed."""
    generator = generator_of(f"{seed}:{epoch}:{sample['id']}")
    view, share = draw_geometry(sample, section, generator, size=size, frame_size=frame_size)
    changed = sample.copy()
    if share != 1:
        changed = zoom_depth(changed, share, measured=measured)
    if "intrinsics" in changed:
        changed["intrinsics"] = view.intrinsics
    drawn = photometry.draw(section, generator)
    return changed, SampleChanges(view, drawn, photometry.draw_noise(drawn, generator))


def draw_geometry(
    sample: Sample,
    section: Augment,
    generator: np.random.Generator,
    *,
    size: Size | None = None,
    frame_size: Size | None = None,
) -> Geometry:
    """What a sample (H,W) shows of its frame, as `augment` draws it."""
    # All are always drawn, so that switching one change on leaves the others as they were.
    flip, share, left, top, turn = generator.random(5)
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
    if section.crop_mode != "resize":
        view = view.crop_to(size, left=left, top=top)
    return Geometry(view, zoom)


def generator_of(key: str) -> np.random.Generator:
    """The random numbers of a key: the same in every process, unlike those of any other key."""
    digest = blake2b(key.encode(), digest_size=16).digest()
    return np.random.default_rng([int.from_bytes(digest[:8]), int.from_bytes(digest[8:])])
