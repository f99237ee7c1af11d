"""The contract every form of a data set keeps; a new module of depthray/data/sources is covered by a line in MAKERS."""

from __future__ import annotations

from pathlib import Path

import pytest
from frames import folder_dataset
from layouts_captures import MAKERS as CAPTURES
from layouts_nyu import MAKERS as NYU
from layouts_other import MAKERS as OTHERS
from lerobot_sets import lerobot
from paths import ROOT
from realsense_bags import realsense
from recorded import MAKERS as RECORDINGS

from depthray.config.sections import Data, RecordingOptions
from depthray.data.packing import pack
from depthray.data.readers.frame_files import PAIR, FrameFiles, FrameRow
from depthray.data.recordings.recorded_frames import RecordedFrames
from depthray.data.source import Frame
from depthray.data.sources import check_recording, names, open_source, recognise
from depthray.errors import UsageError
from depthray.testing import source_contract as contract
from depthray.training import preflight


def folder(path):
    return Data(source="folder", root=str(folder_dataset(path)), inputs=("image", "semantics"))


def shards(path):
    pack(open_source(folder(path / "files")), path / "shards", provenance={}, frames_per_shard=5)
    return Data(source="shards", root=str(path / "shards"), inputs=("image", "semantics"))


def synthetic(path):
    return Data(source="synthetic", frames=9, size=(24, 32), inputs=("image", "semantics"))


PAGE = ROOT / "docs" / "data.md"
MAKERS = {"folder": folder, "shards": shards, "synthetic": synthetic, **NYU, **OTHERS, **CAPTURES, **RECORDINGS}
MAKERS |= {"lerobot": lerobot, "realsense": realsense}


@pytest.fixture(scope="module", params=names())
def section(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
def test_keeps_the_contract(section, check):
    check(lambda: open_source(section))


def test_fingerprints_are_those_that_checkpoints_have_recorded(tmp_path):
    (tmp_path / "a.png").write_bytes(b"12345")
    (tmp_path / "b.png").write_bytes(b"123")
    row = FrameRow(Frame("a", "hall", "train", "x"), ("a.png", "b.png"), named="list line 1", camera=("5.0",))
    files = {tag: type(tag, (FrameFiles,), {"fingerprint_tag": tag}) for tag in ("Bts", "Kitti")}
    digests = {tag: made(tmp_path, [row], keys=frozenset(PAIR), encoding="uint16_mm") for tag, made in files.items()}
    assert {tag: source.fingerprint[:16] for tag, source in digests.items()} == {
        "Bts": "6d1766caf2e76ff6",
        "Kitti": "9dee6ef0d7e95ea9",
    }


def test_every_form_of_files_has_a_fingerprint_of_its_own(section):
    source = open_source(section)
    if isinstance(source, FrameFiles) and section.source != "folder":  # a folder's is that of its index
        assert source.fingerprint_tag != FrameFiles.fingerprint_tag


@pytest.mark.parametrize("make", [folder, shards])
def test_form_is_recognised_by_its_path(make, tmp_path):
    made = make(tmp_path)
    assert recognise(Path(made.root)) == made.source


@pytest.mark.parametrize("form", names())
def test_every_form_is_described(form):
    assert f"`{form}`" in PAGE.read_text() or f"### {form}" in PAGE.read_text()


def test_keys_of_recordings_are_refused_where_a_form_ignores_them(section):
    given = section.model_copy(update={"recording": RecordingOptions(every=2)})
    if isinstance(open_source(section), RecordedFrames):
        check_recording(given, where="here")
    elif section.root:
        with pytest.raises(UsageError, match=rf"here: data\.recording\.every is of .*data\.source={section.source} is"):
            check_recording(given, where="here")
    check_recording(section, where="here")


def test_one_recording_among_several_sets_reads_its_keys(tmp_path):
    bags = RECORDINGS["rosbag2"](tmp_path / "bags")
    files = folder(tmp_path / "files")
    sets = [{"root": each.root, "source": each.source} for each in (files, bags)]
    check_recording(Data(sets=sets, recording=RecordingOptions(every=2)), where="here")
    with pytest.raises(UsageError, match=r"data\.recording\.gap is of recordings"):
        check_recording(Data(sets=sets[:1], recording=RecordingOptions(gap=2)), where="here")
    with pytest.raises(UsageError, match=r"demo: data\.recording\.every is of recordings"):
        preflight.load_with_data("demo", [f"data.root={files.root}", "data.recording.every=2"])
