"""Weights of depthray's own networks: a checkpoint, or a file of one; and files that no family recognises.

Exports are refused: their weights are folded, merged or in 8 bits, and have names of another runtime.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from depthray import models
from depthray.checkpoints import load
from depthray.checkpoints.load import CheckpointContents
from depthray.errors import UsageError
from depthray.runtimes import export_folder
from depthray.weights.describe import describe_network, fitting_keys, option
from depthray.weights.translation import ENCODER, Hints, Translation, Weights, Widths, encoder_of, stacks_of

EXPORTED = (".onnx", ".xml", ".bin", ".pt2")  # files of exports
DROPPED = ("fc.", "classifier.", "head.fc.")  # classifiers, of which encoders have none


def refuse_export(path: Path, *, where: str) -> None:
    """Raise a UsageError where a path is an export or a file of one."""
    if export_folder.is_export(path) or (path.suffix in EXPORTED and export_folder.is_export(path.parent)):
        raise UsageError(f"{where}: is an export, whose weights are not trained on; name the checkpoint it was made of")


def of_checkpoint(contents: CheckpointContents, *, where: str) -> Translation:
    """All of a checkpoint, matrices of LoRA merged into the weights that they are added to."""
    section = contents.recipe.model
    weights = contents.weights
    if any(".lora_" in key for key in weights):
        weights = dict(
            load.build_network(replace(contents, calibration=None, temperature=None), where=where).state_dict()
        )
    return Translation(
        what=f"a depthray network, {describe_network(section)}",
        fits=fitting_keys(section),
        weights=weights,
        stacks=_stacks(contents),
        max_depth=option(section, "max_depth"),
        depth_kind=contents.recipe.depth_kind,
        corrects="sparse" in contents.recipe.data.inputs and section.start == "samples",
    )


def _stacks(contents: CheckpointContents) -> tuple[Widths, ...]:
    with torch.device("meta"):
        return stacks_of(models.build_model(contents.recipe.model, contents.recipe.data.inputs))


def translate(weights: Weights, network: nn.Module, hints: Hints) -> Translation:
    """The weights under their own names where the network knows these, else as those of its encoder."""
    ours = network.state_dict().keys()
    if any(key.startswith(ENCODER) for key in weights) or len(ours & weights.keys()) > len(weights) / 2:
        return Translation(what="weights of a depthray network without its recipe", fits="", weights=dict(weights))
    first = next(iter(weights), "")
    kept = {key: value for key, value in weights.items() if not key.startswith(DROPPED)}
    prefix = ENCODER if encoder_of(network) is not None else ""
    return Translation(
        what=f"of no family that depthray knows (its first weight is '{first}')",
        fits="",
        weights={f"{prefix}{key}": value for key, value in kept.items()},
        prefix=prefix,
        idle=tuple(key for key in weights if key not in kept),
    )
