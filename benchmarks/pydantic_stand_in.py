"""The part of pydantic that sections of a recipe use, for a machine that has PyTorch and not pydantic.

Values are taken as they are written: nothing is checked but the names of keys. `install` is for the recipes that come
with depthray, which tests have checked, and never replaces a pydantic that is there.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
MISSING: Any = object()
_KNOWN: dict[str, dict[str, Any]] = {}  # the fields of a section, by its dotted name


def install() -> bool:
    """Stand in for pydantic where it cannot be imported, in processes to come as well; whether that was so."""
    try:
        importlib.import_module("pydantic")
    except ImportError:
        here = Path(__file__).parent
        folders = [str(here / "stand_in"), str(here)]
        sys.path[:0] = folders
        os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
        sys.modules.pop("pydantic", None)
        importlib.import_module("pydantic")
        return True
    return False


class ValidationError(ValueError):
    """A key that a section does not have."""

    def errors(self) -> list[dict[str, Any]]:
        """One fault, in the form of pydantic's."""
        return [{"type": "value_error", "loc": (), "msg": str(self), "input": None}]


class FieldInfo:
    """What a section says of a key."""

    def __init__(self, default: Any = MISSING, **facts: Any) -> None:
        self.default, self.facts = default, facts
        self.annotation: Any = None


def Field(default: Any = MISSING, **facts: Any) -> Any:  # noqa: N802  # pydantic's name
    """A key with its default; limits and description are not read."""
    return FieldInfo(default, **facts)


def ConfigDict(**settings: Any) -> dict[str, Any]:  # noqa: N802  # pydantic's name
    """The settings of a section."""
    return settings


class Validator:
    """A method of a section that runs before or after its values are set."""

    def __init__(self, method: Any, mode: str) -> None:
        self.method, self.mode = method, mode

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self.method.__get__(instance, owner)


def model_validator(*, mode: str) -> Callable[[Any], Any]:
    """Mark a method as a validator of all values."""
    return lambda method: Validator(method, mode)


def field_validator(*_: str, **__: Any) -> Callable[[T], T]:
    """Leave out a check of one value."""
    return lambda method: method


class _Fields:
    def __get__(self, instance: Any, owner: type[BaseModel]) -> dict[str, FieldInfo]:
        return _fields_of(owner)


class BaseModel:
    """A section: keys by their annotations, defaults from the class."""

    model_config: ClassVar[dict[str, Any]] = {}
    model_fields: ClassVar[Any] = _Fields()

    def __init__(self, **tree: Any) -> None:
        for validator in _validators(type(self), "before"):
            tree = getattr(type(self), validator)(tree)
        fields = _fields_of(type(self))
        extra = {key: value for key, value in tree.items() if key not in fields}
        if extra and self.model_config.get("extra") == "forbid":
            raise ValidationError(f"unknown key '{next(iter(extra))}' of {type(self).__name__}")
        values = {name: tree.get(name, field.default) for name, field in fields.items()}
        if missing := [name for name, value in values.items() if value is MISSING]:
            raise ValidationError(f"{missing[0]} is missing")
        self.__dict__.update({name: _convert(fields[name].annotation, value) for name, value in values.items()})
        self.__dict__.update(extra)
        self.__dict__["model_extra"] = extra
        for validator in _validators(type(self), "after"):
            getattr(self, validator)()

    @classmethod
    def model_rebuild(cls) -> None:
        """Nothing: annotations are read when a section is made."""

    @classmethod
    def model_validate(cls, tree: Any) -> Any:
        """The section of a tree of plain values."""
        return tree if isinstance(tree, cls) else cls(**tree)

    def model_copy(self, *, update: dict[str, Any] | None = None) -> Any:
        """The section with other values of some keys."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.__dict__.update(update or {})
        return copy

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """The tree of plain values."""
        return {name: _plain(value, mode) for name, value in self}

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in self.__dict__.items() if name != "model_extra")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), repr(self.model_dump())))


class TypeAdapter(Generic[T]):
    """A check of a value against a type, left out."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def validate_python(self, value: Any, **_: Any) -> Any:
        """The value itself."""
        return value


OFFERED = (
    *("BaseModel", "ConfigDict", "Field", "TypeAdapter", "ValidationError"),
    *("field_validator", "model_validator"),
)


def _fields_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    name_of_section = f"{section.__module__}.{section.__qualname__}"
    if name_of_section in _KNOWN:
        return _KNOWN[name_of_section]
    fields = {}
    for name, kind in get_type_hints(section).items():  # without the limits of Annotated
        if name in BaseModel.__annotations__ or get_origin(kind) is ClassVar or kind is ClassVar:
            continue
        given = getattr(section, name, MISSING)
        field = given if isinstance(given, FieldInfo) else FieldInfo(given)
        field.annotation = kind
        fields[name] = field
    _KNOWN[name_of_section] = fields
    return fields


def _validators(section: type[BaseModel], mode: str) -> list[str]:
    return [
        name
        for each in reversed(section.__mro__)
        for name, value in vars(each).items()
        if isinstance(value, Validator) and value.mode == mode
    ]


def _convert(kind: Any, value: Any) -> Any:
    """A value as YAML has it -> that of the annotation: sections, tuples for lists, floats for 1e-4, a text in YAML."""
    origin, of = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, dict):
        return kind(**value)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [of[0]] * len(value) if of[1:] == (...,) else of
        return tuple(_convert(each, item) for each, item in zip(kinds, value, strict=True))
    if origin is dict and isinstance(value, dict):
        return {key: _convert(of[1], item) for key, item in value.items()}
    if kind in (float, int, Path) and isinstance(value, str | int) and not isinstance(value, bool):
        return kind(value)
    return value


def _plain(value: Any, mode: str) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode=mode)
    if isinstance(value, list | tuple):
        items = [_plain(each, mode) for each in value]
        return items if mode == "json" else tuple(items)
    if isinstance(value, dict):
        return {key: _plain(each, mode) for key, each in value.items()}
    return value
