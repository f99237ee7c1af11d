"""Errors of the file system: their translation to depthray's own with advice, and whether they are transient."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from depthray.errors import DepthrayError

_FULL, _READ_ONLY = "free some space there", "give a folder that can be written to"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.ENOTDIR: _READ_ONLY,
    errno.EEXIST: _READ_ONLY,
}
# What may go away while training continues: a server that is away, a full disk on which somebody frees space.
_NAMES = """EAGAIN EBUSY EINTR EIO ENOSPC EDQUOT EROFS ESTALE ETIMEDOUT ENODEV ENXIO ENOTCONN ECONNRESET ECONNREFUSED
ECONNABORTED EHOSTDOWN EHOSTUNREACH ENETDOWN ENETUNREACH EREMOTEIO ENOLCK ESHUTDOWN"""
_TRANSIENT = {getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name)}  # some platforms lack some


@contextmanager
def translate_os_errors(
    where: Path | str, *, to: type[DepthrayError], doing: str, advice: str = "{remedy}"
) -> Iterator[None]:
    """Turn an OSError into `WHERE: cannot DOING: REASON; ADVICE`; {remedy} in the advice is what helps against it."""
    try:
        yield
    except OSError as error:
        advice = advice.format(remedy=remedy(error) or "look at that disk")
        raise to(f"{where}: cannot {doing}: {reason(error)}; {advice}") from error


def reason(error: OSError) -> str:
    """What went wrong, without error number and path."""
    return error.strerror or str(error)


def remedy(error: OSError) -> str:
    """What the user can do about an error of the file system; "" where nothing is known."""
    return _REMEDIES.get(error.errno or 0, "")


def is_transient(error: BaseException) -> bool:
    """Whether an OSError, or an error translated from one, may go away by itself."""
    # `translate_os_errors` leaves the error of the system as the cause of ours.
    cause = error.__cause__ if isinstance(error, DepthrayError) else error
    return isinstance(cause, OSError) and cause.errno in _TRANSIENT
