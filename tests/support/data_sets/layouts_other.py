"""Tiny data sets in the layouts that data sets are published in: rendered frames, written as their files are."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from scipy.io import savemat

from depthray.batch import Sample
from depthray.config.sections import Data, Sparse
from depthray.data.rendering.render import render_frame
from depthray.data.sources.hypersim import FOCAL, WIDTH

SIZE = (24, 32)
DATE = "2011_09_26"
DRIVES = {"train": (f"{DATE}_drive_0001_sync", f"{DATE}_drive_0009_sync"), "val": (f"{DATE}_drive_0002_sync",)}


def frame(index: int) -> Sample:
    """The rendered frame that a file of this number holds."""
    return render_frame(0, index, height=SIZE[0], width=SIZE[1])


def save(path: Path, pixels: Any, *options: int) -> None:
    """Write an image, colour as RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(bgr), options)[1].tobytes())


def steps(depth: Any, per_metre: float) -> Any:
    """(H,W) metres -> (H,W) uint16."""
    return np.rint(depth * per_metre).astype(np.uint16)


def kitti(root: Path, *, adjacent: bool = False, calibrated: bool = False) -> Data:
    """2 training drives and 1 of validation, 2 frames of 2 cameras each; colour raw or next to the depth."""
    number = 0
    for side, drives in DRIVES.items():
        for drive in drives:
            for camera in ("image_02", "image_03"):
                above = side if adjacent else DATE
                for name in ("0000000005", "0000000006"):
                    sample, depth = frame(number), root / side / drive / "proj_depth"
                    save(root / above / drive / camera / "data" / f"{name}.png", sample["image"])
                    save(depth / "groundtruth" / camera / f"{name}.png", steps(sample["depth"], 256))
                    sparse = np.where(np.arange(SIZE[1]) % 8 == 0, sample["depth"], 0)
                    save(depth / "velodyne_raw" / camera / f"{name}.png", steps(sparse, 256))
                    number += 1
    if calibrated:
        numbers = "7.0e+02 0 3.1e+02 4.5 0 7.1e+02 2.5e+02 0 0 0 1 0"
        path = root / DATE / "calib_cam_to_cam.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"calib_time: 09-Jan-2012\nP_rect_02: {numbers}\nP_rect_03: {numbers}\n")
    return Data(source="kitti", root=str(root))


def kitti_lists(root: Path, *, annotated: str = "data_depth_annotated", dated: bool = True, raw: str = "raw/") -> Data:
    """The lists of BTS over 3 drives: the first 2 train, the last tests, with a frame of each without depth."""
    sides = {"train": DRIVES["train"], "test": DRIVES["val"]}
    number = 0
    for side, drives in sides.items():
        lines = []
        for drive in drives:
            for name in ("0000000005", "0000000006"):
                sample = frame(number)
                colour = f"{drive}/image_02/data/{name}.png"
                truth = f"{drive}/proj_depth/groundtruth/image_02/{name}.png"
                save(root / f"{raw}{DATE}" / colour, sample["image"])
                save(root / annotated / truth, steps(sample["depth"], 256))
                save(root / annotated / truth.replace("groundtruth", "velodyne_raw"), steps(sample["depth"], 256))
                lines.append(f"{f'{DATE}/' * dated}{colour} {truth} 721.5377")
                number += 1
        lines.insert(1, f"{f'{DATE}/' * dated}{drives[0]}/image_02/data/0000000000.png None 721.5377")
        (root / f"eigen_{side}_files_with_gt.txt").write_text("\n".join(lines) + "\n")
    return Data(source="kitti", root=str(root))


def kitti_selection(root: Path) -> Data:
    """3 of the 1000 selected frames of the completion benchmark."""
    folder = root / "depth_selection" / "val_selection_cropped"
    for number in range(3):
        drive, tail = f"{DATE}_drive_000{number}_sync", "0000000011_image_02"
        sample = frame(number)
        save(folder / "image" / f"{drive}_image_{tail}.png", sample["image"])
        for kind in ("groundtruth_depth", "velodyne_raw"):
            save(folder / kind / f"{drive}_{kind}_{tail}.png", steps(sample["depth"], 256))
        (folder / "intrinsics").mkdir(exist_ok=True)
        (folder / "intrinsics" / f"{drive}_image_{tail}.txt").write_text("721.5 0 596.5 0 721.5 149.8 0 0 1")
    return Data(source="kitti", root=str(root), inputs=("image", "sparse"), sparse=Sparse(pattern="stored"))


def pickle_index(root: Path) -> Data:
    """6 frames of two times of capture, as seed 002 prepares raw NYU: byte-swapped disparity, PPM and PGM."""
    names = {}
    for number in range(6):
        time = 1294886360.2 + number * 0.5 + (100 if number > 2 else 0)
        rgb, depth = f"r-{time:.6f}-29967700.ppm", f"d-{time:.6f}-29954000.pgm"
        sample = frame(number)
        disparity = np.where(sample["depth"] > 0, 1092.5 - 351.3 / np.maximum(sample["depth"], 0.4), 2047)
        save(root / "train_rgb" / rgb, sample["image"])
        save(root / "train_depth" / depth, disparity.astype(np.uint16).byteswap())
        names[rgb] = depth
    (root / "index1.pkl").write_bytes(pickle.dumps(names))
    return Data(source="pickle_index", root=str(root), encoding="kinect_disparity_be")


def modest(root: Path, *, backgrounds: int = 3, persons: int = 3) -> Data:
    """Every background with every person, 2 placements each; all JPEG, depth in 8 bits."""
    lines, best = [], (cv2.IMWRITE_JPEG_QUALITY, 95)
    for first in range(1, backgrounds + 1):
        background = f"bg{first:03d}"
        save(root / "bg" / f"{background}.jpeg", frame(4 * first)["background"], *best)  # of one pose
        for second in range(1, persons + 1):
            for placement in (1, 21):
                sample = frame(4 * first + (second + placement) % 4)
                stem = f"{background}_fg{second:03d}_{placement:02d}"
                save(root / "bg_fg" / f"{stem}.jpeg", sample["image"], *best)
                save(root / "bg_fg_mask" / f"{stem}_mask.jpeg", sample["mask"] * np.uint8(255), *best)
                depth = np.clip(sample["depth"] * 25.5, 0, 255).astype(np.uint8)
                save(root / "bg_fg_depth_map" / f"{stem}_depth_map.jpeg", depth, *best)
                lines.append(f"{background}\t{stem}\t{stem}_mask\t{stem}_depth_map")
    (root / "file_map.txt").write_text("\n".join(lines) + "\n")
    return Data(source="modest", root=str(root), inputs=("image", "background"), targets=("depth", "mask"))


def diode(root: Path) -> Data:
    """2 indoor scenes to train on, 1 outdoor scene to validate on, 2 frames each; the left edge is masked."""
    scenes = {"train/indoors/scene_00000": 0, "train/indoors/scene_00001": 1, "val/outdoor/scene_00022": 2}
    for scene, first in scenes.items():
        for number in (2 * first, 2 * first + 1):
            path = root / scene / f"scan_0000{first}" / f"0000{first}_0000{first}_indoors_000_{number:03d}.png"
            sample = frame(number)
            mask = np.ones(SIZE)
            mask[:, :2] = 0
            save(path, sample["image"])
            np.save(path.with_name(f"{path.stem}_depth.npy"), sample["depth"][..., None])
            np.save(path.with_name(f"{path.stem}_depth_mask.npy"), mask)
    return Data(source="diode", root=str(root))


def sunrgbd(root: Path) -> Data:
    """4 frames of 2 sensors; depth as rotated millimetres, refined in one and raw in the other."""
    folders = {"kv1/NYUdata/NYU0001": "depth_bfx", "kv1/NYUdata/NYU0002": "depth_bfx"}
    folders |= {"xtion/sun3ddata/brown_1/brown_1/0001": "depth", "xtion/sun3ddata/brown_1/brown_1/0002": "depth"}
    for number, (name, depth) in enumerate(folders.items()):
        sample, folder = frame(number), root / name
        stored = steps(sample["depth"], 1000)
        save(folder / "image" / f"{number:07d}.jpg", sample["image"], cv2.IMWRITE_JPEG_QUALITY, 95)
        save(folder / depth / f"{number:07d}.png", (stored << 3) | (stored >> 13))
        (folder / "intrinsics.txt").write_text("520.5 0 16\n0 520.5 12\n0 0 1\n")
        (folder / "scene.txt").write_text(f"{'kitchen' if number % 2 else 'bedroom'}\n")
    return Data(source="sunrgbd", root=str(root))


def sunrgbd_split(path: Path, *, train: list[str], test: list[str], compressed: bool = True) -> None:
    """allsplit.mat as the toolbox has it: cells of paths on its authors' disk, some with a slash at the end."""
    above = "/n/fs/sun3d/data/SUNRGBD"
    sides = {"alltrain": [f"{above}/{name}" for name in train], "alltest": [f"{above}/{name}/" for name in test]}
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = {name: np.array([[text] for text in texts], object).reshape(1, -1) for name, texts in sides.items()}
    savemat(path, cells, do_compression=compressed)


def hypersim(root: Path) -> Data:
    """3 scenes of 2 frames; depth as distance to the optical centre in float16, one pixel NaN."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    focal = FOCAL * SIZE[1] / WIDTH
    slant = np.sqrt(1 + ((columns - (SIZE[1] - 1) / 2) / focal) ** 2 + ((rows - (SIZE[0] - 1) / 2) / focal) ** 2)
    for number in range(6):
        images, sample = root / f"ai_001_00{number // 2 + 1}" / "images", frame(number)
        name = f"frame.{number % 2:04d}"
        save(images / "scene_cam_00_final_preview" / f"{name}.tonemap.jpg", sample["image"])
        distance = sample["depth"] * slant
        distance[0, 0] = np.nan
        labels = sample["semantics"].astype(np.int16)
        labels[0, 0] = -1
        maps = {"depth_meters": distance.astype(np.float16), "semantic": labels}
        for kind, array in maps.items():
            path = images / "scene_cam_00_geometry_hdf5" / f"{name}.{kind}.hdf5"
            path.parent.mkdir(exist_ok=True)
            with h5py.File(path, "w") as file:
                file["dataset"] = array
    return Data(source="hypersim", root=str(root), inputs=("image", "semantics"))


MAKERS: dict[str, Callable[[Path], Data]] = {
    "kitti": kitti,
    "pickle_index": pickle_index,
    "modest": modest,
    "diode": diode,
    "sunrgbd": sunrgbd,
    "hypersim": hypersim,
}
