"""Resizing: colour averages, maps are sampled, the camera follows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from depthray.batch import Sample
from depthray.config.sections import Data
from depthray.data.resize import (
    aspect_size,
    resize,
    resize_bicubic,
    resize_colour,
    resize_for_inference,
    resize_nearest,
    resize_sparse,
)

SIZES = [(12, 20), (5, 7), (48, 80), (36, 30), (7, 40)]


def sample(height: int = 24, width: int = 40) -> Sample:
    random = np.random.default_rng(5)
    return {
        "image": random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "depth": random.uniform(0.5, 9, (height, width)).astype(np.float32),
        "semantics": random.integers(0, 2**30, (height, width), dtype=np.int32),
        "mask": random.integers(0, 2, (height, width), dtype=np.uint8),
        "intrinsics": np.array([[30, 0, 19.5], [0, 31, 11.5], [0, 0, 1]], np.float32),
        "id": "a",
        "scene": "s",
    }


@pytest.mark.parametrize("size", SIZES)
def test_maps_hold_only_values_of_the_original(size: tuple[int, int]) -> None:
    old, new = sample(), resize(sample(), size)
    for key in ("depth", "semantics", "mask"):
        assert new[key].shape == size and new[key].dtype == old[key].dtype
        assert np.isin(new[key], old[key]).all()
    assert new["image"].shape == (*size, 3)


@pytest.mark.parametrize("size", SIZES)
def test_each_map_pixel_is_the_nearest_by_pixel_centres(size: tuple[int, int]) -> None:
    rows, columns = np.indices((24, 40))
    for index, axis, length in ((rows, 0, 24), (columns, 1, 40)):
        found = resize_nearest(index.astype(np.float32), size)
        centres = (np.indices(size)[axis] + 0.5) * length / size[axis] - 0.5
        assert np.abs(found - centres).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_a_point_projects_to_the_same_point_of_the_image(size: tuple[int, int]) -> None:
    new = resize(sample(), size)
    for camera, (height, width) in ((sample()["intrinsics"], (24, 40)), (new["intrinsics"], size)):
        u, v, w = camera.astype(np.float64) @ [0.3, -0.2, 2.0]
        share = ((u / w + 0.5) / width, (v / w + 0.5) / height)
        assert share == pytest.approx(((30 * 0.15 + 20) / 40, (-31 * 0.1 + 12) / 24), abs=1e-6)


def test_shrunk_colour_is_the_mean_of_the_pixels_it_covers() -> None:
    image = sample()["image"]
    means = image.reshape(12, 2, 20, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize_colour(image, (12, 20)) - means).max() <= 0.5


def test_own_size_keeps_everything() -> None:
    old, new = sample(), resize(sample(), (24, 40))
    for key in old:
        np.testing.assert_array_equal(new[key], old[key])


def scanned(height: int = 24, width: int = 40, *, count: int = 30) -> np.ndarray:
    """Metres at a few pixels, all of them different, 0 elsewhere."""
    random = np.random.default_rng(3)
    sparse = np.zeros(height * width, np.float32)
    sparse[random.permutation(sparse.size)[:count]] = 1 + random.permutation(count)
    return sparse.reshape(height, width)


@pytest.mark.parametrize("size", SIZES)
def test_every_sample_falls_into_one_pixel_and_the_nearest_wins(size: tuple[int, int]) -> None:
    sparse, expected = scanned(), np.zeros(size, np.float32)
    for row, column in zip(*np.nonzero(sparse), strict=True):
        pixel = (int((row + 0.5) * size[0] // 24), int((column + 0.5) * size[1] // 40))
        expected[pixel] = min(expected[pixel] or np.inf, sparse[row, column])
    found = resize({**sample(), "sparse": sparse}, size)["sparse"]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


@pytest.mark.parametrize("size", [(24, 40), (48, 80), (25, 41), (240, 400)])
def test_enlarging_keeps_each_sample_once(size: tuple[int, int]) -> None:
    found = resize_sparse(scanned(), size)
    assert sorted(found[found > 0].tolist()) == list(range(1, 31))


def test_shrinking_keeps_samples_that_a_look_up_would_miss() -> None:
    sparse = np.zeros((24, 40), np.float32)
    sparse[::8, ::8] = np.arange(1, 16).reshape(3, 5)
    for size in ((12, 20), (6, 10), (3, 5)):
        found = resize_sparse(sparse, size)
        assert sorted(found[found > 0].tolist()) == list(range(1, 16))
        assert (resize_nearest(sparse, size) > 0).sum() < 15


def test_of_samples_that_meet_the_nearest_stays() -> None:
    sparse = np.zeros((4, 4), np.float32)
    sparse[:2, :2] = [[7, 3], [0, 9]]
    assert resize_sparse(sparse, (2, 2)).tolist() == [[3, 0], [0, 0]]


def test_nothing_scanned_stays_nothing() -> None:
    assert not resize_sparse(np.zeros((24, 40), np.float32), (5, 7)).any()


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ((480, 640), (518, 686)),  # NYU Depth v2
        ((375, 1242), (518, 1722)),  # KITTI
        ((518, 518), (518, 518)),
        ((2000, 1000), (1036, 518)),
    ],
)
def test_aspect_is_kept_as_published_for_depth_anything(image, size):
    assert aspect_size(*image, shorter=518) == size


def test_the_shorter_side_never_falls_below_the_wanted_one() -> None:
    assert aspect_size(30, 40, shorter=64) == (70, 84)


def test_network_size_is_training_size_unless_the_aspect_is_kept() -> None:
    given: Sample = {**sample(), "background": sample()["image"]}
    exact = resize_for_inference(given, Data(size=(12, 20)))
    assert exact["image"].shape == (12, 20, 3) and exact["image"].dtype == np.uint8
    kept = resize_for_inference(given, Data(size=(28, 30), fit="aspect"))
    assert kept["image"].shape == kept["background"].shape == (28, 42, 3)
    assert kept["depth"].shape == (28, 42)
    assert np.isin(kept["depth"], given["depth"]).all()
    assert kept["intrinsics"][0, 0] == pytest.approx(30 * 42 / 40)


def test_bicubic_is_neither_rounded_nor_cut_off() -> None:
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    large = resize_bicubic(edge, (16, 16))
    assert large.dtype == np.float32
    assert large.min() < 0 and large.max() > 255
    assert np.abs(large - large.round()).max() > 0.1
    unit = cv2.resize(edge / 255.0, (16, 16), interpolation=cv2.INTER_CUBIC)  # the published order
    assert np.abs(large / 255 - unit).max() < 1e-5
