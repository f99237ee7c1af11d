"""Stored numbers become metres by the declared encoding only."""

from __future__ import annotations

import numpy as np
import pytest

from depthray.data.encodings import ENCODINGS, check, decode, describe_odd_values
from depthray.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("encoding", "stored", "metres"),
    [
        ("uint8_10m", np.array([[0, 51, 255]], np.uint8), [0, 2, 10]),
        ("uint16_mm", np.array([[0, 1234, 65535]], np.uint16), [0, 1.234, 65.535]),
        ("uint16_256", np.array([[0, 256, 640]], np.uint16), [0, 1, 2.5]),
        ("uint16_5000", np.array([[0, 5000, 12500]], np.uint16), [0, 1, 2.5]),
        ("kinect_disparity_be", np.array([[46595, 19715, 65287]], np.uint16), [2.46526, 1.41939, 0]),
        ("float_m", np.array([[0.5, 2.25, 0]], np.float64), [0.5, 2.25, 0]),
    ],
)
def test_known_values(encoding, stored, metres):
    depth = decode(stored, encoding, where="x")
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth[0], metres, rtol=1e-5)


def test_every_encoding_is_tried_above():
    tried = {"uint8_10m", "uint16_mm", "uint16_256", "uint16_5000", "kinect_disparity_be", "float_m"}
    assert set(ENCODINGS) == tried


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_infinite_and_negative_floats_are_unmeasured(dtype):
    stored = np.array([[np.nan, np.inf, -np.inf, -1, 3]], dtype)
    assert decode(stored, "float_m", where="x").tolist() == [[0, 0, 0, 0, 3]]


def test_float64_too_large_for_float32_is_unmeasured():
    assert decode(np.array([[1e300, 1]]), "float_m", where="x").tolist() == [[0, 1]]


def test_kinect_depth_ends_at_10_metres():
    stored = np.array([[1091, 1092, 2047]], np.uint16).byteswap()
    assert decode(stored, "kinect_disparity_be", where="x").tolist() == [[10, 0, 0]]


def test_one_channel_axis_is_dropped():
    assert decode(np.ones((3, 4, 1), np.float32), "float_m", where="x").shape == (3, 4)


@pytest.mark.parametrize("stored", [np.ones((3, 4, 3), np.uint16), np.ones(4, np.uint16), np.ones((0, 4), np.uint16)])
def test_wrong_shape_names_the_file(stored):
    with pytest.raises(DataError, match=r"a/b\.png: depth has shape"):
        decode(stored, "uint16_mm", where="a/b.png")


def test_wrong_dtype_names_the_file_and_the_encodings_that_fit():
    with pytest.raises(DataError, match=r"a/b\.png: .*uint8.*'uint16_mm' is uint16.*there is uint8_10m"):
        decode(np.ones((3, 4), np.uint8), "uint16_mm", where="a/b.png")


def test_unknown_encoding_names_the_nearest():
    with pytest.raises(UsageError, match=r"recipe: .*data\.encoding='uint16mm' \(did you mean 'uint16_mm'"):
        check("uint16mm", where="recipe")


def test_odd_values_are_counted():
    assert describe_odd_values(np.array([[np.nan, np.inf, -1, -np.inf, 1]])) == "1 NaN, 2 infinite, 1 negative"
    assert describe_odd_values(np.array([[0, 1]], np.uint16)) == ""


def test_decode_leaves_the_stored_array_alone():
    stored = np.array([[np.nan, 1]], np.float32)
    decode(stored, "float_m", where="x")
    assert np.isnan(stored[0, 0])
