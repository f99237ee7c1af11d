"""Depth cameras and LiDARs with errors: where they measure, how far off, and what decides the draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from depthray.config.sections import Sparse
from depthray.data import sensors
from depthray.data.sensors import SENSORS
from depthray.data.sparse import attach, sample_depth

HEIGHT, WIDTH = 120, 160
CAMERA = np.array([[140, 0, 79.5], [0, 140, 59.5], [0, 0, 1]], np.float32)
BOX = (slice(40, 80), slice(60, 100))


def wall(metres: float = 3.0, *, box: float = 0.0) -> NDArray[np.float32]:
    depth = np.full((HEIGHT, WIDTH), metres, np.float32)
    if box:
        depth[BOX] = box
    return depth


def grey(level: int = 128) -> NDArray[np.uint8]:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def draw(depth: NDArray[np.float32], *, seed: int = 0, image: Any = None, **options: Any) -> NDArray[np.float32]:
    section = Sparse(**options)
    shown = grey() if image is None else image
    generator = np.random.default_rng(seed)
    return sample_depth(depth, section, generator=generator, image=shown, intrinsics=CAMERA)


@pytest.mark.parametrize("pattern", SENSORS)
def test_without_errors_what_is_measured_is_right(pattern: str) -> None:
    sparse = draw(wall(box=1.5), pattern=pattern)
    assert sparse.dtype == np.float32 and sparse.shape == (HEIGHT, WIDTH)
    taken = sparse > 0
    assert 0 < taken.sum() < taken.size
    assert np.isin(sparse[taken].round(4), [1.5, 3.0]).all()


@pytest.mark.parametrize("pattern", SENSORS)
def test_draws_are_decided_by_the_seed(pattern: str) -> None:
    depth = wall(box=1.5)
    depth[5:20, 5:40] = 0
    first, again, other = (draw(depth, pattern=pattern, errors=1.0, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("pattern", SENSORS)
def test_nothing_to_measure_is_an_empty_map(pattern: str) -> None:
    assert not draw(np.zeros((HEIGHT, WIDTH), np.float32), pattern=pattern, errors=1.0).any()
    assert not draw(wall(), pattern=pattern, samples=0).any()


@pytest.mark.parametrize("metres", [1.0, 3.0])
def test_structured_light_deviates_as_published_and_in_steps(metres: float) -> None:
    sparse = draw(wall(metres), pattern="structured-light", errors=1.0)
    found = sparse[sparse > 0]
    step = metres**2 / (8 * 575 * 0.075)
    deviation = 0.0012 + 0.0019 * (metres - 0.4) ** 2
    assert found.std() == pytest.approx(np.hypot(deviation, step / np.sqrt(12)), rel=0.15)
    assert np.diff(np.unique(found)).min() == pytest.approx(step, rel=0.1)
    assert found.mean() == pytest.approx(metres, rel=0.01)


def test_structured_light_has_holes_in_shadow_at_edges_on_black_and_on_shine() -> None:
    image = grey()
    image[100:, :] = 4
    image[:10, :] = 254
    sparse = draw(wall(box=1.0), pattern="structured-light", image=image)
    assert not sparse[102:].any() and not sparse[:8].any()
    assert not sparse[50:70, 57:60].any()  # at the left of the box is the projector's shadow: 7 pixels
    assert (sparse[50:70, 70:90] > 0).mean() > 0.99
    assert (sparse[15:35, 20:] > 0).mean() > 0.99


def test_sensors_have_a_range() -> None:
    for pattern, beyond in (("structured-light", 0.4), ("tof", 0.4), ("tof", 5.0), ("zones", 4.5)):
        assert not draw(wall(beyond), pattern=pattern).any()
        assert draw(wall(beyond), pattern=pattern, range=(0.1, 9.0), image=grey(230)).any()


def test_time_of_flight_is_noisier_far_away_and_on_dark_surfaces_and_flies_at_edges() -> None:
    def deviation(metres: float, level: int) -> float:
        sparse = draw(wall(metres), pattern="tof", errors=1.0, image=grey(level))
        return float(sparse[sparse > 0].std())

    assert deviation(1.0, 128) == pytest.approx(0.0015 / np.sqrt(0.5), rel=0.1)
    assert deviation(2.0, 128) == pytest.approx(4 * deviation(1.0, 128), rel=0.1)
    assert deviation(1.0, 60) > 1.3 * deviation(1.0, 128)
    sparse = draw(wall(3.0, box=1.5), pattern="tof", errors=1.0)
    flying = (sparse > 1.6) & (sparse < 2.9)
    assert flying.any() and not flying[45:75, 65:95].any() and not flying[:35].any()


def test_zones_are_64_with_the_nearer_surface_of_two() -> None:
    sparse = draw(wall(3.0, box=1.0), pattern="zones")
    assert (sparse > 0).sum() == 64
    rows, columns = np.nonzero(sparse)
    reach = 140 * np.tan(np.radians(22.5))
    assert abs(rows - 59.5).max() < reach and abs(columns - 79.5).max() < reach
    assert set(sparse[sparse > 0].round(3).tolist()) == {1.0, 3.0}
    # A zone half of which is near: its echo is nine times as strong.
    half = wall(3.0)
    half[:, : WIDTH // 2 + 8] = 1.0
    assert sensors._strongest_echo(half[:16, 80:96], np.ones((16, 16), np.float32) / half[:16, 80:96] ** 2) == 1.0


def test_own_holes_are_hidden_again_elsewhere() -> None:
    depth = wall()
    depth[50:62, 30:50] = 0
    hidden = np.zeros((HEIGHT, WIDTH), bool)
    for seed in range(20):
        sparse = draw(depth, pattern="holes", seed=seed)
        more = (depth > 0) & (sparse == 0)
        assert 0 < more.sum() <= 2 * 12 * 20
        assert np.array_equal(sparse[sparse > 0], depth[sparse > 0])
        hidden |= more
    assert hidden.mean() > 0.3  # they come everywhere
    whole = draw(wall(), pattern="holes")
    assert 0.02 < (whole == 0).mean() < 0.6  # of a frame without holes, patches


def test_a_lidar_in_its_place_is_as_ever_and_off_it_casts_shadows() -> None:
    depth = wall(3.0, box=1.0)
    exact = draw(depth, pattern="lidar64")
    assert np.array_equal(exact, draw(depth, pattern="lidar64", tilt=1e-9) * (exact > 0))
    moved = draw(depth, pattern="lidar64", baseline=0.15)
    taken = moved > 0
    wrong = taken & (np.abs(moved - depth) > 0.1)
    # Where the sensor looks behind the box, the wall's depth is on the box: at its right, 14 pixels wide.
    assert wrong.any() and np.isin(np.nonzero(wrong)[1], range(60, 100)).all()
    assert (moved[wrong] == 3.0).all() and (depth[wrong] == 1.0).all()
    shadow = moved[45:75, 48:59] > 0
    assert shadow.mean() < 0.3 * (exact[45:75, 48:59] > 0).mean()


def test_a_tilted_lidar_has_the_depth_of_pixels_nearby() -> None:
    depth = (2 + np.arange(WIDTH, dtype=np.float32) / 100)[None].repeat(HEIGHT, axis=0)
    off = []
    for seed in range(30):
        sparse = draw(depth, pattern="lidar16", tilt=1.0, seed=seed)
        off.append(float((sparse - depth)[sparse > 0].mean()))
    assert np.std(off) == pytest.approx(0.01 * 140 * np.tan(np.radians(1.0)), rel=0.4)


def test_lost_returns_and_range_noise_of_a_lidar() -> None:
    whole = (draw(wall(), pattern="lidar64") > 0).sum()
    counts = [(draw(wall(), pattern="lidar64", lost=0.2, seed=seed) > 0).sum() for seed in range(30)]
    assert np.mean(counts) / whole == pytest.approx(0.72, abs=0.08)  # neighbouring shots share pixels
    sparse = draw(wall(), pattern="lidar64", errors=1.0)
    assert sparse[sparse > 0].std() == pytest.approx(0.03, rel=0.1)


def test_features_are_off_with_the_square_of_the_distance_and_some_are_another_point() -> None:
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    deviations = []
    for metres in (1.0, 3.0):
        sparse = draw(wall(metres), pattern="features", samples=2000, errors=1.0, image=image)
        deviations.append(float(sparse[sparse > 0].std()))
    assert deviations == pytest.approx([0.01, 0.09], rel=0.1)
    depth = np.random.default_rng(1).uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float32)
    sparse = draw(depth, pattern="exact", samples=4000, outliers=0.1)
    wrong = (sparse > 0) & (sparse != depth)
    assert wrong.sum() / 4000 == pytest.approx(0.1, abs=0.02)
    assert np.isin(sparse[wrong], depth).all()


def test_any_number_of_samples_in_training() -> None:
    counts = [int((draw(wall(), samples=(0, 5000), seed=seed) > 0).sum()) for seed in range(400)]
    assert min(counts) == 0 and 3000 < max(counts) <= 5000
    assert np.mean(np.array(counts) == 0) == pytest.approx((0.5 / 5000) ** (1 / 3), abs=0.03)
    assert np.cbrt(np.median(counts) / 5000) == pytest.approx(0.5, abs=0.08)
    assert {int((draw(wall(), samples=(7, 9), seed=seed) > 0).sum()) for seed in range(50)} == {7, 8, 9}


def test_dropout_is_of_training_alone() -> None:
    frame: Any = {"image": grey(), "depth": wall(), "id": "a", "scene": "s"}
    section = Sparse(samples=50, dropout=0.3)
    empty = [not attach(frame, section, key=str(key), training=True)["sparse"].any() for key in range(200)]
    assert np.mean(empty) == pytest.approx(0.3, abs=0.08)
    assert all(attach(frame, section, key=str(key))["sparse"].any() for key in range(50))
    kept = attach(frame, section, key="3", training=True)["sparse"]
    without = attach(frame, Sparse(samples=50), key="3", training=True)["sparse"]
    assert not kept.any() or np.array_equal(kept, without)  # the draw itself is as without
