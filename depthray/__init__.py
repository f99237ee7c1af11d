"""depthray: depth from images. A recipe trains into a checkpoint; a checkpoint turns images into metres.

run = depthray.train("unet-lite", data="my-frames", out="runs/first")
depthray.evaluate(run).scores
depthray.load(run).predict("photo.jpg").metres
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthray.api import TrainedRun as TrainedRun
    from depthray.api import evaluate as evaluate
    from depthray.api import export as export
    from depthray.api import train as train
    from depthray.api import train_events as train_events
    from depthray.predict import Predictor as Predictor
    from depthray.predict import load as load
    from tuning.tune import TunedSearch as TunedSearch
    from tuning.tune import tune as tune

__version__ = "0.2.0"
# Imported when used, so that `import depthray` imports neither torch nor Ray. `tune` stands in the package of Ray Tune,
# which is built upon this one: like the command line, this table names it and imports nothing of it.
_FUNCTIONS = {
    "train": "depthray.api:train",
    "train_events": "depthray.api:train_events",
    "evaluate": "depthray.api:evaluate",
    "export": "depthray.api:export",
    "load": "depthray.predict:load",
    "tune": "tuning.tune:tune",
    "Predictor": "depthray.predict:Predictor",
    "TrainedRun": "depthray.api:TrainedRun",
    "TunedSearch": "tuning.tune:TunedSearch",
}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return resolve_name(_FUNCTIONS[name])
    raise AttributeError(f"module 'depthray' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS])
