"""Downloads of single files over HTTP: resumed where they broke off, checked by SHA-256, complete or invisible.

Two processes of a machine download a file once: the second waits for the lock of its name. What has arrived stays in a
hidden file next to it until all has, for the next attempt of any process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from depthray.errors import ResourceError, UsageError
from depthray.storage.environment import CACHE
from depthray.storage.file_lock import lock
from depthray.storage.local import sync_folder
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.retry import Retry

if TYPE_CHECKING:
    import httpx

RETRY_SECONDS = 20.0  # from the first of several interruptions in a row; somebody waits for it
TIMEOUT_SECONDS = 20.0  # without a byte
RETRIED_CODES = (408, 425, 429, 500, 502, 503, 504)
Show = Callable[[int, int], None]  # bytes so far, bytes in all (0 where the server does not say)


class Interrupted(Exception):
    """A download that broke off and may be resumed."""


class DownloadError(UsageError):
    """A file that could not be downloaded."""


def download(url: str, target: Path, *, sha256: str, show: Show = lambda done, total: None) -> None:
    """Download a file to a path whose SHA-256 begins with these digits; nothing happens where it is already there."""
    with _translate_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock(target.with_name(f".{target.name}.lock")):
            if target.exists():
                return
            part = target.with_name(f".{target.name}.part")
            resumed = part.exists()
            digest = _download_all(url, part, show)
            if not digest.startswith(sha256) and resumed:
                # The first half may be of an older file at the same address: once more, from the beginning.
                part.unlink(missing_ok=True)
                digest = _download_all(url, part, show)
            if not digest.startswith(sha256):
                part.unlink(missing_ok=True)
                raise DownloadError(
                    f"{url}: its SHA-256 is {digest} and not {sha256}; give the right digest or address"
                )
            os.replace(part, target)
            sync_folder(target.parent)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _download_all(url: str, part: Path, show: Show) -> str:
    """Download what is missing of a file, with retries, and return the SHA-256 of all of it."""
    import httpx

    retry = Retry(RETRY_SECONDS, is_transient=lambda error: isinstance(error, Interrupted))
    try:
        retry.run(lambda: _download_rest(url, part, show))
    except Interrupted as error:
        done = part.stat().st_size if part.exists() else 0
        kept = f" after {done / 1e6:.1f} MB, which are kept: the same command resumes it" if done else ""
        raise DownloadError(f"{url}: broke off{kept} ({error})") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadError(f"{url}: cannot be downloaded ({_reason(error)})") from None
    return digest_of(part)


def _download_rest(url: str, part: Path, show: Show) -> None:
    import httpx

    begun = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begun}-"} if begun else {})
    timeout = httpx.Timeout(TIMEOUT_SECONDS)
    try:
        with httpx.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            if _is_complete(response, begun):
                return
            if response.status_code in RETRIED_CODES:
                raise Interrupted(f"HTTP {response.status_code}")
            response.raise_for_status()
            # A server that knows no ranges sends the whole file again.
            begun = begun if response.status_code == httpx.codes.PARTIAL_CONTENT else 0
            with part.open("ab" if begun else "wb") as file:
                _copy(response, file, begun, show)
    except (httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout) as error:
        raise Interrupted(_reason(error)) from None


def _is_complete(response: httpx.Response, begun: int) -> bool:
    """Whether the server says that there is nothing after what has been downloaded."""
    if response.status_code != 416:  # range not satisfiable
        return False
    size = response.headers.get("Content-Range", "").rpartition("/")[2]
    if size == str(begun):
        return True
    raise Interrupted(f"the file there is shorter than the {begun} bytes downloaded")


def _copy(response: httpx.Response, file: BinaryIO, begun: int, show: Show) -> None:
    length = int(response.headers.get("Content-Length", 0))
    total = begun + length if length else 0
    done = begun
    for piece in response.iter_raw():  # as it arrives: pieces of a fixed size would be lost where it breaks off
        file.write(piece)
        done += len(piece)
        show(done, total)
    file.flush()
    os.fsync(file.fileno())
    if total and done < total:
        raise Interrupted(f"{done} of {total} bytes")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _translate_errors(target: Path) -> AbstractContextManager[None]:
    advice = f"{{remedy}}, or set {CACHE}"
    return translate_os_errors(target.parent, to=ResourceError, doing="keep weights there", advice=advice)
