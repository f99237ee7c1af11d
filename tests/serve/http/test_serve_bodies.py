"""Bodies of requests over the HTTP API: every hostile one that needs no cluster, with its status."""

from __future__ import annotations

import gzip
import io
import resource
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from asgi import ask
from orientations import stored_as
from PIL import Image
from serve_backend import app, chunk, encoded, png, scene, wall
from serve_requests import PHOTO, depth, post, refused

JPEG = encoded(scene(), "JPEG", quality=95)
RAW = zlib.compress(b"".join(b"\0" + row.tobytes() for row in scene()))


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.fromarray(scene()), Image.fromarray(scene()[::-1].copy())]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]


def huge_webp() -> bytes:
    """A lossless WebP whose header claims all the pixels that a WebP can have."""
    stream = b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + bytes(20)
    body = b"WEBPVP8L" + struct.pack("<I", len(stream)) + stream + bytes(len(stream) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


BODIES: dict[str, tuple[int, bytes]] = {
    "1 empty": (400, b""),
    "2 four bytes": (415, b"\x01\x02\x03\x04"),
    "2 text": (415, b"hello"),
    "2 SVG": (415, b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "2 gzip": (415, gzip.compress(PHOTO)),
    "2 PDF": (415, b"%PDF-1.7\n"),
    "2 ELF": (415, b"\x7fELF\x02\x01\x01"),
    "2 zip": (415, b"PK\x03\x04" + bytes(40)),
    "2 pickle": (415, b"\x80\x04\x95\x1e\x00\x00\x00cposix\nsystem\n"),
    "3 JPEG cut in half": (400, JPEG[: len(JPEG) // 2]),
    "3 JPEG cut at 95 %": (400, JPEG[: len(JPEG) * 95 // 100]),
    "3 JPEG without its last byte": (400, JPEG[:-1]),
    "4 JPEG and junk": (200, JPEG + bytes(2**20)),
    "5 PNG with a wrong checksum": (400, flipped(PHOTO, PHOTO.index(b"IDAT") + 10)),
    "5 PNG cut": (400, PHOTO[: len(PHOTO) // 2]),
    "5 PNG without pixels": (400, png(48, 32)),
    "5 JPEG of headers": (400, JPEG[: JPEG.index(b"\xff\xda")]),
    "6 a header of 60000x60000": (422, png(60_000, 60_000, chunk(b"IDAT", b"0123456789"))),
    "6 a WebP header of 16383x16383": (422, huge_webp()),
    "7 1x1": (422, encoded(scene(1, 1))),
    "7 1x20000": (422, png(1, 20_000, chunk(b"IDAT", zlib.compress(bytes(80_000))))),
    "7 20000x1": (422, png(20_000, 1, chunk(b"IDAT", zlib.compress(bytes(60_001))))),
    "7 longer than 20 times its width": (422, encoded(scene(8, 200))),
    "7 33x47": (200, encoded(scene(33, 47))),
    "8 zTXt that inflates": (
        400,
        png(48, 32, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 * 10**7))), chunk(b"IDAT", RAW)),
    ),
    "8 iTXt that inflates": (
        400,
        png(48, 32, chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(2 * 10**7))), chunk(b"IDAT", RAW)),
    ),
    "8 iCCP that inflates": (
        400,
        png(48, 32, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2 * 10**7))), chunk(b"IDAT", RAW)),
    ),
    **{f"9 {mode}": (200, encoded(scene(), mode=mode)) for mode in ("RGBA", "LA", "P", "1", "L")},
    "9 16-bit grey": (200, encoded(scene()[..., 0].astype(np.uint16) * 257)),
    "9 16-bit RGB": (
        200,
        png(
            48,
            32,
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in scene()))),
            bits=16,
        ),
    ),
    "9 CMYK JPEG": (200, encoded(scene(), "JPEG", mode="CMYK")),
    "9 progressive": (200, encoded(scene(), "JPEG", progressive=True)),
    "9 4:1:1": (200, encoded(scene(), "JPEG", subsampling="4:1:1")),
    "9 JPEG of 12 bits": (400, JPEG[: JPEG.index(b"\xff\xc0") + 4] + b"\x0c" + JPEG[JPEG.index(b"\xff\xc0") + 5 :]),
    "9 WebP": (200, encoded(scene(), "WEBP")),
    "10 GIF": (415, animated("GIF")),
    "10 animated WebP": (415, animated("WEBP")),
    "10 animated PNG": (415, animated("PNG")),
    "10 TIFF": (415, encoded(scene(), "TIFF")),
    "10 BMP": (415, encoded(scene(), "BMP")),
    "10 HEIC": (415, b"\0\0\0\x18ftypheic" + bytes(100)),
    "10 AVIF": (415, b"\0\0\0\x18ftypavif" + bytes(100)),
    "10 JPEG-XL": (415, b"\xff\x0a" + bytes(100)),
    "11 EXIF of 10 MB": (200, png(48, 32, chunk(b"IDAT", RAW), chunk(b"eXIf", b"II*\0\x08\0\0\0" + bytes(10**7)))),
    "11 broken EXIF": (200, png(48, 32, chunk(b"IDAT", RAW), chunk(b"eXIf", b"MM\0*" + b"\xff" * 9))),
    "20 black": (200, encoded(np.zeros((32, 48, 3), np.uint8))),
    "20 white": (200, encoded(np.full((32, 48, 3), 255, np.uint8))),
    "20 noise": (200, encoded(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))),
}


@pytest.mark.parametrize(("status", "body"), BODIES.values(), ids=BODIES)
def test_bodies(status: int, body: bytes) -> None:
    reply = post(body, kind=None, path="/v1/depth?format=npy")
    if status == 200:
        assert np.isfinite(depth(reply)).all()
    else:
        refused(reply, status)


def test_a_bomb_is_refused_quickly_and_without_memory() -> None:
    row = zlib.compressobj(9)
    pixels = b"".join([row.compress(bytes(1501)) for _ in range(12_000)] + [row.flush()])
    bomb = png(12_000, 12_000, chunk(b"IDAT", pixels), bits=1, colour=0)
    assert len(bomb) < 60_000
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    refused(post(bomb), 422, "12000x12000")
    assert time.process_time() - start < 0.5  # 50 ms on an idle machine
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_gives_the_depth_of_the_upright_image(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = stored_as(scene(), orientation)
    assert (depth(post(encoded(stored, exif=exif), path="/v1/depth?format=npy")) == wall(scene())).all()


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("image/jpeg", PHOTO, 415),
        ("image/png", JPEG, 415),
        ("image/webp", JPEG, 415),
        ("text/plain", PHOTO, 415),
        ("application/json", b'{"inputs": "data:image/png;base64,AAAA"}', 415),
        ("application/json", b"[" * 10_000, 415),
        ("application/json", b'{"a": 1e400, "a": "\xff"}', 415),
        ("application/xml", b"<!DOCTYPE x>", 415),
        ("image/gif", PHOTO, 415),
        (None, PHOTO, 200),
        ("", PHOTO, 200),
        ("IMAGE/PNG", PHOTO, 200),
        ("image/png; charset=utf-8", PHOTO, 200),
        ("image/*", PHOTO, 200),
        ("application/octet-stream", JPEG, 200),
        ("x" * 20_000, PHOTO, 415),
        ("multipart/form-data", PHOTO, 400),
        ("multipart/form-data; boundary=", PHOTO, 400),
        ("multipart/form-data; boundary=nowhere", PHOTO, 400),
        ("application/x-npz", PHOTO, 415),
    ],
)
def test_content_types(kind: str | None, body: bytes, status: int) -> None:
    reply = post(body, kind)
    assert reply.status == status, reply.body[:300]
    if status != 200:
        refused(reply, status)


SMALL = app(limits={"body_bytes": 1000, "upload_seconds": 0.2})


@pytest.mark.parametrize("length", ["1001", "0", "10", "1" + "0" * 30, None])
def test_bodies_over_the_limit_whatever_they_claim(length: str | None) -> None:
    headers = [] if length is None else [("Content-Length", length)]
    reply = post(b"x" * 1001, to=SMALL, headers=headers)
    refused(reply, 413, "1000 bytes")
    assert reply.headers["connection"] == "close"


def test_a_body_that_never_ends_is_not_kept() -> None:
    pieces = 0

    def endless() -> Any:
        nonlocal pieces
        while True:
            pieces += 1
            yield b"x" * 400

    refused(ask(SMALL, "POST", "/v1/depth", body=endless()), 413)
    assert pieces == 3


def test_an_announced_excess_is_refused_before_it_is_read() -> None:
    def forbidden() -> Any:
        pytest.fail("the body was read")
        yield b""

    refused(ask(SMALL, "POST", "/v1/depth", body=forbidden(), headers=[("Content-Length", "5000")]), 413)


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "０"])
def test_lengths_that_are_no_numbers(length: str) -> None:
    refused(post(headers=[("Content-Length", length.encode("utf-8").decode("latin1"))]), 400)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "GZIP", "identity, gzip"])
def test_compressed_bodies(coding: str) -> None:
    refused(post(gzip.compress(PHOTO), headers=[("Content-Encoding", coding)]), 415)


def test_a_slow_body() -> None:
    refused(ask(SMALL, "POST", "/v1/depth", body=[b"x", 0.5, b"y"]), 408)


def test_a_client_that_leaves_while_sending() -> None:
    assert ask(SMALL, "POST", "/v1/depth", body=[b"x", None]).status == 400
