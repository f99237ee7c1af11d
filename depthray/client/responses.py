"""The answers of a depth server in Python: maps with point clouds, or an error with the message of the server."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Literal, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError, DepthrayError, ResourceError, UsageError
from depthray.imaging import export, photos
from depthray.imaging.camera import Camera, assumed_camera

Maps = dict[str, NDArray[np.float32]]
E = TypeVar("E", bound="ServerError")


class ServerError(DepthrayError):
    """The server failed; `status` is its HTTP status, 0 where there was no answer at all."""

    def __init__(self, message: str, *, status: int, request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class RefusedError(ServerError, DataError):
    """The server refuses this request, and would refuse it again."""


class UnavailableError(ServerError, ResourceError):
    """No answer after all retries: the server is too busy, not ready, or unreachable."""


@dataclass(frozen=True)
class Estimate:
    """The prediction of a server for one image."""

    # (H,W) by name: `depth` metres, NaN where there is none, `sigma` metres; `mask`, `confidence`, `valid` in [0,1].
    maps: Maps = field(repr=False)
    image: bytes = field(repr=False)
    model: str = ""  # name@version
    input_size: str = ""  # WIDTHxHEIGHT pixels of the network's input
    request_id: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds by stage of the server
    warnings: tuple[str, ...] = ()  # what of the image, its camera or its depth is not as the model was trained on

    @property
    def metres(self) -> NDArray[np.float32]:
        """-> (H,W) metres along the optical axis, NaN where there is none."""
        if "depth" not in self.maps:
            raise UsageError(f"model {self.model} predicts {', '.join(self.maps) or 'nothing'}, no depth; use maps")
        return self.maps["depth"]

    def points(
        self, camera: Camera | None = None, *, degrees: float = 60.0, min_confidence: float = 0.0
    ) -> NDArray[np.void]:
        """-> (N,) records xyz (metres: x right, y down, z forward) and rgb. The default camera is `degrees` across.

        Pixels of less than `min_confidence` have no point, where the model predicts confidence; nor have those of which
        it predicts that there is no depth.
        """
        if min_confidence > 0 and "confidence" not in self.maps:
            raise UsageError(f"min_confidence: model {self.model} predicts no confidence, or maps were not asked for")
        rgb = photos.decode(self.image)
        if rgb.shape[:2] != self.metres.shape:
            raise UsageError("points need the map at the image's size; leave size='model' out")
        camera = camera or assumed_camera(*self.metres.shape, degrees=degrees)
        depth = export.confident(
            export.valid_only(self.metres, self.maps.get("valid")), self.maps.get("confidence"), min_confidence
        )
        return export.points(depth, rgb, camera=camera)


# NumPy, zipfile and json raise all of these for files that are cut short or not what they seem.
_UNREADABLE = (ValueError, EOFError, OSError, SyntaxError, KeyError, TypeError, AttributeError, zipfile.BadZipFile)


def read(response: httpx.Response, *, form: Literal["npy", "npz"], image: bytes) -> Estimate:
    """An answer with float32 metres (npy) or with all maps by name (npz)."""
    try:
        return _estimate(response.content, response.headers, form=form, image=image)
    except _UNREADABLE as error:
        message = f"{_url(response)}: the answer is no depth map: {_printable(str(error))}"
        raise ServerError(message, status=response.status_code) from None


def read_batch(response: httpx.Response, *, images: Sequence[bytes]) -> list[Estimate | ServerError]:
    """A zip with index.json and an .npz file for each image that could be answered."""
    try:
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            index = json.loads(archive.read("index.json"))["images"]
            return [_entry(archive, *pair) for pair in zip(index, images, strict=True)]
    except _UNREADABLE as error:
        message = f"{_url(response)}: the answer is no batch: {_printable(str(error))}"
        raise ServerError(message, status=response.status_code) from None


def _entry(archive: zipfile.ZipFile, row: Mapping[str, Any], image: bytes) -> Estimate | ServerError:
    """One image of a batch, by its row of index.json."""
    if "problem" in row:
        status = int(row["status"])
        kind = UnavailableError if status in (408, 429, 503, 504) else RefusedError if status < 500 else ServerError
        return kind(f"{status}: {_printable(str(row['problem'].get('detail', '')))}", status=status)
    return _estimate(archive.read(row["file"]), httpx.Headers(row["headers"]), form="npz", image=image)


def _estimate(data: bytes, headers: httpx.Headers, *, form: Literal["npy", "npz"], image: bytes) -> Estimate:
    plane = headers.get("X-Plane", "depth")  # "mask" of a model that predicts nothing else
    return Estimate(
        maps={plane: _map(data)} if form == "npy" else _maps(data),
        image=image,
        model=headers.get("X-Model", ""),
        input_size=headers.get("X-Model-Input-Size", ""),
        request_id=headers.get("X-Request-ID", ""),
        timings=_timings(headers.get("Server-Timing", "")),
        warnings=tuple(map(_printable, filter(None, headers.get("X-Depth-Warning", "").split("; ")))),
    )


def read_models(response: httpx.Response) -> list[dict[str, Any]]:
    """The list of models -> one dict each."""
    try:
        tree = json.loads(response.content)
        models = tree["models"] if isinstance(tree, dict) else tree
        return [{"name": str(model["name"]), **model} for model in models]
    except (ValueError, KeyError, TypeError):
        message = f"{_url(response)}: this is no list of models; is it a depth server?"
        raise ServerError(message, status=response.status_code) from None


def raise_for_status(response: httpx.Response) -> httpx.Response:
    """The response itself, or its error raised."""
    if response.is_success:
        return response
    # Of a 4xx the request is the cause, so that a retry cannot help; those that may pass were retried before.
    raise error(RefusedError if response.status_code < 500 else ServerError, response)


def error(kind: Callable[..., E], response: httpx.Response) -> E:
    """The server's own message, from a problem document (RFC 9457) or, for errors of Ray, from plain text."""
    hint = "; give the client its key" if response.status_code in (401, 403) else ""
    message = f"{_url(response)}: {response.status_code}: {_reason(response)}{hint}"
    return kind(message, status=response.status_code, request_id=response.headers.get("X-Request-ID", ""))


def retry_after(response: httpx.Response) -> float:
    """-> seconds the server asks to wait, 0 if it does not; given in seconds or as a date."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _reason(response: httpx.Response) -> str:
    kind = response.headers.get("Content-Type", "")
    if "json" in kind:
        try:
            tree = response.json()
            reason = next((tree[key] for key in ("detail", "error", "title") if isinstance(tree.get(key), str)), "")
        except (ValueError, AttributeError, RecursionError):
            reason = ""
    else:
        reason = "" if "html" in kind else response.text
    return _printable(reason) or response.reason_phrase or "no reason given"


def _printable(text: str) -> str:
    """One printable line, whatever a server sends: it ends up in a terminal."""
    line = " ".join(text[:2000].split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:300]


def _url(response: httpx.Response) -> str:
    return str(response.request.url.copy_with(query=None))


def _map(data: bytes) -> NDArray[np.float32]:
    """The bytes of a NumPy file -> (H,W) float32."""
    # A pickle in it would run the code of whoever answers.
    stored = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or stored.dtype.kind != "f":
        raise ValueError("expected (H,W) floating-point numbers")
    return stored.astype(np.float32, copy=False)


def _maps(data: bytes) -> Maps:
    """The bytes of an .npz file -> its (H,W) maps of floating-point numbers by name."""
    with np.load(io.BytesIO(data), allow_pickle=False) as planes:
        stored = {name: planes[name] for name in planes.files}
    return {
        name: plane.astype(np.float32, copy=False)
        for name, plane in stored.items()
        if plane.ndim == 2 and plane.dtype.kind == "f"
    }


def _timings(header: str) -> dict[str, float]:
    """`decode;dur=1.5, model;dur=20` in milliseconds -> seconds by stage."""
    entries = re.findall(r"([\w-]{1,40})\s*;\s*dur=(\d{1,9}(?:\.\d{1,9})?)", header[:2000])
    return {name: float(duration) / 1000 for name, duration in entries}
