"""Reports on a terminal are tables that fit; in a file they stay Markdown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from depthray.cli.output.markdown_output import print_markdown, render
from depthray.evaluation.markdown_table import markdown_table

METRICS = [f"metric{number}" for number in range(12)]
REPORT = "\n\n".join(
    [
        "# Scores",
        "**0.1** of all, and a | that is no table",
        markdown_table(["", *METRICS], [["kitchen|1", *(f"0.{number:04d}" for number in range(12))]]),
        markdown_table(["", ""], [["frames", "12"]]),
    ]
)


def shown(text: str, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    for part in render(text, width=width):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_wide_table_becomes_several_that_fit(width: int) -> None:
    text = shown(REPORT, width)
    assert max(map(len, text.splitlines())) <= width
    for part in (*METRICS, *(f"0.{number:04d}" for number in range(12)), "kitchen|1", "frames", "Scores"):
        assert part in text
    assert "…" not in text and "#" not in text and "**" not in text
    assert text.count("kitchen|1") == {40: 6, 80: 2, 200: 1}[width], "each part names its rows"


def test_in_a_file_it_stays_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    print_markdown(REPORT)
    assert capsys.readouterr().out == f"{REPORT}\n"
