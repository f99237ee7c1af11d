"""Scores of a model over frames under a protocol, bit for bit the same for any number of processes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from depthray import distributed, models
from depthray.batch import Batch, Metres, Prediction, to_device
from depthray.checkpoints.calibration import NETWORK
from depthray.config.sections import TEACHER_MONITORS, Recipe, Uncertainty
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.mixing import data_sets
from depthray.data.source import Source
from depthray.data.sources import open_source
from depthray.errors import DataError
from depthray.evaluation import metrics
from depthray.evaluation.alignment import ComparedDepth
from depthray.evaluation.described_data import network_size
from depthray.evaluation.mask_metrics import mask_scores, probability
from depthray.evaluation.protocols import MEANING, Protocol, compare, of, scored_data
from depthray.evaluation.report import Evaluation, ScoredFrame
from depthray.evaluation.teacher_scores import teacher_scores
from depthray.evaluation.uncertainty import sparsification, valid_mask_scores
from depthray.evaluation.uncertainty.sparsification import FrameConfidence
from depthray.imaging import sheets
from depthray.runtimes import device_errors
from depthray.runtimes import passes as several_passes
from depthray.runtimes.open import EAGER, OpenedModel, open_model
from depthray.runtimes.passes import ONE, Passes
from depthray.runtimes.precision import Precision
from depthray.runtimes.spread import Spread

Batches = Iterable[tuple[list[int], Batch]]


class ScoredBatch(NamedTuple):
    """A batch of frames with their prediction as a protocol compares it."""

    indices: list[int]
    batch: Batch  # on the device
    prediction: Prediction
    depth: ComparedDepth | None  # None where it is not predicted or not known
    has_mask: bool  # whether a mask is predicted and known
    teacher: ComparedDepth | None = None  # `depth` against that of a teacher, where frames have it

    @property
    def broken(self) -> Tensor:
        """-> (B,) predicted pixels that were NaN or infinite."""
        maps = [self.prediction[key] for key in ("depth", "mask") if key in self.prediction]
        return torch.stack([(~torch.isfinite(each)).sum(dim=(1, 2, 3)) for each in maps]).sum(dim=0)


@torch.no_grad()
def predictions(
    model: nn.Module,
    batches: Batches,
    *,
    protocol: Protocol,
    device: torch.device,
    precision: Precision | None = None,
    passes: Passes = ONE,
) -> Iterator[ScoredBatch]:
    """Batches of frames -> predictions (B,1,H,W), depth in metres at the truth's size, as the protocol compares it.

    Networks compute in `precision`, by default in float32; what follows is float32 in any case.
    """
    precision = precision or Precision(device, torch.float32)
    for indices, cpu_batch in batches:
        models.check_ids(model, cpu_batch)  # on the CPU: reading values of a batch on a GPU would wait for it
        own = _protocol_of(cpu_batch, protocol)
        batch = to_device(cpu_batch, device, min_depth=own.min_depth, max_depth=own.max_depth)
        with precision.active():
            prediction = several_passes.run(model, batch, passes)
        both = {key for key in ("depth", "mask") if key in prediction and key in batch}
        depth = compare(prediction["depth"], batch["depth"], own) if "depth" in both else None
        is_labelled = "depth" in prediction and "teacher" in batch
        teacher = compare(prediction["depth"], batch["teacher"], own) if is_labelled else None
        yield ScoredBatch(indices, batch, prediction, depth, has_mask="mask" in both, teacher=teacher)


def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    protocol: Protocol,
    device: torch.device,
    precision: Precision | None = None,
    everywhere: bool = True,
    passes: Passes = ONE,
) -> Evaluation:
    """Score this process's batches and gather the frames of all processes.

    Each frame is scored by itself in float64 and frames are sorted by index, so that the result is bit for bit the same
    however the batches are distributed. Networks compute in `precision`, by default in float32. Without `everywhere`
    rank 0 alone has all frames; on the others the evaluation has their own, with the scores of all. Raises DataError
    where nothing can be scored, ResourceError where memory is too small for a batch.
    """
    training, uncertainty = model.training, models.uncertainty_of(model)
    model.eval()  # a frame's score must not depend, by batch norm, on the frames it is scored with
    try:
        with device_errors.explained("lower eval.batch_size", device):
            mine = [
                row
                for scored in predictions(
                    model, batches, protocol=protocol, device=device, precision=precision, passes=passes
                )
                for row in _score_frames(scored, _protocol_of(scored.batch, protocol), uncertainty)
            ]
    finally:
        model.train(training)
    if everywhere:
        return _evaluation_of(distributed.gather(mine), protocol, uncertainty)
    rows = distributed.gather_to_main(mine)
    scored: list[Evaluation] = []  # of all frames, on rank 0

    def scores() -> dict[str, float]:
        scored.append(_evaluation_of(rows, protocol, uncertainty))
        return scored[0].scores() | scored[0].scores_by_set()

    whole = distributed.made_by_main(scores)
    return scored[0] if scored else Evaluation(protocol, _by_index(mine), whole=whole, uncertainty=uncertainty)


def _evaluation_of(rows: Iterable[ScoredFrame], protocol: Protocol, uncertainty: Uncertainty) -> Evaluation:
    """The evaluation of these frames. Raises DataError where nothing is scored."""
    evaluation = Evaluation.of(protocol, _by_index(rows), uncertainty)
    for each in evaluation.sets.values() or [evaluation]:
        _check_scored(each.rows, each.protocol)
    return evaluation


def _by_index(rows: Iterable[ScoredFrame]) -> list[ScoredFrame]:
    # Neither sums nor the draws of the bootstrap may depend on which process had a frame.
    return sorted(rows, key=lambda row: row.index)


def _protocol_of(batch: Batch, protocol: Protocol) -> Protocol:
    """The protocol of the data set that a batch is of: no batch has frames of two."""
    return protocol.of_set(batch["source"][0]) if protocol.sets else protocol


def _check_scored(rows: Sequence[ScoredFrame], protocol: Protocol) -> None:
    if not any(row.sums is not None or row.extra for row in rows):
        raise DataError(
            f"{len(rows)} frames have neither depth nor a mask that this network predicts; "
            "use data with the truth, and name it in data.targets"
        )
    compared = [row.sums for row in rows if row.sums is not None]
    # [0, 0] is the number of scored pixels over all depths.
    if compared and not any(sums[0, 0] for sums in compared):
        raise DataError(
            f"none of {len(rows)} frames has a pixel that protocol {protocol.name} scores "
            f"({protocol.about}); is data.encoding right?"
        )


def _score_frames(scored: ScoredBatch, protocol: Protocol, family: Uncertainty) -> Iterator[ScoredFrame]:
    batch, broken = scored.batch, scored.broken.tolist()
    sums, extra = _depth_sums(scored, protocol), _extra_scores(scored, protocol)
    confidence = _confidence(scored, protocol, family)
    masked = valid_mask_scores.of_frames(scored.prediction, batch, protocol.mask_limits)
    for position, index in enumerate(scored.indices):
        names = (batch["id"][position], batch["scene"][position], batch["source"][position])
        own = {name: values[position] for name, values in extra.items()}
        own = {name: value for name, value in own.items() if name not in TEACHER_MONITORS or not math.isnan(value)}
        measured, sure = sums[position], confidence[position]
        if TEACHER_MONITORS[0] in own and measured is not None and not measured[0, 0]:
            measured, sure = None, None  # a frame with labels alone has no score against the truth
        yield ScoredFrame(index, *names, measured, broken[position], own, sure, masked[position])


def _depth_sums(scored: ScoredBatch, protocol: Protocol) -> Sequence[metrics.Rows | None]:
    """-> of each frame (R,K) float64, see metrics.image_sums; None where depth is not compared."""
    if scored.depth is None or not protocol.usual:
        return [None] * len(scored.indices)
    prediction, truth, valid = scored.depth
    return list(metrics.image_sums(prediction, truth, valid=valid).cpu().numpy())


def _confidence(scored: ScoredBatch, protocol: Protocol, family: Uncertainty) -> Sequence[FrameConfidence | None]:
    """-> of each frame what it says of the predicted confidence; None where there is none, or depth is not compared."""
    if scored.depth is None or family == "none" or not protocol.usual or "log_sigma" not in scored.prediction:
        return [None] * len(scored.indices)
    return sparsification.of_frames(scored.depth, scored.prediction["log_sigma"], family)


def _extra_scores(scored: ScoredBatch, protocol: Protocol) -> dict[str, list[float]]:
    """Scores besides the usual metrics of depth: a value a frame, by metric."""
    extra = protocol.extra(scored.prediction, scored.batch, scored.depth) if protocol.extra else {}
    if scored.has_mask and protocol.usual:
        batch = scored.batch
        extra |= mask_scores(scored.prediction["mask"], batch["mask"], valid=batch.get("mask_valid"))
    if scored.teacher and protocol.usual:
        extra |= teacher_scores(scored.teacher)
    return {name: values.tolist() for name, values in extra.items()}


def sheet_rows(
    model: nn.Module,
    batches: Batches,
    *,
    protocol: Protocol,
    device: torch.device,
    precision: Precision | None = None,
    passes: Passes = ONE,
) -> list[sheets.SheetRow]:
    """Frames as rows of a contact sheet, one for depth and one for the mask; truth that is not scored is left out."""
    drawn = _draw_frames(model, batches, protocol=protocol, device=device, precision=precision, passes=passes)
    return [row for rows in drawn for row in rows]


def _draw_frames(
    model: nn.Module,
    batches: Batches,
    *,
    protocol: Protocol,
    device: torch.device,
    precision: Precision | None,
    passes: Passes,
) -> Iterator[list[sheets.SheetRow]]:
    """The rows of each frame."""
    model.eval()
    found = predictions(model, batches, protocol=protocol, device=device, precision=precision, passes=passes)
    for scored in found:
        for position, name in enumerate(scored.batch["id"]):
            photo = _to_rgb(scored.batch, position)
            yield [
                sheets.SheetRow(name, photo, truth, prediction, kind=kind)
                for kind, truth, prediction in _scored_maps(scored, position)
            ]


def _scored_maps(scored: ScoredBatch, position: int) -> Iterator[tuple[sheets.Kind, Metres, Metres]]:
    """Of a frame, for depth and mask: the kind, the truth (H,W) and the prediction (H,W)."""
    if scored.depth:
        prediction, truth, valid = scored.depth
        if scored.teacher and not valid[position].any():
            prediction, truth, valid = scored.teacher  # a frame with labels alone
        # 0 is drawn as unmeasured: what is not scored is hatched.
        yield "depth", _to_numpy(torch.where(valid, truth, 0.0), position), _to_numpy(prediction, position)
    if scored.has_mask:
        truth = scored.batch["mask"]
        predicted = probability(scored.prediction["mask"], size=truth.shape[-2:])
        yield "mask", _to_numpy(truth, position), _to_numpy(predicted, position)


def _to_rgb(batch: Batch, position: int) -> sheets.RgbImage:
    """(B,3,H,W) in [0,1] -> (H,W,3) uint8."""
    colour = (batch["image"][position] * 255).round().clamp(0, 255).byte()  # bicubic goes a little beyond
    return np.asarray(colour.permute(1, 2, 0).cpu().numpy(), np.uint8)


def _to_numpy(maps: Tensor, position: int) -> Metres:
    """(B,1,H,W) -> (H,W) float32."""
    return np.asarray(maps[position, 0].cpu().numpy(), np.float32)


@dataclass(frozen=True, repr=False)
class EvaluationReport:
    """An evaluation with images of some of its frames."""

    evaluation: Evaluation
    images: list[sheets.SheetRow]

    @property
    def scores(self) -> dict[str, float]:
        """The mean over frames by metric, as `depthray evaluate` prints it."""
        return self.evaluation.scores()

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in self.scores.items())
        return f"<{len(self.evaluation.rows)} frames under protocol {self.evaluation.protocol.name}: {scores}>"

    def _title(self) -> str:
        """What the sheet is of; of a long path of the checkpoint its end is shown."""
        about = self.evaluation.about
        return (
            f"{about.get('checkpoint', '')}, {about.get('split', '')} frames, protocol {self.evaluation.protocol.name}"
        )

    def write(self, out: str | os.PathLike[str]) -> None:
        """Write evaluation.json, .md, .csv and sheet.png into a folder, which is made if need be."""
        folder = Path(out)
        self.evaluation.write(folder)
        sheets.save_png(folder / "sheet.png", sheets.draw_sheet(self.images, title=self._title()))


def evaluate_checkpoint(
    path: Path, recipe: Recipe, *, side: str, device: torch.device, trust: bool = False, spread: Spread | None = None
) -> EvaluationReport:
    """Score one side of a recipe's data with a checkpoint or an export; images on the main process only.

    With `spread` the confidence that is scored is that of several predictions.
    """
    opened = open_model(path, device=device, trust=trust)
    opened = spread.apply(opened, trust=trust) if spread else opened
    source = open_source(recipe.data)
    evaluation = evaluate_frames(opened, path, recipe, source, side=side, device=device)
    precision = Precision.of_evaluation(recipe, opened.device)
    images = _draw_examples(
        opened.network, evaluation, source=source, recipe=recipe, device=device, precision=precision
    )
    return EvaluationReport(evaluation, images)


def evaluate_frames(
    opened: OpenedModel, path: Path, recipe: Recipe, source: Source, *, side: str, device: torch.device
) -> Evaluation:
    """Score one side of a source's frames with an opened checkpoint or export."""
    chosen = split.side(source.frames, recipe.data, side)
    batches, precision = _batches(source, chosen, recipe), Precision.of_evaluation(recipe, opened.device)
    passes = Passes.of(recipe.eval)
    passes.check(recipe.data, metric=recipe.depth_kind == "metric")
    evaluation = evaluate(
        opened.network, batches, protocol=of(recipe), device=device, precision=precision, passes=passes
    )
    about = _about(opened, path, recipe=recipe, side=side, fingerprint=source.fingerprint)
    if not passes.is_one:
        about["passes"] = str(passes)
    if precision.dtype != torch.float32 or precision.tf32:
        about["precision"] = precision.describe()["precision"]
    return replace(evaluation, about=about)


def _batches(source: Source, indices: Sequence[int], recipe: Recipe) -> Batches:
    return eval_batches(
        source,
        indices,
        scored_data(recipe),
        batch_size=recipe.eval.batch_size,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )


def _draw_examples(
    model: nn.Module,
    evaluation: Evaluation,
    *,
    source: Source,
    recipe: Recipe,
    device: torch.device,
    precision: Precision,
) -> list[sheets.SheetRow]:
    if not distributed.is_main():  # one process draws; no collective call follows, so the others need not wait
        return []
    # Read again: most frames that were scored are gone, or were on other processes.
    chosen = evaluation.best_median_worst()
    # One frame a batch: frames of different size in one batch would come back in another order.
    batches = eval_batches(source, [row.index for _, row in chosen], scored_data(recipe), batch_size=1)
    passes = Passes.of(recipe.eval)
    drawn = _draw_frames(
        model, batches, protocol=evaluation.protocol, device=device, precision=precision, passes=passes
    )
    scored = zip(chosen, drawn, strict=True)
    return [_add_label(row, frame, label) for (label, frame), rows in scored for row in rows]


def _add_label(row: sheets.SheetRow, frame: ScoredFrame, label: str) -> sheets.SheetRow:
    """A row with its label and the score that the protocol gave its frame."""
    score = frame.score("abs_rel" if row.kind == "depth" else "iou")
    return row._replace(note=label, score=None if math.isnan(score) else score)


def _about(opened: OpenedModel, path: Path, *, recipe: Recipe, side: str, fingerprint: str) -> dict[str, str]:
    """The facts without which scores cannot be compared."""
    data, kind, fitted = data_sets.resolve(recipe).data, recipe.depth_kind, opened.temperature
    return {
        "checkpoint": f"{path} (epoch {opened.epoch}, step {opened.step})",
        **({} if opened.runtime == EAGER else {"runtime": opened.runtime}),
        **({} if opened.calibration is None else {"calibrated": f"{opened.calibration}, by {opened.calibration.data}"}),
        **({} if opened.spread == NETWORK else {"spread_of": opened.spread}),
        **({"temperature": f"{fitted}, by {fitted.data}"} if fitted and fitted.of == opened.spread else {}),
        "data": data_sets.describe(data),
        "data_fingerprint": fingerprint,  # the path alone does not say which frames it held
        "split": side,
        "network_size": network_size(data),
        **({} if kind == "metric" else {"predicted_depth": MEANING[kind]}),
    }
