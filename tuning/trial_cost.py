"""What a trained network costs: its size, and the time of one image through it."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

from depthray import models, predict
from depthray.batch import to_device
from depthray.data.loader import eval_batches
from depthray.training.frames import Frames

PASSES, WARM_UP = 9, 2


def cost(run: Path, *, gpu: bool) -> dict[str, float]:
    """Parameters of a run's best checkpoint, and the median milliseconds of one validation image through it.

    The time depends on what else the machine does: compare it within a search only.
    """
    predictor = predict.load(run, device="cuda" if gpu else "cpu")
    data = predictor.recipe.data
    frames = Frames.open(predictor.recipe)
    _, batch = next(iter(eval_batches(frames.source, frames.fixed()[:1], data, batch_size=1)))
    batch = to_device(batch, predictor.device, min_depth=data.min_depth, max_depth=data.max_depth)
    took = []
    with torch.inference_mode():
        for _ in range(PASSES):
            began = time.perf_counter()
            models.run(predictor.model, batch)
            if gpu:
                torch.cuda.synchronize()
            took.append(time.perf_counter() - began)
    parameters = sum(parameter.numel() for parameter in predictor.model.parameters())
    return {"latency_ms": 1000 * statistics.median(took[WARM_UP:]), "parameters": parameters}
