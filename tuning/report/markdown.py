"""The report in short, as Markdown: for a terminal, a pull request or a mail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tuning.report import phrases
from tuning.report.charts.axes import shown
from tuning.report.charts.marks import clean
from tuning.report.headline import changes, headline, tiles, warnings
from tuning.report.listing import keys_shown, published
from tuning.report.report_data import View
from tuning.study.outcome import Outcome

MOST = 20  # trials listed


def markdown(view: View, *, command: str, status: str) -> str:
    """A study as Markdown whose tables also line up in a terminal."""
    head = headline(view)
    spread = f" ± {head.spread}" if head.spread else ""
    value = [f"**{head.metric} {head.value}{spread}** ({head.note})"] if head.value else []
    parts = [
        f"# Search over {plain(view.study.search.recipe)}",
        f"{plain(head.title)}. {status[:1].upper()}{status[1:]}.",
        *value,
        *(plain(each.text) for each in head.sentences),
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


def plain(text: str) -> str:
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


def _changes(view: View) -> list[str]:
    found = [[each.key, each.old, each.new] for each in changes(view)]
    return ["## What it changes", _table(["key", "as given", "best"], found)] if found else []


def _warnings(view: View) -> list[str]:
    found = [f"- **{each.head}** {plain(each.text)}" for each in warnings(view)]
    return ["## Before you believe it", "\n".join(found)] if found else []


def _importance(view: View) -> list[str]:
    found = view.importance
    if not found.shares or not any(found.shares.values()):
        return []
    lines = [[key, f"{share:.0%}"] for key, share in list(found.shares.items())[:12]]
    doubt = [f"{plain(found.doubt[:1].upper() + found.doubt[1:])}."] if found.doubt else []
    return ["## What mattered", *doubt, _table(["key", "importance"], lines)]


def _published(view: View) -> list[str]:
    table = published(view)
    if table is None:
        return []
    return ["## Beside the published scores", _table(table.head, [[line.name, *line.cells] for line in table.lines])]


def _trials(view: View) -> list[str]:
    keys = keys_shown(view)
    order = sorted(view.study.trials, key=lambda each: (view.ranks.get(each.name, len(view.ranks) + 1), each.name))
    head = ["#", "trial", "state", view.named, "epochs", *keys]
    rest = [f"... and {len(order) - MOST} more in trials.csv"] if len(order) > MOST else []
    return ["## Trials", _table(head, (_trial(view, each, keys) for each in order[:MOST])), *rest]


def _trial(view: View, each: Outcome, keys: Sequence[str]) -> list[str]:
    rank = str(view.ranks.get(each.name, "–"))
    state = f"{each.trial.state}: {each.trial.error[:120]}" if each.trial.error else each.trial.state
    words = [shown(view.study.value(each, key)) for key in keys]
    return [rank, each.name, state, phrases.score(each.score), str(each.epochs), *words]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [[plain(cell) for cell in line] for line in (head, *lines)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(head))]
    ruled = [cells[0], ["-" * width for width in widths], *cells[1:]]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in ruled
    )
