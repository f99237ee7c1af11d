"""Shards on an object store: read as from a disk, downloaded once a node, bounded, and refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sources import Made, flip
from object_store import Store, serving

from depthray.__main__ import main
from depthray.config import recipe as recipes
from depthray.config.sections import Augment, Data
from depthray.data import packing
from depthray.data.loader import TrainLoader
from depthray.data.shard_order import shard_order_of
from depthray.data.shards import format, remote_shards
from depthray.data.source import Source
from depthray.data.sources import open_source, recognise
from depthray.errors import DataError, ResourceError
from depthray.storage import cache, environment
from depthray.storage import remote as storage
from depthray.training import preflight

SHARDS = Data(order="shards")
COUNT, PER_SHARD = 36, 3  # frames, in 12 shards


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    packing.pack(Made(COUNT, sizes=((24, 32),)), folder, provenance={}, frames_per_shard=PER_SHARD)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with serving(Store()) as made:
        yield made


@pytest.fixture
def store(server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The server, an empty cache of this test's own, and short retries."""
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(environment.CACHE_GB, raising=False)
    monkeypatch.setattr(remote_shards, "RemoteFolder", partial(storage.RemoteFolder, retry_seconds=0.5))
    return server


@pytest.fixture
def url(store: Store, packed: Path, tmp_path: Path) -> str:
    """The shards, copied to an address of this test's own."""
    made = store.url(f"{tmp_path.name}/packed")
    copy(packed, made)
    return made


def copy(folder: Path, url: str) -> None:
    for path in sorted(folder.glob("*.h5")):
        storage.RemoteFolder(url).upload(path.name, path)


def opened(root: str | Path, **overrides: Any) -> Source:
    return open_source(Data(source="shards", root=str(root), **overrides))


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.h5"))


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is downloaded, or read in pieces with its length, in this process."""
    names: list[str] = []
    download, read = storage.RemoteFolder.download, storage.RemoteFolder.read

    def downloading(folder: storage.RemoteFolder, name: str, path: Path) -> None:
        names.append(name)
        download(folder, name, path)

    def reading(folder: storage.RemoteFolder, name: str, *, start: int = 0) -> bytes:
        found = read(folder, name, start=start)
        names.append(f"{name} {len(found)}")
        return found

    monkeypatch.setattr(storage.RemoteFolder, "download", downloading)
    monkeypatch.setattr(storage.RemoteFolder, "read", reading)
    return names


def test_frames_are_those_of_the_local_shards(url: str, packed: Path) -> None:
    local, there = opened(packed), opened(url)
    assert list(there.frames) == list(local.frames) and there.fingerprint == local.fingerprint
    for index in range(0, COUNT, 5):
        for key in ("image", "depth"):
            np.testing.assert_array_equal(there.read(index)[key], local.read(index)[key])


def test_one_shard_may_be_named(url: str) -> None:
    assert [frame.id for frame in opened(f"{url}/shard-00002.h5").frames] == ["f6", "f7", "f8"]


def test_a_shard_is_downloaded_when_it_is_first_read_and_indexes_are_read_once(
    url: str, downloads: list[str], tmp_path: Path
) -> None:
    source = opened(url)
    assert not cached(tmp_path) and len(downloads) == 2 * COUNT // PER_SHARD
    downloads.clear()
    for index in (4, 5, 4, 30):
        source.read(index)
    assert downloads == ["shard-00001.h5", "shard-00010.h5"]
    downloads.clear()
    again = opened(url)
    again.read(4)
    assert downloads and all(
        name.endswith(f" {format.TAIL.size}") for name in downloads
    )  # the last bytes, nothing else


READ_ALL = """
import sys
from depthray.storage import remote
from depthray.data.sources import open_source
from depthray.data.shards.prefetch import prefetch_shards
from depthray.config.sections import Augment, Data
download = remote.RemoteFolder.download
def logged(folder, name, path):
    print(name, flush=True)
    download(folder, name, path)
remote.RemoteFolder.download = logged
source = open_source(Data(source="shards", root=sys.argv[1]))
for index in range(len(source.frames)):
    source.read(index)
"""


def test_processes_of_a_node_download_each_shard_once(url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", READ_ALL, url]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    names = [line for process in started for line in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in started] == [0, 0]
    assert sorted(names) == [f"shard-{number:05d}.h5" for number in range(COUNT // PER_SHARD)]
    assert not list((tmp_path / "cache").rglob(f"*{cache.DOWNLOADING}"))


def test_the_cache_is_bounded_and_the_longest_unused_go(
    url: str, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = max(path.stat().st_size for path in packed.glob("*.h5"))
    monkeypatch.setenv(environment.CACHE_GB, str(3.5 * size / environment.GB))
    for index in (0, 3, 6, 9):  # each by a process of its own, as it were: closed when the source is gone
        opened(url).read(index)
    assert [path.name[:11] for path in cached(tmp_path)] == ["shard-00001", "shard-00002", "shard-00003"]


def test_open_shards_never_go(url: str, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = max(path.stat().st_size for path in packed.glob("*.h5"))
    monkeypatch.setenv(environment.CACHE_GB, str(2.5 * size / environment.GB))
    source = opened(url)
    source.read(0)
    source.read(3)
    with pytest.raises(
        ResourceError, match=r"no space for shard-00002.*DEPTHRAY_CACHE_GB allows .* are in use.*data\.o"
    ):
        source.read(6)
    assert len(cached(tmp_path)) == 2
    source.read(0)


def test_a_shuffle_of_all_is_refused_where_the_cache_is_too_small(
    url: str, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from depthray.training.frames import Frames

    monkeypatch.setenv(environment.CACHE_GB, "0.00002")
    overrides = ["data.source=shards", f"data.root={url}", "train.batch_size=4", "data.size=32,32"]
    with pytest.raises(ResourceError, match=r"no space for 0\.\d+ GB of shards: .*data\.order=shards"):
        next(Frames.open(preflight.load("demo", overrides)).train_epoch(0))


def test_a_full_disk_is_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(url)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=cache.SPARE))
    with pytest.raises(ResourceError, match=r"no space for shard-00000.*the disk has 0\.27 GB free; free space"):
        source.read(0)


def test_what_a_killed_process_left_makes_no_harm(url: str, packed: Path, tmp_path: Path) -> None:
    source: Any = opened(url)
    path = source._store.path(0)
    left = path.with_name(f".{path.name}{cache.DOWNLOADING}")
    left.mkdir(parents=True)
    (left / path.name).write_bytes(b"half")
    (left / cache.RESERVED).write_bytes(b"")
    os.truncate(left / cache.RESERVED, 2**40)
    source.read(9)  # makes room for another shard
    assert not left.exists()


def test_a_cached_file_of_another_size_is_downloaded_again(url: str, tmp_path: Path) -> None:
    good = opened(url).read(0)["image"]
    os.truncate(cached(tmp_path)[0], 100)
    np.testing.assert_array_equal(opened(url).read(0)["image"], good)


def test_a_damaged_index_in_the_cache_is_read_again(url: str, tmp_path: Path) -> None:
    opened(url)
    for path in (tmp_path / "cache").rglob("*.index"):
        flip(path, 10, 0)
    assert len(opened(url).frames) == COUNT


def test_a_set_packed_anew_does_not_meet_the_old_one(url: str, tmp_path: Path) -> None:
    old = opened(url)
    old.read(0)
    other: Any = Made(COUNT, sizes=((24, 32),))
    other.read = lambda i, read=other.read: {**read(i), "depth": np.full((24, 32), 7.0, np.float32)}
    packing.pack(other, tmp_path / "other", provenance={}, frames_per_shard=PER_SHARD)
    copy(tmp_path / "other", url)
    assert opened(url).read(0)["depth"][0, 0] == 7
    with pytest.raises(DataError, match=r"shard-00001\.h5: changed since the data set was opened"):
        old.read(3)
    assert old.read(0)["depth"][0, 0] == 1.5


def test_damage_on_the_way_or_in_the_store_is_found(url: str, packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "shard-00000.h5"
    path.write_bytes((packed / path.name).read_bytes())
    flip(path, format.open_shard(path).offsets["depth"][1] + 20, 0)
    copy(tmp_path, url)
    source = opened(url)
    with pytest.raises(DataError, match=r"s3://.*shard-00000\.h5: frame 'f1' is not as it was packed; copy"):
        source.read(0)
    assert not cached(tmp_path)


def test_a_store_that_is_away_is_one_line(url: str, store: Store) -> None:
    source = opened(url)
    with store.away():
        with pytest.raises(ResourceError, match=r"^s3://[^\n]*shard-00000\.h5: cannot read it: [^\n]*$"):
            source.read(0)
        with pytest.raises(ResourceError, match=r"^s3://[^\n]*cannot list it"):
            opened(url)
    source.read(0)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_fails_in_training_is_one_line_and_the_loader_continues_after_it(
    workers: int, url: str, packed: Path, tmp_path: Path
) -> None:
    data = Data(source="shards", root=url, size=(12, 16), workers=workers)
    source = opened(url)
    line = shard_order_of(source, SHARDS, seed=0)
    loader = TrainLoader(source, range(COUNT), data, Augment(), seed=0, batch_size=4, shard_order=line)
    for path in packed.glob("*.h5"):
        storage.RemoteFolder(url).remove(path.name)
    with pytest.raises(DataError, match=r"^s3://[^\n]*h5: no longer there; it was when the data set was opened$"):
        list(loader.epoch(0))
    copy(packed, url)
    assert len(list(loader.epoch(0))) == COUNT // 4


def test_a_loader_process_does_not_download(url: str) -> None:
    source: Any = opened(url)
    source._store._process += 1  # as after a fork
    with pytest.raises(ResourceError, match=r"shard-00000.*gone from the cache .*raise DEPTHRAY_CACHE_GB"):
        source.read(0)


def test_no_shards_there(store: Store) -> None:
    with pytest.raises(DataError, match=r"s3://.*nothing: no \*\.h5 shards there"):
        opened(store.url("nothing"))


def test_other_forms_are_read_from_a_disk_only() -> None:
    with pytest.raises(DataError, match=r"s3://b/x: data\.source=folder is read from a disk only.*data\.source=shards"):
        open_source(Data(source="folder", root="s3://b/x"))
    assert recognise("s3://b/x") == "shards"


def test_an_address_is_no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    made = preflight.load("demo", ["data.source=shards", "data.root=s3://bucket/packed/"])
    assert recipes.absolute(made).data.root == "s3://bucket/packed"
    assert recipes.absolute_path("packed") == os.path.realpath(tmp_path / "packed")


@pytest.mark.parametrize("command", ["check", "stats"])
def test_datasets_read_an_address(command: str, url: str, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for root in (str(packed), url):
        main(["data", command, root, "--json"])
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1]


SMALL = ["data.source=shards", "data.size=32,64", "train.batch_size=4", "train.epochs=2", "train.precision=fp32"]


@pytest.mark.parametrize(
    "overrides", [["data.order=frames"], ["data.order=shards"], ["data.order=shards", "data.workers=2"]]
)
def test_training_is_the_same_as_from_the_disk(
    overrides: list[str], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rooms: Path
) -> None:
    address = store.url(f"{tmp_path.name}/rooms")
    copy(rooms, address)
    monkeypatch.chdir(tmp_path)
    losses = []
    for name, root in (("local", str(rooms)), ("remote", address)):
        assert main(["train", "demo", *SMALL, *overrides, "--data", root, "--local", "--out", name]) == 0
        records = [json.loads(line) for line in Path(name, "progress.jsonl").read_text().splitlines()]
        losses.append([(each["train_loss"], each["abs_rel"]) for each in records if each["kind"] == "epoch"])
    assert losses[0] == losses[1] and len(losses[0]) == 2
    assert len(cached(tmp_path)) == len(list(rooms.glob("*.h5")))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rooms")
    source = open_source(Data(source="synthetic", frames=24, size=(32, 64)))
    packing.pack(source, folder, provenance={}, frames_per_shard=4)
    return folder
