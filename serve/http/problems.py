"""What is said to a client when there is no answer: problem documents (RFC 9457), with `error` beside `detail`.

`error` is where clients of the Open Inference Protocol look. A text names no file, no address and no exception.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from depthray.errors import DataError, DepthrayError, UsageError
from depthray.imaging.photos import FormatError, SizeError
from serve.backend import BackendError, Busy, NotReady, TimedOut, UnknownModel

MEDIA = "application/problem+json"
RETRY = {"Retry-After": "1"}


class Problem(Exception):
    """A request that gets no answer: the status, and what the client should know."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def document(problem: Problem, *, request_id: str) -> dict[str, Any]:
    """The document of a problem as plain values."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": f"urn:request:{request_id}",
        "error": problem.detail,
    }


def response(problem: Problem, *, request_id: str) -> Response:
    """The document of a problem as an HTTP response."""
    body = json.dumps(document(problem, request_id=request_id)).encode()
    return Response(body, problem.status, problem.headers, media_type=MEDIA)


def of_upload(error: DataError) -> Problem:
    """A body that cannot be decoded -> 415 of another kind of file, 422 of a wrong size, else 400."""
    status = 415 if isinstance(error, FormatError) else 422 if isinstance(error, SizeError) else 400
    return Problem(status, str(error))


def of_network(error: BaseException) -> Problem:
    """What a backend raised -> its problem; of a fault of ours nothing is told but that it happened."""
    if isinstance(error, UnknownModel):
        return Problem(404, str(error))
    if isinstance(error, Busy):
        status = 503 if isinstance(error, NotReady) else 429
        return Problem(status, str(error), headers={"Retry-After": str(max(1, round(error.retry_after)))})
    if isinstance(error, TimedOut | TimeoutError):
        return Problem(504, "the answer took too long; try again later or send a smaller picture")
    if isinstance(error, UsageError | DataError):
        return Problem(422, str(error))
    return Problem(500, FAULT)


FAULT = "a fault of the server, which has been logged; the request id finds it"
EXPECTED = (BackendError, DepthrayError, TimeoutError)
