"""Images of depth: one scale in metres, unmeasured pixels that look like no depth, scores as stated."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from depthray.imaging import sheets
from depthray.imaging.sheets import ColourScale, SheetRow


def row(*, truth_m=2.0, predicted_m=2.2, size=(24, 32), **fields):
    image = np.full((*size, 3), 128, np.uint8)
    truth = np.full(size, truth_m, np.float32)
    truth[:4] = 0
    return SheetRow("room-0001/00", image, truth, np.full(size, predicted_m, np.float32), **fields)


def tiles(rows, **scales):
    """The centre pixel of the four tiles of the first row."""
    sheet = sheets.draw_sheet(rows, **scales)
    width = sheets._tile_width(rows)
    y = 74 + 30 + round(width * 24 / 32) * 2 // 3
    return [sheet[y, sheets._column_start(column, width) + width // 2] for column in range(4)]


def test_colour_runs_from_warm_near_to_cold_far():
    near, far = sheets.colour_depth(np.array([[1.0, 5.0]], np.float32), near=1, far=5)[0].astype(int)
    assert near[0] > 80 and near[2] < 20  # red
    assert far[2] > far[0]  # blue


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_unmeasured_pixels_are_a_grey_no_depth_has(bad):
    depth = np.linspace(0.01, 10, 4000, dtype=np.float32)[None]
    assert not (sheets.colour_depth(depth, near=0, far=10) == sheets.UNMEASURED).all(-1).any()
    depth[0, 7] = bad
    assert (sheets.colour_depth(depth, near=0, far=10)[0, 7] == sheets.UNMEASURED).all()


def test_colour_clips_to_the_scale():
    colours = sheets.colour_depth(np.array([[0.5, 1, 5, 50]], np.float32), near=1, far=5)[0]
    assert (colours[0] == colours[1]).all() and (colours[2] == colours[3]).all()


@pytest.mark.parametrize(("low", "high"), [(0.5, 9.3), (1.9, 2.1), (0.001, 0.01), (4, 80)])
def test_scale_holds_the_depths_and_ends_on_round_labels(low, high):
    near, far, step = sheets.depth_scale(
        [np.linspace(low, high, 500, dtype=np.float32)[None], np.zeros((2, 2), np.float32)]
    )
    assert near <= low + (high - low) / 100 and far >= high - (high - low) / 50
    ticks = (far - near) / step
    assert ticks == pytest.approx(round(ticks), abs=1e-6) and 1 <= ticks <= 10


def test_labels_of_a_bar_begin_at_zero_without_a_sign(monkeypatch):
    labels = []
    monkeypatch.setattr(sheets, "_draw_text", lambda image, text, *_, **__: labels.append(text))
    sheets.add_scale(np.zeros((10, 320, 3), np.uint8), ColourScale(0, 4, 1))
    assert labels[0] == "0" and labels[-1] == "4 m"


def test_scale_without_any_truth_is_the_default():
    assert sheets.depth_scale([np.zeros((3, 3), np.float32)]) == ColourScale(0, 10, 2)


def test_truth_and_prediction_share_one_scale():
    same = tiles([row(truth_m=3, predicted_m=3)])
    assert (same[1] == same[2]).all()
    unlike = tiles([row(truth_m=3, predicted_m=3.5), row(truth_m=5)])
    assert (unlike[1] != unlike[2]).any()


def test_scales_do_not_depend_on_the_predictions():
    first, second = tiles([row(predicted_m=2.0)]), tiles([row(predicted_m=9.0)])
    assert (first[1] == second[1]).all()
    assert (first[3] != second[3]).any()


def test_error_has_its_own_scale():
    bright = tiles([row(predicted_m=2.5)], depth=ColourScale(0, 10, 2), error=ColourScale(0, 0.5, 0.1))
    assert (bright[3] == sheets._ERROR_MAP[-1]).all()
    assert (bright[1] == sheets._DEPTH_MAP[51]).all()


def test_unmeasured_truth_is_hatched_in_truth_and_error_only():
    sheet = sheets.draw_sheet([row()])
    width = sheets._tile_width([row()])
    strip = [sheet[74 + 30 + 3, sheets._column_start(column, width) :][:width] for column in range(4)]
    hatched = [np.isin(line, np.array(sheets._HATCH)).all() for line in strip]
    assert hatched == [False, True, False, True]


@pytest.mark.parametrize("width", [32, 100, 160, 320, 640, 1920])
def test_tiles_are_large_enough_to_see_and_small_enough_for_a_screen(width):
    image = np.zeros((6, width, 3), np.uint8)
    rows = [SheetRow("a", image, np.ones((6, width), np.float32), np.ones((6, width), np.float32))]
    assert 240 <= sheets._tile_width(rows) <= 480
    assert sheets.draw_sheet(rows).shape[1] <= 4 * 480 + 100


def test_prediction_of_another_size_is_scored_at_the_size_of_the_truth():
    one = row(truth_m=2, predicted_m=2.5)._replace(prediction=np.full((6, 8), 2.5, np.float32))
    assert sheets._score_text(one, sheets.resize_map(one.prediction, one.truth.shape)) == "AbsRel 0.250"


def test_score_counts_measured_pixels_only_and_a_given_one_wins():
    assert sheets.abs_rel(row().prediction, row().truth) == pytest.approx(0.1, abs=1e-6)
    assert sheets._score_text(row(score=0.5), row().prediction) == "AbsRel 0.500"
    assert sheets._score_text(row(truth_m=0), row().prediction) == "no truth"
    assert np.isnan(sheets.abs_rel(row().prediction, np.zeros((24, 32), np.float32)))


def test_a_prediction_of_nans_still_makes_a_sheet():
    assert sheets.draw_sheet([row(predicted_m=np.nan)]).dtype == np.uint8


def test_long_ids_keep_their_end_and_leave_space_for_the_score():
    short = sheets._shorten("scene/" * 200 + "frame-0042", 200)
    assert short.startswith("...") and short.endswith("frame-0042")
    assert sheets._text_width(short) <= 200


def test_png_holds_the_same_rgb(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = sheets.save_png(tmp_path / "a.png", rgb)
    assert (cv2.imread(str(path))[..., ::-1] == rgb).all()


def test_a_title_is_a_line_above_the_sheet():
    plain, titled = (
        sheets.draw_sheet([row()]),
        sheets.draw_sheet([row()], title="/runs/first, val frames, protocol plain"),
    )
    assert (titled[30:] == plain).all() and titled.shape[0] == plain.shape[0] + 30
    assert (titled[:30] != titled[0, 0]).any(), "something is written there"
