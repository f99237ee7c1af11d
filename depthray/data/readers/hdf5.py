"""HDF5 files of published data sets: opened in each process by itself, with errors of the library translated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError


class Hdf5:
    """A file that is opened when it is first read in a process, a forked one too, and stays open there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_process": 0}

    @property
    def file(self) -> Any:
        """The open file."""
        if self._process != os.getpid():  # the library's state does not survive a fork
            self._file, self._process = open_file(self.path), os.getpid()
        return self._file


def open_file(path: Path) -> Any:
    """The file, open for reading."""
    import h5py  # takes a while to import, and most data sets do not need it

    return h5py.File(path, "r", locking=False)  # nobody writes, and some file systems have no locks


@contextmanager
def translate_hdf5_errors(path: Path) -> Iterator[None]:
    """Turn an error of the library about a bad file into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{path}: lacks what this form of data set has: {_one_line(error)}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or f'not a complete HDF5 file: {_one_line(error)}'}") from None
    # h5py raises any of these for a damaged file, depending on the byte that is wrong.
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{path}: damaged, or not of this form: {_one_line(error)}") from None


def read_datasets(path: Path, *names: str) -> list[NDArray[Any]]:
    """Some arrays of a small file, which is opened for them and closed again."""
    with translate_hdf5_errors(path), open_file(path) as file:
        return [np.asarray(file[name][()]) for name in names]


def is_hdf5(path: Path) -> bool:
    """Whether a file opens with HDF5's signature, by itself or after the 512 bytes that MATLAB puts before it."""
    try:
        with path.open("rb") as file:
            head = file.read(520)
    except OSError:
        return False
    # By its bytes, not by opening it: HDF5 crashes on some damaged files.
    return b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:])


def _one_line(error: Exception) -> str:
    """The message of an error on one line; HDF5 writes some over many, with its stack."""
    return " ".join(str(error).strip("'\"").split())[:160]
