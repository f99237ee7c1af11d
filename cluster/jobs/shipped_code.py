"""One's own code that a job needs: which files of this machine go into its working directory, and under which names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from depthray.config import own_code, own_modules
from depthray.errors import UsageError

INSTALLED = ("site-packages", "dist-packages")  # folders whose packages the nodes of a cluster have, too
MAX_FILES = 1000  # of a package; more is a folder that is no package


def files_to_ship(names: Iterable[str]) -> dict[str, Path]:
    """Name in the job's working directory -> file, of the modules and files of these names.

    A name means the same there as here, so that command lines and recipes stay as they are. Raises UsageError for a
    file outside of the current folder.
    """
    files: dict[str, Path] = {}
    for name in names:
        if own_code.is_file(name):
            path = own_code.file_of(name)
            files[_inside(path, name)] = path
        else:
            files |= _package_files(name)
    return files


def _inside(path: Path, name: str) -> str:
    relative = os.path.normpath(path)
    if path.is_absolute() or relative.startswith(".."):
        raise UsageError(
            f"{name}: a job gets files of the current folder, and a name that means the same there: call depthray in "
            f"{path.absolute().parent} and write ./{path.name}"
        )
    return relative


def _package_files(name: str) -> dict[str, Path]:
    """The Python files of the package of a module; none where it is installed, as it then is on the cluster."""
    root = Path(own_modules.root_of(name.partition(":")[0]))
    if str(root) == "." or set(INSTALLED) & set(root.parts):
        return {}
    package = root / name.partition(":")[0].partition(".")[0]
    paths = sorted(package.rglob("*.py")) if package.is_dir() else [package.with_suffix(".py")]
    if len(paths) > MAX_FILES:
        raise UsageError(f"{name}: {package} has {len(paths)} Python files, too many to send with a job; install it")
    return {str(path.relative_to(root)): path for path in paths}
