"""Makes networks fail on request. Python imports this by itself in every process whose PYTHONPATH has this folder.

The file that DEPTHRAY_FAULTS names holds the faults as JSON, read before every forward pass:

    pause      seconds that a forward pass takes longer
    pids       the processes that fail; all of them without this key
    memory     images above which a forward pass does not fit into memory (torch.OutOfMemoryError)
    error      a RuntimeError with this text, as of a lost device
    exit       "black": the process ends at a black image
    nan        "all": every prediction is NaN; "black": that of a black image
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FAULTS = Path(os.environ.get("DEPTHRAY_FAULTS", "/nonexistent"))


class Finder:
    """Finds depthray.predict once, to change it as soon as it is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "depthray.predict":
            return None
        sys.meta_path.remove(self)  # before the search below, which would find this again
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec and spec.loader
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            harm(module.Predictor)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def harm(predictor: Any) -> None:
    """Have a Predictor fail as the file asks."""
    run = predictor.run

    def run_with_faults(self: Any, samples: Any) -> Any:
        faults = current_faults()
        time.sleep(faults.get("pause", 0))
        if "error" in faults:
            raise RuntimeError(faults["error"])
        if len(samples) > faults.get("memory", len(samples)):
            import torch

            raise torch.OutOfMemoryError(f"{len(samples)} images are more than {faults['memory']}")
        black = [not sample["image"].any() for sample in samples]
        if any(black) and faults.get("exit") == "black":
            os._exit(1)  # as a crash: nothing is cleaned up
        predictions = run(self, samples)
        for is_black, maps in zip(black, predictions, strict=True):
            if faults.get("nan") == "all" or (faults.get("nan") == "black" and is_black):
                for key in maps:
                    maps[key] = maps[key] * float("nan")
        return predictions

    predictor.run = run_with_faults


def current_faults() -> dict[str, Any]:
    """The faults of this process now."""
    try:
        faults: dict[str, Any] = json.loads(FAULTS.read_bytes())
    except (OSError, ValueError):
        return {}
    return faults if os.getpid() in faults.get("pids", [os.getpid()]) else {}


if "DEPTHRAY_FAULTS" in os.environ:
    sys.meta_path.insert(0, Finder())
