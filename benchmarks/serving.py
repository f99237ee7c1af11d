"""What serving costs: images/s of the bare network, of a plain server and of `depthray serve`; then time and refusals.

    python benchmarks/serving.py [--data FOLDER] [model.max_batch=16 ...]

JPEG photographs of 640x480 go in, 16-bit PNG of their size come out. The same untrained checkpoint, the same threads of
a forward pass and the same machine for all three, one after the other, in so many rounds; each server runs alone.

bare     bare_pass.py: decoded, resized, stacked, a forward pass of full batches; nothing encoded, no HTTP; the faster
         of decoding in turn and decoding ahead in a thread
plain    plain_server.py: FastAPI, uvicorn and torch, one image a pass, one pass at a time, so on the same threads
crowd    the same without a bound: as many passes at a time as FastAPI has threads, 40, on all cores
serve    `depthray serve`, started as one starts it; --proxy says what Ray Serve has in front

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import processes
import rendered_frames
import torch

from depthray import models
from depthray.checkpoints import load as checkpoints_load
from depthray.checkpoints import save
from depthray.training import preflight

HERE = Path(__file__).parent
OK, FULL = 200, 429
FASTAPI = 40  # requests it has in threads at a time
SOON = 0.1  # seconds within which a refusal must come


class Window(NamedTuple):
    """The answers of one window of load."""

    answers: dict[int, list[float]]  # seconds by status, 0: no answer
    rate: float  # answers of status 200 a second
    lacking: int  # refusals without Retry-After
    faults: list[str]
    late: float  # seconds the driver was behind, at worst
    cores: dict[str, float]  # taken on average: by title of the server's processes, by the driver and by others

    def at(self, share: float, status: int = OK) -> float:
        """The time in ms within which that share was answered."""
        times = sorted(self.answers.get(status, []))
        return times[min(len(times) - 1, int(share * len(times)))] * 1000 if times else float("nan")

    @property
    def errors(self) -> int:
        """Requests that were neither answered nor refused."""
        return sum(len(times) for status, times in self.answers.items() if status not in (OK, FULL))


def main() -> int:
    """Print all comparisons."""
    args = _arguments()
    work = Path(tempfile.mkdtemp(prefix="rb"))  # short, as names of Ray's sockets are below it
    path = written(args.recipe, work / "run", args.size)
    folder = photographs(args.data, work)
    bench = Bench(args, path, folder, work)
    bare, plain, crowd, served = [], [], [], []
    for number in range(args.rounds):
        bare.append(bench.bare())
        plain.append(bench.plain())
        crowd.append(bench.crowd())
        with bench.serve() as server:
            served.append(bench.saturate(server))
            sides = {"plain": plain[-1], "crowd": crowd[-1], "serve": served[-1]}
            print_round(f"round {number + 1}", bare[-1], sides)
            if number == args.rounds - 1:  # latency needs the median of all rounds, and a server that runs
                rates(bare, plain, crowd, served)
                latency(bench, server, statistics.median(each.rate for each in served))
    return 0


def _arguments() -> argparse.Namespace:
    parser = rendered_frames.build_parser(__doc__)
    parser.add_argument("words", nargs="*", help="settings of depthray serve")
    parser.add_argument("--recipe", default="unet-resnet34", help="whose network is served, untrained")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of what the network sees")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of one forward pass")
    parser.add_argument("--clients", type=int, default=48, help="at a time, to saturate")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each window; twice as long for latency")
    parser.add_argument("--proxy", choices=("python", "haproxy"), default="python", help="in front of depthray serve")
    return parser.parse_intermixed_args()  # settings may stand between the flags


def written(name: str, run: Path, size: list[int] | None) -> Path:
    """A checkpoint of a recipe's network, untrained."""
    recipe = preflight.load(name, [f"data.size={size[0]},{size[1]}"] if size else [])
    torch.manual_seed(0)  # the same network in every run
    network = models.build_model(recipe.model, recipe.data.inputs)
    contents = checkpoints_load.CheckpointContents(
        weights=dict(network.state_dict()),
        state={},
        recipe=recipe,
        metrics={},
        epoch=0,
        step=0,
        fingerprint="untrained",
    )
    return save.write(run / "checkpoints", contents)


def photographs(data: Path | None, work: Path) -> Path:
    """A folder of JPEG files of 640x480."""
    if data is not None:
        return data / "rgb" if (data / "rgb").is_dir() else data
    with open(os.devnull, "w") as nowhere:
        words = ["data", "render", str(work / "data"), "--layout", "folder", "--frames", "48", "--size", "480", "640"]
        subprocess.run([sys.executable, "-m", "depthray", *words], check=True, stdout=nowhere)
    return work / "data" / "rgb"


class Server(NamedTuple):
    """A running server."""

    pid: int
    url: str


class Bench:
    """The three sides, and the load on two of them."""

    def __init__(self, args: argparse.Namespace, path: Path, folder: Path, work: Path) -> None:
        self._args, self._path, self._folder, self._work = args, path, folder, work
        self._image = next(iter(sorted(folder.glob("*.jpg")))).read_bytes()

    def bare(self) -> float:
        """Images/s of the network alone."""
        args = self._args
        # Half of the time for each of the two ways that it measures.
        words = ["--threads", str(args.threads), "--batch", "8", "--seconds", str(args.seconds / 2)]
        report = _script("bare_pass.py", str(self._path), str(self._folder), *words)
        return float(max(way["rate"] for way in report.values()))

    def plain(self) -> Window:
        """The plain server at saturation, one pass at a time."""
        return self._plain(self._args.threads, 1)

    def crowd(self) -> Window:
        """The plain server at saturation, without a bound on threads."""
        return self._plain(self._args.threads, FASTAPI)

    def _plain(self, threads: int, together: int) -> Window:
        port = processes.free_port()
        words = ["--port", str(port), "--threads", str(threads), "--together", str(together)]
        command = [sys.executable, str(HERE / "plain_server.py"), str(self._path), *words]
        url = f"http://127.0.0.1:{port}/depth"
        with processes.running(command, url, self._image, log=self._work / "plain.log") as pid:
            return self.saturate(Server(pid, url))

    @contextmanager
    def serve(self) -> Iterator[Server]:
        """`depthray serve`, answering."""
        port, args = processes.free_port(), self._args
        words = ["--port", str(port), "--store", str(self._work / "served"), f"model.threads={args.threads}"]
        command = [sys.executable, "-m", "depthray", "serve", str(self._path.parents[1]), *words, *args.words]
        url = f"http://127.0.0.1:{port}/v1/depth"
        environment = {"RAY_TMPDIR": str(self._work), **(_haproxy(self._work) if args.proxy == "haproxy" else {})}
        with processes.running(command, url, self._image, log=self._work / "serve.log", **environment) as pid:
            yield Server(pid, url)

    def saturate(self, server: Server) -> Window:
        """As many clients as keep it busy."""
        # Warm-up: connections open and buffers grow, which is not counted.
        self.load(server, 3.0, "--clients", str(self._args.clients))
        return self.load(server, self._args.seconds, "--clients", str(self._args.clients))

    def load(self, server: Server, seconds: float, *words: str) -> Window:
        """One window of load, and what used the processor meanwhile."""
        before = processes.usage(server.pid)
        report = _script("load.py", server.url, str(self._folder), "--seconds", str(seconds), *words)
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
    cores = {title: seconds / lasted for title, seconds in taken.items()}
    return Window(answers, len(answers.get(OK, [])) / lasted, lacking, report["faults"], report["late"], cores)


def print_round(when: str, bare: float, sides: Mapping[str, Window]) -> None:
    """One round."""
    columns = "".join(f"   {name} {each.rate:6.1f}" for name, each in sides.items())
    print(f"{when}   bare {bare:6.1f}{columns} images/s", flush=True)
    for name, each in sides.items():
        print(f"          {name}: {_counts(each)} {each.faults or ''}; cores: {_cores(each)}", flush=True)


def _cores(window: Window) -> str:
    kept = sorted(((taken, title) for title, taken in window.cores.items() if taken >= 0.01), reverse=True)
    return ", ".join(f"{title} {taken:.2f}" for taken, title in kept)


def _counts(window: Window) -> str:
    return ", ".join(f"{len(times)} x {status or 'no answer'}" for status, times in sorted(window.answers.items()))


def rates(bare: Sequence[float], plain: Sequence[Window], crowd: Sequence[Window], served: Sequence[Window]) -> None:
    """Medians of all rounds and their ratios."""
    rate = statistics.median(each.rate for each in served)
    others = {"bare": (statistics.median(bare), "wanted >= 0.9")}
    others["plain"] = statistics.median(each.rate for each in plain), "wanted >= 1.5"
    others["crowd"] = statistics.median(each.rate for each in crowd), "for comparison"
    for name, (other, wanted) in others.items():
        print(
            f"saturation   {name} {other:6.1f}  serve {rate:6.1f} images/s  ratio {rate / other:.2f}  ({wanted})",
            flush=True,
        )


def latency(bench: Bench, server: Server, capacity: float) -> None:
    """Times at 80 % of the capacity, then those at five times the capacity."""
    seconds = bench._args.seconds
    bench.load(server, 2.0, "--rate", str(0.8 * capacity))  # again a warm-up, at this load
    usual = bench.load(server, 2 * seconds, "--rate", str(0.8 * capacity))
    ratio = usual.at(0.99) / usual.at(0.5)
    print(f"80 % load    {0.8 * capacity:.1f}/s  p50 {usual.at(0.5):.0f} ms  p99 {usual.at(0.99):.0f} ms", end="")
    print(f"  ratio {ratio:.2f}  (wanted <= 3)   {_counts(usual)}, driver late {usual.late * 1000:.0f} ms at most")
    print(f"             cores: {_cores(usual)}", flush=True)
    # An open load: clients that wait for an answer never send five times the capacity.
    over = bench.load(server, seconds, "--rate", str(5 * capacity))
    ratio = over.at(0.99) / usual.at(0.99)
    print(f"5 x load     {5 * capacity:.0f}/s  accepted {over.rate:.1f}/s  p99 {over.at(0.99):.0f} ms", end="")
    print(f"  ratio {ratio:.2f}  (wanted <= 2)   {_counts(over)} {over.faults or ''}")
    refused = over.answers.get(FULL, [])
    soon = sum(each <= SOON for each in refused) / max(1, len(refused))
    print(f"             refused: p50 {over.at(0.5, FULL):.0f} ms  p99 {over.at(0.99, FULL):.0f} ms", end="")
    print(f"  max {over.at(1.0, FULL):.0f} ms; {soon:.1%} within {SOON * 1000:.0f} ms (wanted: all)", end="")
    print(f"  without Retry-After {over.lacking}, neither answered nor refused {over.errors}")
    print(f"             cores: {_cores(over)}, driver late {over.late * 1000:.0f} ms at most", flush=True)


if __name__ == "__main__":
    sys.exit(main())
