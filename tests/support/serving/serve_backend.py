"""A backend without a network: depth that is seen from the pixels, and faults on order."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from depthray.errors import UsageError
from depthray.imaging.camera import Camera
from serve import settings
from serve.backend import BackendAnswer, ModelCard, UnknownModel
from serve.http import routes
from serve.http.auth import Keys

KNOWN = ("room", "completion", "cutout")
CARDS = [
    ModelCard("room", "0123456789ab", "unet", ("image",), ("depth",), (24, 32), 0.1, 10.0, default=True),
    ModelCard("completion", "ba9876543210", "unet", ("image", "sparse"), ("depth",), (24, 32), 0.1, 10.0),
    ModelCard("cutout", "00000000aaaa", "masknet", ("image", "background"), ("mask",), (24, 32), 0.1, 10.0),
]


def wall(rgb: np.ndarray) -> np.ndarray:
    """(H,W,3) uint8 -> (H,W) metres, 1 where black to 5 where white."""
    return np.asarray(1 + rgb.mean(2, dtype=np.float32) / 63.75, np.float32)


class Fake:
    """Records the requests (`seen`); `fault` is raised or answered instead of depth."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[int, ...], dict[str, np.ndarray], bool]] = []
        self.fault: BaseException | Callable[[np.ndarray], np.ndarray] | None = None
        self.up: bool | Exception = True

    async def predict(
        self,
        model: str,
        rgb: np.ndarray,
        others: Mapping[str, Any],
        deadline: float,
        *,
        native: bool = False,
        camera: Camera | None = None,
    ) -> BackendAnswer:
        self.seen.append((model, rgb.shape, dict(others), native))
        card = next((card for card in CARDS if (model or "room") in (card.name, card.id)), None)
        if card is None:
            raise UnknownModel("no such model")
        for key in card.inputs:
            if key not in ("image", *others):
                raise UsageError(f"this network needs {key} too; its inputs are {', '.join(card.inputs)}")
        if isinstance(self.fault, BaseException):
            raise self.fault
        depth = (self.fault or wall)(rgb)
        if native:
            depth = depth[: card.size[0], : card.size[1]]
        values = {"depth": depth, "mask": (depth > 3).astype(np.float32)}
        maps = {target: values[target] for target in card.targets}
        return BackendAnswer(maps, card.id, card.size, {"queue": 0.001, "model": 0.02})

    async def models(self) -> list[ModelCard]:
        return CARDS

    async def ready(self) -> bool:
        if isinstance(self.up, Exception):
            raise self.up
        return self.up


def app(fake: Fake | None = None, *keys: str, **tree: Any) -> Any:
    """The API over a fake, with settings as a tree."""
    return routes.create(fake or Fake(), settings.parse(tree), keys=Keys(keys), send_id=True)


def scene(height: int = 32, width: int = 48) -> np.ndarray:
    """(H,W,3): a smooth image that changes under every flip and rotation."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 5, x + 2 * y], -1).clip(0, 255).astype(np.uint8)


def encoded(array: np.ndarray, kind: str = "PNG", *, mode: str = "", **options: Any) -> bytes:
    """(H,W[,C]) -> the bytes of a file, in a mode of Pillow's."""
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG file of these chunks between a header and the end."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def npy(array: np.ndarray) -> bytes:
    """An array -> the bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def npz(*, deflated: bool = False, **arrays: np.ndarray) -> bytes:
    """Arrays -> the bytes of an .npz file."""
    file = io.BytesIO()
    (np.savez_compressed if deflated else np.savez)(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
