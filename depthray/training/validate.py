"""Scores of the validation frames during training, and the fixed frames whose pictures are kept."""

from __future__ import annotations

from typing import get_args

from depthray import distributed
from depthray.config.sections import Monitor, Recipe
from depthray.data.loader import eval_batches
from depthray.errors import UsageError
from depthray.evaluation.evaluate import evaluate, pictures
from depthray.evaluation.protocols import PROTOCOLS
from depthray.imaging import sheets
from depthray.training.frames import Frames
from depthray.training.state import State


def validate(recipe: Recipe, state: State, frames: Frames) -> tuple[dict[str, float], list[sheets.Row]]:
    """Metrics over all validation frames, equal on every process, and on rank 0 the fixed frames as pictures."""
    # Batch-norm statistics are each rank's own until the next forward pass; rank 0's are the ones that are saved.
    # In one order on all ranks: a set would have another on each.
    for buffer in dict.fromkeys([*state.model.buffers(), *state.predictor.buffers()]):
        distributed.copy_from_main(buffer)
    protocol = PROTOCOLS[recipe.eval.protocol]
    found = evaluate(state.predictor, frames.val_batches(), protocol=protocol, device=state.device)
    scores = found.scores()
    known = [name for name in scores if name in get_args(Monitor)]
    if recipe.eval.monitor not in scores:
        raise UsageError(
            f"eval.monitor={recipe.eval.monitor} is not scored here: these frames and this network under protocol "
            f"{protocol.name} have {', '.join(known)}; set eval.monitor to one of them"
        )
    rows: list[sheets.Row] = []
    if distributed.is_main():
        fixed = eval_batches(frames.source, frames.fixed(), recipe.data, batch_size=1)
        rows = pictures(state.predictor, fixed, protocol=protocol, device=state.device)
    return scores, rows
