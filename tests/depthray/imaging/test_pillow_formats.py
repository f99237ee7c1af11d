"""TIFF, BMP, GIF, PPM and HEIC from one's own disk: read as other photographs are, under the same limits."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from orientations import stored_as
from PIL import Image

from depthray.errors import DataError
from depthray.imaging import photos


def scene(height=32, width=48):
    """A smooth image unlike itself under every flip and turn."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 5, y * 7, (x + y) * 2], -1).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def sixteen_bits(kind, planes):
    """The scene as a file of 16 bits a channel, which Pillow writes of grey alone."""
    values = scene()[..., :planes].astype(np.uint16) * 257
    if kind == "TIFF":
        return encoded(Image.fromarray(values[..., 0]), "TIFF")
    return b"P%d\n48 32\n65535\n" % (5 if planes == 1 else 6) + values.astype(">u2").tobytes()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("BMP", {}),
        ("PPM", {}),
    ],
)
def test_formats_without_loss_are_read_as_they_are(kind, options, tmp_path):
    (tmp_path / "wrongly-named.jpg").write_bytes(encoded(scene(), kind, **options))
    assert (photos.read(tmp_path / "wrongly-named.jpg") == scene()).all()


def test_a_gif_is_read_in_its_palette():
    expected = np.asarray(Image.open(io.BytesIO(encoded(scene(), "GIF"))).convert("RGB"))
    assert (photos.decode_any(encoded(scene(), "GIF")) == expected).all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_modes_of_tiff_become_rgb(mode):
    expected = np.asarray(Image.fromarray(scene()).convert(mode).convert("RGB"))
    assert (photos.decode_any(encoded(Image.fromarray(scene()).convert(mode), "TIFF")) == expected).all()


def test_transparent_pixels_of_a_palette_keep_their_colour():
    palette = Image.fromarray(scene()).quantize(16)
    data = encoded(palette, "GIF", transparency=3)
    assert (photos.decode_any(data) == np.asarray(palette.convert("RGB"))).all()


@pytest.mark.parametrize(("kind", "planes"), [("TIFF", 1), ("PPM", 1), ("PPM", 3)])
def test_sixteen_bits_become_eight(kind, planes):
    read = photos.decode_any(sixteen_bits(kind, planes))
    assert read.dtype == np.uint8 and np.abs(read.astype(int) - scene()[..., :planes]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_by_its_orientation_once(orientation):
    data = encoded(stored_as(scene(), orientation), "TIFF", tiffinfo={0x0112: orientation})
    assert (photos.decode_any(data) == scene()).all()


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_heic_of_a_phone_is_read_upright(orientation):
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(stored_as(scene(64, 96), orientation))).save(
        buffer, quality=-1, chroma=444, matrix_coefficients=0, exif=exif.tobytes()
    )
    assert np.abs(photos.decode_any(buffer.getvalue()).astype(int) - scene(64, 96)).max() <= 3
    with pytest.raises(DataError, match="damaged"):
        photos.decode_any(buffer.getvalue()[:-200])
    with pytest.raises(photos.SizeError, match="pixels, at most"):
        photos.decode_any(buffer.getvalue(), limits=photos.PhotoLimits(pixels=1000))


def test_a_heic_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r"IMG_1\.HEIC: HEIC needs the package pillow-heif: pip install"):
        photos.decode_any(b"\0\0\0\x18ftypheic" + bytes(40), where="IMG_1.HEIC")


def paged(kind):
    frames = [Image.fromarray(scene()), Image.fromarray(scene()[::-1].copy())]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


FLOATS = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
REFUSED = {
    "text that begins as a bitmap": (b"BMW is a car maker", "not a JPEG, PNG, WebP, TIFF, BMP, GIF, PPM or HEIC file"),
    "text that begins as a pixmap": (b"P5000 is a name", "not a JPEG, PNG"),
    "two pages": (paged("TIFF"), "a file of 2 pages; give a still image"),
    "an animation": (paged("GIF"), "an animation of 2 frames; give a still image"),
    "numbers": (FLOATS, "holds floating-point numbers, which are no colours"),
    "too large": (b"P6\n20000 10\n255\n", "20000x10 pixels, at most"),
    "a header alone": (b"P6\n20 10\n255\n", "damaged, incomplete or unusual PPM"),
    **{f"half a {kind}": (encoded(scene(), kind)[:600], "damaged") for kind in ("TIFF", "BMP", "PPM", "GIF")},
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_named(data, message):
    with pytest.raises(DataError, match=rf"^mine\.x: .*{message}"):
        photos.decode_any(data, where="mine.x")


def test_a_server_is_sent_formats_of_the_web_alone(tmp_path):
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        (tmp_path / kind).write_bytes(encoded(scene(), kind))
    assert [photos.is_of_web(tmp_path / kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP")] == [True] * 3 + [
        False
    ] * 2
    with pytest.raises(photos.FormatError, match="not a JPEG, PNG or WebP file"):
        photos.decode((tmp_path / "BMP").read_bytes())
