"""Untrusted NumPy files: .npy and .npz -> arrays of numbers. Nothing is allocated that the bytes do not contain.

NumPy's own reader allocates what a header claims, and evaluates it; zipfile inflates what it is given. Here a header
must have the exact form that NumPy writes, and sizes are known and within limits before anything is read.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthray.errors import DataError
from depthray.imaging.photos import FormatError

NPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"
_HEADER = re.compile(
    rb"\{'descr': '([<>|=][fiub]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \((\d{1,9}(?:, \d{1,9}){1,2})\), \} *\n"
)
_LONGEST_HEADER = 1024
_END = struct.Struct("<4s4H2LH")  # the end record of a zip file
_LONGEST_DIRECTORY = 16_384


def npy(data: bytes, *, where: str) -> NDArray[Any]:
    """The bytes of an .npy file -> numbers of two or three dimensions, in this machine's byte order."""
    kind, fortran, shape, start = _header(data, where=where)
    need = kind.itemsize
    for length in shape:
        need *= length
    if need != len(data) - start or not need:
        raise DataError(f"{where}: {len(data) - start} bytes of numbers, but its header promises {need}")
    # A view of the bytes; the copy that is returned is the only one.
    flat = np.frombuffer(data, kind, offset=start)
    array = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return np.ascontiguousarray(array, kind.newbyteorder("="))


def _header(data: bytes, *, where: str) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """dtype, order, shape and where the numbers begin."""
    if not data.startswith(NPY):
        raise FormatError(f"{where}: not a NumPy file")
    wide = data[6:7] != b"\x01"  # versions 2 and 3 of the format have longer headers
    start = 12 if wide else 10
    if len(data) < start:
        raise DataError(f"{where}: cut short")
    (length,) = struct.unpack_from("<I" if wide else "<H", data, 8)
    match = _HEADER.fullmatch(data[start : start + length]) if length <= _LONGEST_HEADER else None
    if match is None:
        raise DataError(f"{where}: not a NumPy file of numbers in two or three dimensions")
    try:
        kind = np.dtype(match[1].decode())
    except TypeError:  # such as f3, which has the form of a dtype only
        raise DataError(f"{where}: numbers of an unknown type") from None
    return kind, match[2] == b"True", tuple(int(part) for part in match[3].split(b", ")), start + length


def npz(data: bytes, *, names: Collection[str], most_bytes: int) -> dict[str, NDArray[Any]]:
    """The bytes of an .npz file -> its arrays, whose names must be among `names` and whose sum within `most_bytes`."""
    _check_directory(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, names=names, most_bytes=most_bytes)
            files = {entry.filename.removesuffix(".npy"): _inflate(archive, entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, struct.error):
        raise DataError("npz: damaged or incomplete") from None
    return {name: npy(file, where=name) for name, file in files.items()}


def _check_directory(data: bytes) -> None:
    """A DataError unless the zip directory is cheap to read: small, at the very end, not of the 64-bit form."""
    if not data.startswith(ZIP) or len(data) < _END.size:
        raise FormatError("npz: not an .npz file")
    mark, disk, first, here, total, size, start, comment = _END.unpack_from(data, len(data) - _END.size)
    if mark != b"PK\x05\x06" or comment or disk or first or here != total:
        raise DataError("npz: damaged or incomplete")
    # PK\x06\x07 before the end record is the mark of the 64-bit form.
    if size > _LONGEST_DIRECTORY or start + size != len(data) - _END.size or data[-42:-38] == b"PK\x06\x07":
        raise DataError("npz: its zip directory is larger than a few arrays need")


def _check_entries(entries: list[zipfile.ZipInfo], *, names: Collection[str], most_bytes: int) -> None:
    arrays = [entry.filename.removesuffix(".npy") for entry in entries]
    unknown = next((name for name in arrays if name not in names), None)
    if unknown is not None:
        raise DataError(f"npz: unknown array {unknown[:40]!r}; known are {', '.join(names)}")
    if len({*arrays}) < len(arrays):
        raise DataError("npz: an array is given twice")
    # Bit 0 means encrypted; 0 is stored and 8 deflated, all that NumPy writes.
    if any(entry.flag_bits & 1 or entry.compress_type not in (0, 8) for entry in entries):
        raise DataError("npz: neither stored nor deflated")
    if sum(entry.file_size for entry in entries) > most_bytes:
        raise DataError(f"npz: more than {most_bytes} bytes when unpacked")


def _inflate(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    # No more than the directory claims, of which the sum is checked, and one byte to notice a false claim.
    with archive.open(entry) as file:
        data = file.read(entry.file_size + 1)
    if len(data) != entry.file_size:
        raise zipfile.BadZipFile
    return data
