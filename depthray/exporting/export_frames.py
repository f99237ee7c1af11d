"""The frames by which an export is calibrated and compared: whole scenes are for the one or for the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from depthray import models
from depthray.batch import Batch, to_device
from depthray.config.recipe import absolute_path
from depthray.config.sections import Data
from depthray.data import sources, split
from depthray.data.loader import eval_batches
from depthray.data.mixing import data_sets
from depthray.data.source import Source
from depthray.data.sources import open_source
from depthray.errors import UsageError
from depthray.evaluation.evaluate import Batches
from depthray.exporting.graph import ExportGraph, Inputs

CALIBRATION, GATE = 96, 32  # frames, by default
ROOMS = "rendered rooms, no data of yours: name some by --calibrate for a verdict about it"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ExportFrames:
    """Frames of a data set, by index."""

    source: Source
    data: Data
    calibration: Sequence[int]
    gate: Sequence[int]
    about: str

    def batches(self, indices: Sequence[int], *, size: tuple[int, int], batch_size: int) -> Batches:
        """Batches of some frames, their inputs at a size (H,W)."""
        # Any size, whatever the camera: an export and its checkpoint are given the same picture.
        focal = 0.0 if self.data.resizes_to_focal else self.data.canonical_focal
        data = self.data.model_copy(update={"size": size, "fit": "exact", "canonical_focal": focal})
        return eval_batches(self.source, indices, data, batch_size=batch_size)

    def calibration_inputs(self, graph: ExportGraph, sizes: Sequence[tuple[int, int]]) -> Iterator[Inputs]:
        """The inputs of the graph for the calibration frames, one by one, of these sizes in turn."""
        for position in range(len(self.calibration)):
            for _, batch in self.calibration_batches([position], sizes):
                models.check_ids(graph, batch)
                yield graph_inputs(graph, batch)

    def calibration_batches(self, positions: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Batches:
        """Batches of one of the calibration frames, by position; the n-th is of the n-th of these sizes, in turn."""
        return (
            batch
            for position in positions
            for batch in self.batches([self.calibration[position]], size=sizes[position % len(sizes)], batch_size=1)
        )


def graph_inputs(graph: ExportGraph, batch: Batch) -> Inputs:
    """The inputs of a graph from a batch as it is loaded, with colour of 0 to 255."""
    return tuple(batch[key].float() if key in ("image", "background") else batch[key] for key in graph.inputs)  # type: ignore[literal-required]


def on_device(batch: Batch, data: Data) -> Batch:
    """A batch as a network takes it."""
    return to_device(batch, CPU, min_depth=data.min_depth, max_depth=data.max_depth)


def open_frames(section: Data, root: str | None, form: str | None, *, calibration: int, gate: int) -> ExportFrames:
    """Frames with the inputs and targets of a recipe's section; without a `root`, of rendered rooms."""
    if root is None:
        data, about = _rooms(section, form, calibration=calibration, gate=gate), ROOMS
    else:
        name = form or sources.recognise(root)
        data, about = data_sets.one_set(section, root=absolute_path(root), source=name), f"{root} ({name})"
    source = open_source(data)
    sides = split.split(source.frames, data)  # what a network was not trained on is for the gate
    return ExportFrames(source, data, _spread(sides.train, calibration), _spread(sides.val, gate), about)


def _rooms(section: Data, form: str | None, *, calibration: int, gate: int) -> Data:
    if form:
        raise UsageError(f"--source {form} is the form of --calibrate DATA; give that too")
    # What is stored by no data set can still be sampled of a rendered one.
    pattern = "exact" if section.sparse.pattern == "stored" else section.sparse.pattern
    changes = {
        "source": "synthetic",
        "root": "",
        "frames": calibration + gate,
        "val_fraction": gate / (calibration + gate),
        "sparse": section.sparse.model_copy(update={"pattern": pattern}),
    }
    return data_sets.one_set(section, **changes)


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """So many of the indices, evenly spread; all where there are fewer."""
    if len(indices) <= count:
        return list(indices)
    return [indices[position * len(indices) // count] for position in range(count)]
