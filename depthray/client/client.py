"""A depth server from Python: `DepthClient` blocks, `AsyncDepthClient` is awaited.

with DepthClient("http://localhost:8000") as client:
    estimate = client.predict("room.jpg")     # estimate.metres (H,W), estimate.points()

Requests are retried while the queue is full, the server restarts or the connection is lost, after the time that the
server asks for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, TypeVar

import httpx
import tenacity

from depthray.client import requests, responses
from depthray.client.requests import Call, Image, Map, Query
from depthray.client.responses import Estimate, ServerError, UnavailableError
from depthray.errors import UsageError

T = TypeVar("T")

TRANSIENT = (408, 429, 502, 503, 504)  # statuses


class RetryPolicy(NamedTuple):
    """How often to try, and seconds between tries: they double from `first`. No wait is longer than `longest`."""

    tries: int = 5
    first: float = 0.5
    longest: float = 30.0

    def wait(self, failures: int, requested: float) -> float:
        """-> seconds before the next try: those that the server requested, or longer, at random to spread clients."""
        backoff: float = min(self.first * 2 ** (failures - 1), self.longest)
        return max(requested * random.uniform(1.0, 1.25), backoff * random.uniform(0.5, 1.0))


RETRY = RetryPolicy()


_Outcome = httpx.Response | httpx.RequestError


class _BaseClient:
    """The part of both clients that does not wait for anything."""

    _http: httpx.Client | httpx.AsyncClient

    def __init__(self, url: str, *, key: str, retry: RetryPolicy) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url}: the address of a server begins with http:// or https://")
        try:
            # Else httpx would report it with the first request.
            httpx.URL(url)
        except httpx.InvalidURL as error:
            raise UsageError(f"{url}: not an address: {error}") from None
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._retry = retry

    def _retry_options(self) -> dict[str, Any]:
        """The arguments of tenacity. Outcomes are values, so that responses and lost connections are treated alike."""
        return {
            "retry": tenacity.retry_if_result(_is_transient),
            "wait": self._wait,
            "stop": self._is_over,
            "retry_error_callback": _last_outcome,
        }

    def _wait(self, state: tenacity.RetryCallState) -> float:
        return self._retry.wait(state.attempt_number, _requested_wait(_last_outcome(state)))

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        # A server that asks for a longer wait than the policy allows is not tried again at all.
        return state.attempt_number >= self._retry.tries or state.upcoming_sleep > self._retry.longest

    def _request(self, call: Call[Any]) -> httpx.Request:
        body = {**call.body, "headers": {**self._headers, **call.body.get("headers", {})}}
        return self._http.build_request(call.method, f"{self._url}/{call.path}", params=dict(call.query), **body)

    def _read(self, call: Call[T], outcome: _Outcome) -> T:
        """The result of a call, or the error of its last outcome."""
        if isinstance(outcome, httpx.Response):
            if _is_transient(outcome):
                raise responses.error(UnavailableError, outcome)
            return call.read(responses.raise_for_status(outcome))
        reason = str(outcome) or type(outcome).__name__
        raise UnavailableError(f"{self._url} does not answer: {reason}", status=0)


class DepthClient(_BaseClient):
    """Client of a depth server; every method blocks until its answer. Safe to share between threads."""

    _http: httpx.Client

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout: float = 60.0,
        retry: RetryPolicy = RETRY,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, key=key, retry=retry)
        self._http = httpx.Client(timeout=timeout, transport=transport)

    def predict(
        self, image: Image, *, model: str = "", size: str = "", camera: Sequence[float] | None = None, **others: Map
    ) -> Estimate:
        """Depth of an image; `others` are the model's further inputs, `size="model"` gives the network's own map.

        `camera` is fx, fy, cx, cy in pixels of the upright image, which some models need (`canonical_focal`).
        """
        return self._run(requests.predict(image, "npy", others, model=model, size=size, camera=camera))

    def maps(
        self, image: Image, *, model: str = "", size: str = "", camera: Sequence[float] | None = None, **others: Map
    ) -> Estimate:
        """All maps that a model predicts, so its mask too; otherwise as `predict`."""
        return self._run(requests.predict(image, "npz", others, model=model, size=size, camera=camera))

    def fetch(
        self,
        image: Image,
        form: str,
        *,
        model: str = "",
        query: Query | None = None,  # a dict, as names of the query and of inputs could be the same
        **others: Map,
    ) -> bytes:
        """The answer as a file: form is png, npy, npz, colour, ply, glb; `query` as in the API (cmap, fov, fx ...)."""
        return self._run(requests.fetch(image, form, others, model=model, query=query or {}))

    def batch(
        self, images: Sequence[Image], *, model: str = "", **others: Sequence[Map]
    ) -> list[Estimate | ServerError]:
        """Several images in one request -> for each, in their order, its maps or its own error."""
        return self._run(requests.batch(images, others, model=model))

    def models(self) -> list[dict[str, Any]]:
        """The server's models: name, version, inputs, targets and more, as in GET /v1/models."""
        return self._run(requests.MODELS)

    def ready(self) -> bool:
        """Whether a request sent now would be answered. One try, as a retry would wait until it is."""
        return _is_ready(self._send(self._request(requests.READY)))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        def attempt() -> _Outcome:
            return self._send(self._request(call))  # a new request each time, as its body is consumed

        # Created for each call: it has a state, and the client may be shared between threads.
        return self._read(call, tenacity.Retrying(**self._retry_options())(attempt))

    def _send(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return self._http.send(request)
        except httpx.RequestError as error:
            return error


class AsyncDepthClient(_BaseClient):
    """Client of a depth server for asyncio; otherwise as `DepthClient`."""

    _http: httpx.AsyncClient

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout: float = 60.0,
        retry: RetryPolicy = RETRY,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, key=key, retry=retry)
        self._http = httpx.AsyncClient(timeout=timeout, transport=transport)

    async def predict(
        self, image: Image, *, model: str = "", size: str = "", camera: Sequence[float] | None = None, **others: Map
    ) -> Estimate:
        """Depth of an image; see `DepthClient.predict`."""
        return await self._run(requests.predict(image, "npy", others, model=model, size=size, camera=camera))

    async def maps(
        self, image: Image, *, model: str = "", size: str = "", camera: Sequence[float] | None = None, **others: Map
    ) -> Estimate:
        """All maps that a model predicts; see `DepthClient.maps`."""
        return await self._run(requests.predict(image, "npz", others, model=model, size=size, camera=camera))

    async def fetch(
        self,
        image: Image,
        form: str,
        *,
        model: str = "",
        query: Query | None = None,
        **others: Map,
    ) -> bytes:
        """The answer as a file; see `DepthClient.fetch`."""
        return await self._run(requests.fetch(image, form, others, model=model, query=query or {}))

    async def batch(
        self, images: Sequence[Image], *, model: str = "", **others: Sequence[Map]
    ) -> list[Estimate | ServerError]:
        """Several images in one request; see `DepthClient.batch`."""
        return await self._run(requests.batch(images, others, model=model))

    async def models(self) -> list[dict[str, Any]]:
        """The server's models."""
        return await self._run(requests.MODELS)

    async def ready(self) -> bool:
        """Whether a request sent now would be answered. One try."""
        return _is_ready(await self._send(self._request(requests.READY)))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        async def attempt() -> _Outcome:
            return await self._send(self._request(call))

        return self._read(call, await tenacity.AsyncRetrying(**self._retry_options())(attempt))

    async def _send(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.send(request)
        except httpx.RequestError as error:
            return error


def _is_transient(outcome: _Outcome) -> bool:
    """Whether another try may succeed."""
    if isinstance(outcome, httpx.RequestError):
        return True
    # A plain 500 is from Ray's proxy, when the ingress of the request has died; ours is a JSON document, and final.
    is_ours = "json" in outcome.headers.get("Content-Type", "")
    return outcome.status_code in TRANSIENT or (outcome.status_code == 500 and not is_ours)


def _is_ready(outcome: _Outcome) -> bool:
    return isinstance(outcome, httpx.Response) and outcome.is_success


def _requested_wait(outcome: _Outcome) -> float:
    """-> seconds that the server asks to wait, 0 without an answer."""
    return responses.retry_after(outcome) if isinstance(outcome, httpx.Response) else 0.0


def _last_outcome(state: tenacity.RetryCallState) -> _Outcome:
    assert state.outcome is not None  # set before tenacity calls any of the functions above
    outcome: _Outcome = state.outcome.result()
    return outcome
