"""A service is stopped, or replaced by one with other settings, under load: requests sent before are answered."""

from __future__ import annotations

import time
from collections.abc import Iterator

from chaos.serving.load import Load, Outcome, failed, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import Service, png_image, wait_until

SENT = 0.1  # seconds before the signal by which a request has certainly left its client
SLOW = 7.0  # seconds of a forward pass; more than the 5 s that Ray gives a proxy to end


def shutdown(sizes: Sizes) -> Iterator[Finding]:
    """SIGTERM while all clients keep sending: requests sent before it are answered, in quick forward passes or slow."""
    for pause, clients in ((0.3, 24), (SLOW, 6)):
        code, took, at, outcomes = _terminate_under_load(sizes.port, pause, clients)
        ongoing = [each for each in outcomes if each.began < at - SENT < each.ended]
        later = [each for each in outcomes if each.began >= at - SENT]
        observed = f"{len(failed(ongoing))} of {len(ongoing)} ({tally(ongoing)}), later ones {tally(later) or 'none'}"
        what = f"ongoing requests at SIGTERM, forward passes of {pause:g} s"
        yield Finding(what, "0 dropped", observed, not failed(ongoing) and bool(ongoing))
        yield Finding("exit code", "0 within 40 s", f"{code} after {took:.1f} s", code == 0 and took < 40)


def _terminate_under_load(port: int, pause: float, clients: int) -> tuple[int, float, float, list[Outcome]]:
    """Exit code, seconds it took, the time of the signal, and all requests."""
    with (
        Service(port, "model.max_batch=2", "answer_seconds=60", faults={"pause": 0.0}) as service,  # none is refused
        Load(port, png_image(), clients=clients) as load,
    ):
        load.wait(20)
        service.inject(pause=pause)
        time.sleep(max(2.0, pause / 2))  # until every client waits for an answer
        at = time.monotonic()
        service.terminate()
        assert service.process
        code = service.process.wait(120)
        return code, time.monotonic() - at, at, load.outcomes


def rolling_update(sizes: Sizes) -> Iterator[Finding]:
    """Other settings are deployed to the running service, which replaces all replicas one by one."""
    with Service(sizes.port) as service, service.driver():
        with Load(service.port, png_image()) as load:
            load.wait(100)
            before = {role: set(service.pids(role)) for role in ("model", "ingress")}
            at = time.monotonic()
            _deploy(service)
            wait_until(lambda: all(before[role].isdisjoint(service.pids(role)) for role in before), 120, "all are new")
            seconds = time.monotonic() - at
            load.wait(200)
        wrong = failed(load.outcomes)
        observed = f"{len(wrong)} of {len(load.outcomes)} ({tally(load.outcomes)}), "
        observed += (
            f"all replaced after {seconds:.0f} s, longest answer {max(each.seconds for each in load.outcomes):.1f} s"
        )
        yield Finding("requests failed during a rolling update", "0", observed, not wrong)


def _deploy(service: Service) -> None:
    from ray import serve

    from serve.app import bind
    from serve.settings import parse

    model = {"threads": 1, "poll_seconds": 0.2, "max_batch": 4}
    application = bind(parse({"store": str(service.store), "model": model, "limits": {"pixels": 1_000_000}}))
    serve._run(application, name="depth", route_prefix="/", _blocking=False)
