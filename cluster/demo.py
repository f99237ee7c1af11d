"""`depthray demo`: every part of depthray at work on rendered scenes, in minutes on two CPU cores, no download."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cluster import train
from depthray.cli import data, evaluate
from depthray.cli import predict as predict_command
from depthray.cli.flags.command_parser import CommandParser
from depthray.runs.locate import summary

FRAMES = 1600
RECIPE = "demo-lite"


def main(argv: list[str]) -> int:
    """Render, train on two workers, evaluate, predict one image, and print where the results are."""
    args = build_parser().parse_args(argv)
    out = args.out or Path("runs", f"demo-{time.strftime('%Y%m%d-%H%M%S')}")
    scenes, run = out / "scenes", out / "run"
    _print_step(f"rendering {FRAMES} frames of synthetic rooms")
    data.main(["render", str(scenes), "--layout", "shards", "--frames", str(FRAMES), "--size", "120", "160"])
    _print_step(f"training the recipe '{RECIPE}' with Ray Train on {args.workers} workers")
    arguments = [RECIPE, "--data", str(scenes), "--out", str(run), "--workers", str(args.workers)]
    code = train.main(arguments)
    if code:
        return code  # the error is printed
    best, _ = summary(run)
    # All that follows runs in this process, as a user would run it: the checkpoint is complete without Ray.
    _print_step("evaluating on the held-out rooms")
    evaluate.main([str(best), "--data", str(scenes), "--out", str(out / "evaluation")])
    _print_step("predicting one image")
    # Of another seed, so that it is an image the network has not seen.
    data.main(
        ["render", str(out / "new"), "--layout", "folder", "--frames", "1", "--size", "240", "320", "--seed", "1"]
    )
    image = next((out / "new").rglob("*.jpg"))
    predict_command.main([str(best), str(image), "--out", str(out / "prediction"), "--format", "png,colour"])
    _print_results(out, best)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray demo`."""
    parser = CommandParser(prog="depthray demo", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of all results (default: runs/demo-DATE)")
    parser.add_argument("--workers", type=int, default=2, help="training processes (default: 2)")
    return parser


def _print_step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _print_results(out: Path, best: Path | str) -> None:
    print()
    print(f"checkpoint     {best}")
    print(f"tensorboard    {out / 'run' / 'tensorboard'}")
    print(f"contact sheet  {out / 'evaluation' / 'sheet.png'}")
    print(f"next           depthray predict {best} YOUR_PHOTO.jpg --format png,colour,ply")
    print("               (the command is in .venv/bin; `depthray --help` lists the others)")
