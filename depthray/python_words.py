"""The commands as functions of Python: keywords as flags, and in errors a keyword for each flag that is named."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from depthray.errors import DepthrayError

P = ParamSpec("P")
T = TypeVar("T")

KEYWORDS = {"from": "start"}  # of flags whose names are no keywords: `from` is a word of Python
_FLAG = re.compile(r"--([a-z]+(?:-[a-z]+)*)(?:[ =]((?:[A-Z0-9./~]|\w+://)[^\s,;)]*))?")
_FIRST = re.compile(r"^--([a-z]+(?:-[a-z]+)*) ([^\s:,;]+)(?=:)")  # "--to onnx: ...": whatever it is, it is a value
_ASIDE = re.compile(r" \(in Python [^)]*\)")


def speaks_python(function: Callable[P, T]) -> Callable[P, T]:
    """Raise errors of a function, whose keywords are flags of a command, by these keywords."""
    keywords = keywords_of(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with in_keywords(keywords):
            return function(*args, **kwargs)

    return call


def flags_of(values: Mapping[str, Any]) -> list[str]:
    """A command's flags by name. True is a flag alone, several values follow one; None, False and () leave it out."""
    words: list[str] = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, list | tuple):
            words += [flag, *map(_text, value)] if value else []
        elif value is not None and value is not False:
            words.append(f"{flag}={_text(value)}")  # with a "=", since a value could begin with a dash
    return words


def _text(value: Any) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def keywords_of(function: Callable[..., object]) -> dict[str, bool]:
    """Keyword of a function -> whether it is True or False."""
    return {name: isinstance(each.default, bool) for name, each in inspect.signature(function).parameters.items()}


@contextmanager
def in_keywords(keywords: Mapping[str, bool]) -> Iterator[None]:
    """Raise errors with keywords in place of flags."""
    try:
        yield
    except DepthrayError as error:
        error.args = (translate(str(error), keywords), *error.args[1:])
        raise


def translate(text: str, keywords: Mapping[str, bool]) -> str:
    """A message with `out=PATH` for `--out PATH` and `resume=True` for `--resume`, of the keywords of a function."""

    def keyword(match: re.Match[str]) -> str:
        name = KEYWORDS.get(match[1], match[1]).replace("-", "_")
        if name not in keywords:
            return match[0]
        value = (match[2] or "").rstrip(".:")  # of the sentence
        return f"{name}={'True' if keywords[name] else value}{(match[2] or '')[len(value) :]}"

    translated = _FLAG.sub(keyword, _FIRST.sub(keyword, text))
    return _ASIDE.sub("", translated) if translated != text else text
