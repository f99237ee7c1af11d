"""When the client of a depth server retries, how long it waits, and which errors are final."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import httpx
import numpy as np
import pytest
from serve_clients import QUICK, RGB, answering, npy
from serve_fake import Fake, busy, problem, running, wall
from starlette.responses import PlainTextResponse, Response

from depthray.client import DepthClient, RefusedError, RetryPolicy, ServerError, UnavailableError
from depthray.errors import DataError, ResourceError


def test_a_busy_server_is_retried(client: DepthClient, fake: Fake) -> None:
    fake.faults = [busy(), problem(503, "loading"), PlainTextResponse("timed out", 408)]
    assert client.predict(RGB).metres.shape == (12, 20)
    assert len(fake.seen) == 4
    fake.faults = [PlainTextResponse("Internal Server Error", 500)]  # of Ray's proxy when an ingress dies
    assert client.predict(RGB).metres.shape == (12, 20)


def test_the_wait_is_what_the_server_requests(client: DepthClient, fake: Fake) -> None:
    fake.faults = [busy(after="0.3")]
    before = time.monotonic()
    client.predict(RGB)
    assert 0.3 <= time.monotonic() - before < 1.5


def test_a_date_to_wait_for_is_understood(client: DepthClient, fake: Fake) -> None:
    fake.faults = [busy(after=formatdate(time.time() + 3600, usegmt=True))]
    with pytest.raises(UnavailableError):  # longer than we are willing to wait
        client.predict(RGB)
    assert len(fake.seen) == 1
    fake.faults = [busy(after=formatdate(time.time() - 3600, usegmt=True)), busy(after="soon")]
    client.predict(RGB)
    assert len(fake.seen) == 4


def test_tries_come_to_an_end(client: DepthClient, fake: Fake) -> None:
    fake.faults = [busy() for _ in range(10)]
    with pytest.raises(UnavailableError, match=r"/v1/depth: 429: queue is full") as caught:
        client.predict(RGB)
    assert caught.value.status == 429
    assert isinstance(caught.value, ResourceError)
    assert len(fake.seen) == QUICK.tries


def test_waits_double_and_are_never_shorter_than_requested() -> None:
    policy = RetryPolicy(tries=9, first=1.0, longest=8.0)
    for failures, most in ((1, 1), (2, 2), (3, 4), (4, 8), (8, 8)):
        waits = [policy.wait(failures, 0.0) for _ in range(200)]
        assert most / 2 <= min(waits) and max(waits) <= most
        assert max(waits) - min(waits) > most / 8  # clients that failed together do not come back together
    assert min(policy.wait(1, 5.0) for _ in range(50)) >= 5.0


@pytest.mark.parametrize("status", [400, 404, 406, 413, 415, 422])
def test_a_refusal_is_final_and_has_the_reason(client: DepthClient, fake: Fake, status: int) -> None:
    fake.faults = [problem(status, "the picture is too wide", **{"X-Request-ID": "r7"})]
    with pytest.raises(RefusedError, match="the picture is too wide") as caught:
        client.predict(RGB)
    assert isinstance(caught.value, DataError)
    assert (caught.value.status, caught.value.request_id) == (status, "r7")
    assert len(fake.seen) == 1


def test_a_failure_of_the_server_is_not_repeated(client: DepthClient, fake: Fake) -> None:
    fake.faults = [problem(500, "an error on our side")]
    with pytest.raises(ServerError, match="an error on our side") as caught:
        client.predict(RGB)
    assert not isinstance(caught.value, DataError | ResourceError)
    assert len(fake.seen) == 1


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (PlainTextResponse("Path not found.\nPing /-/routes", 404), "404: Path not found. Ping /-/routes"),
        (Response(b"<html><h1>Bad gateway", 400, media_type="text/html"), "400: Bad Request"),
        (Response(b"{not json", 400, media_type="application/problem+json"), "400: Bad Request"),
        (Response(b"[1]", 400, media_type="application/json"), "400: Bad Request"),
        (PlainTextResponse("\x1b[31mred\x07", 400), r"\?\[31mred\?"),
        (PlainTextResponse("x" * 100_000, 400), "x{300}$"),
    ],
)
def test_any_error_body_becomes_one_printable_line(
    client: DepthClient, fake: Fake, response: Response, message: str
) -> None:
    fake.faults = [response]
    with pytest.raises(RefusedError, match=message) as caught:
        client.predict(RGB)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_a_key_is_sent() -> None:
    with running(Fake(key="s3cret").app) as url:
        with DepthClient(url, key="s3cret") as client:
            assert client.predict(RGB).metres.shape == (12, 20)
        for key in ("", "wrong"):
            with DepthClient(url, key=key) as client, pytest.raises(RefusedError, match="give the client its key"):
                client.predict(RGB)


def test_an_unreachable_server_is_reported_after_the_tries() -> None:
    tries = []

    def refuse(request: httpx.Request) -> httpx.Response:
        tries.append(request)
        raise httpx.ConnectError("connection refused")

    with pytest.raises(UnavailableError, match=r"http://depth\.test does not answer: connection refused") as caught:
        answering(refuse).predict(RGB)
    assert caught.value.status == 0 and len(tries) == QUICK.tries


def test_a_lost_connection_is_retried() -> None:
    outcomes: list[Any] = [
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("cut"),
        httpx.Response(200, content=npy(wall(RGB))),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    np.testing.assert_array_equal(answering(answer).predict(RGB).metres, wall(RGB))


def test_a_slow_server_runs_into_the_timeout(url: str, fake: Fake) -> None:
    fake.faults = [0.5]
    with (
        DepthClient(url, timeout=0.1, retry=RetryPolicy(tries=1)) as client,
        pytest.raises(UnavailableError, match="timed out"),
    ):
        client.predict(RGB)
