"""Scores of a model over frames under a protocol, the same bit for bit for any number of processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from depthray import checkpoint, distributed, metrics, models, picture
from depthray.batch import Batch, to_device
from depthray.data import split
from depthray.data.loader import eval_batches
from depthray.data.sources import Source, open_source
from depthray.errors import CheckpointError, DataError
from depthray.protocols import PROTOCOLS, Protocol
from depthray.protocols import apply as apply_protocol
from depthray.report import Evaluation, Row
from depthray.sections import Recipe

Batches = Iterable[tuple[list[int], Batch]]


class Scored(NamedTuple):
    """A batch of frames with what a protocol made of their prediction."""

    indices: list[int]
    batch: Batch  # on the device
    depth: Tensor  # (B,1,H,W) float32 metres at the size of the truth
    valid: Tensor  # (B,1,H,W) bool, the pixels that are scored
    broken: Tensor  # (B,) predicted pixels that were NaN or infinite


@torch.no_grad()
def predictions(model: nn.Module, batches: Batches, *, protocol: Protocol, device: torch.device) -> Iterator[Scored]:
    """Batches of frames -> predictions (B,1,H,W) in metres at the truth's size, as the protocol wants them."""
    for indices, cpu_batch in batches:
        batch = to_device(cpu_batch, device, min_depth=protocol.min_depth, max_depth=protocol.max_depth)
        raw = models.run(model, batch)["depth"]
        depth, valid = apply_protocol(raw, batch["depth"], protocol)
        yield Scored(indices, batch, depth, valid, (~torch.isfinite(raw)).sum(dim=(1, 2, 3)))


def evaluate(model: nn.Module, batches: Batches, *, protocol: Protocol, device: torch.device) -> Evaluation:
    """Score this process's batches and gather the frames of all processes.

    Each frame is scored by itself in float64 and frames are sorted by index, so that the result is bit for bit the same
    however whole batches are dealt. Raises DataError where not a single pixel can be scored.
    """
    training = model.training
    model.eval()
    try:
        mine = [
            row for scored in predictions(model, batches, protocol=protocol, device=device) for row in _rows(scored)
        ]
    finally:
        model.train(training)
    rows = sorted(distributed.gather(mine), key=lambda row: row.index)
    if not any(row.sums[0, 0] for row in rows):
        raise DataError(
            f"none of {len(rows)} frames has a pixel that protocol {protocol.name} scores "
            f"({protocol.about}); is data.encoding right?"
        )
    return Evaluation(protocol, rows)


def _rows(scored: Scored) -> Iterator[Row]:
    indices, batch, depth, valid, broken = scored
    sums = metrics.image_sums(depth, batch["depth"], valid=valid).cpu().numpy()
    for place, index in enumerate(indices):
        names = (batch["id"][place], batch["scene"][place], batch["source"][place])
        yield Row(index, *names, sums[place], int(broken[place]))


def pictures(model: nn.Module, batches: Batches, *, protocol: Protocol, device: torch.device) -> list[picture.Row]:
    """Frames as rows of a contact sheet; truth that the protocol does not score is left out."""
    rows = []
    for scored in predictions(model.eval(), batches, protocol=protocol, device=device):
        truth = torch.where(scored.valid, scored.batch["depth"], 0.0)
        for place, name in enumerate(scored.batch["id"]):
            rows.append(picture.Row(name, _photo(scored.batch, place), _map(truth, place), _map(scored.depth, place)))
    return rows


def _photo(batch: Batch, place: int) -> picture.Colour:
    """(B,3,H,W) in [0,1] -> (H,W,3) uint8."""
    return np.asarray((batch["image"][place] * 255).round().byte().permute(1, 2, 0).cpu().numpy(), np.uint8)


def _map(maps: Tensor, place: int) -> picture.Metres:
    """(B,1,H,W) -> (H,W) float32."""
    return np.asarray(maps[place, 0].cpu().numpy(), np.float32)


@dataclass(frozen=True)
class Report:
    """An evaluation with pictures of some of its frames."""

    evaluation: Evaluation
    pictures: list[picture.Row]

    def write(self, out: Path) -> None:
        """Write evaluation.json, .md, .csv and sheet.png into a folder."""
        self.evaluation.write(out)
        picture.save_png(out / "sheet.png", picture.sheet(self.pictures))


def evaluate_checkpoint(path: Path, recipe: Recipe, *, side: str, device: torch.device) -> Report:
    """Score one side of a recipe's data with a checkpoint's weights; pictures on the main process only."""
    contents = checkpoint.load(path)
    model = _network(contents, path, device=device)
    source = open_source(recipe.data)
    protocol = PROTOCOLS[recipe.eval.protocol]
    chosen = split.side(source.frames, recipe.data, side)
    found = evaluate(model, _dealt(source, chosen, recipe), protocol=protocol, device=device)
    about = _about(contents, path, recipe=recipe, side=side, fingerprint=source.fingerprint)
    found = replace(found, about=about)
    return Report(found, _examples(model, found, source=source, recipe=recipe, device=device))


def best_median_worst(found: Evaluation, each: int = 2) -> list[tuple[str, Row]]:
    """The best, middle and worst frames with a label, none of them twice."""
    ranked = found.ranked()
    middle = max(0, (len(ranked) - each) // 2)
    parts = {"best": ranked[:each], "median": ranked[middle : middle + each], "worst": ranked[::-1][:each]}
    chosen: dict[int, tuple[str, Row]] = {}
    for label, rows in parts.items():
        for row in rows:
            chosen.setdefault(row.index, (label, row))
    return list(chosen.values())


def _network(contents: checkpoint.Contents, path: Path, *, device: torch.device) -> nn.Module:
    """The network with the checkpoint's weights, as its own recipe builds it."""
    recipe = contents.recipe
    model = models.build_model(recipe.model, recipe.data.inputs, pretrained=False)
    try:
        model.load_state_dict(contents.weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: the weights do not fit the recipe beside them: {reason}") from None
    return model.to(device)


def _dealt(source: Source, indices: Sequence[int], recipe: Recipe) -> Batches:
    return eval_batches(
        source,
        indices,
        recipe.data,
        batch_size=recipe.eval.batch_size,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
    )


def _examples(
    model: nn.Module, found: Evaluation, *, source: Source, recipe: Recipe, device: torch.device
) -> list[picture.Row]:
    if not distributed.is_main():
        return []
    chosen = best_median_worst(found)
    batches = eval_batches(source, [row.index for _, row in chosen], recipe.data, batch_size=1)
    rows = pictures(model, batches, protocol=found.protocol, device=device)
    scored = zip(chosen, rows, strict=True)
    return [row._replace(note=label, abs_rel=frame.abs_rel) for (label, frame), row in scored]


def _about(contents: checkpoint.Contents, path: Path, *, recipe: Recipe, side: str, fingerprint: str) -> dict[str, str]:
    """What a table of scores must name to be worth anything."""
    data, (height, width) = recipe.data, recipe.data.size
    return {
        "checkpoint": f"{path} (epoch {contents.epoch}, step {contents.step})",
        "data": f"{data.root} ({data.source}, {data.encoding})" if data.root else data.source,
        "data_fingerprint": fingerprint,
        "split": side,
        "network_size": f"{height}x{width}",
    }
