"""The report in short, as Markdown: for a terminal, a pull request or a mail."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from depthray.evaluation.markdown_table import markdown_table
from tuning.report import phrases
from tuning.report.charts.marks import clean
from tuning.report.headline import changes, headline, report_warnings, tiles
from tuning.report.report_data import ReportData
from tuning.report.trial_table import keys_shown, published
from tuning.study.outcome import Outcome
from tuning.values import format_value, sentence

MAX_TRIALS = 20  # a mail or a pull request is no place for hundreds; trials.csv has all
MAX_KEYS = 12
# Text of trials and recipes may be hostile: none of it may become HTML, a link or a column of its own.
ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|", "`": "\\`", "[": "\\[", "*": "\\*"}


def markdown(data: ReportData, *, command: str, status: str) -> str:
    """A study as Markdown whose tables also line up in a terminal."""
    head = headline(data)
    spread = f" ± {head.spread}" if head.spread else ""
    value = [f"**{head.metric} {head.value}{spread}** ({head.note})"] if head.value else []
    parts = [
        f"# Search over {escape(data.study.search.recipe)}",
        f"{escape(head.title)}. {sentence(status)}",
        *value,
        *(escape(each.text) for each in head.sentences),
        *(["## Train it again", f"```bash\n{command}\n```"] if command else []),
        *_changes(data),
        *_warnings(data),
        "## Cost",
        _table(["", "", ""], [[tile.label, tile.value, tile.note] for tile in tiles(data)]),
        *_importance(data),
        *_published(data),
        *_trials(data),
        "## Provenance",
        _table(["", ""], data.study.provenance().items()),
    ]
    return clean("\n\n".join(parts) + "\n")


def escape(text: str) -> str:
    """Text on one line, with everything escaped that Markdown would interpret."""
    line = " ".join(text.split())  # a line break would end a table
    for sign, escaped in ESCAPES.items():
        line = line.replace(sign, escaped)
    return line


def _changes(data: ReportData) -> list[str]:
    lines = [[each.key, each.old, each.new] for each in changes(data)]
    return ["## What it changes", _table(["key", "baseline", "best"], lines)] if lines else []


def _warnings(data: ReportData) -> list[str]:
    lines = [f"- **{each.head}** {escape(each.text)}" for each in report_warnings(data)]
    return ["## Warnings", "\n".join(lines)] if lines else []


def _importance(data: ReportData) -> list[str]:
    result = data.importance
    if not any(result.shares.values()):
        return []
    lines = [[key, f"{share:.0%}"] for key, share in list(result.shares.items())[:MAX_KEYS]]
    doubt = [escape(sentence(result.doubt))] if result.doubt else []
    return ["## Importance", *doubt, _table(["key", "importance"], lines)]


def _published(data: ReportData) -> list[str]:
    table = published(data)
    if table is None:
        return []
    return ["## Published scores", _table(table.head, [[line.name, *line.cells] for line in table.lines])]


def _trials(data: ReportData) -> list[str]:
    keys = keys_shown(data)
    order = sorted(data.study.trials, key=lambda each: (data.ranks.get(each.name, len(data.ranks) + 1), each.name))
    head = ["#", "trial", "state", data.metric_title, "epochs", *keys]
    rest = [f"... and {len(order) - MAX_TRIALS} more in trials.csv"] if len(order) > MAX_TRIALS else []
    return ["## Trials", _table(head, (_trial(data, each, keys) for each in order[:MAX_TRIALS])), *rest]


def _trial(data: ReportData, each: Outcome, keys: Sequence[str]) -> list[str]:
    rank = str(data.ranks.get(each.name, "–"))
    # The start of an error tells its kind; a complete traceback would make every row as wide.
    beyond = ", beyond a constraint" if data.study.is_infeasible(each) else ""
    state = f"{each.trial.state}: {each.trial.error[:120]}" if each.trial.error else each.trial.state + beyond
    values = [format_value(data.study.value(each, key)) for key in keys]
    return [rank, each.name, state, phrases.score(each.score), str(each.epochs), *values]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return markdown_table(head, lines, escape=escape)
