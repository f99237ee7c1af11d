"""The forms a data set may have, each a module of this folder that is found by its file name.

A module has `open_source(section) -> Source` and `fits(root) -> bool` (whether a path looks like this form); it may
have `TERMS`, by `Frame.source`, which also hold for frames that were packed into shards, and `RECORDED = True` where it
reads `data.recording`. One's own is a module or a file elsewhere with the first of these, see
`depthray.config.own_code`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from inspect import getattr_static
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from depthray.config import own_code
from depthray.data import encodings, pairing, split
from depthray.data.columns.frame_columns import FrameColumns
from depthray.data.mixing import data_sets
from depthray.data.mixing.joined_source import JoinedSource, Member, join
from depthray.data.source import DERIVED, INPUTS, TARGETS, DataTerms, Frame, Source
from depthray.errors import DataError, UsageError, did_you_mean
from depthray.storage.remote import is_remote

if TYPE_CHECKING:
    from depthray.config.sections import Data

USUAL = ("shards", "folder", "synthetic")  # what recipes have for want of a data set; others are somebody's choice
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def names() -> list[str]:
    """The names of all forms."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))


def check_name(name: str, *, where: str, label: str = "data.source=") -> None:
    """Refuse an unknown form; one's own is imported. `label` stands before its name in the message."""
    if name in names():
        return
    if not own_code.is_of(own_code.SOURCE, name):
        known = [*names(), *own_code.entry_points(own_code.SOURCE)]
        raise UsageError(f"{where}: no {label}'{name}'{did_you_mean(name, known)}")
    _opener(name, where=where)


def check(section: Data, *, where: str) -> None:
    """Refuse an unknown source or encoding, and keys of the batch that are unknown, named twice or input and target."""
    _check_form("" if section.sets else section.source, section.encoding, where=where)
    for each in section.sets:
        _check_form(each.source, each.encoding, where=f"{where}: data.sets: '{each.name}'")
    for name, keys, known in (("inputs", section.inputs, INPUTS), ("targets", section.targets, TARGETS)):
        for key in keys:
            if key not in known:
                raise UsageError(f"{where}: data.{name} has unknown '{key}'{did_you_mean(key, known)}")
        if duplicates := [key for key, count in Counter(keys).items() if count > 1]:
            raise UsageError(f"{where}: data.{name} names '{duplicates[0]}' twice; once is enough")
    if both := [key for key in section.inputs if key in section.targets]:
        raise UsageError(
            f"{where}: '{both[0]}' is in data.inputs and data.targets; a network cannot learn its own input"
        )


def _check_form(source: str, encoding: str, *, where: str) -> None:
    if source:  # of one of several sets it may be as its root looks
        check_name(source, where=where)
    if encoding:
        encodings.check(encoding, where=where)


def open_source(section: Data, *, verify: bool = True) -> Source:
    """The data set of a section, or its sets as one: a `JoinedSource`.

    With `verify`, missing files and duplicate ids fail here, not during training.
    """
    check(section, where="data")
    section = data_sets.resolve_data(section)
    if section.sets:
        return _open_sets(section, verify=verify)
    if section.root and not section.source:  # what was one of data.sets
        section = section.model_copy(update={"source": recognise(section.root)})
    opener = _opener(section.source, where="data")
    with own_code.one_line(f"data.source={section.source}: open_source fails", own=section.source not in names()):
        source = opener(section)
    # Not hasattr, which computes the fingerprint: it asks for the size of each file.
    members = ("frames", "keys", "fingerprint", "read", "faults")
    if missing := [key for key in members if getattr_static(source, key, None) is None]:
        raise UsageError(
            f"data.source={section.source}: open_source returned {type(source).__name__}, which has no "
            f"'{missing[0]}'; see docs/own-code.md"
        )
    if not source.frames:  # before `fingerprint`, which an empty set has, too
        raise DataError(f"{section.root or section.source}: the data set has no frames")
    if verify:
        _verify(source, section)
    return source


def _open_sets(section: Data, *, verify: bool) -> JoinedSource:
    """The sets of a section that `data_sets.resolve_data` made."""
    members = []
    try:
        for each, own in zip(section.sets, data_sets.sections_of(section), strict=True):
            name = each.name
            if not (own.root or own.source):
                raise UsageError("has neither a root nor a source")
            source = open_source(own, verify=verify)
            members.append(Member(name, source, split.divide(source.frames, own)))
    except (DataError, UsageError) as error:
        raise type(error)(f"data.sets: '{name}': {error}") from None
    return join(members)


def recognise(root: Path | str) -> str:
    """The name of the form a path looks like; an address of an object store can only be shards."""
    if is_remote(root):
        return "shards"
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root} {'is a broken link' if root.is_symlink() else 'does not exist'}")
    for name in names():
        if _module(name).fits(root):
            return name
    raise DataError(f"{root}: {_what_is_missing(root)}")


def recognised_section(section: Data, *, chosen: bool) -> Data:
    """The section with the form that its root looks like, where the form is one that is used for want of another.

    With `chosen`, by the user, the form stays, as it does for a root that is not on this machine.
    """
    root = section.root
    if chosen or not root or section.source not in USUAL or not (is_remote(root) or Path(root).exists()):
        return section
    if not is_remote(root) and _module(section.source).fits(Path(root)):
        return section
    return section.model_copy(update={"source": recognise(root)})


def recognised_sets(section: Data) -> Data:
    """The section with the form that the root of each of its sets looks like, where none is named."""
    # One of weight 0 need not be there.
    sets = tuple(
        each.model_copy(update={"source": recognise(each.root)})
        if each.is_used and each.root and not each.source and (is_remote(each.root) or Path(each.root).exists())
        else each
        for each in section.sets
    )
    return section.model_copy(update={"sets": sets})


def check_recording(section: Data, *, where: str) -> None:
    """Refuse keys of data.recording for data sets that are here and no recordings, which would ignore them."""
    usual = type(section.recording)()
    given = [key for key, value in section.recording if value != getattr(usual, key)]
    places = section.roots
    unknown = not places or not all(section.forms) or not all(is_remote(each) or Path(each).exists() for each in places)
    if not given or unknown or any(form not in names() or _is_recorded(form) for form in section.forms):
        return
    raise UsageError(
        f"{where}: data.recording.{given[0]} is of recordings ({', '.join(filter(_is_recorded, names()))}), and "
        f"data.source={section.forms[0]} is none: it would be ignored; leave it out, or give it where the recording is "
        "converted"
    )


def _is_recorded(form: str) -> bool:
    return bool(getattr(_module(form), "RECORDED", False))


def terms(name: str) -> DataTerms | None:
    """The terms of a data set by the `Frame.source` of its frames; None where no form knows it."""
    return next((found for form in names() if (found := getattr(_module(form), "TERMS", {}).get(name))), None)


def _what_is_missing(root: Path) -> str:
    """Why a path is no data set of a known form, and what to do."""
    if root.suffix.lower() in ARCHIVES:
        return "an archive; unpack it, and give the folder"
    known = f"no data set of a known form ({', '.join(names())}); give its folder, or name the form with --source"
    if not root.is_dir():
        return known
    folders = pairing.guess_folders(root) or (root / "RGB_DIR", root / "DEPTH_DIR")
    return (
        f"no index.csv there; for frames in files of your own `depthray data index {folders[0]} {folders[1]}` writes "
        f"one. It is {known}"
    )


def _opener(name: str, *, where: str) -> Callable[[Data], Source]:
    if name in names():
        ours: Callable[[Data], Source] = _module(name).open_source
        return ours
    opener: Callable[[Data], Source] = own_code.resolve(own_code.SOURCE, name, where=where)
    own_code.check_call(opener, None, label=f"{where}: data.source={name}", form="def open_source(section)")
    return opener


def _module(name: str) -> ModuleType:
    # Only when it is asked for: forms import the readers of their files.
    return import_module(f"depthray.data.sources.{name}")


def _duplicates(frames: Sequence[Frame]) -> list[str]:
    """Ids that more than one frame has."""
    if isinstance(frames, FrameColumns) and frames.ids_differ:
        return []  # it was found out when they were indexed: of millions of frames counting takes minutes
    ids = frames.ids if isinstance(frames, FrameColumns) else (frame.id for frame in frames)
    return [name for name, count in Counter(ids).items() if count > 1]


def _verify(source: Source, section: Data) -> None:
    duplicates = _duplicates(source.frames)
    if duplicates:
        raise DataError(
            f"{section.root}: {len(duplicates)} frame ids are used twice, first '{duplicates[0]}'; ids must differ"
        )
    for name, keys in (("inputs", section.inputs), ("targets", section.targets)):
        # Sparse depth is derived from depth by the loader, unless the data set's own is wanted.
        derived = set() if section.sparse.pattern == "stored" else set(DERIVED)
        missing = sorted(set(keys) - source.keys - derived)
        if missing:
            raise DataError(f"{section.root}: data.{name} wants '{missing[0]}', which this data set lacks")
    _ = source.fingerprint  # takes the size of every file, so that a missing one fails before training, not during it
