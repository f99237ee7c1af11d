"""The requests of a client: what each sends, and how its answer is read. Images and maps are encoded here."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import cv2
import httpx
import numpy as np
from numpy.typing import NDArray

from depthray.client import responses
from depthray.client.responses import Estimate, ServerError
from depthray.errors import DataError, UsageError
from depthray.imaging.camera import as_camera

Image = bytes | str | os.PathLike[str] | NDArray[np.uint8]  # a file, its bytes, or (H,W,3) RGB, upright
Map = bytes | str | os.PathLike[str] | NDArray[Any]  # a file, its bytes, or (H,W) numbers
Query = Mapping[str, str | float]
T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(@[a-z0-9]{1,64})?")


class Call(NamedTuple, Generic[T]):
    """A request, and how to read its answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    query: Query = MappingProxyType({})
    body: Mapping[str, Any] = MappingProxyType({})  # as httpx takes it: content and headers, or files


READY = Call("GET", "v2/health/ready", responses.raise_for_status)
MODELS = Call("GET", "v1/models", responses.read_models)


def predict(
    image: Image,
    form: Literal["npy", "npz"],
    others: Mapping[str, Map],
    *,
    model: str,
    size: str,
    camera: Sequence[float] | None = None,
) -> Call[Estimate]:
    """One image -> its depth (npy) or all its maps (npz)."""
    data = encode(image)
    query: dict[str, str | float] = {"format": form, **({"size": size} if size else {})}
    if camera is not None:
        query |= as_camera(camera)._asdict()
    return Call("POST", _path(model), partial(responses.read, form=form, image=data), query, _body(data, others))


def fetch(image: Image, form: str, others: Mapping[str, Map], *, model: str, query: Query) -> Call[bytes]:
    """One image -> the answer as a file."""
    body = _body(encode(image), others)
    return Call("POST", _path(model), lambda response: response.content, {**query, "format": form}, body)


def batch(
    images: Sequence[Image], others: Mapping[str, Sequence[Map]], *, model: str
) -> Call[list[Estimate | ServerError]]:
    """Several images, each with the further inputs of the same index -> all maps of each, or its error."""
    for name, values in others.items():
        if len(values) != len(images):
            raise UsageError(f"{len(values)} {name} for {len(images)} images; give one for each")
    encoded = [encode(image) for image in images]
    parts = [("image", data) for data in encoded]
    parts += [(name, _encode_map(name, each)) for name, values in others.items() for each in values]
    query = {"format": "npz", **({"model": _check_name(model)} if model else {})}
    read = partial(responses.read_batch, images=encoded)
    return Call("POST", "v1/depth:batch", read, query, {"files": [_part(*part) for part in parts]})


def _path(model: str) -> str:
    return f"v1/models/{_check_name(model)}/depth" if model else "v1/depth"


def _check_name(model: str) -> str:
    # Checked before it becomes a part of the path, where a slash would mean another address.
    if not _NAME.fullmatch(model):
        raise UsageError(f"{model!r} is not the name of a model; names are as models() lists them, or name@version")
    return model


def _part(name: str, data: bytes) -> tuple[str, tuple[str, bytes, str]]:
    return name, (name, data, _media_type(data))


def _body(image: bytes, others: Mapping[str, Map]) -> dict[str, Any]:
    """The image alone as the body, or a form with the further inputs."""
    if not others:
        return {"content": image, "headers": {"Content-Type": _media_type(image)}}
    parts = {"image": image, **{name: _encode_map(name, values) for name, values in others.items()}}
    return {"files": [_part(name, data) for name, data in parts.items()]}


def encode(image: Image) -> bytes:
    """A file, its bytes or (H,W,3) RGB -> the bytes of a JPEG, PNG or WebP file."""
    if not isinstance(image, np.ndarray):
        return _read_file(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(f"an image is a (H,W,3) uint8 RGB array, this is {image.dtype} of shape {image.shape}")
    # Lossless, at the fastest level: higher ones save a few percent of the bytes for several times the time.
    _, data = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return data.tobytes()


def _encode_map(name: str, values: Map) -> bytes:
    """A further input: a file, its bytes, (H,W) numbers, or (H,W,3) RGB of the background -> the bytes of a file."""
    if name == "background" or not isinstance(values, np.ndarray):
        return encode(values)
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)  # which the server refuses, too
    return file.getvalue()


def _read_file(source: bytes | str | os.PathLike[str]) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{os.fspath(source)}: cannot be read: {error.strerror}") from None


def _media_type(data: bytes) -> str:
    """The media type by content, as the server checks it; other kinds are left to the server to refuse."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    starts = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"\x93NUMPY": "application/x-npy"}
    return next((kind for start, kind in starts.items() if data.startswith(start)), "application/octet-stream")
