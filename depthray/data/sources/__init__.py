"""The forms a data set may have: one module of this folder each, found by its file name.

A module has `open_source(section) -> Source` and `fits(root) -> bool` (whether a path looks like this form).
"""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from depthray.data import encodings
from depthray.data.source import DERIVED, INPUTS, TARGETS, Source
from depthray.errors import DataError, UsageError, did_you_mean
from depthray.storage import remote as storage

if TYPE_CHECKING:
    from depthray.config.sections import Data


def names() -> list[str]:
    """The forms there are."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def check(section: Data, *, where: str) -> None:
    """Refuse an unknown source or encoding, and keys of the batch that are unknown, named twice or input and target."""
    if section.source not in names():
        raise UsageError(f"{where}: no data.source='{section.source}'{did_you_mean(section.source, names())}")
    encodings.check(section.encoding, where=where)
    for word, keys, known in (("inputs", section.inputs, INPUTS), ("targets", section.targets, TARGETS)):
        for key in keys:
            if key not in known:
                raise UsageError(f"{where}: data.{word} has unknown '{key}'{did_you_mean(key, known)}")
        if double := [key for key, count in Counter(keys).items() if count > 1]:
            raise UsageError(f"{where}: data.{word} names '{double[0]}' twice; once is enough")
    if both := [key for key in section.inputs if key in section.targets]:
        raise UsageError(f"{where}: '{both[0]}' is in data.inputs and data.targets; no network is taught its input")


def open_source(section: Data, *, verify: bool = True) -> Source:
    """The data set of a section. With `verify`, what would fail later (missing files, double ids) fails here."""
    check(section, where="data")
    source: Source = _module(section.source).open_source(section)
    if not source.frames:
        raise DataError(f"{section.root or section.source}: the data set has no frames")
    if verify:
        _verify(source, section)
    return source


def recognise(root: Path | str) -> str:
    """The name of the form a path looks like; at an address of an object store only shards are read."""
    if storage.is_remote(root):
        return "shards"
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root} {'is a link that leads nowhere' if root.is_symlink() else 'does not exist'}")
    for name in names():
        if _module(name).fits(root):
            return name
    raise DataError(f"{root}: looks like none of {', '.join(names())}; name the form with --source")


def _module(name: str) -> ModuleType:
    return import_module(f"depthray.data.sources.{name}")


def _verify(source: Source, section: Data) -> None:
    double = [name for name, count in Counter(frame.id for frame in source.frames).items() if count > 1]
    if double:
        raise DataError(f"{section.root}: {len(double)} frame ids are used twice, first '{double[0]}'; ids must differ")
    for word, keys in (("inputs", section.inputs), ("targets", section.targets)):
        made = set() if section.sparse.pattern == "stored" else set(DERIVED)
        missing = sorted(set(keys) - source.keys - made)
        if missing:
            raise DataError(f"{section.root}: data.{word} wants '{missing[0]}', which this data set lacks")
    _ = source.fingerprint  # touches every file, so that a missing one is found before training, not during it
