"""The doctor of a cluster: each sickness is seen, named with its node, and comes with a cure; no Ray is started."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.diagnostics import cluster_checks, probe
from cluster.diagnostics.health import Cluster, Node, judge
from depthray.__main__ import main
from depthray.cli.doctor import Finding

VERSIONS = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.15.0", "depthray": "0.1.0"}
GIB = 2**30


def node(name: str = "10.0.0.2 abcdef", **changes: Any) -> Node:
    """A healthy worker, but for the changes."""
    healthy = {"cpus": 8, "gpus": 1, "versions": dict(VERSIONS), "shared": (8 * GIB, 10 * GIB), "step": ""}
    return Node(name, **({"disk": (90 * GIB, 100 * GIB)} | healthy | changes))


def head(**changes: Any) -> Node:
    return node("10.0.0.1 aaaaaa", **({"cpus": 0, "gpus": 0, "step": None} | changes))


def found(cluster: Cluster, name: str, storage: str | None = None) -> Finding:
    (finding,) = [each for each in judge(cluster, storage) if each.name == name]
    return finding


def healthy() -> Cluster:
    return Cluster([head(), node(), node("10.0.0.3 bbbbbb")], dashboard="127.0.0.1:8265")


def test_a_healthy_cluster_is_ready() -> None:
    findings = list(judge(healthy(), "s3://runs"))
    assert {each.state for each in findings} == {"ok"}
    names = {"nodes", "resources", "python", "ray", "torch", "depthray", "shared memory", "disk", "auth", "jobs API"}
    assert names | {"network", "clocks", "storage", "one training step"} == {each.name for each in findings}


@pytest.mark.parametrize(
    ("name", "state", "changes", "told", "mend"),
    [
        ("python", "bad", {"versions": VERSIONS | {"python": "3.12.1"}}, "3.12.1 on 10.0.0.3", "one image"),
        ("ray", "bad", {"versions": VERSIONS | {"ray": "2.59.0"}}, "2.60.0 on 10.0.0.1", "constraints.txt"),
        (
            "torch",
            "bad",
            {"versions": VERSIONS | {"torch": "not installed"}},
            "not installed on 10.0.0.3",
            "Containerfile",
        ),
        ("depthray", "warn", {"versions": VERSIONS | {"depthray": "not installed"}}, "10.0.0.3", "--submit"),
        ("shared memory", "warn", {"shared": (GIB // 16, GIB // 16)}, "0.0625 GiB free (10.0.0.3", "--shm-size"),
        ("disk", "bad", {"disk": (GIB // 2, 100 * GIB)}, "0.5 GiB free (10.0.0.3", "--temp-dir"),
        ("disk", "warn", {"disk": (5 * GIB, 50 * GIB)}, "5 GiB free", "make room"),
        ("disk", "warn", {"disk": (40 * GIB, 1000 * GIB)}, "95 % full: 10.0.0.3", "make room"),
        (
            "network",
            "bad",
            {"unreached": "timed out"},
            "10.0.0.3 bbbbbb cannot reach the next node: timed out",
            "firewall",
        ),
        ("clocks", "warn", {"clock": (-3.5, 0.01)}, "10.0.0.3 bbbbbb is -3.5 s off", "chrony"),
        ("storage", "bad", {"storage": "PermissionError: no"}, "s3://runs on 10.0.0.3", "credentials"),
        ("storage", "bad", {"unseen": "FileNotFoundError"}, "not shared: 10.0.0.3", "all nodes mount"),
        ("one training step", "bad", {"step": "ImportError: libcuda"}, "10.0.0.3 bbbbbb: ImportError", "mend"),
        ("one training step", "warn", {"step": "TimeoutError: no answer"}, "10.0.0.3", "busy"),
    ],
)
def test_a_sick_node_is_named_with_a_cure(name: str, state: str, changes: dict[str, Any], told: str, mend: str) -> None:
    cluster = healthy()
    cluster.nodes[2] = node("10.0.0.3 bbbbbb", **changes)
    finding = found(cluster, name, "s3://runs")
    assert (finding.state, told in finding.found, mend in finding.mend) == (state, True, True), finding


@pytest.mark.parametrize(
    ("dashboard", "status", "state"),
    [
        ("10.0.0.1:8265", 200, "bad"),
        ("0.0.0.0:8265", 200, "bad"),
        ("head.example:8265", 200, "bad"),
        ("[2001:db8::1]:8265", 200, "bad"),
        ("127.0.0.1:8265", 200, "warn"),
        ("localhost:8265", 200, "warn"),
        ("[::1]:8265", 200, "warn"),
        ("10.0.0.1:8265", 401, "ok"),
        ("10.0.0.1:8265", 403, "ok"),
        ("10.0.0.1:8265", 0, "warn"),
    ],
)
def test_an_open_jobs_api_stops_all_unless_only_the_machine_itself_reaches_it(
    dashboard: str, status: int, state: str
) -> None:
    cluster = healthy()
    cluster.dashboard, cluster.status = dashboard, status
    assert found(cluster, "auth").state == state
    assert found(cluster, "jobs API").state == ("ok" if status else "warn")
    if state == "bad":
        assert "RAY_AUTH_MODE=token" in found(cluster, "auth").mend and "127.0.0.1" in found(cluster, "auth").mend


def test_a_clock_that_cannot_be_read_well_is_not_blamed() -> None:
    cluster = healthy()
    cluster.nodes[2] = node(clock=(3.0, 1.0))
    assert found(cluster, "clocks").state == "ok"


def test_a_cluster_without_workers_says_how_they_join() -> None:
    cluster = Cluster([head()])
    assert found(cluster, "resources").state == "bad" and "ray start --address" in found(cluster, "resources").mend
    assert found(cluster, "one training step").state == "warn"


def test_nodes_that_say_nothing_are_named() -> None:
    cluster = healthy()
    cluster.mute = ["10.0.0.9 ffffff"]
    assert found(cluster, "nodes").state == "bad" and "10.0.0.9" in found(cluster, "nodes").found
    assert "1 dead" in found(Cluster([node()], dead=1), "nodes").found


def test_many_nodes_are_counted_rather_than_listed() -> None:
    nodes = [node(f"10.0.0.{index} {index:06}", unreached="no") for index in range(9)]
    assert "and 6 more cannot reach" in found(Cluster(nodes), "network").found


# What a node says


def test_a_probe_writes_reads_and_takes_away(tmp_path: Path) -> None:
    where = str(tmp_path / "runs")
    one, other = probe.Probe(), probe.Probe()
    assert one.write(where, "a") == "" and other.read(where, "a") == ""
    assert "FileNotFoundError" in other.read(where, "b")
    assert one.remove(where, "a") == "" and not list((tmp_path / "runs").iterdir())
    (tmp_path / "file").write_text("")
    assert "file" in one.write(str(tmp_path / "file"), "a")


def test_probes_reach_each_other_until_one_is_gone() -> None:
    one, other = probe.Probe(), probe.Probe()
    port = one.listen("127.0.0.1")
    assert other.reach("127.0.0.1", port) == ""
    one.hush()
    assert "refused" in other.reach("127.0.0.1", port)


def test_a_probe_sees_whether_a_token_is_asked_for() -> None:
    class Locked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/open" else 401)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        asked = [probe.Probe().ask(f"{at}/open"), probe.Probe().ask(f"{at}/api/jobs/")]
        server.shutdown()
    assert asked == [200, 401] and probe.Probe().ask(at) == 0


def test_facts_of_this_machine(tmp_path: Path) -> None:
    facts = probe.Probe().facts(str(tmp_path / "not" / "there"))
    assert facts["versions"].keys() == VERSIONS.keys() and facts["versions"]["ray"] != "not installed"
    assert 0 < facts["disk"][0] <= facts["disk"][1]
    assert probe._version("no-such-package") == "not installed"


def test_one_step_is_trained_and_a_missing_gpu_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.step(False) == ""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "can use no GPU" in probe.step(True)


# Asking them


HEAD, WORKER, SILENT = ("aa" * 28, "bb" * 28, "cc" * 28)  # ids as Ray's


class FakeRay:
    """Runs in this process what Ray would run on its nodes; one of them never answers."""

    cloudpickle = SimpleNamespace(register_pickle_by_value=lambda module: None)
    exceptions = SimpleNamespace(RayError=OSError)
    _private = SimpleNamespace(
        worker=SimpleNamespace(
            _global_node=SimpleNamespace(webui_url="127.0.0.1:1", get_session_dir_path=lambda: "/tmp")
        )
    )

    def __init__(self, *names: str) -> None:
        self.names = names

    def nodes(self) -> list[dict[str, Any]]:
        marked = {"node:__internal_head__": 1.0}
        gone = {"Alive": False, "NodeID": "dd" * 28, "NodeManagerAddress": "127.0.0.1", "Resources": {}}
        return [
            gone,
            *(
                {
                    "Alive": True,
                    "NodeID": name,
                    "NodeManagerAddress": "127.0.0.1",
                    "Resources": {"CPU": 1.0} if index else marked,
                }
                for index, name in enumerate(self.names)
            ),
        ]

    def remote(self, what: Any) -> Any:
        def options(*, scheduling_strategy: Any, **resources: float) -> Any:
            silent = scheduling_strategy.node_id == SILENT
            return SimpleNamespace(remote=lambda *words: self._run(what, words, silent=silent))

        return SimpleNamespace(options=options)

    def _run(self, what: Any, words: tuple[Any, ...], *, silent: bool) -> Any:
        if not isinstance(what, type):
            return (silent, lambda: what(*words))
        made = what()
        methods = [name for name in dir(made) if not name.startswith("_")]

        def method(name: str) -> Any:
            return SimpleNamespace(remote=lambda *each: (silent, lambda: getattr(made, name)(*each)))

        return SimpleNamespace(**{name: method(name) for name in methods})

    def wait(self, asked: list[Any], **limits: Any) -> tuple[list[Any], list[Any]]:
        return [each for each in asked if not each[0]], [each for each in asked if each[0]]

    def get(self, asked: Any, timeout: float = 0) -> Any:
        return asked[1]()


@pytest.fixture
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "step", lambda gpu: "")


@pytest.mark.usefixtures("_no_training")
def test_every_node_is_asked(tmp_path: Path) -> None:
    cluster = cluster_checks._look(FakeRay(HEAD, WORKER), str(tmp_path))
    assert [(each.name, each.step) for each in cluster.nodes] == [("127.0.0.1 aaaaaa", None), ("127.0.0.1 bbbbbb", "")]
    assert cluster.status == 0 and cluster.dead == 1 and not cluster.mute
    states = {each.name: each.state for each in judge(cluster, str(tmp_path))}
    assert {name for name, state in states.items() if state != "ok"} <= {"auth", "jobs API", "disk", "shared memory"}
    assert not list(tmp_path.iterdir())
    for each in cluster.nodes:
        assert abs(each.clock[0]) < 1 and each.clock[1] < 1


@pytest.mark.usefixtures("_no_training")
def test_a_silent_node_does_not_keep_the_others_from_being_looked_at() -> None:
    cluster = cluster_checks._look(FakeRay(HEAD, SILENT, WORKER), None)
    assert cluster.mute == ["127.0.0.1 cccccc"]
    assert [each.name for each in cluster.nodes] == ["127.0.0.1 aaaaaa", "127.0.0.1 bbbbbb"]
    assert found(cluster, "nodes").state == "bad" and found(cluster, "one training step").state == "ok"


def test_a_head_that_is_not_there_is_told_without_waiting_for_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        finding = cluster_checks._head(f"127.0.0.1:{port}")
        assert finding and finding.state == "ok"
    (finding,) = cluster_checks.examine(f"127.0.0.1:{port}")
    assert finding.state == "bad" and "refused" in finding.found and "ray start --head" in finding.mend


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [("Version mismatch: 2.59", "versions", "2.59"), ("Failed to connect to Ray", "auth", "RAY_AUTH_MODE here: token")],
)
def test_why_ray_does_not_let_us_in(text: str, name: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    finding = cluster_checks._refused("10.0.0.1:6379", ConnectionError(text))
    assert finding.name == name and told in finding.found and "secret" not in finding.found


def test_the_offset_of_a_clock_is_that_of_the_quickest_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 104.0, 110.0, 110.2, *[200.0, 208.0] * 3])
    monkeypatch.setattr(cluster_checks.time, "time", lambda: next(now))
    answers = iter([150.0, 113.1, 999.0, 999.0, 999.0])
    ahead, sure = cluster_checks._offset(lambda: next(answers))
    assert ahead == pytest.approx(3.0) and sure == pytest.approx(0.1)


# The command


def test_the_command_looks_at_the_cluster_it_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []

    def examine(*words: Any) -> list[Finding]:
        asked.append(words)
        return [Finding("auth", "bad", "open", "RAY_AUTH_MODE=token")]

    monkeypatch.setattr(cluster_checks, "examine", examine)
    assert main(["doctor", "--address", "auto", "--storage", "s3://runs", "--json"]) == 5
    assert asked == [("auto", "s3://runs")] and json.loads(capsys.readouterr().out)[0]["name"] == "auth"
    assert main(["doctor", "--address", "auto"]) == 5
    assert capsys.readouterr().out.endswith("training is stopped by: auth\n")


def test_a_storage_without_a_cluster_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--storage", "s3://runs"]) == 2
    assert "--address" in capsys.readouterr().err
