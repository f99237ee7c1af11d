"""The contract of all forms of NYU Depth V2: recognised by layout, read from any process, usable by every command."""

from __future__ import annotations

import json
import os
import shutil
from importlib import import_module
from pathlib import Path

import layouts_nyu
import numpy as np
import pytest
from frames import folder_dataset

from depthray.__main__ import main
from depthray.batch import STRINGS
from depthray.data.sources import open_source, synthetic
from depthray.data.split import split
from depthray.errors import DataError, UsageError

FORMS = sorted(layouts_nyu.MAKERS)
KINECT = {"nyu_csv", "nyu_mat", "nyu_mat_filled", "nyu_raw"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return {form: make(tmp_path_factory.mktemp(form) / "set") for form, make in layouts_nyu.MAKERS.items()}


@pytest.fixture(params=FORMS)
def section(request, made):
    return made[request.param]


@pytest.fixture
def mine(section, tmp_path):
    """The section of a copy that may be harmed."""
    shutil.copytree(section.root, tmp_path / "set")
    return section.model_copy(update={"root": str(tmp_path / "set")})


def test_samples_are_complete(section):
    source = open_source(section)
    for index in (0, len(source.frames) - 1):
        sample, frame = source.read(index), source.frames[index]
        assert set(sample) == source.keys | set(STRINGS)
        assert (sample["id"], sample["scene"], sample["source"]) == (frame.id, frame.scene, frame.source)
        assert sample["image"].shape == (*layouts_nyu.SIZE, 3)
        assert sample["image"].dtype == np.uint8
        assert sample["depth"].shape == layouts_nyu.SIZE
        assert sample["depth"].dtype == np.float32
        assert source.faults(index) == []


def test_the_camera_is_that_of_nyu_at_the_size_of_the_image(section):
    if section.source not in KINECT:
        pytest.skip("its lists or files say otherwise, or nothing")
    intrinsics = open_source(section).read(0)["intrinsics"]
    scale = layouts_nyu.SIZE[1] / 640
    assert intrinsics[0, 0] == pytest.approx(518.8579 * scale, rel=1e-5)
    assert intrinsics[1, 1] == pytest.approx(519.4696 * scale, rel=1e-5)
    # (c + 1/2) is what scales where pixel centres are at whole numbers.
    assert intrinsics[:2, 2] + 0.5 == pytest.approx([326.0824 * scale, 254.2362 * scale], rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as loader processes start, with our threads
def test_a_forked_process_reads_the_same(section):
    source = open_source(section)
    mean = float(source.read(1)["depth"].mean())
    child = os.fork()
    if not child:
        same = False
        try:
            same = float(source.read(1)["depth"].mean()) == mean
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_test_frames_neither_train_nor_validate(section):
    sides = split(open_source(section).frames, section)
    assert sides.train
    assert sides.val
    assert bool(sides.test) == (section.source != "nyu_raw")  # recordings declare no side


def test_layouts_are_distinguished(made, tmp_path):
    folder_dataset(tmp_path / "folder")
    synthetic.write_rooms(tmp_path / "shards", frames=2, size=(24, 32), layout="shards")
    (tmp_path / "empty").mkdir()
    others = [tmp_path / name for name in ("folder", "shards", "empty")]
    for form in FORMS:
        fits = import_module(f"depthray.data.sources.{form}").fits
        for path in others:
            assert not fits(path)
        for other, section in made.items():
            assert fits(Path(section.root)) == (form == other.removesuffix("_filled")), (form, other)


def test_others_do_not_claim_these(made):
    for name in ("folder", "shards", "synthetic"):
        fits = import_module(f"depthray.data.sources.{name}").fits
        for section in made.values():
            assert not fits(Path(section.root))


def test_fingerprint_follows_the_files(mine):
    first = open_source(mine).fingerprint
    assert open_source(mine).fingerprint == first
    assert len(first) == 64
    longest = max(
        (path for path in Path(mine.root).rglob("*.*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    with longest.open("ab") as file:
        file.write(b"more")
    assert open_source(mine).fingerprint != first


def test_a_declared_encoding_is_refused(section):
    with pytest.raises(UsageError, match=r"data\.encoding=uint16_256.*states its own unit"):
        open_source(section.model_copy(update={"encoding": "uint16_256"}))


@pytest.mark.parametrize("root", ["", "nowhere"])
def test_no_data(section, root, tmp_path):
    where = str(tmp_path / root) if root else ""
    with pytest.raises(DataError, match="nowhere" if root else r"data\.root is empty.*--data PATH"):
        open_source(section.model_copy(update={"root": where}))


def test_a_folder_of_something_else(section, tmp_path):
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(DataError, match=str(tmp_path)):
        open_source(section.model_copy(update={"root": str(tmp_path)}))


def test_every_command_of_data(section, tmp_path, capsys):
    source, root, out = open_source(section), section.root, tmp_path / "shards"
    assert main(["data", "check", root, "--source", section.source]) == 0, capsys.readouterr().out
    capsys.readouterr()
    assert main(["data", "stats", root, "--source", section.source, "--json", "data.val_fraction=0.4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trivial"]
    assert found["frames"] == len(source.frames)
    assert main(["data", "pack", root, str(out), "--source", section.source]) == 0
    packed = open_source(section.model_copy(update={"source": "shards", "root": str(out)}))
    names = [frame.id for frame in packed.frames]
    assert sorted(names) == sorted(frame.id for frame in source.frames)
    original, copy = source.read(0), packed.read(names.index(source.frames[0].id))
    np.testing.assert_array_equal(copy["image"], original["image"])
    np.testing.assert_allclose(copy["depth"], original["depth"], atol=5.1e-4)  # shards hold integer millimetres
