"""API keys: from a file or the environment, kept as digests, compared in constant time; and where one is required."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers

from depthray.errors import UsageError
from serve.http.problems import Problem
from serve.settings import Settings

VARIABLE = "DEPTHRAY_API_KEYS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHORTEST, _LONGEST = 16, 512  # letters; shorter keys can be guessed


class Keys:
    """The keys that are accepted. Without any, everyone who can connect may use the API."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Headers) -> None:
        """A Problem (401) unless the request carries one of the keys, as a bearer token or as X-API-Key."""
        if not self._digests:
            return
        given = _digest(_key_of(headers))
        # All are compared, by their digests: the time does not depend on how much of a guess, or its length, is right.
        if not any([hmac.compare_digest(given, digest) for digest in self._digests]):
            raise _refusal("this API key is not known")


def load(path: Path | None, *, environment: Mapping[str, str] = os.environ) -> Keys:
    """The keys of a file (one a line, # comments) and of DEPTHRAY_API_KEYS (separated by commas or blanks)."""
    keys = environment.get(VARIABLE, "").replace(",", " ").split()
    where = VARIABLE
    if path is not None:
        keys, where = [*keys, *_lines(path)], str(path)
        if not keys:
            raise UsageError(f"{path}: contains no key; write one a line")
    for number, key in enumerate(keys, 1):
        if not (_SHORTEST <= len(key) <= _LONGEST and key.isascii() and key.isprintable()) or " " in key:
            form = f"{_SHORTEST} to {_LONGEST} letters and digits without blanks"
            raise UsageError(f"{where}: key {number} must be {form}; make one with: openssl rand -hex 32")
    return Keys(keys)


def require_keys(settings: Settings, host: str | None) -> None:
    """UsageError for an address that others can reach while there are no keys, however the service is started."""
    if host not in LOOPBACK and not settings.allow_anonymous and not load(settings.keys_file):
        raise UsageError(
            f"{host} can be reached by others, and there are no API keys: give --keys-file FILE or {VARIABLE}, "
            "or --allow-anonymous if everybody may use it"
        )


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the keys cannot be read: {getattr(error, 'strerror', 'not UTF-8')}") from None
    return [line for line in lines if line and not line.startswith("#")]


def _key_of(headers: Headers) -> str:
    """The one key a request carries."""
    bearers, plain = headers.getlist("authorization"), headers.getlist("x-api-key")
    if len(bearers) + len(plain) != 1:
        # Two keys are refused, not tried in turn: it must be clear which of them a proxy before us has checked.
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
    # One byte more than the longest key: a client's header cannot make us hash megabytes, nor match by its beginning.
    return sha256(key[: _LONGEST + 1].encode("utf-8", "surrogatepass")).digest()
