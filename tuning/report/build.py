"""`depthray report`: a search folder into report.html, report.md, trials.csv, best.yaml and study.json.

The page is one file that needs no network: charts, images, style and script are embedded, and its
Content-Security-Policy allows nothing else. Text of trials and recipes is escaped. A report can be made while the
search runs, and of a copied folder; ray is never imported, torch only to draw images.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from depthray.cli.flags.command_parser import CommandParser
from depthray.config import recipe as recipes
from depthray.errors import UsageError
from depthray.storage import local
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import finite_tree, to_json
from tuning.report import figures, headline, phrases, trial_table
from tuning.report.charts.marks import clean
from tuning.report.figures import ReportSection
from tuning.report.markdown import markdown
from tuning.report.report_data import ReportData
from tuning.report.sample_sheets import Sheets, sample_sheets
from tuning.study.study import Study, best_recipe, train_line
from tuning.study.tables import as_csv, as_json

PAGE = Path(__file__).parent / "page"
BEST = "best.yaml"
COMMAND_WIDTH = 58  # letters that fit next to the chart of the first screen
_LAST_SECTIONS = (("trials", "Trials"), ("provenance", "Provenance"))


@dataclass(frozen=True)
class BestRecipe:
    """How to train the winner again; empty where there is none."""

    yaml: str = ""
    command: str = ""


def main(argv: list[str]) -> int:
    """Make the report of a search again, and print its headline."""
    args = build_parser().parse_args(argv)
    page = write(args.search, images=not args.no_images, data=args.data)
    print(_format_headline(ReportData(Study.read(args.search))))
    print(f"report   {page}")
    others = [name for name in ("report.md", "trials.csv", BEST, "study.json") if (page.parent / name).is_file()]
    print(f"also     {', '.join(others)}")
    return 0


def write(folder: Path, *, images: bool = True, data: Path | str | None = None) -> Path:
    """Write the report of a search into its folder; returns the page. `data` replaces the recipe's data.root.

    Raises UsageError for a folder without a search, or one that cannot be written to.
    """
    study = Study.read(folder)
    report, best, now = ReportData(study), _best_recipe(folder, study), time.time()
    status = headline.status(report, now)
    sheets = sample_sheets(folder, report, data=data) if images else Sheets(())
    files = {
        "report.html": html(report, best, sheets, now=now),
        "report.md": markdown(report, command=best.command, status=status.text),
        "trials.csv": as_csv(study),
        "study.json": to_json(as_json(study), indent=1, ensure_ascii=False) + "\n",
        **({BEST: best.yaml} if best.yaml else {}),
    }
    # All of them are made by now: an error above leaves the files of the last report as they were.
    with translate_os_errors(folder, to=UsageError, doing="write the report"):
        for name, text in files.items():
            # "replace": halves of surrogate pairs in an error message must not end the report.
            local.replace(folder / name, text.encode("utf-8", "replace"))
        if not best.yaml:
            (folder / BEST).unlink(missing_ok=True)  # of an earlier search in this folder
    return folder / "report.html"


def html(report: ReportData, best: BestRecipe, sheets: Sheets, *, now: float) -> str:
    """The page of a study."""
    # StrictUndefined: a name missing in the content must fail in a test, not leave a hole in the page.
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # A page that allows one script by its digest runs no other, should an escape ever be missed.
    trusted = {"style": Markup(style), "script": Markup(script), "script_digest": Markup(f"sha256-{digest}")}
    return clean(environment.get_template("template.html").render(**trusted, **_content(report, best, sheets, now)))


def _content(report: ReportData, best: BestRecipe, sheets: Sheets, now: float) -> dict[str, Any]:
    """Everything on the page, by the names that its template uses."""
    study, chosen, sections = report.study, report.study.best, _sections(report, sheets)
    return {
        "title": f"Search over {study.search.recipe}",
        "recipe": study.search.recipe,
        "about": str(study.search.space.get("about", "")),
        "status": headline.status(report, now),
        "parts": [("result", "Result"), *((each.id, each.short) for each in sections), *_LAST_SECTIONS],
        "headline": headline.headline(report),
        "strip": figures.strip(report),
        "running": any(each.trial.state == "running" for each in study.trials),
        "changes": headline.changes(report),
        "command": wrap_command(best.command),
        "python": python_example(chosen.name if chosen else ""),
        "best_name": chosen.name if chosen else "",
        "best_score": phrases.score(chosen.outcome.score) if chosen else "",
        "tiles": headline.tiles(report),
        "warnings": headline.report_warnings(report),
        "sections": sections,
        "rows": trial_table.rows(report),
        "columns": trial_table.columns(report),
        "states": trial_table.states(report),
        "provenance": list(study.provenance().items()),
        "space": yaml.safe_dump(finite_tree(study.search.space), sort_keys=False, allow_unicode=True),
        "best_yaml": best.yaml,
        "made": phrases.date(now),
    }


def _sections(report: ReportData, sheets: Sheets) -> list[ReportSection]:
    """The sections of the page that have something to show."""
    sections = [
        figures.progress_section(report),
        *figures.key_sections(report),
        figures.population_section(report),
        figures.sample_section(sheets),
        figures.tradeoff_section(report),
        figures.published_section(trial_table.published(report)),
        figures.cost_section(report),
    ]
    return [each for each in sections if each.has_content]


def _best_recipe(folder: Path, study: Study) -> BestRecipe:
    """The best recipe with its origin as a comment, and the command that trains it."""
    chosen = study.best
    if chosen is None:
        return BestRecipe()
    recipe = best_recipe(folder, study)
    command = train_line(study, recipe)
    score = phrases.score(chosen.mean, chosen.spread)
    origin = f"Best of the search over {study.search.recipe}: trial {chosen.name}, {study.metric} {score}."
    if study.keeps_baseline:
        origin = f"The recipe {study.search.recipe} as it was given: the search found nothing better than {score}."
    # One line each: a line break in a name would end the comment.
    comment = "\n#   ".join(" ".join(line.split()) for line in (origin, command))
    return BestRecipe(yaml=clean(f"# {comment}\n{recipes.dump(recipe)}"), command=command)


def wrap_command(command: str, width: int = COMMAND_WIDTH) -> str:
    """A command line over several lines, each but the last ending in a backslash."""
    lines = [""]
    for argument in shlex.split(command):
        quoted = shlex.quote(argument)
        if lines[-1] and len(lines[-1]) + len(quoted) >= width:
            lines.append("   ")
        lines[-1] += f" {quoted}" if lines[-1] else quoted
    return " \\\n".join(lines)


def python_example(name: str) -> str:
    """The Python code that trains the best recipe, and loads the network of a trial."""
    return f'''from pathlib import Path

import torch

from depthray import load
from depthray.runs.run import prepare, record
from depthray.training import preflight

recipe, run = preflight.load("{BEST}"), Path("best")
prepare(run, recipe, resume=False)
for epoch in record(recipe, run, torch.device("cuda" if torch.cuda.is_available() else "cpu")):
    print(epoch.metrics)

network = load("trials/{name}")  # the winner itself: network.predict(rgb) is depth in metres'''


def _format_headline(report: ReportData) -> str:
    head = headline.headline(report)
    spread = f" ± {head.spread}" if head.spread else ""
    value = f"{head.title}: {head.metric} {head.value}{spread} ({head.note})" if head.value else head.title
    return "\n".join([value, *(each.text for each in head.sentences)])


def build_parser() -> argparse.ArgumentParser:
    """The command line of `depthray report`."""
    parser = CommandParser(
        prog="depthray report",
        description="Make the report of a search again, also while it runs: report.html, report.md, trials.csv, "
        "best.yaml, study.json in its folder.",
    )
    parser.add_argument("search", type=Path, metavar="SEARCH", help="the folder of a search")
    parser.add_argument("--no-images", action="store_true", help="without validation frames of the best trials")
    parser.add_argument("--data", metavar="PATH", help="where the data are now (data.root)")
    return parser
