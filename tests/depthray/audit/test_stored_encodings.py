"""How stored depth is shown: dtype, range, steps, zeros and what every encoding would make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from frames import folder_dataset, read_index, write_index
from layouts_nyu import bts, nyu_csv, nyu_raw
from layouts_other import MAKERS, sunrgbd

from depthray.audit.stored_values import FRAMES, inspect_stored_depth
from depthray.cli.data import main
from depthray.config.sections import Data
from depthray.data.sources import open_source
from depthray.data.sources.folder import CsvFolder

SIZE = (6, 8)


def folder(root, *depths, encoding="uint16_mm", **options):
    """A data set with these stored depths, one a frame."""
    folder_dataset(root, scenes=1, per_scene=len(depths), size=SIZE)
    rows = read_index(root)
    for number, (row, depth) in enumerate(zip(rows, depths, strict=True)):
        row["depth"] = f"depth-{number}{'.npy' if depth.dtype.kind == 'f' else '.png'}"
        path = root / row["depth"]
        np.save(path, depth) if path.suffix == ".npy" else cv2.imwrite(str(path), depth)
    write_index(root, rows)
    return open_source(Data(source="folder", root=str(root), encoding=encoding), **options)


def depth(*values, dtype=np.uint16):
    """These numbers and otherwise zeros."""
    filled = np.zeros(SIZE, dtype)
    filled.flat[: len(values)] = values
    return filled


def test_numbers_are_counted_over_all_frames(tmp_path):
    (looks,) = inspect_stored_depth(folder(tmp_path, depth(2000, 2000, 512), depth(5120, 2004, 2000)))
    assert (looks.dtype, looks.declared, looks.frames) == ("uint16", "uint16_mm", 2)
    assert (looks.smallest, looks.largest, looks.distinct, looks.step) == (512, 5120, 4, 4)
    assert looks.zeros == pytest.approx(90 / 96)
    medians = {name: looks.medians[name] for name in ("uint16_mm", "uint16_256", "uint16_5000")}
    assert medians == pytest.approx({"uint16_mm": 2, "uint16_256": 2000 / 256, "uint16_5000": 0.4})
    common = {"uint16/100": 20, "uint16/4000": 0.5, "uint16/10000": 0.2}
    assert {name: looks.medians[name] for name in common} == pytest.approx(common)
    assert set(looks.medians) == {*medians, *common, "kinect_disparity_be"}


def test_a_unit_of_the_users_own_is_shown_as_declared(tmp_path):
    (looks,) = inspect_stored_depth(folder(tmp_path, depth(29_000, 30_000, 31_000), encoding="uint16*0.0002"))
    assert looks.declared == "uint16*0.0002" and looks.medians["uint16*0.0002"] == pytest.approx(6)
    assert looks.medians["uint16/10000"] == pytest.approx(3)
    (looks,) = inspect_stored_depth(folder(tmp_path / "8", depth(10, 20, dtype=np.uint8), encoding="uint16/100"))
    assert looks.medians["uint16/100"] is None


def test_a_unit_the_dtype_does_not_fit_is_shown_as_declared(tmp_path):
    source = folder(tmp_path, depth(51, 102, 102, dtype=np.uint8))
    (looks,) = inspect_stored_depth(source)
    assert looks.medians == {"uint8_10m": pytest.approx(4), "uint16_mm": None}
    assert looks.step == 51


def test_floats_that_are_no_depth_do_not_count(tmp_path):
    values = depth(0.5, 1.5, 1.75, np.nan, np.inf, -1, dtype=np.float32)
    (looks,) = inspect_stored_depth(folder(tmp_path, values, encoding="float_m"))
    assert (looks.smallest, looks.largest, looks.distinct) == (-1, 1.75, 4)
    assert (looks.step, looks.medians) == (0.25, {"float_m": 1.5, "float32/1000": pytest.approx(0.0015)})


@pytest.mark.parametrize(("values", "step", "distinct"), [((), None, 0), ((7,), None, 1)])
def test_empty_and_constant_depth(tmp_path, values, step, distinct):
    (looks,) = inspect_stored_depth(folder(tmp_path, depth(*values)))
    assert (looks.step, looks.distinct) == (step, distinct)
    assert looks.medians["uint16_mm"] == (pytest.approx(0.007) if values else None)


def test_dtypes_are_kept_apart_and_bad_files_passed_over(tmp_path):
    source = folder(tmp_path, depth(1000, 2000), depth(10, 20, dtype=np.uint8), depth(5), depth(6))
    (tmp_path / "depth-2.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "depth-3.png"), np.ones((*SIZE, 3), np.uint16))
    assert [(looks.dtype, looks.frames) for looks in inspect_stored_depth(source)] == [("uint16", 1), ("uint8", 1)]


def test_no_more_than_a_few_frames_are_read_spread_over_the_set(tmp_path, monkeypatch):
    source, read = folder(tmp_path, *(depth(1000 + number) for number in range(40))), []
    original = CsvFolder.stored_depth

    def counted(self: CsvFolder, index: int) -> Any:
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(CsvFolder, "stored_depth", counted)
    (looks,) = inspect_stored_depth(source)
    assert len(read) == looks.frames == FRAMES
    assert (read[0], read[-1]) == (0, 37)


def test_parts_with_a_unit_each(tmp_path):
    found = {looks.declared: looks for looks in inspect_stored_depth(open_source(nyu_csv(tmp_path)))}
    assert {name: (looks.dtype, looks.frames) for name, looks in found.items()} == {
        "uint8_10m": ("uint8", 8),
        "uint16_mm": ("uint16", 2),
    }
    for name, looks in found.items():
        assert 1 < looks.medians[name] < 6


@pytest.mark.parametrize("form", [*MAKERS, "bts", "nyu_raw"])
def test_forms_of_files_mark_their_own_unit(form, tmp_path):
    source = open_source({**MAKERS, "bts": bts, "nyu_raw": nyu_raw}[form](tmp_path))
    (looks,) = inspect_stored_depth(source)
    depths = [source.read(index)["depth"] for index in range(len(source.frames))]
    measured = np.concatenate([depth[depth > 0] for depth in depths])
    assert looks.medians[looks.declared] == pytest.approx(np.median(measured), rel=0.25)


def test_a_unit_of_the_forms_own_is_judged_by_its_samples(tmp_path):
    source = open_source(sunrgbd(tmp_path))
    (looks,) = inspect_stored_depth(source)
    assert "rotated" in looks.declared
    assert looks.step == 8  # millimetres, rotated by 3 bits
    for path in tmp_path.rglob("*.jpg"):
        path.unlink()
    (looks,) = inspect_stored_depth(source)
    assert looks.medians[looks.declared] is None


def test_what_is_drawn_has_no_stored_depth():
    assert inspect_stored_depth(open_source(Data(source="synthetic", frames=3, size=SIZE))) == []


def test_check_prints_the_table_and_marks_what_is_declared(tmp_path, capsys):
    folder_dataset(tmp_path)
    assert main(["check", str(tmp_path), "--encoding", "uint16_256", "--source", "folder"]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "uint16_" in line]
    assert [("declared" in line, " m " in line) for line in lines] == [(False, True), (True, True), (False, True)]
    assert "12 frames of 3 scenes" in out.splitlines()[-1]


def test_check_of_a_wrong_dtype_is_reported(tmp_path, capsys):
    folder(tmp_path, depth(51, 102, dtype=np.uint8))
    assert main(["check", str(tmp_path)]) == 3
    assert "does not fit uint8" in capsys.readouterr().out


def test_check_prints_what_was_left_out(tmp_path, capsys):
    section = bts(tmp_path)
    path = tmp_path / "nyudepthv2_train_files_with_gt.txt"
    path.write_text("gone/rgb_1.jpg None 518.8579\n" + path.read_text())
    assert main(["check", section.root]) == 0
    assert "1 lines left out, whose depth is None" in capsys.readouterr().out.splitlines()[-1]
    assert main(["check", section.root, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "left out" in report["notes"][0]
    assert report["stored"][0]["declared"] == "uint16_mm"


def test_convert_prints_what_was_left_out(tmp_path, capsys):
    section = MAKERS["modest"](tmp_path / "set")
    assert main(["convert", "modest", section.root, str(tmp_path / "out")]) == 0
    done, note, following = capsys.readouterr().out.splitlines()
    assert done.startswith("10 frames in") and following.startswith("next:")
    assert note == "note: 8 images left out: either their background or their person is held out, not both"


def test_the_published_split_of_hypersim_leaves_out_frames(tmp_path):
    section = MAKERS["hypersim"](tmp_path)
    Path(tmp_path / "metadata_images_split_scene_v1.csv").write_text(
        "scene_name,camera_name,frame_id,split_partition_name\nai_001_001,cam_00,0,train\n"
    )
    source: Any = open_source(section)
    assert source.notes == ["5 frames left out: not part of the published split"]
