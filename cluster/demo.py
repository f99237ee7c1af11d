"""`depthray demo`: every part of depthray at work on rendered scenes, in minutes on two CPU cores, no download."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cluster import train
from depthray.cli import data, evaluate
from depthray.cli import predict as predict_command
from depthray.runs.locate import summary

FRAMES = 1600


def main(argv: list[str]) -> int:
    """Render, train on two workers, evaluate, predict one image, and say where everything lies."""
    args = build_parser().parse_args(argv)
    out = args.out or Path("runs", f"demo-{time.strftime('%Y%m%d-%H%M%S')}")
    scenes, run = out / "scenes", out / "run"
    _say(f"rendering {FRAMES} frames of synthetic rooms")
    data.main(["render", str(scenes), "--layout", "shards", "--frames", str(FRAMES), "--size", "120", "160"])
    _say(f"training the recipe 'demo' with Ray Train on {args.workers} workers")
    words = ["demo", "data.source=shards", "--data", str(scenes), "--out", str(run), "--workers", str(args.workers)]
    code = train.main(words)
    if code:
        return code
    best, _ = summary(run)
    _say("evaluating on the held-out rooms")
    evaluate.main([str(best), "--data", str(scenes), "--out", str(out / "evaluation")])
    _say("predicting one image")
    data.main(
        ["render", str(out / "new"), "--layout", "folder", "--frames", "1", "--size", "240", "320", "--seed", "1"]
    )
    image = next((out / "new").rglob("*.jpg"))
    predict_command.main([str(best), str(image), "--out", str(out / "prediction"), "--format", "png,colour"])
    _farewell(out, best)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="depthray demo", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for everything the demo makes (default: runs/demo-DATE)")
    parser.add_argument("--workers", type=int, default=2, help="training processes (default: 2)")
    return parser


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _farewell(out: Path, best: Path | str) -> None:
    print()
    print(f"checkpoint     {best}")
    print(f"tensorboard    {out / 'run' / 'tensorboard'}")
    print(f"contact sheet  {out / 'evaluation' / 'sheet.png'}")
    print(f"next           depthray predict {best} YOUR_PHOTO.jpg --format png,colour,ply")
    print("               (the command lies in .venv/bin; `depthray --help` lists the others)")
