"""`depthray data check` finds every kind of fault, names the frame and exits with 3."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest
from frames import folder_dataset, read_index, write_index

from depthray.__main__ import main
from depthray.audit.check import find_faults
from depthray.cli import data
from depthray.config.sections import Data
from depthray.data.packing import pack
from depthray.data.shards.format import open_shard
from depthray.data.sources import open_source

SIZE = (48, 64)
DEPTH, RGB = "depth/s1-000.png", "rgb/s1-000.jpg"


@pytest.fixture
def root(tmp_path):
    return folder_dataset(tmp_path / "set", size=SIZE)


def findings(root, **options):
    section = Data(**{"source": "folder", "root": str(root), "inputs": ("image", "semantics")} | options)
    return find_faults(open_source(section, verify=False), max_depth=section.max_depth)


def write_depth(root, depth):
    cv2.imwrite(str(root / DEPTH), np.broadcast_to(depth, SIZE).astype(np.uint16))


def set_rows(root, *numbers, **values):
    rows = read_index(root)
    write_index(root, [row | (values if number in numbers else {}) for number, row in enumerate(rows)])


def test_good_data_has_no_findings(root):
    assert findings(root) == []


def spoil_unlink(root):
    (root / DEPTH).unlink()


def spoil_rgb(root):
    (root / RGB).write_bytes((root / RGB).read_bytes()[:200])


def spoil_labels(root):
    cv2.imwrite(str(root / "labels/s1-000.png"), np.ones((5, 5), np.uint8))


def spoil_dtype(root):
    cv2.imwrite(str(root / DEPTH), np.ones(SIZE, np.uint8))


def spoil_size(root):
    cv2.imwrite(str(root / DEPTH), np.ones((24, 32), np.uint16))


def spoil_black(root):
    cv2.imwrite(str(root / RGB), np.zeros((*SIZE, 3), np.uint8))


def spoil_copy(root):
    (root / RGB).write_bytes((root / "rgb/s0-000.jpg").read_bytes())


RAMP = np.arange(1, SIZE[1] + 1)


@pytest.mark.parametrize(
    ("spoil", "kind", "detail"),
    [
        (spoil_unlink, "unusable", f"{DEPTH}: No such file"),
        (spoil_rgb, "unusable", f"{RGB}: not a readable image (200 bytes)"),
        (spoil_labels, "unusable", "size mismatch, labels is 5x5 but rgb is 64x48"),
        (spoil_dtype, "unusable", "stored as uint8, but encoding 'uint16_mm' is uint16"),
        (spoil_size, "unusable", "size mismatch, depth is 32x24 but rgb is 64x48"),
        (spoil_black, "constant image", "every pixel is 0"),
        (spoil_copy, "duplicate frame", "same image as 'rgb/s0-000', in another scene: 'scene-1' and 'scene-0'"),
        (lambda root: write_depth(root, 0), "empty depth", "no pixel is measured"),
        (lambda root: write_depth(root, 2000), "constant depth", "every measured pixel is 2 m"),
        (lambda root: write_depth(root, RAMP // 10), "implausible unit", "metres read as millimetres?"),
        (lambda root: write_depth(root, RAMP * 1000), "beyond max_depth", "data.max_depth 10 m"),
    ],
)
def test_fault_of_one_frame(root, spoil, kind, detail):
    spoil(root)
    (found,) = findings(root)
    assert (found.kind, found.frame) == (kind, "rgb/s1-000")
    assert detail in found.detail


@pytest.mark.parametrize(
    ("factor", "odd", "kind", "detail"),
    [
        (1000, 1, "implausible unit", "millimetres read as metres?"),
        (1, -np.inf, "odd values", "1 negative values"),
        (1, -1, "odd values", "1 negative values, read as unmeasured"),
    ],
)
def test_fault_of_depth_in_floats(root, factor, odd, kind, detail):
    depth = np.broadcast_to(RAMP / 10, SIZE).astype(np.float32) * factor
    np.save(root / "good.npy", np.broadcast_to(RAMP / 10, SIZE))
    depth[0, 0] = odd
    np.save(root / "odd.npy", depth)
    set_rows(root, *range(12), depth="good.npy")
    set_rows(root, 4, depth="odd.npy")
    (found,) = findings(root, encoding="float_m")
    assert (found.kind, found.frame) == (kind, "rgb/s1-000")
    assert detail in found.detail


def test_unmeasured_as_documented_is_no_fault(root):
    depth = np.array(np.broadcast_to(RAMP / 10, SIZE), np.float32)
    depth[0, :2] = np.nan, np.inf
    np.save(root / "holes.npy", depth)
    set_rows(root, *range(12), depth="holes.npy")
    assert findings(root, encoding="float_m") == []


def test_a_camera_of_another_size_is_found(root):
    set_rows(root, *range(12), fx="60", fy="60", cx="32", cy="24")
    assert findings(root) == []
    set_rows(root, 4, fx="519", fy="519", cx="325.6", cy="253.7")
    (found,) = findings(root)
    assert (found.kind, found.frame) == ("camera", "rgb/s1-000")
    assert (
        "principal point (325.6, 253.7) is outside of the 64x48 image: is the camera that of another size?"
        in found.detail
    )


def test_depth_that_is_all_negative_is_empty(root):
    np.save(root / "odd.npy", np.full(SIZE, -2.0))
    set_rows(root, *range(12), depth="odd.npy")
    assert {found.kind for found in findings(root, encoding="float_m")} == {"odd values", "empty depth"}


def test_double_id(root):
    set_rows(root, *range(12), id="x")
    assert [found.kind for found in findings(root)] == ["duplicate id"] * 11


def test_scene_on_two_sides(root):
    set_rows(root, *range(12), split="train")
    set_rows(root, 5, split="val")
    (found,) = findings(root)
    assert (found.kind, found.frame) == ("split overlap", "scene-1")


def test_unknown_split(root):
    set_rows(root, *range(12), split="eval")
    assert findings(root)[-1].detail == "'eval' is none of train, val, test"


def test_other_limit_of_depth(root):
    write_depth(root, RAMP * 1000)
    assert findings(root, max_depth=80) == []


def test_altered_shard(root, tmp_path):
    section = Data(source="folder", root=str(root))
    (path,) = pack(open_source(section), tmp_path / "shards", provenance={})
    with path.open("r+b") as file:
        file.seek(open_shard(path).offsets["depth"][4])
        file.write(b"\x07")
    (found,) = findings(tmp_path / "shards", source="shards")
    assert (found.kind, found.frame) == ("altered", "rgb/s1-000")


def test_command_prints_a_table_and_exits_3(root, capsys):
    spoil_unlink(root)
    assert main(["data", "check", str(root)]) == 3
    out = capsys.readouterr().out
    assert "unusable" in out
    assert "rgb/s1-000" in out
    assert "12 frames of 3 scenes: 1 finding" in out.splitlines()


def test_tables_lose_nothing_on_a_narrow_terminal(root, capsys, monkeypatch):
    spoil_unlink(root)
    monkeypatch.setattr(data, "width", lambda: 60)
    assert main(["data", "check", str(root)]) == 3
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if "│" in line) <= 60
    assert "…" not in out and str(root) not in out, "nothing is cut away, and the root is not repeated"
    assert "depth/s1-000.png:" in " ".join(out.replace("│", " ").split())
    assert all(f"│ {name} " in out for name in ("uint16_mm", "uint16_256", "uint16_5000", "kinect_disparity_be"))


def test_what_training_will_refuse_is_noted(root, capsys):
    set_rows(root, *range(12), scene="kitchen")
    assert main(["data", "check", str(root)]) == 0
    assert "note: not yet for training: no frames to validate on: whole scenes are held out, and there is 1 scene" in (
        capsys.readouterr().out
    )


def test_command_is_content_with_good_data(root, capsys):
    assert main(["data", "check", str(root)]) == 0
    assert "no findings" in capsys.readouterr().out


def test_command_prints_json(root, capsys):
    spoil_size(root)
    assert main(["data", "check", str(root), "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["frames"] == 12
    assert report["findings"][0]["frame"] == "rgb/s1-000"


def test_overrides_change_numbers(root):
    write_depth(root, RAMP * 1000)
    assert main(["data", "check", str(root)]) == 3
    assert main(["data", "check", str(root), "--json", "data.max_depth=80"]) == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--source", "foldr"], 2, "did you mean 'folder'"),
        (["--encoding", "uint16"], 2, "data.encoding='uint16'"),
        (["data.max_depht=3"], 2, "did you mean 'max_depth'"),
        (["--source", "shards"], 3, "no *.h5 shards there"),
        (["--index", "other.csv"], 3, "other.csv does not exist"),
        (["--jsn"], 2, "unknown argument '--jsn' (did you mean '--json'?)"),
        (["--max-depth=80"], 2, "did you mean the override data.max_depth=VALUE?"),
    ],
)
def test_wrong_arguments(root, capsys, options, code, message):
    assert main(["data", "check", str(root), *options]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_names_that_look_like_markup(root, capsys):
    os.rename(root / RGB, root / "rgb/[red]x.jpg")
    spoil_unlink(root)
    set_rows(root, 4, rgb="rgb/[red]x.jpg")
    assert main(["data", "check", str(root)]) == 3
    assert "rgb/[red]x" in capsys.readouterr().out
