"""Content-Type, and multipart/form-data -> its parts. Strict and small: the body is in memory already, of few parts.

Only what clients really send is understood; anything else is an error rather than a guess.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from depthray.errors import DataError

# As RFC 2046 allows it: at most 70 characters, the last of them no blank.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r'([a-z*-]+)="((?:[^"\\\r\n]|\\.)*)"|([a-z*-]+)=([^";\s]+)', re.IGNORECASE)
_LONGEST_HEADERS = 4096


class MediaType(NamedTuple):
    """A Content-Type: lower case, without blanks."""

    kind: str
    parameters: dict[str, str]


class FormPart(NamedTuple):
    """One field of a form."""

    name: str
    filename: str
    data: bytes


def media_type(header: str) -> MediaType:
    """`image/JPEG; charset=x` -> its kind and parameters."""
    kind, *rest = header[:1024].split(";")  # longer than any that means something
    pairs = (part.partition("=") for part in rest)
    return MediaType(kind.strip().lower(), {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs})


def parse(body: bytes, boundary: str, *, most: int) -> list[FormPart]:
    """The parts of a form in their order; a DataError if it is malformed or has more than `most`."""
    if not _BOUNDARY.fullmatch(boundary):
        raise DataError("multipart: the Content-Type names no usable boundary")
    mark = b"\r\n--" + boundary.encode("ascii")
    # At most two pieces beyond the parts allowed: a body of nothing but boundaries must not become millions of them.
    opening, *pieces = (b"\r\n" + body).split(mark, most + 2)
    if opening.strip() or not pieces:
        raise DataError("multipart: the body does not begin with the boundary of the Content-Type")
    if len(pieces) > most + 1:
        raise DataError(f"multipart: more than {most} parts")
    *parts, closing = pieces
    if not closing.startswith(b"--") or closing[2:].strip():
        raise DataError("multipart: cut short; the closing boundary is missing")
    return [_part(piece) for piece in parts]


def _part(piece: bytes) -> FormPart:
    head, blank_line, data = piece.partition(b"\r\n\r\n")
    if not blank_line or not head.startswith(b"\r\n") or len(head) > _LONGEST_HEADERS:
        raise DataError("multipart: a part without proper headers")
    try:
        lines = head.decode("utf-8").split("\r\n")[1:]
    except UnicodeDecodeError:
        raise DataError("multipart: the headers of a part are not UTF-8") from None
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        raise DataError("multipart: parts are sent as they are, without a transfer encoding")
    kind, _, rest = headers.get("content-disposition", "").partition(";")
    # Groups 1 and 2 are a quoted value, 3 and 4 a bare one.
    parameters = {(match[1] or match[3]).lower(): match[2] or match[4] or "" for match in _PARAMETER.finditer(rest)}
    if kind.strip().lower() != "form-data" or not parameters.get("name"):
        raise DataError("multipart: a part without a name")
    return FormPart(parameters["name"], parameters.get("filename", ""), data)
