"""Photographs from outside: bytes or a file -> upright RGB. Nothing is decoded before its header has passed the limits.

The content decides the format, not the name. Alpha is dropped, grey and palette become RGB, 16 bits a channel become 8.
A server decodes the formats of the web: JPEG, PNG and WebP. A file of one's own may be TIFF, BMP, GIF, PPM or HEIC.
"""

from __future__ import annotations

import io
import math
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from depthray.errors import DataError
from depthray.imaging import pillow_formats


class PhotoLimits(NamedTuple):
    """The largest photographs that are decoded: a file of 400 kB can hold an image of 400 MB."""

    pixels: int = 64_000_000
    side: int = 16_384
    bytes: int = 256 * 2**20
    shortest: int = 1  # pixels of the shorter side, at least
    aspect: float = math.inf  # longer side over shorter side


LIMITS = PhotoLimits()


class FormatError(DataError):
    """Not a still image of a format that is read."""


class SizeError(DataError):
    """More or fewer pixels or bytes than the limits allow."""


def read(path: str | os.PathLike[str], *, limits: PhotoLimits = LIMITS) -> NDArray[np.uint8]:
    """A file of any format that is read -> (H,W,3) uint8 RGB, upright."""
    return decode_any(_read_bytes(Path(path), limits), where=str(path), limits=limits)


def read_alpha(path: str | os.PathLike[str], *, limits: PhotoLimits = LIMITS) -> NDArray[np.uint8]:
    """A PNG or WebP file with alpha -> (H,W,4) uint8 RGBA, upright. Raises DataError for one without."""
    data, where = _read_bytes(Path(path), limits), str(path)
    header = _header(data, where=where)
    check_size(*header.size, where=where, limits=limits)
    if not header.has_transparency_data:
        raise DataError(f"{where}: has no alpha channel; give a PNG or WebP that has one, or masks of the pictures")
    try:
        rgba = np.asarray(header.convert("RGBA"), np.uint8)
    except pillow_formats.DAMAGED as error:
        raise DataError(f"{where}: damaged or incomplete {header.format} file: {error}") from None
    return upright(rgba, _orientation(_exif(header, data)))


def is_of_web(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a JPEG, PNG or WebP by its first bytes, and so may be sent to a server as it is."""
    with Path(path).open("rb") as file:
        return _format_class(file.read(12)) is not None


def read_map(path: str | os.PathLike[str], *, limits: PhotoLimits = LIMITS) -> NDArray[Any]:
    """A one-channel PNG or an .npy file -> (H,W) numbers as stored."""
    return decode_map(_read_bytes(Path(path), limits), where=str(path), limits=limits)


def _read_bytes(path: Path, limits: PhotoLimits) -> bytes:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if path.stat().st_size > limits.bytes:
            raise SizeError(f"{path}: larger than {limits.bytes // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def decode(data: bytes, *, where: str = "image", limits: PhotoLimits = LIMITS) -> NDArray[np.uint8]:
    """The bytes of a JPEG, PNG or WebP file -> (H,W,3) uint8 RGB, turned by its EXIF orientation."""
    header = _header(data, where=where)
    width, height = header.size
    check_size(width, height, where=where, limits=limits)
    # Only the header's size has been checked against the limits, so the pixels have to be of that size.
    pixels = _decode_rgb(data)
    if pixels is None or pixels.shape[:2] != (height, width):
        raise DataError(f"{where}: damaged or incomplete {header.format} file; save or copy it again")
    return upright(pixels, _orientation(_exif(header, data)))


def decode_any(data: bytes, *, where: str = "image", limits: PhotoLimits = LIMITS) -> NDArray[np.uint8]:
    """The bytes of a file of any format that is read -> (H,W,3) uint8 RGB, upright."""
    if _format_class(data):
        return decode(data, where=where, limits=limits)
    opener = pillow_formats.find_opener(data, where=where)
    if opener is None:
        raise FormatError(f"{where}: not a JPEG, PNG, WebP, {pillow_formats.NAMES} file")
    header = _open_header(data, opener, where=where)
    check_size(*header.size, where=where, limits=limits)
    return pillow_formats.decode(header, where=where)


def decode_map(data: bytes, *, where: str = "map", limits: PhotoLimits = LIMITS) -> NDArray[Any]:
    """The bytes of a one-channel PNG or an .npy file -> (H,W) numbers as stored: ids, or depth in some unit."""
    if data.startswith(b"\x93NUMPY"):
        return _decode_npy(data, where=where, limits=limits)
    width, height = _header(data, where=where).size
    check_size(width, height, where=where, limits=limits)
    try:
        stored: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        stored = None
    if stored is None:
        raise DataError(f"{where}: damaged or incomplete file; save or copy it again")
    if stored.ndim != 2:
        raise DataError(f"{where}: has {stored.shape[2]} channels, wanted one")
    return stored


def _decode_npy(data: bytes, *, where: str, limits: PhotoLimits) -> NDArray[Any]:
    """The bytes of an .npy file -> (H,W) numbers as stored. Pickled arrays, which can run a program, are refused."""
    try:
        # What NumPy raises on a damaged header depends on the byte that is wrong.
        stored: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, TypeError, MemoryError) as error:
        raise DataError(f"{where}: not a NumPy file of numbers: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or stored.dtype.kind not in "fiub" or not stored.size:
        raise DataError(f"{where}: wanted (H,W) numbers, found {stored.dtype} of shape {stored.shape}")
    check_size(stored.shape[1], stored.shape[0], where=where, limits=limits)
    return stored


def check_size(width: int, height: int, *, where: str, limits: PhotoLimits) -> None:
    """A SizeError if an image of this size is beyond the limits."""
    if max(width, height) > limits.side or width * height > limits.pixels:
        most = f"at most {limits.pixels / 1e6:g} million in all and {limits.side} a side"
        raise SizeError(f"{where}: {width}x{height} pixels, {most}; make it smaller")
    short, long = sorted((width, height))
    if short < limits.shortest or long > limits.aspect * short:
        least = f"at least {limits.shortest} a side and at most {limits.aspect:g} times as long as wide"
        raise SizeError(f"{where}: {width}x{height} pixels, {least}; crop it")


def upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """(H,W,3) as stored and its EXIF orientation 1..8 -> (H,W,3) or (W,H,3) as seen; other numbers change nothing."""
    # The axes are exchanged first, so the flips below are those of the image as seen.
    if 5 <= orientation <= 8:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _header(data: bytes, *, where: str) -> ImageFile:
    """A JPEG, PNG or WebP opened but not decoded."""
    format_class = _format_class(data)
    if format_class is None:
        raise FormatError(f"{where}: not a JPEG, PNG or WebP file")
    return _open_header(data, format_class, where=where)


def _open_header(data: bytes, opener: pillow_formats.Opener, *, where: str) -> ImageFile:
    """The file opened but not decoded."""
    # By class: `Image.open` tries every format it knows, and only warns of decompression bombs.
    try:
        header = opener(io.BytesIO(data))  # reads the header alone: about 0.04 ms of a photograph of 640x480
        frames = 1 if header.format == "HEIF" else getattr(header, "n_frames", 1)  # of a HEIC the primary image is read
    except DecompressionBombError:  # of WebP, which Pillow judges itself
        raise SizeError(f"{where}: far more pixels than are read; make it smaller") from None
    except pillow_formats.DAMAGED as error:
        raise DataError(f"{where}: damaged header: {error}") from None
    if frames > 1:
        kind = "a file of {} pages" if header.format == "TIFF" else "an animation of {} frames"
        raise FormatError(f"{where}: {kind.format(frames)}; give a still image")
    return header


def _format_class(data: bytes) -> type[ImageFile] | None:
    """First bytes of a file -> Pillow's class for it; None for any other format."""
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    return WebPImageFile if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def _decode_rgb(data: bytes) -> NDArray[np.uint8] | None:
    """The bytes of a file -> (H,W,3) uint8 RGB as stored, or None if they are damaged."""
    # OpenCV's own rotation depends on its version and the format; `upright` is the same for all.
    # OpenCV scales 16 bits to 8; Pillow's conversion to RGB would cut 16-bit grey off at white.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if stored is None:
        return None
    return np.asarray(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB), np.uint8)


def _exif(header: ImageFile, data: bytes) -> bytes:
    """The EXIF block of a file, a TIFF structure; empty if there is none."""
    block = header.info.get("exif") or (_png_exif(data) if header.format == "PNG" else b"")
    return bytes(block).removeprefix(b"Exif\x00\x00")


def _png_exif(data: bytes) -> bytes:
    """The eXIf chunk, which may also follow the pixels, where Pillow finds it only by decoding them."""
    offset = 8
    for _ in range(100_000):  # bounds the time a file of nothing but empty chunks takes
        if offset + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, offset)
        if kind == b"eXIf":
            return data[offset + 8 : offset + 8 + length]
        offset += 12 + length  # length, kind and checksum have four bytes each
    return b""


def _orientation(exif: bytes) -> int:
    """Entry 0x0112 of the first directory; 1, upright, where the block is missing or broken."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, directory)
        # Entries of 12 bytes: tag, type, count, and a short number in the first two of the last four.
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == 0x0112:
                return int(value)
    except struct.error:  # a broken block is common in photographs and no reason to refuse one
        pass
    return 1
