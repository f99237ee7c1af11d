"""Composites of objects in front of backgrounds, drawn as MODEST Museum's were: where, how large, and mirrored or not.

All that is random of a composite is drawn from the seed and the names of its files, so that it is the same whatever
else there is, in whatever order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data.augmentation.augment import generator_of
from depthray.data.compositing.cutouts import SEEN, Cutout, read_cutout
from depthray.data.resize import resize_colour
from depthray.errors import DataError
from depthray.imaging import photos
from depthray.imaging.suffixes import PHOTOS

KEPT = 32  # objects in memory

Rgb = NDArray[np.uint8]


class CompositePlan(NamedTuple):
    """What is combined, and how."""

    foregrounds: Path
    masks: Path | None  # of the foregrounds, by their names; None = these have alpha
    backgrounds: Path
    out: Path
    size: tuple[int, int]  # height, width of the composites
    placements: int  # of each pair
    per_background: int | None  # objects in front of a background, drawn for each; None = all
    scale: tuple[float, float]  # height of an object as a share of that of the composite: least, most
    flip: float  # share of mirrored objects
    seed: int
    quality: int  # of JPEG
    teacher: str  # "" = no depth


class Composite(NamedTuple):
    """A composite: its name in the layout, its picture, and where the object is seen."""

    stem: str
    image: Rgb
    mask: NDArray[np.uint8]  # (H,W) 0 or 255

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height of what is seen of the object, in pixels; 0 where nothing is."""
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        if not rows.size:
            return 0, 0, 0, 0
        return int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


class Pictures(NamedTuple):
    """The files of a plan, in the order of their names."""

    foregrounds: list[Path]
    masks: list[Path | None]
    backgrounds: list[Path]

    @staticmethod
    def of(plan: CompositePlan) -> Pictures:
        """Those in the folders. Raises DataError for a folder without pictures and a picture without its mask."""
        foregrounds = _pictures(plan.foregrounds)
        masks = [None if plan.masks is None else _mask_of(path, plan.foregrounds, plan.masks) for path in foregrounds]
        return Pictures(foregrounds, masks, _pictures(plan.backgrounds))

    def number_of_composites(self, plan: CompositePlan) -> int:
        """How many the plan makes of them."""
        each = len(self.foregrounds)
        return len(self.backgrounds) * min(each, plan.per_background or each) * plan.placements


def composites(plan: CompositePlan, pictures: Pictures) -> Iterator[Composite]:
    """All composites in the order of their names. Raises DataError for a picture that cannot be used."""
    largest = 2 * max(plan.size)  # more than they are ever shown with, so that memory does not depend on files
    read = lru_cache(maxsize=KEPT)(
        lambda number: read_cutout(pictures.foregrounds[number], mask=pictures.masks[number], largest=largest)
    )
    for number, path in enumerate(pictures.backgrounds):
        name = numbered("bg", number, len(pictures.backgrounds))
        background = fit_background(photos.read(path), plan.size)
        for other in _chosen(plan, path, len(pictures.foregrounds)):
            person = numbered("fg", other, len(pictures.foregrounds))
            key = f"{path.relative_to(plan.backgrounds)}:{pictures.foregrounds[other].relative_to(plan.foregrounds)}"
            for turn in range(1, plan.placements + 1):
                stem = f"{name}_{person}_{turn:0{max(2, len(str(plan.placements)))}d}"
                yield place(read(other), background, plan, key=f"{key}:{turn}", stem=stem)


def place(cutout: Cutout, background: Rgb, plan: CompositePlan, *, key: str, stem: str = "") -> Composite:
    """An object and a background (H,W,3) -> the composite that the seed and a key decide."""
    height, width = background.shape[:2]
    scale, flip, left, top = generator_of(f"{plan.seed}:{key}").random(4)
    least, most = plan.scale
    tall, wide = cutout.cover.shape
    factor = min((least + (most - least) * scale) * height / tall, width / wide)  # a wide one is made to fit
    size = (min(height, max(1, round(tall * factor))), min(width, max(1, round(wide * factor))))
    shown = cutout.resized(size, flip=bool(flip < plan.flip))
    y, x = int(top * (height - size[0] + 1)), int(left * (width - size[1] + 1))
    image, mask = background.copy(), np.zeros((height, width), np.uint8)
    inside = (slice(y, y + size[0]), slice(x, x + size[1]))
    mixed = shown.colour + (1 - shown.cover[..., None]) * image[inside]
    image[inside] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    mask[inside] = np.where(shown.cover >= SEEN / 255, 255, 0)
    return Composite(stem, image, mask)


def fit_background(image: Rgb, size: tuple[int, int]) -> Rgb:
    """(h,w,3) -> (H,W,3) of its middle, as large as the aspect allows."""
    height, width = image.shape[:2]
    share = min(height / size[0], width / size[1])
    rows, columns = (max(1, min(round(each * share), whole)) for each, whole in zip(size, (height, width), strict=True))
    top, left = (height - rows) // 2, (width - columns) // 2
    return resize_colour(np.ascontiguousarray(image[top : top + rows, left : left + columns]), size)


def numbered(prefix: str, number: int, count: int) -> str:
    """The name of a background or an object in the layout: bg001."""
    return f"{prefix}{number + 1:0{max(3, len(str(count)))}d}"


def _chosen(plan: CompositePlan, background: Path, count: int) -> list[int]:
    """The numbers of the objects in front of a background."""
    if plan.per_background is None or plan.per_background >= count:
        return list(range(count))
    generator = generator_of(f"{plan.seed}:{background.relative_to(plan.backgrounds)}")
    return sorted(generator.permutation(count)[: plan.per_background].tolist())


def _pictures(folder: Path) -> list[Path]:
    """The pictures below a folder, by name."""
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; give a folder of pictures")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTOS and path.is_file())
    if not files:
        raise DataError(f"{folder}: has no pictures ({', '.join(each[1:] for each in PHOTOS)})")
    return files


def _mask_of(picture: Path, folder: Path, masks: Path) -> Path:
    """The mask of a picture: the file of its name, whatever the suffix, also with _mask after it."""
    stem = masks / picture.relative_to(folder).with_suffix("")
    for name in (stem.name, f"{stem.name}_mask"):
        for suffix in PHOTOS:
            if (path := stem.with_name(f"{name}{suffix}")).is_file():
                return path
    raise DataError(f"{picture}: no mask of it in {masks}; name it {stem.name}.png or {stem.name}_mask.png")
