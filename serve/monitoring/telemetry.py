"""Metrics for Prometheus that Ray Serve does not have itself: formats, stages, batches, versions.

Ray's agents export them with the prefix `ray_`. Labels have fixed values or are names of models, never a client's text,
so that their number stays small whatever is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from ray.util.metrics import Counter, Gauge, Histogram
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.query import MEDIA
from serve.registry.store import Pointer
from serve.replica.replica import ReplicaMetrics, Reply

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

# Half numbers: a bucket then holds whole ones up to its bound, and the common sizes have one each.
_BATCH_SIZES = (0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 8.5, 12.5, 16.5, 24.5, 32.5, 64.5, 128.5)


class Metric(NamedTuple):
    """One metric, and its labels."""

    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...]
    bounds: tuple[float, ...] = ()

    def exported(self, name: str) -> list[str]:
        """The names of its series in Prometheus."""
        endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
        return [f"ray_{name}{ending}" for ending in endings[self.kind]]


METRICS = {
    "depthray_requests": Metric(
        "counter",
        "Requests for depth by route (depth, batch), status, format and model of the answer",
        ("route", "code", "format", "model"),
    ),
    "depthray_stage_seconds": Metric(
        "histogram", "Stages of a request in the ingress: upload, decode, resize, encode", ("stage",), _SECONDS
    ),
    "depthray_queue_seconds": Metric("histogram", "Time of an image in the queue", ("model",), _SECONDS),
    "depthray_pass_seconds": Metric("histogram", "Time of a forward pass", ("model",), _SECONDS),
    "depthray_batch_pictures": Metric("histogram", "Images of a forward pass", ("model",), _BATCH_SIZES),
    # Ray 2.60 estimates the sum of a histogram from its buckets; these two are exact.
    "depthray_pictures": Metric("counter", "Images computed", ("model",)),
    "depthray_computing_seconds": Metric("counter", "Time of all forward passes", ("model",)),
    "depthray_faults": Metric(
        "counter",
        "Images that a replica did not answer: late, memory, broken, nan (not finite), elsewhere (not loaded here)",
        ("model", "kind"),
    ),
    "depthray_swaps": Metric(
        "counter", "Changes of version of a replica: promotion, rollback, refused", ("model", "kind")
    ),
    "depthray_version": Metric("gauge", "1 for the version that a replica serves", ("model", "version")),
}
# Only these paths: any other one that a client invents would become a label.
_ROUTES = {"/v1/depth": "depth", "/v1/depth:batch": "batch"}
_ONE_MODEL = re.compile(r"/v1/models/[^/]*/depth")
_STAGE = re.compile(r"(upload|decode|resize|encode);dur=(\d+(?:\.\d+)?)")
CLIENT_CLOSED_REQUEST = 499  # status of a request whose client left before the answer, as in nginx's logs


@cache
def ray_metric(name: str) -> Any:
    """The Ray metric of a name; one in a process, as Ray refuses a second one."""
    metric = METRICS[name]
    if metric.kind == "histogram":
        return Histogram(name, metric.about, boundaries=[*metric.bounds], tag_keys=metric.labels)
    return (Counter if metric.kind == "counter" else Gauge)(name, metric.about, tag_keys=metric.labels)


def increment(name: str, by: float = 1, **labels: str) -> None:
    """Add to a counter."""
    ray_metric(name).inc(by, labels)


def observe(name: str, value: float, **labels: str) -> None:
    """Add a value to a histogram."""
    ray_metric(name).observe(value, labels)


class RequestMetrics:
    """ASGI middleware that counts requests for depth by the status and headers of their answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = _route(scope)
        if not route:
            return await self._app(scope, receive, send)
        starts: list[Message] = []  # stays empty where the client leaves before the answer

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                starts.append(message)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:  # a client that disconnects cancels the call
            _record(route, starts)


def _route(scope: Scope) -> str:
    """The label of a route for depth; "" for any other, which Ray Serve counts itself."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return ""
    return _ROUTES.get(scope["path"]) or ("depth" if _ONE_MODEL.fullmatch(scope["path"]) else "")


def _record(route: str, starts: Sequence[Message]) -> None:
    code = starts[0]["status"] if starts else CLIENT_CLOSED_REQUEST
    headers = Headers(raw=starts[0]["headers"]) if starts else Headers()
    media = headers.get("content-type", "").partition(";")[0]
    form = "zip" if media == "application/zip" else MEDIA.get(media, "")
    if form == "png" and "x-depth-range" in headers:  # colour maps may be PNG too, and alone have a range
        form = "colour"
    model = headers.get("x-model", "").partition("@")[0]
    increment("depthray_requests", route=route, code=str(code), format=form, model=model)
    for stage, milliseconds in _STAGE.findall(headers.get("server-timing", "")):
        observe("depthray_stage_seconds", float(milliseconds) / 1000, stage=stage)


class RayMetrics(ReplicaMetrics):
    """Reports what a replica computes, what it could not, and which versions it serves."""

    def record_reply(self, model: str, reply: Reply) -> None:
        """Count a fault, or the time in the queue."""
        if reply.fault:
            increment("depthray_faults", model=model, kind=reply.fault)
        else:
            observe("depthray_queue_seconds", reply.timings["queue"], model=model)

    def record_pass(self, model: str, images: int, seconds: float) -> None:
        """Time and batch size of a forward pass."""
        observe("depthray_pass_seconds", seconds, model=model)
        observe("depthray_batch_pictures", images, model=model)
        increment("depthray_pictures", images, model=model)
        increment("depthray_computing_seconds", seconds, model=model)

    def record_versions(self, pointers: Mapping[str, Pointer]) -> None:
        """Set the gauge of each version, at each read of the store, as Ray forgets a gauge that it has exported."""
        for name, pointer in pointers.items():
            ray_metric("depthray_version").set(1, {"model": name, "version": pointer.current})

    def record_swap(self, model: str, before: Pointer, now: Pointer) -> None:
        """Count a promotion, or a rollback if the version before is served again."""
        kind = "rollback" if now.current == before.previous else "promotion"
        increment("depthray_swaps", model=model, kind=kind)

    def record_refusal(self, model: str) -> None:
        """Count a version that could not be loaded."""
        increment("depthray_swaps", model=model, kind="refused")
