"""Training unet-resnet34 with depthray against a plain PyTorch loop as people write it, images/s end to end.

    python benchmarks/training.py [--data FOLDER]

Both train the same network on the same frames at 160x128, batch 16, with L1 + 0.5 gradient loss and Adam, flips and
colour jitter, on all cores, without Ray. The plain loop decodes JPEG and PNG in two DataLoader workers, in float32, as
the PyTorch tutorials do; depthray reads shards and chooses precision and memory layout itself. The last row,
depthray with train.precision=fp32, shows how much of the ratio the number format is.
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from pathlib import Path

import cv2
import rendered_frames
import torch
from rendered_frames import read_image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ColorJitter

from depthray import models
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import fit
from depthray.training.state import Hooks, begin
from depthray.training.throughput import Interval

STEPS = 12
# One phase over all frames, and the plain loop's jitter.
WORDS = [
    "curriculum.chunks=1",
    "finetune.epochs=0",
    "train.log_seconds=0.001",  # an interval for every step: their times are the clock
    "augment.brightness=0.2",
    "augment.contrast=0.2",
    "augment.saturation=0.2",
    "augment.hue=0.05",
]


def main() -> int:
    """Print images/s of all and the ratios."""
    args = rendered_frames.build_parser(__doc__).parse_args()
    folder, shards = rendered_frames.folder_and_shards(args.data)
    rates: dict[str, list[float]] = {"plain": [], "depthray": [], "depthray fp32": []}
    for _ in range(args.rounds):
        rates["plain"].append(plain(folder))
        rates["depthray"].append(ours(shards))
        rates["depthray fp32"].append(ours(shards, "train.precision=fp32"))
    usual = statistics.median(rates["plain"])
    for name, values in rates.items():
        median = statistics.median(values)
        wanted = "  (wanted >= 1.5)" if name == "depthray" else ""
        print(f"{name:14} {median:7.1f} images/s  ratio {median / usual:5.2f}{wanted}")
    return 0


def ours(shards: Path, *words: str) -> float:
    """Images per second of `fit`, the first steps left out."""
    recipe = preflight.load("unet-resnet34", [f"data.root={shards}", "data.source=shards", *WORDS, *words])
    state = begin(recipe, torch.device("cpu"))
    loader = Frames.open(recipe)
    # Asked within a step, before it is counted.
    state.hooks = Hooks(stop_requested=lambda: state.position.step >= STEPS - 1)
    times = [time.perf_counter() for event in fit(recipe, state, loader) if isinstance(event, Interval)]
    # Without the first three steps, in which loaders start and memory is reserved.
    return (len(times) - 3) * recipe.train.batch_size / (times[-1] - times[2])


def plain(folder: Path) -> float:
    """Images per second of the usual loop, the first steps left out."""
    loader = DataLoader(Files(folder), batch_size=16, shuffle=True, num_workers=2, drop_last=True)
    model = models.build_model(preflight.load("unet-resnet34").model, ("image",))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    model.train()
    times: list[float] = []
    while len(times) < STEPS:
        for image, depth in loader:
            prediction = model({"image": image})["depth"]
            loss = (prediction - depth).abs().mean() + 0.5 * gradient(prediction, depth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()  # as loops that print the loss do
            times.append(time.perf_counter())
            if len(times) == STEPS:
                break
    return (len(times) - 3) * 16 / (times[-1] - times[2])


def gradient(prediction: Tensor, depth: Tensor) -> Tensor:
    """Mean |error of forward differences|."""
    error = prediction - depth
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


class Files(Dataset[tuple[Tensor, Tensor]]):
    """JPEG and PNG files, decoded when they are read."""

    def __init__(self, folder: Path) -> None:
        with (folder / "index.csv").open(encoding="utf-8") as file:
            self.rows = [(folder / row["rgb"], folder / row["depth"]) for row in csv.DictReader(file)]
        self.jitter = ColorJitter(0.2, 0.2, 0.2, 0.05)  # as strong as WORDS have it

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rgb, depth = self.rows[index]
        image = cv2.resize(cv2.cvtColor(read_image(rgb), cv2.COLOR_BGR2RGB), (160, 128))
        # Both are decoded and resized for each sample, as files have to be.
        metres = cv2.resize(read_image(depth, cv2.IMREAD_UNCHANGED), (160, 128), interpolation=cv2.INTER_NEAREST)
        x = self.jitter(torch.from_numpy(image).permute(2, 0, 1).float() / 255)
        y = torch.from_numpy(metres.astype("float32") / 1000).unsqueeze(0)
        return (x.flip(-1), y.flip(-1)) if torch.rand(()) < 0.5 else (x, y)


if __name__ == "__main__":
    sys.exit(main())
