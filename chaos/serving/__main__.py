"""Harm a running `depthray serve` in every way we know, under load, and compare what is observed with what is expected.

    python -m chaos.serving [--only NAME] [--seconds 60] [--minutes 5]

Every check starts a service of its own, mostly with a tiny network, and prints a line for each thing it checked. Exits
1 if one is not as expected.
"""

from __future__ import annotations

import argparse
import sys
import time

from chaos.serving.clients import clients
from chaos.serving.faults import faults
from chaos.serving.fuzz import bodies, schema
from chaos.serving.kills import kills, ray_head
from chaos.serving.overload import overload
from chaos.serving.promotions import half_load, promotions
from chaos.serving.report import Sizes
from chaos.serving.shutdown import rolling_update, shutdown
from chaos.serving.soak import soak

CHECKS = {
    check.__name__: check
    for check in (
        promotions,
        half_load,
        kills,
        ray_head,
        shutdown,
        rolling_update,
        overload,
        faults,
        clients,
        bodies,
        schema,
        soak,
    )
}


def main() -> int:
    """Run the checks and print their findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHECKS, help="these checks alone")
    parser.add_argument("--port", type=int, default=18200, help="port of the services")
    parser.add_argument("--requests", type=int, default=10_000, help="requests during the promotions at least")
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--minutes", type=float, default=5.0, help="of soaking")
    parser.add_argument("--bodies", type=int, default=2000, help="mutated bodies sent through the proxy")
    args = parser.parse_args()
    sizes = Sizes(args.port, args.requests, args.seconds, args.minutes, args.bodies)
    failures = 0
    for name in args.only or CHECKS:
        began = time.monotonic()
        print(f"{name}: {(CHECKS[name].__doc__ or '').strip()}", flush=True)
        for finding in CHECKS[name](sizes):
            failures += not finding.good
            mark = "ok  " if finding.good else "FAIL"
            print(f"  {mark} {finding.what}: expected {finding.expected}; observed {finding.observed}", flush=True)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    print(f"{failures} not as expected" if failures else "all as expected")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
