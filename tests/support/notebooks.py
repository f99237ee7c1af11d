"""The notebooks of examples/, read and run without Jupyter: cells in order, in one namespace of this process."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from paths import ROOT

from depthray.__main__ import main

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SHELL = re.compile(r"^(\s*)!(depthray .*)$", re.MULTILINE)  # a command line, as IPython has it
PARAMETERS = "parameters"  # the tag of the cell that others, such as papermill, override too


class Cell(NamedTuple):
    """A cell of a notebook: code as Python, in which `!depthray ...` is a call of `_shell`."""

    kind: str
    text: str
    tags: list[str]


def cells(notebook: Path) -> list[Cell]:
    """All cells, Markdown too."""
    read = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [
        Cell(
            each["cell_type"],
            SHELL.sub(lambda line: f"{line[1]}_shell(f{line[2]!r})", "".join(each["source"])),
            each["metadata"].get("tags", []),
        )
        for each in read
    ]


def run(notebook: Path, **parameters: Any) -> dict[str, Any]:
    """Run a notebook with other values of its parameters; returns its variables, and `shown`, what cells ended with."""
    variables: dict[str, Any] = {"_shell": _shell, "shown": []}
    for cell in cells(notebook):
        if cell.kind != "code":
            continue
        tree = ast.parse(cell.text)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, notebook.name, "exec"), variables)  # noqa: S102 - it is a file of this repository
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), notebook.name, "eval"), variables)  # noqa: S307
            for name in ("_repr_html_", "_repr_png_"):  # what a notebook asks for
                getattr(shown, name, str)()
            variables["shown"].append(shown)
        if PARAMETERS in cell.tags:
            assert set(parameters) <= set(variables), "no such parameter"
            variables |= parameters
    return variables


def _shell(line: str) -> None:
    _, *argv = shlex.split(line)
    assert main(argv) == 0, line
