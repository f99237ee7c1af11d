"""Sparse depth: the positions and number of samples of each pattern, and what decides the draw."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.config.sections import Sparse
from depthray.data.resize import resize, resize_sparse
from depthray.data.sparse import LIDARS, attach, sample_depth
from depthray.errors import DataError
from depthray.evaluation.protocols import PROTOCOLS

HEIGHT, WIDTH = 96, 128
SAMPLED = ["exact", "bernoulli", "grid", "features"]
MADE = [*SAMPLED, *LIDARS]


def depth(holes: bool = True) -> NDArray[np.float32]:
    made = np.random.default_rng(1).uniform(0.5, 9, (HEIGHT, WIDTH)).astype(np.float32)
    if holes:
        made[:, :32] = 0
    return made


def image() -> NDArray[np.uint8]:
    """Dark, with a bright square whose corners are at (40, 60), (40, 99), (69, 60) and (69, 99)."""
    made = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    made[40:70, 60:100] = 220
    return made


def frame(name: str = "a", *, holes: bool = True) -> Sample:
    return {"image": image(), "depth": depth(holes), "id": name, "scene": "s"}


def draw(
    pattern: str, samples: int = 200, *, seed: int = 0, noise: float = 0.0, holes: bool = True, camera: object = None
):
    section = Sparse(pattern=pattern, samples=samples, noise=noise)
    return sample_depth(depth(holes), section, generator=np.random.default_rng(seed), image=image(), intrinsics=camera)


@pytest.mark.parametrize("pattern", MADE)
def test_samples_are_values_of_measured_pixels_and_the_rest_is_zero(pattern: str) -> None:
    sparse = draw(pattern)
    taken = sparse > 0
    assert sparse.dtype == np.float32 and sparse.shape == (HEIGHT, WIDTH)
    assert 0 < taken.sum() < taken.size / 2
    np.testing.assert_array_equal(sparse[taken], depth()[taken])
    assert not sparse[:, :32].any()


@pytest.mark.parametrize("pattern", MADE)
def test_no_samples_are_an_empty_map(pattern: str) -> None:
    assert not draw(pattern, 0).any()


@pytest.mark.parametrize("pattern", MADE)
def test_a_frame_without_a_measurement_gives_an_empty_map(pattern: str) -> None:
    nothing = np.zeros((HEIGHT, WIDTH), np.float32)
    section, generator = Sparse(pattern=pattern), np.random.default_rng(0)
    assert not sample_depth(nothing, section, generator=generator, image=image()).any()


@pytest.mark.parametrize("samples", [1, 5, 200, 5000])
def test_exact_is_exact_and_fewer_samples_are_a_part_of_more(samples: int) -> None:
    sparse, more = draw("exact", samples), draw("exact", samples + 50)
    assert (sparse > 0).sum() == samples
    np.testing.assert_array_equal(more[sparse > 0], sparse[sparse > 0])


def test_exact_takes_all_there_is_where_that_is_less() -> None:
    np.testing.assert_array_equal(draw("exact", 10**6), depth())


def test_exact_is_even_over_the_measured_pixels() -> None:
    counts = sum((draw("exact", 960, seed=seed) > 0).astype(int) for seed in range(60))
    assert isinstance(counts, np.ndarray)
    halves = [counts[:48, 32:].sum(), counts[48:, 32:].sum()]
    assert sum(halves) == 60 * 960 and abs(halves[0] - halves[1]) < 0.03 * sum(halves)


def test_bernoulli_varies_in_number_about_the_wanted_mean() -> None:
    counts = [int((draw("bernoulli", 200, seed=seed) > 0).sum()) for seed in range(200)]
    assert abs(np.mean(counts) - 200) < 4  # four standard errors of 14 / sqrt(200)
    assert 10 < np.std(counts) < 18
    assert (draw("bernoulli", 10**6) > 0).sum() == (depth() > 0).sum()


@pytest.mark.parametrize("samples", [1, 7, 48, 500, 5000, 10**6])
def test_grid_has_equal_distances_and_about_so_many_samples(samples: int) -> None:
    rows, columns = np.nonzero(draw("grid", samples, holes=False))
    assert len(rows) == pytest.approx(min(samples, HEIGHT * WIDTH), rel=0.15, abs=1)
    for lines, length in ((np.unique(rows), HEIGHT), (np.unique(columns), WIDTH)):
        assert len(set(np.diff(lines))) <= 2
        assert abs(lines[0] - (length - 1 - lines[-1])) <= 1  # in the middle
    assert len(rows) == len(np.unique(rows)) * len(np.unique(columns))


def camera() -> NDArray[np.float32]:
    return np.array([[110, 0, 63.5], [0, 100, 30.0], [0, 0, 1]], np.float32)


@pytest.mark.parametrize("pattern", list(LIDARS))
def test_lidar_samples_are_on_lines_of_constant_elevation(pattern: str) -> None:
    beams = LIDARS[pattern]
    rows, columns = np.nonzero(draw(pattern, holes=False, camera=camera()))
    x, y = (columns - 63.5) / 110, (rows - 30.0) / 100
    elevation = np.degrees(np.arctan2(-y, np.hypot(1, x)))
    lines = np.linspace(beams.top, beams.bottom, beams.lines)
    off = np.abs(elevation[:, None] - lines).min(axis=1)
    assert off.max() < 0.45  # a pixel is 0.57 degrees: half of it, and half a column along the line
    for line in lines[(lines < 15) & (lines > -25)]:
        assert (np.abs(elevation - line) < 0.45).sum() > 0.8 * WIDTH  # each goes from left to right


def test_lidars_differ_in_their_number_of_lines() -> None:
    counts = {pattern: int((draw(pattern, holes=False) > 0).sum()) for pattern in LIDARS}
    assert counts["lidar8"] < 0.7 * counts["lidar16"] < 0.7 * counts["lidar64"]


def test_lidar_follows_the_camera() -> None:
    high, low = camera(), camera()
    low[1, 2] = 60.0
    top = [int(np.nonzero(draw("lidar16", holes=False, camera=each))[0].min()) for each in (high, low)]
    assert top[1] - top[0] == pytest.approx(30, abs=4)


def test_features_are_corners_first_then_steep_pixels() -> None:
    rows, columns = np.nonzero(draw("features", 4))
    found = set(zip(rows.tolist(), columns.tolist(), strict=True))
    for corner in ((40, 60), (40, 99), (69, 60), (69, 99)):
        assert min(np.hypot(corner[0] - y, corner[1] - x) for y, x in found) <= 2
    rows, columns = np.nonzero(draw("features", 100))
    assert len(rows) == 100
    edge = np.minimum(
        np.minimum(abs(rows - 39.5), abs(rows - 69.5)), np.minimum(abs(columns - 59.5), abs(columns - 99.5))
    )
    assert edge.max() <= 2


def test_features_without_an_image_are_an_error() -> None:
    with pytest.raises(DataError, match="image"):
        sample_depth(depth(), Sparse(pattern="features"), generator=np.random.default_rng(0))


@pytest.mark.parametrize("pattern", MADE)
def test_noise_is_relative_and_moves_no_sample(pattern: str) -> None:
    clean, noisy = draw(pattern, 2000, noise=0.0), draw(pattern, 2000, noise=0.1)
    np.testing.assert_array_equal(clean > 0, noisy > 0)
    ratio = noisy[clean > 0] / clean[clean > 0]
    assert ratio.std() == pytest.approx(0.1, rel=0.15) and ratio.mean() == pytest.approx(1, abs=0.02)


def test_wild_noise_keeps_every_sample_positive() -> None:
    assert (draw("exact", 2000, noise=5.0) > 0).sum() == 2000


@pytest.mark.parametrize("pattern", ["exact", "bernoulli", "lidar16"])
def test_the_key_decides_the_draw(pattern: str) -> None:
    section = Sparse(pattern=pattern, samples=100, noise=0.01)
    first, again, other = (attach(frame(), section, key=key)["sparse"] for key in ("1", "1", "2"))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_attach_leaves_the_given_sample_alone_and_replaces_stored_samples() -> None:
    given = frame()
    given["sparse"] = np.ones((HEIGHT, WIDTH), np.float32)
    made = attach(given, Sparse(samples=10), key="k")
    assert (given["sparse"] == 1).all() and (made["sparse"] > 0).sum() == 10
    assert made["depth"] is given["depth"]


def test_stored_samples_are_the_data_sets_own() -> None:
    given = frame()
    given["sparse"] = draw("grid", 50)
    made = attach(given, Sparse(pattern="stored", samples=0), key="k")
    np.testing.assert_array_equal(made["sparse"], given["sparse"])


def test_stored_without_samples_and_sampled_without_depth_are_errors() -> None:
    with pytest.raises(DataError, match=r"'a': data\.sparse\.pattern=stored, but"):
        attach(frame(), Sparse(pattern="stored"), key="k")
    without = frame()
    del without["depth"]
    with pytest.raises(DataError, match="'a' has no depth"):
        attach(without, Sparse(), key="k")


@pytest.mark.parametrize("size", [(24, 32), (48, 50), (96, 128), (120, 300)])
def test_resizing_loses_no_sample_but_to_a_nearer_one(size: tuple[int, int]) -> None:
    sparse = draw("exact", 60)
    given = frame()
    given["sparse"] = sparse
    moved = resize(given, size)["sparse"]
    rows, columns = np.nonzero(sparse)
    pixels = (
        np.floor((rows + 0.5) * size[0] / HEIGHT).astype(int),
        np.floor((columns + 0.5) * size[1] / WIDTH).astype(int),
    )
    assert (moved[pixels] > 0).all() and (moved[pixels] <= sparse[rows, columns]).all()
    assert (moved > 0).sum() == len(set(zip(*(each.tolist() for each in pixels), strict=True)))
    assert np.isin(moved, sparse).all() and moved.dtype == np.float32


def test_of_samples_in_one_pixel_the_nearest_stays() -> None:
    sparse = np.array([[3, 2], [0, 5]], np.float32)
    assert resize_sparse(sparse, (1, 1)).tolist() == [[2]]


@pytest.mark.parametrize("pattern", MADE)
def test_samples_keep_off_the_margin(pattern: str) -> None:
    section = Sparse(pattern=pattern, samples=500, margin=0.2)
    sparse = sample_depth(depth(False), section, generator=np.random.default_rng(0), image=image())
    rows, columns = np.nonzero(sparse)
    assert len(rows) > 50
    assert rows.min() >= 19 and rows.max() < 77 and columns.min() >= 25 and columns.max() < 103
    if pattern == "exact":
        assert len(rows) == 500


def test_the_margin_of_s2d_leaves_the_pixels_that_its_protocol_scores() -> None:
    full = np.ones((240, 320), np.float32)
    section = Sparse(pattern="exact", samples=240 * 320, margin=0.025)
    sparse = sample_depth(full, section, generator=np.random.default_rng(0))
    scored = np.zeros((240, 320), bool)
    crop = PROTOCOLS["nyu-s2d"].crop
    assert crop is not None
    scored[crop.window(240, 320)] = True
    np.testing.assert_array_equal(sparse > 0, scored)


def test_stored_samples_are_the_data_sets_own_in_the_margin_too() -> None:
    section = Sparse(pattern="stored", margin=0.2)
    sample = {**frame(holes=False), "sparse": depth(False)}
    np.testing.assert_array_equal(attach(sample, section, key="k")["sparse"], depth(False))
