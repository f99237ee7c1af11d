"""The report in short, as Markdown: for a terminal, a pull request or a mail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tuning.report import phrases
from tuning.report.charts.marks import clean
from tuning.report.headline import changes, headline, report_warnings, tiles
from tuning.report.report_data import ReportData
from tuning.report.trial_table import keys_shown, published
from tuning.study.outcome import Outcome
from tuning.values import format_value

MAX_TRIALS = 20  # trials listed


def markdown(view: ReportData, *, command: str, status: str) -> str:
    """A study as Markdown whose tables also line up in a terminal."""
    head = headline(view)
    spread = f" ± {head.spread}" if head.spread else ""
    value = [f"**{head.metric} {head.value}{spread}** ({head.note})"] if head.value else []
    parts = [
        f"# Search over {escape(view.study.search.recipe)}",
        f"{escape(head.title)}. {status[:1].upper()}{status[1:]}.",
        *value,
        *(escape(each.text) for each in head.sentences),
        *(["## Train it again", f"```bash\n{command}\n```"] if command else []),
        *_changes(view),
        *_warnings(view),
        "## Cost",
        _table(["", "", ""], [[tile.label, tile.value, tile.note] for tile in tiles(view)]),
        *_importance(view),
        *_published(view),
        *_trials(view),
        "## Where it comes from",
        _table(["", ""], view.study.provenance().items()),
    ]
    return clean("\n\n".join(parts) + "\n")


def escape(text: str) -> str:
    """Text on one line that Markdown takes for nothing else."""
    line = " ".join(text.split())
    for sign, instead in {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        "|": "\\|",
        "`": "\\`",
        "[": "\\[",
        "*": "\\*",
    }.items():
        line = line.replace(sign, instead)
    return line


def _changes(view: ReportData) -> list[str]:
    found = [[each.key, each.old, each.new] for each in changes(view)]
    return ["## What it changes", _table(["key", "as given", "best"], found)] if found else []


def _warnings(view: ReportData) -> list[str]:
    found = [f"- **{each.head}** {escape(each.text)}" for each in report_warnings(view)]
    return ["## Before you believe it", "\n".join(found)] if found else []


def _importance(view: ReportData) -> list[str]:
    found = view.importance
    if not found.shares or not any(found.shares.values()):
        return []
    lines = [[key, f"{share:.0%}"] for key, share in list(found.shares.items())[:12]]
    doubt = [f"{escape(found.doubt[:1].upper() + found.doubt[1:])}."] if found.doubt else []
    return ["## What mattered", *doubt, _table(["key", "importance"], lines)]


def _published(view: ReportData) -> list[str]:
    table = published(view)
    if table is None:
        return []
    return ["## Beside the published scores", _table(table.head, [[line.name, *line.cells] for line in table.lines])]


def _trials(view: ReportData) -> list[str]:
    keys = keys_shown(view)
    order = sorted(view.study.trials, key=lambda each: (view.ranks.get(each.name, len(view.ranks) + 1), each.name))
    head = ["#", "trial", "state", view.named, "epochs", *keys]
    rest = [f"... and {len(order) - MAX_TRIALS} more in trials.csv"] if len(order) > MAX_TRIALS else []
    return ["## Trials", _table(head, (_trial(view, each, keys) for each in order[:MAX_TRIALS])), *rest]


def _trial(view: ReportData, each: Outcome, keys: Sequence[str]) -> list[str]:
    rank = str(view.ranks.get(each.name, "–"))
    state = f"{each.trial.state}: {each.trial.error[:120]}" if each.trial.error else each.trial.state
    words = [format_value(view.study.value(each, key)) for key in keys]
    return [rank, each.name, state, phrases.score(each.score), str(each.epochs), *words]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [[escape(cell) for cell in line] for line in (head, *lines)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(head))]
    ruled = [cells[0], ["-" * width for width in widths], *cells[1:]]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in ruled
    )
