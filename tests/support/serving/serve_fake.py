"""A depth server without a model that speaks the API, with faults on order, to test clients and the page against."""

from __future__ import annotations

import io
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from paths import ROOT
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from depthray.errors import DataError
from depthray.imaging import camera as cameras
from depthray.imaging import export, photos
from depthray.imaging.camera import Camera
from serve.backend import BackendAnswer, ModelCard, UnknownModel
from serve.http import example_picture

PAGE = ROOT / "serve" / "page"
CARDS = [
    {
        **{"name": "room", "default": True, "inputs": ["image"], "targets": ["depth"], "architecture": "unet"},
        **{"about": "Rooms for tests.", "metrics": {"abs_rel": 0.0834, "delta1": 0.912, "rmse": 0.456}},
        "limits": ["Depth is metres, 10 at most.", "Trained on photographs of 640 x 480 pixels, 0.7 to 9.0 m away."],
    },
    {"name": "sparse-room", "inputs": ["image", "sparse"], "targets": ["depth"], "architecture": "dpt"},
    {"name": "any-camera", "inputs": ["image"], "targets": ["depth"], "architecture": "unet", "canonical_focal": 208.0},
]


def wall(rgb: np.ndarray) -> np.ndarray:
    """(H,W,3) -> (H,W) metres: 2 m at the left edge to 4 m at the right, red pixels 1 m nearer."""
    height, width = rgb.shape[:2]
    plane = np.broadcast_to(np.linspace(2, 4, width, dtype=np.float32), (height, width))
    return np.where((rgb[..., 0] > 200) & (rgb[..., 1] < 90), plane - 1, plane).astype(np.float32)


class Fake:
    """What came in (`seen`), and the answers to give before the true one (`faults`)."""

    def __init__(self, *, key: str | None = None, estimate: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.key = key
        self.estimate = estimate or wall
        self.seen: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.sizes: list[tuple[int, int]] = []
        self.faults: list[Response | float] = []
        self.app = Starlette(
            routes=[
                Route("/", lambda request: FileResponse(PAGE / "index.html")),
                Route("/page/example.jpg", self.example),
                Mount("/page", StaticFiles(directory=PAGE)),
                Route("/v1/models", self.models),
                Route("/v2/health/ready", self.ready),
                Route("/v1/depth", self.depth, methods=["POST"]),
                Route("/v1/models/{name}/depth", self.depth, methods=["POST"]),
            ]
        )

    async def models(self, request: Request) -> Response:
        return self._refusal(request) or JSONResponse({"models": CARDS})

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": True})

    async def example(self, request: Request) -> Response:
        return Response(example_picture.jpeg(), media_type="image/jpeg")

    async def depth(self, request: Request) -> Response:
        self.seen.append((request.url.path, dict(request.query_params), dict(request.headers)))
        if refusal := self._refusal(request):
            return refusal
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Response):
                return fault
            time.sleep(fault)
        try:
            rgb = photos.decode(await _image(request))
        except DataError as error:
            return problem(400, str(error))
        self.sizes.append(rgb.shape[:2])
        return answer(self.estimate(rgb), rgb, request.query_params.get("format", "png"))

    def _refusal(self, request: Request) -> Response | None:
        good = self.key is None or request.headers.get("authorization") == f"Bearer {self.key}"
        return None if good else problem(401, "an API key is needed")


class Wall:
    """A backend whose network sees `wall`."""

    async def predict(
        self,
        model: str,
        rgb: np.ndarray,
        others: Any,
        deadline: float,
        *,
        native: bool = False,
        camera: Camera | None = None,
    ) -> BackendAnswer:
        if model not in ("", "room", "room@0123456789ab"):
            raise UnknownModel("no such model")
        maps = {"depth": wall(rgb), "mask": np.full(rgb.shape[:2], 0.25, np.float32)}
        if "sparse" in others:
            maps["depth"] = others["sparse"]
        return BackendAnswer(maps, "room@0123456789ab", (240, 320), {"model": 0.5})

    async def models(self) -> list[ModelCard]:
        return [
            ModelCard("room", "0123456789ab", "unet", ("image",), ("depth", "mask"), (240, 320), 0.1, 10.0, "exact")
        ]

    async def ready(self) -> bool:
        return True


async def _image(request: Request) -> bytes:
    body = await request.body()
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/"):
        return body
    boundary = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    parts = [part.partition(b"\r\n\r\n") for part in body.split(boundary)]
    return next(data.removesuffix(b"\r\n") for head, _, data in parts if b'name="image"' in head)


def problem(status: int, detail: str, **headers: str) -> Response:
    tree = {"type": "about:blank", "title": "Refused", "status": status, "detail": detail, "error": detail}
    return JSONResponse(tree, status, headers, media_type="application/problem+json")


def busy(*, after: str = "0") -> Response:
    return PlainTextResponse("queue is full", 429, {"Retry-After": after})


def answer(depth: np.ndarray, rgb: np.ndarray, form: str) -> Response:
    kinds: dict[str, tuple[str, Any]] = {
        "png": ("image/png", export.write_depth_png),
        "npy": ("application/x-npy", export.write_depth_npy),
        "colour": ("image/png", export.write_colour_png),
        "npz": ("application/x-npz", None),
        "ply": ("model/ply", export.write_ply),
        "glb": ("model/gltf-binary", export.write_glb),
    }
    headers = {
        "X-Model": "room@0123456789ab",
        "X-Model-Input-Size": "320x240",
        "X-Depth-Warning": "dark: very",
        "X-Request-ID": "request-1",
        "X-Depth-Unit": "m" if form == "npy" else "mm",
        "Server-Timing": "decode;dur=1.5, model;dur=20",
    }
    return Response(_bytes(depth, rgb, form, kinds[form][1]), 200, headers, media_type=kinds[form][0])


def _bytes(depth: np.ndarray, rgb: np.ndarray, form: str, write: Any) -> bytes:
    if form == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, depth=depth, mask=(depth < 2).astype(np.float32))
        return buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "answer"
        if form in ("ply", "glb"):
            write(place, depth, rgb, camera=cameras.assumed_camera(*depth.shape))
        else:
            write(place, depth)
        return place.read_bytes()


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The app behind real HTTP on a free port of the loopback, in a thread; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
