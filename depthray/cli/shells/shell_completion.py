"""`depthray shell-completion bash|zsh|fish`: the script by which a shell completes this command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from pydantic import BaseModel

from depthray.cli.flags.command_parser import CommandParser
from depthray.cli.shells.completed_words import Command, keys_of, places
from depthray.cli.shells.shell_scripts import SHELLS

INSTALL = """where to put it:
  bash   depthray shell-completion bash > ~/.local/share/bash-completion/completions/depthray
  zsh    depthray shell-completion zsh > ~/.zfunc/_depthray   (fpath+=~/.zfunc before compinit in ~/.zshrc)
  fish   depthray shell-completion fish > ~/.config/fish/completions/depthray.fish

It completes commands, flags, recipes and override keys, and starts no Python when a key is pressed. Write it anew after
an update of depthray."""


def main(
    argv: list[str], load: Callable[[], tuple[Mapping[str, Command], Mapping[str, type[BaseModel]]]] | None = None
) -> int:
    """Print the script. `load` gives the commands and what their overrides change; it is slow, so called last."""
    arguments = build_parser().parse_args(argv)
    assert load, "the table of commands is in depthray.__main__"
    commands, roots = load()
    print(SHELLS[arguments.shell](places(commands), {name: keys_of(root) for name, root in roots.items()}), end="")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray shell-completion`."""
    parser = CommandParser(
        prog="depthray shell-completion",
        description="Print the script by which a shell completes the words of depthray.",
        epilog=INSTALL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=list(SHELLS), help="which shell the script is for")
    return parser
