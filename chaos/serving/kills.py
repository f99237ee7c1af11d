"""Processes of a service are killed under load: which requests fail, and for how long."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

from chaos.serving.load import Load, failed, good, longest_gap, recovery, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import HEAD, Service, png_image, wait_until

CLIENTS = 4
END_SECONDS = 120.0  # until the command has noticed that its cluster is gone
TWO_REPLICAS = tuple(f"{part}_replicas.{end}=2" for part in ("model", "ingress") for end in ("min", "max"))
# Seconds until all requests are answered again, with one and with two of each replica. The requests of an ingress that
# dies are lost with it: only their clients can send them again.
LIMITS = {"model": (0.0, 0.0), "ingress": (20.0, 5.0), "proxy": (20.0, 20.0), "controller": (0.0, 0.0)}


def kills(sizes: Sizes) -> Iterator[Finding]:
    """SIGKILL to a replica of the networks, one of the ingress, the proxy and the controller."""
    for count, overrides in ((1, ()), (2, TWO_REPLICAS)):
        with Service(sizes.port, *overrides) as service:
            for role, limits in LIMITS.items():
                yield _kill_under_load(service, role, count, limits[count - 1])


def _kill_under_load(service: Service, role: str, count: int, limit: float) -> Finding:
    wait_until(lambda: len(service.pids(role)) == (count if role in ("model", "ingress") else 1), 60, f"all of {role}")
    with Load(service.port, png_image(), clients=CLIENTS) as load:
        load.wait(50)
        at = time.monotonic()
        killed = service.kill(role)
        wait_until(lambda: killed not in service.pids(role) and len(service.pids(role)) > 0, 60, f"{role} is back")
        wait_until(service.is_ready, 60, "the service is ready again")
        load.wait(200)
        time.sleep(8)  # a new process may fail only after it is seen
        load.wait(50)
    lost = len(failed(load.outcomes))
    seconds, gap = recovery(load.outcomes, at), longest_gap(load.outcomes, at)
    observed = f"{lost} failed of {len(load.outcomes)} ({tally(failed(load.outcomes)) or 'none'}), "
    observed += f"last failure after {seconds:.1f} s, longest time without an answer {gap:.1f} s"
    expected = f"answers again within {limit:g} s" if limit else "no request fails"
    return Finding(
        f"{role} killed, {count} of each", expected, observed, seconds <= limit and bool(good(load.outcomes))
    )


def ray_head(sizes: Sizes) -> Iterator[Finding]:
    """SIGKILL to the processes of Ray's head. Nothing outlives it on one host: the command has to end by itself."""
    for role in HEAD:
        with Service(sizes.port) as service:
            assert service.process
            with Load(service.port, png_image(), clients=CLIENTS) as load:
                load.wait(50)
                at = time.monotonic()
                service.kill(role)
                try:
                    code = f"{service.process.wait(END_SECONDS)} after {time.monotonic() - at:.0f} s"
                except subprocess.TimeoutExpired:
                    code = "still running"
            first = min((each.ended - at for each in failed(load.outcomes) if each.ended > at), default=float("inf"))
            observed = f"exit {code}, first failure after {first:.1f} s ({tally(load.outcomes)})"
            ended = code != "still running" and not code.startswith("0 ")
            yield Finding(
                f"{role} killed",
                f"the command ends within {END_SECONDS:g} s, with an exit code other than 0",
                observed,
                ended,
            )
