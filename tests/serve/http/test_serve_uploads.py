"""Uploads are decoded or refused: images, forms, .npy, .npz and batches."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from asgi import form
from serve_backend import encoded, npy, npz, scene

from depthray.errors import DataError
from serve.http import arrays, codec, multipart
from serve.http.problems import Problem
from serve.settings import RequestLimits

BOUNDS = RequestLimits()


def read(body: bytes, kind: str = "", bounds: RequestLimits = BOUNDS) -> codec.InputImage:
    return codec.read(body, kind, bounds)


def parts(*fields: tuple[str, bytes]) -> tuple[bytes, str]:
    body, [(_, kind)] = form(*fields)
    return body, kind


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
    status, arguments, *fields = misfit
    with pytest.raises(Problem, match=arguments) as caught:
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
    with pytest.raises(DataError, match=r"^multipart: "):
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
def test_arrays_keep_the_limits_of_images(size: tuple[int, int]) -> None:
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


def test_a_batch_pairs_images_with_their_inputs() -> None:
    body, kind = parts(("image", b"a"), ("sparse", b"1"), ("image", b"b"), ("sparse", b"2"))
    uploads = codec.read_batch(body, kind, BOUNDS)
    assert [upload.files for upload in uploads] == [{"image": b"a", "sparse": b"1"}, {"image": b"b", "sparse": b"2"}]


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ([("image", b"a"), ("image", b"b"), ("sparse", b"1")], "1 parts 'sparse' for 2"),
        ([("sparse", b"1")], "0 parts 'image'"),
        ([("image", b"a")] * 17, "17 parts 'image'; a batch has 1 to 16"),
    ],
)
def test_batches_that_do_not_fit(fields: list[tuple[str, bytes]], arguments: str) -> None:
    with pytest.raises(Problem, match=arguments) as caught:
        codec.read_batch(*parts(*fields), BOUNDS)
    assert caught.value.status == 422
