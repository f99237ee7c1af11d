"""The HTTP API over a fake backend: the contract, and every hostile input that needs no cluster, with its code."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import resource
import struct
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from asgi import Reply, ask, call, form
from PIL import Image
from serve_backend import Fake, app, chunk, encoded, npy, npz, png, scene, wall

from depthray.errors import UsageError
from serve import auth
from serve.backend import Broken, Busy, NotReady, TimedOut

PHOTO = encoded(scene())
JPEG = encoded(scene(), "JPEG", quality=95)
RAW = zlib.compress(b"".join(b"\0" + row.tobytes() for row in scene()))
KEY, OTHER = "k" * 32, "another-key-of-the-service"
API = app()


def post(
    body: bytes = PHOTO, kind: str | None = "image/png", *, path: str = "/v1/depth", to: Any = API, **more: Any
) -> Reply:
    headers = [("Content-Type", kind)] if kind is not None else []
    return ask(to, "POST", path, body=body, headers=[*headers, *more.pop("headers", [])], **more)


def depth(reply: Reply) -> np.ndarray:
    assert reply.status == 200, reply.body[:300]
    return np.load(io.BytesIO(reply.body))


def refused(reply: Reply, status: int, *words: str) -> dict[str, Any]:
    """See that a reply is a proper problem document of the status."""
    assert reply.status == status, reply.body[:300]
    assert reply.kind == "application/problem+json"
    tree = reply.tree
    assert tree["status"] == status and tree["error"] == tree["detail"] and tree["title"]
    assert tree["instance"] == "urn:request:" + reply.headers["x-request-id"]
    for word in words:
        assert word in tree["detail"]
    for secret in ("Traceback", "/tmp", "/root", "/work", " 0x", ".py"):
        assert secret not in reply.body.decode()
    return tree


# ---- The contract ----------------------------------------------------------------------------------------------------


def test_a_picture_gives_millimetres() -> None:
    reply = post()
    stored = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert reply.status == 200 and reply.kind == "image/png" and stored.dtype == np.uint16
    assert np.abs(stored / 1000 - wall(scene())).max() <= 0.0005001
    expected = {"x-depth-unit": "mm", "x-depth-scale": "0.001", "x-model": "room@0123456789ab"}
    assert expected.items() <= reply.headers.items()
    assert reply.headers["x-model-input-size"] == "32x24" and reply.headers["cache-control"] == "no-store"
    stages = {part.split(";")[0].strip() for part in reply.headers["server-timing"].split(",")}
    assert {"decode", "queue", "model", "encode"} <= stages


def test_what_curl_sends_unasked() -> None:
    assert post(kind="application/x-www-form-urlencoded", headers=[("Accept", "*/*")]).status == 200


@pytest.mark.parametrize("form_name", ["png", "npy", "npz", "colour", "ply", "glb"])
def test_formats(form_name: str) -> None:
    assert post(path=f"/v1/depth?format={form_name}").status == 200


def test_models_by_name_and_version_and_native_size() -> None:
    fake = Fake()
    api = app(fake)
    assert post(to=api, path="/v1/models/room@0123456789ab/depth?size=model&format=npy").status == 200
    assert fake.seen[0][0] == "room@0123456789ab" and fake.seen[0][3]


def test_further_inputs_reach_the_model_and_missing_ones_are_named() -> None:
    fake = Fake()
    sparse = np.full((32, 48), 2.0, np.float32)
    body, headers = form(("image", PHOTO), ("sparse", npy(sparse)))
    assert ask(app(fake), "POST", "/v1/models/completion/depth", body=body, headers=headers).status == 200
    assert (fake.seen[0][2]["sparse"] == sparse).all()
    refused(post(path="/v1/models/completion/depth"), 422, "needs sparse")
    archive = post(npz(image=scene(), background=scene()), "application/x-npz", path="/v1/models/cutout/depth")
    assert archive.status == 200 and archive.headers["x-plane"] == "mask"


def test_lists_of_models() -> None:
    tree = ask(API, "GET", "/v1/models").tree
    assert [card["name"] for card in tree["models"]] == ["room", "completion", "cutout"]
    assert tree["models"][0]["default"] and tree["models"][1]["inputs"] == ["image", "sparse"]
    assert tree["limits"]["pixels"] == 25_000_000
    assert ask(API, "GET", "/v1/models/room").tree["id"] == "room@0123456789ab"
    refused(ask(API, "GET", "/v1/models/none"), 404)


def test_health() -> None:
    fake = Fake()
    assert ask(app(fake), "GET", "/v2/health/live").tree == {"live": True}
    for up, status in ((True, 200), (False, 503), (NotReady("loading"), 503)):
        fake.up = up
        assert ask(app(fake), "GET", "/v2/health/ready").status == status


def test_documentation_needs_no_other_server() -> None:
    tree = ask(API, "GET", "/openapi.json").tree
    assert {"/v1/depth", "/v1/models/{name}/depth", "/v1/depth:batch", "/v1/models"} <= {*tree["paths"]}
    page = ask(API, "GET", "/docs").body.decode()
    assert "POST /v1/depth" in page and "fov" in page and "http" not in page and "<script" not in page


def test_the_page_and_its_files() -> None:
    start = ask(API, "GET", "/")
    assert start.status == 200 and b"<html" in start.body and start.headers["x-frame-options"] == "DENY"
    assert ask(API, "GET", "/page/page.js").status == 200
    for path in ("/page/../api.py", "/page/%2e%2e/api.py", "/page//etc/passwd", "/page/none"):
        assert ask(API, "GET", path).status == 404
    assert ask(app(page=False), "GET", "/").status == 404


def test_request_ids() -> None:
    assert post(headers=[("X-Request-ID", "abc-1")]).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "<script>", ""):
        given = post(headers=[("X-Request-ID", bad)]).headers["x-request-id"]
        assert given != bad and len(given) == 32


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/depth", 405), ("POST", "/nothing", 404)])
def test_wrong_addresses(method: str, path: str, status: int) -> None:
    refused(ask(API, method, path), status, "/docs")


# ---- Bodies ----------------------------------------------------------------------------------------------------------


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
def test_every_orientation_gives_the_depth_of_the_upright_picture(orientation: int) -> None:
    turns: dict[int, Any] = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1)}
    turns |= {6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(turns.get(orientation, lambda a: a)(scene()))
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


# ---- Words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("fx=-1", 422),
        ("fx=NaN", 400),
        ("cmap=../../etc/passwd", 400),
        ("fov=60&fov=61", 400),
        ("fov=%00", 400),
        ("fov=%F0%9F%98%80", 400),
        ("fov=%ff%fe", 400),
        ("x" * 2**20, 400),
        ("&".join(f"a{number}=1" for number in range(600)), 400),
        ("url=http://169.254.169.254/", 400),
        ("path=/etc/passwd", 400),
        ("fov", 200),
        ("&&&", 200),
    ],
)
def test_queries(query: str, status: int) -> None:
    reply = post(path=f"/v1/depth?{query}")
    assert reply.status == status or query == "fov" and reply.status in (200, 400)
    if reply.status != 200:
        refused(reply, reply.status)


@pytest.mark.parametrize(
    ("accept", "status"), [("*/*", 200), ("", 200), ("text/html", 406), ("image/webp;q=0.1, */*;q=0", 200)]
)
def test_accept_headers(accept: str, status: int) -> None:
    assert post(headers=[("Accept", accept)]).status == status


@pytest.mark.parametrize(
    "name",
    ["../x", "%2e%2e", "..", "%2e%2e%2fetc%2fpasswd", "/etc/passwd", "x" * 10_240, "%F0%9F%98%80", "", "ROOM", "room@",
     "room@%2e%2e", "room@ffffffffffff", "none", "room%00", "-room", "room@a@b"],
)  # fmt: skip
def test_model_names(name: str) -> None:
    refused(post(path=f"/v1/models/{name}/depth"), 404)


# ---- Keys ------------------------------------------------------------------------------------------------------------

LOCKED = app(None, KEY, OTHER)
GATES: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "wrong": [("Authorization", "Bearer wrong")],
    "empty": [("Authorization", "")],
    "bearer without a key": [("Authorization", "Bearer ")],
    "bearer alone": [("Authorization", "Bearer")],
    "basic": [("Authorization", f"Basic {KEY}")],
    "key alone": [("Authorization", KEY)],
    "two headers": [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")],
    "two kinds": [("Authorization", f"Bearer {KEY}"), ("X-API-Key", KEY)],
    "another case": [("Authorization", f"Bearer {KEY.upper()}")],
    "the beginning": [("Authorization", f"Bearer {KEY[:-1]}")],
    "more": [("Authorization", f"Bearer {KEY}x")],
    "a megabyte": [("Authorization", "Bearer " + KEY * 32_768)],
    "no ASCII": [("Authorization", "Bearer \xff\xfe")],
    "empty key": [("X-API-Key", "")],
}


@pytest.mark.parametrize("headers", GATES.values(), ids=GATES)
@pytest.mark.parametrize("path", ["/v1/depth", "/v1/models/room/depth", "/v1/depth:batch"])
def test_keys_that_do_not_open(headers: list[tuple[str, str]], path: str) -> None:
    def forbidden() -> Any:
        pytest.fail("the body was read before the key was checked")
        yield b""

    reply = ask(LOCKED, "POST", path, body=forbidden(), headers=headers)
    refused(reply, 401)
    assert reply.headers["www-authenticate"].startswith("Bearer") and KEY not in reply.body.decode()


@pytest.mark.parametrize(
    "header", [("Authorization", f"Bearer {KEY}"), ("authorization", f"bearer  {OTHER} "), ("X-API-Key", OTHER)]
)
def test_keys_that_open(header: tuple[str, str]) -> None:
    assert post(to=LOCKED, headers=[header]).status == 200


def test_what_needs_no_key() -> None:
    for path in ("/", "/page/page.js", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"):
        assert ask(LOCKED, "GET", path).status == 200
    for path in ("/v1/models", "/v1/models/room"):
        refused(ask(LOCKED, "GET", path), 401)


def test_keys_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the robots\n{KEY}\n\n  {OTHER}  \n")
    keys = auth.load(file, environment={auth.VARIABLE: f"{'e' * 20}, {'f' * 20}"})
    for key in (KEY, OTHER, "e" * 20, "f" * 20):
        keys.check(_headers(key))
    assert not auth.load(None, environment={}) and "kkkk" not in repr(vars(keys))


def _headers(key: str) -> Any:
    from starlette.datastructures import Headers

    return Headers({"x-api-key": key})


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "two words that are long enough\n", "é" * 20 + "\n"])
def test_key_files_that_hold_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        auth.load(file, environment={})
    assert str(file) in str(caught.value) and not (text.strip() and text.strip() in str(caught.value))
    with pytest.raises(UsageError, match="cannot be read"):
        auth.load(tmp_path / "none", environment={})


# ---- Faults behind it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "after"),
    [
        (Busy(retry_after=2.4), 429, "2"),
        (Busy(retry_after=0.1), 429, "1"),
        (NotReady("the model is loading", retry_after=5), 503, "5"),
        (TimedOut("late"), 504, None),
        (TimeoutError(), 504, None),
        (Broken("CUDA error at /root/x.py 0xdead"), 500, None),
        (RuntimeError("secret /root/x.py 0xdead"), 500, None),
        (KeyError("secret"), 500, None),
        (lambda rgb: np.full(rgb.shape[:2], np.nan, np.float32), 500, None),
    ],
)
def test_faults_of_the_backend(fault: Any, status: int, after: str | None, caplog: pytest.LogCaptureFixture) -> None:
    fake = Fake()
    fake.fault = fault
    reply = post(to=app(fake))
    tree = refused(reply, status)
    assert reply.headers.get("retry-after") == after
    if status == 500:
        assert "secret" not in reply.body.decode() and tree["instance"]
    if isinstance(fault, RuntimeError):
        assert reply.headers["x-request-id"] in caplog.text and "secret" in caplog.text


def test_a_backend_that_never_answers() -> None:
    class Stuck(Fake):
        async def predict(self, *_: Any, **__: Any) -> Any:
            await asyncio.sleep(60)

    start = time.perf_counter()
    refused(post(to=app(Stuck(), timeout_seconds=0.1)), 504)
    assert time.perf_counter() - start < 10


def test_many_at_once_do_not_mix() -> None:
    pictures = [encoded(np.full((16, 16 + number, 3), number * 5, np.uint8)) for number in range(24)]

    async def all_of_them() -> list[Reply]:
        return await asyncio.gather(*(call(API, "POST", "/v1/depth?format=npy", body=data) for data in pictures))

    for number, reply in enumerate(asyncio.run(all_of_them())):
        assert (depth(reply) == wall(np.full((16, 16 + number, 3), number * 5, np.uint8))).all()


# ---- Batches ---------------------------------------------------------------------------------------------------------


def batch(*pictures: bytes, to: Any = API, query: str = "") -> Reply:
    body, headers = form(*(("image", picture) for picture in pictures))
    return ask(to, "POST", f"/v1/depth:batch{query}", body=body, headers=headers)


def unpacked(reply: Reply) -> tuple[list[dict[str, Any]], zipfile.ZipFile]:
    assert reply.status == 200 and reply.kind == "application/zip", reply.body[:300]
    archive = zipfile.ZipFile(io.BytesIO(reply.body))
    return json.loads(archive.read("index.json"))["images"], archive


def test_one_bad_picture_among_fifteen_good() -> None:
    sizes = [(16 + number, 40 - number) for number in range(16)]
    pictures = [encoded(scene(*size)) for size in sizes]
    pictures[5] = pictures[5][:60]
    entries, archive = unpacked(batch(*pictures, query="?format=npy"))
    assert [entry["status"] for entry in entries] == [400 if place == 5 else 200 for place in range(16)]
    assert entries[5]["problem"]["detail"].startswith("image: damaged")
    for entry, size in zip(entries, sizes, strict=True):
        if entry["status"] == 200:
            assert (np.load(io.BytesIO(archive.read(entry["file"]))) == wall(scene(*size))).all()
            assert entry["headers"]["X-Model"] == "room@0123456789ab"


def test_a_network_that_fails_for_one_of_a_batch() -> None:
    class Picky(Fake):
        async def predict(self, model: str, rgb: np.ndarray, *rest: Any, **more: Any) -> Any:
            if rgb.shape[0] == 20:
                raise RuntimeError("secret")
            return await super().predict(model, rgb, *rest, **more)

    entries, _ = unpacked(batch(encoded(scene(20, 20)), PHOTO, PHOTO, to=app(Picky())))
    assert [entry["status"] for entry in entries] == [500, 200, 200] and "secret" not in str(entries)


def test_a_batch_has_limits_as_a_whole() -> None:
    api = app(limits={"batch_images": 3, "batch_pixels": 4000, "body_bytes": 100_000})
    entries, _ = unpacked(batch(PHOTO, PHOTO, PHOTO, to=api))  # 1536 pixels each
    assert [entry["status"] for entry in entries] == [200, 200, 422]
    refused(batch(*[PHOTO] * 4, to=api), 422, "1 to 3")
    refused(batch(*[bytes(40_000)] * 3, to=api), 413)


def test_a_whole_batch_without_an_answer() -> None:
    fake = Fake()
    fake.fault = Busy(retry_after=3)
    reply = batch(PHOTO, PHOTO, to=app(fake))
    refused(reply, 429)
    assert reply.headers["retry-after"] == "3"
    refused(batch(PHOTO, query="?model=none"), 404)
    refused(batch(PHOTO, query="?model=../x"), 404)
    refused(batch(PHOTO, query="?model=room&model=room"), 400)
    refused(post(path="/v1/depth:batch"), 415)
    refused(batch(), 422)
