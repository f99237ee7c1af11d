"""The page of a report read back: its tags matched, its charts parsed, and nothing in it that could act."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "input", "img", "br", "hr", "link"}
LARGEST = 6 * 2**20
HOSTILE = (
    """</script></style></title></svg><script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7*7 }}\x00\x1b[31m|`"""
)


class Page(HTMLParser):
    """A page with its tags matched, and what of it could act."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def charts(text: str) -> list[str]:
    """The inline SVGs of a page, inner ones within theirs."""
    found, depth, start = [], 0, 0
    for tag in re.finditer(r"<svg\b|</svg>", text):
        if tag.group() == "<svg":
            start = tag.start() if not depth else start
            depth += 1
        else:
            depth -= 1
            if not depth:
                found.append(text[start : tag.end()])
    return found


def checked(folder: Path) -> Page:
    """The page of a search folder, held against all that is true of any."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    page = Page(text)
    for svg in charts(text):
        ET.fromstring(svg)
    addresses = re.findall(r"https?://[^\s\"'<]*", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    assert len(page.named("script")) == 1 and not page.named("link") and not page.named("iframe")
    assert all(each["src"].startswith("data:image/jpeg;base64,") for each in page.named("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {each["href"].removeprefix("#") for each in page.named("a")} <= set(ids)
    return page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "search"
