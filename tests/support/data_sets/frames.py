"""Tiny RGB-D data sets made by code, for the tests that need files on disk."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def folder_dataset(root: Path, *, scenes: int = 3, per_scene: int = 4, size: tuple[int, int] = (48, 64)) -> Path:
    """Write JPEG and 16-bit PNG (mm) frames and index.csv (rgb,depth,labels,scene,source); every frame differs."""
    for folder in ("rgb", "depth", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rows = [_write_frame(root, scene, frame, size) for scene in range(scenes) for frame in range(per_scene)]
    write_index(root, rows)
    return root


def write_index(root: Path, rows: list[dict[str, str]]) -> None:
    """Write index.csv with the columns of the first row."""
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_index(root: Path) -> list[dict[str, str]]:
    """The rows of index.csv."""
    with (root / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def depth_map(seed: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """A tilted wall, (H,W) float32 metres between about 1.5 and 5, with a corner of unmeasured zeros."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    depth = 1.5 + 0.1 * (seed % 20) + columns / width + 0.5 * rows / height
    depth[: height // 8, : width // 8] = 0
    return np.asarray(depth, np.float32)


def smooth_image(seed: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A smooth random image, (H,W,3) uint8 RGB, so that JPEG keeps it nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _write_frame(root: Path, scene: int, frame: int, size: tuple[int, int]) -> dict[str, str]:
    seed = scene * 100 + frame
    name = f"s{scene}-{frame:03d}"
    row = {"rgb": f"rgb/{name}.jpg", "depth": f"depth/{name}.png", "labels": f"labels/{name}.png"}
    labels = np.full(size, 1 + scene % 40, np.uint8)
    cv2.imwrite(str(root / row["rgb"]), smooth_image(seed, size)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    cv2.imwrite(str(root / row["depth"]), np.rint(depth_map(seed, size) * 1000).astype(np.uint16))
    cv2.imwrite(str(root / row["labels"]), labels)
    return {**row, "scene": f"scene-{scene}", "source": "test"}
