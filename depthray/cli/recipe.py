"""`depthray recipe`: the recipes there are, one resolved with a comment on each key, and the JSON schema."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from depthray import models
from depthray.cli.flags.command_parser import CommandParser
from depthray.config import recipe as recipes
from depthray.config.sections import Model, Recipe
from depthray.training import preflight

COMMENT_COLUMN = 34
LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
TYPES = {float: "number", int: "whole number", bool: "true or false", str: "text", inspect.Parameter.empty: "any value"}


def main(argv: list[str]) -> int:
    """List recipes, show one resolved, or print the schema."""
    args = build_parser().parse_args(argv)
    if args.verb == "schema":
        print(json.dumps(Recipe.model_json_schema(), indent=2))
    elif args.verb == "list":
        names = [*recipes.names(), *recipes.originals()]
        width = max(map(len, names)) + 2
        for name in names:
            print(f"{name:<{width}}{preflight.load(name).about}")
    else:
        print("\n".join(commented(preflight.load(args.name, args.overrides))))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray recipe` and its verbs."""
    parser = CommandParser(prog="depthray recipe", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show|schema")
    verbs.add_parser("list", help="the recipes that come with depthray")
    show = verbs.add_parser("show", help="a recipe with every key, its value and its meaning")
    show.add_argument("name", help="name of a recipe or path of its YAML file")
    show.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="changes of the recipe, such as optim.lr=3e-4"
    )
    verbs.add_parser("schema", help="JSON schema of a recipe")
    return parser


def commented(recipe: Recipe) -> Iterator[str]:
    """The lines of a recipe's YAML, each key with its meaning; `depthray train FILE` reads them back."""
    yield from _section(recipe)


def _section(section: BaseModel) -> Iterator[str]:
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            yield f"{key}:  # {_first_sentence(type(value))}"
            yield from (f"  {line}" for line in _section(value))
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield f"{key}:  # {field.description}"
            for each in value:
                first, *rest = _section(each)
                yield from (f"  - {first}", *(f"    {line}" for line in rest))
        else:
            yield _line(key, value, field.description or "")
    if isinstance(section, Model):
        yield from _model_options(section)


def _model_options(section: Model) -> Iterator[str]:
    for key, parameter in models.option_parameters(section, where="recipe").items():
        value = section.options.get(key, parameter.default)
        yield _line(key, value, f"{type_text(parameter.annotation)}; option of {section.name}")


def type_text(annotation: Any) -> str:
    """The type of an option in words: number above 0; one of 18, 34; text."""
    if get_origin(annotation) is Annotated:
        kind, *extras = get_args(annotation)
        limits = [limit for extra in extras for limit in getattr(extra, "metadata", [extra])]
        words = [
            f"{word} {getattr(limit, name):g}"
            for limit in limits
            for name, word in LIMITS.items()
            if getattr(limit, name, None) is not None
        ]
        return " ".join([type_text(kind), " and ".join(words)]).strip()
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(annotation)))}"
    if get_args(annotation):
        return " or ".join(type_text(each) for each in get_args(annotation) if each is not ...)
    if annotation is type(None):
        return "none"
    return TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _line(key: str, value: Any, comment: str) -> str:
    # Wide, so that a value stays on the line of its key.
    written = yaml.safe_dump(_plain(value), default_flow_style=True, width=1000, allow_unicode=True)
    text = f"{key}: {written.removesuffix('...' + chr(10)).strip()}"  # YAML ends a single value with "..."
    return f"{text:<{COMMENT_COLUMN}}  # {comment}" if comment else text


def _plain(value: Any) -> Any:
    """A value with lists where it has tuples, which YAML does not know."""
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


def _first_sentence(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().split("\n")[0].rstrip(".")
