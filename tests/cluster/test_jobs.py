"""How `--submit` plans a job, and how a job is followed, without a cluster."""

from __future__ import annotations

import http.server
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import PathDistribution
from pathlib import Path
from types import SimpleNamespace

import pytest
from own_package import forget, write_package

import depthray
from cluster.jobs import follow
from cluster.jobs import submit as jobs
from depthray.__main__ import JOBS, main
from depthray.cli.flags import job_flags
from depthray.errors import DepthrayError, ResourceError, UsageError

SERVER = "http://127.0.0.1:1"  # where nothing answers


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DEPTHRAY_STORAGE", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)


def plan_job(line: str) -> jobs.Job:
    name, *rest = line.split()
    if name == "data":
        name, rest = f"data {rest[0]}", rest[1:]
    flags, arguments = job_flags.split(rest)
    return jobs.plan(name, JOBS[name], arguments, flags)


@pytest.mark.parametrize(
    ("line", "address", "arguments"),
    [
        ("demo --submit", "", "demo"),
        ("--submit demo optim.lr=1", "", "demo optim.lr=1"),
        ("demo --submit http://head:8265 --workers 2", "http://head:8265", "demo --workers 2"),
        ("--submit 10.0.0.1:8265 demo", "10.0.0.1:8265", "demo"),
        ("demo --sub=http://head:8265 --no-wait", "http://head:8265", "demo"),
        ("--submit --submit http://head:8265 demo", "http://head:8265", "demo"),
    ],
)
def test_the_address_is_distinguished_from_the_arguments(line: str, address: str, arguments: str) -> None:
    flags, rest = job_flags.split(line.split())
    assert job_flags.is_requested(line.split())
    assert (flags.submit, rest) == (address, arguments.split())


def test_a_job_runs_the_command_with_paths_that_hold_there(monkeypatch: pytest.MonkeyPatch) -> None:
    job = plan_job("train demo optim.lr=1e-3 --workers 2 --out s3://bucket/runs/x --data /shared/d --submit")
    assert job.arguments == [
        *("demo", "optim.lr=1e-3", "--workers", "2", "--out", "s3://bucket/runs/x", "--data", "/shared/d"),
        *("--address", "auto"),
    ]
    assert job.resume[:3] == ["depthray", "train", "demo"] and job.resume[-1] == "--resume"
    assert "--address" not in job.resume and job.resources == {}
    monkeypatch.setenv("DEPTHRAY_STORAGE", "/shared/runs/")
    job = plan_job("train demo --submit")
    out = job.arguments[job.arguments.index("--out") + 1]
    assert out.startswith("/shared/runs/demo-2") and out in job.resume
    assert job.name.startswith("train-demo-")
    assert plan_job("train demo --out first --submit --storage s3://b/r").arguments[1:3] == ["--out", "s3://b/r/first"]


def test_each_command_has_arguments_that_resume_it() -> None:
    assert plan_job("tune demo --trials 4 --out s3://b/t --submit").resume == [
        "depthray",
        "tune",
        "--resume",
        "s3://b/t",
    ]
    assert plan_job("train --out /r/x --resume --submit").resume == ["depthray", "train", "--out", "/r/x", "--resume"]
    job = plan_job("train --out /r/x --resume train.epochs=9 --submit")
    assert job.resume == ["depthray", "train", "--out", "/r/x", "--resume", "train.epochs=9"]
    assert plan_job("tune --resume s3://b/t --submit").resume == ["depthray", "tune", "--resume", "s3://b/t"]
    job = plan_job("evaluate /r/x --split test --job-gpus 1 --submit")
    assert job.resume == ["depthray", "evaluate", "/r/x", "--split", "test", "--job-gpus", "1"]
    assert job.resources == {"entrypoint_num_cpus": 1.0, "entrypoint_num_gpus": 1.0}  # it is its own process that works
    assert "--address" not in job.arguments
    job = plan_job("data convert nyu_raw /d/nyu /d/packed --workers 4 --submit")
    assert job.name.startswith("data-convert-nyu-")
    assert job.arguments == ["nyu_raw", "/d/nyu", "/d/packed", "--workers", "4", "--address", "auto"]
    job = plan_job("train demo --local --gpu --out /r/x --submit")
    assert "--address" not in job.arguments and job.resources == {"entrypoint_num_cpus": 1.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train demox --out /r", "did you mean 'demo'"),
        ("train demo optim.rl=1 --out /r", "unknown key 'optim.rl'"),
        ("train demo --workers 3 --out /r", "train.batch_size=16"),
        ("train demo", "no --out is given"),
        ("train demo --out here", "--out here is relative"),
        ("train demo --storage here", "--storage here is relative"),
        ("train demo --out /r --data frames", "--data frames is relative"),
        ("train demo --out /r data.root=frames", "data.root=frames is relative"),
        ("train demo --out /r eval.also=/a,frames", "eval.also=frames is relative"),
        ("train demo --out /r --address 10.0.0.1:6379", "leave out --address"),
        ("train --resume", "--resume needs --out"),
        ("tune demo --out /r --space no-such", "no space 'no-such'"),
        ("tune demo --out /r --trials 0", "--trials 0 is too few"),
        ("tune --resume here", "--resume here is relative"),
        ("evaluate runs/x", "checkpoint runs/x is relative"),
        ("evaluate /runs/x --data frames", "--data frames is relative"),
        ("data convert folder /d packed", "out packed is relative"),
        ("predict /runs/x photo.jpg", "the following arguments are required: --data"),
        ("predict /runs/x --data frames --out /o", "--data frames is relative"),
        ("predict /runs/x --data /frames", "--out predictions is relative"),
    ],
)
def test_an_error_is_reported_before_anything_is_sent(
    line: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "connect", lambda *_: pytest.fail("a cluster was contacted"))
    assert main([*line.split(), "--submit", SERVER]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


def test_files_of_this_machine_that_the_job_would_miss_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.pth").touch()
    with pytest.raises(UsageError, match=r"model.weights=tiny.pth is on this machine alone"):
        plan_job("train demo model.weights=tiny.pth --out /r --submit")
    Path("mine.yaml").write_text("data: {source: folder, root: frames}\nmodel: {name: unet, encoder: tiny}\n")
    with pytest.raises(UsageError, match=r"mine.yaml: data.root=frames is relative"):
        plan_job("train mine.yaml --out /r --submit")
    assert plan_job("train mine.yaml --data /d --out /r --submit").arguments[0] == "recipe/mine.yaml"


def test_flags_of_a_submission_alone_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "--storage", "s3://b/runs"]) == 2
    assert "--storage needs --submit" in capsys.readouterr().err


def test_what_is_shipped_is_code_and_the_files_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("secret.txt", "runs/first/model.safetensors", "data/frame.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("mine.yaml").write_text("model: {name: unet, encoder: tiny}\n")
    Path("space.yaml").write_text("optim.lr: {loguniform: [1e-4, 1e-2]}\n")
    job = plan_job("tune mine.yaml --space=space.yaml --out /r --submit")
    assert job.arguments == ["recipe/mine.yaml", "--out", "/r", "--address", "auto", "--space", "space/space.yaml"]
    with jobs.ship(job) as folder:
        assert (folder / "recipe" / "mine.yaml").read_text() == Path("mine.yaml").read_text()
        (about,) = folder.glob("*.dist-info")
        assert PathDistribution(about).version == depthray.__version__
        found = {path.name for path in folder.iterdir()} - {about.name}
        assert found == {"depthray", "cluster", "tuning", "serve", "recipe", "space"}
        assert (folder / "depthray" / "recipes" / "demo.yaml").is_file() and (folder / "tuning" / "spaces").is_dir()
        assert not list(folder.rglob("__pycache__")) and sum(p.stat().st_size for p in folder.rglob("*")) < 10 << 20
    assert not folder.exists()


def test_a_job_gets_settings_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "NCCL_SOCKET_IFNAME", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "WANDB_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    taken = set(jobs.job_variables())
    assert {"AWS_ENDPOINT_URL", "NCCL_SOCKET_IFNAME", "RAY_JOB_STOP_SIGNAL", "RAY_JOB_STOP_WAIT_TIME_S"} <= taken
    assert not taken & {"AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "WANDB_KEY", "RAY_AUTH_TOKEN"}


def test_in_a_job_the_plain_command_uses_the_cluster_and_refuses_its_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")

    def train(arguments: list[str]) -> int:
        seen.append(arguments)
        return 0

    monkeypatch.setattr("cluster.train.main", train)
    assert main(["train", "demo"]) == 2 and not seen
    assert "working directory is temporary" in capsys.readouterr().err
    assert main(["train", "demo", "--out", "/r"]) == 0
    assert seen == [["demo", "--out", "/r", "--address", "auto"]]
    arguments = seen[0]
    assert jobs.settle("train", JOBS["train"], arguments) == arguments  # those of --submit are settled already


def test_a_prediction_is_a_job_where_it_is_of_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    job = plan_job("predict s3://b/runs/x --data s3://b/frames --out s3://b/labels --as-labels --workers 4 --submit")
    assert job.arguments[-4:] == ["--workers", "4", "--address", "auto"] and job.name.startswith("predict-x-")
    assert job.resources == {}  # the workers take what they need
    assert plan_job("predict /x --data /d --out /o --submit").resources == {"entrypoint_num_cpus": 1.0}

    seen: list[list[str]] = []
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")

    def predict(arguments: list[str]) -> int:
        seen.append(arguments)
        return 0

    monkeypatch.setattr("cluster.predict_set.main", predict)
    assert main(["predict", "runs/x", "photo.jpg"]) == 0
    assert seen == [["runs/x", "photo.jpg"]]  # photographs are predicted in a job as elsewhere


class Cluster:
    """A client of a job whose log comes over connections that may break, each from its start."""

    def __init__(self, *tails: str | BaseException, status: str = "SUCCEEDED", code: int | None = 0, message: str = ""):
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
    monkeypatch.setattr(time, "sleep", lambda _: None)


def test_a_log_is_printed_once_over_lost_connections(capsys: pytest.CaptureFixture[str]) -> None:
    client = Cluster("a\nb\n", RuntimeError("closed"), "a\nb\nc", "a\nb\nc\nd\n")
    assert follow.follow_job(client, "job", resume="depthray train") == 0
    assert capsys.readouterr().out == "a\nb\nc\nd\n"


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "message"),
    [
        ("FAILED", 3, 3, ""),
        ("FAILED", 4, 4, "resume with: depthray again"),
        ("FAILED", -9, 137, "resume with: depthray again"),
        ("STOPPED", None, 130, "resume with: depthray again"),
    ],
)
def test_the_exit_code_is_that_of_the_command(
    status: str, code: int | None, exit_code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert follow.follow_job(Cluster("x\n", status=status, code=code), "job", resume="depthray again") == exit_code
    assert capsys.readouterr().out.partition("x\n")[2].strip().endswith(message)


def test_a_job_that_its_cluster_ended_is_one_line() -> None:
    client = Cluster("", status="FAILED", code=None, message="Traceback\n  x\nthe node died.\n")
    with pytest.raises(DepthrayError, match=r"^the cluster ended the job: the node died; resume with: depthray again$"):
        follow.follow_job(client, "job", resume="depthray again")


def test_a_wrong_python_on_the_nodes_is_explained() -> None:
    client = Cluster("ModuleNotFoundError: No module named 'torch'\n", status="FAILED", code=1)
    with pytest.raises(ResourceError, match="first on the PATH that `ray start` had"):
        follow.follow_job(client, "job", resume="")


def test_ctrl_c_does_not_stop_the_job_and_prints_how_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow.follow_job(Cluster(KeyboardInterrupt()), "job-1", resume="") == 130
    printed = capsys.readouterr().out
    assert "the job continues" in printed and "ray job stop --address http://head:8265 job-1" in printed


def test_a_cluster_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RETRY_SECONDS", -1.0)
    with pytest.raises(ResourceError, match=r"has not answered .* ray job status --address http://head:8265 job-1"):
        follow.follow_job(Cluster(RuntimeError("closed")), "job-1", resume="")


class Answer(http.server.BaseHTTPRequestHandler):
    """A server at the address that is no cluster."""

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
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # restored afterwards: connecting sets it
    url = f"http://127.0.0.1:{server.server_address[1]}"
    arguments = ["train", "demo", "--out", "/r", "--submit"]
    for code, exit_code, message in (
        (200, 5, "is no Ray dashboard"),
        (401, 2, "requires a token"),
        (403, 2, "refuses the token"),
    ):
        monkeypatch.setattr(Answer, "code", code)
        assert main([*arguments, url]) == exit_code
        (error,) = capsys.readouterr().err.splitlines()
        assert message in error and url in error
    assert main([*arguments, SERVER]) == 5
    assert f"no Ray cluster answers at {SERVER}" in capsys.readouterr().err
    assert os.environ["RAY_API_SERVER_ADDRESS"] == url


def test_code_of_ones_own_goes_with_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, tmp_path)
    write_package(tmp_path)
    (tmp_path / "mypkg" / "weights.bin").write_bytes(b"large")
    (tmp_path / "losses.py").write_text((tmp_path / "mypkg" / "losses.py").read_text())
    own = "model.name=mypkg.net loss.terms../losses.py:own_loss=0.1 data.source=synthetic"
    job = plan_job(f"train demo {own} --out s3://b/x --submit")
    assert own.split() == job.arguments[1:4]  # a name means the same there
    with jobs.ship(job) as folder:
        shipped = {str(path.relative_to(folder)) for path in [*folder.glob("*.py"), *folder.glob("mypkg/*")]}
    modules = ("__init__", "net", "frames", "losses", "protocols")
    assert shipped == {"losses.py", *(f"mypkg/{name}.py" for name in modules)}


@pytest.mark.parametrize("name", ["../net.py", "{folder}/net.py"])
def test_a_file_from_elsewhere_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    forget(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "net.py").write_text((write_package(tmp_path) / "net.py").read_text())
    with pytest.raises(UsageError, match=r"call depthray in .* and write \./net\.py"):
        plan_job(f"train demo model.name={name.format(folder=tmp_path)} --out s3://b/x --submit")
