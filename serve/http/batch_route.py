"""Several images in one request: decoded one after the other, predicted concurrently, answered as a zip file."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from depthray.errors import DataError
from serve.http import codec, problems
from serve.http.codec import Encoded, InputImage
from serve.http.problems import Problem
from serve.settings import RequestLimits

T = TypeVar("T")
_LOG = logging.getLogger("ray.serve")  # what Serve writes to the log of a replica
_SUFFIXES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "application/x-npy": "npy",
    "application/x-npz": "npz",
    "application/x-ply": "ply",
    "model/gltf-binary": "glb",
}
_OF_THE_SERVICE = (404, 429, 503, 504)  # statuses that say nothing about the image, and are worth a retry


def read(uploads: Sequence[codec.Upload], bounds: RequestLimits) -> list[InputImage | Problem]:
    """The images in their order, or the problem of each that is unusable; `batch_pixels` limits their sum."""
    left, images = bounds.batch_pixels, list[InputImage | Problem]()
    for upload in uploads:
        try:
            # Each header is checked against what the images before it have left, before its pixels are decoded.
            image = codec.read_files(upload.files, bounds.model_copy(update={"pixels": min(bounds.pixels, left)}))
            left -= image.rgb.shape[0] * image.rgb.shape[1]
            images.append(image)
        except DataError as error:
            images.append(problems.from_upload_error(error))
        except Problem as problem:
            images.append(problem)
    return images


class Entry(NamedTuple):
    """One image of a batch in the answer: its file name at the client, and its answer or problem."""

    name: str
    outcome: Encoded | Problem
    headers: Mapping[str, str]


async def settle(answer: Awaitable[T]) -> T | Problem:
    """An answer, or its problem instead of an exception."""
    try:
        return await answer
    except Problem as problem:
        return problem
    except Exception:  # gather would drop the other answers with it
        _LOG.exception("an image of a batch failed")
        return Problem(500, problems.INTERNAL_ERROR)


def refuse_if_all_failed(outcomes: Sequence[Any]) -> None:
    """Raise the common problem if no image was answered and the service is the reason, not the images."""
    statuses = {outcome.status if isinstance(outcome, Problem) else 200 for outcome in outcomes}
    if len(statuses) == 1 and statuses & {*_OF_THE_SERVICE}:
        raise outcomes[0]


def pack(entries: Sequence[Entry], request_id: str) -> bytes:
    """The zip file of a batch: index.json in the order of the images, and the files it names."""
    file, index = io.BytesIO(), []
    # Stored, not deflated: the files in it are compressed, or do not compress.
    with zipfile.ZipFile(file, "w") as archive:
        for position, (name, outcome, headers) in enumerate(entries):
            row: dict[str, Any] = {"index": position, "name": name}
            if isinstance(outcome, Problem):
                row |= {"status": outcome.status, "problem": problems.document(outcome, request_id=request_id)}
            else:
                row |= {"status": 200, "file": f"{position:04}.{_SUFFIXES[outcome.media]}", "headers": dict(headers)}
                archive.writestr(row["file"], outcome.data)
            index.append(row)
        archive.writestr("index.json", json.dumps({"images": index}))
    return file.getvalue()
