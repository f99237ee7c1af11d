"""What `--submit` makes of a command, and how a job is followed, with the cluster left out."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import PathDistribution
from pathlib import Path
from types import SimpleNamespace

import pytest

import depthray
from cluster.jobs import follow
from cluster.jobs import submit as jobs
from depthray.__main__ import JOBS, main
from depthray.cli import submit_flags
from depthray.errors import DepthrayError, ResourceError, UsageError

SERVER = "http://127.0.0.1:1"  # where nothing answers


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEPTHRAY_STORAGE", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)


def planned(line: str) -> jobs.Job:
    word, *rest = line.split()
    if word == "data":
        word, rest = f"data {rest[0]}", rest[1:]
    flags, words = submit_flags.split(rest)
    return jobs.plan(word, JOBS[word], words, flags)


@pytest.mark.parametrize(
    ("line", "address", "words"),
    [
        ("demo --submit", "", "demo"),
        ("--submit demo optim.lr=1", "", "demo optim.lr=1"),
        ("demo --submit http://head:8265 --workers 2", "http://head:8265", "demo --workers 2"),
        ("--submit 10.0.0.1:8265 demo", "10.0.0.1:8265", "demo"),
        ("demo --sub=http://head:8265 --no-wait", "http://head:8265", "demo"),
        ("--submit --submit http://head:8265 demo", "http://head:8265", "demo"),
    ],
)
def test_the_address_is_told_from_the_words(line: str, address: str, words: str) -> None:
    flags, rest = submit_flags.split(line.split())
    assert submit_flags.is_requested(line.split())
    assert (flags.submit, rest) == (address, words.split())


def test_a_job_runs_the_command_with_paths_that_hold_there(monkeypatch: pytest.MonkeyPatch) -> None:
    job = planned("train demo optim.lr=1e-3 --workers 2 --out s3://bucket/runs/x --data /shared/d --submit")
    assert job.words == [
        *("demo", "optim.lr=1e-3", "--workers", "2", "--out", "s3://bucket/runs/x", "--data", "/shared/d"),
        *("--address", "auto"),
    ]
    assert job.again[:3] == ["depthray", "train", "demo"] and job.again[-1] == "--resume"
    assert "--address" not in job.again and job.resources == {}
    monkeypatch.setenv("DEPTHRAY_STORAGE", "/shared/runs/")
    job = planned("train demo --submit")
    place = job.words[job.words.index("--out") + 1]
    assert place.startswith("/shared/runs/demo-2") and place in job.again
    assert job.name.startswith("train-demo-")
    assert planned("train demo --out first --submit --storage s3://b/r").words[1:3] == ["--out", "s3://b/r/first"]


def test_what_goes_on_with_a_job_is_said_for_each_command() -> None:
    assert planned("tune demo --trials 4 --out s3://b/t --submit").again == ["depthray", "tune", "--resume", "s3://b/t"]
    assert planned("train --out /r/x --resume --submit").again == ["depthray", "train", "--out", "/r/x", "--resume"]
    job = planned("train --out /r/x --resume train.epochs=9 --submit")
    assert job.again == ["depthray", "train", "--out", "/r/x", "--resume", "train.epochs=9"]
    assert planned("tune --resume s3://b/t --submit").again == ["depthray", "tune", "--resume", "s3://b/t"]
    job = planned("evaluate /r/x --split test --job-gpus 1 --submit")
    assert job.again == ["depthray", "evaluate", "/r/x", "--split", "test", "--job-gpus", "1"]
    assert job.resources == {"entrypoint_num_cpus": 1.0, "entrypoint_num_gpus": 1.0}  # it is its own process that works
    assert "--address" not in job.words
    job = planned("data convert nyu_raw /d/nyu /d/packed --workers 4 --submit")
    assert job.name.startswith("data-convert-nyu-")
    assert job.words == ["nyu_raw", "/d/nyu", "/d/packed", "--workers", "4", "--address", "auto"]
    job = planned("train demo --local --gpu --out /r/x --submit")
    assert "--address" not in job.words and job.resources == {"entrypoint_num_cpus": 1.0}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train demox --out /r", "did you mean 'demo'"),
        ("train demo optim.rl=1 --out /r", "unknown key 'optim.rl'"),
        ("train demo --workers 3 --out /r", "train.batch_size=16"),
        ("train demo", "no --out is given"),
        ("train demo --out here", "--out here is relative"),
        ("train demo --storage here", "--storage here is relative"),
        ("train demo --out /r --data frames", "--data frames is relative"),
        ("train demo --out /r data.root=frames", "data.root=frames is relative"),
        ("train demo --out /r --address 10.0.0.1:6379", "leave out --address"),
        ("train --resume", "--resume needs --out"),
        ("tune demo --out /r --space no-such", "no space 'no-such'"),
        ("tune demo --out /r --trials 0", "--trials 0 is too few"),
        ("tune --resume here", "--resume here is relative"),
        ("evaluate runs/x", "checkpoint runs/x is relative"),
        ("evaluate /runs/x --data frames", "--data frames is relative"),
        ("data convert folder /d packed", "out packed is relative"),
    ],
)
def test_a_mistake_is_said_before_anything_is_sent(
    line: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "connect", lambda *_: pytest.fail("a cluster was asked"))
    assert main([*line.split(), "--submit", SERVER]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert said in told


def test_files_of_this_machine_that_the_job_would_miss_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.pth").touch()
    with pytest.raises(UsageError, match=r"model.pretrained=tiny.pth is a file of this machine"):
        planned("train demo model.pretrained=tiny.pth --out /r --submit")
    Path("mine.yaml").write_text("data: {source: folder, root: frames}\nmodel: {name: unet, encoder: tiny}\n")
    with pytest.raises(UsageError, match=r"mine.yaml: data.root=frames is relative"):
        planned("train mine.yaml --out /r --submit")
    assert planned("train mine.yaml --data /d --out /r --submit").words[0] == "recipe/mine.yaml"


def test_flags_of_a_submission_alone_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "--storage", "s3://b/runs"]) == 2
    assert "--storage goes with --submit" in capsys.readouterr().err


def test_what_is_shipped_is_code_and_the_files_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("secret.txt", "runs/first/model.safetensors", "data/frame.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("mine.yaml").write_text("model: {name: unet, encoder: tiny}\n")
    Path("space.yaml").write_text("optim.lr: {loguniform: [1e-4, 1e-2]}\n")
    job = planned("tune mine.yaml --space=space.yaml --out /r --submit")
    assert job.words == ["recipe/mine.yaml", "--out", "/r", "--address", "auto", "--space", "space/space.yaml"]
    with jobs.ship(job) as folder:
        assert (folder / "recipe" / "mine.yaml").read_text() == Path("mine.yaml").read_text()
        (about,) = folder.glob("*.dist-info")
        assert PathDistribution(about).version == depthray.__version__
        found = {path.name for path in folder.iterdir()} - {about.name}
        assert found == {"depthray", "cluster", "tuning", "serve", "recipe", "space"}
        assert (folder / "depthray" / "recipes" / "demo.yaml").is_file() and (folder / "tuning" / "spaces").is_dir()
        assert not list(folder.rglob("__pycache__")) and sum(p.stat().st_size for p in folder.rglob("*")) < 10 << 20
    assert not folder.exists()


def test_a_job_takes_settings_along_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "NCCL_SOCKET_IFNAME", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "WANDB_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    taken = set(jobs.environment())
    assert {"AWS_ENDPOINT_URL", "NCCL_SOCKET_IFNAME", "RAY_JOB_STOP_SIGNAL", "RAY_JOB_STOP_WAIT_TIME_S"} <= taken
    assert not taken & {"AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "WANDB_KEY", "RAY_AUTH_TOKEN"}


def test_in_a_job_the_plain_command_uses_the_cluster_and_refuses_its_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setattr("cluster.train.main", lambda words: seen.append(words) or 0)
    assert main(["train", "demo"]) == 2 and not seen
    assert "working directory is temporary" in capsys.readouterr().err
    assert main(["train", "demo", "--out", "/r"]) == 0
    assert seen == [["demo", "--out", "/r", "--address", "auto"]]
    words = seen[0]
    assert jobs.settle("train", JOBS["train"], words) == words  # what was submitted by us is settled already


class Cluster:
    """A client of a job whose log comes over connections that may break, each from its start."""

    def __init__(self, *tails: str | Exception, status: str = "SUCCEEDED", code: int | None = 0, message: str = ""):
        self.tails, self.running = list(tails), len(tails)
        self.status, self.code, self.message = status, code, message

    def get_address(self) -> str:
        return "http://head:8265"

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        tail = self.tails.pop(0)
        if isinstance(tail, BaseException):
            raise tail
        for line in tail.splitlines(keepends=True):
            yield line

    def get_job_info(self, name: str) -> SimpleNamespace:
        ended = not self.tails
        status = SimpleNamespace(value=self.status, is_terminal=lambda: ended)
        return SimpleNamespace(status=status, driver_exit_code=self.code, message=self.message)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow.time, "sleep", lambda _: None)


def test_a_log_is_printed_once_over_lost_connections(capsys: pytest.CaptureFixture[str]) -> None:
    client = Cluster("a\nb\n", RuntimeError("closed"), "a\nb\nc", "a\nb\nc\nd\n")
    assert follow.followed(client, "job", again="depthray train") == 0
    assert capsys.readouterr().out == "a\nb\nc\nd\n"


@pytest.mark.parametrize(
    ("status", "code", "given", "said"),
    [
        ("FAILED", 3, 3, ""),
        ("FAILED", 4, 4, "go on with: depthray again"),
        ("FAILED", -9, 137, "go on with: depthray again"),
        ("STOPPED", None, 130, "as a job again: depthray again"),
    ],
)
def test_the_exit_code_is_that_of_the_command(
    status: str, code: int | None, given: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow.followed(Cluster("x\n", status=status, code=code), "job", again="depthray again") == given
    assert capsys.readouterr().out.partition("x\n")[2].strip().endswith(said)


def test_a_job_that_its_cluster_ended_is_one_line() -> None:
    client = Cluster("", status="FAILED", code=None, message="Traceback\n  x\nthe node died.\n")
    with pytest.raises(DepthrayError, match=r"^the cluster ended the job: the node died; go on with: depthray again$"):
        follow.followed(client, "job", again="depthray again")


def test_a_wrong_python_on_the_nodes_is_explained() -> None:
    client = Cluster("ModuleNotFoundError: No module named 'torch'\n", status="FAILED", code=1)
    with pytest.raises(ResourceError, match="first on the PATH that `ray start` had"):
        follow.followed(client, "job", again="")


def test_ctrl_c_leaves_the_job_alone_and_says_how_to_stop_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow.followed(Cluster(KeyboardInterrupt()), "job-1", again="") == 130
    told = capsys.readouterr().out
    assert "the job goes on" in told and "ray job stop --address http://head:8265 job-1" in told


def test_a_cluster_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PATIENCE", -1.0)
    with pytest.raises(ResourceError, match="has not answered .* ray job status --address http://head:8265 job-1"):
        follow.followed(Cluster(RuntimeError("closed")), "job-1", again="")


class Answer(http.server.BaseHTTPRequestHandler):
    """What stands at the address instead of a cluster."""

    code, body = 200, b"<html>a router</html>"

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_wrong_address_or_token_is_one_line(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # given back afterwards: connecting sets it
    url = f"http://127.0.0.1:{server.server_address[1]}"
    words = ["train", "demo", "--out", "/r", "--submit"]
    for code, given, said in (
        (200, 5, "is no Ray dashboard"),
        (401, 2, "wants a token"),
        (403, 2, "refuses the token"),
    ):
        monkeypatch.setattr(Answer, "code", code)
        assert main([*words, url]) == given
        (told,) = capsys.readouterr().err.splitlines()
        assert said in told and url in told
    assert main([*words, SERVER]) == 5
    assert f"no Ray cluster answers at {SERVER}" in capsys.readouterr().err
    assert os.environ["RAY_API_SERVER_ADDRESS"] == url
