"""Scripts that are in no package, loaded as modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType


def load_script(name: str, folder: Path) -> ModuleType:
    """The script of this name in a folder."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
