"""Metrics for Prometheus: labels never come from clients, and the dashboard queries existing metrics alone."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asgi import ask, form
from paths import FILES
from serve_backend import Fake, app, encoded, scene
from serve_networks import broken, photograph, write_checkpoint

from depthray.config.sections import Data
from depthray.network_inputs import prepare
from serve.http.middleware import ConcurrencyLimit
from serve.monitoring import scrape, telemetry
from serve.monitoring.telemetry import METRICS, RayMetrics, RequestMetrics
from serve.registry.promotion import promote
from serve.registry.store import Store
from serve.replica.replica import Replica

DASHBOARD = Path(telemetry.__file__).with_name("grafana.json")
WORDS = {"histogram_quantile", "sum", "rate", "max", "count", "increase", "by", "scalar", "label_replace", "le"}


class Record:
    """In place of a metric: the recorded values by labels."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.recorded: Counter[tuple[str, ...]] = Counter()

    def inc(self, value: float, labels: dict[str, str]) -> None:
        assert set(labels) == set(self.labels) and value > 0
        self.recorded[tuple(labels[name] for name in self.labels)] += value  # type: ignore[assignment]

    def observe(self, value: float, labels: dict[str, str]) -> None:
        assert value >= 0
        self.inc(1, labels)

    def set(self, value: float, labels: dict[str, str]) -> None:
        self.inc(value, labels)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[tuple[str, ...]]]:
    records = {name: Record(metric.labels) for name, metric in METRICS.items()}
    monkeypatch.setattr(telemetry, "ray_metric", records.__getitem__)
    return {name: record.recorded for name, record in records.items()}


def test_requests_are_counted_by_their_answers(recorded: dict[str, Counter[tuple[str, ...]]]) -> None:
    metered = ConcurrencyLimit(RequestMetrics(app()), max_requests=8)
    image = encoded(scene())
    for form_name in ("png", "npy", "npz", "colour", "ply", "glb"):
        assert ask(metered, "POST", f"/v1/depth?format={form_name}", body=image).status == 200
    webp = [("Accept", "image/webp")]
    assert ask(metered, "POST", "/v1/models/room/depth", body=image, headers=webp).status == 200
    body, headers = form(("image", image), ("image", image))
    assert ask(metered, "POST", "/v1/depth:batch", body=body, headers=headers).status == 200
    assert recorded["depthray_requests"] == {
        **{("depth", "200", name, "room"): 1 for name in ("png", "npy", "npz", "ply", "glb")},
        ("depth", "200", "colour", "room"): 2,
        ("batch", "200", "zip", ""): 1,
    }
    stages = {stage for (stage,) in recorded["depthray_stage_seconds"]}
    assert stages == {"upload", "decode", "encode"} and set(recorded["depthray_stage_seconds"].values()) == {7}


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("/v1/models/evil%0Aname/depth", ("depth", "404", "", "")),
        ("/v1/models/no-such-model/depth", ("depth", "404", "", "")),
        ("/v1/depth?format=<script>", ("depth", "400", "", "")),
        ("/v1/depth?x=1", ("depth", "400", "", "")),
    ],
)
def test_nothing_from_a_client_becomes_a_label(
    path: str, labels: tuple[str, ...], recorded: dict[str, Counter[tuple[str, ...]]]
) -> None:
    ask(RequestMetrics(app()), "POST", path, body=encoded(scene()))
    assert recorded["depthray_requests"] == {labels: 1}


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/elsewhere"), ("GET", "/v1/depth")])
def test_what_ray_counts_is_not_counted_again(
    method: str, path: str, recorded: dict[str, Counter[tuple[str, ...]]]
) -> None:
    ask(RequestMetrics(app()), method, path)
    assert not recorded["depthray_requests"]


def test_a_client_that_left_is_counted_as_such(recorded: dict[str, Counter[tuple[str, ...]]]) -> None:
    async def gone(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(RequestMetrics(gone)({"type": "http", "method": "POST", "path": "/v1/depth"}, None, None))
    assert recorded["depthray_requests"] == {("depth", "499", "", ""): 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "served")
    promote(store, "rooms", write_checkpoint(tmp_path / "run", seed=0))
    return store


def replies(depth: Replica, version: str, number: int, *, seconds: float = 30.0, name: str = "rooms") -> set[str]:
    sample = prepare(photograph(), {}, Data(size=(64, 96)))

    async def gather() -> list[Any]:
        return await asyncio.gather(*[depth.predict(name, version, sample, seconds) for _ in range(number)])

    return {reply.fault for reply in asyncio.run(gather())}


def test_a_replica_records_its_passes_and_its_faults(
    store: Store, recorded: dict[str, Counter[tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = Replica({"store": str(store.root), "model": {"poll_seconds": 3600, "max_batch": 4}}, metrics=RayMetrics())
    version = store.pointer("rooms").current
    assert recorded["depthray_version"] == {("rooms", version): 1}
    assert replies(depth, version, 9) == {""}
    assert recorded["depthray_pictures"] == {("rooms",): 9} == recorded["depthray_queue_seconds"]
    assert recorded["depthray_batch_pictures"] == recorded["depthray_pass_seconds"] == {("rooms",): 3}
    assert recorded["depthray_computing_seconds"]["rooms",] > 0
    assert replies(depth, version, 1, seconds=-1) == {"late"}
    assert replies(depth, "0" * 12, 1) == replies(depth, version, 1, name="what a client says") == {"elsewhere"}
    network = depth._networks["rooms", version]
    next(iter(network.predictor.model.parameters())).data.fill_(float("nan"))
    assert replies(depth, version, 1) == {"nan"}
    kinds = {("rooms", "late"): 1, ("rooms", "elsewhere"): 1, ("", "elsewhere"): 1, ("rooms", "nan"): 1}
    assert recorded["depthray_faults"] == kinds
    depth.__del__()


def test_swaps_are_counted_once(store: Store, tmp_path: Path, recorded: dict[str, Counter[tuple[str, ...]]]) -> None:
    depth = Replica({"store": str(store.root), "model": {"poll_seconds": 3600}}, metrics=RayMetrics())
    swaps = recorded["depthray_swaps"]
    old = store.pointer("rooms").current
    new = promote(store, "rooms", write_checkpoint(tmp_path / "new", seed=1)).pointer.current
    for _ in range(2):
        depth.follow_store()
        assert swaps == {("rooms", "promotion"): 1}
    store.rollback("rooms")
    depth.follow_store()
    assert swaps["rooms", "rollback"] == 1
    bad = store.add("rooms", write_checkpoint(tmp_path / "bad", seed=2))
    store.keep_golden("rooms", bad, store.golden("rooms", old))
    broken(store.path("rooms", bad), "nan")
    store.point("rooms", bad)
    for _ in range(3):
        depth.follow_store()
    assert swaps == {("rooms", "promotion"): 1, ("rooms", "rollback"): 1, ("rooms", "refused"): 1}
    assert set(recorded["depthray_version"]) == {("rooms", old), ("rooms", new)}
    depth.__del__()


def known() -> dict[str, set[str]]:
    """The existing series with their labels: ours, and those that were scraped from Ray."""
    lines = (FILES / "ray_metrics.txt").read_text().splitlines()
    rays = {name: set(labels) for name, *labels in (line.split() for line in lines if not line.startswith("#"))}
    return rays | {each: {*one.labels} for name, one in METRICS.items() for each in one.exported(name)}


def panels() -> list[dict[str, Any]]:
    tree: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return tree


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", [])]


@pytest.mark.parametrize("text", expressions())
def test_the_dashboard_queries_existing_metrics(text: str) -> None:
    series = known()
    bare = re.sub(r'"[^"]*"', "", text)
    assert all(bare.count(one) == bare.count(other) for one, other in ("()", "{}", "[]"))
    names = re.findall(r"\bray_\w+", bare)
    assert names and set(names) <= set(series)
    labels = set().union(*(series[name] for name in names))
    queried = [*re.findall(r"(\w+)=", bare), *re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", bare)))]
    made = set(re.findall(r'label_replace\(.*?, "(\w+)"', text))
    assert set(queried) - {"le"} - made <= labels
    rest = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \([^)]*\)|\bray_\w+", "", bare)
    assert {word for word in re.findall(r"[a-z_]+", rest)} <= WORDS


def test_all_metrics_are_on_the_dashboard() -> None:
    text = " ".join(expressions())
    for name, metric in METRICS.items():
        assert any(each in text for each in metric.exported(name)), name
    assert not re.search(r"_sum\b", text)  # Ray guesses sums of histograms


def test_the_dashboard_is_laid_out() -> None:
    places: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not mine & places
        places |= mine
    assert len({panel["id"] for panel in panels()}) == len(panels())
    variables = {variable["name"] for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels()))) - {"__rate_interval", "1"}
    assert used == variables


def test_pages_of_several_hosts_become_one() -> None:
    about = b"# HELP a_total What.\n# TYPE a_total counter\n"
    one = about + b'a_total{host="1"} 1.0\n# HELP b What.\n# TYPE b gauge\nb 2.0\n'
    two = about + b'a_total{host="2"} 3.0\n'
    page = scrape.merge([one, two])
    assert page == about + b'a_total{host="1"} 1.0\na_total{host="2"} 3.0\n# HELP b What.\n# TYPE b gauge\nb 2.0\n'
    assert scrape.merge([one]) == one and scrape.merge([]) == b""


def test_metrics_need_a_key_as_the_rest_does() -> None:
    from serve import settings
    from serve.http import routes
    from serve.http.auth import Keys

    async def page() -> bytes:
        return b"a 1.0\n"

    made = routes.create(Fake(), settings.parse({}), keys=Keys(["k" * 16]), metrics_page=page)
    assert ask(made, "GET", "/metrics").status == 401
    reply = ask(made, "GET", "/metrics", headers=[("X-API-Key", "k" * 16)])
    assert (reply.status, reply.body) == (200, b"a 1.0\n") and reply.kind.startswith("text/plain; version=0.0.4")
    assert ask(app(), "GET", "/metrics").status == 404


def test_every_metric_is_made_by_ray() -> None:
    for name, metric in METRICS.items():
        info = telemetry.ray_metric(name).info
        assert info["name"] == name and info["tag_keys"] == metric.labels
    assert np.all(np.diff(METRICS["depthray_batch_pictures"].bounds) > 0)
