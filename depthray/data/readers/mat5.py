"""Numbers and lists of texts in MATLAB files of version 5, as splits have them. Damage to a file cannot crash it.

The file is 128 bytes of header, then elements: type and length, four bytes each, the data, padded to eight.
Short data shares the first eight with its type and length. A compressed element holds another one. An array is an
element of elements: flags, shape, name, numbers; one of cells has an array for each cell in place of the numbers. All
of it is little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError

HEADER, ORDER = 128, b"IM"  # length of the header, and its last bytes where numbers are little-endian
ARRAY, COMPRESSED = 14, 15
DTYPES = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
TEXT = 4  # class of an array of characters, the first byte of its flags
UTF8, UTF16 = 16, 17
LARGEST = 2**24  # bytes a compressed element may have: a small file can hold one of many gigabytes
T = TypeVar("T")


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Name -> numbers, flat, of every array of a file."""
    return _read(path, _array)


def read_texts(path: Path) -> dict[str, list[str]]:
    """Name -> texts of every array of cells of a file, all of which have to be texts."""
    return _read(path, _texts)


def _read(path: Path, convert: Callable[[bytes], tuple[str, T]]) -> dict[str, T]:
    """The arrays of a file, each converted from its data to its name and what it holds."""
    try:
        content = path.read_bytes()
        if content[HEADER - len(ORDER) : HEADER] != ORDER:
            raise ValueError("no header of version 5")
        return dict(convert(data) for kind, data in _decompress(content[HEADER:]) if kind == ARRAY)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except (ValueError, LookupError, OverflowError, StopIteration, struct.error, zlib.error) as error:
        raise DataError(f"{path}: not a readable MATLAB file of version 5 ({error}); download it again") from None


def _decompress(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Bytes -> type and data of each element, those in compressed ones too."""
    for kind, part in _elements(data):
        if kind == COMPRESSED:
            yield from _elements(zlib.decompressobj().decompress(part, LARGEST))
        else:
            yield kind, part


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Bytes -> type and data of each element in them."""
    position = 0
    while position < len(data):
        kind, length = struct.unpack_from("<II", data, position)
        start = position + 8
        if kind >> 16:  # the short form
            kind, length, start = kind & 0xFFFF, kind >> 16, position + 4
        if start + length > len(data):
            raise ValueError("cut off")
        yield kind, data[start : start + length]
        # Compressed elements are not padded.
        position = start + length if kind == COMPRESSED else -(-(start + length) // 8) * 8


def _array(data: bytes) -> tuple[str, NDArray[Any]]:
    """The data of an array -> its name and numbers."""
    _, _, (_, name), (kind, numbers) = list(_elements(data))[:4]
    return name.decode("ascii"), np.frombuffer(numbers, DTYPES[kind])


def _texts(data: bytes) -> tuple[str, list[str]]:
    """The data of an array of cells -> its name and the text of each cell."""
    _, _, (_, name), *cells = list(_elements(data))
    return name.decode("ascii"), [_text(cell) for kind, cell in cells if kind == ARRAY]


def _text(data: bytes) -> str:
    """The data of an array of one row of characters -> its text."""
    (_, flags), _, _, *characters = list(_elements(data))
    if flags[0] != TEXT:
        raise ValueError("a cell is no text")
    if not characters:
        return ""
    kind, stored = characters[0]
    if kind in (UTF8, UTF16):
        return stored.decode("utf-8" if kind == UTF8 else "utf-16-le")
    return "".join(map(chr, np.frombuffer(stored, DTYPES[kind]).tolist()))
