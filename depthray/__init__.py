"""depthray: depth from images. A recipe trains into a checkpoint; a checkpoint turns images into metres.

run = depthray.train("unet-lite", data="my-frames", out="runs/first")
depthray.evaluate(run).scores
depthray.load(run).predict("photo.jpg").metres
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoints, entry_points
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from depthray.version import __version__ as __version__

if TYPE_CHECKING:
    from depthray.api import PredictedSet as PredictedSet
    from depthray.api import TrainedRun as TrainedRun
    from depthray.api import compare as compare
    from depthray.api import evaluate as evaluate
    from depthray.api import export as export
    from depthray.api import load as load
    from depthray.api import predict_set as predict_set
    from depthray.api import train as train
    from depthray.api import train_events as train_events
    from depthray.measures import calibrate as calibrate
    from depthray.measures import card as card
    from depthray.measures import robust as robust
    from depthray.predict import Predictor as Predictor

# Imported when used, so that `import depthray` imports neither torch nor Ray.
_FUNCTIONS = {
    "train": "depthray.api:train",
    "train_events": "depthray.api:train_events",
    "evaluate": "depthray.api:evaluate",
    "compare": "depthray.api:compare",
    "robust": "depthray.measures:robust",
    "calibrate": "depthray.measures:calibrate",
    "card": "depthray.measures:card",
    "export": "depthray.api:export",
    "predict_set": "depthray.api:predict_set",
    "load": "depthray.api:load",
    "Predictor": "depthray.predict:Predictor",
    "PredictedSet": "depthray.api:PredictedSet",
    "TrainedRun": "depthray.api:TrainedRun",
}
# Functions of packages that are built upon this one, as `tune` is: entry points of the installation.
_GROUP = "depthray.functions"


@cache  # to read those of an installation takes 20 ms, and some tools ask for many names that are not there
def _entry_points() -> EntryPoints:
    return entry_points(group=_GROUP)


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return resolve_name(_FUNCTIONS[name])
    for point in _entry_points().select(name=name):
        resolve_name("depthray.config.shadowed_packages:check_import")(point.module.partition(".")[0])
        return point.load()
    raise AttributeError(f"module 'depthray' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FUNCTIONS, *_entry_points().names])
