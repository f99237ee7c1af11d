"""The first fault that pydantic reports of a tree of settings, as one line that names the key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from depthray.config.key_names import suggest_key
from depthray.errors import did_you_mean


def first_fault(error: ValidationError, root: type[BaseModel]) -> str:
    """The first fault of a tree that was checked against `root`, with the nearest known key or choice as a hint."""
    fault = error.errors()[0]
    first, *rest = _keys(fault["loc"], root) or [""]
    key = f"{first}{''.join(f'[{part}]' if isinstance(part, int) else f'.{part}' for part in rest)}"
    if fault["type"] == "extra_forbidden":
        *parents, last = map(str, fault["loc"])
        return f"unknown key '{key}'{suggest_key(last, _section_at(root, parents), root)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message  # raised by a validator of ours, which names the keys it compared
    if plain := _plain_message(fault, key):
        return plain
    return f"{key}={fault['input']!r}: {message[0].lower()}{message[1:]}{_nearest_choice(fault)}{_size_hint(fault)}"


def _plain_message(fault: Any, key: str) -> str:
    """A message for faults that pydantic describes by its own classes; "" for all others."""
    if fault["type"] == "model_type":
        return f"{key}={fault['input']!r}: {key} is a section; give its keys, {key}.KEY=VALUE"
    if fault["type"] == "too_short":
        return f"{key} is empty; give at least {fault['ctx']['min_length']} value"
    if fault["type"] == "missing":
        return f"{key} is missing; its list has {fault['input']!r}"
    return ""


def _size_hint(fault: Any) -> str:
    """How to write a size, for one written as `64x96`."""
    match = re.fullmatch(r"(\d+) ?[xX*] ?(\d+)", str(fault["input"])) if fault["type"] == "tuple_type" else None
    return f"; write height,width: {match[1]},{match[2]}" if match else ""


def _keys(path: tuple[int | str, ...], root: type[BaseModel]) -> list[str | int]:
    """A fault's path without the names of types that pydantic adds where several are allowed."""
    keys: list[str | int] = []
    section: Any = root
    for part in path:
        fields = getattr(section, "model_fields", {})
        if fields or isinstance(part, int):
            keys.append(part)
        section = fields[part].annotation if part in fields else None
    return keys


def _nearest_choice(fault: Any) -> str:
    if fault["type"] != "literal_error":
        return ""
    choices = [choice.strip("' ") for choice in fault["ctx"]["expected"].replace(" or ", ",").split(",")]
    near = did_you_mean(str(fault["input"]), choices)
    # pydantic's own message lists all choices already; only a near one adds anything.
    return near if "did you mean" in near else ""


def _section_at(root: type[BaseModel], path: Iterable[str]) -> type[BaseModel]:
    """The class of the section at a path of keys below `root`."""
    section = root
    for part in path:
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel), path
        section = annotation
    return section
