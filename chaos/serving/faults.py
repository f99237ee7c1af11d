"""Networks that fail, as memory, devices and numbers do: retried smaller, refused, replaced; never a wrong answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from chaos.serving.load import Load, failed, silence, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import Service, eventually, picture

CLIENTS = 4
ILL: dict[str, dict[str, Any]] = {
    "too little memory for one picture": {"memory": 0},
    "a device that is gone": {"error": "CUDA error: device-side assert triggered"},
    "answers that are no numbers": {"nan": "all"},
}


def faults(sizes: Sizes) -> Iterator[Finding]:
    """Too little memory, pictures that break the network or its process, replicas that fail for good."""
    with Service(sizes.port, faults={}) as service:
        yield _halved(service)
        yield _alone(service)
        for what, order in ILL.items():
            yield _ill(service, what, order)
        yield _deadly(service)


def _halved(service: Service) -> Finding:
    """Two pictures do not fit into memory at once."""
    service.order(memory=1)
    with Load(service.port, picture(), clients=8) as load:
        load.wait(200)
    service.order()
    wrong = failed(load.outcomes)
    return Finding("batches that do not fit into memory", "all 200", tally(load.outcomes), not wrong)


def _alone(service: Service) -> Finding:
    """An image for which the network returns NaN, among others."""
    black = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    service.order(nan="black")
    before = service.pids("model")
    with Load(service.port, picture(), clients=CLIENTS) as load:
        load.wait(20)
        codes = [service.ask(body=black).status for _ in range(20)]
        load.wait(20)
    service.order()
    found = f"{codes.count(500)} of 20 black ones 500, others {tally(load.outcomes)}, "
    kept = service.pids("model") == before
    found += "the replica stays" if kept else "the replica was replaced"
    as_wanted = set(codes) == {500} and not failed(load.outcomes) and kept
    return Finding("a picture the network cannot bear", "20 of 20 500, others 200, the replica stays", found, as_wanted)


def _ill(service: Service, what: str, order: dict[str, Any]) -> Finding:
    """A replica that fails for good."""
    pids = service.pids("model")
    with Load(service.port, picture(), clients=CLIENTS) as load:
        load.wait(50)
        at = time.monotonic()
        service.order(**order, pids=pids)
        try:
            eventually(lambda: set(service.pids("model")).isdisjoint(pids), 90, "another replica")
            replaced = f"replaced after {time.monotonic() - at:.1f} s"
        except TimeoutError:
            replaced = "not replaced"
            service.order()
        load.wait(100)
    service.order()
    wrong = failed(load.outcomes)
    found = f"{tally(load.outcomes)}; {replaced}, longest silence {silence(load.outcomes, at):.1f} s"
    return Finding(what, "nobody fails, the replica is replaced", found, not wrong and replaced != "not replaced")


def _deadly(service: Service) -> Finding:
    """An image at which the process dies, of a kind that no check foresees, sent once."""
    black = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    service.order(exit="black")
    with Load(service.port, picture(), clients=CLIENTS) as load:
        load.wait(20)
        at = time.monotonic()
        code = service.ask(body=black, timeout=90).status
        took = time.monotonic() - at
        load.wait(100)
    service.order()
    wrong = len(failed(load.outcomes))
    found = f"{code} after {took:.1f} s, others {tally(load.outcomes)}"
    # Those that were with it in each of the processes that died cannot be told from it.
    expected = f"refused, of the others at most {CLIENTS} not answered"
    return Finding("a picture at which the process dies", expected, found, code >= 500 and wrong <= CLIENTS)
