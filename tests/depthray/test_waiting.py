"""Nothing is silent for long: lines on what is awaited."""

from __future__ import annotations

import io
import time

import pytest

from depthray import waiting
from depthray.runs import console
from depthray.waiting import Heartbeat


def wait_for(stream: io.StringIO, text: str) -> None:
    end = time.monotonic() + 60
    while text not in stream.getvalue():
        assert time.monotonic() < end, stream.getvalue()
        time.sleep(0.02)


def test_a_line_says_what_is_awaited_and_what_after_a_beat() -> None:
    stream = io.StringIO()
    with Heartbeat("Ray to start", stream=stream, every=0.05) as heartbeat:
        wait_for(stream, "waiting for Ray to start: 0 s")
        heartbeat.beat("the workers")
        wait_for(stream, "waiting for the workers: 0 s")
    lines = stream.getvalue()
    time.sleep(0.2)
    assert stream.getvalue() == lines, "none after its context"


def test_what_takes_no_time_needs_no_line() -> None:
    stream = io.StringIO()
    with Heartbeat("Ray to start", stream=stream, every=60):
        time.sleep(0.1)
    assert not stream.getvalue()


def test_a_log_says_what_the_run_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "EVERY", 0.05)
    stream = io.StringIO()
    display = console.Display(stream, awaited="Ray to start")
    wait_for(stream, "waiting for Ray to start")
    display.await_next("2 workers to start")
    wait_for(stream, "waiting for 2 workers to start")
    display.show({"kind": "note", "text": "training starts"})
    wait_for(stream, "training starts\nwaiting for the first steps")
    display.close()
