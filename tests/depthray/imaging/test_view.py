"""What is written to look at: recordings, edges, distances, point clouds that other programs can open."""

from __future__ import annotations

import json
import struct

import cv2
import numpy as np
import pytest
from checkpoints import write_checkpoint

from depthray.cli import measure as measure_command
from depthray.cli import view as view_command
from depthray.errors import UsageError
from depthray.imaging import camera, edges, export, sheets
from depthray.predict import load

CAMERA = camera.Camera(60.0, 60.0, 31.5, 23.5)
SIZE = (48, 64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run"), "data.frames=12", "data.size=48,64")


def test_a_blurred_map_is_less_sharp_by_the_share_its_edges_lost():
    truth = np.where(np.arange(64) < 32, 2.0, 4.0).astype(np.float32) * np.ones((48, 1), np.float32)
    assert edges.sharpness(truth, truth).ratio == 1.0
    assert edges.sharpness(0.5 * truth, truth).ratio == pytest.approx(0.5)
    assert edges.sharpness(np.full_like(truth, 3.0), truth).ratio == 0.0
    holed = truth.copy()
    holed[:, 30:34] = 0
    assert edges.edge_strength(holed).max() == 0  # the only edge touches what was not measured
    assert edges.edge_strength(truth)[10, 32] == pytest.approx(1.0)  # 2 m over two pixels


def test_a_plane_has_the_edge_strength_of_its_slope():
    slope = (1 + 0.03 * np.arange(64) * np.ones((48, 1))).astype(np.float32)
    assert np.allclose(edges.edge_strength(slope)[2:-2, 2:-2], 0.03, atol=1e-6)


def test_a_glb_file_holds_the_points_in_metres(tmp_path):
    depth = np.full(SIZE, 2.0, np.float32)
    depth[0] = 0
    colours = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    data = export.write_glb(tmp_path / "x.glb", depth, colours, camera=CAMERA).read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + size])
    count = tree["accessors"][0]["count"]
    positions = np.frombuffer(data, "<f4", count * 3, 28 + size).reshape(-1, 3)
    expected = export.points(depth, colours, camera=CAMERA)["xyz"] * [1, -1, -1]
    assert count == 47 * 64
    assert np.array_equal(positions, expected.astype(np.float32))
    assert tree["accessors"][0]["max"] == positions.max(axis=0).tolist()


@pytest.mark.parametrize(
    ("ratio", "caption"),
    [
        (1.0, "edges 100% of the truth's"),
        (0.5, "edges 50% of the truth's: blurred"),
        (2.0, "edges 200% of the truth's: noise"),
        (float("nan"), "no edges in the truth"),
    ],
)
def test_neither_blur_nor_noise_is_praised(ratio, caption):
    assert view_command._describe_sharpness(ratio) == caption


def test_no_edge_is_dark_and_a_strong_one_bright():
    edge = np.full(SIZE, 1e-6, np.float32)
    edge[:, 32] = 0.2
    image = np.zeros((*SIZE, 3), np.uint8)
    row = sheets.SheetRow("x", image, edge, edge, kind="edges", caption="")
    scale = sheets.ColourScale(0.0, 0.2, 0.05)
    sheet = sheets.draw_sheet([row], depth=scale, error=scale)
    tile = sheet[-60, 18 + 256 + 8 :][:256].sum(axis=1)  # a row of the second column, four pixels for each
    assert tile[10] < 60 and tile[130] > 600


def test_view_writes_everything(trained, tmp_path, capsys):
    rerun = pytest.importorskip("rerun", reason="the extra viz is not installed")
    assert view_command.main([str(trained), "--frames", "2", "--out", str(tmp_path)]) == 0
    names = {"errors.png", "edges.png", "00.ply", "00.glb", "01.ply", "01.glb", "recording.rrd"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert capsys.readouterr().out.count("->") == len(names)
    assert cv2.imread(str(tmp_path / "edges.png")).std() > 10
    assert (tmp_path / "recording.rrd").read_bytes()[:3] == b"RRF"
    assert rerun.__version__


def test_without_rerun_nothing_is_predicted_and_the_flag_is_named(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(view_command, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'depthray\[viz\]', or give --no-recording"):
        view_command.main([str(trained), "--frames", "1", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    assert view_command.main([str(trained), "--frames", "1", "--no-recording", "--out", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "recording.rrd").exists() and "errors.png" in capsys.readouterr().out


def test_a_network_without_depth_is_named(tmp_path):
    made = write_checkpoint(
        tmp_path, "data.source=synthetic", "data.frames=12", "data.targets=mask,depth", name="masknet"
    )
    with pytest.raises(UsageError, match="this network predicts mask, no depth"):
        view_command.main([str(made), "--frames", "1", "--no-recording", "--out", str(tmp_path / "out")])


def test_a_distance_is_measured_with_the_further_inputs_of_the_network(tmp_path, capsys):
    made = write_checkpoint(tmp_path, "data.inputs=image,sparse", "data.size=48,64")
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "x.png"), photo[..., ::-1])
    sparse = np.full(SIZE, 2.0, np.float32)
    (tmp_path / "sparse").mkdir()
    np.save(tmp_path / "sparse" / "x.npy", sparse)
    arguments = [str(made), str(tmp_path / "x.png"), "5", "6", "50", "40", "--intrinsics", "60,60,31.5,23.5"]
    depth = load(made).predict(photo, sparse=sparse)
    for given in ("sparse", "sparse/x.npy"):
        assert measure_command.main([*arguments, "--sparse", str(tmp_path / given)]) == 0
        assert f"(5, 6)  depth {depth[6, 5]:.3f} m" in capsys.readouterr().out
    with pytest.raises(UsageError, match="this network needs --sparse as well; its inputs are image, sparse"):
        measure_command.main(arguments)
    with pytest.raises(UsageError, match="--background: this network does not take it"):
        measure_command.main([*arguments, "--sparse", "x.npy", "--background", "y.png"])


def test_frames_must_be_requested(trained, tmp_path):
    with pytest.raises(UsageError, match="--frames 0"):
        view_command.main([str(trained), "--frames", "0", "--out", str(tmp_path)])


def test_the_measured_distance_is_that_of_the_two_points_in_space(trained, tmp_path, capsys):
    photo = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "x.png"), photo[..., ::-1])
    depth = load(trained).predict(photo)
    arguments = [str(trained), str(tmp_path / "x.png"), "5", "6", "50", "40"]
    assert measure_command.main([*arguments, "--intrinsics", "60,60,31.5,23.5"]) == 0
    a, b = (np.array([(x - 31.5) / 60, (y - 23.5) / 60, 1]) * float(depth[y, x]) for x, y in ((5, 6), (50, 40)))
    assert f"distance  {np.linalg.norm(a - b):.3f} m" in capsys.readouterr().out
    assert measure_command.main(arguments) == 0
    assert "ASSUMED" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"pixel \(64, 40\) is outside the image, which is 64x48"):
        measure_command.main([*arguments[:4], "64", "40"])
