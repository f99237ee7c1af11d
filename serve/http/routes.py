"""The HTTP API around a Backend: keys, limits, decoding, answers. Independent of Ray.

The order matters, so that a refusal costs little: the key, then the query, then the body within its limits, then the
header of the image, and last its pixels.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles

import depthray
from depthray.errors import DataError
from serve.backend import Backend, BackendAnswer, Broken, ModelCard
from serve.http import auth, batch_route, body, codec, example_picture, openapi, problems, query
from serve.http.codec import Encoded, InputImage
from serve.http.middleware import RequestIdMiddleware, request_id
from serve.http.problems import Problem
from serve.http.query import Options
from serve.settings import NAME, Settings

PAGE = Path(__file__).parents[1] / "page"
_MODEL = re.compile(NAME.removesuffix("$") + r"(@[a-z0-9]{1,64})?")
_GUARDED = {"X-Frame-Options": "DENY", "Cache-Control": "no-cache"}  # pages ask for a key: not in frames of others
_JSON = "application/json"

T = TypeVar("T")


def create(
    backend: Backend,
    settings: Settings,
    *,
    keys: auth.Keys | None = None,
    send_id: bool = False,
    metrics_page: Callable[[], Awaitable[bytes]] | None = None,
) -> FastAPI:
    """The ASGI application of a backend. `send_id`: see RequestIdMiddleware. `metrics_page` answers /metrics."""
    api = _Api(backend, settings, auth.load(settings.keys_file) if keys is None else keys)
    app = FastAPI(
        title="depthray",
        version=depthray.__version__,
        description=openapi.ABOUT,
        docs_url=None,  # FastAPI's pages load scripts from other servers; openapi.manual needs none
        redoc_url=None,
        redirect_slashes=False,  # a redirect would make clients send the body twice
    )
    app.add_middleware(RequestIdMiddleware, send_id=send_id)
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http)
    _add_routes(app, api)
    _add_pages(app, settings)
    if metrics_page:
        app.add_api_route("/metrics", api.metrics(metrics_page), include_in_schema=False)
    return app


def _add_routes(app: FastAPI, api: _Api) -> None:
    def route(path: str, method: str, function: Callable[..., Any], **description: Any) -> None:
        app.add_api_route(path, function, methods=[method], response_class=Response, **description)

    route("/v1/depth", "POST", api.depth, **openapi.ESTIMATE)
    route("/v1/models/{name}/depth", "POST", api.depth_of, **openapi.ESTIMATE)
    route("/v1/depth:batch", "POST", api.batch, **openapi.BATCH)
    tree = {200: {"description": "JSON", "content": {_JSON: {"schema": {"type": "object"}}}}}
    route("/v1/models", "GET", api.models, responses=tree | openapi.problems(401, 500, 503))
    route("/v1/models/{name}", "GET", api.model, responses=tree | openapi.problems(401, 404, 422, 500, 503))
    route("/v2/health/live", "GET", api.live, responses=tree)
    route("/v2/health/ready", "GET", api.ready, responses=tree | {503: {**tree[200], "description": "not yet"}})


def _add_pages(app: FastAPI, settings: Settings) -> None:
    async def docs() -> Response:
        return HTMLResponse(openapi.manual(app.openapi()), headers=_GUARDED)

    async def index() -> Response:
        return FileResponse(PAGE / "index.html", headers=_GUARDED)

    app.add_api_route("/docs", docs, include_in_schema=False)
    if settings.page and (PAGE / "index.html").is_file():
        app.add_api_route("/", index, include_in_schema=False)
        app.add_api_route("/page/example.jpg", _example, include_in_schema=False)  # before the folder /page
        app.mount("/page", StaticFiles(directory=PAGE))


async def _example() -> Response:
    data = await asyncio.to_thread(example_picture.jpeg)  # rendered when it is first asked for
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "max-age=86400"})


async def _answer_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)
    return problems.response(problem, request_id=request_id(request.scope))


async def _answer_http(request: Request, error: Exception) -> Response:
    """The problem of a request that Starlette's router refuses: an unknown path (404), a wrong method (405)."""
    assert isinstance(error, HTTPException)
    details = {404: "there is nothing at this address; see /docs", 405: "this address takes another method; see /docs"}
    detail = details.get(error.status_code, "the request is not understood; see /docs")
    # With its headers: that of a 405 lists the methods that are allowed.
    return await _answer_problem(request, Problem(error.status_code, detail, headers=error.headers))


class _EncodedAnswer(NamedTuple):
    """An encoded answer with its headers."""

    encoded: Encoded
    headers: dict[str, str]


class _StageTimer:
    """Milliseconds by stage, for the header Server-Timing."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def finish(self, stage: str) -> None:
        """End a stage, which began where the one before ended."""
        now = time.perf_counter()
        self.stages[stage] = (now - self._last) * 1000
        self._last = now

    def finish_backend(self, answer: BackendAnswer) -> None:
        """End the stages that the backend reports; what they leave of the time is the way there and back."""
        now = time.perf_counter()
        between = max(0.0, now - self._last - sum(answer.timings.values()))
        self.stages |= {stage: seconds * 1000 for stage, seconds in {**answer.timings, "transfer": between}.items()}
        self._last = now

    def header(self) -> str:
        """All stages, whose sum is the time since the timer was made."""
        return ", ".join(f"{stage};dur={value:.1f}" for stage, value in self.stages.items())


class _Api:
    """The routes."""

    def __init__(self, backend: Backend, settings: Settings, keys: auth.Keys) -> None:
        self._backend, self._settings, self._keys = backend, settings, keys
        # Limits how many images are decoded at a time: each may need several times its size in memory. Threads of our
        # own live on; anyio's end with the request that started them, each of which is a task of its own under Serve.
        self._threads = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="depthray-codec")

    async def depth(self, request: Request) -> Response:
        """Depth of one image by the default model."""
        return await self._estimate(request, "")

    async def depth_of(self, request: Request, name: str) -> Response:
        """Depth of one image by a model: its name, or name@version."""
        return await self._estimate(request, name)

    async def batch(self, request: Request) -> Response:
        """Depth of several images at once; one that fails does not affect the others."""
        pairs = self._check_query(request)
        model, rest = _split_model(pairs)
        options = self._options(request, rest)
        data = await body.read_body(request, self._settings.limits)
        kind = request.headers.get("content-type", "")
        # Only cut into parts here: one damaged image must not cost the others their answers.
        uploads = await self._decode(codec.read_batch, data, kind, self._settings.limits)
        deadline = time.monotonic() + self._settings.timeout_seconds
        images = await self._in_thread(batch_route.read, uploads, self._settings.limits)

        async def answer(image: InputImage | Problem) -> _EncodedAnswer:
            if isinstance(image, Problem):
                raise image
            return await self._answer(image, model, options, deadline=deadline, timer=_StageTimer())

        # All at once, so that they share forward passes.
        outcomes = await asyncio.gather(*(batch_route.settle(answer(image)) for image in images))
        batch_route.refuse_if_all_failed(outcomes)
        entries = [_entry(upload.name, outcome) for upload, outcome in zip(uploads, outcomes, strict=True)]
        packed = await self._in_thread(batch_route.pack, entries, request_id(request.scope))
        return Response(packed, media_type="application/zip")

    async def models(self, request: Request) -> Response:
        """The models that answer, the default first, and the limits of a request."""
        self._keys.check(request.headers)
        cards = await self._await_backend(self._backend.models())
        bounds = self._settings.limits.model_dump(mode="json")
        return _json({"models": [_card(card) for card in cards], "limits": bounds})

    async def model(self, request: Request, name: str) -> Response:
        """The card of one model: its inputs, maps, size and versions."""
        self._keys.check(request.headers)
        for card in await self._await_backend(self._backend.models()):
            if name in (card.name, card.id, *(f"{card.name}@{version}" for version in card.versions)):
                return _json(_card(card))
        raise Problem(404, "no such model; GET /v1/models lists them")

    async def live(self) -> Response:
        """Whether the process answers at all."""
        # Without a key, as is `ready`: the probes of a cluster manager have none.
        return _json({"live": True})

    async def ready(self) -> Response:
        """Whether an image sent now would be answered."""
        try:
            ready = await self._backend.ready()
        except problems.EXPECTED:  # a health check wants yes or no, not a problem
            ready = False
        return _json({"ready": ready}, 200 if ready else 503)

    def metrics(self, page: Callable[[], Awaitable[bytes]]) -> Callable[[Request], Awaitable[Response]]:
        """The route of the page for Prometheus, which needs a key as the rest does."""

        async def metrics(request: Request) -> Response:
            self._keys.check(request.headers)
            return Response(await page(), media_type="text/plain; version=0.0.4")

        return metrics

    async def _estimate(self, request: Request, model: str) -> Response:
        timer = _StageTimer()
        options = self._options(request, self._check_query(request))
        if request.path_params:
            _check_name(model or "?")  # "" would mean the default model, but here it is an empty name in the path
        data = await body.read_body(request, self._settings.limits)
        # From here: a slow upload has a limit of its own, and is not the server's fault.
        deadline = time.monotonic() + self._settings.timeout_seconds
        timer.finish("upload")
        kind = request.headers.get("content-type", "")
        image = await self._decode(codec.read, data, kind, self._settings.limits)
        timer.finish("decode")
        answer = await self._answer(image, model, options, deadline=deadline, timer=timer)
        return Response(answer.encoded.data, headers=answer.headers, media_type=answer.encoded.media)

    def _check_query(self, request: Request) -> list[tuple[str, str]]:
        """The pairs of the query string of a request whose key and length of query are accepted."""
        self._keys.check(request.headers)
        body.check_query(request, self._settings.limits)
        return request.query_params.multi_items()

    def _options(self, request: Request, pairs: list[tuple[str, str]]) -> Options:
        # Several Accept headers mean the same as one with all their values (RFC 9110).
        return query.parse(pairs, ", ".join(request.headers.getlist("accept")))

    async def _answer(
        self, image: InputImage, model: str, options: Options, *, deadline: float, timer: _StageTimer
    ) -> _EncodedAnswer:
        """Predict an image, and encode the maps."""
        view = options.view(*image.rgb.shape[:2])
        camera = None if view.is_assumed else view.camera
        call = self._backend.predict(model, image.rgb, image.others, deadline, native=options.native, camera=camera)
        prediction = await self._await_backend(call, deadline=deadline)
        # Backends check this too, but nothing may turn NaN into a valid-looking 0 of a PNG.
        if not all(np.isfinite(values).all() for values in prediction.maps.values()):
            raise problems.from_backend_error(Broken("the network's output is not finite everywhere"))
        timer.finish_backend(prediction)
        points = self._settings.limits.points
        encoded = await self._in_thread(lambda: codec.write(prediction.maps, image.rgb, options, points=points))
        timer.finish("encode")
        warnings = [*prediction.warnings, *_camera_warnings(options, image.rgb, prediction)]
        headers = _headers(encoded, prediction, warnings) | {"Server-Timing": timer.header()}
        return _EncodedAnswer(encoded, headers)

    async def _await_backend(self, call: Awaitable[T], *, deadline: float | None = None) -> T:
        """The result of the backend, or the Problem of its exception."""
        remaining = self._settings.timeout_seconds if deadline is None else deadline - time.monotonic()
        try:
            # The backend keeps to the deadline itself; this is for the case that it does not.
            async with asyncio.timeout(max(0.0, remaining) + 1.0):
                return await call
        except problems.EXPECTED as error:
            raise problems.from_backend_error(error) from error

    async def _decode(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return await self._in_thread(function, *arguments)
        except DataError as error:
            raise problems.from_upload_error(error) from None

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run off the event loop, which serves other requests meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _entry(name: str, outcome: _EncodedAnswer | Problem) -> batch_route.Entry:
    if isinstance(outcome, Problem):
        return batch_route.Entry(name, outcome, {})
    return batch_route.Entry(name, outcome.encoded, outcome.headers)


def _split_model(pairs: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
    """The pairs of a query -> the model it names, "" if none, and the other pairs."""
    names = [value for name, value in pairs if name == "model"]
    if len(names) > 1:
        raise Problem(400, "model is given twice")
    model = names[0] if names else ""
    _check_name(model)
    return model, [pair for pair in pairs if pair[0] != "model"]


def _check_name(model: str) -> None:
    # The same 404 as for an unknown name: the form of names is no reason for another kind of error.
    if model and not _MODEL.fullmatch(model):
        raise Problem(404, "no such model; GET /v1/models lists them")


def _camera_warnings(options: Options, rgb: NDArray[np.uint8], answer: BackendAnswer) -> list[str]:
    """What of the camera of an image (H,W,3) is not as in training, where the client gave one."""
    view = options.view(*rgb.shape[:2])
    if answer.focal is None or view.is_assumed:
        return []
    from depthray.cards import outside

    return outside.of_focal(answer.focal, view.camera.fx)


def _headers(encoded: Encoded, answer: BackendAnswer, warnings: Sequence[str]) -> dict[str, str]:
    height, width = answer.input_size
    headers = {"X-Model": answer.model_id, "X-Model-Input-Size": f"{width}x{height}", **encoded.headers}
    return headers | ({"X-Depth-Warning": "; ".join(warnings)} if warnings else {})


def _card(card: ModelCard) -> dict[str, Any]:
    height, width = card.size
    return {**asdict(card), "id": card.id, "size": {"height": height, "width": width}}


def _json(tree: dict[str, Any], status: int = 200) -> Response:
    return Response(openapi.pretty(tree), status, media_type=_JSON)
