"""Importance of the searched keys: how much each decided the score, and how far that can be trusted."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.config.metric_names import rank_key
from tuning.space.dimension import INTEGER_KINDS, LOG_KINDS, Dimension
from tuning.study.study import Study
from tuning.values import canonical, count_distinct, is_number

if TYPE_CHECKING:  # optuna takes a second to import, and is optional
    from optuna.distributions import BaseDistribution

FEW = 20  # finished trials below which the shares say little
# PED-ANOVA compares the best trials with all: the best tenth, of at least five trials, at most half of all.
QUANTILE, MIN_TRIALS, MAX_QUANTILE = 0.1, 5, 0.5

Point = tuple[Mapping[str, Any], float]  # values by key, and the score as a rank key: lower is better


@dataclass(frozen=True)
class Importance:
    """Shares of the searched keys."""

    shares: Mapping[str, float]  # the largest first; they add up to 1, or all are 0; empty below two trials
    method: str
    trials: int
    doubt: str  # "" where there are enough trials


def importance(study: Study) -> Importance:
    """How much each searched key decided the score; a stopped trial counts with the score it had."""
    dimensions = {dimension.key: dimension for dimension in study.dimensions}
    points = [
        ({key: study.value(each, key) for key in study.keys}, rank_key(each.metric, each.score))
        for each in study.finished
        if each.score is not None
    ]
    return importance_of(points, {key: dimensions.get(key) for key in study.keys})


def importance_of(points: Sequence[Point], dimensions: Mapping[str, Dimension | None]) -> Importance:
    """How much each key decided which points are good; keys without a dimension are treated as choices.

    By PED-ANOVA of Optuna where it is installed, otherwise by rank correlation.
    """
    method = "PED-ANOVA" if importlib.util.find_spec("optuna") else "rank correlation"
    if len(points) < 2:
        return Importance({}, method, len(points), "importance needs at least two finished trials")
    # A constant key has no share, and a correlation with it would divide by zero.
    varied = {
        key: kind for key, kind in dimensions.items() if count_distinct([values[key] for values, _ in points]) > 1
    }
    raw = (_ped_anova if method == "PED-ANOVA" else _correlation)(points, varied) if varied else {}
    total = sum(raw.values())
    shares = {key: raw.get(key, 0.0) / (total or 1.0) for key in dimensions}
    ordered = dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
    return Importance(ordered, method, len(points), _describe_doubt(len(points)))


def _describe_doubt(trials: int) -> str:
    if trials >= FEW:
        return ""
    return f"importance from {trials} finished trials is a guess; it takes about {FEW} to mean something"


def _ped_anova(points: Sequence[Point], kinds: Mapping[str, Dimension | None]) -> dict[str, float]:
    """Optuna's importance on a study made of the points, whichever searcher proposed them."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import create_trial

    columns = {key: [values[key] for values, _ in points] for key in kinds}
    distributions = {key: _distribution(columns[key], kind) for key, kind in kinds.items()}
    encoded = {key: _encode(columns[key], distributions[key]) for key in kinds}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(QUANTILE, min(MAX_QUANTILE, MIN_TRIALS / len(points))))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        # Built from the records, as only one of the searchers has a study.
        study = optuna.create_study()
        for row, (_, rank) in enumerate(points):
            params = {key: encoded[key][row] for key in kinds}
            study.add_trial(create_trial(params=params, distributions=distributions, value=rank))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about too few trials, which `doubt` reports
            return optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _distribution(values: Sequence[Any], kind: Dimension | None) -> BaseDistribution:
    """The range of a key, widened to the values that were tried: population based training may leave it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if kind is None or kind.kind == "choice" or not all(map(is_number, values)):
        return CategoricalDistribution(sorted({canonical(value) for value in values}))
    low, high = min(kind.low, *values), max(kind.high, *values)
    log = kind.kind in LOG_KINDS and low > 0
    if kind.kind in INTEGER_KINDS and all(float(value).is_integer() for value in (low, high, *values)):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _encode(values: Sequence[Any], distribution: BaseDistribution) -> list[Any]:
    """Values as Optuna takes them: choices as text, since it has no lists and cannot tell true from 1."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return [canonical(value) for value in values]
    return [int(value) if isinstance(distribution, IntDistribution) else float(value) for value in values]


def _correlation(points: Sequence[Point], keys: Mapping[str, Dimension | None]) -> dict[str, float]:
    """|Spearman's rank correlation| of a key with the score; of a choice without order, the correlation ratio."""
    scores = _ranks(np.array([rank for _, rank in points]))
    if np.ptp(scores) == 0:  # all trials are equally good: no key can have decided anything
        return dict.fromkeys(keys, 0.0)
    return {key: _association([values[key] for values, _ in points], scores) for key in keys}


def _association(values: Sequence[Any], scores: NDArray[np.float64]) -> float:
    """(N) values, (N,) ranks of scores -> 0 (unrelated) to 1"""
    if all(map(is_number, values)):
        return abs(float(np.corrcoef(_ranks(np.array(values, dtype=float)), scores)[0, 1]))
    names = np.array([canonical(value) for value in values])
    groups = [scores[names == name] for name in np.unique(names)]
    within = sum(float(np.sum((group - group.mean()) ** 2)) for group in groups)
    return float(np.sqrt(1 - within / np.sum((scores - scores.mean()) ** 2)))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) -> (N,) ranks; equal values share the mean of theirs."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
