"""DIODE: [train|val]/indoors|outdoor/scene_*/scan_*/NAME.png, NAME_depth.npy and NAME_depth_mask.npy.

Depth is (H,W,1) float32 metres and counts only where the mask is not 0. Root may be the folder of one side; a side is
then not declared, and whole scenes are held out as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.sources import Frame, _pixels, refuse_encoding, wanted
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.sections import Data

STORED = "uint16_256"  # shards of it: outdoors reaches far beyond the 65 m of millimetres
PLACES = ("indoors", "outdoor")
SIDES = ("train", "val", "test")
KEYS = frozenset({"image", "depth", "intrinsics"})
ROLES = ("image", "depth", "valid")
SIZE = (768, 1024)
PINHOLE = (886.81, 927.06, 512.0, 384.0)  # fx, fy, cx, cy in pixels at SIZE


def open_source(section: Data) -> _pixels.FrameFiles:
    """The data set, or one side of it, at `section.root`."""
    refuse_encoding(section)
    root = _pixels.folder_of(section.root)
    rows = list(_rows(root))
    if not rows:
        raise DataError(f"{root}: no [train|val]/indoors|outdoor/scene_*/scan_*/*.png there, as DIODE has them")
    return _pixels.FrameFiles(root, rows, roles=ROLES, keys=KEYS & wanted(section), maps=_maps, facts="diode")


def fits(root: Path) -> bool:
    """Whether there are scenes of DIODE."""
    return any(any((root / side / place).glob("scene_*")) for side in ("", *SIDES) for place in PLACES)


def _rows(root: Path) -> Iterator[_pixels.Row]:
    for side in ("", *SIDES):
        for place in PLACES:
            for image in sorted((root / side / place).glob("scene_*/scan_*/*.png")):
                name = str(image.relative_to(root).with_suffix(""))
                scene = f"{place}/{image.parents[1].name}"
                files = (f"{name}.png", f"{name}_depth.npy", f"{name}_depth_mask.npy")
                yield Frame(f"{scene}/{image.parent.name}/{image.stem}", scene, side, f"diode-{place}"), files


def _maps(files: Mapping[str, Path], keys: frozenset[str]) -> dict[str, _pixels.Pixels]:
    image = _pixels.colour(files["image"])
    maps: dict[str, _pixels.Pixels] = {"image": image, "depth": _depth(files["depth"], files["valid"])}
    if "intrinsics" in keys:
        down, along = image.shape[0] / SIZE[0], image.shape[1] / SIZE[1]
        fx, fy, cx, cy = PINHOLE
        maps["intrinsics"] = _pixels.pinhole(fx * along, fy * down, cx * along, cy * down)
    return maps


def _depth(path: Path, mask: Path) -> NDArray[np.float32]:
    """(H,W,1) float metres, (H,W) mask -> (H,W) float32 metres, 0 where the mask is."""
    depth = encodings.decode(_pixels.npy(path), "float_m", where=str(path))
    counts = _pixels.npy(mask)
    if counts.shape[:2] != depth.shape or counts.size != depth.size:
        raise DataError(f"{mask}: has shape {counts.shape}, but its depth {depth.shape}")
    return np.where(counts.reshape(depth.shape) > 0, depth, np.float32(0))
