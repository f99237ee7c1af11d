"""What a promotion may demand: to be no worse than what is served, on frames that neither network has learned from."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from depthray.errors import CheckpointError, UsageError


@dataclass(frozen=True)
class Demand:
    """The frames on which a network must be no worse."""

    data: str
    form: str | None = None  # as the data looks
    split: str = "val"


def check_not_worse(served: Path, candidate: Path, demand: Demand, *, trust: bool) -> str:
    """Compare a candidate with what is served, frame by frame. Returns what was found, for people.

    Raises CheckpointError where its monitored metric is worse beyond the luck of which scenes were scored, or where
    these are too few to tell, and UsageError where it was trained on frames that are scored.
    """
    import torch

    from depthray.cli.evaluate import recipe_of
    from depthray.evaluation.comparing.comparison import Candidate, compare_candidates
    from depthray.evaluation.comparing.paired import of_metric
    from depthray.runtimes.open import read_recipe

    request = argparse.Namespace(overrides=[], data=demand.data, source=demand.form, trust=trust)
    paths = {"what is served": served, "this network": candidate}
    candidates = [Candidate(name, path, read_recipe(path, trust=trust)) for name, path in paths.items()]
    frames = recipe_of(served, request)
    place = torch.device("cpu")  # the process that promotes has reserved no GPU
    (compared,) = compare_candidates(candidates, [frames], side=demand.split, device=place, trust=trust).sets
    if compared.scores[1].trained_on:
        raise UsageError(f"--not-worse-on {demand.data}: {compared.warnings[-1]}; give frames that it has not seen")
    metric = of_metric(compared.scores[1].overall, frames.eval.monitor)
    change = "not scored" if metric.difference is None else "{:+.4f} ({:+.4f} to {:+.4f})".format(*metric.difference)
    found = f"{metric.metric} {change} on {len(compared.scores[1].frames.ids)} frames of {demand.data}"
    if metric.verdict in ("better", "within luck"):
        return found
    reason = {"worse": "worse than what is served", "too few scenes": "too few scenes to tell"}.get(metric.verdict, "")
    raise CheckpointError(f"{reason or 'nothing to compare'}: {found}; see depthray compare, or give --force")
