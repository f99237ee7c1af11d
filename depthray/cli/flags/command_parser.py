"""The parser of every command: what argparse refuses is one line, as all other mistakes are, with the nearest flag."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from typing import NoReturn

from depthray.config.key_names import nearest_key
from depthray.config.sections import Recipe
from depthray.errors import UsageError

REQUIRED = "the following arguments are required: "
NO_CHOICE = re.compile(r"invalid choice: '?(?P<given>[^' ]*)'? \(choose from (?P<known>.*)\)")


class CommandParser(argparse.ArgumentParser):
    """An argparse parser whose `error` raises UsageError instead of printing its usage and leaving the process."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # argparse's own
        """As argparse's, but for an empty argument: as a path it would be the working directory."""
        if args is not None and "" in args:
            self.error("an argument is empty, perhaps a variable of the shell that is not set")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message, and what was probably meant."""
        raise UsageError(f"{self._without_optional(message)}{self._hint(message)}; see {self.prog} --help")

    def _without_optional(self, message: str) -> str:
        """The message without the arguments that may be left out, which argparse lists among the required ones."""
        start, names = REQUIRED, message.removeprefix(REQUIRED).split(", ")
        optional = {action.metavar or action.dest for action in self._actions if action.nargs in ("*", "?")}
        kept = [name for name in names if name not in optional]
        return start + ", ".join(kept) if message.startswith(REQUIRED) and kept else message

    def _hint(self, message: str) -> str:
        if found := NO_CHOICE.search(message):
            near = get_close_matches(found["given"], re.findall(r"[\w.-]+", found["known"]), n=1)
            return f" (did you mean '{near[0]}'?)" if near else ""
        if not message.startswith(("unrecognized arguments: ", "unknown argument ")):
            return ""
        unknown = [text for text in message.replace("'", " ").split() if text.startswith("--")]
        return self._hint_of_flag(unknown[0].partition("=")[0]) if unknown else ""

    def _hint_of_flag(self, flag: str) -> str:
        """What was meant by a flag that does not exist: another flag, or a key of the recipe."""
        parsers = [self, *self._subparsers_of()]
        takes_overrides = any(
            parser.get_default("takes_overrides") or any(action.dest == "overrides" for action in parser._actions)
            for parser in parsers
        )
        name = flag.removeprefix("--")
        if any(name == action.dest and not action.option_strings for parser in parsers for action in parser._actions):
            return f" ({name.upper()} is given without a flag)"
        if takes_overrides and (key := nearest_key(name, Recipe, exact=True)):
            return f" (did you mean the override {key}=VALUE?)"
        flags = [option for parser in parsers for action in parser._actions for option in action.option_strings]
        if near := get_close_matches(flag, flags, n=1, cutoff=0.7):
            return f" (did you mean '{near[0]}'?)"
        if takes_overrides and (key := nearest_key(name, Recipe)):
            return f" (did you mean the override {key}=VALUE?)"
        return ""

    def _subparsers_of(self) -> list[argparse.ArgumentParser]:
        groups = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return [parser for group in groups for parser in group.choices.values()]
