"""What training gained over the weights that it started from: the same frames scored before and after, in pairs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from depthray import distributed
from depthray.config.sections import Recipe
from depthray.data.mixing import data_sets
from depthray.evaluation import protocols
from depthray.evaluation.comparing.paired import FrameScores
from depthray.evaluation.evaluate import evaluate
from depthray.runtimes.canonical_depth import in_metres
from depthray.runtimes.passes import Passes
from depthray.runtimes.precision import Precision
from depthray.training.frames import Frames

VALIDATION = "validation"  # the name of the run's own validation frames among data sets

Scores = dict[str, FrameScores]  # by data set: VALIDATION, and the paths of eval.also


def score_further(recipe: Recipe, network: nn.Module, frames: Frames, device: torch.device) -> Scores:
    """The data sets of `eval.also` as a network scores on them: of all frames on rank 0, elsewhere of its own."""
    protocol = protocols.of(data_sets.without_sets(recipe))
    precision = Precision.of_evaluation(recipe, device)
    passes = Passes.of(recipe.eval)
    return {
        each.path: FrameScores.of(
            evaluate(
                in_metres(network, recipe.data),
                each.batches(),
                protocol=protocol,
                device=device,
                precision=precision,
                everywhere=False,
                passes=passes,
            ),
            recipe.eval.monitor,
        )
        for each in frames.further
    }


def score_weights(
    recipe: Recipe, network: nn.Module, weights: Mapping[str, torch.Tensor] | None, frames: Frames, device: torch.device
) -> Scores:
    """Validation frames and further data sets as weights score on them, which are loaded into the network.

    Every process calls it; the weights are those of rank 0, which alone has the scores of all frames.
    """
    if weights is not None and distributed.is_main():
        network.load_state_dict(weights)
    for live in network.state_dict().values():
        # A copy, as tensors are broadcast only where their memory is in order.
        shared = live.detach().contiguous()
        distributed.copy_from_main(shared)
        live.copy_(shared)
    protocol, precision = protocols.of(recipe), Precision.of_evaluation(recipe, device)
    batches, passes = frames.val_batches(), Passes.of(recipe.eval)
    evaluation = evaluate(
        in_metres(network, recipe.data),
        batches,
        protocol=protocol,
        device=device,
        precision=precision,
        everywhere=False,
        passes=passes,
    )
    own = {VALIDATION: FrameScores.of(evaluation, recipe.eval.monitor)}
    return own | score_further(recipe, network, frames, device)
