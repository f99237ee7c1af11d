"""What serving is measured with: photographs of 640x480, and forms of them with whatever else a network needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from load import BOUNDARY

from depthray.data.rendering.render import render_frame

FRAMES, HEIGHT, WIDTH = 48, 480, 640
FORMS = 12  # rendering takes a second each
GRID = 16  # pixels between two samples of sparse depth


def photographs(data: Path | None, folder: Path) -> Path:
    """A folder of JPEG files."""
    if data is not None:
        return data / "rgb" if (data / "rgb").is_dir() else data
    size = [str(HEIGHT), str(WIDTH)]
    words = ["data", "render", str(folder), "--layout", "folder", "--frames", str(FRAMES), "--size", *size]
    with open(os.devnull, "w") as nowhere:
        subprocess.run([sys.executable, "-m", "depthray", *words], check=True, stdout=nowhere)
    return folder / "rgb"


def forms(inputs: Sequence[str], folder: Path) -> Path:
    """A folder of bodies of multipart/form-data, of rendered frames."""
    folder.mkdir(parents=True)
    for number in range(FORMS):
        (folder / f"{number:04}.form").write_bytes(_form(number, inputs))
    return folder


def _form(number: int, inputs: Sequence[str]) -> bytes:
    frame: dict[str, Any] = dict(render_frame(0, number, height=HEIGHT, width=WIDTH))
    frame["sparse"] = np.zeros_like(frame["depth"])
    frame["sparse"][::GRID, ::GRID] = frame["depth"][::GRID, ::GRID]
    parts = [_part(key, frame[key]) for key in inputs]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _part(key: str, values: Any) -> bytes:
    suffix, pixels = ".png", values
    if key in ("image", "background"):
        suffix, pixels = ".jpg", cv2.cvtColor(values, cv2.COLOR_RGB2BGR)
    elif key == "sparse":
        pixels = np.rint(1000 * values).astype(np.uint16)
    else:
        pixels = values.astype(np.uint16)
    done, data = cv2.imencode(suffix, pixels)
    assert done
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"; filename="{key}{suffix}"\r\n\r\n'
    return head.encode() + data.tobytes() + b"\r\n"
