"""A training loop as people write it, which benchmarks put beside depthray's.

JPEG and PNG decoded in two DataLoader workers, flips and colour jitter, float32, torch's optimiser at its defaults as
the PyTorch tutorials have it, no averages of weights.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rendered_frames import read_image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ColorJitter

from depthray import losses, models
from depthray.config.sections import Recipe
from depthray.data.source import keys_to_read
from depthray.weights.start import start

# The same random changes in depthray's words.
AUGMENT = [
    *("augment.crop=1", "augment.rotate=0", "augment.hflip=0.5"),
    *("augment.brightness=0.2", "augment.contrast=0.2", "augment.saturation=0.2", "augment.hue=0.05"),
]
FILES = {"image": "rgb", "depth": "depth", "semantics": "labels", "background": "background", "mask": "mask"}


def train(recipe: Recipe, rows: Sequence[int] | None = None, *, lr: float = 1e-4) -> Iterator[nn.Module]:
    """Train on a folder for ever, on all frames or some rows of its index; the network after each step."""
    batches = DataLoader(Files(recipe, rows), recipe.train.batch_size, shuffle=True, num_workers=2, drop_last=True)
    model = models.build_model(recipe.model, recipe.data.inputs)
    start(model, recipe.model)
    kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimiser = kinds.get(recipe.optim.name, torch.optim.AdamW)(model.parameters(), lr=lr)
    criterion = losses.prepare(recipe.loss)
    for batch in endless(batches):
        model.train()
        loss = criterion(models.run(model, batch), batch).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        loss.item()  # as loops that print the loss do
        yield model


def endless(batches: DataLoader[dict[str, Tensor]]) -> Iterator[Any]:
    """The batches of one epoch after the other."""
    while True:
        yield from batches


class Files(Dataset[dict[str, Tensor]]):
    """JPEG and PNG files, decoded when they are read: those of some rows of the index, or all of them."""

    def __init__(self, recipe: Recipe, rows: Sequence[int] | None = None) -> None:
        folder, self.size = Path(recipe.data.root), recipe.data.size
        self.keys = [key for key in keys_to_read(recipe.data) if key in FILES]
        samples = recipe.data.sparse.samples
        most = samples if isinstance(samples, int) else samples[1]
        self.samples = most if "sparse" in recipe.data.inputs else 0
        with (folder / "index.csv").open(encoding="utf-8") as file:
            every = [{key: folder / row[FILES[key]] for key in self.keys} for row in csv.DictReader(file)]
        self.rows = every if rows is None else [every[row] for row in rows]
        self.jitter = ColorJitter(0.2, 0.2, 0.2, 0.05)  # as strong as AUGMENT has it

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = {key: self.read(key, path) for key, path in self.rows[index].items()}
        if torch.rand(()) < 0.5:
            sample = {key: value.flip(-1) for key, value in sample.items()}
        if "depth" in sample:
            sample["valid"] = sample["depth"] > 0
        if self.samples:
            share = self.samples / sample["depth"].numel()
            sample["sparse"] = sample["depth"] * (torch.rand(sample["depth"].shape) < share)
        return sample

    def read(self, key: str, path: Path) -> Tensor:
        """(C,h,w) of a file, decoded and resized for each sample, as files have to be."""
        size = self.size[::-1]
        if key in ("image", "background"):
            image = cv2.resize(cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB), size)
            colours = torch.from_numpy(image).permute(2, 0, 1).float() / 255
            return self.jitter(colours) if key == "image" else colours
        stored = cv2.resize(read_image(path, cv2.IMREAD_UNCHANGED), size, interpolation=cv2.INTER_NEAREST)
        if key == "semantics":
            return torch.from_numpy(stored.astype(np.int64)).unsqueeze(0)
        return torch.from_numpy(stored.astype(np.float32) / (1000 if key == "depth" else 1)).unsqueeze(0)
