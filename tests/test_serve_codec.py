"""Bytes to arrays and back: what clients send is read as meant or refused, and every format says the same depth."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from typing import Any

import cv2
import numpy as np
import pytest
from asgi import form
from serve_backend import encoded, npy, npz, scene, wall

from depthray.errors import DataError
from serve import arrays, codec, multipart, options
from serve.options import Options
from serve.problems import Problem
from serve.settings import Limits

BOUNDS = Limits()  # type: ignore[call-arg]
DEPTH = wall(scene())
ROWS = [("png", "image/png"), ("npy", "application/x-npy"), ("npz", "application/x-npz")]


def read(body: bytes, kind: str = "", bounds: Limits = BOUNDS) -> codec.Picture:
    return codec.read(body, kind, bounds)


def parts(*fields: tuple[str, bytes]) -> tuple[bytes, str]:
    body, [(_, kind)] = form(*fields)
    return body, kind


def write(query: str = "", accept: str | None = None, **maps: np.ndarray) -> codec.Encoded:
    pairs = [tuple(pair.split("=")) for pair in query.split("&") if pair]
    return codec.write(maps or {"depth": DEPTH}, scene(), options.parse(pairs, accept), points=4_000_000)  # type: ignore[arg-type]


def vertices(ply: bytes) -> np.ndarray:
    head, _, body = ply.partition(b"end_header\n")
    count = int(head.split(b"element vertex ")[1].split(b"\n")[0])
    cloud = np.frombuffer(body, np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))
    assert len(cloud) == count
    return cloud


# ---- In --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image/png", "", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_a_raw_body(kind: str) -> None:
    given = read(encoded(scene()), kind)
    assert (given.rgb == scene()).all() and not given.others


def test_a_form_with_every_input() -> None:
    sparse = np.zeros((32, 48), np.uint16)
    sparse[3, 4] = 2500
    ids = np.arange(32 * 48).reshape(32, 48) % 200
    fields = [("image", encoded(scene())), ("background", encoded(scene()[::-1])), ("sparse", encoded(sparse))]
    given = read(*parts(*fields, ("semantics", encoded(ids.astype(np.uint8))), ("instances", npy(ids))))
    assert (given.others["background"] == scene()[::-1]).all()
    assert given.others["sparse"].dtype == np.float32 and given.others["sparse"][3, 4] == 2.5
    assert given.others["sparse"].sum() == 2.5
    for key in ("semantics", "instances"):
        assert given.others[key].dtype == np.int32 and (given.others[key] == ids).all()


@pytest.mark.parametrize("deflated", [False, True])
def test_an_npz_archive(deflated: bool) -> None:
    sparse = np.linspace(0, 5, 32 * 48, dtype=">f8").reshape(32, 48)
    given = read(npz(deflated=deflated, image=scene(), sparse=sparse), "application/x-npz")
    assert (given.rgb == scene()).all()
    assert np.allclose(given.others["sparse"], sparse) and given.others["sparse"].dtype == np.float32


def test_numbers_come_back_in_every_order_and_kind() -> None:
    for array in (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(24, dtype=">i2").reshape(2, 3, 4))):
        assert (arrays.npy(npy(array), where="x") == array).all()


MISFITS: dict[str, tuple[Any, ...]] = {
    "another size": (422, "sparse is 48x31", ("image", encoded(scene())), ("sparse", npy(np.ones((31, 48))))),
    "no image": (422, "no part 'image'", ("sparse", npy(np.ones((32, 48))))),
    "unknown part": (400, "unknown part 'url'", ("image", encoded(scene())), ("url", b"http://169.254.169.254/")),
    "twice": (400, "given twice", ("image", encoded(scene())), ("image", encoded(scene()))),
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)
def test_forms_that_do_not_fit(misfit: tuple[Any, ...]) -> None:
    status, words, *fields = misfit
    with pytest.raises(Problem, match=words) as caught:
        read(*parts(*fields))
    assert caught.value.status == status


FORMS = {
    "boundary that never comes": b"--other\r\n\r\n\r\n--other--\r\n",
    "no closing boundary": b'--cut\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n',
    "no headers": b"--cut\r\nx\r\n--cut--\r\n",
    "no name": b"--cut\r\nContent-Disposition: form-data\r\n\r\nx\r\n--cut--\r\n",
    "not UTF-8": b'--cut\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--cut--\r\n',
    "an attachment": b'--cut\r\nContent-Disposition: attachment; name="image"\r\n\r\nx\r\n--cut--\r\n',
    "base64": b'--cut\r\nContent-Disposition: form-data; name="image"\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\nx\r\n--cut--\r\n",
    "words before it": b'hello\r\n--cut\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--cut--\r\n',
    "too many": b"".join(b'--cut\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n' for _ in range(9))
    + b"--cut--\r\n",
    "huge headers": b"--cut\r\nContent-Disposition: form-data; name=" + b"x" * 9000 + b"\r\n\r\nx\r\n--cut--\r\n",
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_broken_forms(body: bytes) -> None:
    with pytest.raises(DataError, match="^multipart: "):
        multipart.parse(body, "cut", most=5)


@pytest.mark.parametrize("boundary", ["", "x" * 71, "a\nb", "é"])
def test_boundaries_that_are_none(boundary: str) -> None:
    with pytest.raises(DataError, match="boundary"):
        multipart.parse(b"--\r\n", boundary, most=5)


def header(text: bytes, data: bytes = b"\0" * 24, *, length: int | None = None) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) if length is None else length) + text + data


HEADERS = {
    "pickled objects": header(b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }\n"),
    "an expression": header(b"__import__('os').system('touch /tmp/x')\n"),
    "nested": header(b"(" * 900 + b"\n"),
    "structured": header(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3), }\n"),
    "terabytes": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 999999999), }\n"),
    "negative": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }\n"),
    "nothing": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }\n", b""),
    "one dimension": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }\n"),
    "unknown numbers": header(b"{'descr': '<f3', 'fortran_order': False, 'shape': (2, 4), }\n"),
    "too few bytes": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", b"\0" * 23),
    "junk behind": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", b"\0" * 25),
    "a long header": header(b"", length=65_535),
    "its magic alone": b"\x93NUMPY",
    "not numpy": b"hello",
}


@pytest.mark.parametrize("data", HEADERS.values(), ids=HEADERS)
def test_hostile_npy(data: bytes) -> None:
    with pytest.raises(DataError):
        arrays.npy(data, where="sparse")


def zipped(*entries: tuple[str, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()


def with_size(data: bytes, name: bytes, size: int) -> bytes:
    """The archive whose list of contents claims another unpacked size for the file."""
    place = data.rindex(b"PK\x01\x02", 0, data.rindex(name))
    return data[: place + 24] + struct.pack("<I", size) + data[place + 28 :]


GOOD = npz(image=scene())
ARCHIVES = {
    "path traversal": zipped(("../../etc/passwd.npy", npy(scene()))),
    "unknown array": npz(image=scene(), labels=scene()),
    "a bomb": zipped(("image.npy", bytes(30_000_000)), compression=zipfile.ZIP_DEFLATED),
    "a bomb that lies": with_size(
        zipped(("image.npy", bytes(9_000_000)), compression=zipfile.ZIP_DEFLATED), b"image.npy", 100
    ),
    "cut": GOOD[:-30],
    "its start alone": GOOD[:40],
    "a comment": GOOD[:-2] + b"\x04\0junk",
    "bzip2": zipped(("image.npy", npy(scene())), compression=zipfile.ZIP_BZIP2),
    "many entries": zipped(*((f"{number}.npy", b"") for number in range(2000))),
    "no entries": zipped(),
    "flipped": GOOD[:100] + bytes([GOOD[100] ^ 255]) + GOOD[101:],
    "objects": zipped(("image.npy", HEADERS["pickled objects"])),
    "not a zip file": b"hello",
}


@pytest.mark.parametrize("data", ARCHIVES.values(), ids=ARCHIVES)
def test_hostile_npz(data: bytes) -> None:
    bounds = BOUNDS.model_copy(update={"pixels": 200_000})
    with pytest.raises((DataError, Problem)):
        read(data, "application/x-npz", bounds)


@pytest.mark.parametrize("size", [(2000, 2000), (4, 4), (400, 10)])
def test_arrays_keep_the_limits_of_pictures(size: tuple[int, int]) -> None:
    bounds = BOUNDS.model_copy(update={"pixels": 1_000_000, "aspect": 20.0})
    with pytest.raises(DataError, match="pixels"):
        read(npz(image=np.zeros((*size, 3), np.uint8)), "application/x-npz", bounds)


@pytest.mark.parametrize(
    ("key", "array"),
    [
        ("image", np.zeros((32, 48), np.uint8)),
        ("image", np.zeros((32, 48, 3), np.float32)),
        ("background", np.zeros((32, 48, 4), np.uint8)),
        ("semantics", np.zeros((32, 48), np.float32)),
        ("semantics", np.full((32, 48), 2**40)),
        ("instances", np.full((32, 48), -1)),
        ("sparse", np.zeros((32, 48), np.uint8)),
        ("sparse", np.zeros((32, 48, 1), np.float32)),
    ],
)
def test_arrays_of_the_wrong_kind(key: str, array: np.ndarray) -> None:
    with pytest.raises(DataError, match=key):
        read(npz(**{"image": scene(), key: array}), "application/x-npz")


def test_a_batch_pairs_pictures_with_their_inputs() -> None:
    body, kind = parts(("image", b"a"), ("sparse", b"1"), ("image", b"b"), ("sparse", b"2"))
    uploads = codec.read_batch(body, kind, BOUNDS)
    assert [upload.files for upload in uploads] == [{"image": b"a", "sparse": b"1"}, {"image": b"b", "sparse": b"2"}]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([("image", b"a"), ("image", b"b"), ("sparse", b"1")], "1 parts 'sparse' for 2"),
        ([("sparse", b"1")], "0 parts 'image'"),
        ([("image", b"a")] * 17, "17 parts 'image'; a batch has 1 to 16"),
    ],
)
def test_batches_that_do_not_fit(fields: list[tuple[str, bytes]], words: str) -> None:
    with pytest.raises(Problem, match=words) as caught:
        codec.read_batch(*parts(*fields), BOUNDS)
    assert caught.value.status == 422


# ---- What is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, "image/png"),
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("application/x-npy", "application/x-npy"),
        ("image/jpeg", "image/jpeg"),
        ("image/JPEG ; q=0.5", "image/jpeg"),
        ("image/webp, image/png;q=0.9", "image/webp"),
        ("image/png;q=0, */*", "application/x-npy"),
        ("image/png;q=0.1, application/x-npz;q=0.2, text/html", "application/x-npz"),
        ("text/html,application/xhtml+xml,image/avif,image/webp,image/apng,*/*;q=0.8", "image/webp"),
        ("model/gltf-binary", "model/gltf-binary"),
        (",;,q=,image/jpeg;q=zzz", "image/png"),
        ("garbage", "image/png"),
    ],
)
def test_accept(accept: str | None, media: str) -> None:
    assert options.parse([], accept).media == media


@pytest.mark.parametrize("accept", ["text/html", "application/json, image/gif", "*/*;q=0", "image/png;q=0"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(Problem) as caught:
        options.parse([], accept)
    assert caught.value.status == 406


def test_a_format_by_name_beats_accept() -> None:
    assert options.parse([("format", "npy")], "text/html").media == "application/x-npy"
    assert options.parse([("format", "colour")], "text/html, image/jpeg").media == "image/jpeg"
    assert options.parse([("format", "colour")], None).media == "image/png"


BAD: dict[str, tuple[int, list[tuple[str, str]]]] = {
    "negative": (422, [("fx", "-5")]),
    "NaN": (400, [("fx", "nan")]),
    "inf": (400, [("fx", "inf")]),
    "huge": (422, [("fx", "1e999")]),
    "zero": (422, [("fov", "0")]),
    "scale=0": (400, [("scale", "0")]),
    "path": (400, [("cmap", "../../etc/passwd")]),
    "twice": (400, [("fov", "60"), ("fov", "70")]),
    "unknown": (400, [("fovv", "60")]),
    "unicode digits": (400, [("fov", "６０")]),
    "null": (400, [("fov", "60\0")]),
    "underscore": (400, [("fov", "6_0")]),
    "blank": (400, [("fov", "")]),
    "both cameras": (422, [("fov", "60"), ("fx", "500")]),
    "half a camera": (422, [("cx", "10")]),
    "ends swapped": (422, [("vmin", "5"), ("vmax", "1")]),
    "another format": (400, [("format", "exr")]),
    "long": (400, [("fov", "1" * 5000)]),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_parameters(bad: tuple[int, list[tuple[str, str]]]) -> None:
    status, pairs = bad
    with pytest.raises(Problem) as caught:
        options.parse(pairs, None)
    assert caught.value.status == status and caught.value.detail.isprintable() and len(caught.value.detail) < 300


# ---- Out -------------------------------------------------------------------------------------------------------------


def test_every_format_says_the_same_depth() -> None:
    png = cv2.imdecode(np.frombuffer(write().data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16 and np.abs(png / 1000 - DEPTH).max() <= 0.0005001
    assert (np.load(io.BytesIO(write("format=npy").data)) == DEPTH).all()
    assert (np.load(io.BytesIO(write("format=npz").data))["depth"] == DEPTH).all()
    assert np.allclose(vertices(write("format=ply").data)["xyz"][:, 2], DEPTH.ravel())
    glb = write("format=glb").data
    length = struct.unpack_from("<I", glb, 12)[0]
    tree = json.loads(glb[20 : 20 + length])
    assert tree["accessors"][0]["count"] == DEPTH.size and glb[:4] == b"glTF"


def test_half_precision() -> None:
    half = np.load(io.BytesIO(write("format=npy&dtype=float16").data))
    assert half.dtype == np.float16 and np.abs(half - DEPTH).max() < 0.004


@pytest.mark.parametrize(("scale", "unit"), [("1000", "mm"), ("256", "1/256 m"), ("5000", "1/5000 m")])
def test_scales_of_the_png(scale: str, unit: str) -> None:
    made = write(f"scale={scale}")
    stored = cv2.imdecode(np.frombuffer(made.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.abs(stored * float(made.headers["X-Depth-Scale"]) - DEPTH).max() <= 0.51 / int(scale)
    assert made.headers["X-Depth-Unit"] == unit


def test_what_a_png_cannot_hold() -> None:
    depth = np.array([[0, -1, np.nan, 70, np.inf, 2]], np.float32).repeat(8, 0)
    png = cv2.imdecode(np.frombuffer(write(depth=depth).data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert png[0].tolist() == [0, 0, 0, 65535, 0, 2000]


@pytest.mark.parametrize("cmap", options.CMAPS)
@pytest.mark.parametrize("media", options.COLOURED)
def test_colours(cmap: str, media: str) -> None:
    made = write(f"format=colour&cmap={cmap}&vmin=1&vmax=3", media)
    picture = cv2.imdecode(np.frombuffer(made.data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == scene().shape and made.media == media and made.headers["X-Depth-Range"] == "1,3"
    assert np.ptp(picture.astype(int).sum(2)) > 100


def test_near_is_bright_and_unmeasured_grey() -> None:
    depth = np.array([[1, 3, 0]], np.float32).repeat(8, 0)
    made = write("format=colour&cmap=gray&vmin=1&vmax=3", depth=depth)
    picture = cv2.imdecode(np.frombuffer(made.data, np.uint8), cv2.IMREAD_COLOR)
    assert picture[0].tolist() == [[255] * 3, [0] * 3, [112] * 3]


@pytest.mark.parametrize("query", ["vmin=1000", "vmax=0", "vmin=4", "vmax=2", ""])
def test_one_end_of_the_colours_is_enough(query: str) -> None:
    near, far = map(float, write(f"format=colour&{query}").headers["X-Depth-Range"].split(","))
    assert near < far


def test_the_camera_is_the_clients_or_said_to_be_guessed() -> None:
    guessed, told = write("format=ply"), write("format=ply&fx=40&cx=10&cy=5")
    assert guessed.headers["X-Intrinsics"] == "assumed fov=60" and b"ASSUMED" in guessed.data
    assert told.headers["X-Intrinsics"] == "given fx=40 fy=40 cx=10 cy=5" and b"ASSUMED" not in told.data
    point = vertices(told.data)["xyz"].reshape(32, 48, 3)[7, 20]
    assert np.allclose(point, [(20 - 10) / 40 * DEPTH[7, 20], (7 - 5) / 40 * DEPTH[7, 20], DEPTH[7, 20]])
    wide = vertices(write("format=ply&fov=90").data)["xyz"].reshape(32, 48, 3)[0]
    assert np.isclose(wide[-1, 0] / wide[-1, 2], 47 / 48)


def test_the_camera_follows_the_networks_pixels() -> None:
    small = cv2.resize(DEPTH, (24, 16), interpolation=cv2.INTER_AREA)
    cloud = vertices(write("format=ply&fx=40", depth=small).data)["xyz"].reshape(16, 24, 3)
    # The first of half as many pixels lies between the first two of the picture.
    assert np.allclose(cloud[0, 0, :2] / cloud[0, 0, 2], [(0.5 - 23.5) / 40, (0.5 - 15.5) / 40])


def test_large_clouds_are_thinned_with_their_camera_kept() -> None:
    few = codec.write({"depth": DEPTH}, scene(), options.parse([("format", "ply"), ("fx", "40")], None), points=200)
    cloud, full = vertices(few.data), vertices(write("format=ply&fx=40").data)
    assert 100 < len(cloud) <= 200 and few.headers["X-Points-Stride"] == "3"
    assert {tuple(point) for point in cloud["xyz"].tolist()} <= {tuple(point) for point in full["xyz"].tolist()}


def test_masks() -> None:
    mask = (DEPTH > 2).astype(np.float32) * 0.9
    png = cv2.imdecode(np.frombuffer(write(mask=mask).data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint8 and ((png == 255) == (DEPTH > 2)).all() and set(np.unique(png)) == {0, 255}
    assert (np.load(io.BytesIO(write("format=npy", mask=mask).data)) == mask).all()
    assert write("format=npy", depth=DEPTH, mask=mask).headers["X-Plane"] == "depth"
    assert write("plane=mask&format=npy", depth=DEPTH, mask=mask).headers["X-Plane"] == "mask"
    for query in ("format=ply", "plane=depth"):
        with pytest.raises(Problem) as caught:
            write(query, mask=mask)
        assert caught.value.status == 422


def test_options_are_what_they_were_when_nothing_is_asked() -> None:
    assert options.parse([], None) == Options()
