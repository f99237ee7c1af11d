"""The pictures of docs/pictures that need no network: rendered rooms, and the example of a search report.

python docs/site/gallery.py docs/pictures
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from depthray.batch import Sample
from depthray.config.sections import Sparse
from depthray.data.rendering.render import render_frame
from depthray.data.sparse import attach
from depthray.imaging import export, sheets
from depthray.imaging.camera import as_camera

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
FRAMES = (4, 12, 20, 28)  # of four rooms
HEIGHT, WIDTH = 240, 320
NEAR, FAR = 0.5, 6.0  # metres: one scale of colours for all pictures
GAP = 4  # pixels between tiles
PATIENCE = 600_000.0  # milliseconds that a page may need on a busy machine
OPENING = "opening"  # the picture at the top of the README
PATTERNS = ("exact", "grid", "lidar16", "features")

Rgb = NDArray[np.uint8]


def room(index: int) -> Sample:
    """A rendered frame: image (240,320,3) uint8, depth (240,320) float32 metres."""
    return render_frame(0, index, height=HEIGHT, width=WIDTH, foreground=False)


def depth_tile(depth: NDArray[np.float32]) -> Rgb:
    """(H,W) metres -> (H,W,3) colours: near is red, far is blue."""
    return sheets.colour_depth(depth, near=NEAR, far=FAR)


def tiles(rows: list[list[Rgb]]) -> Rgb:
    """Rows of tiles of one size -> one picture, white between them."""
    height, width = rows[0][0].shape[:2]
    columns = len(rows[0])
    picture = np.full((len(rows) * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for row, line in enumerate(rows):
        for column, tile in enumerate(line):
            top, left = row * (height + GAP), column * (width + GAP)
            picture[top : top + height, left : left + width] = tile
    return picture


def rooms() -> Rgb:
    """Four rooms above their exact depth, with the scale in metres."""
    frames = [room(index) for index in FRAMES]
    picture = tiles([[frame["image"] for frame in frames], [depth_tile(frame["depth"]) for frame in frames]])
    return sheets.add_scale(picture, sheets.scale_of(NEAR, FAR))


def sparse() -> Rgb:
    """One room with the samples of four patterns on it, each a dot in the colour of its depth."""
    frame = room(FRAMES[0])
    shown: list[Rgb] = []
    for pattern in PATTERNS:
        section = Sparse.model_validate({"pattern": pattern, "samples": 300})
        samples = attach(frame, section, key=f"gallery:{pattern}")["sparse"]
        dots = cv2.dilate(samples, np.ones((3, 3), np.uint8))
        dimmed = (frame["image"] * 0.4).astype(np.uint8)
        shown.append(np.where((dots > 0)[..., None], depth_tile(np.asarray(dots, np.float32)), dimmed))
    return tiles([shown])


def turned(frame: Sample, degrees: float) -> Rgb:
    """The points of a frame, seen by a camera that has moved around the middle of the room by an angle."""
    camera = as_camera(frame["intrinsics"])
    cloud = export.points(frame["depth"], frame["image"], camera=camera)
    angle, middle = np.radians(degrees), np.array([0.0, 0.0, np.median(cloud["xyz"][:, 2])])
    around = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    x, y, z = ((cloud["xyz"] - middle) @ around.T + middle).T
    front = z > 0.2
    x, y, z, rgb = x[front], y[front], z[front], cloud["rgb"][front]
    u = np.rint(x / z * camera.fx + camera.cx).astype(int)
    v = np.rint(y / z * camera.fy + camera.cy).astype(int)
    far_first = np.argsort(-z, kind="stable")  # what is nearer is drawn over it
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for down in (0, 1):  # a point covers 2x2 pixels, so that surfaces have fewer gaps
        for right in (0, 1):
            rows, columns = v + down, u + right
            inside = (rows >= 0) & (rows < HEIGHT) & (columns >= 0) & (columns < WIDTH)
            order = far_first[inside[far_first]]
            picture[rows[order], columns[order]] = rgb[order]
    return picture


def cloud() -> Rgb:
    """A room's image, its depth, and its points from two other places."""
    frame = room(FRAMES[1])
    return tiles([[frame["image"], depth_tile(frame["depth"]), turned(frame, -10), turned(frame, 10)]])


def report() -> Rgb:
    """The top of the page of docs/examples/nyu-report.html, in Chromium."""
    with browser(1100, 760) as page:
        page.goto((ROOT / "docs" / "examples" / "nyu-report.html").as_uri())
        return decoded(page.screenshot())


@contextmanager
def browser(width: int, height: int) -> Iterator[Page]:
    """A page in a headless Chromium, of a size in pixels."""
    from playwright.sync_api import sync_playwright

    path = next((path for name in ("chromium-headless-shell", "chromium") if (path := shutil.which(name))), None)
    with sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        try:
            page = window.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(PATIENCE)
            yield page
        finally:
            window.close()


def decoded(data: bytes) -> Rgb:
    """The bytes of a picture -> (H,W,3) uint8 RGB."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise RuntimeError("these bytes are no picture")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def scaled(picture: Rgb, *, width: int) -> Rgb:
    """The picture at a width in pixels, its aspect kept."""
    height = round(picture.shape[0] * width / picture.shape[1])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def save(picture: Rgb, folder: Path, name: str) -> None:
    """Write NAME.jpg; the one of the README is NAME.png, in 256 colours."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == OPENING:
        colours = Image.fromarray(picture).quantize(256)
        colours.save(folder / f"{name}.png", optimize=True)
    else:
        Image.fromarray(picture).save(folder / f"{name}.jpg", quality=84, optimize=True)


PICTURES: dict[str, Callable[[], Rgb]] = {"rooms": rooms, "sparse": sparse, "cloud": cloud, "report": report}


def main(argv: list[str]) -> int:
    """Write all pictures into a folder, or those named after it."""
    if not argv or not set(argv[1:]) <= set(PICTURES):
        sys.exit(f"usage: gallery.py FOLDER [{' | '.join(PICTURES)} ...]")
    for name in argv[1:] or PICTURES:
        save(PICTURES[name](), Path(argv[0]), name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
