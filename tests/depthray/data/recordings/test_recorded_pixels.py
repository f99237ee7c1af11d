"""Every encoding of recorded images, value by value, and images that are damaged."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from recorded import SIZE, millimetres, picture, png, rvl

from depthray.data.recordings import pixels
from depthray.data.recordings.messages import CompressedMessage, ImageMessage
from depthray.data.recordings.rvl import decode
from depthray.errors import DataError

RGB = picture(3)
GREY = cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY)


def plain(array, encoding, *, big=False, padding=0):
    ordered = array.astype(array.dtype.newbyteorder(">")) if big else array
    rows = np.ascontiguousarray(ordered).view(np.uint8).reshape(len(array), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=9)
    height, width = array.shape[:2]
    return ImageMessage(1, "camera", encoding, height, width, rows.shape[1], big, rows.reshape(-1))


def file(content, form):
    return CompressedMessage(1, "camera", form, np.frombuffer(content, np.uint8))


def with_alpha(array):
    return np.concatenate([array, np.full((*array.shape[:2], 1), 77, np.uint8)], axis=2)


def mosaic(pattern):
    """(H,W) of a Bayer sensor: what of RGB each pixel of the pattern's 2x2 sees."""
    channels = np.array(["rgb".index(letter) for letter in pattern]).reshape(2, 2)
    rows, columns = np.indices(SIZE)
    flat = np.full((*SIZE, 3), (200, 100, 50), np.uint8)
    return np.take_along_axis(flat, channels[rows % 2, columns % 2][..., None], axis=2)[..., 0]


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("8UC3", RGB[..., ::-1]),
        ("rgba8", with_alpha(RGB)),
        ("bgra8", with_alpha(RGB[..., ::-1])),
    ],
)
@pytest.mark.parametrize("padding", [0, 3])
def test_colour_is_rgb(encoding, stored, padding):
    assert np.array_equal(pixels.read_colour(plain(stored, encoding, padding=padding), where="bag"), RGB)


def test_grey_is_rgb_of_equal_channels():
    assert np.array_equal(pixels.read_colour(plain(GREY, "mono8"), where="bag"), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_have_the_colours_in_their_places(pattern):
    image = pixels.read_colour(plain(mosaic(pattern), f"bayer_{pattern}8"), where="bag")
    assert image[4:-4, 4:-4].reshape(-1, 3).tolist() == [[200, 100, 50]] * (SIZE[0] - 8) * (SIZE[1] - 8)


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "uyvy"), ("yuv422_yuy2", "yuyv"), ("uyvy", "uyvy")])
def test_yuv_422(encoding, order):
    # One colour in all of the image, in the range of video: red.
    value = {"y": 82, "u": 90, "v": 240}
    stored = np.array([value[letter] for letter in order], np.uint8).reshape(2, 2)
    image = pixels.read_colour(plain(np.tile(stored, (4, 3, 1)), encoding), where="bag")
    assert np.abs(image.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("form", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed "])
def test_png_is_what_its_file_says(form):
    assert np.array_equal(pixels.read_colour(file(png(RGB), form), where="bag"), RGB)


def test_jpeg():
    content = cv2.imencode(".jpg", RGB[..., ::-1])[1].tobytes()
    image = pixels.read_colour(file(content, "bgr8; jpeg compressed bgr8"), where="bag")
    assert np.array_equal(image, cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])


METRES = (millimetres(1) / 1000).astype(np.float32)
METRES[0, :3] = (np.nan, np.inf, 0)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "stored", "unit"),
    [("16UC1", millimetres(1), "uint16_mm"), ("32FC1", METRES, "float_m"), ("mono16", millimetres(1), "")],
)
def test_plain_depth(encoding, stored, unit, big, padding):
    message = plain(stored, encoding, big=big, padding=padding)
    depth = pixels.read_depth(message, where="bag")
    assert np.array_equal(depth, stored, equal_nan=encoding == "32FC1")
    assert depth.dtype == stored.dtype
    assert pixels.stated_unit(message) == unit


HEADER = struct.pack("<iff", 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("16UC1; compressedDepth png", HEADER + png(millimetres(2))),
        ("16UC1; compressedDepth", HEADER + png(millimetres(2))),  # of older versions
        ("16UC1; compressedDepth rvl", HEADER + struct.pack("<II", *SIZE[::-1]) + rvl(millimetres(2))),
        ("16UC1; png compressed ", png(millimetres(2))),
    ],
)
def test_compressed_depth_of_integers(form, content):
    depth = pixels.read_depth(file(content, form), where="bag")
    assert depth.dtype == np.uint16
    assert np.array_equal(depth, millimetres(2))


@pytest.mark.parametrize("transport", ["png", "rvl"])
def test_compressed_depth_of_floats_is_quantised_inverse_depth(transport):
    metres = np.linspace(0.5, 9, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    quantisation, farthest = 100.0, 10.0  # the transport's defaults
    scale = quantisation * (quantisation + 1)
    shift = 1 - scale / farthest
    steps = (scale / metres + shift).astype(np.uint16)
    steps[0, 0] = 0
    packed = png(steps) if transport == "png" else struct.pack("<II", *SIZE[::-1]) + rvl(steps)
    depth = pixels.read_depth(
        file(struct.pack("<iff", 0, scale, shift) + packed, f"32FC1; compressedDepth {transport}"), where="bag"
    )
    assert depth.dtype == np.float32
    assert depth[0, 0] == 0
    # A step of inverse depth.
    assert np.abs(1 / depth.reshape(-1)[1:] - 1 / metres.reshape(-1)[1:]).max() <= 1.01 / scale


@pytest.mark.parametrize(
    "depth",
    [
        np.zeros(9),
        np.full(9, 65535),
        np.array([0, 0, 5, 5, 65535, 0, 1, 0, 0]),
        np.array([7, 0, 9]),
        np.random.default_rng(0).integers(0, 2**16, 1000) * np.random.default_rng(1).integers(0, 2, 1000),
    ],
)
def test_rvl_is_lossless(depth):
    stored = depth.astype(np.uint16)
    assert np.array_equal(decode(rvl(stored), stored.size), stored)


def test_rvl_that_is_cut_off_is_refused():
    packed = rvl(millimetres(2))
    for size in range(0, len(packed) - 8, 97):
        with pytest.raises(ValueError, match=r"pixels|bits"):
            decode(packed[:size], millimetres(2).size)


def damaged(message, **changes):
    return message._replace(**changes)


@pytest.mark.parametrize(
    ("read", "message", "words"),
    [
        ("colour", plain(RGB.astype(np.uint16), "rgb16"), "colour is 'rgb16'; known are rgb8"),
        ("colour", plain(np.zeros((4, 5, 2), np.uint8), "yuv422"), "odd width"),
        ("colour", damaged(plain(RGB, "rgb8"), data=np.zeros(100, np.uint8)), "the message is damaged"),
        ("colour", damaged(plain(RGB, "rgb8"), step=10), "the message is damaged"),
        ("colour", damaged(plain(RGB, "rgb8"), height=0, data=np.zeros(0, np.uint8)), "the message is damaged"),
        ("colour", file(b"", "jpeg"), "not a readable image of format 'jpeg'"),
        ("colour", file(b"abc" * 99, "h264"), "format 'h264'"),
        ("depth", plain(GREY, "8UC1"), "depth is '8UC1'; known are 16UC1"),
        ("depth", file(HEADER, "16UC1; compressedDepth png"), "an empty message"),
        ("depth", file(HEADER + b"123456789", "16UC1; compressedDepth png"), "not a readable image"),
        ("depth", file(HEADER + png(RGB), "16UC1; compressedDepth png"), "wanted"),
        ("depth", file(HEADER + b"123456789", "16UC1; compressedDepth rvl"), "damaged RVL"),
        ("depth", file(png(GREY), "16UC1; png compressed"), "uint8"),
    ],
)
def test_what_cannot_be_read_is_one_line(read, message, words):
    with pytest.raises(DataError, match=words) as error:
        {"colour": pixels.read_colour, "depth": pixels.read_depth}[read](message, where="a.bag: /topic")
    assert str(error.value).startswith("a.bag: /topic: ")
