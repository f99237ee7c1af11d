"""Tables in Markdown that also line up in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

MIN_WIDTH = 3  # some renderers take a rule of fewer dashes for text


def escape_pipes(cell: str) -> str:
    """A cell whose own pipes do not end it."""
    return cell.replace("|", "\\|")


def markdown_table(
    head: Sequence[str], lines: Iterable[Sequence[str]], *, escape: Callable[[str], str] = escape_pipes
) -> str:
    """A table of text cells; `escape` makes each of them safe for Markdown."""
    cells = [[escape(cell) for cell in line] for line in (head, *lines)]
    widths = [max(MIN_WIDTH, *(len(line[column]) for line in cells)) for column in range(len(head))]
    rows = [cells[0], ["-" * width for width in widths], *cells[1:]]
    return "\n".join(_row(row, widths) for row in rows)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
