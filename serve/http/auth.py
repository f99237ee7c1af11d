"""API keys: from a file or the environment, kept as digests, compared in constant time."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers

from depthray.errors import UsageError
from serve.http.problems import Problem

VARIABLE = "DEPTHRAY_API_KEYS"
_SHORTEST, _LONGEST = 16, 512


class Keys:
    """The keys that open the API. None at all: it is open to everyone who reaches it."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Headers) -> None:
        """A Problem (401) unless the request carries one of the keys, as a bearer token or as X-API-Key."""
        if not self._digests:
            return
        given = _digest(_given(headers))
        # All are compared, and digests at that: neither the time nor the length of a key tells how near a guess is.
        if not any([hmac.compare_digest(given, digest) for digest in self._digests]):
            raise _refusal("this API key is not known")


def load(path: Path | None, *, environment: Mapping[str, str] = os.environ) -> Keys:
    """The keys of a file (one a line, # comments) and of DEPTHRAY_API_KEYS (by commas or blanks)."""
    keys = environment.get(VARIABLE, "").replace(",", " ").split()
    where = VARIABLE
    if path is not None:
        keys, where = [*keys, *_lines(path)], str(path)
        if not keys:
            raise UsageError(f"{path}: holds no key; write one a line")
    for number, key in enumerate(keys, 1):
        if not (_SHORTEST <= len(key) <= _LONGEST and key.isascii() and key.isprintable()) or " " in key:
            what = f"{_SHORTEST} to {_LONGEST} letters and digits without blanks"
            raise UsageError(f"{where}: key {number} must be {what}; make one with: openssl rand -hex 32")
    return Keys(keys)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the keys cannot be read: {getattr(error, 'strerror', 'not UTF-8')}") from None
    return [line for line in lines if line and not line.startswith("#")]


def _given(headers: Headers) -> str:
    """The one key a request carries."""
    bearers, plain = headers.getlist("authorization"), headers.getlist("x-api-key")
    if len(bearers) + len(plain) != 1:
        raise _refusal("give one API key" if bearers or plain else "an API key is needed: Authorization: Bearer KEY")
    if plain:
        return plain[0]
    scheme, _, key = bearers[0].partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise _refusal("the header is: Authorization: Bearer KEY")
    return key.strip()


def _refusal(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="depthray"'})


def _digest(key: str) -> bytes:
    return sha256(key[: _LONGEST + 1].encode("utf-8", "surrogatepass")).digest()
