"""Processes of a service are killed under load: who notices, and for how long."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from chaos.serving.load import Load, failed, good, recovery, silence, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import HEAD, Service, eventually, picture

CLIENTS = 4
ENDED = 120.0  # seconds until the command has noticed that its cluster is gone
TWO = tuple(f"{part}_replicas.{end}=2" for part in ("model", "ingress") for end in ("min", "max"))
# Seconds until everybody is answered again, with one and with two of each replica. An ingress that dies takes its
# requests along: only their clients can send them again.
WANTED = {"model": (0.0, 0.0), "ingress": (20.0, 5.0), "proxy": (20.0, 20.0), "controller": (0.0, 0.0)}


def kills(sizes: Sizes) -> Iterator[Finding]:
    """SIGKILL to a replica of the networks, one of the ingress, the proxy and the controller."""
    for count, words in ((1, ()), (2, TWO)):
        with Service(sizes.port, *words) as service:
            for role, limits in WANTED.items():
                yield _killed(service, role, count, limits[count - 1])


def _killed(service: Service, role: str, count: int, limit: float) -> Finding:
    eventually(lambda: len(service.pids(role)) == (count if role in ("model", "ingress") else 1), 60, f"all of {role}")
    with Load(service.port, picture(), clients=CLIENTS) as load:
        load.wait(50)
        at = time.monotonic()
        killed = service.kill(role)
        eventually(lambda: killed not in service.pids(role) and len(service.pids(role)) > 0, 60, f"{role} is back")
        eventually(service.ready, 60, "the service is ready again")
        load.wait(200)
        time.sleep(8)  # a new one may fail later than it is seen
        load.wait(50)
    lost = len(failed(load.outcomes))
    seconds, pause = recovery(load.outcomes, at), silence(load.outcomes, at)
    found = f"{lost} failed of {len(load.outcomes)} ({tally(failed(load.outcomes)) or 'none'}), "
    found += f"last failure after {seconds:.1f} s, longest silence {pause:.1f} s"
    expected = f"answers again within {limit:g} s" if limit else "nobody fails"
    return Finding(f"{role} killed, {count} of each", expected, found, seconds <= limit and bool(good(load.outcomes)))


def heads(sizes: Sizes) -> Iterator[Finding]:
    """SIGKILL to what Ray's head consists of. Nothing outlives it on one host: the command has to end by itself."""
    for role in HEAD:
        with Service(sizes.port) as service:
            assert service.process
            with Load(service.port, picture(), clients=CLIENTS) as load:
                load.wait(50)
                at = time.monotonic()
                service.kill(role)
                try:
                    code = f"{service.process.wait(ENDED)} after {time.monotonic() - at:.0f} s"
                except subprocess.TimeoutExpired:
                    code = "still running"
            first = min((each.ended - at for each in failed(load.outcomes) if each.ended > at), default=float("inf"))
            found = f"exit {code}, first failure after {first:.1f} s ({tally(load.outcomes)})"
            ended = code != "still running" and not code.startswith("0 ")
            yield Finding(
                f"{role} killed", f"the command ends within {ENDED:g} s, not as if all were well", found, ended
            )
