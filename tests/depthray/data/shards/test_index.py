"""The index of a folder of shards: what it says is what the shards say, and one that is not of them is not used."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frames import folder_dataset
from made_sources import Made, flip

from depthray.__main__ import main
from depthray.config.sections import Data
from depthray.data import packing
from depthray.data.shards import format, index_files
from depthray.data.shards.index_files import FACTS, FOLDER
from depthray.data.shards.shard_table import ShardTable
from depthray.data.source import Frame, Source
from depthray.data.sources import open_source
from depthray.data.split import split
from depthray.errors import DataError, ResourceError, UsageError
from depthray.storage import environment

PER_SHARD = 3


def opened(root: str | Path) -> Any:
    return open_source(Data(source="shards", root=str(root)))


class Varied(Made):
    """Frames of two sizes, some with intrinsics, with declared sides and several sources."""

    def __init__(self) -> None:
        super().__init__(14, sizes=((6, 8), (4, 5)))
        sides = ["train", "", "test", "val", "train"]
        self.frames = [Frame(f"f{i}", f"räum-{i // 3}", sides[i // 3], "ab"[i // 9]) for i in range(14)]

    def read(self, index: int) -> Any:
        sample = super().read(index)
        if index >= 6:
            sample["intrinsics"] = np.diag([5 + index // 10, 6, 1]).astype(np.float32)
        return sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shards with an index."""
    packing.pack(Varied(), tmp_path / "packed", provenance={}, frames_per_shard=PER_SHARD)
    index_files.write(tmp_path / "packed")
    return tmp_path / "packed"


def table(source: Any) -> ShardTable:
    found: ShardTable = source._table
    return found


def is_indexed(source: Source) -> bool:
    return isinstance(table(source), index_files.MappedTable)


def without_index(folder: Path) -> Source:
    shutil.move(folder / FOLDER, folder.with_name("away"))
    source = opened(folder)
    shutil.move(folder.with_name("away"), folder / FOLDER)
    return source


def check_same(one: Source, two: Source) -> None:
    assert list(one.frames) == list(two.frames) and one.fingerprint == two.fingerprint and one.keys == two.keys
    assert split(one.frames, Data()) == split(two.frames, Data())
    for index in range(len(one.frames)):
        left: Any
        left, right = one.read(index), two.read(index)
        assert left.keys() == right.keys() and one.encoding(index) == two.encoding(index)  # type: ignore[attr-defined]
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])


def test_a_set_is_the_same_with_and_without_its_index(folder: Path) -> None:
    one, two = opened(folder), without_index(folder)
    assert is_indexed(one) and not is_indexed(two)
    check_same(one, two)
    assert [table(one).intrinsics(index) is None for index in range(14)].count(True) == 6
    shards = [format.open_shard(path) for path in sorted(folder.glob("*.h5"))]
    frames = [frame for shard in shards for frame in shard.frames]
    assert one.fingerprint == format.content_digest(frames, [digest for shard in shards for digest in shard.digests])
    assert [one.faults(index) for index in range(14)] == [[]] * 14


def test_opening_reads_no_shard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format, "open_shard", lambda path: pytest.fail(f"{path} was read"))
    source = opened(folder)
    assert len(source.frames) == 14 and source.fingerprint and split(source.frames, Data()).val
    assert source.read(7)["id"] == source.frames[7].id  # nor does reading a frame


def test_a_copy_in_another_process_maps_the_same_files(folder: Path) -> None:
    source = opened(folder)
    text = pickle.dumps(source)
    assert len(text) < 2000
    check_same(source, pickle.loads(text))  # noqa: S301 - just written
    (folder / FOLDER / FACTS).write_text((folder / FOLDER / FACTS).read_text() + " ")
    with pytest.raises(DataError, match=r"index: changed since the data set was opened; start again"):
        pickle.loads(text)  # noqa: S301
    shutil.rmtree(folder / FOLDER)
    with pytest.raises(DataError, match=r"index: gone since the data set was opened"):
        pickle.loads(text)  # noqa: S301


def damage_facts(folder: Path, **values: Any) -> None:
    tree = json.loads((folder / FOLDER / FACTS).read_text())
    (folder / FOLDER / FACTS).write_text(json.dumps(tree | values))


MISFITS: dict[str, Callable[[Path], Any]] = {
    "a shard more": lambda folder: shutil.copy(folder / "shard-00000.h5", folder / "shard-00000-7.h5"),
    "one less": lambda folder: (folder / "shard-00001.h5").unlink(),
    "another name": lambda folder: (folder / "shard-00001.h5").rename(folder / "shard-00009.h5"),
    "no facts": lambda folder: (folder / FOLDER / FACTS).write_text(""),
    "another version": lambda folder: damage_facts(folder, version=2),
    "another set of splits": lambda folder: damage_facts(folder, splits=["", "val"]),
    "a column cut off": lambda folder: (folder / FOLDER / "scene.npy").write_bytes(b"x"),
    "a column gone": lambda folder: (folder / FOLDER / "split.npy").unlink(),
    "no file of columns": lambda folder: damage_facts(folder, files={}),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_an_index_that_is_not_of_the_shards_is_not_used(folder: Path, misfit: str) -> None:
    MISFITS[misfit](folder)
    assert index_files.find(folder) is None
    if misfit != "a shard more":
        assert not is_indexed(opened(folder))
        index_files.write(folder)
        assert is_indexed(opened(folder))
        return
    with pytest.raises(DataError, match="used twice"):
        opened(folder)
    with pytest.raises(DataError, match=r"frame id '.*' is used twice"):
        index_files.write(folder)
    assert not (folder / FOLDER).exists()


def test_a_shard_that_was_cut_off_is_named_when_the_set_is_opened(folder: Path) -> None:
    path = folder / "shard-00001.h5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"shard-00001\.h5: .*cut off.*pack the data again"):
        opened(folder)


def test_another_shard_of_the_same_size_is_noticed_when_it_is_read(folder: Path) -> None:
    path = folder / "shard-00001.h5"
    flip(path, path.stat().st_size - 5, 0)  # of the checksum of its index
    source = opened(folder)
    number = list(table(source).names).index(path.name)
    index = int(table(source).numbers.starts[number])
    with pytest.raises(DataError, match=r"shard-00001\.h5: not the shard of .*; write that anew: depthray data index"):
        source.read(index)
    assert source.read(0)["id"] == source.frames[0].id


def test_columns_that_are_wrong_are_found_by_data_check(folder: Path) -> None:
    for name, index, value in (("offset_depth", 4, 0), ("scene", 9, 0)):
        column = np.load(folder / FOLDER / f"{name}.npy", mmap_mode="r+")
        column[index] = value
        column.flush()
    source = opened(folder)
    assert [index for index in range(14) if source.faults(index)] == [4, 9]
    assert "not as the index of the set has it; write that anew: depthray data index" in source.faults(4)[0]


def test_packing_writes_the_index_and_changing_the_shards_removes_it(tmp_path: Path) -> None:
    root, out = folder_dataset(tmp_path / "files"), tmp_path / "out"
    command = ["data", "pack", str(root), str(out), "--frames-per-shard", "5"]
    assert main(command) == 0
    assert is_indexed(opened(out)) and sorted(path.name for path in out.iterdir())[0] == FOLDER
    before = {path.name: path.read_bytes() for path in (out / FOLDER).iterdir()}
    assert main(command) == 0
    assert {path.name: path.read_bytes() for path in (out / FOLDER).iterdir()} == before
    (out / "shard-00001.h5").unlink()
    source, plan = packing.plan_section(Data(source="folder", root=str(root)), out, name="files", frames_per_shard=5)
    packing.convert_range(source, plan, 1)
    assert not (out / FOLDER).exists()


def test_index_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packing.pack(Made(), tmp_path / "out", provenance={}, frames_per_shard=PER_SHARD)
    assert main(["data", "index", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["7 frames indexed", f"written: {tmp_path / 'out' / FOLDER}"]
    assert is_indexed(opened(tmp_path / "out"))
    assert main(["data", "index", str(tmp_path)]) == UsageError.exit_code
    assert "no shards, which alone are indexed by themselves; give DEPTH_DIR too" in capsys.readouterr().err


def test_a_folder_of_that_name_that_is_no_index_stays(tmp_path: Path) -> None:
    packing.pack(Made(), tmp_path, provenance={})
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mine.txt").write_text("mine")
    with pytest.raises(ResourceError, match=r"index: cannot be written: Directory not empty"):
        index_files.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FOLDER, "shard-00000.h5"]
    assert (tmp_path / FOLDER / "mine.txt").read_text() == "mine" and len(opened(tmp_path).frames) == 7


class Address:
    """A folder in the place of an address: what is read of it, by name."""

    def __init__(self, folder: Path, read: list[str]) -> None:
        self.path, self.url, self._read = folder, "s3://bucket/set", read

    def files(self) -> dict[str, int]:
        paths = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in paths}

    def read(self, name: str, *, start: int = 0) -> bytes:
        self._read.append(name)
        return (self.path / name).read_bytes()[start:]

    def download(self, name: str, path: Path) -> None:
        self._read.append(name)
        shutil.copy(self.path / name, path)


def test_an_index_on_an_object_store_is_downloaded_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr("depthray.data.shards.remote_shards.RemoteFolder", lambda _: Address(folder, read))
    source = opened("s3://bucket/set")
    assert is_indexed(source) and not any(name.endswith(".h5") for name in read)
    check_same(source, opened(folder))
    read.clear()
    assert is_indexed(opened("s3://bucket/set")) and read == [f"{FOLDER}/{FACTS}"]
    flip(folder / FOLDER / "id_text.npy", 130, 0)  # damaged in the store: the shards themselves are read
    damage_facts(folder)
    again = opened("s3://bucket/set")
    assert not is_indexed(again)
    check_same(again, source)
