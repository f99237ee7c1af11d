"""`depthray report`: a search folder into report.html, report.md, trials.csv, best.yaml and study.json.

One page that needs nothing from anywhere: charts, pictures, style and script are in it, and its policy lets nothing
else in. Whatever a trial or a recipe says is escaped. It works while the search runs, and on a copied folder.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from depthray.config import recipe as recipes
from depthray.errors import UsageError
from depthray.storage import local
from tuning.report import figures, headline, phrases, trial_table
from tuning.report.charts.marks import clean
from tuning.report.figures import ReportSection
from tuning.report.markdown import markdown
from tuning.report.report_data import ReportData
from tuning.report.sample_sheets import Sheets, sample_sheets
from tuning.study.study import Study, best_recipe, train_line

PAGE = Path(__file__).parent / "page"
BEST = "best.yaml"


@dataclass(frozen=True)
class BestRecipe:
    """How to train the winner again; empty where there is none."""

    yaml: str = ""
    command: str = ""


def main(argv: list[str]) -> int:
    """Make the report of a search again, and say the headline."""
    args = build_parser().parse_args(argv)
    page = write(args.search, images=not args.no_images, data=args.data)
    view = ReportData(Study.read(args.search))
    print(_format_headline(view))
    print(f"report   {page}")
    print(f"beside   {', '.join(name for name in ('report.md', 'trials.csv', BEST, 'study.json') if _has(page, name))}")
    return 0


def write(folder: Path, *, images: bool = True, data: Path | str | None = None) -> Path:
    """Write the report of a search into its folder; returns the page. `data` is where the frames lie now.

    Raises UsageError for a folder without a search, or one that cannot be written to.
    """
    study = Study.read(folder)
    view, best, now = ReportData(study), _best_recipe(folder, study), time.time()
    status = headline.status(view, now)
    pictures = sample_sheets(folder, view, data=data) if images else Sheets((), "")
    files = {
        "report.html": html(view, best, pictures, now=now),
        "report.md": markdown(view, command=best.command, status=status.text),
        "trials.csv": study.as_csv(),
        "study.json": json.dumps(study.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        **({BEST: best.yaml} if best.yaml else {}),
    }
    try:
        for name, text in files.items():
            local.replace(folder / name, text.encode("utf-8", "replace"))
        if not best.yaml:
            (folder / BEST).unlink(missing_ok=True)  # of a search begun again in this folder
    except OSError as error:
        raise UsageError(f"cannot write the report to {folder}: {error.strerror}") from None
    return folder / "report.html"


def html(view: ReportData, best: BestRecipe, pictures: Sheets, *, now: float) -> str:
    """The page of a study."""
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (_read(name) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # A page that lets in one script by its digest runs no other, should an escape ever be missed.
    words = {"style": Markup(style), "script": Markup(script), "script_digest": Markup(f"sha256-{digest}")}
    return clean(environment.get_template("template.html").render(**words, **_content(view, best, pictures, now)))


def _content(view: ReportData, best: BestRecipe, pictures: Sheets, now: float) -> dict[str, Any]:
    """Everything on the page, by the names its template has for it."""
    study, sections = view.study, _sections(view, pictures)
    winner = view.winner
    return {
        "title": f"Search over {study.search.recipe}",
        "recipe": study.search.recipe,
        "about": str(study.search.space.get("about", "")),
        "status": headline.status(view, now),
        "parts": [("result", "Result"), *((each.id, each.short) for each in sections), *_LAST],
        "headline": headline.headline(view),
        "strip": figures.strip(view),
        "running": any(each.trial.state == "running" for each in study.trials),
        "changes": headline.changes(view),
        "command": wrap_command(best.command),
        "python": python_example(winner.name if winner else ""),
        "best_name": winner.name if winner else "",
        "best_score": phrases.score(winner.outcome.score) if winner else "",
        "tiles": headline.tiles(view),
        "warnings": headline.report_warnings(view),
        "sections": sections,
        "rows": trial_table.rows(view),
        "columns": trial_table.columns(view),
        "states": trial_table.states(view),
        "provenance": list(study.provenance().items()),
        "space": yaml.safe_dump(_plain(study.search.space), sort_keys=False, allow_unicode=True),
        "best_yaml": best.yaml,
        "made": phrases.date(now),
    }


_LAST = (("trials", "Trials"), ("provenance", "Origin"))


def _sections(view: ReportData, pictures: Sheets) -> list[ReportSection]:
    """The parts of the page that have something to show."""
    table = trial_table.published(view)
    found = [
        figures.progress_section(view),
        *figures.key_sections(view),
        figures.population_section(view),
        figures.sample_section(pictures),
        figures.tradeoff_section(view),
        figures.published_section(table),
        figures.cost_section(view),
    ]
    return [each for each in found if each.charts or each.pictures or each.table or each.missing]


def _best_recipe(folder: Path, study: Study) -> BestRecipe:
    """The winner's recipe with a word on where it comes from, and the command that trains it."""
    winner = study.winner()
    if winner is None:
        return BestRecipe()
    recipe = best_recipe(folder, study)
    command = train_line(study, recipe)
    score = phrases.score(winner.mean, winner.spread)
    said = f"Best of the search over {study.search.recipe}: trial {winner.name}, {study.search.metric} {score}."
    head = "\n#   ".join(" ".join(line.split()) for line in (said, command))
    return BestRecipe(yaml=clean(f"# {head}\n{recipes.dump(recipe)}"), command=command)


def wrap_command(command: str, width: int = 58) -> str:
    """A command line over several lines, each but the last ending in a backslash."""
    lines = [""]
    for word in shlex.split(command):
        quoted = shlex.quote(word)
        if lines[-1] and len(lines[-1]) + len(quoted) >= width:
            lines.append("   ")
        lines[-1] += f" {quoted}" if lines[-1] else quoted
    return " \\\n".join(lines)


def python_example(name: str) -> str:
    return f'''from pathlib import Path

import torch

from depthray import load
from depthray.training.preflight import load as read
from depthray.runs.run import prepare, record

recipe, run = read("{BEST}"), Path("best")
prepare(run, recipe, resume=False)
for epoch in record(recipe, run, torch.device("cuda" if torch.cuda.is_available() else "cpu")):
    print(epoch.metrics)

network = load("trials/{name}")  # or the one that won, as it is: network.predict(rgb) is depth in metres'''


def _format_headline(view: ReportData) -> str:
    found = headline.headline(view)
    spread = f" ± {found.spread}" if found.spread else ""
    value = f"{found.title}: {found.metric} {found.value}{spread} ({found.note})" if found.value else found.title
    return "\n".join([value, *(each.text for each in found.sentences)])


def _read(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def _has(page: Path, name: str) -> bool:
    return (page.parent / name).is_file()


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="depthray report",
        description="Make the report of a search again, also while it runs: report.html, report.md, trials.csv, "
        "best.yaml, study.json in its folder.",
    )
    parser.add_argument("search", type=Path, metavar="SEARCH", help="the folder of a search")
    parser.add_argument("--no-images", action="store_true", help="without validation frames of the best trials")
    parser.add_argument("--data", metavar="PATH", help="where the data lies now (data.root)")
    return parser
