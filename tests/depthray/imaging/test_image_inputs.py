"""Images in Python, of every kind that people have: the same pixels, or an error that says what to change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from depthray.errors import DataError
from depthray.imaging.image_inputs import as_list, as_rgb

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., :1]
TENSOR = torch.from_numpy(RGB).permute(2, 0, 1)


def turned():
    """An image whose EXIF says that it is to be turned, as `PIL.Image.open` returns it."""
    image = Image.fromarray(np.rot90(RGB).copy())
    image.getexif()[0x0112] = 6
    return image


KINDS = {
    "array": (RGB, RGB),
    "view that is not contiguous": (RGB[:, ::-1], RGB[:, ::-1]),
    "RGBA": (np.dstack([RGB, GREY]), RGB),
    "grey": (GREY[..., 0], np.repeat(GREY, 3, 2)),
    "grey with an axis": (GREY, np.repeat(GREY, 3, 2)),
    "16 bits": (RGB.astype(np.uint16) * 257, RGB),
    "floats": (RGB / 255, RGB),
    "float16 within its precision": (np.array([[[0, 0.5, 1]]], np.float16), np.array([[[0, 128, 255]]])),
    "Pillow": (Image.fromarray(RGB), RGB),
    "Pillow, turned by its EXIF": (turned(), RGB),
    "Pillow, grey of 16 bits": (Image.fromarray(GREY[..., 0].astype(np.uint16) * 257), np.repeat(GREY, 3, 2)),
    "tensor": (TENSOR, RGB),
    "tensor in [0,1]": (TENSOR / 255, RGB),
    "tensor with a gradient": ((TENSOR / 255).requires_grad_(), RGB),
    "grey tensor": (TENSOR[:1], np.repeat(GREY, 3, 2)),
    "tensor of RGBA": (torch.cat([TENSOR, TENSOR[:1]]), RGB),
    "flat tensor": (TENSOR[0], np.repeat(GREY, 3, 2)),
    "bfloat16": (torch.ones(3, 2, 2, dtype=torch.bfloat16), np.full((2, 2, 3), 255)),
}


@pytest.mark.parametrize(("image", "expected"), KINDS.values(), ids=KINDS)
def test_kinds_of_images(image, expected):
    read = as_rgb(image)
    assert read.dtype == np.uint8 and np.array_equal(read, expected)


def test_files_and_their_bytes(tmp_path):
    for name in ("a.png", "a.tif"):
        Image.fromarray(RGB).save(tmp_path / name)
        for image in (tmp_path / name, str(tmp_path / name), (tmp_path / name).read_bytes()):
            assert np.array_equal(as_rgb(image), RGB)


REFUSED = {
    "a number": (5, "this is int"),
    "nothing": (None, "this is NoneType"),
    "no such file": ("x.jpg", r"x\.jpg: no such file"),
    "channels first": (
        np.zeros((3, 6, 9), np.uint8),
        r"shape \(3, 6, 9\); transpose\(1, 2, 0\) puts the channels last",
    ),
    "channels last of a tensor": (torch.zeros(6, 9, 3), r"\(6, 9, 3\); permute\(2, 0, 1\) puts the channels first"),
    "two channels": (np.zeros((6, 9, 2), np.uint8), r"shape \(6, 9, 2\)"),
    "no pixels": (np.zeros((0, 9, 3), np.uint8), r"shape \(0, 9, 3\)"),
    "one axis": (np.zeros(9, np.uint8), r"shape \(9,\)"),
    "whole numbers": (RGB.astype(np.int64), "uint8, uint16 or floating-point, this one is int64"),
    "floats to 255": (RGB.astype(np.float32), "are in .0, 1., before any normalisation, and this one is from"),
    "normalised": (torch.full((3, 2, 2), -2.1), "from -2.1 to -2.1"),
    "NaN": (np.full((2, 2, 3), np.nan), "from nan to nan"),
    "bytes that are no image": (b"text", "not a JPEG"),
}


@pytest.mark.parametrize(("image", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_image_is_named(image, message):
    with pytest.raises(DataError, match=message):
        as_rgb(image)


def test_several_images_are_known_from_one():
    assert len(as_list([RGB, TENSOR])) == len(as_list((RGB, "a.jpg"))) == 2
    assert [each.shape for each in as_list(np.stack([RGB] * 3))] == [RGB.shape] * 3
    assert [tuple(each.shape) for each in as_list(TENSOR[None])] == [(3, 6, 9)]
    assert all(as_list(one) is None for one in (RGB, TENSOR, "a.jpg", b"", Image.fromarray(RGB), 5))
