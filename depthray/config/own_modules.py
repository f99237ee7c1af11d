"""Modules and files of code that is not depthray's: found without an import, imported, their faults in one line."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from hashlib import sha256
from importlib import abc, import_module, machinery, util
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from depthray.errors import UsageError, did_you_mean

# Folders of code that is not the user's: depthray, and whatever else is installed.
NOT_THEIRS = (Path(__file__).parents[1], *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))
MAX_BYTES = 1 << 20  # of a file; it is copied into every checkpoint


def digest_of(content: bytes) -> str:
    """SHA-256 of the content of a file."""
    return sha256(content).hexdigest()


def find(name: str, path: Sequence[str] | None = None) -> machinery.ModuleSpec | None:
    """Where Python would import a module from, None where it finds none; `path` in place of `sys.path`.

    Unlike importlib's function of this name it imports no package on the way.
    """
    spec: machinery.ModuleSpec | None = None
    parts = name.split(".")
    for number in range(1, len(parts) + 1):
        spec = _find_one(".".join(parts[:number]), path)
        if spec is None:
            return None
        try:
            path = list(spec.submodule_search_locations or ())
        except KeyError:  # of a namespace package in another one, which would have to be imported first
            return None
    return spec


def _find_one(name: str, path: Sequence[str] | None) -> machinery.ModuleSpec | None:
    for finder in sys.meta_path:  # besides Python's own, those of editable installations
        spec = finder.find_spec(name, path) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


def content_of(name: str) -> bytes:
    """The file of a module; b"" where it has none."""
    spec = find(name)
    return Path(spec.origin).read_bytes() if spec and spec.origin and os.path.isfile(spec.origin) else b""


def root_of(name: str) -> str:
    """The folder in which Python finds the package of a module; "" where it finds none."""
    spec = find(name.partition(".")[0])
    if spec is None:
        return ""
    inside = next(iter(spec.submodule_search_locations or ()), spec.origin)
    return str(Path(inside).parent) if inside else ""


def difference(name: str, member: str, digest: str) -> str:
    """Why a module is not one that the user has and that defines `member`, of this SHA-256; "" where it is.

    The current folder does not count, unless PYTHONPATH names it: an archive may have been unpacked there.
    """
    spec = find(name)
    if name not in sys.modules:  # else the user, or what is installed, has imported it
        named = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
        here = {"", os.getcwd()} - {os.path.abspath(part) for part in named}
        elsewhere = find(name, [folder for folder in sys.path if folder not in here])
        if spec is None or elsewhere is None or spec.origin != elsewhere.origin:
            return f"Python finds no module '{name}' outside of the current folder"
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        return f"module '{name}' has no file"
    content = Path(spec.origin).read_bytes()
    if digest_of(content) != digest:
        return f"{spec.origin} is not what the checkpoint was trained with, SHA-256 {digest[:12]}"
    # By its text: a module that was written for something else may do anything when it is imported.
    if not re.search(rf"^(def {member}\(|{member}\b[^=\n]*=)", content.decode("utf-8", "replace"), re.MULTILINE):
        return f"{spec.origin} does not define '{member}'"
    return ""


def import_named(name: str, label: str) -> ModuleType:
    """The module of a dotted name, imported. `label` begins each message."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(f"{label}: {_describe_missing(name)}") from None
        raise _import_error(error, label) from error  # of what the module imports
    except (Exception, SystemExit) as error:  # of somebody's code: it may raise anything
        raise _import_error(error, label) from error


def _describe_missing(name: str) -> str:
    parent, _, last = name.rpartition(".")
    spec = find(parent) if parent else None
    folders = list(spec.submodule_search_locations or ()) if spec else [os.getcwd()]
    word, prefix = (last, f"{parent}.") if spec else (name.partition(".")[0], "")
    hint = near(word, (each.name for each in iter_modules(folders)), prefix)
    return (
        f"Python finds no module '{name}'{hint}; it looks in {os.getcwd()}, PYTHONPATH and the installed packages; a "
        "file is named ./NAME.py"
    )


class _Content(abc.SourceLoader):
    """Imports bytes that were checked: a file could be replaced between two reads, and other nodes have none."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content = str(path), content

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: Any) -> bytes:
        if path != self.path:
            raise OSError(path)  # no compiled copy is kept
        return self.content


def load_content(path: Path, content: bytes, label: str) -> ModuleType:
    """The module of the content of a file, imported."""
    # Named by its content: two files of one name, or one before and after a change, are two modules.
    name = f"depthray_own_{identifier(path)}_{digest_of(content)[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Content(path.absolute(), content)
    module = util.module_from_spec(machinery.ModuleSpec(name, loader, origin=loader.path))
    module.__file__ = loader.path
    sys.modules[name] = module  # before it runs, as Python does: dataclasses look for it there
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # of somebody's code: it may raise anything
        del sys.modules[name]
        raise _import_error(error, label) from error
    return module


def read_file(path: Path, label: str) -> bytes:
    """The content of a Python file; UsageError where there is none."""
    if not path.exists():
        hint = near(path.name, (each.name for each in path.parent.glob("*.py")), f"{path.parent}/")
        raise UsageError(f"{label}: no file {path}{hint}")
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise UsageError(f"{label}: {path} is no Python file of at most {MAX_BYTES >> 20} MiB")
    return path.read_bytes()


def identifier(path: Path) -> str:
    """The name of a file as part of another name."""
    return re.sub(r"\W", "_", path.stem, flags=re.ASCII)


def near(name: str, choices: Iterable[str], prefix: str = "") -> str:
    """A hint where there is a similar name; a list of all would say nothing here."""
    hint = did_you_mean(name, choices)
    return hint.replace("mean '", f"mean '{prefix}") if "did you mean" in hint else ""


def _import_error(error: BaseException, label: str) -> UsageError:
    return UsageError(f"{label}: importing it fails: {fault_line(error)}")


def fault_line(error: BaseException) -> str:
    """An error of somebody's code in one line: FILE:LINE: NameError: name 'x' is not defined."""
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())[:200]
    at = (error.filename, error.lineno) if isinstance(error, SyntaxError) else _last_frame(error)
    return f"{f'{at[0]}:{at[1]}: ' if at else ''}{type(error).__name__}{f': {text}' if text else ''}"


def _last_frame(error: BaseException) -> tuple[str, int | None] | None:
    """The file and line of the user's code where an error was raised, or came from; else those where it was raised."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    files = [frame for frame in frames if not frame[0].startswith("<") and frame[0] != __file__]
    theirs = [frame for frame in files if not any(folder in Path(frame[0]).parents for folder in NOT_THEIRS)]
    return theirs[-1] if theirs else files[-1] if files else None
