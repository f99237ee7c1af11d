"""Makes networks fail on order. Python imports this by itself in every process whose PYTHONPATH has this folder.

The file that DEPTHRAY_FAULTS names holds the order as JSON, read before every forward pass:

    pause      seconds that a pass takes longer
    pids       the processes it is for; all of them without this key
    memory     pictures above which a pass does not fit into memory (torch.OutOfMemoryError)
    error      a RuntimeError with this text, as of a device that is gone
    exit       "black": the process ends at a black picture
    nan        "all": every answer is no number; "black": that of a black picture is
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ORDER = Path(os.environ.get("DEPTHRAY_FAULTS", "/nonexistent"))


class Finder:
    """Finds depthray.predict once, to change it as soon as it is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "depthray.predict":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec and spec.loader
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            harm(module.Predictor)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def harm(predictor: Any) -> None:
    """Have a Predictor obey the order."""
    run = predictor.run

    def harmed(self: Any, samples: Any) -> Any:
        order = ordered()
        time.sleep(order.get("pause", 0))
        if "error" in order:
            raise RuntimeError(order["error"])
        if len(samples) > order.get("memory", len(samples)):
            import torch

            raise torch.OutOfMemoryError(f"{len(samples)} pictures are more than {order['memory']}")
        black = [not sample["image"].any() for sample in samples]
        if any(black) and order.get("exit") == "black":
            os._exit(1)
        answers = run(self, samples)
        for is_black, maps in zip(black, answers, strict=True):
            if order.get("nan") == "all" or (order.get("nan") == "black" and is_black):
                for key in maps:
                    maps[key] = maps[key] * float("nan")
        return answers

    predictor.run = harmed


def ordered() -> dict[str, Any]:
    """The order as it stands for this process."""
    try:
        order: dict[str, Any] = json.loads(ORDER.read_bytes())
    except (OSError, ValueError):
        return {}
    return order if os.getpid() in order.get("pids", [os.getpid()]) else {}


if "DEPTHRAY_FAULTS" in os.environ:
    sys.meta_path.insert(0, Finder())
