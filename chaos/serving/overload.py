"""Ten times the load that a service can answer: it answers what it admits, refuses the rest, and recovers."""

from __future__ import annotations

import time
from collections.abc import Iterator

from chaos.serving.load import Load, good, percentile, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import Service, png_image, wait_until

# A forward pass of two images sleeps for this long, so that senders and proxy do not need the cores of the networks.
PAUSE, QUEUED = 0.1, 32
TIMES = 10
ANSWER_FACTOR = 2.0  # accepted requests take at most so many times what the whole queue takes
ANSWERED_SHARE = 0.5  # of the capacity, while the cores also refuse nine of ten
RECOVERY_SECONDS = 5.0


def overload(sizes: Sizes) -> Iterator[Finding]:
    """Ten times the capacity for some time, in requests that do not wait for each other."""
    with Service(sizes.port, "model.max_batch=2", f"queued={QUEUED}", faults={"pause": PAUSE}) as service:
        with Load(service.port, png_image(), clients=8) as load:
            load.wait(100)
        # Measured, as it depends on the machine and on what else runs there.
        capacity = len(load.outcomes) / (load.outcomes[-1].ended - load.outcomes[0].began)
        usual = _time_one_request(service)
        with Load(service.port, png_image(), rate=TIMES * capacity) as load:
            time.sleep(sizes.seconds)
        recovered = wait_until(lambda: _time_one_request(service) < 2 * usual + 0.1, 60, "answers as quick as before")
        codes = {each.label for each in load.outcomes}
        observed = f"{tally(load.outcomes)} of {TIMES} x {capacity:.0f}/s in {sizes.seconds:.0f} s, "
        observed += f"{load.unsent} not sent"
        yield Finding("statuses", "200, 429 or 503", observed, codes <= {"200", "429", "503"} and "200" in codes)
        seconds = [each.seconds for each in good(load.outcomes)]
        bound = ANSWER_FACTOR * (QUEUED / capacity + usual)
        p99 = percentile(seconds, 0.99)
        yield Finding("accepted, 99 %", f"<= {bound:.1f} s", f"{p99:.2f} s", p99 <= bound)
        share = len(good(load.outcomes)) / (load.outcomes[-1].ended - load.outcomes[0].began) / capacity
        yield Finding("answered of the capacity", f">= {ANSWERED_SHARE:g}", f"{share:.2f}", share >= ANSWERED_SHARE)
        refused = percentile([each.seconds for each in load.outcomes if each.status in (429, 503)], 0.99)
        yield Finding("refused, 99 %", "<= 1 s", f"{refused:.2f} s", refused <= 1)
        quick = recovered < RECOVERY_SECONDS
        yield Finding("until answers take as long as before", f"< {RECOVERY_SECONDS:g} s", f"{recovered:.1f} s", quick)


def _time_one_request(service: Service) -> float:
    """Seconds of one request; a long time if it is refused."""
    began = time.monotonic()
    reply = service.request(body=png_image())
    return time.monotonic() - began if reply.status == 200 else float("inf")
