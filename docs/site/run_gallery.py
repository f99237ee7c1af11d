"""The pictures of docs/pictures by a trained network: that of `depthray demo`, on rendered rooms it has not seen.

depthray demo --out runs/demo
python docs/site/run_gallery.py docs/pictures runs/demo
"""

from __future__ import annotations

import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn
from fastapi import FastAPI
from gallery import Rgb, browser, decoded, depth_tile, save, scaled, tiles, turned

import depthray
from depthray.batch import Sample
from depthray.data.rendering.render import render_frame
from depthray.imaging.camera import Camera
from serve.backend import BackendAnswer, ModelCard

SEED = 1  # another than that of `depthray demo`
HEIGHT, WIDTH = 240, 320
WIDTHS = {"sheet": 760, "curves": 1000}  # pixels, of what a command draws larger
DRAWING = 20_000.0  # milliseconds that a browser may need to draw


def room(index: int) -> Sample:
    """A rendered frame: image (240,320,3) uint8, depth (240,320) float32 metres, intrinsics."""
    return render_frame(SEED, index, height=HEIGHT, width=WIDTH, foreground=False)


def opening(demo: Path) -> Rgb:
    """An image, the depth that the network predicts, and its points from further left."""
    frame = room(32)
    frame["depth"] = np.asarray(depthray.load(demo / "run").predict(frame["image"]))
    return tiles([[frame["image"], depth_tile(frame["depth"]), turned(frame, -18)]])


def sheet(demo: Path) -> Rgb:
    """What `depthray evaluate` writes: best, median and worst frames."""
    return read(demo / "evaluation" / "sheet.png", width=WIDTHS["sheet"])


def curves(demo: Path) -> Rgb:
    """What a run's folder holds: loss and scores by epoch."""
    return read(demo / "run" / "results.png", width=WIDTHS["curves"])


def tensorboard(demo: Path) -> Rgb:
    """The curves of the run in TensorBoard."""
    from tensorboard import program

    server = program.TensorBoard()
    server.configure(argv=[None, "--logdir", str(demo / "run"), "--port", "0"])
    address = server.launch()  # in a thread, which ends with this process
    with browser(1280, 760) as window:
        window.goto(f"{address}?darkMode=false&tagFilter=^(val%2F(abs_rel|delta1|rmse)|train%2Floss)%24#timeseries")
        window.wait_for_timeout(DRAWING)
        window.get_by_role("button", name="Settings").first.click()  # closes their panel
        window.wait_for_timeout(DRAWING / 4)
        return scaled(decoded(window.screenshot()), width=1000)


def page(demo: Path) -> Rgb:
    """The page at / of a server, with its example picture."""
    from serve.http import auth, routes
    from serve.settings import Settings

    app = routes.create(OneNetwork(demo / "run"), Settings(), keys=auth.Keys())
    with answering(app) as url, browser(1200, 900) as window:
        window.goto(url)
        window.click("#example")
        window.wait_for_selector("#cloud", state="visible")
        window.wait_for_timeout(DRAWING)  # for the points, which come with a second request
        return scaled(decoded(window.screenshot(full_page=True)), width=900)


class OneNetwork:
    """The backend of a server that is this process: what Ray Serve does for many."""

    def __init__(self, run: Path) -> None:
        from serve.registry.promotion import promote
        from serve.registry.store import Store

        with tempfile.TemporaryDirectory() as folder:
            promote(Store(Path(folder)), "room", run)
            self._card = Store(Path(folder)).card("room")
        self._predictor = depthray.load(run)

    async def predict(
        self,
        model: str,
        rgb: Rgb,
        others: Mapping[str, Any],
        deadline: float,
        *,
        native: bool = False,
        camera: Camera | None = None,
    ) -> BackendAnswer:
        """Depth of the image's size."""
        return BackendAnswer(
            {"depth": np.asarray(self._predictor.predict(rgb, camera=camera))}, self._card.id, self._card.size
        )

    async def models(self) -> list[ModelCard]:
        """The one network."""
        return [self._card]

    async def ready(self) -> bool:
        """Always."""
        return True


@contextmanager
def answering(app: FastAPI) -> Iterator[str]:
    """The address of an app that is served from a thread until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(10)


def export(demo: Path) -> Rgb:
    """An image, its depth by the checkpoint and by an export in 8-bit integers, and where they differ."""
    frame = room(32)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "small")
        depthray.export(demo / "run", to="openvino-int8", calibrate=demo / "scenes", bound=0.1, out=out)
        ours, small = (np.asarray(depthray.load(each).predict(frame["image"])) for each in (demo / "run", out))
    difference = cv2.applyColorMap(
        np.clip(np.abs(small - ours) / 0.2 * 255, 0, 255).astype(np.uint8), cv2.COLORMAP_MAGMA
    )
    return tiles([[frame["image"], depth_tile(ours), depth_tile(small), np.ascontiguousarray(difference[..., ::-1])]])


def lens(demo: Path) -> Rgb:
    """A room by the demo's camera, and by one of twice the focal length: image, truth, the network's depth."""
    frame, network = room(32), depthray.load(demo / "run")
    middle = (slice(HEIGHT // 4, HEIGHT * 3 // 4), slice(WIDTH // 4, WIDTH * 3 // 4))
    rows = []
    for image, truth in ((frame["image"], frame["depth"]), (frame["image"][middle], frame["depth"][middle])):
        maps = [depth_tile(np.ascontiguousarray(truth)), depth_tile(np.asarray(network.predict(image)))]
        rows.append([scaled(picture, width=WIDTH) for picture in (np.ascontiguousarray(image), *maps)])
    return tiles(rows)


def read(path: Path, *, width: int) -> Rgb:
    """A picture that a command has written, at a width in pixels."""
    return scaled(decoded(path.read_bytes()), width=width)


PICTURES: dict[str, Callable[[Path], Rgb]] = {
    "opening": opening,
    "sheet": sheet,
    "curves": curves,
    "tensorboard": tensorboard,
    "page": page,
    "export": export,
    "lens": lens,
}


def main(argv: list[str]) -> int:
    """Write all pictures of a demo's folder into another, or those named after them."""
    if len(argv) < 2 or not set(argv[2:]) <= set(PICTURES):
        sys.exit(f"usage: run_gallery.py FOLDER DEMO [{' | '.join(PICTURES)} ...]")
    for name in argv[2:] or PICTURES:
        save(PICTURES[name](Path(argv[1])), Path(argv[0]), name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
