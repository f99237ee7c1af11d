"""Recordings of NYU Depth V2: decoded, paired by time, and depth moved onto the colour image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from layouts_nyu import PER_SCENE, SCENES, SIZE, disparity, nyu_raw, save
from paths import ROOT

from depthray.config.sections import Data
from depthray.data.readers import kinect as kinect
from depthray.data.sources import open_source, recognise
from depthray.errors import DataError

REAL = ROOT.parent / "shared/realdata/nyu-raw-kinect"
NATIVE = kinect.NATIVE
MARGIN = np.s_[60:-60, 60:-60]


@pytest.fixture
def section(tmp_path):
    return nyu_raw(tmp_path / "set")


@pytest.fixture
def root(section):
    return Path(section.root)


def record(folder, colours, depths):
    """A recording of frames at these seconds; each depth is a wall 1 m, 2 m, ... away in their order."""
    for time in colours:
        save(folder / f"r-{time:.6f}-1.ppm", np.zeros((*SIZE, 3), np.uint8))
    for number, time in enumerate(depths, 1):
        save(folder / f"d-{time:.6f}-1.pgm", disparity(np.full(SIZE, float(number))))
    return open_source(Data(source="nyu_raw", root=str(folder)))


def walls(source):
    return [round(float(np.median(depth[depth > 0]))) for depth in map(depth_of(source), range(len(source.frames)))]


def depth_of(source):
    return lambda index: source.read(index)["depth"]


def test_frames(section):
    frames = open_source(section).frames
    assert len(frames) == SCENES * PER_SCENE
    assert frames[0] == ("kitchen_0000a/r-1294886360.000000-0", "kitchen_0000", "", "nyu")
    assert {frame.scene for frame in frames} == {f"kitchen_{scene:04d}" for scene in range(SCENES)}  # not 0000a, 0000b


def test_a_colour_image_is_paired_with_the_nearest_depth(tmp_path):
    assert walls(record(tmp_path, [10.00, 10.10], [9.98, 10.03, 10.09, 10.4])) == [1, 3]


def test_colour_long_before_or_after_any_depth_is_left_out_and_reported(tmp_path):
    source = record(tmp_path, [9.0, 10.0, 11.0], [10.05])
    assert [frame.id for frame in source.frames] == ["r-10.000000-1"]
    assert source.notes == ["2 colour images left out: no depth within 0.1 s of them"]


def test_numbers_of_seconds_are_not_ordered_as_text(tmp_path):
    assert walls(record(tmp_path, [9.5, 10.5], [9.51, 10.51])) == [1, 2]


@pytest.mark.parametrize("depths", [[], [99.0]])
def test_nothing_to_pair(tmp_path, depths):
    with pytest.raises(DataError, match=r"no r-\*\.ppm with a d-\*\.pgm recorded within 0\.1 s"):
        record(tmp_path, [10.0], depths)


def test_recordings_may_be_deeper_or_be_the_root(section, root, tmp_path):
    shutil.copytree(root, tmp_path / "outer/basements")
    deeper = section.model_copy(update={"root": str(tmp_path / "outer")})
    assert recognise(tmp_path / "outer") == "nyu_raw"
    assert len(open_source(deeper).frames) == SCENES * PER_SCENE
    one = section.model_copy(update={"root": str(root / "kitchen_0000a")})
    assert recognise(root / "kitchen_0000a") == "nyu_raw"
    assert {frame.scene for frame in open_source(one).frames} == {"kitchen_0000"}


def test_name_without_time(section, root):
    (root / "kitchen_0000a/r-1294886360.000000-0.ppm").rename(root / "kitchen_0000a/r-first.ppm")
    with pytest.raises(DataError, match=r"r-first\.ppm: no time in its name"):
        open_source(section)


@pytest.mark.parametrize("name", ["r-1294886360.000000-0.ppm", "d-1294886359.980000-0.pgm"])
def test_empty_file(section, root, name):
    (root / "kitchen_0000a" / name).write_bytes(b"")  # the recorded set has such files
    with pytest.raises(DataError, match=rf"{name}: not a readable image \(0 bytes\).*frame 0, recording kitchen_0000a"):
        open_source(section).read(0)


def test_a_file_that_has_gone(section, root):
    source = open_source(section)
    (root / "kitchen_0000a/d-1294886359.980000-0.pgm").unlink()
    with pytest.raises(DataError, match=r"d-1294886359\.980000-0\.pgm: No such file.*\(frame 0, "):
        _ = source.fingerprint


def test_8_bit_depth_is_refused(section, root):
    save(root / "kitchen_0000a/d-1294886359.980000-0.pgm", np.ones(SIZE, np.uint8))
    with pytest.raises(DataError, match=r"-0\.pgm: depth is stored as uint8.*swapped.*\(frame 0, "):
        open_source(section).read(0)


def test_a_wall_stays_where_it_is():
    moved = kinect.register(np.full(NATIVE, 2.0, np.float32))
    measured = moved > 0
    assert measured[MARGIN].mean() > 0.999  # the colour camera has fewer pixels a degree: no gaps
    # The cameras are turned by a quarter of a degree against each other.
    np.testing.assert_allclose(moved[measured], 2.0, atol=0.012)
    assert 0.6 < measured.mean() < 0.9  # it also sees more


@pytest.mark.parametrize(("row", "column", "metres"), [(240, 320, 1.0), (100, 500, 2.0), (400, 150, 4.0)])
def test_a_point_lands_where_it_is_seen(row, column, metres):
    """Against OpenCV's projection of the same point, which knows nothing of our tables."""
    depth = np.zeros(NATIVE, np.float32)
    depth[row, column] = metres
    matrix, lens = np.asarray(kinect.INFRARED.matrix(NATIVE), np.float64), np.array(kinect.INFRARED.distortion)
    x, y = cv2.undistortPoints(np.array([[[column, row]]], np.float64), matrix, lens).ravel()
    point = np.array([[x * metres, y * metres, metres]])
    seen, _ = cv2.projectPoints(
        point, cv2.Rodrigues(kinect.TURN)[0], kinect.MOVE, np.asarray(kinect.COLOUR.matrix(NATIVE), np.float64), None
    )
    pixels = np.argwhere(kinect.register(depth))
    assert pixels.tolist() == [np.rint(seen.ravel()[::-1]).astype(int).tolist()]
    # The colour camera is 25 mm to the right of the infrared one: what is near moves farthest to the left.
    assert kinect.register(depth).max() == pytest.approx(metres, abs=0.02)


def test_parallax_is_that_of_two_and_a_half_centimetres():
    columns = []
    for metres in (1.0, 9.0):
        depth = np.zeros(NATIVE, np.float32)
        depth[240, 320] = metres
        columns.append(int(np.argwhere(kinect.register(depth))[0, 1]))
    assert columns[0] - columns[1] == pytest.approx(-518.86 * 0.025 * (1 - 1 / 9), abs=1.01)


def test_the_nearer_surface_hides_the_farther():
    depth = np.full(NATIVE, 4.0, np.float32)
    depth[:, 320:] = 1.0
    moved = kinect.register(depth)
    row = moved[240]
    edge = int(np.argmax((row > 0) & (row < 2)))
    assert (row[edge : edge + 200] < 1.1).all()  # nothing of the wall behind shows through
    assert (row[100:edge][row[100:edge] > 0] > 3.9).all()


@pytest.mark.parametrize("value", [0.0, 10.0])
def test_what_is_no_measurement_is_not_moved(value):
    assert not kinect.register(np.full(SIZE, value, np.float32)).any()


@pytest.mark.parametrize(("x", "y"), [(0.35, 0.1), (-0.35, -0.2), (0.1, -0.3), (-0.2, 0.25)])
def test_without_its_lens_the_camera_is_a_pinhole(x, y):
    """A dot seen through the lens, by OpenCV's projection: it is where a pinhole sees it only once undistorted."""
    matrix, lens = np.asarray(kinect.COLOUR.matrix(NATIVE), np.float64), np.array(kinect.COLOUR.distortion)
    bent, _ = cv2.projectPoints(np.array([[x, y, 1.0]]), np.zeros(3), np.zeros(3), matrix, lens)
    image = np.zeros((*NATIVE, 3), np.uint8)
    cv2.circle(image, tuple(np.rint(bent.ravel() * 16).astype(int).tolist()), 64, (255, 255, 255), -1, cv2.LINE_AA, 4)
    pinhole = (matrix @ [x, y, 1.0])[:2]
    assert np.linalg.norm(middle(image) - pinhole) > 2
    assert np.linalg.norm(middle(kinect.undistort(image)) - pinhole) < 0.25


def middle(image):
    """(H,W,3) black with a dot -> column and row of its middle."""
    weights = image[..., 0].astype(float)
    rows, columns = np.indices(weights.shape)
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The one recorded pair: image and depth as read, and as they were recorded."""
    if not REAL.is_dir():
        pytest.skip(f"no recorded pair at {REAL}")
    folder = tmp_path_factory.mktemp("raw") / "basement_0001a"
    folder.mkdir()
    shutil.copy(REAL / "NYU_color.ppm", folder / "r-1294886360.020000-1.ppm")
    shutil.copy(REAL / "NYU_depth.pgm", folder / "d-1294886360.000000-1.pgm")
    source: Any = open_source(Data(source="nyu_raw", root=str(folder)))
    recorded = source.files.colour(source.file(0, "image")), source.depth(0)
    return source.read(0), recorded


def test_real_depth_is_plausible(real):
    sample, (_, recorded) = real
    measured = sample["depth"][sample["depth"] > 0]
    assert 0.5 < measured.min() < np.median(measured) < measured.max() < 9
    assert 2 < np.median(measured) < 5  # a cellar
    assert (recorded > 0).mean() > 0.9
    assert 0.7 < (sample["depth"] > 0).mean() < 0.8  # the colour camera sees more


def test_real_edges_of_depth_are_on_edges_of_colour_only_once_registered(real):
    sample, (image, recorded) = real
    moved = contrast(sample["image"], sample["depth"])
    assert moved > 1.4 * contrast(image, recorded)
    for move in ((6, 0), (-6, 0), (0, 6), (0, -6)):  # and best just where they are
        assert moved > 1.1 * contrast(sample["image"], np.roll(sample["depth"], move, axis=(0, 1)))


def contrast(image, depth):
    """(H,W,3) image, (H,W) metres -> how much stronger colour changes at jumps of depth than elsewhere."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
    change = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))[MARGIN]
    return float(change[jumps(depth)[MARGIN]].mean() / change.mean())


def jumps(depth):
    """(H,W) metres -> (H,W) bool, where neighbours that are both measured differ by more than 8 %."""
    found = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        before = np.roll(depth, 1, axis=axis)
        found |= (depth > 0) & (before > 0) & (np.abs(depth - before) > 0.08 * depth)
    return found
