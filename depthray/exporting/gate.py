"""The parity gate: how far maps and scores of an export are from those of its checkpoint, and whether that is allowed.

In 32 bits the maps themselves are compared, since only the order of sums differs. With fewer bits maps differ by
design, and what counts is the score: how much worse it is on frames that calibration has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from depthray.batch import Batch, Metres, Prediction
from depthray.config.metric_names import HIGHER_IS_BETTER
from depthray.config.sections import Recipe
from depthray.data.mixing import data_sets
from depthray.errors import DataError
from depthray.evaluation import bootstrap, metrics
from depthray.evaluation.evaluate import Batches, evaluate
from depthray.evaluation.protocols import PROTOCOLS, Protocol, of
from depthray.evaluation.report import Evaluation
from depthray.exporting.export_frames import CPU, ExportFrames
from depthray.exporting.graph import TracedGraph
from depthray.exporting.targets import GateScores
from depthray.runtimes.export_folder import MASKS

BOUNDS = {"fp32": 1e-4, "bf16": 0.005, "int8": 0.015}
SCORES = ("abs_rel", "delta1", "rmse", "iou")
BOUNDED = ("abs_rel", "iou")  # whose relative change for the worse is limited with fewer bits
BATCHES = (1, 4)
SCALES = (1.0, 0.75, 1.25)  # of the recipe's size
KEPT = ("depth", "mask", "log_sigma", "valid")  # maps of a network that exports have, in some form
PICTURED = 4  # frames


@dataclass(frozen=True)
class ScoreChange:
    """The score of a checkpoint and of its export on the same frames; `low` to `high` holds 95 % of draws of scenes."""

    before: float
    after: float
    low: float  # of after - before
    high: float

    @property
    def relative(self) -> float:
        """(after - before) / before."""
        return (self.after - self.before) / self.before if self.before else math.inf * (self.after != self.before)


@dataclass(frozen=True)
class MapError:
    """Differences of one output over all pixels, in its unit: metres or probability."""

    largest: float
    p999: float  # 99.9 % of pixels differ by no more
    relative: float  # the largest of a frame as a share of the frame's largest value


@dataclass(frozen=True)
class GateRow:
    """What was measured at one size and batch."""

    size: tuple[int, int]  # height, width
    batch: int
    frames: int
    errors: dict[str, MapError]  # by output
    scores: dict[str, ScoreChange]

    @property
    def worst_relative(self) -> float:
        """The largest relative difference of its outputs."""
        return max(_at_worst(error.relative) for error in self.errors.values())

    @property
    def worst_drop(self) -> float:
        """The largest relative change for the worse of the scores that are limited; below 0 where all are better."""
        signs = {name: -1 if name in HIGHER_IS_BETTER else 1 for name in self.scores}
        drops = [signs[name] * self.scores[name].relative for name in BOUNDED if name in self.scores]
        return max(map(_at_worst, drops), default=math.inf)


@dataclass(frozen=True)
class PicturedFrame:
    """A frame with a map of the checkpoint and the same of its export."""

    id: str
    image: NDArray[np.uint8]
    output: str
    expected: Metres
    predicted: Metres


@dataclass(frozen=True)
class Parity:
    """What the gate measured and its verdict."""

    precision: str
    bound: float
    protocol: str
    about: str  # which frames
    scenes: int
    rows: Sequence[GateRow]
    notes: Sequence[str] = ()
    pictured: Sequence[PicturedFrame] = ()

    @property
    def measured(self) -> float:
        """What the bound limits, at its worst."""
        by_maps = self.precision == "fp32"
        return max(row.worst_relative if by_maps else row.worst_drop for row in self.rows)

    @property
    def passed(self) -> bool:
        """Whether that is within the bound."""
        return self.measured <= self.bound

    @property
    def rule(self) -> str:
        """The bound in words."""
        if self.precision == "fp32":
            return f"largest difference of a map <= {self.bound:g} of its largest value"
        return f"AbsRel (IoU of a mask) worse by <= {self.bound:.2%}"


class CheckpointNetwork(nn.Module):
    """The network of a checkpoint, which computes each frame of a size once."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        model: Any = network
        self.network = network.eval()
        self.inputs, self.stride = model.inputs, model.stride
        self._known: dict[str, dict[str, Tensor]] = {}

    def forward(self, batch: Batch) -> Prediction:
        """inputs (B,C,H,W) -> (B,1,h,w) of each output"""
        if any(name not in self._known for name in batch["id"]):
            prediction: Any = self.network(batch)
            maps = {key: prediction[key] for key in KEPT if key in prediction}
            for index, name in enumerate(batch["id"]):
                self._known[name] = {key: value[index] for key, value in maps.items()}
        known = [self._known[name] for name in batch["id"]]
        return {key: torch.stack([maps[key] for maps in known]) for key in known[0]}  # type: ignore[return-value]


class ComparedNetwork(nn.Module):
    """The network of an export, which notes how its maps differ from those of a reference."""

    def __init__(self, exported: nn.Module, reference: CheckpointNetwork) -> None:
        super().__init__()
        model: Any = exported
        self.exported, self.reference = exported, reference
        self.inputs, self.stride, self.outputs = model.inputs, model.stride, model.outputs
        self.pictured: list[PicturedFrame] = []
        self._differences: dict[str, list[NDArray[np.float32]]] = {key: [] for key in self.outputs}
        self._relative: dict[str, float] = dict.fromkeys(self.outputs, 0.0)

    def forward(self, batch: Batch) -> Prediction:
        """inputs (B,C,H,W) -> (B,1,h,w) of each output, as the export has it"""
        predicted, expected = self.exported(batch), self.reference(batch)
        for key in self.outputs:
            self._note(key, _values(key, predicted), _values(key, expected), batch)
        prediction: Prediction = predicted
        return prediction

    def errors(self) -> dict[str, MapError]:
        """What was noted, by output."""
        joined = {key: np.concatenate(values) for key, values in self._differences.items()}
        return {
            key: MapError(float(values.max()), float(np.quantile(values, 0.999, method="higher")), self._relative[key])
            for key, values in joined.items()
        }

    def _note(self, key: str, predicted: Tensor, expected: Tensor, batch: Batch) -> None:
        difference = torch.nan_to_num((predicted - expected).abs(), nan=math.inf)
        largest = expected.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12)  # (B,)
        relative = (difference.amax(dim=(1, 2, 3)) / largest).max().item()
        self._relative[key] = max(self._relative[key], _at_worst(relative))
        self._differences[key].append(difference.flatten().numpy())
        room = PICTURED // len(self.outputs) - sum(frame.output == key for frame in self.pictured)
        for index, name in enumerate(batch["id"][: max(room, 0)]):
            maps = (np.asarray(each[index, 0].numpy(), np.float32) for each in (expected, predicted))
            self.pictured.append(PicturedFrame(name, _rgb(batch, index), key, *maps))


def sizes_of(traced: TracedGraph) -> list[tuple[int, int]]:
    """The sizes to compare at: the recipe's, a smaller and a larger one, as the graph can take them."""
    graph = traced.graph
    height, width = (graph.round_up(side) for side in traced.size)
    if not traced.dynamic_size:
        return [(height, width)]
    most = traced.largest_side // graph.stride * graph.stride
    scaled = [
        tuple(min(graph.round_up(math.floor(scale * side)), most) for side in (height, width)) for scale in SCALES
    ]
    # Of a small size and a large stride two may be one: another stride makes the difference.
    scaled.append((min(height + graph.stride, most), min(width + graph.stride, most)))
    return list(dict.fromkeys((size[0], size[1]) for size in scaled))[: len(SCALES)]


def compare(
    network: nn.Module,
    exported: nn.Module,
    frames: ExportFrames,
    recipe: Recipe,
    *,
    sizes: Sequence[tuple[int, int]],
    batches: Sequence[int],
    precision: str,
    bound: float | None = None,
) -> Parity:
    """Compare an export with the network of its checkpoint on the gate's frames, at each size and batch."""
    protocol = protocol_of(recipe)
    rows: list[GateRow] = []
    pictured: list[PicturedFrame] = []
    for size in sizes:
        reference = CheckpointNetwork(network)
        for batch in batches:
            recorder = ComparedNetwork(exported, reference)

            def loaded(size: tuple[int, int] = size, batch: int = batch) -> Batches:
                return frames.batches(frames.gate, size=size, batch_size=batch)

            before = evaluate(reference, loaded(), protocol=protocol, device=CPU)
            after = evaluate(recorder, loaded(), protocol=protocol, device=CPU)
            rows.append(GateRow(size, batch, len(after.rows), recorder.errors(), _changes(before, after)))
            pictured = pictured or recorder.pictured
    scenes = len({frames.source.frames[index].scene for index in frames.gate})
    limit = BOUNDS[precision] if bound is None else bound
    return Parity(precision, limit, protocol.name, frames.about, scenes, rows, (), pictured)


def scorer(
    frames: ExportFrames, recipe: Recipe, sizes: Sequence[tuple[int, int]]
) -> Callable[[nn.Module, Sequence[int]], GateScores]:
    """Network and positions among the calibration frames -> scores, one number that is higher where it is better."""
    protocol = protocol_of(recipe)

    def score(network: nn.Module, positions: Sequence[int]) -> GateScores:
        batches = frames.calibration_batches(positions, sizes)
        try:
            evaluation = evaluate(network, batches, protocol=protocol, device=CPU)
        except DataError:  # none of the frames has a pixel that can be scored
            return GateScores(0.0, [0.0] * len(positions))
        rows = {
            row.index: _one_score(dict(zip(evaluation.names, values, strict=True)))
            for row, values in zip(evaluation.rows, evaluation.table.tolist(), strict=True)
        }
        each = [rows[frames.calibration[position]] for position in positions]
        return GateScores(_one_score(evaluation.scores()), each)

    return score


def _one_score(scores: Mapping[str, float]) -> float:
    # 1 / AbsRel: a share of it that is lost is at most that by which AbsRel grows.
    score = scores.get("iou", 1.0) * (1 / max(scores["abs_rel"], 1e-6) if "abs_rel" in scores else 1.0)
    return score if math.isfinite(score) else 0.0


def protocol_of(recipe: Recipe) -> Protocol:
    """The recipe's protocol, or the first that has the usual metrics for its kind of depth."""
    protocol, kind = of(data_sets.without_sets(recipe)), recipe.depth_kind
    if protocol.usual:
        return protocol
    return next(each for each in PROTOCOLS.values() if each.usual and kind in each.accepts)


def _changes(before: Evaluation, after: Evaluation) -> dict[str, ScoreChange]:
    names = [name for name in SCORES if name in before.names and name in after.names]
    columns = [before.names.index(name) for name in names], [after.names.index(name) for name in names]
    tables = before.table[:, columns[0]], after.table[:, columns[1]]
    scenes = [row.scene for row in before.rows]
    low, high = bootstrap.paired_intervals(*tables, scenes)[2]
    first, second = (metrics.average(table, names) for table in tables)
    return {
        name: ScoreChange(first[name], second[name], float(low[index]), float(high[index]))
        for index, name in enumerate(names)
    }


def _at_worst(value: float) -> float:
    """A number, or infinity for NaN, which no comparison would catch."""
    return math.inf if math.isnan(value) else value


def _values(key: str, prediction: Prediction) -> Tensor:
    """(B,1,h,w) metres, or of a mask its probability"""
    if key == "sigma":
        return prediction["depth"] * torch.exp(prediction["log_sigma"])
    values: Tensor = prediction[key]  # type: ignore[literal-required]
    return values.sigmoid() if key in MASKS else values


def _rgb(batch: Batch, index: int) -> NDArray[np.uint8]:
    """(B,3,H,W) in [0,1] -> (H,W,3) uint8 of one frame"""
    return np.asarray((batch["image"][index] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy(), np.uint8)
