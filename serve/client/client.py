"""A depth server from Python: `DepthClient` waits for its answers, `AsyncDepthClient` is awaited.

with DepthClient("http://localhost:8000") as client:
    estimate = client.predict("room.jpg")     # estimate.metres (H,W), estimate.points()

A full queue, a restarting server and a lost connection are tried again, after the time the server asks for.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Self, TypeVar, cast

import httpx

from depthray.errors import UsageError
from serve.client import requests, responses
from serve.client.requests import Call, Map, Picture, Query
from serve.client.responses import Estimate, RefusedError, ServerError, UnavailableError

__all__ = ["AsyncDepthClient", "DepthClient", "Estimate", "Patience", "RefusedError", "ServerError", "UnavailableError"]

T = TypeVar("T")

RETRIED = (408, 429, 502, 503, 504)


class Patience(NamedTuple):
    """How long to keep trying, in seconds. Waits double from `first`; one asked to be beyond `longest` is given up."""

    tries: int = 5
    first: float = 0.5
    longest: float = 30.0

    def wait(self, failures: int, asked: float) -> float:
        """-> seconds before the next try: what the server asked for, or longer by chance, so that clients spread."""
        backoff: float = min(self.first * 2 ** (failures - 1), self.longest)
        return max(asked * random.uniform(1.0, 1.25), backoff * random.uniform(0.5, 1.0))


PATIENCE = Patience()


_Outcome = httpx.Response | httpx.RequestError | None
_Step = httpx.Request | float  # to be sent, or seconds to sleep


class _Wire:
    """What both clients share: everything but waiting."""

    _http: httpx.Client | httpx.AsyncClient

    def __init__(self, url: str, *, key: str, patience: Patience) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"{url}: an address of a server begins with http:// or https://")
        try:
            httpx.URL(url)
        except httpx.InvalidURL as error:
            raise UsageError(f"{url}: no address: {error}") from None
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._patience = patience

    def _flow(self, call: Call[T]) -> Generator[_Step, _Outcome, T]:
        """Yields requests to send and seconds to sleep, is sent what came of them; returns what the call reads."""
        outcome: _Outcome = None
        for failures in range(max(1, self._patience.tries)):
            if failures:
                wait = self._patience.wait(failures, _asked(outcome))
                if wait > self._patience.longest:
                    break
                yield wait
            outcome = yield self._request(call)
            if isinstance(outcome, httpx.Response) and not _passing(outcome):
                return call.read(responses.good(outcome))
        raise self._exhausted(outcome)

    def _request(self, call: Call[Any]) -> httpx.Request:
        body = {**call.body, "headers": {**self._headers, **call.body.get("headers", {})}}
        return self._http.build_request(call.method, f"{self._url}/{call.path}", params=dict(call.query), **body)

    def _exhausted(self, outcome: _Outcome) -> ServerError:
        if isinstance(outcome, httpx.Response):
            return responses.error(UnavailableError, outcome)
        reason = type(outcome).__name__ if not str(outcome) else str(outcome)
        return UnavailableError(f"{self._url} does not answer: {reason}", status=0)


class DepthClient(_Wire):
    """A depth server; every method waits for its answer. Safe to share between threads."""

    _http: httpx.Client

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout: float = 60.0,
        patience: Patience = PATIENCE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, key=key, patience=patience)
        self._http = httpx.Client(timeout=timeout, transport=transport)

    def predict(self, picture: Picture, *, model: str = "", size: str = "", **others: Map) -> Estimate:
        """Depth of a picture; `others` are the model's further inputs, `size="model"` gives the network's own map."""
        return self._run(requests.predict(picture, "npy", others, model=model, size=size))

    def maps(self, picture: Picture, *, model: str = "", size: str = "", **others: Map) -> Estimate:
        """All a model gives, so also the mask of one that finds the foreground; otherwise as `predict`."""
        return self._run(requests.predict(picture, "npz", others, model=model, size=size))

    def fetch(
        self,
        picture: Picture,
        form: str,
        *,
        model: str = "",
        query: Query | None = None,
        **others: Map,
    ) -> bytes:
        """The answer as a file: form is png, npy, npz, colour, ply, glb; `query` as in the API (cmap, fov, fx ...)."""
        return self._run(requests.fetch(picture, form, others, model=model, query=query or {}))

    def batch(
        self, pictures: Sequence[Picture], *, model: str = "", **others: Sequence[Map]
    ) -> list[Estimate | ServerError]:
        """Several pictures in one request -> for each its maps, or the error that is its own; the order is kept."""
        return self._run(requests.batch(pictures, others, model=model))

    def models(self) -> list[dict[str, Any]]:
        """The server's models: name, version, inputs, targets and what else it tells of them."""
        return self._run(requests.MODELS)

    def ready(self) -> bool:
        """Whether a request sent now would be answered. One try."""
        return _is_ready(self._send(self._request(requests.READY)))

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        flow = self._flow(call)
        outcome: _Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                return cast("T", end.value)
            outcome = self._do(step)

    def _do(self, step: _Step) -> _Outcome:
        if isinstance(step, httpx.Request):
            return self._send(step)
        time.sleep(step)
        return None

    def _send(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return self._http.send(request)
        except httpx.RequestError as error:
            return error


class AsyncDepthClient(_Wire):
    """A depth server, awaited; otherwise as `DepthClient`."""

    _http: httpx.AsyncClient

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        timeout: float = 60.0,
        patience: Patience = PATIENCE,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, key=key, patience=patience)
        self._http = httpx.AsyncClient(timeout=timeout, transport=transport)

    async def predict(self, picture: Picture, *, model: str = "", size: str = "", **others: Map) -> Estimate:
        """Depth of a picture; see `DepthClient.predict`."""
        return await self._run(requests.predict(picture, "npy", others, model=model, size=size))

    async def maps(self, picture: Picture, *, model: str = "", size: str = "", **others: Map) -> Estimate:
        """All a model gives; see `DepthClient.maps`."""
        return await self._run(requests.predict(picture, "npz", others, model=model, size=size))

    async def fetch(
        self,
        picture: Picture,
        form: str,
        *,
        model: str = "",
        query: Query | None = None,
        **others: Map,
    ) -> bytes:
        """The answer as a file; see `DepthClient.fetch`."""
        return await self._run(requests.fetch(picture, form, others, model=model, query=query or {}))

    async def batch(
        self, pictures: Sequence[Picture], *, model: str = "", **others: Sequence[Map]
    ) -> list[Estimate | ServerError]:
        """Several pictures in one request; see `DepthClient.batch`."""
        return await self._run(requests.batch(pictures, others, model=model))

    async def models(self) -> list[dict[str, Any]]:
        """The server's models."""
        return await self._run(requests.MODELS)

    async def ready(self) -> bool:
        """Whether a request sent now would be answered. One try."""
        return _is_ready(await self._send(self._request(requests.READY)))

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        flow = self._flow(call)
        outcome: _Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as end:
                return cast("T", end.value)
            outcome = await self._do(step)

    async def _do(self, step: _Step) -> _Outcome:
        if isinstance(step, httpx.Request):
            return await self._send(step)
        await asyncio.sleep(step)
        return None

    async def _send(self, request: httpx.Request) -> httpx.Response | httpx.RequestError:
        try:
            return await self._http.send(request)
        except httpx.RequestError as error:
            return error


def _passing(response: httpx.Response) -> bool:
    """Whether it may be otherwise when tried again. A plain 500 is Ray's proxy whose request's ingress has died."""
    ours = "json" in response.headers.get("Content-Type", "")
    return response.status_code in RETRIED or (response.status_code == 500 and not ours)


def _is_ready(outcome: _Outcome) -> bool:
    return isinstance(outcome, httpx.Response) and outcome.is_success


def _asked(outcome: _Outcome) -> float:
    return responses.retry_after(outcome) if isinstance(outcome, httpx.Response) else 0.0
