"""Rendered rooms, drawn when they are read: nothing is on disk. `depthray data render` writes them to files instead."""

from __future__ import annotations

import copy
import csv
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from depthray.data import packing
from depthray.data.rendering import render
from depthray.data.rendering.render import render_frame
from depthray.data.source import DataTerms, Frame, keys_to_read
from depthray.errors import DataError, UsageError
from depthray.version import __version__

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.config.sections import Data

TERMS = {"synthetic": DataTerms("rendered rooms", "none needed: depthray rendered them")}
RENDERER = "0.1.0"  # the version of depthray that last changed what is rendered; part of every fingerprint
SEED = 0  # of the rooms; data.split_seed decides which of them are held out
CACHE_BYTES = 64 * 2**20  # of drawn frames that a data set keeps: drawing one takes longer than training on it
KEYS = frozenset({"image", "depth", "semantics", "instances", "background", "mask", "intrinsics"})

JPEG_QUALITY = 95
_FOLDERS = {"rgb": "jpg", "depth": "png", "labels": "png", "instances": "png", "background": "jpg", "mask": "png"}
_PINHOLE = {"fx": (0, 0), "fy": (1, 1), "cx": (0, 2), "cy": (1, 2)}
_TEXTS = ("scene", "source", "id")


def open_source(section: Data) -> SyntheticRooms:
    """`section.frames` frames, drawn at `section.size`."""
    if section.root:
        if not Path(section.root).exists():
            raise UsageError(
                f"data.root={section.root}: no such folder; data.source=synthetic needs none, leave it out"
            )
        raise UsageError(
            f"data.source=synthetic draws its frames and would ignore data.root={section.root}; "
            "declare the form of that data: data.source=folder or data.source=shards"
        )
    return SyntheticRooms(section.frames, section.size, keys_to_read(section))


def fits(root: Path) -> bool:
    """Never: there is nothing on disk to recognise."""
    return False


class SyntheticRooms:
    """A data set that is drawn. See `depthray.data.source.Source`."""

    def __init__(self, count: int, size: tuple[int, int], keys: frozenset[str], *, seed: int = SEED) -> None:
        self._size, self._seed = size, seed
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0
        self.keys = keys & KEYS
        self.frames = [
            Frame(render.id_of(index), render.scene_of(index), split="", source="synthetic") for index in range(count)
        ]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is drawn: the renderer is a pure function of these."""
        return sha256(repr((RENDERER, self._seed, len(self.frames), self._size)).encode()).hexdigest()

    def read(self, index: int) -> Sample:
        """One frame, drawn at its first reading and again where the cache had no space for it."""
        sample = self._cache.get(index)
        if sample is None:
            sample = self._draw(index)
            # The first frames stay: were the oldest dropped, an epoch of more would find none of its own.
            if self._cached_bytes < CACHE_BYTES:
                self._cache[index] = sample
                self._cached_bytes += sum(value.nbytes for value in sample.values() if isinstance(value, np.ndarray))
        return copy.deepcopy(sample)  # its reader may change it

    def _draw(self, index: int) -> Sample:
        height, width = self._size
        sample = render.render_frame(self._seed, index, height=height, width=width)
        for key in KEYS - self.keys:  # all is drawn anyway; less has to be copied between processes
            del sample[key]  # type: ignore[misc]
        return sample

    def faults(self, index: int) -> list[str]:
        """None: nothing is stored that could be odd."""
        return []


def write_rooms(
    out: Path,
    *,
    frames: int,
    size: tuple[int, int],
    seed: int = 0,
    layout: Literal["folder", "shards"] = "folder",
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Render frames 0 to `frames` of a seed, `size` = (height, width), as a folder with an index or as HDF5 shards."""
    if layout == "shards":
        provenance = {"name": "synthetic", "seed": seed, "depthray": __version__}
        packing.pack(SyntheticRooms(frames, size, KEYS, seed=seed), out, provenance=provenance, advance=advance)
        return
    from depthray.data.shards.writer import translate_write_errors  # imports h5py

    if (out / "index.csv").exists():
        raise DataError(f"{out / 'index.csv'} exists; choose another folder or remove it")
    with translate_write_errors(out):
        rows = []
        for index in range(frames):
            rows.append(_write_frame(out, index, render_frame(seed, index, height=size[0], width=size[1])))
            advance()
        _write_index(out, rows)


def _write_frame(out: Path, index: int, sample: Sample) -> dict[str, str]:
    """Write the files of one frame -> its row of the index."""
    # Colour is stored as cameras do; ids and depth need a lossless format.
    stored = {
        "rgb": cv2.cvtColor(sample["image"], cv2.COLOR_RGB2BGR),
        "depth": np.rint(sample["depth"] * 1000).astype(np.uint16),
        "labels": sample["semantics"].astype(np.uint8),
        "instances": sample["instances"].astype(np.uint16),
        "background": cv2.cvtColor(sample["background"], cv2.COLOR_RGB2BGR),
        "mask": sample["mask"] * np.uint8(255),  # to look at: 1 would be black in any viewer
    }
    row = {folder: f"{folder}/{index:06d}.{ending}" for folder, ending in _FOLDERS.items()}
    for folder, pixels in stored.items():
        path = out / row[folder]
        path.parent.mkdir(parents=True, exist_ok=True)
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
        path.write_bytes(cv2.imencode(path.suffix, pixels, options)[1].tobytes())
    # `repr` keeps every digit of a float, so that what is read back is what was rendered.
    pinhole = {key: repr(float(sample["intrinsics"][entry])) for key, entry in _PINHOLE.items()}
    return {**row, **pinhole, **{key: sample[key] for key in _TEXTS}}  # type: ignore[literal-required]


def _write_index(out: Path, rows: list[dict[str, str]]) -> None:
    """Write the index, last and atomically: a folder without one is unfinished."""
    temporary = out / ".tmp-index.csv"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*_FOLDERS, *_PINHOLE, *_TEXTS])
        table.writeheader()
        table.writerows(rows)
    os.replace(temporary, out / "index.csv")
