"""Which of the searched keys decided the score, and how far that can be believed."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuning.space.dimension import INTEGER_KINDS, LOG_KINDS, Dimension
from tuning.values import canonical, count_distinct

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEW = 20  # finished trials below which the shares say little
TOP, WANTED, SHARE = 0.1, 5, 0.5  # PED-ANOVA looks at the best tenth, of at least five trials, at most half of all

Point = tuple[Mapping[str, Any], float]  # values by key, and badness


@dataclass(frozen=True)
class Importance:
    """Shares of the searched keys."""

    shares: Mapping[str, float]  # the largest first; they add up to 1, or all are 0; empty below two trials
    method: str
    trials: int
    doubt: str  # "" where there are enough trials


def importance(points: Sequence[Point], dimensions: Mapping[str, Dimension | None]) -> Importance:
    """How much each key decided which trials are good; keys without a dimension are taken as choices.

    By PED-ANOVA of Optuna where it is installed, otherwise by rank correlation.
    """
    method = "PED-ANOVA" if importlib.util.find_spec("optuna") else "rank correlation"
    if len(points) < 2:
        return Importance({}, method, len(points), "importance needs at least two finished trials")
    varied = {
        key: kind for key, kind in dimensions.items() if count_distinct([values[key] for values, _ in points]) > 1
    }
    found = (_ped_anova if method == "PED-ANOVA" else _correlation)(points, varied) if varied else {}
    total = sum(found.values())
    shares = {key: found.get(key, 0.0) / (total or 1.0) for key in dimensions}
    ordered = dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
    return Importance(ordered, method, len(points), _describe_doubt(len(points)))


def _describe_doubt(trials: int) -> str:
    return f"importance from {trials} finished trials is a guess; from about {FEW} on it means something" * (
        trials < FEW
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ped_anova(points: Sequence[Point], kinds: Mapping[str, Dimension | None]) -> dict[str, float]:
    """Optuna's importance on a study made of the points, whichever searcher chose them."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import create_trial

    columns = {key: [values[key] for values, _ in points] for key in kinds}
    spaces = {key: _distribution(columns[key], kind) for key, kind in kinds.items()}
    told = {key: _encode(columns[key], spaces[key]) for key in kinds}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(TOP, min(SHARE, WANTED / len(points))))
    loudness = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        for row, (_, worth) in enumerate(points):
            params = {key: told[key][row] for key in kinds}
            study.add_trial(create_trial(params=params, distributions=spaces, value=worth))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of too few trials, which `doubt` says
            return optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    finally:
        optuna.logging.set_verbosity(loudness)


def _distribution(values: Sequence[Any], kind: Dimension | None) -> BaseDistribution:
    """The range of a key, widened to the values that were tried: population based training leaves it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if kind is None or kind.kind == "choice" or not all(map(_is_number, values)):
        return CategoricalDistribution(sorted({canonical(value) for value in values}))
    low, high = min(kind.low, *values), max(kind.high, *values)
    log = kind.kind in LOG_KINDS and low > 0
    if kind.kind in INTEGER_KINDS and all(float(value).is_integer() for value in (low, high, *values)):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _encode(values: Sequence[Any], space: BaseDistribution) -> list[Any]:
    """Values as Optuna takes them: text for a choice, since it knows no lists and takes true for 1."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(space, CategoricalDistribution):
        return [canonical(value) for value in values]
    return [int(value) if isinstance(space, IntDistribution) else float(value) for value in values]


def _correlation(points: Sequence[Point], keys: Mapping[str, Dimension | None]) -> dict[str, float]:
    """|Spearman's rank correlation| of a key with the score; of a choice that has no order, the correlation ratio."""
    worth = _ranks(np.array([badness for _, badness in points]))
    if np.ptp(worth) == 0:
        return dict.fromkeys(keys, 0.0)
    return {key: _association([values[key] for values, _ in points], worth) for key in keys}


def _association(values: Sequence[Any], worth: NDArray[np.float64]) -> float:
    if all(map(_is_number, values)):
        return abs(float(np.corrcoef(_ranks(np.array(values, dtype=float)), worth)[0, 1]))
    names = np.array([canonical(value) for value in values])
    within = sum(float(np.sum((worth[names == name] - worth[names == name].mean()) ** 2)) for name in np.unique(names))
    return float(np.sqrt(1 - within / np.sum((worth - worth.mean()) ** 2)))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) -> (N,) ranks; equal values share the mean of theirs."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
