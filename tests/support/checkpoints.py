"""Checkpoints and their contents made by code, a way to compare what came back, and means to harm what was written."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from depthray import models
from depthray.checkpoints import manifest, save
from depthray.checkpoints.load import CheckpointContents, load
from depthray.config.sections import Recipe
from depthray.models.layers.auxiliary.auxiliary_head import GAIN
from depthray.storage import local
from depthray.training import preflight

MASKED = ("model.valid_mask=true", "loss.valid_bce=0.1")
SMALL = ["data.size=64,96", "model.encoder=tiny"]


def write_checkpoint(folder: Path, *overrides: str, name: str = "demo") -> Path:
    """A checkpoint of an untrained network below a run folder."""
    made = preflight.load(name, [*(SMALL if name == "demo" else SMALL[:1]), *overrides])
    torch.manual_seed(0)
    weights = models.build_model(made.model, made.data.inputs).state_dict()
    contents = CheckpointContents(
        weights=weights, state={}, recipe=made, metrics={"abs_rel": 0.1}, epoch=1, step=1, fingerprint="f"
    )
    return save.write(folder / "checkpoints", contents)


def write_unsure(folder: Path, *overrides: str, family: str = "laplace") -> Path:
    """A checkpoint whose network predicts the deviation of ln depth, another in each pixel."""
    path = write_checkpoint(folder, f"model.uncertainty={family}", f"loss.{family}_nll=0.3", *overrides)
    loaded = load(path)
    generator = torch.Generator().manual_seed(3)
    last = loaded.weights["metres.log_sigma.layers.4.weight"]
    loaded.weights["metres.log_sigma.layers.4.weight"] = 0.4 * torch.randn(last.shape, generator=generator)
    loaded.weights["metres.log_sigma.layers.4.bias"] -= 1.2 / GAIN  # about 5 % of depth
    if loaded.recipe.model.valid_mask:
        _mask_half(loaded)
    return save.write(folder / "unsure", loaded)


def write_masked(folder: Path, *overrides: str) -> Path:
    """A checkpoint whose network predicts in about half of the pixels that there is no depth."""
    path = write_checkpoint(folder, *MASKED, *overrides)
    loaded = load(path)
    _mask_half(loaded)
    return save.write(folder / "masked", loaded)


def _mask_half(loaded: CheckpointContents) -> None:
    """Weights by which there is a depth in about half of the pixels of noise."""
    generator = torch.Generator().manual_seed(3)
    weight, bias = (f"metres.valid_mask.layers.4.{part}" for part in ("weight", "bias"))
    loaded.weights[weight] = 0.4 * torch.randn(loaded.weights[weight].shape, generator=generator)
    network = models.build_model(loaded.recipe.model, loaded.recipe.data.inputs).eval()
    network.load_state_dict({**loaded.weights, bias: torch.zeros(1)})
    with torch.no_grad():
        logits = network({"image": torch.rand(1, 3, 64, 96, generator=generator)})["valid"]
    loaded.weights[bias] = -logits.median()[None] / GAIN


def contents(step: int = 1, score: float = 0.5, *, epoch: int = 0, fill: float = 1.0) -> CheckpointContents:
    """Weights in two layouts and three dtypes, nested state, and a score; all tensors hold `fill`."""
    weights = {
        "conv.weight": torch.full((4, 3, 3, 3), fill).to(memory_format=torch.channels_last),
        "count": torch.tensor(3),
        "half": torch.full((5,), fill, dtype=torch.bfloat16),
    }
    state = {"optimiser": {"state": {0: {"exp_avg": torch.full((7,), fill)}}, "lr": [0.1, None]}, "step": step}
    return CheckpointContents(weights, state, Recipe(seed=step), {"abs_rel": score}, epoch, step, "f" * 64)


def flat(tree: Any) -> list[Any]:
    """The leaves of nested dicts and lists, tensors with their strides."""
    if isinstance(tree, Tensor):
        return [tree.tolist(), tree.dtype, tree.stride()]
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in (key, *flat(value))]
    return [leaf for value in tree for leaf in flat(value)] if isinstance(tree, (list, tuple)) else [tree]


class Hostile:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.mark}",))


def reseal(path: Path) -> None:
    """Make the manifest agree with the files as they now are, as someone who means harm would."""
    tree = json.loads((path / "manifest.json").read_bytes())
    files = {}
    for name in tree["files"]:
        data = (path / name).read_bytes()
        files[name] = local.FileRecord(len(data), sha256(data).hexdigest())
    record = manifest.Manifest(tree["epoch"], tree["step"], tree["fingerprint"], tree["versions"], files)
    (path / "manifest.json").write_bytes(manifest.render(record))
