"""`depthray.tune`: the command `depthray tune` as a function."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from depthray.config import own_code
from depthray.errors import UsageError
from depthray.python_words import flags_of, speaks_python
from tuning import command, plan
from tuning.report.build import BEST
from tuning.study.study import Study


@dataclass(frozen=True)
class TunedSearch:
    """A search after it has ended or was stopped. It stands for its folder wherever a path does."""

    path: Path  # with report.html, trials.csv and a run for each trial
    best: Path | None  # the best recipe, which `depthray.train` takes; None where no trial has ended
    finished: bool  # False: it was stopped, and `resume=True` goes on

    def __fspath__(self) -> str:
        return str(self.path)

    def study(self) -> Study:
        """The trials and their scores in numbers."""
        return Study.read(self.path)


@speaks_python
def tune(
    recipe: str | os.PathLike[str] = "",
    /,
    *overrides: str,
    space: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    trust: bool = False,
    trials: int | None = None,
    search: str | None = None,
    scheduler: str | None = None,
    grace: int | None = None,
    reduction: int | None = None,
    hours: float | None = None,
    gpu_hours: float | None = None,
    retries: int | None = None,
    top: int | None = None,
    repeats: int | None = None,
    seed: int | None = None,
    objectives: Sequence[str] = (),
    constraints: Sequence[str] = (),
    concurrent: int | None = None,
    workers_per_trial: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
    address: str | None = None,
) -> TunedSearch:
    """Search over a recipe's keys on Ray: `tune("unet-lite", "train.epochs=12", data="frames", trials=8, hours=2)`.

    Every argument is the flag of `depthray tune` of its name, with its default; `resume=True` resumes the search in
    `out`, and with `trust=True` runs one's own code that the search names. It starts a local Ray, or uses the cluster
    at `address`, and prints what the command prints. Ctrl-C stops it in order. Raises UsageError, DataError and the
    other errors of `depthray.errors`.
    """
    for name, value, known in (("search", search, plan.SEARCHERS), ("scheduler", scheduler, plan.SCHEDULERS)):
        if value is not None and value not in known:
            raise UsageError(f"{name}={value!r}: choose from: {', '.join(known)}")
    if resume and out is None:
        raise UsageError("resume=True needs out=SEARCH, the folder of the search to resume")
    name = f"tune-{Path(recipe).stem or 'search'}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(os.path.realpath(out or Path("runs", name)))  # as the command has it
    flags = {
        **{"resume" if resume else "out": folder, "space": space, "data": data, "trials": trials, "search": search},
        **{"scheduler": scheduler, "hours": hours, "top": top, "repeats": repeats, "seed": seed},
        **{"concurrent": concurrent, "workers-per-trial": workers_per_trial, "cpus-per-worker": cpus_per_worker},
        **{"gpus-per-worker": gpus_per_worker, "address": address},
        **{"grace": grace, "reduction": reduction, "gpu-hours": gpu_hours, "retries": retries, "trust": trust},
        **{"objectives": objectives, "constraints": constraints},
    }
    words = [*([os.fspath(recipe)] if recipe else []), *overrides]
    with own_code.trusting(trust):
        code = command.main([*words, *flags_of(flags)])
    best = folder / BEST
    return TunedSearch(folder, best if best.is_file() else None, finished=code == 0)
