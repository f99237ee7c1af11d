"""Several pictures in one request: read one after the other, answered side by side, packed as a zip."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from depthray.errors import DataError
from serve.http import codec, problems
from serve.http.codec import Encoded, Picture
from serve.http.problems import Problem
from serve.settings import Limits

T = TypeVar("T")
_LOG = logging.getLogger("depthray.serve")
_SUFFIXES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "application/x-npy": "npy",
    "application/x-npz": "npz",
    "application/x-ply": "ply",
    "model/gltf-binary": "glb",
}
_OF_THE_WHOLE = (404, 429, 503, 504)


def read(uploads: Sequence[codec.Upload], bounds: Limits) -> list[Picture | Problem]:
    """Pictures in their order, or what is wrong with them; all together have so many pixels at most."""
    left, found = bounds.batch_pixels, list[Picture | Problem]()
    for upload in uploads:
        try:
            given = codec.read_files(upload.files, bounds.model_copy(update={"pixels": min(bounds.pixels, left)}))
            left -= given.rgb.shape[0] * given.rgb.shape[1]
            found.append(given)
        except DataError as error:
            found.append(problems.of_upload(error))
        except Problem as problem:
            found.append(problem)
    return found


class Entry(NamedTuple):
    """A picture of a batch: the name the client gave it, and its answer or what was wrong with it."""

    name: str
    outcome: Encoded | Problem
    headers: Mapping[str, str]


async def settle(answer: Awaitable[T]) -> T | Problem:
    """An answer, or its problem instead of an exception."""
    try:
        return await answer
    except Problem as problem:
        return problem
    except Exception:
        _LOG.exception("a picture of a batch failed")
        return Problem(500, problems.FAULT)


def refuse_if_all_failed(outcomes: Sequence[Any]) -> None:
    """If no picture was answered for a reason that lies not in the pictures, it is the answer to the whole request."""
    statuses = {outcome.status if isinstance(outcome, Problem) else 200 for outcome in outcomes}
    if len(statuses) == 1 and statuses & {*_OF_THE_WHOLE}:
        raise outcomes[0]


def pack(entries: Sequence[Entry], request_id: str) -> bytes:
    """The zip file of a batch: index.json in the order of the pictures, and the answers it names."""
    file, index = io.BytesIO(), []
    with zipfile.ZipFile(file, "w") as archive:
        for place, (name, outcome, headers) in enumerate(entries):
            about: dict[str, Any] = {"index": place, "name": name}
            if isinstance(outcome, Problem):
                about |= {"status": outcome.status, "problem": problems.document(outcome, request_id=request_id)}
            else:
                about |= {"status": 200, "file": f"{place:04}.{_SUFFIXES[outcome.media]}", "headers": dict(headers)}
                archive.writestr(about["file"], outcome.data)
            index.append(about)
        archive.writestr("index.json", json.dumps({"images": index}))
    return file.getvalue()
