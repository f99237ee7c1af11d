"""Errors of the file system become one line with advice, and are either transient or permanent."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from depthray.errors import CheckpointError, DepthrayError, ResourceError
from depthray.storage.os_errors import is_transient, translate_os_errors


def fail(code: int, **names: str) -> DepthrayError:
    """The error that an OSError of this code becomes."""
    with (
        pytest.raises(ResourceError) as caught,
        translate_os_errors(Path("runs/x"), to=ResourceError, doing="write it", **names),
    ):
        raise OSError(code, os.strerror(code), "/some/file")
    return caught.value


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (errno.ENOSPC, "runs/x: cannot write it: No space left on device; free some space there"),
        (errno.EROFS, "runs/x: cannot write it: Read-only file system; give a folder that can be written to"),
        (errno.EIO, "runs/x: cannot write it: Input/output error; look at that disk"),
    ],
)
def test_the_advice_fits_the_error(code: int, line: str) -> None:
    assert str(fail(code)) == line


def test_a_caller_adds_its_own_advice() -> None:
    assert str(fail(errno.EDQUOT, advice="{remedy}, or set X")).endswith("; free some space there, or set X")
    assert str(fail(errno.EIO, advice="use another")).endswith("Input/output error; use another")


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError), translate_os_errors("x", to=CheckpointError, doing="write"):
        raise KeyError


def test_a_translated_error_is_as_transient_as_its_cause() -> None:
    assert is_transient(fail(errno.ESTALE)) and is_transient(OSError(errno.ESTALE, ""))
    assert not is_transient(fail(errno.EACCES)) and not is_transient(CheckpointError("x"))
    assert not is_transient(KeyError())
