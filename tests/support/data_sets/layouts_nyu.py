"""Tiny data sets in the layouts NYU Depth V2 is distributed in, of rendered rooms with exact depth."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import h5py
import numpy as np
from scipy.io import savemat

from depthray.batch import Sample
from depthray.config.sections import Data
from depthray.data.rendering import render

SIZE = (36, 48)
SCENES = 3
PER_SCENE = 3
HOLE = np.s_[:6, :9]  # what the writers leave unmeasured


@cache
def room(index: int) -> Sample:
    """A rendered frame with a hole in its depth."""
    sample = render.render_frame(0, index, height=SIZE[0], width=SIZE[1])
    sample["depth"][HOLE] = 0
    return sample


def numbered() -> list[tuple[int, int, int]]:
    """Scene, frame of the scene and number of the room, of every frame of a set."""
    return [(scene, frame, scene * PER_SCENE + frame) for scene in range(SCENES) for frame in range(PER_SCENE)]


def save(path: Path, pixels: np.ndarray) -> None:
    """Write an image file, RGB if it has colours, under a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def millimetres(depth: np.ndarray) -> np.ndarray:
    """(H,W) metres -> (H,W) uint16 millimetres."""
    return np.asarray(np.rint(depth * 1000), np.uint16)


def nyu_mat(root: Path) -> Data:
    """The labelled .mat file with splits.mat: two scenes of three train."""
    root.mkdir(parents=True, exist_ok=True)
    rooms = [room(index) for _, _, index in numbered()]
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        file["images"] = np.stack([each["image"].transpose(2, 1, 0) for each in rooms])
        file["rawDepths"] = np.stack([each["depth"].T for each in rooms])
        file["depths"] = np.stack([np.where(each["depth"] > 0, each["depth"], 2).T for each in rooms])
        file["labels"] = np.stack([each["semantics"].T.astype(np.uint16) for each in rooms])
        file["instances"] = np.stack([each["instances"].T.astype(np.uint8) for each in rooms])
        names = [f"kitchen_{scene:04d}" for scene, _, _ in numbered()]
        cells = [file.create_dataset(f"#refs#/{i}", data=[[ord(c)] for c in name]) for i, name in enumerate(names)]
        file.create_dataset("scenes", data=[[cell.ref for cell in cells]], dtype=h5py.ref_dtype)
    with (root / "nyu_depth_v2_labeled.mat").open("r+b") as head:
        head.write(b"MATLAB 7.3 MAT-file")
    numbers = np.arange(1, len(rooms) + 1, dtype=np.uint16)[:, None]
    savemat(root / "splits.mat", {"trainNdxs": numbers[:-PER_SCENE], "testNdxs": numbers[-PER_SCENE:]})
    return Data(source="nyu_mat", root=str(root), inputs=("image", "semantics", "instances"))


def nyu_mat_filled(root: Path) -> Data:
    """The labelled .mat file, to be read with filled depth."""
    return nyu_mat(root).model_copy(update={"source": "nyu_mat_filled"})


def nyu_csv(root: Path) -> Data:
    """data/nyu2_train.csv of 8-bit depth, data/nyu2_test.csv of 16-bit depth."""
    train, test = [], []
    for scene, frame, index in numbered():
        row = [f"data/nyu2_train/kitchen_{scene:04d}_out/{frame}.{ending}" for ending in ("jpg", "png")]
        save(root / row[0], room(index)["image"])
        save(root / row[1], np.rint(room(index)["depth"] * 25.5).astype(np.uint8))
        train.append(",".join(row))
    for number in range(2):
        row = [f"data/nyu2_test/{number:05d}_{kind}.png" for kind in ("colors", "depth")]
        save(root / row[0], room(100 + number)["image"])
        save(root / row[1], millimetres(room(100 + number)["depth"]))
        test.append(",".join(row))
    (root / "data/nyu2_train.csv").write_text("\n".join(train) + "\n")
    (root / "data/nyu2_test.csv").write_text("\n".join(test))  # the real one has no end of line either
    return Data(source="nyu_csv", root=str(root))


def nyu_raw(root: Path) -> Data:
    """Recordings in two parts each, depth 20 ms before colour, one depth too many."""
    for scene, frame, index in numbered():
        folder = root / f"kitchen_{scene:04d}{'ab'[frame % 2]}"
        start = 1294886360 + frame / 3
        save(folder / f"r-{start:.6f}-{index}.ppm", room(index)["image"])
        save(folder / f"d-{start - 0.02:.6f}-{index}.pgm", disparity(room(index)["depth"]))
        save(folder / f"d-{start + 0.15:.6f}-{index}.pgm", disparity(room(index)["depth"]))
        (folder / "INDEX.txt").write_text("a-1294886360.012021-2996770081.dump\n")
    return Data(source="nyu_raw", root=str(root))


def disparity(depth: np.ndarray) -> np.ndarray:
    """(H,W) metres -> (H,W) uint16 byte-swapped 11-bit disparity, 2047 where unmeasured."""
    raw = np.full(depth.shape, 2047.0)
    np.divide(351.3, depth, out=raw, where=depth > 0)
    return np.where(depth > 0, np.rint(1092.5 - raw), raw).astype(np.uint16).byteswap()


def bts(root: Path) -> Data:
    """Lists in the root, training files in sync/, test files in official_splits/test/."""
    train, test = [], []
    for scene, frame, index in numbered():
        names = [f"kitchen_{scene:04d}/{kind}_{frame:05d}" for kind in ("rgb", "sync_depth")]
        _save_bts(root / "sync", names, index)
        train.append(f"/{names[0]}.jpg /{names[1]}.png 518.8579")
    for number in range(2):
        names = [f"kitchen/{kind}_{number:05d}" for kind in ("rgb", "sync_depth")]
        _save_bts(root / "official_splits/test", names, 100 + number)
        test.append(f"{names[0]}.jpg {names[1]}.png 518.8579")
    (root / "nyudepthv2_train_files_with_gt.txt").write_text("\n".join(train) + "\n")
    (root / "nyudepthv2_test_files_with_gt.txt").write_text("\n".join(test))
    return Data(source="bts", root=str(root))


def _save_bts(folder: Path, names: list[str], index: int) -> None:
    save(folder / f"{names[0]}.jpg", room(index)["image"])
    save(folder / f"{names[1]}.png", millimetres(room(index)["depth"]))


def s2d(root: Path) -> Data:
    """train/<recording>/00001.h5 and val/official/00001.h5."""
    for scene, frame, index in numbered():
        _save_h5(root / f"train/kitchen_{scene:04d}/{frame + 1:05d}.h5", index)
    for number in range(2):
        _save_h5(root / f"val/official/{number + 1:05d}.h5", 100 + number)
    return Data(source="s2d", root=str(root))


def _save_h5(path: Path, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["rgb"] = room(index)["image"].transpose(2, 0, 1)
        file["depth"] = room(index)["depth"]


MAKERS: dict[str, Callable[[Path], Data]] = {
    "bts": bts,
    "nyu_csv": nyu_csv,
    "nyu_mat": nyu_mat,
    "nyu_mat_filled": nyu_mat_filled,
    "nyu_raw": nyu_raw,
    "s2d": s2d,
}
