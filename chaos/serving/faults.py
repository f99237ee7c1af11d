"""Networks that fail, out of memory, with their device or by NaN: retried, refused, replaced; never a wrong answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from chaos.serving.load import Load, failed, longest_gap, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import Service, png_image, wait_until

CLIENTS = 4
REPLICA_FAULTS: dict[str, dict[str, Any]] = {
    "too little memory for one image": {"memory": 0},
    "a lost device": {"error": "CUDA error: device-side assert triggered"},
    "predictions that are NaN": {"nan": "all"},
}


def faults(sizes: Sizes) -> Iterator[Finding]:
    """Too little memory, images that break the network or its process, replicas that fail for good."""
    with Service(sizes.port, faults={}) as service:
        yield _exceed_memory(service)
        yield _send_nan_image(service)
        for what, fault in REPLICA_FAULTS.items():
            yield _break_replica(service, what, fault)
        yield _send_fatal_image(service)


def _exceed_memory(service: Service) -> Finding:
    """Two images do not fit into memory at once."""
    service.inject(memory=1)
    with Load(service.port, png_image(), clients=8) as load:
        load.wait(200)
    service.inject()
    wrong = failed(load.outcomes)
    return Finding("batches that do not fit into memory", "all 200", tally(load.outcomes), not wrong)


def _send_nan_image(service: Service) -> Finding:
    """An image for which the network returns NaN, among others."""
    black = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    service.inject(nan="black")
    before = service.pids("model")
    with Load(service.port, png_image(), clients=CLIENTS) as load:
        load.wait(20)
        codes = [service.request(body=black).status for _ in range(20)]
        load.wait(20)
    service.inject()
    observed = f"{codes.count(500)} of 20 black ones 500, others {tally(load.outcomes)}, "
    kept = service.pids("model") == before
    observed += "the replica stays" if kept else "the replica was replaced"
    good = set(codes) == {500} and not failed(load.outcomes) and kept
    expected = "20 of 20 500, others 200, the replica stays"
    return Finding("an image whose prediction is NaN", expected, observed, good)


def _break_replica(service: Service, what: str, fault: dict[str, Any]) -> Finding:
    """A replica that fails for good."""
    pids = service.pids("model")
    with Load(service.port, png_image(), clients=CLIENTS) as load:
        load.wait(50)
        at = time.monotonic()
        service.inject(**fault, pids=pids)  # not in the process that replaces them
        try:
            wait_until(lambda: set(service.pids("model")).isdisjoint(pids), 90, "another replica")
            replaced = f"replaced after {time.monotonic() - at:.1f} s"
        except TimeoutError:
            replaced = "not replaced"
            service.inject()
        load.wait(100)
    service.inject()
    wrong = failed(load.outcomes)
    gap = longest_gap(load.outcomes, at)
    observed = f"{tally(load.outcomes)}; {replaced}, longest time without an answer {gap:.1f} s"
    good = not wrong and replaced != "not replaced"
    return Finding(what, "no request fails, the replica is replaced", observed, good)


def _send_fatal_image(service: Service) -> Finding:
    """An image at which the process dies, of a kind that no check foresees, sent once."""
    black = cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    service.inject(exit="black")
    with Load(service.port, png_image(), clients=CLIENTS) as load:
        load.wait(20)
        at = time.monotonic()
        code = service.request(body=black, timeout=90).status
        took = time.monotonic() - at
        load.wait(100)
    service.inject()
    wrong = len(failed(load.outcomes))
    observed = f"{code} after {took:.1f} s, others {tally(load.outcomes)}"
    # Requests that shared a forward pass with it, in each process that died, cannot be distinguished from it.
    expected = f"refused, of the others at most {CLIENTS} not answered"
    return Finding("an image at which the process dies", expected, observed, code >= 500 and wrong <= CLIENTS)
