"""The doctor of a cluster: each fault is found, named with its node, and comes with advice; no Ray is started."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import ray_private
from cluster.diagnostics import cluster_checks, probe
from cluster.diagnostics.health import ClusterFacts, NodeFacts, judge
from depthray.__main__ import main
from depthray.cli.doctor import Finding

VERSIONS = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.15.0", "depthray": "0.1.0"}
GIB = 2**30


def node(name: str = "10.0.0.2 abcdef", **changes: Any) -> NodeFacts:
    """A healthy worker, but for the changes."""
    healthy: dict[str, Any] = {
        "cpus": 8,
        "gpus": 1,
        "versions": dict(VERSIONS),
        "shared": (8 * GIB, 10 * GIB),
        "step": "",
    }
    return NodeFacts(name, **({"disk": (90 * GIB, 100 * GIB)} | healthy | changes))


def head(**changes: Any) -> NodeFacts:
    return node("10.0.0.1 aaaaaa", **({"cpus": 0, "gpus": 0, "step": None} | changes))


def finding_of(cluster: ClusterFacts, name: str, storage: str | None = None) -> Finding:
    (finding,) = [each for each in judge(cluster, storage) if each.name == name]
    return finding


def healthy() -> ClusterFacts:
    return ClusterFacts([head(), node(), node("10.0.0.3 bbbbbb")], dashboard="127.0.0.1:8265")


def test_a_healthy_cluster_is_ready() -> None:
    findings = list(judge(healthy(), "s3://runs"))
    assert {each.state for each in findings} == {"ok"}
    names = {"nodes", "resources", "python", "ray", "torch", "depthray", "shared memory", "disk", "auth", "jobs API"}
    assert names | {"network", "clocks", "storage", "one training step"} == {each.name for each in findings}


@pytest.mark.parametrize(
    ("name", "state", "changes", "detail", "advice"),
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
        ("disk", "warn", {"disk": (5 * GIB, 50 * GIB)}, "5 GiB free", "free some space"),
        ("disk", "warn", {"disk": (40 * GIB, 1000 * GIB)}, "95 % full: 10.0.0.3", "free some space"),
        (
            "network",
            "bad",
            {"unreached": "timed out"},
            "10.0.0.3 bbbbbb cannot reach the next node: timed out",
            "firewall",
        ),
        ("clocks", "warn", {"clock": (-3.5, 0.01)}, "10.0.0.3 bbbbbb is -3.5 s off", "chrony"),
        ("storage", "bad", {"storage": "PermissionError: no"}, "s3://runs on 10.0.0.3", "credentials"),
        ("storage", "bad", {"unreadable": "FileNotFoundError"}, "not shared: 10.0.0.3", "all nodes mount"),
        ("one training step", "bad", {"step": "ImportError: libcuda"}, "10.0.0.3 bbbbbb: ImportError", "fix"),
        ("one training step", "warn", {"step": "TimeoutError: no answer"}, "10.0.0.3", "busy"),
    ],
)
def test_a_faulty_node_is_named_with_advice(
    name: str, state: str, changes: dict[str, Any], detail: str, advice: str
) -> None:
    cluster = healthy()
    cluster.nodes[2] = node("10.0.0.3 bbbbbb", **changes)
    finding = finding_of(cluster, name, "s3://runs")
    assert (finding.state, detail in finding.detail, advice in finding.advice) == (state, True, True), finding


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
    assert finding_of(cluster, "auth").state == state
    assert finding_of(cluster, "jobs API").state == ("ok" if status else "warn")
    if state == "bad":
        assert (
            "RAY_AUTH_MODE=token" in finding_of(cluster, "auth").advice
            and "127.0.0.1" in finding_of(cluster, "auth").advice
        )


def test_a_clock_that_cannot_be_read_well_is_not_blamed() -> None:
    cluster = healthy()
    cluster.nodes[2] = node(clock=(3.0, 1.0))
    assert finding_of(cluster, "clocks").state == "ok"


def test_a_cluster_without_workers_explains_how_they_join() -> None:
    cluster = ClusterFacts([head()])
    assert (
        finding_of(cluster, "resources").state == "bad"
        and "ray start --address" in finding_of(cluster, "resources").advice
    )
    assert finding_of(cluster, "one training step").state == "warn"


def test_nodes_that_do_not_respond_are_named() -> None:
    cluster = healthy()
    cluster.unresponsive = ["10.0.0.9 ffffff"]
    assert finding_of(cluster, "nodes").state == "bad" and "10.0.0.9" in finding_of(cluster, "nodes").detail
    assert "1 dead" in finding_of(ClusterFacts([node()], dead=1), "nodes").detail


def test_many_nodes_are_counted_rather_than_listed() -> None:
    nodes = [node(f"10.0.0.{index} {index:06}", unreached="no") for index in range(9)]
    assert "and 6 more cannot reach" in finding_of(ClusterFacts(nodes), "network").detail


# The probe of a node


def test_a_probe_writes_reads_and_removes(tmp_path: Path) -> None:
    where = str(tmp_path / "runs")
    one, other = probe.NodeProbe(), probe.NodeProbe()
    assert one.write(where, "a") == "" and other.read(where, "a") == ""
    assert "FileNotFoundError" in other.read(where, "b")
    assert one.remove(where, "a") == "" and not list((tmp_path / "runs").iterdir())
    (tmp_path / "file").write_text("")
    assert "file" in one.write(str(tmp_path / "file"), "a")


def test_probes_reach_each_other_until_one_is_gone() -> None:
    one, other = probe.NodeProbe(), probe.NodeProbe()
    port = one.listen("127.0.0.1")
    assert other.reach("127.0.0.1", port) == ""
    one.stop_listening()
    assert "refused" in other.reach("127.0.0.1", port)


def test_a_probe_finds_whether_a_token_is_required() -> None:
    class Locked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/open" else 401)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        codes = [probe.NodeProbe().http_status(f"{at}/open"), probe.NodeProbe().http_status(f"{at}/api/jobs/")]
        server.shutdown()
    assert codes == [200, 401] and probe.NodeProbe().http_status(at) == 0


def test_facts_of_this_machine(tmp_path: Path) -> None:
    facts = probe.NodeProbe().facts(str(tmp_path / "not" / "there"))
    assert facts["versions"].keys() == VERSIONS.keys() and facts["versions"]["ray"] != "not installed"
    assert 0 < facts["disk"][0] <= facts["disk"][1]
    assert probe.installed_version("no-such-package") == "not installed"


def test_one_step_is_trained_and_a_missing_gpu_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.train_one_step(False) == ""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "can use no GPU" in probe.train_one_step(True)


# Collecting from all nodes


HEAD, WORKER, SILENT = ("aa" * 28, "bb" * 28, "cc" * 28)  # ids as Ray's


class FakeRay:
    """Runs in this process what Ray would run on its nodes; one of them never answers."""

    cloudpickle = SimpleNamespace(register_pickle_by_value=lambda module: None)
    exceptions = SimpleNamespace(RayError=OSError)

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
            return SimpleNamespace(remote=lambda *arguments: self._run(what, arguments, silent=silent))

        return SimpleNamespace(options=options)

    def _run(self, what: Any, arguments: tuple[Any, ...], *, silent: bool) -> Any:
        if not isinstance(what, type):
            return (silent, lambda: what(*arguments))
        made = what()
        methods = [name for name in dir(made) if not name.startswith("_")]

        def method(name: str) -> Any:
            return SimpleNamespace(remote=lambda *each: (silent, lambda: getattr(made, name)(*each)))

        return SimpleNamespace(**{name: method(name) for name in methods})

    def wait(self, calls: list[Any], **limits: Any) -> tuple[list[Any], list[Any]]:
        return [each for each in calls if not each[0]], [each for each in calls if each[0]]

    def get(self, calls: Any, timeout: float = 0) -> Any:
        return calls[1]()


@pytest.fixture
def _fake_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "train_one_step", lambda gpu: "")
    monkeypatch.setattr(ray_private, "dashboard_address", lambda: "127.0.0.1:1")
    monkeypatch.setattr(ray_private, "session_folder", lambda: "/tmp")


@pytest.mark.usefixtures("_fake_ray")
def test_every_node_is_examined(tmp_path: Path) -> None:
    cluster = cluster_checks._collect_facts(FakeRay(HEAD, WORKER), str(tmp_path))
    assert [(each.name, each.step) for each in cluster.nodes] == [("127.0.0.1 aaaaaa", None), ("127.0.0.1 bbbbbb", "")]
    assert cluster.status == 0 and cluster.dead == 1 and not cluster.unresponsive
    states = {each.name: each.state for each in judge(cluster, str(tmp_path))}
    assert {name for name, state in states.items() if state != "ok"} <= {"auth", "jobs API", "disk", "shared memory"}
    assert not list(tmp_path.iterdir())
    for each in cluster.nodes:
        assert abs(each.clock[0]) < 1 and each.clock[1] < 1


@pytest.mark.usefixtures("_fake_ray")
def test_a_silent_node_does_not_keep_the_others_from_being_examined() -> None:
    cluster = cluster_checks._collect_facts(FakeRay(HEAD, SILENT, WORKER), None)
    assert cluster.unresponsive == ["127.0.0.1 cccccc"]
    assert [each.name for each in cluster.nodes] == ["127.0.0.1 aaaaaa", "127.0.0.1 bbbbbb"]
    assert finding_of(cluster, "nodes").state == "bad" and finding_of(cluster, "one training step").state == "ok"


def test_a_missing_head_is_reported_without_waiting_for_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        finding = cluster_checks._check_head(f"127.0.0.1:{port}")
        assert finding and finding.state == "ok"
    (finding,) = cluster_checks.examine_cluster(f"127.0.0.1:{port}")
    assert finding.state == "bad" and "refused" in finding.detail and "ray start --head" in finding.advice


@pytest.mark.parametrize(
    ("text", "name", "detail"),
    [("Version mismatch: 2.59", "versions", "2.59"), ("Failed to connect to Ray", "auth", "RAY_AUTH_MODE here: token")],
)
def test_why_ray_refuses_the_connection(text: str, name: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    finding = cluster_checks._connection_finding("10.0.0.1:6379", ConnectionError(text))
    assert finding.name == name and detail in finding.detail and "secret" not in finding.detail


def test_the_offset_of_a_clock_is_that_of_the_quickest_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 104.0, 110.0, 110.2, *[200.0, 208.0] * 3])
    monkeypatch.setattr(time, "time", lambda: next(now))
    answers = iter([150.0, 113.1, 999.0, 999.0, 999.0])
    ahead, uncertainty = cluster_checks._clock_offset(lambda: next(answers))
    assert ahead == pytest.approx(3.0) and uncertainty == pytest.approx(0.1)


# The command


def test_the_command_examines_the_cluster_it_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Any, ...]] = []

    def examine(*arguments: Any) -> list[Finding]:
        calls.append(arguments)
        return [Finding("auth", "bad", "open", "RAY_AUTH_MODE=token")]

    monkeypatch.setattr(cluster_checks, "examine_cluster", examine)
    assert main(["doctor", "--address", "auto", "--storage", "s3://runs", "--json"]) == 5
    assert calls == [("auto", "s3://runs")] and json.loads(capsys.readouterr().out)[0]["name"] == "auth"
    assert main(["doctor", "--address", "auto"]) == 5
    assert capsys.readouterr().out.endswith("training is stopped by: auth\n")


def test_a_storage_without_a_cluster_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--storage", "s3://runs"]) == 2
    assert "--address" in capsys.readouterr().err
