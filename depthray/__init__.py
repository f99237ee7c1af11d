"""depthray: depth from images. A recipe trains into a checkpoint; a checkpoint turns images into metres."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depthray.predict import Predictor as Predictor
    from depthray.predict import load as load

__version__ = "0.2.0"
_LAZY = {"load": "depthray.predict", "Predictor": "depthray.predict"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'depthray' has no attribute '{name}'")
