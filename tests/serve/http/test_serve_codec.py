"""Arrays to bytes: every format contains the same depth, with its units, colours, camera and mask."""

from __future__ import annotations

import io
import json
import struct

import cv2
import numpy as np
import pytest
from PIL import Image
from serve_backend import scene, wall

from serve.http import codec, rasters
from serve.http import query as options
from serve.http.problems import Problem

DEPTH = wall(scene())


def write(query: str = "", accept: str | None = None, **maps: np.ndarray) -> codec.Encoded:
    pairs = [tuple(pair.split("=")) for pair in query.split("&") if pair]
    return codec.write(maps or {"depth": DEPTH}, scene(), options.parse(pairs, accept), points=4_000_000)


def vertices(ply: bytes) -> np.ndarray:
    head, _, body = ply.partition(b"end_header\n")
    count = int(head.split(b"element vertex ")[1].split(b"\n")[0])
    cloud = np.frombuffer(body, np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))
    assert len(cloud) == count
    return cloud


def test_every_format_holds_the_same_depth() -> None:
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
    image = cv2.imdecode(np.frombuffer(made.data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == scene().shape and made.media == media and made.headers["X-Depth-Range"] == "1,3"
    assert np.ptp(image.astype(int).sum(2)) > 100


def test_near_is_bright_and_unmeasured_grey() -> None:
    depth = np.array([[1, 3, 0]], np.float32).repeat(8, 0)
    made = write("format=colour&cmap=gray&vmin=1&vmax=3", depth=depth)
    image = cv2.imdecode(np.frombuffer(made.data, np.uint8), cv2.IMREAD_COLOR)
    assert image[0].tolist() == [[255] * 3, [0] * 3, [112] * 3]


@pytest.mark.parametrize("query", ["vmin=1000", "vmax=0", "vmin=4", "vmax=2", ""])
def test_one_end_of_the_colours_is_enough(query: str) -> None:
    near, far = map(float, write(f"format=colour&{query}").headers["X-Depth-Range"].split(","))
    assert near < far


def test_the_camera_is_the_clients_or_declared_as_assumed() -> None:
    assumed, given = write("format=ply"), write("format=ply&fx=40&cx=10&cy=5")
    assert assumed.headers["X-Intrinsics"] == "assumed fov=60" and b"ASSUMED" in assumed.data
    assert given.headers["X-Intrinsics"] == "given fx=40 fy=40 cx=10 cy=5" and b"ASSUMED" not in given.data
    point = vertices(given.data)["xyz"].reshape(32, 48, 3)[7, 20]
    assert np.allclose(point, [(20 - 10) / 40 * DEPTH[7, 20], (7 - 5) / 40 * DEPTH[7, 20], DEPTH[7, 20]])
    wide = vertices(write("format=ply&fov=90").data)["xyz"].reshape(32, 48, 3)[0]
    assert np.isclose(wide[-1, 0] / wide[-1, 2], 47 / 48)


def test_the_camera_follows_the_networks_pixels() -> None:
    small = cv2.resize(DEPTH, (24, 16), interpolation=cv2.INTER_AREA)
    cloud = vertices(write("format=ply&fx=40", depth=small).data)["xyz"].reshape(16, 24, 3)
    # At half the resolution the first pixel is between the first two of the image.
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


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (33, 48)])
@pytest.mark.parametrize("kind", ["millimetres", "mask", "colours"])
def test_png_is_lossless_and_sound(size: tuple[int, int], kind: str) -> None:
    random = np.random.default_rng(0)
    shape = (*size, 3) if kind == "colours" else size
    pixels = random.integers(0, 65536 if kind == "millimetres" else 256, shape, np.uint16)
    pixels = pixels if kind == "millimetres" else pixels.astype(np.uint8)
    data = rasters.encode_png(pixels)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None and decoded.dtype == pixels.dtype
    assert (decoded[..., ::-1] if kind == "colours" else decoded).tolist() == pixels.tolist()
    with Image.open(io.BytesIO(data)) as image:
        image.verify()  # the checksum of every chunk


def test_confidence_on_request() -> None:
    sure = np.linspace(0, 1, DEPTH.size, dtype=np.float32).reshape(DEPTH.shape)
    maps = {"depth": DEPTH, "sigma": DEPTH / 10, "confidence": sure}
    assert write("format=npy", **maps).headers["X-Plane"] == "depth"
    grey = cv2.imdecode(np.frombuffer(write("plane=confidence", **maps).data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.dtype == np.uint8 and np.abs(grey / 255 - sure).max() < 0.003
    sigma = write("plane=sigma", **maps)
    png = cv2.imdecode(np.frombuffer(sigma.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.abs(png / 1000 - DEPTH / 10).max() <= 0.0005001 and sigma.headers["X-Depth-Unit"] == "mm"
    with np.load(io.BytesIO(write("format=npz", **maps).data)) as planes:
        assert all((planes[name] == values).all() for name, values in maps.items())
    for form in ("ply", "glb"):
        assert len(write(f"format={form}&min_confidence=0.5", **maps).data) < 0.6 * len(
            write(f"format={form}", **maps).data
        )
    assert len(vertices(write("format=ply&min_confidence=0.5", **maps).data)) == (sure >= 0.5).sum()
    for query in ("plane=confidence", "format=ply&min_confidence=0.5"):
        with pytest.raises(Problem) as caught:
            write(query)
        assert caught.value.status == 422
    with pytest.raises(Problem, match="give a number from 0 to 1"):
        write("min_confidence=1.5", **maps)
