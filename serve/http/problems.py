"""Errors as problem documents (RFC 9457), with `error` next to `detail`, where the Open Inference Protocol has it.

No text names a file, an address or an exception of the server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from depthray.errors import DataError, DepthrayError, UsageError
from depthray.imaging.photos import FormatError, SizeError
from serve.backend import BackendError, NotReady, Overloaded, TimedOut, UnknownModel

MEDIA = "application/problem+json"
RETRY_HEADERS = {"Retry-After": "1"}
INTERNAL_ERROR = "an internal error, which is in the server's log under the request's id"
EXPECTED = (BackendError, DepthrayError, TimeoutError)  # from a backend; anything else is a bug


class Problem(Exception):
    """A request that cannot be answered: the status, and the reason for the client."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def document(problem: Problem, *, request_id: str) -> dict[str, Any]:
    """The document of a problem as plain values."""
    return {
        "type": "about:blank",  # by the RFC: the status alone is the type of the problem
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


def from_upload_error(error: DataError) -> Problem:
    """A body that cannot be decoded -> 415 of another kind of file, 422 of a wrong size, else 400."""
    status = 415 if isinstance(error, FormatError) else 422 if isinstance(error, SizeError) else 400
    return Problem(status, str(error))


def from_backend_error(error: BaseException) -> Problem:
    """An exception of a backend -> its problem; internal errors are reported without details."""
    if isinstance(error, UnknownModel):
        return Problem(404, str(error))
    if isinstance(error, Overloaded):
        status = 503 if isinstance(error, NotReady) else 429
        # At least 1: clients take Retry-After: 0 as "at once", and a crowd of them would keep the queue full.
        return Problem(status, str(error), headers={"Retry-After": str(max(1, round(error.retry_after)))})
    if isinstance(error, TimedOut | TimeoutError):
        return Problem(504, "the answer took too long; try again later or send a smaller image")
    if isinstance(error, UsageError | DataError):
        return Problem(422, str(error))
    return Problem(500, INTERNAL_ERROR)
