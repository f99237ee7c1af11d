"""The networks that exports are tested with: every architecture, variant and recipe, at a depth that suits a test."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from inputs import some
from shallow_networks import build_shallow
from torch import nn

from depthray import models
from depthray.config import recipe as recipes
from depthray.config.sections import Model
from depthray.exporting import targets
from depthray.exporting.graph import Inputs, TracedGraph
from depthray.exporting.targets import GateScores, TargetRequest
from depthray.runtimes import export_folder
from depthray.runtimes.export_folder import ExportFolder, ExportSpec
from depthray.training import preflight

FURTHER = ("image", "background", "semantics", "instances", "mask")
EXTRA: tuple[Any, ...] = (  # what no recipe has
    ("unet", {"encoder": "tiny", "uncertainty": "laplace", "valid_mask": True}, FURTHER),
    ("fpn", {"encoder": "resnet18"}, ("image", "sparse")),
    ("dpt", {"size": "tiny", "lora_rank": 2, "lora_mlp": True}, ("image",)),
    ("dpt", {"size": "tiny", "registers": 4}, ("image",)),
    (
        "fpn",
        {
            "encoder": "resnet18",
            "sparse_fusion": "late",
            "fill": "guided",
            "refine": "nlspn",
            "refine_samples": "exact",
            "refine_steps": 2,
        },
        ("image", "sparse"),
    ),
)


class ExportCase(NamedTuple):
    """A network as a recipe or variant names it."""

    architecture: str
    options: dict[str, Any]
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        options = " ".join(f"{key}={value}" for key, value in self.options.items())
        natural = defaults(self.architecture)["inputs"]
        return " ".join(
            filter(None, (self.architecture, options, "" if self.inputs == natural else "+".join(self.inputs)))
        )


def defaults(name: str) -> dict[str, Any]:
    """Option -> its default, and the inputs that an architecture has by default."""
    build = import_module(f"depthray.models.{name}").build
    return {key: parameter.default for key, parameter in inspect.signature(build).parameters.items()}


def cases() -> list[ExportCase]:
    """All of them, each once."""
    known: dict[str, ExportCase] = {}
    for case in (*_variants(), *_recipes(), *(ExportCase(*extra) for extra in EXTRA)):
        whole = {**defaults(case.architecture), **case.options, "inputs": case.inputs, "max_depth": 0}
        known.setdefault(json.dumps([case.architecture, whole], sort_keys=True), case)
    return list(known.values())


def _variants() -> Iterator[ExportCase]:
    for name in models.names():
        inputs = defaults(name)["inputs"]
        yield ExportCase(name, {}, inputs)
        for options in getattr(import_module(f"depthray.models.{name}"), "VARIANTS", {}).values():
            yield ExportCase(name, options, inputs)


def _recipes() -> Iterator[ExportCase]:
    for name in recipes.names():
        recipe = preflight.load(name, training=False)
        options = recipe.model.options | models.depth_head_options(recipe.model)
        yield ExportCase(recipe.model.name, options, recipe.data.inputs)


def build(case: ExportCase) -> nn.Module:
    """The network of a case with random weights and statistics that fit them, shallow where it repeats itself."""
    torch.manual_seed(0)
    network = build_shallow(Model(name=case.architecture, **case.options), case.inputs)
    for name, parameter in network.named_parameters():  # what begins at 0 would be the same everywhere
        if any(part in name for part in (".log_sigma.", ".valid_mask.", ".fill.", ".late.")) and not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return settle(network)


def write_traced(
    traced: TracedGraph, name: str, folder: Path, *, calibration: Sequence[Inputs] = (), precision: str = ""
) -> ExportFolder:
    """An export of a traced graph, without a checkpoint or a gate."""
    module, graph = targets.target(name), traced.graph
    request = TargetRequest(
        precision=precision or module.PRECISIONS[0],
        calibration=lambda: iter(calibration),
        score=lambda compute, positions: GateScores(1.0, [1.0] * len(positions)),
        most_drop=0.0,
        note=lambda text: None,
    )
    written = module.write(traced, folder, request)
    for file in ("recipe.yaml", "metrics.json"):
        (folder / file).write_text("{}\n", encoding="utf-8")
    spec = ExportSpec(
        target=name,
        precision=request.precision,
        inputs=tuple(export_folder.input_port(key) for key in graph.inputs),
        outputs=tuple(export_folder.output_port(key) for key in graph.outputs),
        stride=graph.stride,
        size=traced.size,
        dynamic_batch=traced.dynamic_batch,
        dynamic_size=traced.dynamic_size,
        largest_side=traced.largest_side,
        model_file=written.model_file,
        depth_kind="metric",
        checkpoint_sha256="",
        epoch=0,
        step=0,
        fingerprint="",
        origin=None,
        versions=written.versions,
        scores={},
        tested={},
    )
    export_folder.write(folder, spec)
    return export_folder.read_folder(folder)


def settle(network: nn.Module) -> nn.Module:
    """Norms with factors and shifts of their own, and the statistics of what they then see."""
    norms = [part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.7, 1.3)
            norm.bias.uniform_(-0.1, 0.1)
            norm.momentum = 1.0
        if norms:
            models.run(network.train(), some(network.inputs, 4, 96, 128))  # type: ignore[arg-type]
    return network.eval()
