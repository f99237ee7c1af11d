"""Augmentation: a pure function of (seed, epoch, id); geometry moves all, photometry the RGB only."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.config.sections import Augment
from depthray.data.augmentation.augment import augment
from depthray.data.augmentation.geometry import View
from depthray.data.augmentation.warp import show

ALL = Augment(
    hflip=0.5, crop=0.7, rotate=10, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=0.5, noise=0.5
)
COLOUR_ONLY = ALL.model_copy(update={"hflip": 0.0, "crop": 1.0, "rotate": 0.0})
CAMERA = np.array([[30, 0, 18.0], [0, 33, 13.0], [0, 0, 1]], np.float32)
PLACE = "semantics"  # holds each pixel's own index, so that tests can see where it went


def sample(name: str = "a", height: int = 24, width: int = 40) -> Sample:
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return {
        "image": image,
        "background": image.copy(),
        "depth": random.uniform(0.5, 9, (height, width)).astype(np.float32),
        "semantics": np.arange(height * width, dtype=np.int32).reshape(height, width) + 1,
        "mask": random.integers(0, 2, (height, width), dtype=np.uint8),
        "intrinsics": CAMERA.copy(),
        "id": name,
        "scene": "s",
    }


def mirror(given: Sample) -> Sample:
    return show(given, View.of(given).mirror())


def rotate(given: Sample, degrees: float) -> Sample:
    return show(given, View.of(given).rotate(degrees))


def same(one: Sample, two: Sample) -> bool:
    return all(np.array_equal(one[key], two[key]) for key in one)


def rays(camera: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """(N) pixels -> (3,N) points on them at one metre along the optical axis."""
    ones = np.ones_like(rows)
    return np.asarray(np.linalg.inv(camera.astype(np.float64)) @ np.stack([columns, rows, ones]))


def pairs(changed: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(3,N) points of the new pixels and of the old pixels they show, each with its own camera and depth."""
    rows, columns = np.nonzero(changed[PLACE])
    old = np.unravel_index(changed[PLACE][rows, columns] - 1, (24, 40))
    before = rays(CAMERA, *old) * sample()["depth"][old]
    return rays(changed["intrinsics"], rows, columns) * changed["depth"][rows, columns], before


def test_same_key_same_sample_and_other_keys_others() -> None:
    def draw(name: str, seed: int, epoch: int) -> Sample:
        return augment(sample(name), ALL, seed=seed, epoch=epoch)

    assert same(draw("a", 1, 2), draw("a", 1, 2))
    for other in (("b", 1, 2), ("a", 2, 2), ("a", 1, 3), ("a", 2, 1)):
        assert not np.array_equal(draw("a", 1, 2)["image"], draw(*other)["image"])


def test_what_came_before_does_not_matter() -> None:
    first = augment(sample("x"), ALL, seed=0, epoch=0)
    for name in "abc":
        augment(sample(name), ALL, seed=9, epoch=9)
    assert same(first, augment(sample("x"), ALL, seed=0, epoch=0))


def test_the_input_is_left_alone() -> None:
    given = sample()
    for epoch in range(10):
        augment(given, ALL, seed=0, epoch=epoch)
    assert same(given, sample())


@pytest.mark.parametrize("epoch", range(8))
def test_no_new_values_in_maps_and_all_move_together(epoch: int) -> None:
    section = ALL.model_copy(update={"zoom_depth": False})  # which would give depth other values: see test_geometry.py
    old, new = sample(), augment(sample(), section, seed=0, epoch=epoch, size=(20, 30))
    assert new["image"].shape == (20, 30, 3) and new["depth"].shape == (20, 30)
    seen = new[PLACE] > 0
    for key in ("depth", "mask"):
        origin = old[key].ravel()[new[PLACE][seen] - 1]
        np.testing.assert_array_equal(new[key][seen], origin)
    assert (new["depth"][~seen] == 0).all()


def test_mirror_twice_is_the_identity() -> None:
    assert same(mirror(mirror(sample())), sample())
    assert not same(mirror(sample()), sample())


def test_mirrored_points_are_the_mirror_image() -> None:
    new, old = pairs(mirror(sample()))
    np.testing.assert_allclose(new, old * [[-1], [1], [1]], atol=1e-4)


def test_cropped_points_stay_where_they_are() -> None:
    cropped = show(sample(), View.of(sample()).crop(0.6, left=0.5, top=0.9))
    new, old = pairs(cropped)
    assert cropped["depth"].shape == (14, 24)
    np.testing.assert_allclose(new, old, atol=1e-4)


@pytest.mark.parametrize("degrees", [-20.0, 7.0, 45.0])
def test_rotated_points_are_rolled_about_the_optical_axis(degrees: float) -> None:
    new, old = pairs(rotate(sample(), degrees))
    turn = np.radians(degrees)
    roll = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    nearest = 0.71 * np.array([[9 / 30], [9 / 33], [0]])  # off by half a pixel each way at most, at 9 m at most
    assert (np.abs(new - roll @ old) <= nearest + 1e-4).all()
    assert np.abs(new - old).max() > 0.5


def test_image_turns_with_the_maps() -> None:
    smooth = sample()
    rows, columns = np.indices((24, 40))
    smooth["image"] = np.repeat((rows * 4 + columns * 3).astype(np.uint8)[..., None], 3, axis=2)
    new = rotate(smooth, 15)
    seen = new[PLACE] > 0
    shift = new["image"][..., 0][seen].astype(int) - smooth["image"][..., 0].ravel()[new[PLACE][seen] - 1]
    assert np.abs(shift).max() <= 4 and np.abs(shift).max() > 1  # half a pixel: interpolated, unlike the maps


def test_photometry_touches_rgb_only() -> None:
    for epoch in range(6):
        new = augment(sample(), COLOUR_ONLY, seed=0, epoch=epoch)
        assert not np.array_equal(new["image"], sample()["image"])
        for key in ("depth", "semantics", "mask", "intrinsics"):
            np.testing.assert_array_equal(new[key], sample()[key])


def test_background_gets_the_same_draw_as_the_image() -> None:
    for epoch in range(12):
        given = sample()
        given["background"][:4] = 0  # another mean, at which contrast must not turn apart
        new = augment(given, COLOUR_ONLY.model_copy(update={"blur": 0.0}), seed=0, epoch=epoch)
        np.testing.assert_array_equal(new["image"][4:], new["background"][4:])
        assert not np.array_equal(new["image"][:4], new["background"][:4])


NAMED = ["brightness_contrast", "hue_saturation_value"]


@pytest.mark.parametrize("key", NAMED)
def test_named_colour_changes_come_as_often_as_configured_to_rgb_alone(key: str) -> None:
    section = Augment(hflip=0, **{key: 0.5})
    changed = 0
    for number in range(60):
        new = augment(sample(str(number)), section, seed=0, epoch=0)
        changed += not np.array_equal(new["image"], sample()["image"])
        np.testing.assert_array_equal(new["image"], new["background"])
        for map_key in ("depth", "semantics", "mask", "intrinsics"):
            np.testing.assert_array_equal(new[map_key], sample()[map_key])
    assert 15 < changed < 45
    one, again = (augment(sample("x"), section.model_copy(update={key: 1.0}), seed=3, epoch=4) for _ in range(2))
    assert same(one, again) and not same(one, sample("x"))


@pytest.mark.parametrize("key", NAMED)
def test_named_colour_changes_are_one_draw_for_image_and_background(key: str) -> None:
    for epoch in range(8):
        given = sample()
        given["background"][:4] = 0
        new = augment(given, Augment(hflip=0, **{key: 1.0}), seed=0, epoch=epoch)
        np.testing.assert_array_equal(new["image"][4:], new["background"][4:])


def test_brightness_and_contrast_change_by_a_fifth_at_most() -> None:
    flat, gains, shifts = sample(), [], []
    ramp = np.broadcast_to(np.linspace(60, 180, 40).astype(np.uint8)[None, :, None], (24, 40, 3))
    for number in range(60):
        flat = {**sample(str(number)), "image": ramp.copy(), "background": ramp.copy()}
        new = augment(flat, Augment(hflip=0, brightness_contrast=1.0), seed=0, epoch=0)["image"][0, :, 0].astype(float)
        inner = (new > 0) & (new < 255)
        gain, shift = np.polyfit(ramp[0, inner, 0].astype(float), new[inner], 1)
        gains.append(gain)
        shifts.append(shift)
    assert 0.79 < min(gains) < 0.85 and 1.15 < max(gains) < 1.21
    assert -52.5 < min(shifts) < -40 and 40 < max(shifts) < 52.5  # a fifth of 255


def test_background_and_mask_get_the_same_geometry() -> None:
    given = sample()
    given["background"] = given["image"] // 2
    given["mask"] = (given["image"][..., 0] > 127).astype(np.uint8)
    section = Augment(hflip=1.0, crop=0.7)
    for epoch in range(4):
        new = augment(given, section, seed=0, epoch=epoch)
        cut = augment(given, section, seed=0, epoch=epoch, size=(11, 17))
        origin = np.unravel_index(new[PLACE] - 1, (24, 40))
        np.testing.assert_array_equal(new["mask"], given["mask"][origin])
        assert np.abs(new["background"].astype(int) - new["image"] // 2).max() <= 1
        assert cut["background"].shape == cut["image"].shape and cut["mask"].shape == (11, 17)
        turned = rotate(given, 20)
        assert np.abs(turned["background"].astype(int) - turned["image"] // 2).max() <= 1


def test_blur_and_noise_are_drawn_apart() -> None:
    def changed(**chances: float) -> list[bool]:
        section = Augment(hflip=0, **chances)
        images = [augment(sample(str(i)), section, seed=0, epoch=0)["image"] for i in range(40)]
        return [not np.array_equal(image, sample()["image"]) for image in images]

    assert 10 < sum(changed(blur=0.5)) < 30
    assert sum(changed(blur=0.5, noise=0.5)) > 24  # 30 when independent, 20 when one coin decides both


@pytest.mark.parametrize(("hflip", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)])
def test_flip_probability(hflip: float, least: int, most: int) -> None:
    section = Augment(hflip=hflip)
    flips = [augment(sample(str(i)), section, seed=0, epoch=0)[PLACE][0, 0] != 1 for i in range(200)]
    assert least <= sum(flips) <= most


def test_switching_colour_on_keeps_the_geometry() -> None:
    for epoch in range(6):
        plain = augment(sample(), Augment(crop=0.6, rotate=8), seed=0, epoch=epoch)
        coloured = augment(sample(), Augment(crop=0.6, rotate=8, brightness=0.3, noise=1), seed=0, epoch=epoch)
        np.testing.assert_array_equal(plain["depth"], coloured["depth"])


def test_colours_are_those_of_before_bit_for_bit() -> None:
    section = Augment(
        **{"hflip": 0, "brightness": 0.3, "contrast": 0.3, "saturation": 0.2, "hue": 0.05},
        **{"brightness_contrast": 0.5, "hue_saturation_value": 0.5, "blur": 0.5, "noise": 0.5},
    )
    digest = sha256()
    for epoch in range(6):
        image = np.random.default_rng(epoch).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        given: Sample = {"image": image, "background": image[::-1].copy(), "id": str(epoch)}
        new = augment(given, section, seed=1, epoch=epoch)
        for key in ("image", "background"):
            digest.update(np.ascontiguousarray(new[key]).tobytes())
    assert digest.hexdigest() == "c19b61af097b4974a7bae7d9df0835744ba7dc6f567e702f2a9f31158b896dd3"  # of version 0.2.0
