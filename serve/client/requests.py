"""The requests of a client: what each sends, and how its answer is read. Pictures and maps become bytes here."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import cv2
import httpx
import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError, UsageError
from serve.client import responses
from serve.client.responses import Estimate, ServerError

Picture = bytes | str | os.PathLike[str] | NDArray[np.uint8]  # a file, its bytes, or (H,W,3) RGB, upright
Map = bytes | str | os.PathLike[str] | NDArray[Any]  # a file, its bytes, or (H,W) numbers
Query = Mapping[str, str | float]
T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(@[a-z0-9]{1,64})?")


class Call(NamedTuple, Generic[T]):
    """A request, and how to read its answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    query: Query = {}
    body: Mapping[str, Any] = {}  # as httpx takes it: content and headers, or files


READY = Call("GET", "v2/health/ready", responses.good)
MODELS = Call("GET", "v1/models", responses.read_models)


def predict(
    picture: Picture, form: Literal["npy", "npz"], others: Mapping[str, Map], *, model: str, size: str
) -> Call[Estimate]:
    """One picture -> its depth (npy) or all its maps (npz)."""
    data = encode(picture)
    query = {"format": form, **({"size": size} if size else {})}
    return Call("POST", _path(model), partial(responses.read, form=form, picture=data), query, _body(data, others))


def fetch(picture: Picture, form: str, others: Mapping[str, Map], *, model: str, query: Query) -> Call[bytes]:
    """One picture -> the answer as a file."""
    body = _body(encode(picture), others)
    return Call("POST", _path(model), lambda response: response.content, {**query, "format": form}, body)


def batch(
    pictures: Sequence[Picture], others: Mapping[str, Sequence[Map]], *, model: str
) -> Call[list[Estimate | ServerError]]:
    """Several pictures, each with its place in the further inputs -> all maps of each, or what was wrong with it."""
    for name, values in others.items():
        if len(values) != len(pictures):
            raise UsageError(f"{len(values)} {name} for {len(pictures)} pictures; give one for each")
    images = [encode(picture) for picture in pictures]
    parts = [("image", data) for data in images]
    parts += [(name, _other(name, each)) for name, values in others.items() for each in values]
    query = {"format": "npz", **({"model": _named(model)} if model else {})}
    read = partial(responses.read_batch, pictures=images)
    return Call("POST", "v1/depth:batch", read, query, {"files": [_part(*part) for part in parts]})


def _path(model: str) -> str:
    return f"v1/models/{_named(model)}/depth" if model else "v1/depth"


def _named(model: str) -> str:
    if not _NAME.fullmatch(model):
        raise UsageError(f"{model!r} is no name of a model; names are as models() lists them, or name@version")
    return model


def _part(name: str, data: bytes) -> tuple[str, tuple[str, bytes, str]]:
    return name, (name, data, _kind(data))


def _body(picture: bytes, others: Mapping[str, Map]) -> dict[str, Any]:
    """The picture as it is, or as one part of several."""
    if not others:
        return {"content": picture, "headers": {"Content-Type": _kind(picture)}}
    parts = {"image": picture, **{name: _other(name, values) for name, values in others.items()}}
    return {"files": [_part(name, data) for name, data in parts.items()]}


def encode(picture: Picture) -> bytes:
    """A file, its bytes or (H,W,3) RGB -> the bytes of a JPEG, PNG or WebP file."""
    if not isinstance(picture, np.ndarray):
        return _bytes(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise DataError(f"a picture is a (H,W,3) uint8 RGB array, this is {picture.dtype} of shape {picture.shape}")
    _, data = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return data.tobytes()


def _other(name: str, values: Map) -> bytes:
    """A further input: a file, its bytes, (H,W) numbers, or (H,W,3) RGB of the background -> the bytes of a file."""
    if name == "background" or not isinstance(values, np.ndarray):
        return encode(values)
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def _bytes(source: bytes | str | os.PathLike[str]) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{os.fspath(source)}: cannot be read: {error.strerror}") from None


def _kind(data: bytes) -> str:
    """The media type by content, as the server checks it; what is none of these is for the server to refuse."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    starts = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"\x93NUMPY": "application/x-npy"}
    return next((kind for start, kind in starts.items() if data.startswith(start)), "application/octet-stream")
