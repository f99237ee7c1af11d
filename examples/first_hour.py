"""Walk the first hour: every command of docs/tutorial.md, one after the other, in a new folder.

    python examples/first_hour.py FOLDER --frames FRAMES

FRAMES is a folder with an index.csv, of which plain pictures of 640x480 are made, without the index; without it, rooms
are rendered. The walk ends with a table of seconds and of the longest silence of each step. It exits with 1 if a step
failed, or printed nothing for longer than `--patience` seconds.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(bash|console|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SIZE = (640, 480)  # width and height in pixels
PORT = "8000"  # of the page
END_SECONDS = 120.0  # that a server may need to end


@dataclass(frozen=True)
class Step:
    """A command of the page, or the Python of one of its blocks."""

    title: str
    argv: list[str]
    output: str = ""  # the file that the command's output goes to
    serves: bool = False  # it answers until the walk ends


@dataclass
class Walked:
    """What became of a step."""

    step: Step
    code: int | None  # None: a server that answers
    seconds: float
    silence: float  # the longest time without a line, in seconds


def steps(page: str, *, port: str = PORT, training: list[str]) -> Iterator[Step]:
    """The steps of a page in its order; `training` are words added to `depthray train`."""
    for language, text in BLOCK.findall(page):
        text = text.replace(f"localhost:{PORT}", f"localhost:{port}")
        if language == "python":
            yield Step("a notebook cell", [sys.executable, "-c", text])
            continue
        for line in text.splitlines():
            command, _, output = line.partition(" > ")
            program, *words = shlex.split(command, comments=True)
            serves = words[0] == "serve"
            if program == "depthray":
                more = training if words[0] == "train" else ["--port", port] if serves else []
                argv = [sys.executable, "-m", "depthray", *words, *more]
            else:
                argv = [program, *words]
            yield Step(line, argv, output.strip(), serves)


@dataclass
class Walk:
    """The steps that were made in a folder, with their output on the terminal and in `first-hour.log`."""

    folder: Path
    walked: list[Walked] = field(default_factory=list)
    _servers: list[tuple[subprocess.Popen[str], threading.Thread]] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Print a line, and add it to the log."""
        print(text, flush=True)
        with (self.folder / "first-hour.log").open("a", encoding="utf-8") as log:
            log.write(text + "\n")

    def make(self, step: Step) -> bool:
        """Run a step until it ends, or, where it serves, until it answers. Returns whether it succeeded."""
        self.say(f"\n$ {step.title}")
        began = last = time.monotonic()
        silence, is_serving = 0.0, False
        process = self._start(step)
        lines = process.stderr if step.output else process.stdout
        assert lines is not None
        for line in lines:
            now = time.monotonic()
            silence, last = max(silence, now - last), now
            self.say(line.rstrip("\n"))
            if step.serves and line.startswith("next"):
                is_serving = True
                break
        if is_serving:
            reader = threading.Thread(target=lines.read, daemon=True)  # a full pipe would stop the server
            reader.start()
            self._servers.append((process, reader))
        else:
            process.wait()
            lines.close()
        ended = time.monotonic()
        self.walked.append(Walked(step, process.returncode, ended - began, max(silence, ended - last)))
        return is_serving if step.serves else process.returncode == 0

    def _start(self, step: Step) -> subprocess.Popen[str]:
        """The process of a step; what it prints is read from its stdout, or its stderr where stdout goes to a file."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if not step.output:
            pipe, same = subprocess.PIPE, subprocess.STDOUT
            return subprocess.Popen(step.argv, cwd=self.folder, stdout=pipe, stderr=same, text=True, env=environment)
        with (self.folder / step.output).open("wb") as answer:
            return subprocess.Popen(
                step.argv, cwd=self.folder, stdout=answer, stderr=subprocess.PIPE, text=True, env=environment
            )

    def end(self) -> None:
        """Stop the servers by SIGTERM, which ends them in order; SIGINT would not reach them from a job of a script."""
        for server, reader in self._servers:
            server.terminate()
            server.wait(END_SECONDS)
            reader.join(END_SECONDS)
            if server.stdout is not None:
                server.stdout.close()

    def table(self) -> str:
        """A line a step: seconds, the longest silence, exit code, command."""
        lines = ["", f"{'seconds':>8} {'silence':>8} {'exit':>5}  step"]
        for each in self.walked:
            code = "runs" if each.code is None else each.code
            lines.append(f"{each.seconds:8.1f} {each.silence:8.1f} {code:>5}  {each.step.title}")
        return "\n".join(lines)


def prepare(folder: Path, frames: Path | None) -> None:
    """Two plain folders of pictures in `folder/my-frames`, and a photograph to predict."""
    mine = folder / "my-frames"
    if frames is None:
        words = ["data", "render", str(mine), "--frames", "24", "--size", *map(str, reversed(SIZE))]
        subprocess.run([sys.executable, "-m", "depthray", *words], check=True)
        (mine / "index.csv").unlink()
    else:
        copy_frames(frames, mine)
    photo = sorted((mine / "rgb").iterdir())[-1]
    Image.open(photo).save(folder / "photo.jpg", quality=92)


def copy_frames(frames: Path, mine: Path) -> None:
    """The pictures that an index.csv names, in 640x480, without the index."""
    for kind in ("rgb", "depth"):
        (mine / kind).mkdir(parents=True)
    with (frames / "index.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            colour, depth = (mine / kind / Path(row[kind]).name for kind in ("rgb", "depth"))
            Image.open(frames / row["rgb"]).resize(SIZE, Image.Resampling.BICUBIC).save(colour, quality=92)
            # Depth is never interpolated: between two surfaces there is none.
            Image.open(frames / row["depth"]).resize(SIZE, Image.Resampling.NEAREST).save(depth)


def main(argv: list[str]) -> int:
    """Walk the page; 0 where every step did what the page says, in time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--frames", type=Path, help="a folder with an index.csv; default: rendered rooms")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds that a step may be silent (default: 10)")
    parser.add_argument("--port", default=PORT, help=f"of the server (default: {PORT})")
    parser.add_argument("training", nargs="*", metavar="section.key=value", help="overrides of the training")
    arguments = parser.parse_args(argv)
    arguments.folder.mkdir(parents=True)
    prepare(arguments.folder, arguments.frames)
    walk = Walk(arguments.folder)
    try:
        page = PAGE.read_text(encoding="utf-8")
        good = all(walk.make(step) for step in steps(page, port=arguments.port, training=arguments.training))
    finally:
        walk.end()
    walk.say(walk.table())
    return 0 if good and max(each.silence for each in walk.walked) <= arguments.patience else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
