"""Code of one's own, outside of depthray: from a name in a recipe to the object that it means.

Four keys of a recipe take such names: `model.name`, `data.source`, `loss.terms` and `eval.protocol`. A name is

    mypkg.net              a module that Python finds, or that is in the current folder
    ./net.py               a file, which imports installed packages only: it is copied into checkpoints and to workers
    mypkg.losses.mine      an object of a module; of a file ./losses.py:mine
    mine                   an entry point of an installed package, in the groups of `KINDS`

A recipe can come from a stranger's checkpoint, so nothing is imported unless the user named it: `resolve` refuses what
was not given to `allow` before, by name, or for files by the SHA-256 of the content. Recipes and overrides of a command
line are allowed when they are read, those of checkpoints where `--trust` is given; see `admit`.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from depthray.config import own_modules
from depthray.config.own_modules import digest_of
from depthray.config.sections import DataSet, Loss, Recipe
from depthray.errors import DepthrayError, UsageError, did_you_mean


class Kind(NamedTuple):
    """One of the things that own code can be."""

    noun: str
    key: str  # of the recipe
    group: str  # of entry points
    member: str  # what a module must have; "": the name ends with it


MODEL = Kind("architecture", "model.name", "depthray.models", "build")
SOURCE = Kind("data set form", "data.source", "depthray.sources", "open_source")
LOSS = Kind("loss term", "loss.terms", "depthray.losses", "")
PROTOCOL = Kind("protocol", "eval.protocol", "depthray.protocols", "")
KINDS = {"model": MODEL, "source": SOURCE, "loss": LOSS, "protocol": PROTOCOL}


@dataclass(frozen=True)
class CodeRecord:
    """Own code of a run, as the manifest of a checkpoint has it."""

    key: str
    name: str  # as in the recipe
    sha256: str  # of the file of the module
    file: str = ""  # its copy in the checkpoint; "" for a module, which is not copied


class SharedCode(NamedTuple):
    """What a process was allowed, for its workers."""

    names: tuple[str, ...]
    files: dict[str, bytes]
    path: tuple[str, ...]  # folders in which modules are found
    everything: bool


class _Allowed:
    """What the user of this process has named."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.files: dict[str, bytes] = {}  # name of a file -> its content when it was named
        self.digests: set[str] = set()  # of such contents
        self.modules: dict[str, str] = {}  # module -> SHA-256 of its file when it was imported
        self.objects: dict[tuple[Kind, str], Any] = {}  # what names mean, found once
        self.everything = False
        self.refused: dict[str, str] = {}  # name -> why a checkpoint's module was not allowed


_allowed = _Allowed()


def is_own(name: str) -> bool:
    """Whether a name is that of a module or a file, which no name of depthray or of an entry point looks like."""
    return "." in name or "/" in name or ":" in name


def is_file(name: str) -> bool:
    """Whether a name is that of a file, with or without an object in it."""
    path = name.partition(".py:")[0]
    return is_own(name) and ("/" in name or path != name or name.endswith(".py"))


def file_of(name: str) -> Path:
    """The path of the name of a file, without the object in it."""
    return _split_file(name)[0]


def short_name(name: str) -> str:
    """A name for people: of a file without its folder."""
    return name.rpartition("/")[2]


def entry_points(kind: Kind) -> dict[str, str]:
    """Name -> module or module:object, of the installed packages that offer code of this kind."""
    return {point.name: point.value for point in metadata.entry_points(group=kind.group)}


def is_of(kind: Kind, name: str) -> bool:
    """Whether a name is one of one's own code, of an entry point too."""
    return is_own(name) or name in entry_points(kind)


def names_in(recipe: Recipe) -> list[tuple[Kind, str]]:
    """The own code that a recipe names, but for entry points."""
    named = [(MODEL, recipe.model.name), (SOURCE, recipe.data.source), (PROTOCOL, recipe.eval.protocol)]
    named += [(LOSS, name) for name in recipe.loss.terms]
    for each in recipe.data.sets:  # those of weight 0 too: an override may use them
        named += [(SOURCE, each.source), (PROTOCOL, each.protocol)]
        named += [(LOSS, name) for name in (each.loss.terms if each.loss else ())]
    return [(kind, name) for kind, name in dict.fromkeys(named) if is_own(name)]


def allow(names: Iterable[str]) -> None:
    """Let `resolve` import these: modules and files that the user has named. What does not exist, `resolve` reports."""
    for name in names:
        if not is_own(name):
            continue
        _allowed.names.add(name)
        for key in [key for key in _allowed.objects if key[1] == name]:
            del _allowed.objects[key]  # a file may have changed
        if is_file(name):
            path = _split_file(name)[0]
            if path.is_file() and path.stat().st_size <= own_modules.MAX_BYTES:
                _remember(str(path), path.read_bytes())  # again, as it may have changed since it was named before
        elif os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # last: nothing that is installed is hidden by a file here


def allow_everything() -> None:
    """Allow all that runs and checkpoints name, for a command with `--trust` that resumes one or starts from one."""
    _allowed.everything = True


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """With `trust`, `allow_everything` inside the block alone: a function's trust is not that of its whole process."""
    before = _allowed.everything
    _allowed.everything |= trust
    try:
        yield
    finally:
        _allowed.everything = before


def share() -> SharedCode:
    """All that was allowed here, for `receive` in another process, perhaps in another folder or on another node."""
    allowed = _allowed
    roots = {own_modules.root_of(name.partition(":")[0]) for name in allowed.names if not is_file(name)}
    return SharedCode(
        tuple(sorted(allowed.names)), dict(allowed.files), tuple(sorted(roots - {""})), allowed.everything
    )


def receive(shared: Sequence[Any]) -> None:
    """Allow what the process that started this one was allowed."""
    names, files, path, everything = shared
    _allowed.everything |= everything
    _allowed.names.update(names)
    for name, content in files.items():
        _remember(name, content)
    sys.path.extend(folder for folder in path if folder not in sys.path)


def resolve(kind: Kind, name: str, *, where: str) -> Any:
    """The object of a name: of a module its `build` or `open_source`. Raises UsageError where that cannot be had."""
    if (kind, name) not in _allowed.objects:  # loss terms are asked for at every step
        _allowed.objects[kind, name] = _resolve(kind, name, f"{where}: {kind.key}={name}")
    return _allowed.objects[kind, name]


def _resolve(kind: Kind, name: str, label: str) -> Any:
    target = name
    if is_own(name):
        _refuse_unnamed(name, label)
    elif not (target := entry_points(kind).get(name, "")):
        raise UsageError(f"{label}: no {kind.noun} '{name}'{did_you_mean(name, entry_points(kind))}")
    module_name, member = _split(kind, target, label)
    if is_file(target):
        module = _load_file(Path(module_name), label)
    else:
        module = own_modules.import_named(module_name, label)
        _allowed.modules.setdefault(module_name, digest_of(own_modules.content_of(module_name)))
    try:
        return getattr(module, member)
    except AttributeError:
        known = [key for key, value in vars(module).items() if callable(value) or kind is PROTOCOL]
        near = own_modules.near(member, [key for key in known if not key.startswith("_")])
        what = f"a module with a function '{kind.member}'" if kind.member else "an object of a module or a file"
        raise UsageError(f"{label}: has no '{member}'{near}; {kind.key} names {what}, see docs/own-code.md") from None


def open_module(name: str, *, where: str) -> tuple[Any, str]:
    """The module of a name whose kind is not known, and the object that the name ends with, "" for none."""
    _refuse_unnamed(name, where)
    if is_file(name):
        path, member = _split_file(name)
        return _load_file(path, where), member
    module_name, _, member = name.partition(":")
    if not member and own_modules.find(module_name) is None and own_modules.find(name.rpartition(".")[0]):
        module_name, _, member = name.rpartition(".")
    return own_modules.import_named(module_name, where), member


def check_call(function: Any, *arguments: Any, label: str, form: str, **options: Any) -> None:
    """Raise UsageError unless a function can be called so; `form` is how it should look."""
    try:
        inspect.signature(function).bind(*arguments, **options)
    except (TypeError, ValueError) as error:  # ValueError: of functions of C, which do not say
        raise UsageError(f"{label}: wrong signature ({error}); write {form}") from None


@contextmanager
def one_line(what: str, *, own: bool) -> Iterator[None]:
    """Raise what own code raises as a UsageError of one line, with the place; errors of depthray stay as they are."""
    try:
        yield
    except DepthrayError:
        raise
    except Exception as error:
        if not own:
            raise
        raise UsageError(f"{what}: {own_modules.fault_line(error)}") from error


def records(recipe: Recipe) -> tuple[tuple[CodeRecord, bytes], ...]:
    """The own code of a recipe with the content of its files, b"" for modules; for its checkpoints."""
    return tuple(_record(kind, name) for kind, name in names_in(recipe))


def admit(recipe: Recipe, code: Sequence[CodeRecord], folder: Path, *, trust: bool) -> Recipe:
    """The recipe of a checkpoint with the copies in its folder in place of files that it names; nothing is imported.

    With `trust` its code is allowed. Without, only modules that Python finds for the user anyway, not in the current
    folder, and that are byte for byte those the checkpoint was trained with; and files that the user has named here.
    """
    known = {record.name: record for record in code}
    trust = trust or _allowed.everything
    renamed = {}
    for kind, name in names_in(recipe):
        record = known.get(name)
        if record is None:
            _allowed.refused.setdefault(name, "the checkpoint has no record of it")
        elif is_file(name) and not record.file:
            _allowed.refused[name] = "the checkpoint has no copy of it"
        elif record.file:
            object_name = _split_file(name)[1]
            renamed[name] = f"{folder / record.file}{f':{object_name}' if object_name else ''}"
            _allowed.digests.update([record.sha256] if trust else [])
        elif trust:
            allow([name])
        elif fault := own_modules.difference(*_split(kind, name, kind.key), record.sha256):
            _allowed.refused[name] = fault
        else:
            _allowed.names.add(name)
    return _rename(recipe, renamed) if renamed else recipe


def _rename(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    def new(name: str) -> str:
        return names.get(name, name)

    def new_terms(loss: Loss) -> Loss:
        return loss.model_copy(update={"terms": {new(name): weight for name, weight in loss.terms.items()}})

    def new_set(each: DataSet) -> DataSet:
        loss = new_terms(each.loss) if each.loss else None
        return each.model_copy(update={"source": new(each.source), "protocol": new(each.protocol), "loss": loss})

    sets = tuple(new_set(each) for each in recipe.data.sets)
    sections = {
        "model": recipe.model.model_copy(update={"name": new(recipe.model.name)}),
        "data": recipe.data.model_copy(update={"source": new(recipe.data.source), "sets": sets}),
        "loss": new_terms(recipe.loss),
        "eval": recipe.eval.model_copy(update={"protocol": new(recipe.eval.protocol)}),
    }
    return recipe.model_copy(update=sections)


def _refuse_unnamed(name: str, label: str) -> None:
    if name in _allowed.names or _allowed.everything:
        return
    if is_file(name):
        path = _split_file(name)[0]
        if str(path) in _allowed.files or (path.is_file() and digest_of(path.read_bytes()) in _allowed.digests):
            return
    fault = _allowed.refused.get(name, "")
    raise UsageError(
        f"{label}: is code that comes with the model{f' ({fault})' if fault else ''}, which could do anything here; "
        "add --trust (in Python trust=True) if you know who wrote it"
    )


def _split(kind: Kind, name: str, label: str) -> tuple[str, str]:
    """(module or file, object in it) of a name."""
    if is_file(name):
        path, member = _split_file(name)
        module_name = str(path)
    elif ":" in name:
        module_name, _, member = name.partition(":")
    else:
        module_name, _, member = (name, "", "") if kind.member else name.rpartition(".")
    if kind.member and member not in ("", kind.member):
        raise UsageError(f"{label}: {kind.key} is a module or a file, whose function '{kind.member}' is called")
    if not (member or kind.member):
        raise UsageError(f"{label}: which object of the file? write {name}:NAME")
    return module_name, member or kind.member


def _split_file(name: str) -> tuple[Path, str]:
    path, colon, member = name.rpartition(":")
    return (Path(path), member) if colon and path.endswith(".py") else (Path(name), "")


def _remember(name: str, content: bytes) -> None:
    _allowed.files[name] = content
    _allowed.digests.add(digest_of(content))


def _load_file(path: Path, label: str) -> Any:
    content = _allowed.files.get(str(path))
    if content is None:
        content = own_modules.read_file(path, label)
        if digest_of(content) not in _allowed.digests and not _allowed.everything:
            raise UsageError(f"{label}: {path} has changed since it was allowed; try again")
    return own_modules.load_content(path, content, label)


def _record(kind: Kind, name: str) -> tuple[CodeRecord, bytes]:
    if not is_file(name):
        module_name, _ = _split(kind, name, kind.key)
        digest = _allowed.modules.get(module_name) or digest_of(own_modules.content_of(module_name))
        return CodeRecord(kind.key, name, digest), b""
    path, _ = _split_file(name)
    content = _allowed.files.get(str(path)) or path.read_bytes()
    digest = digest_of(content)
    return CodeRecord(kind.key, name, digest, f"code-{own_modules.identifier(path)}-{digest[:12]}.py"), content
