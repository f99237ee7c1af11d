"""Photographs from outside: every orientation and mode read alike, hostile files refused before they are decoded."""

from __future__ import annotations

import io
import resource
import struct
import time
import zlib

import numpy as np
import pytest
from orientations import stored_as
from PIL import Image

from depthray.errors import DataError
from depthray.imaging import photos


def scene(height=32, width=48):
    """A smooth image unlike itself under every flip and turn; smooth so that JPEG keeps it."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 5, y * 7, (x + y) * 2], -1).astype(np.uint8)


def encoded(array, kind="PNG", *, mode=None, **options):
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, *chunks, bits=8, colour=2):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_shown_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    read = photos.decode(encoded(stored_as(scene(), orientation), kind, exif=exif, **options))
    assert read.shape == (32, 48, 3) and np.abs(read.astype(int) - scene()).max() <= 4 * (kind == "JPEG")


@pytest.mark.parametrize(
    "exif", [b"", b"junk", b"II*\0", b"MM\0*" + b"\xff" * 4, b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01"]
)
def test_broken_exif_means_upright(exif):
    data = png(
        48, 32, chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in scene()))), chunk(b"eXIf", exif)
    )
    assert (photos.decode(data) == scene()).all()


def test_exif_behind_the_pixels_counts():
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in scene())))
    exif = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 3, 0)
    assert (photos.decode(png(48, 32, body, chunk(b"eXIf", exif))) == scene()[::-1, ::-1]).all()


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1", "RGB"])
def test_modes_of_png_become_rgb_and_alpha_is_dropped(mode):
    expected = np.asarray(Image.fromarray(scene()).convert(mode).convert("RGB"))
    assert np.abs(photos.decode(encoded(scene(), mode=mode)).astype(int) - expected).max() <= 1


def test_transparent_pixels_keep_their_colour():
    rgba = np.dstack([scene(), np.zeros((32, 48), np.uint8)])
    assert (photos.decode(encoded(rgba)) == scene()).all()


@pytest.mark.parametrize(("colour", "planes"), [(0, 1), (2, 3)])
def test_sixteen_bits_become_eight(colour, planes):
    values = (scene()[..., :planes].astype(">u2") * 257).astype(">u2")
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    read = photos.decode(png(48, 32, chunk(b"IDAT", body), bits=16, colour=colour))
    assert read.dtype == np.uint8 and np.abs(read.astype(int) - scene()[..., :planes]).max() <= 1


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": "4:1:1"}, {"mode": "CMYK"}, {"mode": "L"}])
def test_kinds_of_jpeg(options):
    data = encoded(scene(), "JPEG", quality=100, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)
    assert np.abs(photos.decode(data) - expected).mean() < 3


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (1, 2000)])
def test_odd_sizes(size):
    assert photos.decode(encoded(scene(*size))).shape == (*size, 3)


def test_bytes_after_the_end_of_a_jpeg_are_ignored():
    data = encoded(scene(), "JPEG")
    assert (photos.decode(data + b"junk" * 250_000) == photos.decode(data)).all()


CUTS = {f"{kind} cut to {part}": (kind, part) for kind in ("JPEG", "PNG", "WEBP") for part in (0.1, 0.5, 0.95)}


@pytest.mark.parametrize(("kind", "part"), CUTS.values(), ids=CUTS)
def test_a_cut_file_is_refused(kind, part):
    data = encoded(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), kind)
    with pytest.raises(DataError, match=r"^holiday\.jpg: damaged"):
        photos.decode(data[: int(len(data) * part)], where="holiday.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_short_of_its_last_byte_is_refused(kind):
    with pytest.raises(DataError, match="damaged"):
        photos.decode(encoded(scene(200, 300), kind)[:-1])


def test_png_with_a_wrong_checksum_or_without_pixels_is_refused():
    data = bytearray(encoded(scene()))
    data[data.index(b"IDAT") + 20] ^= 255
    for bad in (bytes(data), png(48, 32), png(0, 0)):
        with pytest.raises(DataError, match="damaged"):
            photos.decode(bad)


FOREIGN = [
    b"",
    b"\0\1\2\3",
    b"some text",
    b"<svg/>",
    b"\x1f\x8b\x08",
    b"%PDF-1.7",
    b"\x7fELF",
    b"PK\3\4",
    b"RIFF\0\0\0\0WAVE",
]


@pytest.mark.parametrize("data", [*FOREIGN, *(encoded(scene(), kind) for kind in ("GIF", "BMP", "TIFF"))])
def test_other_formats_are_refused(data):
    with pytest.raises(photos.FormatError, match="not a JPEG, PNG or WebP file"):
        photos.decode(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind):
    frames = [Image.fromarray(scene()), Image.fromarray(scene()[::-1].copy())]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(photos.FormatError, match="an animation of 2 frames"):
        photos.decode(buffer.getvalue())


def solid(side):
    packer = zlib.compressobj(1)
    line = bytes(1 + side * 3)
    body = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    return png(side, side, chunk(b"IDAT", body))


@pytest.mark.parametrize(
    "data", [png(60000, 60000), png(20000, 1), png(1, 20000), solid(9000)], ids=["claimed", "wide", "tall", "real"]
)
def test_bombs_are_refused_by_their_header(data):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(photos.SizeError, match=r"\d+x\d+ pixels, at most 64 million in all and 16384 a side"):
        photos.decode(data)
    assert time.process_time() - start < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_limits_can_be_tightened():
    assert photos.decode(encoded(scene()), limits=photos.PhotoLimits(pixels=32 * 48)).shape == (32, 48, 3)
    with pytest.raises(photos.SizeError, match="48x32 pixels"):
        photos.decode(encoded(scene()), limits=photos.PhotoLimits(pixels=32 * 48 - 1))


def test_text_that_inflates_is_refused_before_the_pixels():
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200_000_000)))
    with pytest.raises(DataError, match="damaged header"):
        photos.decode(png(48, 32, text))


def test_a_file_of_empty_chunks_does_not_keep_us_busy():
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in scene())))
    start = time.process_time()
    assert photos._png_exif(png(48, 32, body, chunk(b"abCd", b"") * 1_000_000)) == b""
    assert time.process_time() - start < 0.5


def test_files_missing_or_too_large_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg: no such file"):
        photos.read(tmp_path / "gone.jpg")
    (tmp_path / "a.png").write_bytes(encoded(scene()))
    with pytest.raises(photos.SizeError, match=r"a\.png: larger than 0 MiB"):
        photos.read(tmp_path / "a.png", limits=photos.PhotoLimits(bytes=100))
    assert (photos.read(tmp_path / "a.png") == scene()).all()
