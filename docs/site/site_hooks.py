"""Hooks of MkDocs: the README and its neighbours as pages, the reference, links that leave docs/, and llms.txt.

MkDocs calls the functions that begin with `on_`, see mkdocs.yml.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.nav import Navigation
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "https://github.com/depthray/depthray"
# Pages that are files outside docs/, where GitHub looks for them, and one that would have the name of the HTML file
# beside it.
OUTSIDE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "examples/search-report.md": "docs/examples/nyu-report.md",
}
REFERENCE = "reference.md"
# Public names by task. They are read from the source: building the site imports neither torch nor Ray.
PUBLIC = {
    "Train": ("depthray.train", "depthray.train_events", "depthray.TrainedRun"),
    "Evaluate": ("depthray.evaluate", "depthray.evaluation.evaluate.EvaluationReport"),
    "Measure": ("depthray.calibrate", "depthray.robust", "depthray.card"),
    "Compare": ("depthray.compare", "depthray.evaluation.comparing.comparison.Comparison"),
    "Search": ("tuning.tune.tune", "tuning.tune.TunedSearch"),
    "Predict": ("depthray.load", "depthray.Predictor", "depthray.imaging.depth_map.DepthMap"),
    "Predict data sets": ("depthray.predict_set", "depthray.PredictedSet"),
    "Export": ("depthray.export",),
    "Ask a server": (
        "depthray.client.DepthClient",
        "depthray.client.AsyncDepthClient",
        "depthray.client.RetryPolicy",
        "depthray.client.responses.Estimate",
        "depthray.client.responses.RefusedError",
        "depthray.client.responses.UnavailableError",
    ),
    "Errors": tuple(
        f"depthray.errors.{name}Error"
        for name in ("Depthray", "Usage", "Data", "Checkpoint", "Parity", "Diverged", "Resource")
    ),
}
# The names by which `import depthray` has what another package defines.
OFFERED = {"tuning.tune.tune": "depthray.tune", "tuning.tune.TunedSearch": "depthray.TunedSearch"}
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
MERMAID = re.compile(r"^```mermaid\n.*?^```\n", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#\s]+)(#[^)\s]*)?\)")


class Entry(NamedTuple):
    """A page as llms.txt lists it."""

    section: str
    title: str
    url: str
    about: str


def reference() -> str:
    """The page of the API reference, which mkdocstrings fills from docstrings."""
    parts = [
        "# Python reference",
        "The public functions and classes, from their docstrings. [Python](python.md) shows them at work. What is not "
        "listed here may change without notice.",
    ]
    for task, names in PUBLIC.items():
        parts += [f"## {task}", *(_entry_of(name) for name in names)]
    return "\n\n".join(parts) + "\n"


def _entry_of(name: str) -> str:
    heading = OFFERED.get(name)
    return f"::: {name}" + (f"\n    options:\n      heading: {heading}\n      toc_label: {heading}" if heading else "")


def repository_path(page: str) -> Path:
    """The file of the repository that a page is made from, relative to the root."""
    return Path(OUTSIDE[page]) if page in OUTSIDE else Path("docs", page)


def relink(markdown: str, page: str) -> str:
    """Links between files of the repository -> links between pages, or to the repository where the site has no page.

    A link that leads nowhere stays as it is, and MkDocs reports it.
    """
    pages = {Path(path): name for name, path in OUTSIDE.items()}
    folder = repository_path(page).parent

    def replaced(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if ":" in target:
            return match[0]
        path = Path(os.path.normpath(folder / target))
        if path in pages:
            target = pages[path]
        elif path.parts[0] == "docs" and path.suffix != ".py" and (ROOT / path).is_file():
            target = path.relative_to("docs").as_posix()
        elif (ROOT / path).exists():
            return f"{text}({SOURCE}/{'blob' if (ROOT / path).is_file() else 'tree'}/main/{path.as_posix()}{anchor})"
        else:
            return match[0]
        return f"{text}({Path(os.path.relpath(target, Path(page).parent)).as_posix()}{anchor})"

    return _outside_fences(markdown, lambda text: LINK.sub(replaced, text))


def without_diagrams(markdown: str) -> str:
    """Mermaid's diagrams are left out: a browser would need its script from another server."""
    return MERMAID.sub(f"[Diagram on GitHub]({SOURCE}/blob/main/docs/architecture.md)\n", markdown)


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts = FENCE.split(markdown)
    return "".join(part if index % 2 else change(part) for index, part in enumerate(parts))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of docs/."""
    from mkdocs.structure.files import File

    for page, path in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, REFERENCE, content=reference()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The Markdown of a page, as the site shows it."""
    return without_diagrams(relink(markdown, page.file.src_uri))


def about(markdown: str) -> str:
    """The first sentence of a page, for llms.txt; "" where it begins otherwise than with text."""
    text = FENCE.sub("", markdown)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    prose = [part for part in paragraphs if part[:1].isalpha() or part[:1] in "`*"]
    sentence = re.split(r"(?<=[.:])\s", prose[0], maxsplit=1)[0] if prose else ""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", sentence).rstrip(":")


def entries(nav: Navigation) -> Iterator[Entry]:
    """Each page in the order of the navigation."""
    for page in nav.pages:
        section = page.parent.title if page.parent else ""
        # The reference is HTML alone: its Markdown only names the functions.
        url = page.file.dest_uri if page.file.src_uri == REFERENCE else _markdown_name(page)
        yield Entry(section, str(page.title), url, about(page.markdown or ""))


def _markdown_name(page: Page) -> str:
    return str(Path(page.file.dest_uri).with_suffix(".md").as_posix())


def llms(name: str, description: str, listed: Iterator[Entry]) -> str:
    """llms.txt: what each page is about and where its Markdown is (https://llmstxt.org)."""
    lines, section = [f"# {name}", "", f"> {description}", ""], ""
    for entry in listed:
        if entry.section != section:
            section = entry.section
            lines += ["", f"## {section}", ""]
        lines.append(f"- [{entry.title}]({entry.url})" + (f": {entry.about}" if entry.about else ""))
    return "\n".join(lines) + "\n"


_NAVIGATION: list[Navigation] = []


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Keep the navigation for llms.txt, which is written when all pages are."""
    _NAVIGATION[:] = [nav]
    return nav


def on_post_build(config: MkDocsConfig) -> None:
    """Write llms.txt, and beside each page its Markdown."""
    (nav,) = _NAVIGATION
    site = Path(config.site_dir)
    text = llms(config.site_name, config.site_description or "", entries(nav))
    (site / "llms.txt").write_text(text, encoding="utf-8")
    for page in nav.pages:
        if page.file.src_uri != REFERENCE:
            (site / _markdown_name(page)).write_text(page.markdown or "", encoding="utf-8")
