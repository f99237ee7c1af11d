"""The figures of benchmarks/serving.py: a window of load, a network with all its sides, and their tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from depthray.evaluation.markdown_table import markdown_table

OK, FULL = 200, 429
SOON = 0.1  # seconds within which a refusal must come
STAGES = ("proxy", "upload", "decode", "resize", "transfer", "queue", "model", "restore", "encode")
PROCESSES = {"Depth": "network", "Ingress": "ingress", "ProxyActor": "proxy", "driver": "load", "others": "others"}


class Window(NamedTuple):
    """The answers of one window of load."""

    answers: dict[int, list[float]]  # seconds by status, 0: no answer
    rate: float  # answers of status 200 a second
    lacking: int  # refusals without Retry-After
    faults: list[str]
    late: float  # seconds the driver was behind, at worst
    cores: dict[str, float]  # taken on average: by title of the server's processes, by the driver and by others
    stages: dict[str, float]  # mean milliseconds of an answer, by Server-Timing

    def at(self, share: float, status: int = OK) -> float:
        """The time in ms within which that share was answered."""
        times = sorted(self.answers.get(status, []))
        return times[min(len(times) - 1, int(share * len(times)))] * 1000 if times else float("nan")

    @property
    def mean(self) -> float:
        """Of the answers, in ms."""
        times = self.answers.get(OK, [])
        return statistics.fmean(times) * 1000 if times else float("nan")

    @property
    def errors(self) -> int:
        """Requests that were neither answered nor refused."""
        return sum(len(times) for status, times in self.answers.items() if status not in (OK, FULL))

    @property
    def soon(self) -> float:
        """The share of refusals that came soon."""
        refused = self.answers.get(FULL, [])
        return sum(each <= SOON for each in refused) / max(1, len(refused))

    def processor(self) -> dict[str, float]:
        """Milliseconds of a core that an answer takes, by process."""
        taken = dict.fromkeys([*PROCESSES.values(), "rest of Ray"], 0.0)
        for title, cores in self.cores.items():
            taken[PROCESSES.get(title, "rest of Ray")] += 1000 * cores / max(self.rate, 1e-3)
        return taken

    def as_tree(self) -> dict[str, Any]:
        """Its figures as plain values."""
        shares = {f"p{int(100 * share)}": self.at(share) for share in (0.5, 0.9, 0.99)}
        counts = {str(status): len(times) for status, times in self.answers.items()}
        refused = {"p50": self.at(0.5, FULL), "p99": self.at(0.99, FULL), "most": self.at(1.0, FULL), "soon": self.soon}
        rest = {"mean": self.mean, "rate": self.rate, "lacking": self.lacking, "faults": self.faults, "late": self.late}
        return {**rest, **shares, "counts": counts, "refused": refused, "cores": self.cores, "stages": self.stages}


@dataclass
class Result:
    """What was measured of a network."""

    name: str
    size: tuple[int, int]
    runtime: str = ""
    speeds: dict[str, float] = field(default_factory=dict)  # images/s that the promotion measured
    promotion_seconds: float = 0.0
    bare: list[float] = field(default_factory=list)  # images/s in each round
    sides: dict[str, list[Window]] = field(default_factory=dict)
    usual: Window | None = None  # at 80 % of the capacity
    onset: Window | None = None  # the first seconds at five times the capacity
    over: Window | None = None  # after them

    def rate(self, side: str) -> float:
        """The median images/s of a side; nan if it was not measured."""
        return statistics.median(each.rate for each in self.sides[side]) if side in self.sides else float("nan")

    def better(self, *sides: str) -> float:
        """The higher rate of two plain servers."""
        return max((self.rate(side) for side in sides if side in self.sides), default=float("nan"))

    def as_tree(self) -> dict[str, Any]:
        """All figures as plain values."""
        windows = {key: each.as_tree() for key in ("usual", "onset", "over") if (each := getattr(self, key))}
        sides = {side: [each.as_tree() for each in each_round] for side, each_round in self.sides.items()}
        about = {"name": self.name, "size": self.size, "runtime": self.runtime, "speeds": self.speeds}
        return {**about, "promotion_seconds": self.promotion_seconds, "bare": self.bare, "sides": sides, **windows}


def lines(result: Result) -> str:
    """A network as it is done: rates, faults, and what used the cores."""
    speeds = ", ".join(f"{runtime} {speed:.1f}" for runtime, speed in result.speeds.items())
    rows = [f"\n{result.name}   promoted in {result.promotion_seconds:.0f} s: {speeds or 'no export'}"]
    sides = [(side, each) for side, windows in result.sides.items() for each in windows]
    rows += [
        f"  {side:<11} {each.rate:6.1f}/s  {_counts(each)} {each.faults or ''}  cores: {_cores(each)}"
        for side, each in sides
    ]
    for name, window in (("80 %", result.usual), ("onset", result.onset), ("5 x", result.over)):
        if window:
            late = f"driver late {window.late * 1000:.0f} ms, neither answered nor refused {window.errors}"
            rows.append(f"  {name:<11} {_counts(window)} {window.faults or ''}  {late}  cores: {_cores(window)}")
    return "\n".join(rows)


def _cores(window: Window) -> str:
    kept = sorted(((taken, title) for title, taken in window.cores.items() if taken >= 0.01), reverse=True)
    return ", ".join(f"{title} {taken:.2f}" for taken, title in kept)


def _counts(window: Window) -> str:
    return ", ".join(f"{len(times)} x {status or 'no answer'}" for status, times in sorted(window.answers.items()))


def tables(results: Sequence[Result]) -> str:
    """All networks: images/s, times, stages of a request, and processor time."""
    parts = [_rates(results), _latency(results), _stages(results), _processor(results)]
    return "\n\n".join(["", *parts])


def _rates(results: Sequence[Result]) -> str:
    head = ["images/s", "H x W", "runtime", "bare", "plain", "crowd", "same plain", "same crowd", "serve"]
    head += ["/ better plain", "/ better same", "/ bare"]
    rows = []
    for each in results:
        serve, bare = each.rate("serve"), statistics.median(each.bare)
        rates = [bare, *(each.rate(side) for side in ("plain", "crowd", "same plain", "same crowd")), serve]
        ratios = [serve / each.better("plain", "crowd"), serve / each.better("same plain", "same crowd"), serve / bare]
        about = [each.name, f"{each.size[0]} x {each.size[1]}", each.runtime]
        rows.append([*about, *(_number(rate) for rate in rates), *(f"{ratio:.2f}" for ratio in ratios)])
    return markdown_table(head, rows)


def _latency(results: Sequence[Result]) -> str:
    head = ["ms", "80 %: p50", "p99", "5 x: p50", "p99", "/ p99 at 80 %", "first 3 s: p99", "accepted/s"]
    head += ["refused: p99", "within 100 ms", "faults"]
    rows = []
    for each in results:
        if each.usual and each.over and each.onset:
            usual, over, onset = each.usual, each.over, each.onset
            times = [usual.at(0.5), usual.at(0.99), over.at(0.5), over.at(0.99)]
            ratio = over.at(0.99) / usual.at(0.99)
            refused = [f"{over.at(0.99, FULL):.0f}", f"{over.soon:.1%}", str(usual.errors + over.errors + onset.errors)]
            cells = [*(f"{value:.0f}" for value in times), f"{ratio:.2f}", f"{onset.at(0.99):.0f}", f"{over.rate:.1f}"]
            rows.append([each.name, *cells, *refused])
    return markdown_table(head, rows)


def _stages(results: Sequence[Result]) -> str:
    """At 80 % of the capacity; the rest is the client's own and the kernel's."""
    rows = []
    for each in results:
        if each.usual:
            stages = [each.usual.stages.get(stage, 0.0) for stage in STAGES]
            values = [*stages, sum(each.usual.stages.values()), each.usual.mean]
            rows.append([each.name, *(_number(value) for value in values)])
    return markdown_table(["ms of a request at 80 %", *STAGES, "sum", "at the client"], rows)


def _processor(results: Sequence[Result]) -> str:
    rows = []
    for each in results:
        taken = each.sides["serve"][-1].processor()
        crowd = each.sides["crowd"][-1] if "crowd" in each.sides else None
        plain = 1000 * sum(_own(crowd)) / crowd.rate if crowd else float("nan")
        rows.append([each.name, *(_number(value) for value in taken.values()), _number(plain)])
    names = [*PROCESSES.values(), "rest of Ray"]
    return markdown_table(["ms of a core for an image, saturated", *names, "crowd: all"], rows)


def _own(window: Window) -> list[float]:
    return [cores for title, cores in window.cores.items() if title not in ("driver", "others")]


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"
