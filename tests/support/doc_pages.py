"""The pages of the documentation: their fenced blocks and command lines."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs" / "scaling" / "README.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    found = [Block(page, *match) for page in PAGES for match in FENCED.findall(page.read_text(encoding="utf-8"))]
    return [block for block in found if block.language in languages]


def commands(text: str) -> list[list[str]]:
    """The command lines of a bash block as arguments, comments dropped."""
    lines = text.replace("\\\n", " ").splitlines()
    return [arguments for arguments in (shlex.split(line, comments=True) for line in lines) if arguments]
