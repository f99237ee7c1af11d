"""Networks of others with their published weights on frames of yours, beside a run of depthray: one table.

    python -m venv peer && peer/bin/pip install ultralytics
    python -m venv other && other/bin/pip install depth-estimation
    python benchmarks/peers/given_weights.py RUN --data NYU --split test \
        --ultralytics peer/bin/python=yolo26n-depth.pt \
        --depth-estimation other/bin/python=depth-anything-v2-vits=FILE.pth --depth-estimation other/bin/python=zoedepth

Peers are installed apart, run by their own Python and never imported. All see the same photographs and are scored here,
by three protocols: as they are, each frame scaled to the median of its truth, and with scale and shift of 1 / depth
fitted to it. A network whose depth is not in metres has the last alone. One without weights has a row that says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from depthray.batch import Batch, Prediction
from depthray.cli import evaluate as evaluate_command
from depthray.config.sections import Data
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.source import Source
from depthray.data.sources import open_source
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.protocols import AFFINE_DISPARITY, MEDIAN_SCALED, PLAIN
from depthray.predict import load
from depthray.runs import locate

HERE = Path(__file__).parent
SCRIPTS = {"ultralytics": HERE / "predict_ultralytics.py", "depth-estimation": HERE / "predict_depth_estimation.py"}
PROTOCOLS = {"as it is": PLAIN, "median-scaled": MEDIAN_SCALED, "fitted in 1 / depth": AFFINE_DISPARITY}
SHOWN = ("abs_rel", "rmse", "delta1")
FARTHEST = 1e3  # metres, of a disparity of 0 and less


class Frames(NamedTuple):
    """The frames that all are scored on."""

    source: Source
    indices: list[int]
    data: Data
    batch_size: int = 1  # frames may be of different sizes


class Saved(nn.Module):
    """Depth maps of a folder in place of a network, by the id of a frame."""

    inputs = ("image",)
    stride = 1

    def __init__(self, folder: Path, names: dict[str, str], kind: str) -> None:
        super().__init__()
        self.folder, self.names, self.kind = folder, names, kind

    def forward(self, batch: Batch) -> Prediction:
        """(B,3,H,W) and ids -> (B,1,h,w) metres, or 1 / disparity"""
        depth = torch.stack([self._read(name) for name in batch["id"]])
        return {"depth": depth}

    def _read(self, name: str) -> Tensor:
        values = torch.from_numpy(np.load(self.folder / f"{self.names[name]}.npy"))[None].float()
        return values if self.kind == "metric" else (1 / values.clamp(min=1 / FARTHEST))


def main(argv: list[str] | None = None) -> int:
    """Predict, score and print a table."""
    args = _parse(argv)
    path = locate.resolve(args.run)
    request = argparse.Namespace(trust=False, overrides=args.overrides, data=args.data, source=args.source)
    recipe = evaluate_command.recipe_of(path, request)
    source = open_source(recipe.data)
    frames = Frames(source, split.side(source.frames, recipe.data, args.split)[: args.frames], recipe.data)
    with tempfile.TemporaryDirectory(prefix="depthray-peers-") as temporary:
        photos = Path(temporary) / "frames"
        names = _write_photos(frames, photos)
        rows = [_own_row(path, frames, photos, names, Path(temporary) / "own")]
        for number, (kind, words) in enumerate(_peers(args)):
            rows.append(_peer_row(kind, words, frames, photos, names, Path(temporary) / str(number)))
    head = ["", "network", "s / frame", *(f"{metric}, {name}" for name in PROTOCOLS for metric in SHOWN)]
    print(f"{len(frames.indices)} frames, split {args.split}, of {recipe.data.place}\n")
    print(markdown_table(head, rows))
    return 0


def _write_photos(frames: Frames, out: Path) -> dict[str, str]:
    """Write the photographs as PNG; the name of each file by the id of its frame."""
    out.mkdir()
    names = {}
    for number, index in enumerate(frames.indices):
        sample = frames.source.read(index)
        names[sample["id"]] = f"{number:06d}"
        cv2.imwrite(str(out / f"{number:06d}.png"), cv2.cvtColor(sample["image"], cv2.COLOR_RGB2BGR))
    return names


def _own_row(path: Path, frames: Frames, photos: Path, names: dict[str, str], out: Path) -> list[str]:
    """depthray's network, from the same files by the same way."""
    predictor = load(path, device="cpu")
    predictor.check_metres("this comparison")
    out.mkdir()
    began = time.perf_counter()
    for name in names.values():
        np.save(out / f"{name}.npy", predictor.predict(photos / f"{name}.png").metres)
    seconds = (time.perf_counter() - began) / len(names)
    return ["depthray", predictor.recipe.model.name, f"{seconds:.3f}", *_scores(Saved(out, names, "metric"), frames)]


def _peer_row(kind: str, words: str, frames: Frames, photos: Path, names: dict[str, str], out: Path) -> list[str]:
    """A peer's network, or why there are no scores of it."""
    python, _, network = words.partition("=")
    out.mkdir()
    command = [python, str(SCRIPTS[kind]), network, str(photos), str(out)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return [kind, network, f"not run: {python}: {error.strerror}", *[""] * (len(PROTOCOLS) * len(SHOWN))]
    if done.returncode:
        reason = (done.stderr.strip() or "no output").splitlines()[-1]
        return [kind, network, f"not run: {reason}", *[""] * (len(PROTOCOLS) * len(SHOWN))]
    about: dict[str, Any] = json.loads((out / "about.json").read_text())
    return [kind, network, f"{about['seconds']:.3f}", *_scores(Saved(out, names, about["kind"]), frames)]


def _scores(network: Saved, frames: Frames) -> list[str]:
    """Scores under each protocol; empty where metres are asked of what are none."""
    cells: list[str] = []
    for protocol in PROTOCOLS.values():
        if network.kind != "metric" and protocol is not AFFINE_DISPARITY:
            cells += [""] * len(SHOWN)
            continue
        batches = eval_batches(frames.source, frames.indices, frames.data, batch_size=frames.batch_size)
        scores = evaluate(network, batches, protocol=protocol, device=torch.device("cpu")).scores()
        cells += [f"{scores[name]:.3f}" for name in SHOWN]
    return cells


def _peers(args: argparse.Namespace) -> list[tuple[str, str]]:
    pairs = [(kind, words) for kind in SCRIPTS for words in getattr(args, kind.replace("-", "_"))]
    for kind, words in pairs:
        if not words.partition("=")[2]:
            raise SystemExit(f"--{kind} {words}: give PYTHON=NETWORK")
    return pairs


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="depthray's run, checkpoint or export")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of data.* and eval.*")
    for kind in SCRIPTS:
        parser.add_argument(f"--{kind}", action="append", default=[], metavar="PYTHON=NETWORK")
    parser.add_argument("--data", help="the frames; default: those the recipe names")
    parser.add_argument("--source", help="form of the frames; default: as they look")
    parser.add_argument("--split", default="val")
    parser.add_argument("--frames", type=int, default=100, help="at most so many")
    return parser.parse_intermixed_args(argv)


if __name__ == "__main__":
    sys.exit(main())
