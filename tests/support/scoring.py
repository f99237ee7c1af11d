"""A small set of frames and a small network to score, by one process or by one of several."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from depthray import distributed
from depthray.batch import Batch, Prediction, Sample
from depthray.config.sections import Data
from depthray.data.loader import eval_batches
from depthray.data.source import Frame
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.protocols import PLAIN

COUNT, BATCH, DATA = 11, 2, Data(size=(24, 32))  # 6 batches, the last one short: nothing divides by 2 or 3


class Rooms:
    """Random frames, every fourth of another size; frame 3 has nothing measured."""

    fingerprint, keys = "0" * 64, frozenset({"image", "depth"})

    def __init__(self, count: int = COUNT) -> None:
        self.frames = [Frame(f"frame-{i:02d}", f"room-{i // 4}", "", ("a", "b")[i % 2]) for i in range(count)]

    def read(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        height, width = (30, 34) if index % 4 == 1 else (24, 32)
        depth = rng.uniform(0.3, 8, (height, width)).astype(np.float32)
        depth[:4] = 0
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        frame = self.frames[index]
        depth *= index != 3
        return Sample(image=image, depth=depth, id=frame.id, scene=frame.scene, source=frame.source)


class Net(nn.Module):
    """A convolution of the image to 0-6 m."""

    inputs, stride = ("image",), 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, batch: Batch) -> Prediction:
        return {"depth": 6 * torch.sigmoid(self.layers(batch["image"]))}


def score_in_groups(folder: Path, ports: Sequence[str]) -> None:
    """Score the frames as one of 1, 2 and 3 processes in turn, a port each; this one's results go into a file."""
    result = []
    for world_size, port in enumerate(ports, start=1):
        if int(os.environ["RANK"]) < world_size:
            os.environ.update(WORLD_SIZE=str(world_size), MASTER_PORT=port)
            result.append(score())
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(result))


def score() -> dict[str, Any]:
    """What this process of a group knows once the group has scored the frames."""
    device = distributed.start(gpu=False)
    process: dict[str, Any] = {"rank": distributed.rank(), "world_size": distributed.world_size()}
    source: Any = Rooms()
    batches = eval_batches(source, range(COUNT), DATA, batch_size=BATCH, **process)
    evaluation = evaluate(Net(), batches, protocol=PLAIN, device=device)
    distributed.stop()
    return {**process, "sums": evaluation.sums.tolist(), "ids": [row.id for row in evaluation.rows]}
