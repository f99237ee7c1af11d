"""Replicas follow the load: `depthray serve` with 1 to N replicas while clients come and go, and a plot of it.

    python benchmarks/autoscaling.py [--most 4] [--out autoscaling.png]

Clients send the next request as soon as they are answered, so the load is their number. A forward pass waits for
--pause seconds besides what it computes, as it would for a device of its own: there are more replicas than a small
machine has cores, and without the pause they would only share them. Exits 1 if the replicas did not grow to N and
shrink to 1, or if a request failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from depthray.imaging.plots import Panel, PlotLine, draw_timeline
from depthray.imaging.sheets import save_png

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the package `chaos`, which is not installed
# Seconds and clients, one after the other.
PHASES = ((15.0, 1), (25.0, 8), (60.0, 24), (20.0, 8), (70.0, 1))
EVERY = 0.5  # seconds between two readings of the replicas
BIN = 2.0  # seconds of requests that make a point of latency

Looks = list[tuple[float, int, int]]  # when, replicas that answer, replicas that are starting


def main() -> int:
    """Run the load, write the plot, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=4, help="replicas at most")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds of a forward pass besides what it computes")
    parser.add_argument("--port", type=int, default=18210)
    parser.add_argument("--out", type=Path, default=Path("autoscaling.png"), help="the plot")
    args = parser.parse_args()
    from chaos.serving.load import failed, tally

    outcomes, looks, began, changes = measured(args.port, args.most, args.pause)
    save_png(args.out, draw_timeline(panels(outcomes, looks, began, changes)))
    counts = [running for _, running, _ in looks]
    print(f"requests  {len(outcomes)} ({tally(outcomes)})")
    print(f"replicas  {counts[0]} at first, {max(counts)} at most, {counts[-1]} at last")
    for number in sorted(set(counts)):
        print(f"          {sum(count == number for count in counts) * EVERY:5.0f} s with {number}")
    for (start, clients), (end, _) in zip(changes, [*changes[1:], (time.monotonic(), 0)], strict=True):
        seconds = [each.seconds for each in outcomes if start <= each.began < end]
        print(f"latency   {_median(seconds) * 1000:5.0f} ms median with {clients} clients, {len(seconds)} answers")
    print(f"plot      {args.out}")
    followed = max(counts) == args.most and counts[-1] == 1  # growing and shrinking, both
    return 0 if followed and not failed(outcomes) else 1


def measured(port: int, most: int, pause: float) -> tuple[list[Any], Looks, float, list[tuple[float, int]]]:
    """The outcomes of all requests, the replicas over time, when it began and when the load changed."""
    from chaos.serving.load import Load
    from chaos.serving.service import Service, png_image

    # Seconds of scaling that fit into the three minutes of the load; a service waits longer, above all to shrink.
    scaling = ("min=1", f"max={most}", "ongoing=4", "upscale_seconds=2", "downscale_seconds=15")
    words = [*(f"model_replicas.{word}" for word in scaling), "model.max_batch=2", "queued=64"]
    with Service(port, *words, faults={"pause": pause}) as service, service.driver():
        looks: Looks = []
        changes = []
        began = time.monotonic()
        with Load(port, png_image(), clients=1) as load:
            for seconds, clients in PHASES:
                load.clients = clients
                changes.append((time.monotonic(), clients))
                _watch(looks, seconds)
    return load.outcomes, looks, began, changes


def _watch(looks: Looks, seconds: float) -> None:
    from ray import serve

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = serve.status().applications["depth"].deployments["Depth"].replica_states
        # Keys are members of an enum, or their names, by the version of Ray.
        counts = {str(getattr(state, "value", state)): count for state, count in states.items()}
        looks.append((time.monotonic(), counts.get("RUNNING", 0), counts.get("STARTING", 0)))
        time.sleep(EVERY)


def panels(outcomes: Sequence[Any], looks: Looks, began: float, changes: Sequence[tuple[float, int]]) -> list[Panel]:
    """Load, replicas, throughput and latency."""
    from chaos.serving.load import percentile

    end = looks[-1][0] - began
    times = [when - began for when, _, _ in looks]
    bins: list[list[float]] = [[] for _ in range(int(end / BIN) + 1)]
    for each in outcomes:
        if each.ended - began < end:
            bins[int((each.ended - began) / BIN)].append(each.seconds)
    centres = [BIN * (index + 0.5) for index in range(len(bins) - 1)]
    full = bins[: len(centres)]  # without the last, which the end cuts short
    # One point more at the end, to which the last value is held.
    clients = PlotLine(
        "clients",
        [*(at - began for at, _ in changes), end],
        [*(count for _, count in changes), changes[-1][1]],
        steps=True,
    )
    running = PlotLine("answering", times, [float(count) for _, count, _ in looks], steps=True)
    starting = PlotLine("and starting", times, [float(a + b) for _, a, b in looks], steps=True)
    return [
        Panel("Load: clients that wait for an answer", [clients]),
        Panel("Replicas", [running, starting]),
        Panel("Answers per second", [PlotLine("answers/s", centres, [len(each) / BIN for each in full])]),
        Panel(
            "Latency, milliseconds",
            [
                PlotLine(name, centres, [percentile(each, share) * 1000 for each in full])
                for name, share in (("median", 0.5), ("95 %", 0.95))
            ],
        ),
    ]


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else float("nan")


if __name__ == "__main__":
    sys.exit(main())
