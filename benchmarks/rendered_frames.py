"""The frames a benchmark runs on: a folder given with --data, or rendered ones."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import numpy as np

from depthray.__main__ import main as depthray


def build_parser(about: str | None) -> argparse.ArgumentParser:
    """Flags that all benchmarks share."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="folder with index.csv, JPEG and 16-bit PNG in mm (default: rendered)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each side, taken in turn")
    return parser


def folder_and_shards(data: Path | None) -> tuple[Path, Path]:
    """The same frames as files and as shards."""
    work = Path(tempfile.mkdtemp(prefix="depthray-bench-"))
    folder = data or work / "folder"
    with redirect_stdout(StringIO()):  # a benchmark prints its figures alone
        if data is None:
            # 320 frames fit into the page cache: the work is measured, not a disk.
            call("data", "render", str(folder), "--layout", "folder", "--frames", "320", "--size", "240", "320")
        call("data", "pack", str(folder), str(work / "shards"), "--source", "folder", "--encoding", "uint16_mm")
    return folder, work / "shards"


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """(H,W,3) BGR uint8 of an image file, or (H,W) as stored with cv2.IMREAD_UNCHANGED."""
    image = cv2.imread(str(path), flags)
    assert image is not None, f"{path} cannot be decoded"
    return image


def call(*words: str) -> None:
    """Run a depthray command that must succeed."""
    code = depthray(list(words))
    if code:
        raise SystemExit(code)
