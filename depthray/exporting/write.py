"""A checkpoint as an export: traced, written, compared, and only then put where the user wants it."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from depthray.cards import card_markdown, collected
from depthray.cards.card_markdown import CardSubject
from depthray.checkpoints import load as checkpoints
from depthray.checkpoints import manifest
from depthray.checkpoints.calibration import NETWORK
from depthray.checkpoints.load import CheckpointContents
from depthray.checkpoints.manifest import METRICS, RECIPE
from depthray.checkpoints.model_facts import ModelFacts
from depthray.errors import ParityError, UsageError
from depthray.evaluation.protocols import MEANING
from depthray.exporting import gate, parity_report, readme
from depthray.exporting.export_frames import CALIBRATION, CPU, GATE, ExportFrames, open_frames
from depthray.exporting.exported_spread import spread_of
from depthray.exporting.gate import Parity
from depthray.exporting.graph import Inputs, TracedGraph, build_graph, trace
from depthray.exporting.targets import GateScores, TargetRequest, target
from depthray.runs import layout
from depthray.runtimes import export_folder
from depthray.runtimes.canonical_depth import in_metres
from depthray.runtimes.export_folder import ExportFolder, ExportSpec
from depthray.runtimes.exported_network import ExportedNetwork
from depthray.runtimes.open import open_model
from depthray.runtimes.spread import Spread
from depthray.storage.os_errors import translate_os_errors
from depthray.version import __version__

LARGEST_SIDE = 2048  # pixels, by default
UNFINISHED = ".exporting-"  # begins the names of folders that are not complete yet


@dataclass(frozen=True)
class ExportRequest:
    """What the user asked for."""

    target: str
    out: Path
    data: str | None = None  # frames to calibrate and compare with; None: rendered rooms
    form: str | None = None
    precision: str | None = None
    bound: float | None = None
    largest_side: int = LARGEST_SIDE
    calibration: int = CALIBRATION
    gate: int = GATE
    trust: bool = False  # in code that comes with the checkpoint
    spread: Spread | None = None  # whose predictions confidence is the spread of; None: what the network itself says


@dataclass(frozen=True)
class _Source:
    """What is exported, the same for each target."""

    contents: CheckpointContents
    network: nn.Module  # as the checkpoint has it
    traced: TracedGraph
    frames: ExportFrames
    notes: tuple[str, ...]
    spread: str | None = None  # the name of the spread in the graph


@dataclass(frozen=True)
class _Context:
    """What the steps of one export share."""

    request: ExportRequest
    source: _Source
    precision: str
    notes: list[str]
    say: Callable[[str], None]

    @property
    def size(self) -> tuple[int, int]:
        """The recipe's size as the graph can take it."""
        height, width = (self.source.traced.graph.round_up(side) for side in self.source.contents.recipe.data.size)
        return height, width


def export(path: Path, request: ExportRequest, *, say: Callable[[str], None] = lambda _: None) -> Parity:
    """Write the export of a checkpoint to `request.out`.

    Raises ParityError where it differs from the checkpoint by more than is allowed; then only the report is written.
    """
    return Exporter(path, say=say).export(request)


class Exporter:
    """Exports of one checkpoint, which is loaded and traced once.

    Frames and the largest side are those of the first request, which all others share.
    """

    def __init__(self, path: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
        self._path = path
        self._say = say
        self._source: _Source | None = None

    def export(self, request: ExportRequest) -> Parity:
        """As `export` does."""
        module = target(request.target)
        precision = _precision(module, request)
        refuse_existing(request.out)
        if export_folder.is_export(self._path):
            raise UsageError(f"{self._path}: is an export, which cannot be exported again; name the checkpoint")
        if self._source is None:
            self._source = _load_and_trace(self._path, request, self._say)
        context = _Context(request, self._source, precision, list(self._source.notes), self._say)
        with _unfinished_folder(request.out) as folder:
            return _export(module, folder, self._path, context)


def _export(module: Any, folder: Path, path: Path, context: _Context) -> Parity:
    """Write, compare and publish what is complete."""
    request, frames = context.request, context.source.frames
    context.say(f"writing {request.target}")
    spec = _write_model(module, folder, path, context)
    context.say(f"comparing on {len(frames.gate)} frames")
    parity = _compare(folder, context)
    title = f"Parity of {request.target}, {spec.precision}, with {path.name}"
    if not parity.passed:
        parity_report.write(parity, request.out, title=title)
        raise ParityError(
            f"{request.out}: not exported, as it differs from the checkpoint by more than is allowed: "
            f"{parity_report.verdict(parity)} See {request.out / parity_report.TEXT}; allow more by "
            "--bound, or use another --to"
        )
    parity_report.write(parity, folder, title=title)
    spec = replace(spec, tested=parity_report.as_tree(parity))
    _write_texts(folder, path, replace(spec, facts=_facts(context, path)), context, parity)
    _publish(folder, request.out)
    return parity


def _facts(context: _Context, path: Path) -> ModelFacts | None:
    """What the checkpoint says of itself, with the reports beside its run."""
    facts = context.source.contents.facts
    return None if facts is None else collected.with_reports(facts, layout.reports(path), path.name)


def _write_texts(folder: Path, path: Path, spec: ExportSpec, context: _Context, parity: Parity) -> None:
    """Write what is for people, and model.json."""
    contents = context.source.contents
    curves = path.parents[1] / layout.RESULTS_PICTURE
    if path.parent.name == layout.CHECKPOINTS and curves.is_file():
        shutil.copyfile(curves, folder / curves.name)
    subject = CardSubject(
        recipe=contents.recipe,
        facts=spec.facts,
        origin=spec.origin,
        calibration=contents.calibration,
        epoch=spec.epoch,
        step=spec.step,
        sha256=spec.checkpoint_sha256,
        versions=spec.versions,
        metrics=spec.scores,
        target=spec.target,
        curves=curves.name if (folder / curves.name).is_file() else "",
    )
    (folder / readme.NAME).write_text(readme.markdown(spec, contents.recipe, parity), encoding="utf-8")
    (folder / layout.MODEL_CARD).write_text(card_markdown.markdown(subject), encoding="utf-8")
    export_folder.write(folder, spec)


def refuse_existing(out: Path) -> None:
    """Raise a UsageError where something is at `out` already, other than the report of an export that failed."""
    if out.is_dir() and not out.is_symlink() and {entry.name for entry in out.iterdir()} <= set(parity_report.FILES):
        return
    if out.exists() or out.is_symlink():
        raise UsageError(f"--out {out}: exists; choose another folder or remove it")


def _precision(module: Any, request: ExportRequest) -> str:
    precision: str = request.precision or module.PRECISIONS[0]
    if precision not in module.PRECISIONS:
        known = ", ".join(module.PRECISIONS)
        raise UsageError(f"--precision {precision}: {request.target} computes in {known} alone")
    return precision


def _load_and_trace(path: Path, request: ExportRequest, say: Callable[[str], None]) -> _Source:
    contents = checkpoints.load(path, trust=request.trust)
    data = contents.recipe.data
    frames = open_frames(data, request.data, request.form, calibration=request.calibration, gate=request.gate)
    network = checkpoints.build_network(contents, where=path).eval().requires_grad_(False)
    spread = None
    if request.spread:
        network, spread = spread_of(request.spread, network, contents, trust=request.trust)
    # Without the camera, of which the graph would need the focal length: who computes it scales its depth.
    graph = build_graph(copy.deepcopy(network), data.targets)
    say("tracing the network")
    height, width = (graph.round_up(side) for side in data.size)
    traced = trace(graph, size=(height, width), largest_side=max(request.largest_side, height, width))
    notes = () if traced.dynamic_size else (f"Only frames of {width}x{height} can be given: {traced.note}",)
    return _Source(contents, in_metres(network, data), traced, frames, notes, spread)


def _write_model(module: Any, folder: Path, path: Path, context: _Context) -> ExportSpec:
    """Write the model and what goes with it; returns what `model.json` says until the gate has measured."""
    with translate_os_errors(folder, to=UsageError, doing="write the export", advice="give another --out"):
        record = manifest.read(path)
        for name in (RECIPE, METRICS):
            (folder / name).write_bytes(manifest.read_file(path / name, record.files[name]))
        spec = _spec(context, module.FILE)
        written = module.write(context.source.traced, folder, _target_request(folder, spec, context))
        spec = replace(spec, model_file=written.model_file, versions={**spec.versions, **written.versions})
        export_folder.write(folder, spec)
    return spec


def _spec(context: _Context, model_file: str) -> ExportSpec:
    contents, traced = context.source.contents, context.source.traced
    recipe, graph = contents.recipe, traced.graph
    kind = recipe.depth_kind
    unit = export_folder.DEPTH_UNIT if kind == "metric" else MEANING[kind]
    if recipe.data.scales_labels:
        unit = export_folder.CANONICAL_UNIT
    canonical = export_folder.canonical_of(recipe.data)
    fitted = contents.temperature if contents.temperature and contents.temperature.of != NETWORK else None
    return ExportSpec(
        target=context.request.target,
        precision=context.precision,
        inputs=tuple(export_folder.input_port(key, canonical=canonical) for key in graph.inputs),
        outputs=tuple(export_folder.output_port(key, depth_unit=unit) for key in graph.outputs),
        stride=graph.stride,
        size=context.size,
        dynamic_batch=traced.dynamic_batch,
        dynamic_size=traced.dynamic_size,
        largest_side=traced.largest_side,
        model_file=model_file,
        depth_kind=kind,
        canonical=canonical,
        spread=context.source.spread,
        temperature=None if context.source.spread else fitted,
        checkpoint_sha256=contents.weights_sha256,
        epoch=contents.epoch,
        step=contents.step,
        fingerprint=contents.fingerprint,
        origin=contents.origin,
        versions={"depthray": __version__, "torch": torch.__version__, "numpy": version("numpy")},
        scores=contents.metrics,
        tested={},
        # What was traced for, and what the gate compares at if that is smaller.
        smallest_side=min(traced.smallest_side, *(side for size in gate.sizes_of(traced) for side in size)),
    )


def _target_request(folder: Path, spec: ExportSpec, context: _Context) -> TargetRequest:
    source = context.source
    graph, frames = source.traced.graph, source.frames
    sizes = gate.sizes_of(source.traced)  # so that the ranges of values are those of all of them
    score = gate.scorer(frames, source.contents.recipe, sizes)

    def calibration() -> Iterator[Inputs]:
        return frames.calibration_inputs(graph, sizes)

    def score_function(compute: Callable[[Inputs], Sequence[Tensor]], positions: Sequence[int]) -> GateScores:
        run = lambda tensors: compute(tuple(tensors))  # noqa: E731
        exported = ExportedNetwork(ExportFolder(folder, spec, {}), run, device=CPU)
        return score(in_metres(exported, source.contents.recipe.data), positions)

    bound = gate.BOUNDS[context.precision] if context.request.bound is None else context.request.bound
    return TargetRequest(context.precision, calibration, score_function, bound, context.notes.append, context.say)


def _compare(folder: Path, context: _Context) -> Parity:
    source = context.source
    opened = open_model(folder, device=CPU, trust=True)  # native code, if any, was compiled a moment ago
    parity = gate.compare(
        source.network,
        opened.network,
        source.frames,
        source.contents.recipe,
        sizes=gate.sizes_of(source.traced),
        batches=gate.BATCHES if source.traced.dynamic_batch else (1,),
        precision=context.precision,
        bound=context.request.bound,
    )
    return replace(parity, notes=tuple(context.notes))


@contextmanager
def _unfinished_folder(out: Path) -> Iterator[Path]:
    """A folder next to `out`, which is gone at the end whatever happens."""
    folder = out.parent / f"{UNFINISHED}{uuid4().hex}"
    with translate_os_errors(out, to=UsageError, doing="write the export", advice="give another --out"):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, out: Path) -> None:
    """Give the folder its name; a report of an earlier failure is replaced."""
    with translate_os_errors(out, to=UsageError, doing="write the export", advice="give another --out"):
        refuse_existing(out)  # again: tracing takes its time
        if out.is_dir():
            shutil.rmtree(out)
        os.rename(folder, out)
