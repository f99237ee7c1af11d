"""HDF5 shards: what is packed comes back, an interrupted packing continues, and no damage goes unnoticed."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import resource
import signal
from typing import Any

import h5py
import numpy as np
import pytest
from frames import folder_dataset
from made_sources import Made, flip

from depthray.cli.data import main
from depthray.config.sections import Data
from depthray.data import packing
from depthray.data.shards import format, writer
from depthray.data.sources import open_source
from depthray.errors import DataError, ResourceError

EVERYTHING = ("image", "background", "semantics", "instances", "mask")


def packed(path, source=None, **options):
    return packing.pack(source or Made(), path, provenance={"name": "made"}, **options)


def opened(root, inputs=("image",)):
    return open_source(Data(source="shards", root=str(root), inputs=inputs))


def test_real_files_come_back_exactly(tmp_path):
    root = folder_dataset(tmp_path / "files")
    files = open_source(Data(source="folder", root=str(root), inputs=("image", "semantics")))
    packing.pack(files, tmp_path / "out", provenance={}, frames_per_shard=5)
    source = opened(tmp_path / "out", ("image", "semantics"))
    assert list(source.frames) == list(files.frames)
    for index in range(len(files.frames)):
        for key in ("image", "depth", "semantics"):
            np.testing.assert_array_equal(source.read(index)[key], files.read(index)[key])


def test_every_key_comes_back(tmp_path):
    maps = {key: np.full((6, 8), value, np.int32) for key, value in (("semantics", 894), ("instances", 65535))}
    extra: dict[str, Any] = {
        **maps,
        "mask": np.eye(6, 8, dtype=np.uint8),
        "background": np.full((6, 8, 3), 9, np.uint8),
    }
    packed(tmp_path, Made(3, **extra, intrinsics=np.diag([5, 6, 1]).astype(np.float32)))
    sample: Any = opened(tmp_path, EVERYTHING).read(2)
    for key, array in extra.items():
        np.testing.assert_array_equal(sample[key], array)
        assert sample[key].dtype == array.dtype
    assert sample["intrinsics"].tolist() == [[5, 0, 0], [0, 6, 0], [0, 0, 1]]


def test_every_millimetre_comes_back(tmp_path):
    depth = (np.arange(65536).reshape(256, 256) / 1000).astype(np.float32)
    assert (format.to_millimetres(depth).ravel() == np.arange(65536)).all()


def test_depth_16_bits_cannot_hold_is_unmeasured():
    depth = np.array([[65.535, 65.536, 1e9, -1, np.nan, np.inf]], np.float32)
    assert format.to_millimetres(depth).tolist() == [[65535, 0, 0, 0, 0, 0]]


def test_any_hdf5_reader_understands_a_shard(tmp_path):
    with h5py.File(packed(tmp_path)[0]) as file:
        assert file["depth"][3, 0, 0] == 4500
        assert file["image"].chunks == (1, 6, 8, 3)
        assert file["id"].asstr()[3] == "f3"
        assert file.attrs["encoding"] == "uint16_mm"
        assert '"name": "made"' in file.attrs["provenance"]


def test_sizes_are_written_to_shards_of_their_own(tmp_path):
    paths = packed(tmp_path, Made(8, sizes=((6, 8), (4, 5))), frames_per_shard=3)
    assert [format.open_shard(path).size for path in paths].count((4, 5)) == 3  # one in each range of 3 frames
    source = opened(tmp_path)
    for index, frame in enumerate(source.frames):
        number = int(frame.id[1:])
        assert source.read(index)["depth"].shape == ((4, 5) if number % 2 else (6, 8))
        assert source.read(index)["depth"][0, 0] == 1.5 + number


@pytest.mark.parametrize("lasts", [0, 1, 3, 5, 6])
def test_interrupted_packing_continues(tmp_path, lasts):
    with pytest.raises(KeyboardInterrupt):
        packed(tmp_path, Made(lasts=lasts), frames_per_shard=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.h5")}
    assert not list(tmp_path.glob(".tmp-*"))
    again = Made()
    packed(tmp_path, again, frames_per_shard=2)
    assert again.reads == 7 - lasts // 2 * 2
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert sorted(frame.id for frame in opened(tmp_path).frames) == [f"f{i}" for i in range(7)]


@pytest.fixture
def ctrl_c():
    """Python's own handler, whatever a test before has left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("method", ["write", "truncate", "readinto"])
def test_an_interrupt_while_hdf5_writes_leaves_no_half_shard(tmp_path, monkeypatch, method):
    calls = 0
    do = getattr(writer._ShardFile, method)

    def interrupted(file, *arguments):
        nonlocal calls
        calls += 1
        if calls == at:
            signal.raise_signal(signal.SIGINT)  # where Ctrl-C is raised most often: as a function begins
        return do(file, *arguments)

    monkeypatch.setattr(writer._ShardFile, method, interrupted)
    for at in itertools.count(1):
        calls, out = 0, tmp_path / str(at)
        try:
            packed(out, frames_per_shard=4)
        except KeyboardInterrupt:
            assert calls >= at and not list(out.glob(".tmp-*"))
        else:
            break  # no such call any more
        for path in out.glob("*.h5"):
            assert len(format.open_shard(path).frames) >= 3
        packed(out, frames_per_shard=4)
        source = opened(out)
        assert [source.read(index)["depth"][0, 0] for index in range(7)] == [1.5 + number for number in range(7)]
    assert at > 1


def test_leftovers_of_a_killed_packing_are_removed(tmp_path):
    (tmp_path / ".tmp-0").write_bytes(b"half a shard")
    packed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-00000.h5"]


def test_other_data_is_not_mixed_in(tmp_path):
    packed(tmp_path)
    other = Made()
    other.fingerprint = "0" * 64
    with pytest.raises(DataError, match="packed from other"):
        packed(tmp_path, other)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="file: cannot be written"):
        packed(tmp_path / "file")


@pytest.mark.parametrize("room", [0, 100, 20_000, 60_000])
def test_full_disk(tmp_path, room):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # bytes a file may have
    try:
        with pytest.raises(ResourceError, match=r"cannot be written: .*free space"):
            packed(tmp_path, Made(sizes=((64, 64),)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [-1, 70000])
def test_ids_a_shard_cannot_hold_are_refused(tmp_path, value):
    with pytest.raises(DataError, match=f"frame 'f0': semantics has values int32 {value}"):
        packed(tmp_path, Made(semantics=np.full((6, 8), value, np.int32)))


def test_misfit_of_shapes_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"frame 'f0': mask has shape \(6, 7\), but the image is 8x6"):
        packed(tmp_path, Made(mask=np.ones((6, 7), np.uint8)))


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_shard(tmp_path, share):
    path = packed(tmp_path)[0]
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(DataError, match=r"shard-00000\.h5: .*cut off.*pack the data again"):
        opened(tmp_path)


def rewrite(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.attrs.update(version=99),
        lambda file: file.pop("scene"),
        lambda file: file["image"].__setitem__((4, 1, 1, 1), 7),
    ],
)
def test_shard_changed_by_another_program(tmp_path, change):
    path = packed(tmp_path)[0]
    rewrite(path, change)
    with pytest.raises(DataError, match=r"shard-00000\.h5: not a complete shard .*changed by another program"):
        opened(tmp_path)


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "chunks": (1, 6, 8)}])
def test_foreign_hdf5(tmp_path, options):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("depth", data=np.ones((7, 6, 8), np.float32), **options)
    with pytest.raises(DataError, match=r"x\.h5: .*never a depthray shard.*pack the data again"):
        opened(tmp_path)


def with_index(path, **values):
    """Change a shard's index as only depthray itself could."""
    with path.open("rb") as file:
        index = format._read_index(file, path.stat().st_size)
    writer._append(path, index | values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": 99}, "shard version 99, this depthray reads 1"),
        ({"offsets": {"image": [0] * 6 + [10**9]}}, "image is outside the file"),
        ({"offsets": {"image": [0]}}, "image is outside the file"),
        ({"size": [6]}, "not a complete shard"),
        ({"frames": [[1]]}, "not a complete shard"),
    ],
)
def test_index_that_does_not_fit(tmp_path, values, message):
    path = packed(tmp_path)[0]
    with_index(path, **values)
    with pytest.raises(DataError, match=rf"shard-00000\.h5: .*{message}"):
        opened(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_bit_changes_a_sample_unnoticed(tmp_path, seed):
    path = packed(tmp_path)[0]
    good = [opened(tmp_path).read(index) for index in range(7)]
    rng = np.random.default_rng(seed)
    for position in rng.integers(0, path.stat().st_size, 50):
        flip(path, position, 3)
        try:
            source = opened(tmp_path)
            intact = [index for index in range(7) if not source.faults(index)]
            assert all((source.read(i)["image"] == good[i]["image"]).all() for i in intact)
            assert all((source.read(i)["depth"] == good[i]["depth"]).all() for i in intact)
        except DataError as error:
            assert "not a complete shard" in str(error)
        flip(path, position, 3)


def test_fingerprint_is_of_the_frames_not_of_the_cut(tmp_path):
    packed(tmp_path / "a", frames_per_shard=2)
    packing.pack(Made(), tmp_path / "b", provenance={"date": "later"})
    packed(tmp_path / "c", Made(6))
    one, same, fewer = (opened(tmp_path / name).fingerprint for name in "abc")
    assert one == same != fewer


def test_any_flipped_bit_of_the_index_is_found(tmp_path):
    path = packed(tmp_path)[0]
    with path.open("rb") as file:
        length = len(json.dumps(format._read_index(file, path.stat().st_size), sort_keys=True))
    size = path.stat().st_size
    for position in range(size - format.TAIL.size - length, size, 7):
        flip(path, position, 1)
        with pytest.raises(DataError, match="not a complete shard"):
            opened(tmp_path)
        flip(path, position, 1)


def test_text_that_is_called_h5(tmp_path):
    (tmp_path / "x.h5").write_text("not HDF5")
    with pytest.raises(DataError, match=r"x\.h5: .*never a depthray shard"):
        opened(tmp_path)


def test_no_shards(tmp_path):
    with pytest.raises(DataError, match=r"no \*\.h5 shards there"):
        opened(tmp_path)


def test_altered_pixel_is_found_by_its_frame(tmp_path):
    path = packed(tmp_path)[0]
    flip(path, format.open_shard(path).offsets["image"][4] + 20, 0)
    source = opened(tmp_path)
    assert [index for index in range(7) if source.faults(index)] == [4]
    assert "altered" in source.faults(4)[0]


def test_changed_during_the_run(tmp_path):
    path = packed(tmp_path)[0]
    source = opened(tmp_path)
    source.read(0)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match=r"shard-00000\.h5: changed since"):
        source.read(1)


def test_removed_during_the_run(tmp_path):
    path = packed(tmp_path)[0]
    source = opened(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"shard-00000\.h5: No such file"):
        source.read(1)


def test_many_processes_read_what_one_reads(tmp_path):
    packed(tmp_path, frames_per_shard=3)
    source = opened(tmp_path)
    here = [source.read(index) for index in range(7)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        there = pool.map(source.read, range(7), chunksize=1)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["depth"], other["depth"])


def test_frame_in_two_shards_is_refused(tmp_path):
    path = packed(tmp_path)[0]
    (tmp_path / "copy.h5").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="7 frame ids are used twice, first 'f0'"):
        opened(tmp_path)


def test_pack_command(tmp_path, capsys):
    root = folder_dataset(tmp_path / "files")
    assert main(["pack", str(root), str(tmp_path / "out"), "--frames-per-shard", "5", "--encoding", "uint16_256"]) == 0
    assert "12 frames in 3 shards" in capsys.readouterr().out
    shard = format.open_shard(tmp_path / "out/shard-00001.h5")
    assert {key: shard.provenance[key] for key in ("name", "form", "encoding")} == {
        "name": "files",
        "form": "folder",
        "encoding": "uint16_256",
    }
    assert str(tmp_path) not in str(shard.provenance)
    assert "semantics" in shard.offsets


def test_pack_command_with_another_index(tmp_path):
    root = folder_dataset(tmp_path / "files")
    (root / "index.csv").rename(root / "few.csv")
    assert main(["pack", str(root), str(tmp_path / "out"), "--index", "few.csv"]) == 0
    assert len(opened(tmp_path / "out").frames) == 12


def test_what_only_some_shards_have_is_named_when_it_is_left_out(tmp_path, capsys):
    labelled, plain = Made(2, semantics=np.ones((6, 8), np.int32)), Made(3)
    plain.frames = [frame._replace(id=f"plain-{frame.id}") for frame in plain.frames]
    (first,) = packed(tmp_path / "labelled", labelled)
    assert not opened(tmp_path / "labelled").notes
    (second,) = packed(tmp_path / "plain", plain)
    second.rename(first.with_name("shard-00001.h5"))
    assert main(["pack", str(tmp_path / "labelled"), str(tmp_path / "out")]) == 0
    assert "note: semantics: only some of the shards have it" in capsys.readouterr().out
