"""Remote folders on a real S3 server and on a local file system: what is written is read, through short failures."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import Store, serving

from depthray.errors import UsageError
from depthray.storage import remote
from depthray.storage.remote import RemoteFolder, StorageError


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with serving(Store()) as running:
        yield running


@pytest.fixture(params=["s3", "file"])
def folder(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> RemoteFolder:
    url = store.url(f"runs/{tmp_path.name}") if request.param == "s3" else f"file://{tmp_path}/runs/x"
    return RemoteFolder(url, retry_seconds=5)


@pytest.mark.parametrize(
    ("where", "normal"),
    [
        ("s3://bucket/runs/x", "s3://bucket/runs/x"),
        (Path("s3://bucket/runs/x"), "s3://bucket/runs/x"),
        ("s3://bucket/runs/x/", "s3://bucket/runs/x"),
        ("gs://bucket/a", "gs://bucket/a"),
        (Path("file:///tmp/x"), "file:///tmp/x"),
    ],
)
def test_an_address_is_normalised(where: str | Path, normal: str) -> None:
    assert remote.is_remote(where)
    assert remote.normalize_address(where) == normal


@pytest.mark.parametrize("where", ["runs/x", "/tmp/x", "./s3", "C:/x", "a:b", "", "s3:", "s3://", Path("runs/x")])
def test_other_paths_are_local(where: str | Path) -> None:
    assert not remote.is_remote(where)


@pytest.mark.parametrize("where", ["s3://key:secret@bucket/x", "s3://bucket/x?endpoint_override=evil"])
def test_no_credentials_in_an_address(where: str) -> None:
    with pytest.raises(UsageError, match="no credentials") as error:
        RemoteFolder(where)
    assert "secret" not in str(error.value)


def test_an_unknown_scheme() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        RemoteFolder("nosuch://bucket/x", retry_seconds=0).names()


def test_what_is_written_is_read(folder: RemoteFolder, tmp_path: Path) -> None:
    assert folder.names() == [] and folder.files() == {}
    folder.write("recipe.yaml", b"seed: 1\n")
    folder.write("recipe.yaml", b"seed: 2\n")
    (folder / "a").write("b/c.bin", b"0123456789")
    assert folder.read("recipe.yaml") == b"seed: 2\n"
    assert folder.read("a/b/c.bin", start=7) == b"789" and folder.read("a/b/c.bin", start=12) == b""
    assert folder.names() == ["a/", "recipe.yaml"]
    assert folder.files() == {"recipe.yaml": 8, "a/b/c.bin": 10}
    assert (folder.size("recipe.yaml"), folder.size("none")) == (8, None)
    assert pickle.loads(pickle.dumps(folder)).read("recipe.yaml") == b"seed: 2\n"  # noqa: S301


def test_files_are_uploaded_and_downloaded(folder: RemoteFolder, tmp_path: Path) -> None:
    data = bytes(range(256)) * 50_000  # two pieces
    (tmp_path / "up").write_bytes(data)
    folder.upload("weights", tmp_path / "up")
    folder.download("weights", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data
    with folder.open("weights") as file:
        file.seek(-3, 2)
        assert file.read() == data[-3:]
        file.seek(5_000_000)
        assert file.read(1000) == data[5_000_000:5_001_000] and file.tell() == 5_001_000


def test_a_missing_file_is_reported_at_once(folder: RemoteFolder, tmp_path: Path) -> None:
    folder.write("there", b"")
    for ask in (folder.read, folder.open, lambda name: folder.download(name, tmp_path / "down")):
        with pytest.raises(FileNotFoundError):
            ask("none")
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        folder.upload("x", tmp_path / "no-such-file")
    assert not (tmp_path / "down").exists() and folder.names() == ["there"]


def test_files_and_folders_are_removed(folder: RemoteFolder) -> None:
    for name in ("a/1", "a/b/2", "c"):
        folder.write(name, b"x")
    for name in ("a", "c", "none"):
        folder.remove(name)
    assert folder.files() == {}


def test_a_short_failure_is_retried(store: Store) -> None:
    folder = RemoteFolder(store.url("short"), retry_seconds=30)
    folder.write("x", b"before")
    with folder.open("x") as file:
        store.stop()
        threading.Timer(1.5, store.start).start()
        started = time.monotonic()
        assert file.read() == b"before"
    folder.write("x", b"after")
    assert time.monotonic() - started > 1
    assert folder.read("x") == b"after"


def test_a_long_failure_is_one_clear_line(store: Store) -> None:
    folder = RemoteFolder(store.url("long"), retry_seconds=0.5)
    folder.write("x", b"before")
    started = time.monotonic()
    with store.away(), pytest.raises(StorageError) as error:
        folder.write("x", b"after")
    assert time.monotonic() - started < 10
    assert str(error.value).startswith(f"{folder.url}/x: cannot write it: Failed to connect")
    assert "AWS_ENDPOINT_URL" in str(error.value) and "\n" not in str(error.value) and error.value.exit_code == 5
    assert folder.read("x") == b"before"


def test_a_permanent_error_is_not_retried(store: Store) -> None:
    started = time.monotonic()
    with pytest.raises(StorageError, match="there is no such bucket"):
        RemoteFolder("s3://no-such-bucket-here/x", retry_seconds=60).write("x", b"")
    assert time.monotonic() - started < 10
