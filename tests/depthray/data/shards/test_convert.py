"""Conversion: the same shards however the work is shared out, restartable, and bad frames named or skipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from frames import folder_dataset
from layouts_nyu import MAKERS as NYU
from layouts_other import MAKERS, kitti

from cluster.convert import main as convert
from depthray.cli.data import main
from depthray.config.sections import Data, Sparse
from depthray.data.packing import convert_range, plan, shard_encoding, source_encodings
from depthray.data.shards import format
from depthray.data.source import Frame
from depthray.data.sources import open_source
from depthray.data.sources.shards import LocalShards, Shards
from depthray.errors import DataError, DepthrayError, UsageError


class Made:
    """Frames of two sizes made up in memory; some of them cannot be read."""

    def __init__(self, count=11, *, bad=(), lasts=10**9):
        self.frames = [Frame(f"f{i}", f"scene-{i // 3}", "", "made") for i in range(count)]
        self.fingerprint, self.bad, self.lasts, self.reads = "f" * 64, bad, lasts, []

    def read(self, index):
        if len(self.reads) == self.lasts:
            raise KeyboardInterrupt
        self.reads.append(index)
        if index in self.bad:
            raise DataError(f"file {index}.png: not a readable image")
        size = (4, 5) if index in (1, 4, 9) else (6, 8)
        return {"image": np.full((*size, 3), index, np.uint8), "depth": np.full(size, 1 + index, np.float32)}


def run(out, source=None, order=None, **arguments):
    """Make the ranges in an order."""
    source = source or Made()
    made = plan(source, out, provenance={"name": "made"}, frames_per_shard=4, **arguments)
    skipped: dict[str, str] = {}
    for number in made.ranges if order is None else order:
        skipped |= convert_range(source, made, number)
    return skipped


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def ids(path):
    return [frame.id for frame in format.open_shard(path).frames]


def test_names_and_positions_of_frames(tmp_path):
    run(tmp_path)
    assert {path.name: ids(path) for path in sorted(tmp_path.iterdir())} == {
        "shard-00000.h5": ["f0", "f2", "f3"],
        "shard-00000-1.h5": ["f1"],
        "shard-00001.h5": ["f4"],
        "shard-00001-1.h5": ["f5", "f6", "f7"],
        "shard-00002.h5": ["f8", "f10"],
        "shard-00002-1.h5": ["f9"],
    }


def test_the_order_of_the_work_changes_no_byte(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "b", order=[2, 0, 1])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("lasts", range(11))
def test_an_interrupted_conversion_continues(tmp_path, lasts):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", Made(lasts=lasts))
    kept, again = contents(tmp_path / "a"), Made()
    assert not any(name.startswith(".tmp") for name in kept)
    run(tmp_path / "a", again)
    assert again.reads == list(range(lasts // 4 * 4, 11))
    run(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert kept.items() <= contents(tmp_path / "a").items()


@pytest.mark.parametrize("lost", ["shard-00001.h5", "shard-00001-1.h5"])
def test_a_range_with_a_shard_missing_is_made_again(tmp_path, lost):
    run(tmp_path)
    before = contents(tmp_path)
    (tmp_path / lost).unlink()
    (tmp_path / ".tmp-00001-0").write_bytes(b"half a shard")
    again = Made()
    run(tmp_path, again)
    assert again.reads == [4, 5, 6, 7]
    assert contents(tmp_path) == before


def test_leftovers_of_other_ranges_are_left_to_their_workers(tmp_path):
    source = Made()
    made = plan(source, tmp_path, provenance={}, frames_per_shard=4)
    (tmp_path / ".tmp-00001-0").write_bytes(b"of another worker, at work")
    convert_range(source, made, 0)
    assert (tmp_path / ".tmp-00001-0").exists()
    convert_range(source, made, 1)
    assert not list(tmp_path.glob(".tmp-*"))


def test_another_cut_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(DataError, match=r"shard-0000.*\.h5: cut into other ranges; give --frames-per-shard as before"):
        plan(Made(), tmp_path, provenance={}, frames_per_shard=3)
    with pytest.raises(DataError, match="cut into other ranges"):
        plan(Made(), tmp_path, provenance={}, frames_per_shard=4, encoding="uint16_256")
    (tmp_path / "shard-00000.h5").rename(tmp_path / "mine.h5")
    with pytest.raises(DataError, match=r"mine\.h5: cut into other ranges"):
        run(tmp_path)


def test_a_bad_frame_is_named(tmp_path):
    with pytest.raises(DataError, match=r"^frame 'f6': file 6\.png: not a readable image$"):
        run(tmp_path, Made(bad=(6,)))
    assert sorted(contents(tmp_path)) == ["shard-00000-1.h5", "shard-00000.h5"]


def test_bad_frames_are_skipped_and_noted(tmp_path):
    skipped = run(tmp_path, Made(bad=(2, 6)), skip_bad=True)
    assert skipped == {f"f{i}": f"frame 'f{i}': file {i}.png: not a readable image" for i in (2, 6)}
    noted = [format.open_shard(path).provenance.get("skipped") for path in sorted(tmp_path.iterdir())]
    assert noted == [["f2"], ["f2"], ["f6"], ["f6"], None, None]
    again = Made(bad=(2, 6))
    assert set(run(tmp_path, again, skip_bad=True)) == {"f2", "f6"}
    assert again.reads == []
    with pytest.raises(DataError, match="frame 'f2'"):
        run(tmp_path, again)  # without the flag, what was skipped counts as unfinished


@pytest.mark.parametrize("form", MAKERS)
def test_every_form_comes_back_from_shards(form, tmp_path):
    section = MAKERS[form](tmp_path / "files")
    encoding = ["--encoding", section.encoding] if form == "pickle_index" else []
    arguments = [form, str(tmp_path / "files"), str(tmp_path / "out"), "--frames-per-shard", "4", *encoding]
    assert convert(arguments) == 0
    before = open_source(section)
    keys = {"inputs": section.inputs, "targets": section.targets}
    after = open_source(Data(source="shards", root=str(tmp_path / "out"), **keys))
    assert list(after.frames) == list(before.frames)
    assert after.keys == before.keys
    for index in range(len(before.frames)):
        one, other = before.read(index), after.read(index)
        for key in before.keys:
            np.testing.assert_allclose(one[key], other[key], rtol=0, atol=0.0021 if key == "depth" else 0)
    assert main(["check", str(tmp_path / "out")]) in (0, 3)


def test_kitti_keeps_its_unit_and_its_points(tmp_path, capsys):
    kitti(tmp_path / "files")
    assert convert(["kitti", str(tmp_path / "files"), str(tmp_path / "out")]) == 0
    assert "12 frames in 1 shard" in capsys.readouterr().out
    arguments = {"inputs": ("image", "sparse"), "sparse": Sparse(pattern="stored")}
    before = open_source(Data(source="kitti", root=str(tmp_path / "files"), **arguments))
    after = open_source(Data(source="shards", root=str(tmp_path / "out"), **arguments))
    assert "sparse" in after.keys
    for index in (0, 7):
        for key in ("depth", "sparse"):
            np.testing.assert_array_equal(before.read(index)[key], after.read(index)[key])


@pytest.mark.parametrize(
    ("form", "unit"),
    [
        ("kitti", "uint16_256"),
        ("modest", "uint8_10m"),
        ("diode", "float_m"),
        ("sunrgbd", "uint16_mm, bits rotated left by 3"),
        ("nyu_csv", "uint16_mm, uint8_10m"),
        ("nyu_raw", "kinect_disparity_be"),
    ],
)
def test_provenance_states_the_unit_of_the_files(form, unit, tmp_path):
    {**MAKERS, **NYU}[form](tmp_path / "files")
    assert convert([form, str(tmp_path / "files"), str(tmp_path / "out")]) == 0
    assert format.open_shard(tmp_path / "out/shard-00000.h5").provenance["encoding"] == unit
    assert convert(["shards", str(tmp_path / "out"), str(tmp_path / "again")]) == 0
    (again,) = [format.open_shard(path) for path in (tmp_path / "again").glob("*.h5")]
    assert again.provenance["encoding"] == format.open_shard(tmp_path / "out/shard-00000.h5").encoding


def test_provenance_of_what_is_declared_and_of_what_is_drawn(tmp_path):
    root = folder_dataset(tmp_path / "files", scenes=1, per_scene=1)
    arguments = ["folder", str(root), str(tmp_path / "out"), "--encoding", "uint16_5000"]
    assert convert(arguments) == 0
    assert format.open_shard(tmp_path / "out/shard-00000.h5").provenance["encoding"] == "uint16_5000"
    assert source_encodings(open_source(Data(source="synthetic", frames=1, size=(24, 32)))) == {}


def test_depth_beyond_65_m_survives_in_its_own_unit(tmp_path):
    sample = {"image": np.zeros((1, 3, 3), np.uint8), "depth": np.array([[0.5, 80.25, 300]], np.float32)}
    stored = format.to_stored(sample, where="x", encoding="uint16_256")["depth"]
    assert stored.tolist() == [[128, 20544, 0]]
    assert format.to_stored(sample, where="x")["depth"].tolist() == [[500, 0, 0]]


@pytest.mark.parametrize(
    ("section", "unit"),
    [
        (Data(source="kitti"), "uint16_256"),
        (Data(source="hypersim"), "uint16_mm"),
        (Data(source="folder", encoding="uint16_256"), "uint16_256"),
        (Data(source="folder", encoding="uint8_10m"), "uint16_mm"),
        (Data(source="folder", encoding="uint16/5000"), "uint16_mm"),
        (Data(source="folder", encoding="uint16/256"), "uint16_256"),
        (Data(source="folder", encoding="uint16/100"), "uint16_256"),  # centimetres to 655 m
        (Data(source="folder", encoding="float32/1000"), "uint16_mm"),
    ],
)
def test_the_unit_of_shards(section, unit):
    assert shard_encoding(section) == unit


def test_skipped_files_are_listed_at_the_end(tmp_path, capsys):
    root = folder_dataset(tmp_path / "files")
    (root / "rgb" / "s1-002.jpg").unlink()
    (root / "depth" / "s2-000.png").write_bytes(b"no image")
    arguments = ["folder", str(root), str(tmp_path / "out"), "--frames-per-shard", "5"]
    with pytest.raises(DataError, match=r"s1-002\.jpg: No such file"):
        convert(arguments)
    assert convert([*arguments, "--skip-bad"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "skipped 2 bad frames:"
    assert "s1-002.jpg" in lines[1] and "s2-000.png" in lines[2]
    assert lines[3].startswith("10 frames in 3 shards")
    for path in sorted((tmp_path / "out").glob("*.h5")):
        assert str(tmp_path) not in json.dumps(format.open_shard(path).provenance)


def test_nothing_readable_is_an_error(tmp_path):
    root = folder_dataset(tmp_path / "files", scenes=2, per_scene=1)
    for path in (root / "depth").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 2 frames could be read"):
        convert(["folder", str(root), str(tmp_path / "out"), "--skip-bad"])


def test_overrides_reach_the_form(tmp_path):
    MAKERS["modest"](tmp_path / "files")
    arguments = ["modest", str(tmp_path / "files"), str(tmp_path / "out")]
    assert convert([*arguments, "data.val_fraction=0"]) == 0
    assert len(open_source(Data(source="shards", root=str(tmp_path / "out"))).frames) == 18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kiti"], r"no form 'kiti' \(did you mean 'kitti'\?\)"),
        (["kitti", "--encoding", "uint16_5000"], "states its own unit"),
        (["folder", "--frames-per-shard", "0"], "--frames-per-shard must be at least 1"),
        (["folder", "--workers", "0"], "--workers 0: at least 1 is needed"),
        (["folder", "data.max_dept=3"], "max_dept"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, arguments, message):
    root = folder_dataset(tmp_path / "files", scenes=1, per_scene=1)
    form, *rest = arguments
    with pytest.raises(UsageError, match=message):
        convert([form, str(root), str(tmp_path / "out"), *rest])


def test_the_library_alone_has_one_worker(tmp_path):
    root = folder_dataset(tmp_path / "files", scenes=1, per_scene=2)
    arguments = ["convert", "folder", str(root), str(tmp_path / "out")]
    with pytest.raises(DepthrayError, match="--workers 2 needs Ray"):
        main([*arguments, "--workers", "2"])
    assert main(arguments) == 0
    assert Path(tmp_path / "out/shard-00000.h5").exists()


def test_a_networks_depth_is_kept_as_half_floats(tmp_path):
    class Labelled(Made):
        keys = frozenset({"image", "depth", "teacher", "sigma"})

        def read(self, index):
            metres = np.array([[0.0, np.nan, np.inf], [-1.0, 1.2345, 70000.0]], np.float32)
            image = np.zeros((2, 3, 3), np.uint8)
            return {"image": image, "depth": np.zeros((2, 3), np.float32), "teacher": metres, "sigma": metres / 2}

    out = tmp_path / "out"
    run(out, Labelled(2))
    keys = frozenset({"image", "depth", "teacher", "sigma"})
    sample = Shards(LocalShards(out), keys).read(1)
    expected = np.array([[0, 0, 0], [0, np.float16(1.2345), 0]], np.float32)
    assert sample["teacher"].dtype == np.float32 and (sample["teacher"] == expected).all()
    assert sample["sigma"][1, 1] == np.float32(np.float16(1.2345 / 2)) and sample["sigma"][1, 2] == np.float32(35008)
    assert not Shards(LocalShards(out), keys).faults(1)
    labelled = open_source(Data(source="shards", root=str(out))).read(0)
    assert {"teacher", "sigma"} <= {*labelled}  # which are scored, and trained where the loss asks for it
