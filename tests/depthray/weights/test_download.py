"""Downloads from a server of this machine: resumed, checked, shared by processes, and what happens without one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18
from weight_files import start_report, started

from depthray.errors import ResourceError, UsageError
from depthray.storage import environment
from depthray.weights import https, obtain, reference
from depthray.weights.reference import Missing

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class FileServer:
    """Serves one file; `break_after` bytes of a response the connection ends, `breaks` times."""

    def __init__(self, content: bytes) -> None:
        self.content, self.breaks, self.break_after = content, 0, 0
        self.ranges: list[str] = []  # of the requests
        self.knows_ranges = True
        self.status = 0  # of every answer, where it is not 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, name: str = "weights.pth") -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/{name}"

    @property
    def digest(self) -> str:
        return sha256(self.content).hexdigest()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        given = request.headers.get("Range", "")
        self.ranges.append(given)
        if self.status:
            request.send_error(self.status)
            return
        begin = int(given.removeprefix("bytes=").rstrip("-")) if given and self.knows_ranges else 0
        if begin >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[begin:]
        request.send_response(206 if given and self.knows_ranges else 200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.breaks:
            self.breaks -= 1
            request.wfile.write(body[: self.break_after])
            request.close_connection = True
        else:
            request.wfile.write(body)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The server, with an empty cache of this test's own and retries that give up at once."""
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(https, "RETRY_SECONDS", 0.0)
    server = FileServer(CONTENT)
    yield server
    server.http.shutdown()
    server.http.server_close()


def parts(folder: Path) -> list[Path]:
    return list(folder.rglob(".*.part"))


def test_a_file_appears_complete_and_is_downloaded_once(server, tmp_path):
    seen = []
    for _ in range(2):
        https.download(
            server.url(), tmp_path / "a" / "w.pth", sha256=server.digest, show=lambda *size: seen.append(size)
        )
    assert (tmp_path / "a" / "w.pth").read_bytes() == CONTENT
    assert server.ranges == [""]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert not parts(tmp_path)


def test_an_interrupted_download_is_resumed_by_the_next_command(server, tmp_path):
    server.breaks, server.break_after = 1, 300_000
    with pytest.raises(https.DownloadError, match=r"broke off after 0.3 MB, .*the same command resumes it"):
        https.download(server.url(), tmp_path / "w.pth", sha256=server.digest)
    assert not (tmp_path / "w.pth").exists()
    https.download(server.url(), tmp_path / "w.pth", sha256=server.digest)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=300000-"]


def test_a_short_interruption_is_resumed_at_once(server, tmp_path, monkeypatch):
    monkeypatch.setattr(https, "RETRY_SECONDS", 20.0)
    server.breaks, server.break_after = 2, 100_000
    https.download(server.url(), tmp_path / "w.pth", sha256=server.digest)
    assert server.ranges == ["", "bytes=100000-", "bytes=200000-"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    server.knows_ranges = False
    (tmp_path / ".w.pth.part").write_bytes(CONTENT[:1000])
    https.download(server.url(), tmp_path / "w.pth", sha256=server.digest)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_download_that_was_killed_before_its_rename_is_not_repeated(server, tmp_path):
    (tmp_path / ".w.pth.part").write_bytes(CONTENT)
    https.download(server.url(), tmp_path / "w.pth", sha256=server.digest)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_the_beginning_of_an_older_file_is_thrown_away(server, tmp_path):
    (tmp_path / ".w.pth.part").write_bytes(b"other" * 1000)
    https.download(server.url(), tmp_path / "w.pth", sha256=server.digest)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert server.ranges == ["bytes=5000-", ""]


def test_a_wrong_digest_leaves_nothing(server, tmp_path):
    with pytest.raises(https.DownloadError, match=rf"its SHA-256 is {server.digest} and not {'0' * 64}"):
        https.download(server.url(), tmp_path / "w.pth", sha256="0" * 64)
    assert not (tmp_path / "w.pth").exists() and not parts(tmp_path)


@pytest.mark.parametrize("status", [404, 403])
def test_an_answer_without_a_file_is_one_line(server, tmp_path, status):
    server.status = status
    with pytest.raises(https.DownloadError, match=rf"{server.url()}: cannot be downloaded \(.*{status}"):
        https.download(server.url(), tmp_path / "w.pth", sha256=server.digest)


def test_a_server_that_is_overloaded_is_asked_again(server, tmp_path):
    server.status = 503
    with pytest.raises(https.DownloadError, match=r"broke off \(HTTP 503\)"):
        https.download(server.url(), tmp_path / "w.pth", sha256=server.digest)


def test_no_network_is_one_line_with_what_to_do(server, tmp_path):
    server.http.shutdown()
    server.http.server_close()
    text = f"{server.url()}#sha256={server.digest}"
    with pytest.raises(Missing, match=r"cannot be downloaded \(.*refused.*; or give a downloaded file instead: model"):
        obtain.obtain(reference.parse(text))


def test_offline_nothing_is_downloaded_but_the_cache_is_read(server, monkeypatch):
    wanted = reference.parse(f"{server.url()}#sha256={server.digest}")
    monkeypatch.setenv(environment.OFFLINE, "1")
    with pytest.raises(Missing, match=r"is not on this machine, and DEPTHRAY_OFFLINE=1 forbids downloads"):
        obtain.obtain(wanted)
    assert server.ranges == []
    monkeypatch.delenv(environment.OFFLINE)
    path = obtain.obtain(wanted).path
    monkeypatch.setenv(environment.OFFLINE, "1")
    assert obtain.obtain(wanted).path == path and path.read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_reported_with_its_variable(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "file"))  # for root too a file is no folder
    with pytest.raises(ResourceError, match=r"cannot keep weights there: .*set DEPTHRAY_CACHE"):
        obtain.obtain(reference.parse(f"{server.url()}#sha256={server.digest}"))


def test_a_read_only_cache_with_the_file_in_it_is_enough(server, monkeypatch):
    wanted = reference.parse(f"{server.url()}#sha256={server.digest}")
    folder = obtain.obtain(wanted).path.parent
    for lock in folder.glob(".*"):
        lock.unlink()
    folder.chmod(0o555)
    try:
        monkeypatch.setattr(https, "lock", lambda path: pytest.fail("a lock was written"))
        assert obtain.obtain(wanted).path.read_bytes() == CONTENT
    finally:
        folder.chmod(0o755)


FETCH = """
import sys
from pathlib import Path
from depthray.weights import https
https.download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])
print(Path(sys.argv[2]).stat().st_size)
"""


def test_two_processes_download_a_file_once(server, tmp_path):
    argv = [sys.executable, "-c", FETCH, server.url(), str(tmp_path / "w.pth"), server.digest]
    processes = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=200)[0].strip() for process in processes]
    assert printed == [str(len(CONTENT))] * 2
    assert server.ranges == [""]


def test_a_network_starts_from_an_address(server, tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "weights.pth")
    server.content = (tmp_path / "weights.pth").read_bytes()
    _, report = start_report(encoder="resnet18", weights=f"{server.url()}#sha256={server.digest}")
    assert report.origin is not None
    assert report.origin.sha256 == server.digest
    assert "encoder.conv1.weight" in report.loaded


def test_a_file_that_was_damaged_in_the_cache_is_refused(server, tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "weights.pth")
    server.content = (tmp_path / "weights.pth").read_bytes()
    text = f"{server.url()}#sha256={server.digest}"
    path = obtain.obtain(reference.parse(text)).path
    data = bytearray(path.read_bytes())
    data[-1_000_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"is damaged: its SHA-256 is .*; remove or reinstall it"):
        started(encoder="resnet18", weights=text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://example.org/w.pth", r"needs the SHA-256 of its file, 64 digits: https://example.org/w.pth#sha256="),
        ("https://example.org/w.pth#sha256=12", "needs the SHA-256"),
        ("hf:owner/repository/file.pth", "give hf:OWNER/REPO@REVISION/FILE"),
        ("hf:owner@main/file.pth", "give hf:OWNER/REPO@REVISION/FILE"),
        ("dinov2_vitS14", r"no such weights in the catalogue \(did you mean 'dinov2_vit"),
    ],
)
def test_incomplete_addresses_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        obtain.obtain(reference.parse(text))


def test_a_reference_to_the_hub_is_taken_apart():
    parsed = reference.parse("hf:Ruicheng/moge-2-vits-normal@main/folder/model.pt?")
    assert (parsed.target, parsed.revision, parsed.file) == ("Ruicheng/moge-2-vits-normal", "main", "folder/model.pt")
    assert parsed.optional
