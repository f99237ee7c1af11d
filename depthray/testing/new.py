"""`depthray new model|source|loss NAME`: a file of one's own to start from, which passes the contract tests."""

from __future__ import annotations

import argparse
from keyword import iskeyword
from pathlib import Path
from typing import NamedTuple

from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import UsageError

EXAMPLES = Path(__file__).parent / "examples"


class _Example(NamedTuple):
    file: str
    noun: str
    use: str  # of it, in a command line


KINDS = {
    "model": _Example("own_net.py", "network", "model.name={file}"),
    "source": _Example("own_frames.py", "data set form", "data.source={file}"),
    "loss": _Example("own_loss.py", "loss term", "loss.terms.{file}:{name}=0.1"),
}


def main(argv: list[str]) -> int:
    """Write the file and say how it is used and checked."""
    arguments = build_parser().parse_args(argv)
    name, example = arguments.name, KINDS[arguments.kind]
    if not name.isidentifier() or not name.isascii() or iskeyword(name):
        raise UsageError(f"'{name}' is no name of Python; use letters, digits and _, as in my_{arguments.kind}")
    path = Path(f"{name}.py")
    source = EXAMPLES / example.file
    text = source.read_text(encoding="utf-8").replace("THIS_FILE", name).replace(source.stem, name)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists; choose another name or remove it") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; call depthray in a folder of yours") from None
    checked = f"./{path}:{name}" if arguments.kind == "loss" else f"./{path}"
    data = " --data FOLDER" if arguments.kind == "source" else ""
    print(f"written  {path}, a {example.noun}")
    print(f"check    python -m depthray.testing {checked}{data}")
    print(f"train    depthray train demo {example.use.format(file=f'./{path}', name=name)}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray new`."""
    parser = CommandParser(prog="depthray new", description="A file of one's own to start from.")
    parser.add_argument("kind", choices=list(KINDS), help="what it is")
    parser.add_argument("name", help="of the file, without .py; a loss term has this name too")
    return parser
