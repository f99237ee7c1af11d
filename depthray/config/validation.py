"""The first fault that pydantic reports of a tree of settings, as one line that names the key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from depthray.config.key_names import section_in, suggest_key
from depthray.errors import did_you_mean


def first_fault(error: ValidationError, root: type[BaseModel]) -> str:
    """The first fault of a tree that was checked against `root`, with the nearest known key or choice as a hint."""
    faults = [(each, _keys(each["loc"], root)) for each in error.errors()]
    # Where several types are allowed each has a fault, and the type that was meant is the one that fits deepest.
    of_key = [(each, keys) for each, keys in faults if keys[: len(faults[0][1])] == faults[0][1]]
    fault, keys = max(of_key, key=lambda each: len(each[1]))
    first, *rest = keys or [""]
    # The number of a section is a part of its key, as overrides write it; that of a value in a list is not.
    last_name = max((place for place, part in enumerate(rest) if isinstance(part, str)), default=-1)
    parts = [f".{part}" if place <= last_name else f"[{part}]" for place, part in enumerate(rest)]
    key = f"{first}{''.join(parts)}"
    if fault["type"] == "extra_forbidden":
        *parents, last = keys
        return f"unknown key '{key}'{suggest_key(str(last), _section_at(root, parents), root)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        # Raised by a validator of ours, which names the keys it compared; not of which of several sections they are.
        return f"{key}: {message}" if any(isinstance(part, int) for part in keys) else message
    if plain := _plain_message(fault, key):
        return plain
    return f"{key}={fault['input']!r}: {message[0].lower()}{message[1:]}{_nearest_choice(fault)}{_size_hint(fault)}"


def _plain_message(fault: Any, key: str) -> str:
    """A message for faults that pydantic describes by its own classes; "" for all others."""
    if fault["type"] == "model_type":
        return f"{key}={fault['input']!r}: {key} is a section; give its keys, {key}.KEY=VALUE"
    if fault["type"] == "tuple_type" and key == "data.sets":
        return f"{key} is a list of data sets; name the keys of one by its number, data.sets.0.KEY=VALUE"
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
        if part in fields:
            section = section_in(fields[part].annotation)
        elif not (isinstance(part, int) and section):  # a number is of one of several sections
            section = None
    return keys


def _nearest_choice(fault: Any) -> str:
    if fault["type"] != "literal_error":
        return ""
    choices = [choice.strip("' ") for choice in fault["ctx"]["expected"].replace(" or ", ",").split(",")]
    near = did_you_mean(str(fault["input"]), choices)
    # pydantic's own message lists all choices already; only a near one adds anything.
    return near if "did you mean" in near else ""


def _section_at(root: type[BaseModel], path: Iterable[str | int]) -> type[BaseModel]:
    """The class of the section at a path of keys below `root`."""
    section = root
    for part in path:
        if isinstance(part, str):
            inner = section_in(section.model_fields[part].annotation)
            assert inner, path
            section = inner
    return section
