"""Ten times what a service can do is asked of it: it answers what it takes, refuses the rest, and recovers."""

from __future__ import annotations

import time
from collections.abc import Iterator

from chaos.serving.load import Load, good, percentile, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import Service, eventually, picture

# A pass of two pictures waits for this long, so that neither the senders nor the proxy need the cores of the networks.
PAUSE, QUEUED = 0.1, 32
TIMES = 10
BOUND = 2.0  # accepted requests take at most so many times what the whole queue takes
KEPT = 0.5  # of the capacity, while the cores also refuse nine of ten
RECOVERED = 5.0


def overload(sizes: Sizes) -> Iterator[Finding]:
    """Ten times the capacity for some time, in requests that do not wait for each other."""
    with Service(sizes.port, "model.max_batch=2", f"queued={QUEUED}", faults={"pause": PAUSE}) as service:
        with Load(service.port, picture(), clients=8) as load:
            load.wait(100)
        capacity = len(load.outcomes) / (load.outcomes[-1].ended - load.outcomes[0].began)
        usual = _alone(service)
        with Load(service.port, picture(), rate=TIMES * capacity) as load:
            time.sleep(sizes.seconds)
        recovered = eventually(lambda: _alone(service) < 2 * usual + 0.1, 60, "answers as before")
        codes = {each.word for each in load.outcomes}
        found = f"{tally(load.outcomes)} of {TIMES} x {capacity:.0f}/s in {sizes.seconds:.0f} s, {load.unsent} not sent"
        yield Finding("statuses", "200, 429 or 503", found, codes <= {"200", "429", "503"} and "200" in codes)
        seconds = [each.seconds for each in good(load.outcomes)]
        bound = BOUND * (QUEUED / capacity + usual)
        p99 = percentile(seconds, 0.99)
        yield Finding("accepted, 99 %", f"<= {bound:.1f} s", f"{p99:.2f} s", p99 <= bound)
        share = len(good(load.outcomes)) / (load.outcomes[-1].ended - load.outcomes[0].began) / capacity
        yield Finding("answered of the capacity", f">= {KEPT:g}", f"{share:.2f}", share >= KEPT)
        refused = percentile([each.seconds for each in load.outcomes if each.status in (429, 503)], 0.99)
        yield Finding("refused, 99 %", "<= 1 s", f"{refused:.2f} s", refused <= 1)
        yield Finding("as quick as before", f"< {RECOVERED:g} s", f"{recovered:.1f} s", recovered < RECOVERED)


def _alone(service: Service) -> float:
    """Seconds of one request; a long time if it is refused."""
    began = time.monotonic()
    reply = service.ask(body=picture())
    return time.monotonic() - began if reply.status == 200 else float("inf")
