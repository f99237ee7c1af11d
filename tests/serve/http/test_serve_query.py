"""What a request can choose: the format by Accept or by name, and parameters that are refused."""

from __future__ import annotations

import pytest

from serve.http import query
from serve.http.problems import Problem
from serve.http.query import Options


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
    assert query.parse([], accept).media == media


@pytest.mark.parametrize("accept", ["text/html", "application/json, image/gif", "*/*;q=0", "image/png;q=0"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(Problem) as caught:
        query.parse([], accept)
    assert caught.value.status == 406


def test_a_format_by_name_beats_accept() -> None:
    assert query.parse([("format", "npy")], "text/html").media == "application/x-npy"
    assert query.parse([("format", "colour")], "text/html, image/jpeg").media == "image/jpeg"
    assert query.parse([("format", "colour")], None).media == "image/png"


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
        query.parse(pairs, None)
    assert caught.value.status == status and caught.value.detail.isprintable() and len(caught.value.detail) < 300


def test_the_default_options() -> None:
    assert query.parse([], None) == Options()
