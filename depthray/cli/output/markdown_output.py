"""Reports in Markdown on the standard output: as they are in a file or pipe, as tables that fit on a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # rich takes a tenth of a second to import, which files and --help do without
    from rich.console import RenderableType
    from rich.table import Table

PIPE = re.compile(r"(?<!\\)\|")  # not one that belongs to a cell
FRAME = 3  # letters that a column of a rich table takes beside its text
Cells = Sequence[str]


def print_markdown(text: str) -> None:
    """Print a report."""
    if not sys.stdout.isatty():
        print(text)
        return
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    for part in render(text, width=console.width):
        console.print(part)


def render(text: str, *, width: int) -> Iterator[RenderableType]:
    """The parts of a report for a terminal: headings, paragraphs, tables of which none is wider than the terminal."""
    from rich.text import Text

    for is_table, lines in groupby(text.splitlines(), key=lambda line: line.startswith("|")):
        if is_table:
            yield from _tables(list(lines), width=width)
            continue
        for line in lines:
            heading = re.match(r"#+ ", line)
            yield Text(line[heading.end() :], style="bold") if heading else Text(line.replace("**", ""))


def _tables(lines: Sequence[str], *, width: int) -> Iterator[Table]:
    """A table of Markdown -> one or more with as many of its columns as fit, each beginning with its first."""
    from rich.table import Table

    head, _, *rows = [[cell.strip().replace("\\|", "|") for cell in PIPE.split(line)[1:-1]] for line in lines]
    widths = [max(len(line[column]) for line in (head, *rows)) + FRAME for column in range(len(head))]
    for columns in _columns_that_fit(widths, width - 1):
        table = Table(show_header=any(head))
        for column in columns:
            table.add_column(head[column], overflow="fold", justify="left" if column == 0 else "right")
        for row in rows:
            table.add_row(*(row[column] for column in columns))
        yield table


def _columns_that_fit(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Groups of columns by index, the first in each, whose widths together fit where that is possible."""
    group, used = [0], widths[0]
    for column in range(1, len(widths)):
        if len(group) > 1 and used + widths[column] > width:
            yield group
            group, used = [0], widths[0]
        group.append(column)
        used += widths[column]
    yield group
