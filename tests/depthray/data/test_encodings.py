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


@pytest.mark.parametrize(
    ("encoding", "stored", "metres"),
    [
        ("uint16/5000", np.array([[0, 5000, 12500]], np.uint16), [0, 1, 2.5]),
        ("uint16/10000", np.array([[0, 29_400, 65_535]], np.uint16), [0, 2.94, 6.5535]),
        ("uint16/100", np.array([[0, 120, 65_535]], np.uint16), [0, 1.2, 655.35]),
        ("uint16*0.001", np.array([[0, 1234, 65_535]], np.uint16), [0, 1.234, 65.535]),
        ("uint16*50/65535", np.array([[0, 65_535, 13_107]], np.uint16), [0, 50, 10]),
        ("uint8*1e-1", np.array([[0, 5, 255]], np.uint8), [0, 0.5, 25.5]),
        ("int32/1000", np.array([[-4, 0, 2500]], np.int32), [0, 0, 2.5]),
        ("float32/1000", np.array([[np.nan, -5, 2500]], np.float32), [0, 0, 2.5]),
        ("float64*2", np.array([[np.inf, 0.25, 1e300]]), [0, 0.5, 0]),
        ("99745/uint16", np.array([[0, 9974, 19_949]], np.uint16), [0, 10.0005, 5]),
        ("389/float32", np.array([[np.nan, -1, 38.9]], np.float32), [0, 0, 10]),
    ],
)
def test_a_unit_is_stated_with_the_dtype(encoding, stored, metres):
    check(encoding, where="x")
    depth = decode(stored, encoding, where="x")
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth[0], metres, rtol=1e-5)


@pytest.mark.parametrize(("named", "unit"), [("uint16_mm", "uint16/1000"), ("uint16_256", "uint16/256")])
def test_a_unit_that_has_a_name_gives_the_same_floats(named, unit):
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(decode(every, named, where="x"), decode(every, unit, where="x"))


@pytest.mark.parametrize(
    "encoding",
    [
        *("uint16", "uint16/", "uint16/0", "uint16*0", "uint16/-5", "uint16/5000/2"),
        *("uint12/5", "0/uint16", "/5000", "u16/5"),
    ],
)
def test_a_unit_that_is_none_is_refused_with_examples(encoding):
    with pytest.raises(UsageError, match=r"no depth encoding .* any other unit is written as uint16/5000 .*uint16\*0"):
        check(encoding, where="recipe")


def test_a_unit_of_another_dtype_names_what_fits():
    message = r"encoding 'uint16/100' is uint16.*for uint8 there is uint8_10m, uint8/N, N steps a metre"
    with pytest.raises(DataError, match=message):
        decode(np.ones((3, 4), np.uint8), "uint16/100", where="a/b.png")


def test_every_encoding_is_tried_above():
    tried = {"uint8_10m", "uint16_mm", "uint16_256", "uint16_5000", "kinect_disparity_be", "float_m"}
    assert set(ENCODINGS) == tried


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_infinite_and_negative_floats_are_unmeasured(dtype):
    stored = np.array([[np.nan, np.inf, -np.inf, -1, 3]], dtype)
    assert decode(stored, "float_m", where="x").tolist() == [[0, 0, 0, 0, 3]]


@pytest.mark.parametrize("encoding", ["float_m", "float16/1000", "1000/float16"])
def test_a_signalling_nan_of_16_bits_is_unmeasured(encoding):
    stored = np.array([[0x7C01] * 40 + [0x3C00]], np.uint16).view(np.float16)  # the last is 1
    found = decode(stored, encoding, where="x")
    assert found[0, :40].tolist() == [0] * 40 and found[0, 40] > 0


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
    assert describe_odd_values(np.array([[np.nan, np.inf, -1, -np.inf, 1]])) == "2 negative"
    assert describe_odd_values(np.array([[0, 1]], np.uint16)) == ""


def test_decode_leaves_the_stored_array_alone():
    stored = np.array([[np.nan, 1]], np.float32)
    decode(stored, "float_m", where="x")
    assert np.isnan(stored[0, 0])
