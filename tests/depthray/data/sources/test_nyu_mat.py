"""The labelled .mat file of NYU Depth V2: transposed back, split by splits.mat, measured or filled depth."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from layouts_nyu import HOLE, PER_SCENE, SCENES, SIZE, nyu_mat, room
from scipy.io import savemat

from depthray.data.sources import open_source, recognise
from depthray.errors import DataError

COUNT = SCENES * PER_SCENE


@pytest.fixture
def section(tmp_path):
    return nyu_mat(tmp_path / "set")


@pytest.fixture
def mat(section, tmp_path):
    return tmp_path / "set/nyu_depth_v2_labeled.mat"


def change(mat, **variables):
    """Put other arrays instead of variables; None removes one."""
    with h5py.File(mat, "r+") as file:
        for name, array in variables.items():
            del file[name]
            if array is not None:
                file[name] = array


def test_frames_are_upright_and_complete(section):
    sample, drawn = open_source(section).read(4), room(4)
    for key in ("image", "depth", "semantics", "instances"):
        np.testing.assert_array_equal(sample[key], drawn[key])
        assert sample[key].flags.c_contiguous
    assert sample["semantics"].dtype == sample["instances"].dtype == np.int32


def test_frames_are_called_as_the_data_set_counts_them(section):
    frames = open_source(section).frames
    assert [frames[0].id, frames[-1].id] == ["nyu_0001", f"nyu_{COUNT:04d}"]
    assert frames[0][1:] == ("kitchen_0000", "train", "nyu")
    assert frames[-1][1:] == ("kitchen_0002", "test", "nyu")


def test_measured_depth_has_holes_and_filled_depth_has_none(section):
    measured = open_source(section)
    filled = open_source(section.model_copy(update={"source": "nyu_mat_filled"}))
    assert (measured.read(0)["depth"][HOLE] == 0).all()
    assert (filled.read(0)["depth"] > 0).all()
    assert measured.fingerprint != filled.fingerprint


def test_the_file_itself_may_be_named(section, mat):
    assert recognise(mat) == recognise(mat.parent) == "nyu_mat"
    named = section.model_copy(update={"root": str(mat)})
    assert open_source(named).frames == open_source(section).frames


def test_without_splits_no_side_is_declared(section, mat):
    (mat.parent / "splits.mat").unlink()
    assert {frame.split for frame in open_source(section).frames} == {""}


def test_ids_are_read_only_where_wanted(section, mat):
    change(mat, instances=None)
    assert open_source(section.model_copy(update={"inputs": ("image",)})).keys == {"image", "depth", "intrinsics"}
    with pytest.raises(DataError, match=r"data\.inputs wants 'instances'"):
        open_source(section)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (range(COUNT), range(COUNT, COUNT)),  # counted from 0
        (range(1, COUNT), range(COUNT, COUNT)),  # one on no side
        (range(1, COUNT + 1), range(COUNT, COUNT + 1)),  # one on both
        (range(1, 796), range(796, 1450)),  # of another file
    ],
)
def test_splits_that_do_not_fit(section, mat, train, test):
    savemat(mat.parent / "splits.mat", {"trainNdxs": np.array(train), "testNdxs": np.array(test)})
    with pytest.raises(DataError, match=rf"splits\.mat: trainNdxs and testNdxs must hold each of 1 to {COUNT} once"):
        open_source(section)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.float64, np.uint8])
def test_splits_in_any_type_of_number(section, mat, dtype, compressed):
    numbers = np.arange(1, COUNT + 1, dtype=dtype)[:, None]
    sides = {"trainNdxs": numbers[1:], "testNdxs": numbers[:1], "remark": np.ones((3, 2))}
    savemat(mat.parent / "splits.mat", sides, do_compression=compressed)
    assert [frame.split for frame in open_source(section).frames] == ["test", *["train"] * (COUNT - 1)]


@pytest.mark.parametrize("content", [b"", b"MATLAB", bytes(200), b"MATLAB 5.0 MAT-file" + bytes(300)])
def test_splits_that_cannot_be_read(section, mat, content):
    (mat.parent / "splits.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"splits\.mat: not a readable MATLAB file"):
        open_source(section)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_splits_never_crash(section, mat, compressed):
    numbers = np.arange(1, COUNT + 1, dtype=np.uint16)[:, None]
    sides = {"trainNdxs": numbers[1:], "testNdxs": numbers[:1]}
    savemat(mat.parent / "splits.mat", sides, do_compression=compressed)
    content, refused = (mat.parent / "splits.mat").read_bytes(), 0
    for position in range(124, len(content)):
        (mat.parent / "splits.mat").write_bytes(
            content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]
        )
        try:
            open_source(section, verify=False)
        except DataError:
            refused += 1
    assert refused > 0.5 * (len(content) - 124)


def test_splits_without_a_side(section, mat):
    savemat(mat.parent / "splits.mat", {"trainNdxs": np.arange(1, COUNT + 1)})
    with pytest.raises(DataError, match=r"splits\.mat: no variable 'testNdxs'"):
        open_source(section)


@pytest.mark.parametrize("share", [0, 0.1, 0.9])
def test_truncated_file(section, mat, share):
    content = mat.read_bytes()
    mat.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"nyu_depth_v2_labeled\.mat: "):
        open_source(section)


def test_damaged_frame_names_file_and_frame(section, mat):
    with h5py.File(mat, "r") as file:
        depth = file["rawDepths"][:]
    change(mat, rawDepths=None)
    with h5py.File(mat, "r+") as file:
        stored = file.create_dataset("rawDepths", data=depth, chunks=(1, *depth.shape[1:]), compression="gzip")
        chunk = stored.id.get_chunk_info(2)
    with mat.open("r+b") as file:
        file.seek(512 + chunk.byte_offset)
        file.write(bytes(20))
    source = open_source(section)
    assert source.read(1)["depth"].any()
    with pytest.raises(DataError, match=r"labeled\.mat frame 2: rawDepths cannot be read"):
        source.read(2)


@pytest.mark.parametrize("name", ["images", "rawDepths", "scenes"])
def test_missing_variable_is_named(section, mat, name):
    change(mat, **{name: None})
    with pytest.raises(DataError, match=rf"labeled\.mat: .*{name}"):
        open_source(section)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"rawDepths": np.ones((COUNT, *SIZE), np.float32)}, "rawDepths have shape"),  # not on its side
        ({"rawDepths": np.ones((COUNT - 1, SIZE[1], SIZE[0]), np.float32)}, "rawDepths have shape"),
        ({"images": np.ones((COUNT, SIZE[1], SIZE[0]), np.uint8)}, "images have shape"),
        ({"scenes": np.ones((1, COUNT))}, "damaged, or not of this form"),
    ],
)
def test_variables_of_another_shape(section, mat, variables, message):
    change(mat, **variables)
    with pytest.raises(DataError, match=rf"labeled\.mat: {message}"):
        open_source(section)


def test_depth_of_another_type(section, mat):
    change(mat, rawDepths=np.ones((COUNT, SIZE[1], SIZE[0]), np.uint16))
    with pytest.raises(DataError, match=r"labeled\.mat frame 1: depth is stored as uint16"):
        open_source(section).read(1)


def test_odd_depth_is_reported(section, mat):
    depth = np.ones((COUNT, SIZE[1], SIZE[0]), np.float32)
    depth[3, 0, :2] = np.nan, -1
    change(mat, rawDepths=depth)
    source = open_source(section)
    assert source.faults(2) == []
    assert "frame 3: 1 negative values, read as unmeasured" in source.faults(3)[0]
    assert (source.read(3)["depth"] == 0).sum() == 2
