"""Opening a trained model: a checkpoint, which PyTorch computes, or an export, which another runtime does."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthray import models
from depthray.checkpoints import load as checkpoints
from depthray.checkpoints.calibration import NETWORK, Calibration, Temperature
from depthray.checkpoints.manifest import METRICS, RECIPE
from depthray.checkpoints.model_facts import ModelFacts
from depthray.checkpoints.origin import Origin
from depthray.config import own_code
from depthray.config.sections import Recipe
from depthray.errors import DepthrayError, UsageError
from depthray.runtimes import allocator, export_folder
from depthray.runtimes.export_folder import ExportFolder, spread_family

if TYPE_CHECKING:  # torch takes seconds to import, and `read_recipe` and `names` do without
    import torch
    from torch import nn

EAGER = "eager"  # PyTorch with the network's own Python code
INSTALL = "pip install 'depthray[export]'"


@dataclass(frozen=True)
class OpenedModel:
    """A model that is ready to predict, with what it was trained by."""

    network: nn.Module
    recipe: Recipe
    metrics: dict[str, float]
    epoch: int
    step: int
    fingerprint: str
    origin: Origin | None
    sha256: str  # of a checkpoint's weights, or of all that an export consists of
    runtime: str  # eager, or the name of a file of `backends`
    device: torch.device  # where it computes
    calibration: Calibration | None = None  # of a checkpoint's depth, which the network has applied
    temperature: Temperature | None = None  # of its confidence, likewise, or of a spread
    spread: str = NETWORK  # whose deviation `log_sigma` is
    facts: ModelFacts | None = None  # what it was trained on; None where that was not recorded


def names() -> list[str]:
    """The runtimes there are besides PyTorch's eager mode, by the files of `backends`."""
    return sorted(path.stem for path in (Path(__file__).parent / "backends").glob("[!_]*.py"))


def backend(name: str) -> Any:
    """The module of a runtime."""
    return import_module(f"depthray.runtimes.backends.{name}")


def missing(name: str) -> list[str]:
    """The packages that a runtime needs and that are not installed."""
    return [package for package in backend(name).PACKAGES if find_spec(package) is None]


def has_own_threads(runtime: str) -> bool:
    """Whether a runtime computes on threads that are not PyTorch's."""
    return runtime != EAGER and getattr(backend(runtime), "OWN_THREADS", False)


def read_recipe(path: Path, *, trust: bool = False) -> Recipe:
    """The recipe of a checkpoint or an export, its file verified. With `trust`, its own code may be imported."""
    if not export_folder.is_export(path):
        return checkpoints.read_recipe(path, trust=trust)
    return checkpoints.parse_recipe(export_folder.read_folder(path).read_file(RECIPE), where=path)


def open_model(
    path: Path, *, device: torch.device, threads: int | None = None, trust: bool = False, where: Path | None = None
) -> OpenedModel:
    """The model in a checkpoint or an export, on the device; on the CPU where its runtime knows no such device.

    `threads` are those of runtimes that have their own, by default as many as PyTorch's. Without `trust` nothing in the
    files is run that could be anything but a network. Errors name `where` in place of the path.
    """
    allocator.keep_freed_memory()
    if export_folder.is_export(path):
        return _open_export(path, device=device, threads=threads, trust=trust)
    from depthray.runtimes.canonical_depth import in_metres

    contents = checkpoints.load(path, trust=trust)
    return OpenedModel(
        network=in_metres(checkpoints.build_network(contents, where=where or path), contents.recipe.data).to(device),
        recipe=contents.recipe,
        metrics=contents.metrics,
        epoch=contents.epoch,
        step=contents.step,
        fingerprint=contents.fingerprint,
        origin=contents.origin,
        sha256=contents.weights_sha256,
        runtime=EAGER,
        device=device,
        calibration=contents.calibration,
        temperature=contents.temperature,
        facts=contents.facts,
    )


def _open_export(path: Path, *, device: torch.device, threads: int | None, trust: bool) -> OpenedModel:
    from depthray.runtimes.canonical_depth import in_metres

    folder = export_folder.read_folder(path)
    spec = folder.spec
    recipe = checkpoints.parse_recipe(folder.read_file(RECIPE), where=path)
    _check_recipe(folder, recipe)
    runtime, network = _build_network(folder, device=device, threads=threads, trust=trust)
    network.zero_padded = models.zero_padded(recipe.model, network.inputs)
    network.uncertainty = spread_family(recipe.model.uncertainty) if spec.spread else recipe.model.uncertainty
    if "semantics" in network.inputs and not own_code.is_own(recipe.model.name):
        _limit_classes(network, recipe)
    return OpenedModel(
        network=in_metres(network, recipe.data),
        recipe=recipe,
        metrics=checkpoints.parse_metrics(folder.read_file(METRICS)),
        epoch=spec.epoch,
        step=spec.step,
        fingerprint=spec.fingerprint,
        origin=spec.origin,
        sha256=export_folder.identity(path),
        runtime=runtime,
        device=network.device,
        temperature=spec.temperature,
        spread=spec.spread or NETWORK,
        facts=spec.facts,
    )


def _build_network(folder: ExportFolder, *, device: torch.device, threads: int | None, trust: bool) -> tuple[str, Any]:
    """The name of the runtime and the network, its model file checked."""
    import torch

    from depthray.runtimes.exported_network import ExportedNetwork

    name = _runtime_of(folder)
    module = backend(name)
    if packages := missing(name):
        raise UsageError(f"{folder.path}: needs {packages[0]}, which is not installed: {INSTALL}")
    if getattr(module, "NATIVE", False) and not trust:
        raise UsageError(
            f"{folder.path}: is native code, which could do anything here; add --trust if you made it yourself, or "
            "export to onnx"
        )
    chosen = device if device.type in module.DEVICES else torch.device("cpu")
    try:
        run = module.load(folder, threads=threads or torch.get_num_threads(), device=chosen)
    except DepthrayError:
        raise
    except Exception as error:  # each runtime has its own classes
        raise folder.refusal(f"{name} does not open it: {' '.join(str(error).split())[:200]}") from error
    return name, ExportedNetwork(folder, run, device=chosen, own_threads=has_own_threads(name))


def _runtime_of(folder: ExportFolder) -> str:
    targets = {target: name for name in names() for target in backend(name).TARGETS}
    if folder.spec.target not in targets:
        raise folder.refusal(f"target {folder.spec.target!r} is none of {', '.join(targets)}")
    return targets[folder.spec.target]


def _check_recipe(folder: ExportFolder, recipe: Recipe) -> None:
    """Inputs are prepared and maps are read by the recipe, so it must be that of the graph."""
    spec, data = folder.spec, recipe.data
    inputs, outputs = {port.name for port in spec.inputs}, {port.name for port in spec.outputs}
    auxiliary = {"uncertainty": "sigma", "valid_mask": "valid"}
    possible = {*data.targets, *(auxiliary[key] for key in recipe.model.auxiliary_maps)}
    possible |= {"sigma"} if spec.spread else set()
    if (
        not inputs <= set(models.all_inputs(recipe.model, data.inputs))
        or not outputs <= possible
        or spec.depth_kind != recipe.depth_kind
        or (spec.canonical != export_folder.canonical_of(data))
    ):
        raise folder.refusal(f"{RECIPE} is not the recipe of this model")


def _limit_classes(network: Any, recipe: Recipe) -> None:
    """Which class ids are refused: those that the architecture has no place for."""
    import torch

    with torch.device("meta"):
        original = models.build_model(recipe.model, recipe.data.inputs)
    counts = [module.num_classes for module in original.modules() if hasattr(module, "num_classes")]
    if counts:
        network.num_classes = min(int(count) for count in counts)  # type: ignore[arg-type]
