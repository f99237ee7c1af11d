"""The packages beside this one, where the current folder has a module of the same name, such as a user's own serve.py.

`python -m` and Ray's workers look into the current folder first. Imports no Ray.
"""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from depthray.errors import UsageError

NAMES = ("cluster", "serve", "tuning")
ROOT = Path(__file__).parents[2]  # the folder of these packages and of this one


class SiblingFinder(MetaPathFinder):
    """Finds these packages beside this one, whatever `sys.path` begins with."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Where one of these packages is; None for all other modules."""
        return PathFinder.find_spec(fullname, [str(ROOT)]) if path is None and fullname in NAMES else None


def install() -> None:
    """Import these packages from beside this one, in a process that runs a command and has no other use of the names.

    Not in a user's own process: there `import serve` means the user's serve.py.
    """
    if not any(isinstance(finder, SiblingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, SiblingFinder())


def check_import(package: str) -> None:
    """Raise UsageError where `import package` means a user's own, which Python found first."""
    spec = find_spec(package)
    if spec and spec.origin and Path(spec.origin).resolve().parents[1] != ROOT.resolve():
        raise UsageError(
            f"depthray's package '{package}' is hidden by {spec.origin}, which Python finds first; start Python in "
            "another folder, or rename yours"
        )


def shadowed() -> list[str]:
    """The names that mean another module in the current folder; a folder without __init__.py hides nothing."""
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # removed
        return []
    specs = {name: PathFinder.find_spec(name, [here]) for name in (*NAMES, "depthray")}
    return [name for name, spec in specs.items() if spec and spec.origin and here != os.path.realpath(ROOT)]


def ray_arguments() -> dict[str, Any]:
    """Arguments of `ray.init` by which workers find the packages; none, as they cost a second, where nothing hides."""
    hook = f"{install.__module__}.{install.__name__}"
    return {"runtime_env": {"worker_process_setup_hook": hook}} if shadowed() else {}
