"""`depthray models`: every architecture and named variant, its inputs and outputs, and the recipes that use it.

Networks are built without memory for their weights (PyTorch's meta device), so that the table takes seconds.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray import models
from depthray.cli.flags.command_parser import CommandParser
from depthray.config import recipe as recipes
from depthray.config.sections import Model
from depthray.training import preflight

if TYPE_CHECKING:
    from rich.table import Table

SIDE = 224  # pixels a side of the image that output sizes are given for
WIDTH = 120  # characters a line where the output is no terminal


class ModelRow(NamedTuple):
    """One architecture, or one named variant of it."""

    architecture: str
    variant: str  # "" = with the defaults of its build function
    options: dict[str, Any]
    inputs: list[str]
    stride: int
    output: list[int]  # height, width for an image of SIDE x SIDE
    parameters: int
    recipes: list[str]
    about: str


def main(argv: list[str]) -> int:
    """Print the table, or the same as JSON."""
    arguments = build_parser().parse_args(argv)
    listed = rows()
    if arguments.json:
        print(json.dumps([row._asdict() for row in listed], indent=2))
    else:
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        console.print(table(listed))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray models`."""
    parser = CommandParser(prog="depthray models", description="Architectures and their named variants.")
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def rows() -> list[ModelRow]:
    """A row for each architecture of the folder and each of its variants."""
    users = _users()
    return [
        _row(name, variant, users.get((name, variant), []))
        for name in models.names()
        for variant in ["", *variants_of(name)]
    ]


def variants_of(name: str) -> dict[str, dict[str, Any]]:
    """Variant -> its options, as the architecture's module names them."""
    return getattr(import_module(f"depthray.models.{name}"), "VARIANTS", {})


def table(listed: list[ModelRow]) -> Table:
    """The rows for a terminal."""
    from rich.box import SIMPLE
    from rich.table import Table

    shown = Table(box=SIMPLE, pad_edge=False)
    shown.add_column("architecture, variant", no_wrap=True)
    for title in ("options", "inputs"):
        shown.add_column(title, overflow="fold")
    for title in ("stride", f"at {SIDE}²", "parameters"):
        shown.add_column(title, justify="right", no_wrap=True)
    shown.add_column("recipes", no_wrap=True)  # names to copy
    for row in listed:
        shown.add_row(*_cells(row))
    return shown


def _cells(row: ModelRow) -> list[str]:
    options = [f"{key}={json.dumps(value)}".replace('"', "") for key, value in row.options.items()]
    return [
        *(f"  {row.variant}" if row.variant else row.architecture, " ".join(options), ", ".join(row.inputs)),
        *(str(row.stride), "x".join(str(side) for side in row.output), f"{row.parameters:,}"),
        "\n".join(row.recipes),
    ]


def _row(name: str, variant: str, users: list[str]) -> ModelRow:
    import torch

    module = import_module(f"depthray.models.{name}")
    options = variants_of(name)[variant] if variant else {}
    with torch.device("meta"):
        network: Any = models.build_model(Model(name=name, **options), _defaults(name)["inputs"])
    side = math.ceil(SIDE / getattr(network, "reduction", 1))  # networks that predict fewer pixels have it
    parameters = sum(parameter.numel() for parameter in network.parameters())
    about = (module.__doc__ or "").split("\n")[0]
    return ModelRow(
        name, variant, options, list(network.inputs), network.stride, [side, side], parameters, users, about
    )


def _users() -> dict[tuple[str, str], list[str]]:
    """(architecture, variant) -> the recipes that use it; the variant with the most options in common."""
    users: dict[tuple[str, str], list[str]] = {}
    for name in recipes.names():
        section = preflight.load(name).model
        users.setdefault((section.name, _variant(section)), []).append(name)
    return users


def _variant(section: Model) -> str:
    """The name of the variant a model section is, "" if none."""
    whole = _defaults(section.name) | section.options
    fitting = {
        variant: len(options)
        for variant, options in variants_of(section.name).items()
        if options.items() <= whole.items()
    }
    return max(fitting, key=lambda variant: fitting[variant], default="")


def _defaults(name: str) -> dict[str, Any]:
    """Option -> its default, and the inputs that an architecture has by default."""
    build = import_module(f"depthray.models.{name}").build
    return {key: parameter.default for key, parameter in inspect.signature(build).parameters.items()}
