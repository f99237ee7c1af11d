"""Records what becomes of each trial, from the callbacks of Tune, and logs a line for each that ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from depthray.config.metric_names import rank_key
from depthray.runs import layout
from tuning.records import ENDED, SearchLimits, Trial, curve, write_trial
from tuning.space.dimension import overrides
from tuning.trial import FAILED, FINISHED, RUNTIME
from tuning.values import wrapped


class LimitsReached(tune.Stopper):
    """Ends a search that has used up its limits."""

    def __init__(self, limits: SearchLimits) -> None:
        self.limits = limits

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether this trial is to end: never because of its own results."""
        return False

    def stop_all(self) -> bool:
        """Whether all are to end."""
        return self.limits.reached


class Recorder(tune.Callback):
    """Keeps trial.json of every trial up to date. `template` has what all trials share."""

    def __init__(
        self,
        folder: Path,
        trials: Mapping[str, Trial],
        *,
        template: Trial,
        metric: str,
        limits: SearchLimits,
        log: Callable[[str], None],
    ) -> None:
        self.folder, self.trials, self.template, self.metric, self.log = folder, dict(trials), template, metric, log
        self.limits = limits
        self._count_gpu_seconds()
        self._since: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record where it runs; a paused trial starts again."""
        name, now = trial.storage.trial_dir_name, time.time()
        task = trial.config["trial"]
        record = self.trials.get(name) or replace(self.template, name=name, of=name, words=task["words"])
        self._since[name] = now
        self._write(
            replace(
                record,
                state="running",
                started=record.started or now,  # of the first attempt
                attempts=record.attempts or 1,
                node=trial.get_ray_actor_ip() or "",
                error="",  # no longer that of an earlier attempt
            )
        )

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **info: Any) -> None:
        """Record the time it took, what the network costs, and overrides that population based training changed."""
        record, task = self._with_time(trial), trial.config["trial"]
        if FINISHED in result:
            costs = {"latency_ms": result["latency_ms"], "parameters": int(result["parameters"])}
            record = replace(record, **costs, runtime=result.get(RUNTIME, ""))
        # Under population based training a trial's configuration is that of another one after an exchange.
        if task["words"] != (record.history[-1]["words"] if record.history else record.words):
            change = {"epoch": int(result["epoch"]), "words": task["words"], "from": task["name"]}
            record = replace(record, history=(*record.history, change))
        self._write(record)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record that it is tried again."""
        record = self._with_time(trial)
        self._write(replace(record, attempts=record.attempts + 1))
        self.log(wrapped(f"{record.name}  lost ({_last_line(trial)}); tried again from its last checkpoint"))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record how it ended; one that only the limits ended can be resumed under higher ones."""
        # Tune calls all of these complete: trials at their end, failed ones that reported it, stopped ones.
        result, record = trial.last_result, self._with_time(trial)
        if FAILED in result:
            self._end(replace(record, state="failed", error=str(result[FAILED])))
        elif FINISHED in result:
            self._end(replace(record, state="done"))
        elif self.limits.reached:
            self._write(replace(record, state="waiting"))
        else:
            self._end(replace(record, state="stopped"))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Record the last line of the error that ended it."""
        self._end(replace(self._with_time(trial), state="failed", error=_last_line(trial)))

    def _with_time(self, trial: Any) -> Trial:
        # From callback to callback, so that a paused trial, which holds no resources, is not counted.
        name, now = trial.storage.trial_dir_name, time.time()
        record = self.trials[name]
        spent = now - self._since.get(name, now)
        self._since[name] = now
        return replace(record, busy_seconds=record.busy_seconds + spent)

    def _end(self, record: Trial) -> None:
        if self.trials[record.name].state in ENDED:
            return  # Tune calls back twice for some ends
        self._write(replace(record, ended=time.time()))
        self.log(self._line(record))

    def _line(self, record: Trial) -> str:
        """An ended trial: its outcome first, and its overrides, on further lines where there are many."""
        ended = sum(trial.state in ENDED for trial in self.trials.values())
        outcome = record.error or f"{self.metric} {_format_score(self.folder, record, self.metric)}"
        changes = " ".join(overrides(record.words)) or "baseline"
        return wrapped(f"{record.name}  {record.state:<8}{outcome}  [{ended} ended]  {changes}")

    def _count_gpu_seconds(self) -> None:
        # From the records of all trials, so that earlier starts of the search count.
        self.limits.gpu_seconds_used = sum(
            each.busy_seconds * each.gpus * each.workers for each in self.trials.values()
        )

    def _write(self, record: Trial) -> None:
        # At once: a search may be killed at any time, and is resumed from these files alone.
        self.trials[record.name] = record
        self._count_gpu_seconds()
        write_trial(self.folder, record)


def _format_score(folder: Path, trial: Trial, metric: str) -> str:
    scores = [epoch[metric] for epoch in curve(layout.trial(folder, trial.name)) if epoch.get(metric) is not None]
    if not scores:
        return "not scored"
    return f"{min(scores, key=lambda score: rank_key(metric, score)):.4f} in {len(scores)} epochs"


def _last_line(trial: Any) -> str:
    """The last line of a trial's last error, from the file that Tune keeps on the driver's machine."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):  # there is no file
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason was given"
