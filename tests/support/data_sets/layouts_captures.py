"""Tiny data sets in the layouts of captures and of further published sets: rendered frames in their files."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import liblzfse
import numpy as np
from numpy.typing import NDArray

from depthray.config.sections import Data
from depthray.data.rendering.render import render_frame

SIZE = (24, 32)


@cache
def picture(number: int) -> NDArray[np.uint8]:
    """(H,W,3) uint8: the colours of a rendered frame."""
    return render_frame(0, number, height=SIZE[0], width=SIZE[1])["image"]


@cache
def metres(number: int, size: tuple[int, int] = SIZE) -> NDArray[np.float32]:
    """(H,W) float32: its depth."""
    return render_frame(0, number, height=size[0], width=size[1])["depth"]


def steps(depth: NDArray[np.float32], per_metre: float) -> NDArray[np.uint16]:
    return np.rint(depth.astype(np.float64) * per_metre).astype(np.uint16)


def encoded(pixels: NDArray[Any], suffix: str = ".png") -> bytes:
    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return cv2.imencode(suffix, np.ascontiguousarray(bgr))[1].tobytes()


def save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def tum(root: Path, *, name: str = "rgbd_dataset_room", count: int = 4) -> Data:
    """A sequence at 30 Hz, depth 4 ms later."""
    folder = root / name
    lists = {"rgb": "# color images\n# file: 'x.bag'\n", "depth": "# depth maps\n"}
    for number in range(count):
        for kind, pixels, late in (("rgb", picture(number), 0), ("depth", steps(metres(number), 5000), 4_000)):
            time = f"1305031102.{175_304 + number * 33_000 + late:06d}"
            save(folder / kind / f"{time}.png", encoded(pixels))
            lists[kind] += f"{time} {kind}/{time}.png\n"
    for kind, text in lists.items():
        (folder / f"{kind}.txt").write_text(text)
    return Data(source="tum", root=str(root))


def record3d(root: Path, *, count: int = 3, per_frame: bool = False) -> Data:
    """A capture whose depth has half of colour's height and width."""
    height, width = SIZE
    # Column by column, as the app writes it.
    facts: dict[str, Any] = {"w": width, "h": height, "dw": width // 2, "dh": height // 2, "fps": 60}
    facts["K"] = [30, 0, 0, 0, 31, 0, 15.5, 11.5, 1]
    if per_frame:
        facts["perFrameIntrinsicCoeffs"] = [[30 + number, 31, 15.5, 11.5] for number in range(count)]
        facts["frameTimestamps"] = [10 + number / 30 for number in range(count)]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("metadata", json.dumps(facts))
        for number in range(count):
            archive.writestr(f"rgbd/{number}.jpg", encoded(picture(number), ".jpg"))
            depth = metres(number)[::2, ::2].astype("<f4").copy()
            depth[0, 0] = np.nan
            archive.writestr(f"rgbd/{number}.depth", liblzfse.compress(depth.tobytes()))
            archive.writestr(f"rgbd/{number}.conf", liblzfse.compress(bytes(depth.size)))
    save(root / "room.r3d", content.getvalue())
    return Data(source="record3d", root=str(root), recording={"change": 0})


def scannet(root: Path, *, scans: tuple[str, ...] = ("scene0000_00", "scene0000_01"), count: int = 2) -> Data:
    """Scans of one room, JPEG and zlib."""
    height, width = SIZE
    colour = np.diag([30.0, 30.0, 1, 1])
    colour[:2, 2] = 15.5, 11.5
    for scan, name in enumerate(scans):
        matrices = (colour, np.eye(4), colour, np.eye(4))
        parts = [struct.pack("<IQ", 4, 9), b"Structure", *(matrix.astype("<f4").tobytes() for matrix in matrices)]
        parts.append(struct.pack("<iiIIIIfQ", 2, 1, width, height, width, height, 1000.0, count))
        for number in range(scan * count, (scan + 1) * count):
            jpeg = encoded(picture(number), ".jpg")
            depth = zlib.compress(steps(metres(number), 1000).tobytes())
            parts.append(struct.pack("<16fQQQQ", *np.eye(4).reshape(-1), 0, 0, len(jpeg), len(depth)))
            parts += [jpeg, depth]
        save(root / f"{name}.sens", b"".join(parts))
    return Data(source="scannet", root=str(root), recording={"change": 0})


def arkitscenes(root: Path, *, laser: bool = False) -> Data:
    """Two videos of one visit to train on, one of another to validate on; cameras 1 ms beside their images."""
    lists = ["video_id,visit_id,fold"]
    folders = ("wide", "highres_depth") if laser else ("lowres_wide", "lowres_depth")
    for fold, video, visit, first in (("Training", 401, 1, 0), ("Training", 402, 1, 2), ("Validation", 403, 2, 4)):
        lists.append(f"{video},{visit}.0,{fold}")
        folder = root / fold / str(video)
        for number in (first, first + 1):
            time = f"{100 + number}.{number:03d}"
            save(folder / folders[0] / f"{video}_{time}.png", encoded(picture(number)))
            save(folder / folders[1] / f"{video}_{time}.png", encoded(steps(metres(number), 1000)))
            near = f"{100 + number}.{number + 1:03d}"
            lens = f"{SIZE[1]} {SIZE[0]} {30 + number} 31.5 15.5 11.5"
            save(folder / f"{folders[0]}_intrinsics" / f"{video}_{near}.pincam", lens.encode())
    (root / "raw_train_val_splits.csv").write_text("\n".join(lists))
    return Data(source="arkitscenes", root=str(root), recording={"change": 0})


def vkitti2(root: Path, *, unpacked: str = "") -> Data:
    """Two scenes, two variants, one camera; the top row is sky. `unpacked` side by side, or into one folder."""
    parts = {kind: f"{unpacked}{kind}" if unpacked else "" for kind in ("rgb", "depth", "textgt")}
    number = 0
    for scene in ("Scene01", "Scene20"):
        for variant in ("clone", "fog"):
            lines = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"]
            for frame in range(2):
                depth = steps(metres(number), 100)
                depth[0] = 65535
                place = Path(scene, variant, "frames")
                save(
                    root / parts["rgb"] / place / "rgb" / "Camera_0" / f"rgb_{frame:05d}.jpg",
                    encoded(picture(number), ".jpg"),
                )
                save(root / parts["depth"] / place / "depth" / "Camera_0" / f"depth_{frame:05d}.png", encoded(depth))
                lines.append(f"{frame} 0 {30 + frame} 30.5 15.5 11.5")
                number += 1
            save(root / parts["textgt"] / scene / variant / "intrinsic.txt", "\n".join(lines).encode())
    return Data(source="vkitti2", root=str(root))


def ibims(root: Path) -> Data:
    """Three images; the left edge is invalid, the right one is glass."""
    for number, name in enumerate(("corridor_01", "kitchen_02", "lab_03")):
        save(root / "rgb" / f"{name}.png", encoded(picture(number)))
        save(root / "depth" / f"{name}.png", encoded(steps(metres(number), 65535 / 50)))
        for kind, column in (("mask_invalid", 0), ("mask_transp", -1)):
            mask = np.full(SIZE, 255, np.uint8)
            mask[:, column] = 0
            save(root / kind / f"{name}.png", encoded(mask))
        save(root / "calib" / f"{name}.txt", b"30.5,30.6,15.5,11.5")
    return Data(source="ibims", root=str(root))


def eth3d(root: Path) -> Data:
    """Two scenes; the top row is infinite."""
    for number, scene in enumerate(("courtyard", "office", "office")):
        depth = metres(number).copy()
        depth[0] = np.inf
        save(root / scene / "images" / "dslr_images" / f"DSC_{number}.JPG", encoded(picture(number), ".jpg"))
        save(root / scene / "ground_truth_depth" / "dslr_images" / f"DSC_{number}.JPG", depth.astype("<f4").tobytes())
    return Data(source="eth3d", root=str(root))


def middlebury(root: Path) -> Data:
    """Two scenes; a baseline of 150 mm, a focal length of 40 px, disparities 3 px smaller than those of equal views."""
    for number, scene in enumerate(("Adirondack-perfect", "Pipes-perfect")):
        depth = metres(number)
        with np.errstate(divide="ignore"):
            disparity = np.where(depth > 0, 40 * 150 / (depth * 1000) - 0.3, np.inf).astype("<f4")
        pfm = f"Pf\n{SIZE[1]} {SIZE[0]}\n-1.0\n".encode() + disparity[::-1].tobytes()
        save(root / scene / "im0.png", encoded(picture(number)))
        save(root / scene / "disp0.pfm", pfm)
        text = (
            "cam0=[40.0 0 15.5; 0 40.0 11.5; 0 0 1]\ncam1=[40.0 0 15.8; 0 40.0 11.5; 0 0 1]\ndoffs=0.3\nbaseline=150\n"
        )
        save(root / scene / "calib.txt", f"{text}width={SIZE[1]}\nheight={SIZE[0]}\n".encode())
    return Data(source="middlebury", root=str(root))


MAKERS: dict[str, Callable[[Path], Data]] = {
    "tum": tum,
    "record3d": record3d,
    "scannet": scannet,
    "arkitscenes": arkitscenes,
    "vkitti2": vkitti2,
    "ibims": ibims,
    "eth3d": eth3d,
    "middlebury": middlebury,
}
