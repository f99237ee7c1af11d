"""MLflow: a run in RUN/mlruns, or on the server of MLFLOW_TRACKING_URI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "mlruns"


class MlflowTracker:
    """A run of MLflow, by its client, which leaves the active run of the user's own code alone."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        # Files in the run's folder: MLflow calls them legacy, but its database needs packages that the rest does not.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or (run / FOLDER).resolve().as_uri())
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "depthray")
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        self.run_id = self.client.create_run(experiment, run_name=run.name).info.run_id
        for key, value in settings.items():
            self.client.log_param(self.run_id, key, value)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.client.log_metric(self.run_id, name, value, step=step)

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


def open_tracker(run: Path, settings: Mapping[str, Any]) -> MlflowTracker:
    """A new run of MLflow with the recipe's keys as parameters."""
    return MlflowTracker(run, settings)
