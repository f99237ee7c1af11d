"""What Prometheus learns of the service beyond what Ray Serve tells by itself: formats, stages, batches, versions.

Ray's agents export these with `ray_` before their names. Labels are words of ours and names of models, never a client's
text, so that there are few of them whatever is sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from time import perf_counter
from typing import Any, Literal, NamedTuple

from ray.util.metrics import Counter, Gauge, Histogram
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.query import MEDIA
from serve.registry.store import Pointer
from serve.replica.replica import Depth, Reply

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

_PICTURES = (0.5, 1.5, 2.5, 3.5, 4.5, 6.5, 8.5, 12.5, 16.5, 24.5, 32.5, 64.5, 128.5)


class Metric(NamedTuple):
    """What is measured, and by which labels it is told apart."""

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
        "Requests for depth by route (depth, batch), status, and of answers their format and model",
        ("route", "code", "format", "model"),
    ),
    "depthray_stage_seconds": Metric(
        "histogram", "Stages of a request in the ingress: upload, decode, resize, encode", ("stage",), _SECONDS
    ),
    "depthray_queue_seconds": Metric("histogram", "Wait of a picture for its forward pass", ("model",), _SECONDS),
    "depthray_pass_seconds": Metric("histogram", "Time of a forward pass", ("model",), _SECONDS),
    "depthray_batch_pictures": Metric("histogram", "Pictures of a forward pass", ("model",), _PICTURES),
    # Ray 2.60 guesses the sum of a histogram from its buckets; these two are exact.
    "depthray_pictures": Metric("counter", "Pictures computed", ("model",)),
    "depthray_computing_seconds": Metric("counter", "Time of all forward passes", ("model",)),
    "depthray_faults": Metric(
        "counter",
        "Pictures a replica did not answer: late, memory, broken, nan (not a number), elsewhere (not held here)",
        ("model", "kind"),
    ),
    "depthray_swaps": Metric(
        "counter", "Versions a replica took up or would not: promotion, rollback, refused", ("model", "kind")
    ),
    "depthray_version": Metric("gauge", "1 for the version that a replica serves", ("model", "version")),
}
_ROUTES = {"/v1/depth": "depth", "/v1/depth:batch": "batch"}
_ONE_MODEL = re.compile(r"/v1/models/[^/]*/depth")
_STAGE = re.compile(r"(upload|decode|resize|encode);dur=(\d+(?:\.\d+)?)")
GONE = 499  # the code of a request whose client left before the answer, as nginx has it


@cache
def made(name: str) -> Any:
    """The metric of Ray's for a name; one in a process."""
    metric = METRICS[name]
    if metric.kind == "histogram":
        return Histogram(name, metric.about, boundaries=[*metric.bounds], tag_keys=metric.labels)
    return (Counter if metric.kind == "counter" else Gauge)(name, metric.about, tag_keys=metric.labels)


def count(name: str, by: float = 1, **labels: str) -> None:
    """So many more of a counter."""
    made(name).inc(by, labels)


def observe(name: str, value: float, **labels: str) -> None:
    """One value of a histogram."""
    made(name).observe(value, labels)


class Metered:
    """ASGI middleware that counts requests for depth by what their answers say of themselves."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = _route(scope)
        if not route:
            return await self._app(scope, receive, send)
        starts: list[Message] = []

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                starts.append(message)
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            _tell(route, starts)


def _route(scope: Scope) -> str:
    """The name of a route for depth; "" of anything else, which Ray counts."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return ""
    return _ROUTES.get(scope["path"]) or ("depth" if _ONE_MODEL.fullmatch(scope["path"]) else "")


def _tell(route: str, starts: Sequence[Message]) -> None:
    code = starts[0]["status"] if starts else GONE
    headers = Headers(raw=starts[0]["headers"]) if starts else Headers()
    media = headers.get("content-type", "").partition(";")[0]
    form = "zip" if media == "application/zip" else MEDIA.get(media, "")
    if form == "png" and "x-depth-range" in headers:
        form = "colour"
    model = headers.get("x-model", "").partition("@")[0]
    count("depthray_requests", route=route, code=str(code), format=form, model=model)
    for stage, milliseconds in _STAGE.findall(headers.get("server-timing", "")):
        observe("depthray_stage_seconds", float(milliseconds) / 1000, stage=stage)


class MeteredDepth(Depth):
    """A replica that tells what it computes, what it could not, and which versions it serves."""

    async def predict(self, name: str, version: str, sample: Any, seconds: float) -> Reply:
        """See `Depth.predict`."""
        reply = await super().predict(name, version, sample, seconds)
        if reply.fault:
            known = name if any(name == held for held, _ in self._networks) else ""
            count("depthray_faults", model=known, kind=reply.fault)
        else:
            observe("depthray_queue_seconds", reply.timings["queue"], model=name)
        return reply

    def _run(self, kind: tuple[str, str, Any], samples: Sequence[Any]) -> list[Any]:
        started = perf_counter()
        maps = super()._run(kind, samples)
        seconds, (model, *_) = perf_counter() - started, kind
        observe("depthray_pass_seconds", seconds, model=model)
        observe("depthray_batch_pictures", len(samples), model=model)
        count("depthray_pictures", len(samples), model=model)
        count("depthray_computing_seconds", seconds, model=model)
        return maps

    def _load_all(self) -> None:
        super()._load_all()
        for name, pointer in self._pointers.items():  # again and again, as Ray forgets a gauge it has exported
            made("depthray_version").set(1, {"model": name, "version": pointer.current})

    def _take(self, name: str, pointer: Pointer) -> None:
        before = self._pointers.get(name)
        super()._take(name, pointer)
        now = self._pointers.get(name)
        if before and now and now.current != before.current:
            count("depthray_swaps", model=name, kind="rollback" if now.current == before.previous else "promotion")

    def _ensure(self, name: str, version: str) -> bool:
        known = (name, version) in self._refused
        loaded = super()._ensure(name, version)
        if not loaded and not known:
            count("depthray_swaps", model=name, kind="refused")
        return loaded
