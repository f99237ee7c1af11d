"""What can be completed on the command line: verbs, flags, recipes and override keys, read from the parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from depthray import models
from depthray.config import recipe as recipes
from depthray.config.key_names import leaf_keys
from depthray.config.sections import Recipe
from depthray.data import sources
from depthray.evaluation.protocols import PROTOCOLS


class Flag(NamedTuple):
    """A flag of a command."""

    name: str
    about: str
    takes_value: bool
    values: tuple[str, ...] = ()  # none: any value, completed as a file


class Place(NamedTuple):
    """What may follow `depthray COMMAND` or `depthray COMMAND VERB`."""

    words: dict[str, str]  # verbs, recipes, choices, with their meaning
    flags: tuple[Flag, ...]
    keys: str = ""  # the table of override keys, "recipe" or "settings"
    takes_files: bool = False


class Command(NamedTuple):
    """A command of the table: its meaning, its parser, and what its overrides change."""

    about: str
    parser: argparse.ArgumentParser
    keys: str = "recipe"


Places = dict[str, Place]  # by what stands before the cursor: "", "train", "data pack"
Keys = dict[str, tuple[str, ...]]  # values by override key, none where any is allowed


def places(commands: Mapping[str, Command]) -> Places:
    """All places of a command line. `commands` has verbs without a parser of argparse as "serve promote"."""
    known: Places = {"": Place({name: each.about for name, each in commands.items() if " " not in name}, _GENERAL)}
    for name, command in commands.items():
        known |= dict(_places_of(name, command.parser, command.keys))
    for name, command in commands.items():
        parent, _, verb = name.rpartition(" ")
        if parent and verb not in known[parent].words:
            known[parent].words[verb] = command.about
    return known


_GENERAL = (Flag("--help", "the commands", False), Flag("--version", "the version", False))


def _places_of(name: str, parser: argparse.ArgumentParser, keys: str) -> Iterator[tuple[str, Place]]:
    words: dict[str, str] = {}
    flags: list[Flag] = []
    is_file = False
    overrides = bool(parser.get_default("takes_overrides"))
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            abouts = {each.dest: each.help or "" for each in action._choices_actions}
            for verb, below in action.choices.items():
                words[verb] = abouts.get(verb, "")
                yield from _places_of(f"{name} {verb}", below, keys)
        elif action.option_strings:
            flags.append(_flag(action))
        elif action.choices:
            words |= dict.fromkeys(map(str, action.choices), action.help or "")
        elif action.dest == "recipe" or (name, action.dest) == ("recipe show", "name"):
            words |= dict.fromkeys([*recipes.names(), *recipes.originals()], "recipe")
        else:
            overrides |= "key=value" in str(action.metavar)
            is_file |= action.dest != "overrides"
    yield name, Place(words, tuple(flags), keys if overrides else "", is_file)


def _flag(action: argparse.Action) -> Flag:
    # Of an abbreviated flag the long form, which says what it does.
    name = max(action.option_strings, key=len)
    values = tuple(map(str, action.choices or ()))
    if action.dest == "recipe":
        values = tuple(recipes.names())
    about = (action.help or "").replace("%%", "%")
    return Flag(name, about, action.nargs != 0, values)


def keys_of(root: type[BaseModel]) -> Keys:
    """The dotted override keys of a recipe or of settings, with their values where these are a short list."""
    found: Keys = {key: _values(kind) for key, kind in leaf_keys(root)}
    if root is Recipe:
        found |= {"model.name": tuple(models.names()), "data.source": tuple(sources.names())}
        found |= {"eval.protocol": tuple(PROTOCOLS)}
    return found


def _values(kind: object) -> tuple[str, ...]:
    if kind is bool:
        return ("true", "false")
    literals = [each for each in (kind, *get_args(kind)) if get_origin(each) is Literal]
    return tuple(str(value) for each in literals for value in get_args(each) if value not in ("", None))
