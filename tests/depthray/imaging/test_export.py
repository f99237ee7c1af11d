"""Depth as files, read back: units, invalid pixels, and points where the camera saw them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from depthray.imaging import export
from depthray.imaging.camera import Camera, assumed_camera

CAMERA = Camera(fx=50.0, fy=55.0, cx=15.5, cy=11.5)


@pytest.fixture
def depth():
    depth = np.random.default_rng(0).uniform(0.3, 12, (24, 32)).astype(np.float32)
    depth[3, 5] = 0
    return depth


@pytest.fixture
def rgb():
    return np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)


def read_ply(path):
    """Header lines and vertices, by the header and not by what we believe we wrote."""
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [(name, kinds[kind]) for _, kind, name in (line.split() for line in lines if "property" in line)]
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    vertices = np.frombuffer(body, np.dtype(fields))
    assert len(vertices) == count and lines[:2] == ["ply", "format binary_little_endian 1.0"]
    return lines, vertices


def test_png_in_millimetres_equals_npy_to_half_a_millimetre(tmp_path, depth):
    stored = cv2.imread(str(export.write_depth_png(tmp_path / "d.png", depth)), cv2.IMREAD_UNCHANGED)
    metres = np.load(export.write_depth_npy(tmp_path / "d.npy", depth))
    assert stored.dtype == np.uint16 and metres.dtype == np.float32
    assert np.abs(stored / 1000 - metres.astype(np.float64)).max() <= 0.0005 + 1e-9
    assert stored[3, 5] == 0 and (metres == depth).all()


@pytest.mark.parametrize(
    ("metres", "expected"),
    [(np.nan, 0), (np.inf, 0), (-1, 0), (0, 0), (0.0004, 0), (0.0006, 1), (65.535, 65535), (65.6, 65535), (1e9, 65535)],
)
def test_millimetres_of_extremes(metres, expected):
    assert export.millimetres(np.full((1, 1), metres, np.float32))[0, 0] == expected


def test_millimetres_round_halves_to_even_in_float64():
    halves = ((np.arange(65536) + 0.5) / 1000).astype(np.float32).reshape(256, 256)
    assert (export.millimetres(halves) == np.clip(np.rint(halves.astype(np.float64) * 1000), 0, 65535)).all()


def test_npy_is_written_to_the_named_file_and_needs_no_pickle(tmp_path, depth):
    assert export.write_depth_npy(tmp_path / "name.raw", depth) == tmp_path / "name.raw"
    assert np.load(tmp_path / "name.raw", allow_pickle=False).shape == (24, 32)


def test_colour_map_greys_what_is_invalid(tmp_path, depth):
    shown = cv2.imread(str(export.write_colour_png(tmp_path / "c.png", depth)))
    assert shown.shape == (24, 32, 3)
    assert shown[3, 5].tolist() == [112, 112, 112]


def test_colour_map_has_a_bar_with_its_unit(tmp_path):
    depth = np.broadcast_to(np.linspace(1, 5, 320, dtype=np.float32), (40, 320))
    shown = cv2.imread(str(export.write_colour_png(tmp_path / "c.png", depth)))
    assert shown.shape[0] > 40 and shown.shape[1:] == (320, 3)
    bar = shown[40 + 12]  # one row of the bar below the map: near is red, far is blue, as in the map (BGR)
    assert bar[12, 2] > bar[12, 0] and bar[-12, 0] > bar[-12, 2]
    other = cv2.imread(str(export.write_colour_png(tmp_path / "d.png", depth, unit="")))
    assert (other[:52] == shown[:52]).all() and (other != shown).any(), "only the label of the unit differs"


def test_points_project_back_to_their_pixels_depths_and_colours(tmp_path, depth, rgb):
    _, points = read_ply(export.write_ply(tmp_path / "p.ply", depth, rgb, camera=CAMERA))
    u = points["x"] / points["z"] * CAMERA.fx + CAMERA.cx
    v = points["y"] / points["z"] * CAMERA.fy + CAMERA.cy
    columns, rows = np.rint(u).astype(int), np.rint(v).astype(int)
    assert np.abs(u - columns).max() < 1e-3 and np.abs(v - rows).max() < 1e-3
    assert len(set(zip(rows, columns, strict=True))) == len(points) == depth.size - 1
    assert (points["z"] == depth[rows, columns]).all()
    assert (np.stack([points["red"], points["green"], points["blue"]], 1) == rgb[rows, columns]).all()


def test_ply_names_its_camera_and_whether_it_was_assumed(tmp_path, depth, rgb):
    lines, _ = read_ply(export.write_ply(tmp_path / "p.ply", depth, rgb, camera=CAMERA, note="ASSUMED"))
    assert "comment fx 50 fy 55 cx 15.5 cy 11.5" in lines and "comment ASSUMED" in lines


def test_ply_of_nothing_measured_is_empty(tmp_path, rgb):
    _, points = read_ply(export.write_ply(tmp_path / "p.ply", np.zeros((24, 32), np.float32), rgb, camera=CAMERA))
    assert len(points) == 0


def test_assumed_camera_sees_sixty_degrees():
    camera = assumed_camera(480, 640)
    edges = [(u - camera.cx) / camera.fx for u in (-0.5, 639.5)]  # the outer borders of the outer pixels
    assert np.degrees(np.arctan(edges[1]) - np.arctan(edges[0])) == pytest.approx(60)
    assert camera.fx == camera.fy and camera.cy == 239.5
