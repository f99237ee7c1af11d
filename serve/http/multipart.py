"""multipart/form-data -> its parts. Strict and small: the body is in memory already, and there are few parts.

Only what clients really send is understood; anything else is an error rather than a guess.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from depthray.errors import DataError

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_WORD = re.compile(r'([a-z*-]+)="((?:[^"\\\r\n]|\\.)*)"|([a-z*-]+)=([^";\s]+)', re.IGNORECASE)
_LONGEST_HEAD = 4096


class Part(NamedTuple):
    """One field of a form."""

    name: str
    filename: str
    data: bytes


def parse(body: bytes, boundary: str, *, most: int) -> list[Part]:
    """The parts of a form in their order; a DataError if it is none, or has more than `most`."""
    if not _BOUNDARY.fullmatch(boundary):
        raise DataError("multipart: the Content-Type names no usable boundary")
    mark = b"\r\n--" + boundary.encode("ascii")
    opening, *pieces = (b"\r\n" + body).split(mark, most + 2)
    if opening.strip() or not pieces:
        raise DataError("multipart: the body does not begin with the boundary of the Content-Type")
    if len(pieces) > most + 1:
        raise DataError(f"multipart: more than {most} parts")
    *parts, closing = pieces
    if not closing.startswith(b"--") or closing[2:].strip():
        raise DataError("multipart: cut short; the closing boundary is missing")
    return [_part(piece) for piece in parts]


def _part(piece: bytes) -> Part:
    head, found, data = piece.partition(b"\r\n\r\n")
    if not found or not head.startswith(b"\r\n") or len(head) > _LONGEST_HEAD:
        raise DataError("multipart: a part without proper headers")
    try:
        lines = head.decode("utf-8").split("\r\n")[1:]
    except UnicodeDecodeError:
        raise DataError("multipart: the headers of a part are not UTF-8") from None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise DataError("multipart: parts are sent as they are, without a transfer encoding")
    kind, _, rest = headers.get("content-disposition", "").partition(";")
    words = {(found[1] or found[3]).lower(): found[2] or found[4] or "" for found in _WORD.finditer(rest)}
    if kind.strip().lower() != "form-data" or not words.get("name"):
        raise DataError("multipart: a part without a name")
    return Part(words["name"], words.get("filename", ""), data)
