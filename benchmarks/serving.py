"""What serving costs: images/s of the bare network, of plain servers and of `depthray serve`; then time and refusals.

    python benchmarks/serving.py                                  # a few recipes that differ
    python benchmarks/serving.py --recipes all --rounds 1         # 13 recipes, 90 minutes
    python benchmarks/serving.py --checkpoint runs/unet --calibrate packed
    python benchmarks/serving.py --recipes unet-resnet34 model.max_batch=16

JPEG photographs of 640x480 go in, 16-bit PNG of their size come out. The same checkpoint and the same machine for all
sides, one after the other, in so many rounds; each server runs alone. Checkpoints of recipes are untrained.

bare     bare_pass.py: decoded, resized, stacked, a forward pass of full batches in the runtime that serves; nothing
         encoded, no HTTP; the faster of decoding in turn and decoding ahead in a thread
plain    plain_server.py: FastAPI, uvicorn and torch, one image a pass, one pass at a time
crowd    the same without a bound: as many passes at a time as FastAPI has threads, 40, on all cores
same     both once more with the runtime that serves, where that is not torch
serve    `depthray serve` as one starts it, with the fastest runtime of a promotion; --proxy says what is in front

The load is closed for images/s (as many clients as saturate), then open: a request is due every 1/rate seconds
whatever comes back, and its time counts from then. It comes from a process of its own on the same cores; what it takes
of them is printed, and what other processes take.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import processes
import rendered_frames
import serving_bodies
import serving_report
from export import untrained
from load import BOUNDARY, read_bodies
from serving_report import FULL, OK, Result, Window

from depthray.config import recipe as recipes
from depthray.runs import locate
from depthray.runtimes.open import EAGER, read_recipe
from depthray.training import preflight
from serve.registry import exports
from serve.registry.store import Store

HERE = Path(__file__).parent
FEW = ("unet-resnet34", "unet-lite", "fpn-resnet101", "bifpn-efficientnet-b0", "depthnet", "dpt-vits")
FASTAPI = 40  # requests it has in threads at a time
NAME = "depth"  # of the model in the store
LEAST, LONGEST = 100, 90.0  # answers that a window should have, and seconds that it may take for them
ONSET = 3.0  # seconds of overload, or of warm-up, that are reported apart


def main() -> int:
    """Measure all networks, then print the tables."""
    args = _arguments()
    work = Path(tempfile.mkdtemp(prefix="rb"))  # short, as names of Ray's sockets are below it
    photographs = serving_bodies.photographs(args.data, work / "photographs")
    results: list[Result] = []
    failed = 0
    for name, checkpoint in _checkpoints(args, work):
        try:
            result = Bench(args, name, checkpoint, photographs, work / name).measure()
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # the others may take an hour
            failed += 1
            print(f"{name}: failed, see the logs in {work / name}: {error}", file=sys.stderr, flush=True)
            continue
        results.append(result)
        print(serving_report.lines(result), flush=True)
        if args.json:
            args.json.write_text(json.dumps([each.as_tree() for each in results], indent=1) + "\n", encoding="utf-8")
    print(serving_report.tables(results), flush=True)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = rendered_frames.build_parser(__doc__)
    parser.add_argument("overrides", nargs="*", help="settings of depthray serve")
    parser.add_argument("--recipes", nargs="+", default=FEW, help=f"or all (default: {' '.join(FEW)})")
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint or run in place of untrained ones")
    parser.add_argument("--calibrate", help="frames by which the promotion also exports to 8-bit integers")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of passes of bare and plain")
    parser.add_argument("--clients", type=int, default=24, help="at a time, to saturate; serve admits 32")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each window; twice as long for latency")
    parser.add_argument("--proxy", choices=("python", "haproxy"), default="python", help="in front of depthray serve")
    parser.add_argument("--without", nargs="+", default=[], help="sides to leave out, such as same")
    parser.add_argument("--json", type=Path, help="where to write the figures as well")
    args = parser.parse_intermixed_args()  # settings may stand between the flags
    args.recipes = recipes.names() if list(args.recipes) == ["all"] else args.recipes
    return args


def _checkpoints(args: argparse.Namespace, work: Path) -> Iterator[tuple[str, Path]]:
    """Names with their checkpoints: the one that is given, or untrained ones."""
    if args.checkpoint:
        yield args.checkpoint.name, locate.resolve(args.checkpoint)
        return
    for name in args.recipes:
        yield name, untrained(preflight.load(name, training=False), work / name / "run")


class Server(NamedTuple):
    """A running server."""

    pid: int
    url: str


@dataclass
class Bench:
    """One network: all sides, and the load on them."""

    args: argparse.Namespace
    name: str
    checkpoint: Path
    photographs: Path
    work: Path
    served: Path = field(init=False)  # the checkpoint or export that computes

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        self.data = read_recipe(self.checkpoint).data
        is_plain = self.data.inputs == ("image",)
        self.bodies = self.photographs if is_plain else serving_bodies.forms(self.data.inputs, self.work / "forms")
        self.served = self.checkpoint

    def measure(self) -> Result:
        """All rounds; the last one also measures latency."""
        result = Result(self.name, self.data.size)
        result.promotion_seconds = self.promote()
        store = Store(self.work / "served")
        result.runtime, self.served = next(iter(store.runtimes(NAME, store.pointer(NAME).current).items()))
        result.speeds = exports.speeds(store.exports(NAME, store.pointer(NAME).current))
        for number in range(self.args.rounds):
            result.bare.append(self.bare())
            for side, window in self.plain_sides(result.runtime):
                result.sides.setdefault(side, []).append(window)
            with self.serve() as server:
                result.sides.setdefault("serve", []).append(self.saturate(server))
                if number == self.args.rounds - 1:  # latency needs the median of all rounds, and a server that runs
                    self.latency(server, result)
        return result

    def promote(self) -> float:
        """Put the checkpoint into the store, with its exports; the seconds it took."""
        words = ["serve", "promote", str(self.checkpoint), "--store", str(self.work / "served"), "--name", NAME]
        words += ["--calibrate", self.args.calibrate] if self.args.calibrate else []
        began = time.perf_counter()
        with (self.work / "promote.log").open("wb") as log:
            subprocess.run([sys.executable, "-m", "depthray", *words], check=True, stdout=log, stderr=log)
        return time.perf_counter() - began

    def bare(self) -> float:
        """Images/s of the network alone."""
        # Half of the time for each of the two ways that it measures.
        words = ["--threads", str(self.args.threads), "--batch", "8", "--seconds", str(self.args.seconds / 2)]
        report = _script("bare_pass.py", str(self.served), str(self.bodies), *words)
        return float(max(way["rate"] for way in report.values()))

    def plain_sides(self, runtime: str) -> Iterator[tuple[str, Window]]:
        """The plain servers at saturation."""
        models = {"": self.checkpoint, "same ": self.served}
        if runtime == EAGER or "same" in self.args.without:
            del models["same "]
        for prefix, model in models.items():
            for side, together in (("plain", 1), ("crowd", FASTAPI)):
                if side not in self.args.without:
                    yield prefix + side, self._plain(model, together)

    def _plain(self, model: Path, together: int) -> Window:
        port = processes.free_port()
        words = ["--port", str(port), "--threads", str(self.args.threads), "--together", str(together)]
        command = [sys.executable, str(HERE / "plain_server.py"), str(model), *words]
        with self._running(command, f"http://127.0.0.1:{port}/depth", "plain.log") as server:
            return self.saturate(server)

    @contextmanager
    def serve(self) -> Iterator[Server]:
        """`depthray serve`, answering."""
        port = processes.free_port()
        words = ["--port", str(port), "--store", str(self.work / "served"), *self.args.overrides]
        command = [sys.executable, "-m", "depthray", "serve", *words]
        environment = {"RAY_TMPDIR": str(self.work.parent)}
        if self.args.proxy == "haproxy":
            environment |= _haproxy(self.work)
        with self._running(command, f"http://127.0.0.1:{port}/v1/depth", "serve.log", **environment) as server:
            yield server

    @contextmanager
    def _running(self, command: Sequence[str], url: str, log: str, **environment: str) -> Iterator[Server]:
        body = read_bodies(self.bodies)[0]
        kind = "image/jpeg" if self.data.inputs == ("image",) else f"multipart/form-data; boundary={BOUNDARY}"
        request = urllib.request.Request(url, data=body, headers={"Content-Type": kind})
        with processes.running(command, request, log=self.work / log, **environment) as pid:
            yield Server(pid, url)

    def saturate(self, server: Server) -> Window:
        """As many clients as keep it busy."""
        # Warm-up: connections open and buffers grow, which is not counted.
        warm = self.load(server, ONSET, "--clients", str(self.args.clients))
        return self.load(server, self._seconds(warm.rate), "--clients", str(self.args.clients))

    def latency(self, server: Server, result: Result) -> None:
        """Times at 80 % of the capacity, then those at five times the capacity."""
        capacity = statistics.median(each.rate for each in result.sides["serve"])
        usual = ("--rate", str(0.8 * capacity))
        self.load(server, ONSET, *usual)  # again a warm-up, at this load
        result.usual = self.load(server, 2 * self._seconds(capacity), *usual)
        # An open load: clients that wait for an answer never send five times the capacity.
        over = ("--rate", str(5 * capacity))
        result.onset = self.load(server, ONSET, *over)
        result.over = self.load(server, 2 * self._seconds(capacity), *over)

    def _seconds(self, rate: float) -> float:
        return max(float(self.args.seconds), min(LONGEST, LEAST / max(rate, 1e-3)))

    def load(self, server: Server, seconds: float, *words: str) -> Window:
        """One window of load, and what used the processor meanwhile."""
        before = processes.usage(server.pid)
        report = _script("load.py", server.url, str(self.bodies), "--seconds", str(seconds), *words)
        return _window(report, processes.usage(server.pid).since(before))


def _haproxy(work: Path) -> dict[str, str]:
    """Ray Serve with HAProxy in front: its files in a folder of ours, its ports free ones."""
    folder = work / "haproxy"
    folder.mkdir(mode=0o700, exist_ok=True)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",  # one core is for the network
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(processes.free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(processes.free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
    }


def _script(name: str, *words: str) -> dict[str, Any]:
    """What a script of this folder prints as JSON."""
    done = subprocess.run([sys.executable, str(HERE / name), *words], check=True, stdout=subprocess.PIPE)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _window(report: dict[str, Any], used: processes.Usage) -> Window:
    answers: dict[int, list[float]] = {}
    for status, seconds, _, _ in report["answers"]:
        answers.setdefault(status, []).append(seconds)
    lasted = max(at for _, _, _, at in report["answers"])  # until the last answer, which may come after the window
    lacking = sum(status == FULL and not again for status, _, again, _ in report["answers"])
    # The driver and others are listed, too: they explain a figure that is too low.
    taken = {**used.by_title, "driver": report["cpu"], "others": used.machine - used.tree - report["cpu"]}
    return Window(
        answers=answers,
        rate=len(answers.get(OK, [])) / lasted,
        lacking=lacking,
        faults=report["faults"],
        late=report["late"],
        cores={title: seconds / lasted for title, seconds in taken.items()},
        stages=report["stages"],
    )


if __name__ == "__main__":
    sys.exit(main())
