"""Photographs that Pillow decodes: TIFF, BMP, GIF, PPM and, by the package pillow-heif, HEIC -> upright RGB.

`depthray.imaging.photos` knows the formats of the web, checks the limits, and calls this module for the others.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import DecompressionBombError, Image
from PIL.ImageFile import ImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from depthray.errors import DataError

Opener = Callable[[io.BytesIO], ImageFile]

NAMES = "TIFF, BMP, GIF, PPM or HEIC"
INSTALL = "pip install 'depthray[heif]'"
_STARTS: dict[bytes, Opener] = {
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"BM": BmpImageFile,
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
    **{f"P{digit}".encode(): PpmImageFile for digit in range(1, 7)},
}
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# What Pillow raises for damaged files depends on the format and on the byte that is wrong.
DAMAGED = (
    *(OSError, SyntaxError, ValueError, OverflowError, MemoryError, EOFError, struct.error),
    *(KeyError, IndexError, TypeError, AttributeError, RuntimeError, AssertionError),
)


def find_opener(data: bytes, *, where: str) -> Opener | None:
    """First bytes of a file -> what opens it; None for other formats. A DataError for HEIC without pillow-heif."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return _heif_opener(where)
    opener = next((found for start, found in _STARTS.items() if data.startswith(start)), None)
    # Two bytes are too little to tell text that happens to begin with BM or P5.
    if opener is BmpImageFile and data[6:10] != bytes(4):
        return None
    return None if opener is PpmImageFile and data[2:3] not in (b" ", b"\n", b"\r", b"\t", b"#") else opener


def _heif_opener(where: str) -> Opener:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        message = f"{where}: HEIC needs the package pillow-heif: {INSTALL}, or save the photograph as JPEG"
        raise DataError(message) from None
    opener: Opener = HeifImageFile
    return opener


def decode(header: ImageFile, *, where: str) -> NDArray[np.uint8]:
    """A file whose size has passed the limits -> (H,W,3) uint8 RGB, turned by its orientation."""
    try:
        with warnings.catch_warnings():
            # Of odd metadata, which matter to nobody here, and of sizes, which the caller has checked.
            warnings.simplefilter("ignore")
            header.load()
            return to_rgb(header, where=where)
    except DecompressionBombError:
        raise DataError(f"{where}: far more pixels than are read; make it smaller") from None
    except DataError:
        raise
    except DAMAGED:
        message = f"{where}: damaged, incomplete or unusual {header.format} file; save it again, or as PNG"
        raise DataError(message) from None


def to_rgb(image: Image, *, where: str) -> NDArray[np.uint8]:
    """An image of Pillow -> (H,W,3) uint8 RGB, upright: alpha is dropped, 16 bits a channel become 8."""
    form = image.format  # a copy has none
    # Pillow itself turns a TIFF when it loads it, and pillow-heif a HEIC: both forget the orientation then.
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and form in ("PPM", "PNG")):
        # `convert` would cut 16-bit grey off at white.
        return grey_to_rgb(reduce_bits(np.asarray(image).astype(np.uint16)))
    if image.mode in ("I", "F"):
        kind = "32-bit" if image.mode == "I" else "floating-point"
        raise DataError(f"{where}: holds {kind} numbers, which are no colours; a photograph has 8 or 16 bits a channel")
    if "transparency" in image.info:  # of palettes; `convert` would blend by it
        image = image.copy()
        del image.info["transparency"]
    if image.mode in ("RGBa", "La"):
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    return np.asarray(image.convert("RGB"), np.uint8)


def reduce_bits(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Any shape of 16-bit numbers -> 8-bit, white to white."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def grey_to_rgb(grey: NDArray[Any]) -> NDArray[Any]:
    """(H,W) -> (H,W,3)."""
    return np.repeat(grey[..., None], 3, axis=2)
