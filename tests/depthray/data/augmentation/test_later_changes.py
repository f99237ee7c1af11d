"""Upside-down flips, gamma, BTS's colour, motion blur, JPEG and CutDepth: each as published, and off by default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.config.sections import Augment
from depthray.data.augmentation import camera_changes, cutdepth
from depthray.data.augmentation.augment import LATER, augment, generator_of
from depthray.data.augmentation.camera_changes import Tone, as_jpeg, motion_kernel, tone_table
from depthray.data.augmentation.geometry import View
from depthray.data.augmentation.warp import show
from depthray.data.rendering import render

ON: dict[str, dict[str, Any]] = {
    "vflip": {"vflip": 1},
    "gamma": {"gamma": 0.3},
    "bts": {"bts_colour": 1},
    "motion": {"motion_blur": 1},
    "jpeg": {"jpeg": 1},
    "cutdepth": {"cutdepth": 1},
}
RGB_ONLY = [name for name in ON if name != "vflip"]
METRES = (0.1, 10.0)


@pytest.fixture(scope="module")
def frame() -> Sample:
    return render.render_frame(0, 3, height=60, width=80)


def changed(frame: Sample, name: str = "x", epoch: int = 0, **keys: Any) -> Sample:
    return augment({**frame, "id": name}, Augment(**{"hflip": 0, **keys}), seed=1, epoch=epoch, measured=METRES)


def same(one: Sample, two: Sample, *keys: str) -> bool:
    return all(np.array_equal(one[key], two[key]) for key in keys or one)


@pytest.mark.parametrize("change", ON)
def test_each_is_a_function_of_seed_epoch_and_id_and_leaves_the_input_alone(frame: Sample, change: str) -> None:
    before = frame["image"].copy()
    one, again = (changed(frame, **ON[change]) for _ in range(2))
    assert same(one, again) and not same(one, changed(frame), "image")
    assert np.array_equal(frame["image"], before)
    if change != "vflip":
        others = [changed(frame, epoch=epoch, **ON[change])["image"] for epoch in (1, 2)]
        assert not all(np.array_equal(one["image"], other) for other in others)


@pytest.mark.parametrize("change", RGB_ONLY)
def test_each_of_colour_touches_the_image_alone(frame: Sample, change: str) -> None:
    one, plain = changed(frame, **ON[change]), changed(frame)
    assert same(one, plain, *(key for key in plain if key not in ("image", "background")))
    assert same(one, plain, "background") is (change == "cutdepth")


@pytest.mark.parametrize(("change", "field"), [("gamma", "tone"), ("motion", "motion"), ("jpeg", "quality")])
def test_each_has_random_numbers_of_its_own(change: str, field: str) -> None:
    """With all others on, one that is switched on changes nothing else that is drawn, then or after it."""
    all_on = Augment(**{key: value for each in ON.values() for key, value in each.items()})
    without = all_on.model_copy(update=dict.fromkeys(ON[change], 0.0))
    one, two = generator_of("a"), generator_of("a")
    drawn_one, drawn_two = camera_changes.draw(all_on, one)._asdict(), camera_changes.draw(without, two)._asdict()
    assert {key for key, value in drawn_one.items() if value != drawn_two[key]} == {field}
    assert one.random() == two.random()


def test_each_change_that_is_off_by_default_is_among_those_with_random_numbers_of_their_own() -> None:
    """One that is forgotten there would not be made unless another is on."""
    assert set(LATER) == {key for each in ON.values() for key in each}
    assert not any(getattr(Augment(), key) for key in LATER)


@pytest.mark.parametrize("change", RGB_ONLY)
def test_changes_of_before_are_drawn_as_they_were(frame: Sample, change: str) -> None:
    before = {"hflip": 0.5, "crop": 0.7, "rotate": 5, "brightness": 0.2}
    for epoch in range(4):
        plain, more = changed(frame, epoch=epoch, **before), changed(frame, epoch=epoch, **before, **ON[change])
        assert same(plain, more, "depth", "semantics", "mask", "intrinsics")
        if change == "cutdepth":
            assert (plain["image"] == more["image"]).mean() > 0.4, "colours were drawn as without it"


def test_upside_down_moves_all_maps_and_the_camera(frame: Sample) -> None:
    turned = changed(frame, vflip=1)
    for key in ("image", "background", "depth", "semantics", "mask"):
        np.testing.assert_array_equal(turned[key], frame[key][::-1])
    (fx, _, cx), (_, fy, cy), _ = frame["intrinsics"]
    np.testing.assert_allclose(turned["intrinsics"], [[fx, 0, cx], [0, fy, 59 - cy], [0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize("order", ["crop first", "flip first", "both ways", "turned", "resized"])
def test_points_of_an_upside_down_frame_are_the_mirror_image(frame: Sample, order: str) -> None:
    view = View.of(frame)
    if order == "crop first":
        view = view.crop(0.6, left=0.3, top=0.9).mirror_rows()
    elif order == "turned":
        view = view.rotate(10).mirror_rows().rotate(10)  # the roll is undone in the mirror
    elif order == "resized":
        view = view.mirror_rows().resize((120, 160))
    else:
        view = (view.mirror() if order == "both ways" else view).mirror_rows().crop(0.6, left=0.3, top=0.9)
    place = np.arange(60 * 80, dtype=np.int32).reshape(60, 80) + 1
    shown = show({**frame, "semantics": place}, view)
    rows, columns = np.nonzero(shown["semantics"])
    old_rows, old_columns = np.unravel_index(shown["semantics"][rows, columns] - 1, (60, 80))
    new, old = rays(shown["intrinsics"], rows, columns), rays(frame["intrinsics"], old_rows, old_columns)
    sign = -1 if order == "both ways" else 1
    pixel = {"turned": 0.71, "resized": 0.51}.get(order, 1e-3) / frame["intrinsics"][0, 0]
    np.testing.assert_allclose(new, old * [sign, -1], atol=pixel)
    np.testing.assert_array_equal(shown["depth"][rows, columns], frame["depth"][old_rows, old_columns])


def rays(camera: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    """(N) pixels -> (N,2) of X / Z and Y / Z"""
    return np.stack([(columns - camera[0, 2]) / camera[0, 0], (rows - camera[1, 2]) / camera[1, 1]], axis=1)


def drawn(count: int = 400, **keys: Any) -> list[camera_changes.CameraChanges]:
    section = Augment(**keys)
    return [camera_changes.draw(section, generator_of(str(number))) for number in range(count)]


@pytest.mark.parametrize(("brightness", "low", "high"), [(0.25, 0.675, 1.375), (0.1, 0.81, 1.21)])
def test_bts_has_the_ranges_of_its_authors(brightness: float, low: float, high: float) -> None:
    tones = [each.tone for each in drawn(bts_colour=1, bts_brightness=brightness) if each.tone]
    exponents, gains = np.array([tone.exponent for tone in tones]), np.array([tone.gains for tone in tones])
    assert len(tones) == 400 and 0.9 <= exponents.min() < 0.91 and 1.09 < exponents.max() <= 1.1
    assert low <= gains.min() < 1.08 * low and 0.95 * high < gains.max() <= high
    spread = gains / gains.mean(axis=1, keepdims=True)
    assert np.abs(np.corrcoef(spread[:, 0], spread[:, 1])[0, 1]) < 0.7, "each colour has its own gain"
    assert 140 < sum(each.tone is not None for each in drawn(bts_colour=0.5)) < 260


def test_a_tone_is_a_curve_then_gains_then_the_ends_of_the_scale() -> None:
    table = tone_table(Tone(1.1, (1.3, 1.0, 0.5)))[:, 0]
    values = np.arange(256) / 255
    for channel, gain in enumerate((1.3, 1.0, 0.5)):
        np.testing.assert_array_equal(table[:, channel], np.rint(255 * np.minimum(gain * values**1.1, 1)))


def test_gamma_alone_keeps_black_white_and_the_range() -> None:
    exponents = [each.tone.exponent for each in drawn(gamma=0.2) if each.tone]
    assert len(exponents) == 400 and 0.8 <= min(exponents) < 0.81 and 1.19 < max(exponents) <= 1.2
    assert (tone_table(Tone(0.8, (1, 1, 1)))[[0, 255], 0] == [[0] * 3, [255] * 3]).all()


@pytest.mark.parametrize(("degrees", "across"), [(0, True), (90, False)])
def test_motion_blurs_along_its_line_alone(degrees: float, across: bool) -> None:
    kernel = motion_kernel(9, degrees, width=320)
    line = kernel[4] if across else kernel[:, 4]
    assert kernel.shape == (9, 9) and kernel.sum() == pytest.approx(1) and line.sum() == pytest.approx(1)
    assert len(motion_kernel(9, 0, width=640)) in (17, 19), "as long a share of a wider picture"
    lengths = [each.motion[0] for each in drawn(motion_blur=1) if each.motion]
    assert 3 <= min(lengths) < 3.2 and 14.8 < max(lengths) <= 15


def test_jpeg_loses_less_the_higher_its_quality_and_keeps_colours_in_their_order(frame: Sample) -> None:
    loss = [np.abs(as_jpeg(frame["image"], quality).astype(int) - frame["image"]).mean() for quality in (30, 60, 90)]
    assert loss[0] > loss[1] > loss[2] > 0
    red = np.zeros((32, 32, 3), np.uint8)
    red[8:24, 8:24, 0] = 200
    assert as_jpeg(red, 90)[16, 16].argmax() == 0 and as_jpeg(red[..., ::-1], 90)[16, 16].argmax() == 2
    assert np.abs(as_jpeg(red, 90)[16, 16] - [200, 0, 0]).max() < 6
    qualities = [each.quality for each in drawn(jpeg=1) if each.quality]
    assert (min(qualities), max(qualities)) == (30, 90)


def test_jpeg_weighs_red_and_blue_as_a_camera_does() -> None:
    """Of stripes a pixel wide, brightness alone is kept, and blue has 0.114 of it."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 120
    contrasts = []
    for channel in range(3):
        one = np.full_like(stripes, 60)
        one[..., channel] = stripes[..., channel]
        shown = as_jpeg(one, 90).astype(float).mean(axis=2)
        contrasts.append(shown[:, ::2].mean() - shown[:, 1::2].mean())
    assert contrasts[1] > contrasts[0] > contrasts[2] > 0


def test_a_rectangle_is_that_of_the_paper() -> None:
    section, size = Augment(cutdepth=1), (480, 640)
    for number in range(200):
        cut = cutdepth.draw(section, generator_of(str(number)), size=size, measured=METRES)
        _, a, b, c, d = generator_of(str(number)).random(5)
        assert cut is not None and (cut.left, cut.top) == (int(a * 640), int(b * 480))
        assert cut.right - cut.left == int(max((640 - a * 640) * c * 0.75, 1))
        assert cut.bottom - cut.top == int(max((480 - b * 480) * d * 0.75, 1))
        assert cut.right <= 640 and cut.bottom <= 480
    section = Augment(cutdepth=0.25)
    cuts = [cutdepth.draw(section, generator_of(str(i)), size=size, measured=METRES) for i in range(400)]
    assert 60 < sum(cut is not None for cut in cuts) < 140


@pytest.mark.parametrize("scale", [None, (1000, 0.5, 1), (1000, 1, 0)])
def test_pasted_depth_is_the_depth_that_is_learned(scale: tuple[float, float, float] | None) -> None:
    depth = np.array([[0, 2000, 4000], [9000, 12000, 50]])
    sample: Sample = {"image": np.full((2, 3, 3), 7, np.uint8), "depth": (depth / 1000).astype(np.float32)}
    share = 1.0
    if scale is not None:
        sample |= {"depth": depth.astype(np.uint16), "depth_scale": np.array(scale, np.float32)}
        share = scale[1]
    shown = cutdepth.paste(sample, cutdepth.Cut(0, 1, 2, 3, METRES))["image"]
    assert (shown[:, 0] == 7).all() and (shown == shown[..., :1]).all()
    beyond = 0 if scale and scale[2] else 255
    near = 0 if scale and scale[2] else 1
    assert shown[:, 1:, 0].tolist() == [[round(51 * share), round(102 * share)], [beyond, near]]


def test_a_sample_without_depth_stays_as_it_is() -> None:
    sample: Sample = {"image": np.zeros((4, 5, 3), np.uint8), "id": "a"}
    assert np.array_equal(augment(sample, Augment(hflip=0, cutdepth=1), seed=0, epoch=0)["image"], sample["image"])


def test_a_curriculum_scales_pasted_depth_too(frame: Sample) -> None:
    section = Augment(hflip=0, cutdepth=1)
    one, half = (augment(frame, section, seed=0, epoch=0, measured=METRES, depth_scale=scale) for scale in (1.0, 0.5))
    inside = (one["image"] != frame["image"]).any(axis=2)
    np.testing.assert_allclose(half["depth"], one["depth"] * 0.5)
    assert np.abs(half["image"][inside] * 2.0 - one["image"][inside]).max() <= 2
