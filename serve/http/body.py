"""Limits checked before anything is decoded: size and pace of the body, length of the query, size of an image."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from depthray.imaging import photos
from serve.http.problems import Problem
from serve.settings import RequestLimits

# The rest of a body that was refused is not read, so nothing else can follow on this connection.
_CLOSE = {"Connection": "close"}


def image_limits(limits: RequestLimits) -> photos.PhotoLimits:
    """The limits of one image, as the decoder checks them against its header."""
    return photos.PhotoLimits(limits.pixels, limits.side, limits.body_bytes, limits.shortest_side, limits.aspect)


def check_query(request: Request, limits: RequestLimits) -> None:
    """A Problem (400) if the query string is too long to be parsed."""
    if len(request.scope["query_string"]) > limits.query_bytes:
        raise Problem(400, f"the query string is longer than {limits.query_bytes} bytes")


async def read_body(request: Request, limits: RequestLimits) -> bytes:
    """The body of a request, refused as soon as it is too large or too slow, whatever its Content-Length says."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        # Inflating would make the limit of bytes meaningless, and images are compressed already.
        raise Problem(415, "send the body without Content-Encoding; images are compressed as they are", headers=_CLOSE)
    if _content_length(request) > limits.body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.upload_seconds or None):
            return await _read(request, limits)
    except TimeoutError:
        detail = f"the body did not arrive within {limits.upload_seconds:g} s"
        raise Problem(408, detail, headers=_CLOSE) from None
    except ClientDisconnect:
        raise Problem(400, "the body was cut off") from None  # for the log: the client is gone


async def _read(request: Request, limits: RequestLimits) -> bytes:
    pieces, total = [], 0
    async for piece in request.stream():
        total += len(piece)
        if total > limits.body_bytes:
            raise _too_large(limits)
        pieces.append(piece)
    return b"".join(pieces)


def _content_length(request: Request) -> int:
    """Content-Length; 0 if there is none."""
    text = request.headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()):
        raise Problem(400, "Content-Length is no number", headers=_CLOSE)
    return int(text) if len(text) < 20 else 10**20  # int() of very many digits takes very long


def _too_large(limits: RequestLimits) -> Problem:
    return Problem(413, f"the body is larger than {limits.body_bytes} bytes", headers=_CLOSE)
