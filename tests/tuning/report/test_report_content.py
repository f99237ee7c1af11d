"""The content of a search's report: headline, tables, charts, command line and Markdown."""

from __future__ import annotations

import html
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import searches
import yaml
from report_html import HOSTILE, charts, checked

from depthray.config import recipe as recipes
from depthray.training import preflight
from tuning import records
from tuning.report import build, figures, headline, trial_table
from tuning.report.markdown import escape
from tuning.report.report_data import ReportData
from tuning.study.study import Study


def change_record(folder: Path, name: str, **changes: Any) -> None:
    """Change fields of a trial's record."""
    trial = next(each for each in records.read_trials(folder) if each.name == name)
    records.write_trial(folder, replace(trial, **changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "search"


def test_the_headline_has_score_spread_and_gain(folder: Path) -> None:
    searches.make(folder)
    build.write(folder, images=False)
    page, study = checked(folder), Study.read(folder)
    winner, gain, default = study.winner, study.gain(), study.default
    assert winner and gain and default and winner.mean and winner.spread and gain.relative
    assert f"AbsRel {winner.mean:.4f} ± {winner.spread:.4f}" in page.text
    assert "mean of 3 seeds ± their standard deviation" in page.text
    assert f"The predicted depth is {100 * winner.mean:.3g} % off on average." in page.text
    assert f"{100 * gain.relative:.2g} % less error than the baseline" in page.text
    assert "More than luck of the seed" in page.text


def test_a_gain_within_the_spread_is_reported_as_luck(folder: Path) -> None:
    searches.make(folder, points=searches.POINTS, scores=[0.5, 0.4, 0.205, 0.21], seed_effect=0.1)
    message = [each.text for each in headline.headline(ReportData(Study.read(folder))).sentences]
    assert any("may be luck of the seed" in each for each in message)
    assert not any("More than luck" in each for each in message)


def test_a_search_that_found_nothing_better_is_reported(folder: Path) -> None:
    searches.make(folder, points=searches.POINTS, scores=[0.9, 0.8, 0.7, 0.6])
    message = [each.text for each in headline.headline(ReportData(Study.read(folder))).sentences]
    assert "The search found nothing better." in message
    assert any("more error than the baseline" in each for each in message)
    assert headline.headline(ReportData(Study.read(folder))).title == "Best of the search: the recipe as it was given"
    build.write(folder, images=False)
    text = (folder / "best.yaml").read_text()
    assert text.startswith("# The recipe demo as it was given: the search found nothing better than 0.")
    assert preflight.load(str(folder / "best.yaml")) == preflight.load(str(folder / "recipe.yaml"))
    assert "What the best configuration changes" not in checked(folder).text


def test_the_command_on_the_page_trains_the_best_recipe(folder: Path) -> None:
    searches.make(folder)
    build.write(folder, images=False)
    page, winner = checked(folder), Study.read(folder).winner
    assert winner
    assert "depthray train best.yaml --workers 1 --cpus-per-worker 1" in page.text.replace("\\ ", "")
    best = recipes.flatten(preflight.load(str(folder / "best.yaml")))
    assert {key: best[key] for key in winner.outcome.overrides} == dict(winner.outcome.overrides)
    assert (folder / "best.yaml").read_text().startswith("# Best of the search over demo: trial ")


def test_the_python_on_the_page_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches.make(folder, trials=1, repeats=0)
    build.write(folder, images=False)
    small = {"data": {"frames": 24, "size": [32, 40], "val_fraction": 0.4}, "train": {"epochs": 1, "batch_size": 4}}
    tree = yaml.safe_load((folder / "best.yaml").read_text())
    for section, values in small.items():
        tree[section].update(values)
    (folder / "best.yaml").write_text(yaml.safe_dump(tree))
    code = (
        build.python_example("0001")
        .replace('load("trials/0001")', 'load("best", device="cpu")')
        .replace('"cuda" if', '"cpu" if')
    )
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    exec(compile(code, "page", "exec"), found)  # noqa: S102 - our own code
    assert found["network"].recipe.train.epochs == 1


def test_what_the_best_changes_is_listed_with_what_it_means(folder: Path) -> None:
    searches.make(folder, points=[{"optim.lr": 1e-3, "loss.gradient": 0.5}], trials=1)
    changes = headline.changes(ReportData(Study.read(folder)))
    assert [(each.key, each.old, each.new, each.about) for each in changes] == [
        ("optim.lr", "0.003", "0.001", "peak learning rate")  # the recipe has loss.gradient=0.5 itself
    ]


def test_trials_are_ranked_and_failed_ones_show_their_error(folder: Path) -> None:
    searches.make(folder, failed=2)
    build.write(folder, images=False)
    view = ReportData(Study.read(folder))
    rows = trial_table.rows(view)
    ranks = [row.rank for row in rows if row.rank]
    assert ranks == list(range(1, len(ranks) + 1))
    scores = [float(row.score.raw) for row in rows if row.rank]
    assert scores == sorted(scores)
    assert [row.error for row in rows if row.state == "failed"] == [searches.FAULT] * 2
    assert searches.FAULT in html.unescape((folder / "report.html").read_text())
    assert all(len(row.cells) + 5 == len(trial_table.columns(view)) for row in rows)


def test_values_that_differ_from_the_recipe_are_marked(folder: Path) -> None:
    searches.make(folder, points=[{"optim.lr": 1e-3}, {"optim.lr": 3e-3}], repeats=0)
    view = ReportData(Study.read(folder))
    place = [column.name for column in trial_table.columns(view)].index("lr") - 5
    cells = {row.trial: row.cells[place] for row in trial_table.rows(view)}
    assert {name: cell.kind for name, cell in cells.items()} == {"0001": "changed", "0002": "", "default": ""}


def test_a_trial_is_found_in_every_chart_and_in_the_table(folder: Path) -> None:
    searches.make(folder, objectives=("latency_ms",))
    text = build.write(folder, images=False).read_text(encoding="utf-8")
    winner = Study.read(folder).winner
    assert winner
    inside = [svg for svg in charts(text) if f'data-trial="{winner.name}"' in svg]
    assert len(inside) >= 10  # one line, history, curves, pair, upright axes, 4 keys, trade-off, timeline
    assert all("<title>" in svg for svg in inside)


def test_the_uncertainty_of_importance_is_shown_next_to_it(folder: Path) -> None:
    searches.make(folder, trials=8)
    build.write(folder, images=False)
    assert "Importance from 8 finished trials is a guess" in checked(folder).text
    searches.make(folder, trials=40)
    build.write(folder, images=False)
    assert "is a guess" not in checked(folder).text


def test_population_based_training_shows_who_copied_whom(folder: Path) -> None:
    searches.make(folder, history=True)
    build.write(folder, images=False)
    assert "Who copied whom" in checked(folder).text
    searches.make(folder, history=False)
    build.write(folder, images=False)
    assert "Who copied whom" not in checked(folder).text


def test_a_change_is_drawn_before_the_epoch_that_was_trained_with_it(folder: Path) -> None:
    searches.make(folder, trials=1, history=True, repeats=0)
    change_record(folder, "0001", history=({"epoch": 3, "words": {"optim.lr": 5e-3}, "from": "0001"},))
    (each,) = (trial for trial in Study.read(folder).trials if trial.name == "0001")
    moves = figures.schedule_of(ReportData(Study.read(folder)), each, "optim.lr")
    assert [change.epoch for change in moves.changes] == [0, 2] and moves.changes[1].value == 5e-3 and moves.until == 4


def test_published_scores_are_listed_with_ours_in_their_order(folder: Path) -> None:
    points = [{"optim.lr": 2e-4}, {"optim.lr": 2e-3}, {"optim.lr": 8e-3}]
    message = [{"abs_rel": 0.2, "rmse": 1.0}, {"abs_rel": 0.1}, {"abs_rel": 0.3}]
    space = {
        "points": [
            {"name": name, **point, "reference": reference}
            for name, point, reference in zip(("low", "mid", HOSTILE), points, message, strict=True)
        ]
    }
    searches.make(folder, points=points, scores=[0.25, 0.21, 0.4], space=space, stopped=0, nan=0, failed=0)
    table = trial_table.published(ReportData(Study.read(folder)))
    assert table and table.head[:6] == ("configuration", "trial", "AbsRel, published", "its rank", "ours", "its rank")
    assert [line.cells[:5] for line in table.lines] == [
        ("0001", "0.2000", "2", "0.2500", "2"),
        ("0002", "0.1000", "1", "0.2100", "1"),
        ("0003", "0.3000", "3", "0.4000", "3"),
    ]
    assert table.lines[0].cells[5:] == ("1.000", "1", "0.7500", "2") and table.lines[1].cells[5] == "–"
    build.write(folder, images=False)
    assert "Published scores" in checked(folder).text


def test_a_search_without_published_scores_has_no_such_table(folder: Path) -> None:
    searches.make(folder, trials=2)
    assert trial_table.published(ReportData(Study.read(folder))) is None


@pytest.mark.parametrize(
    ("ended", "ago", "kind", "message"),
    [
        (True, 1e6, "ended", "ended 20"),
        (False, 60, "running", "running: 5 of "),
        (False, 1e5, "left", "the last record is of"),
    ],
)
def test_the_status_distinguishes_a_running_search_from_an_abandoned_one(
    folder: Path, ended: bool, ago: float, kind: str, message: str
) -> None:
    searches.make(folder, trials=6, running=0 if ended else 2, repeats=0)
    view = ReportData(Study.read(folder))
    sign = view.study.search.started + view.budget.wall_seconds
    found = headline.status(view, sign + ago)
    assert found.kind == kind and message in found.text


def test_many_trials_are_all_listed_and_the_best_drawn(folder: Path) -> None:
    searches.make(folder, trials=450, repeats=0, default=False)
    view = ReportData(Study.read(folder))
    assert len(view.started) == 450 and 300 <= len(view.drawn) <= 400
    best = [each.name for each in view.study.ranking[:200]]
    assert set(best) <= {each.name for each in view.drawn}
    assert len(trial_table.rows(view)) == 450


def test_markdown_has_the_essentials_in_tables_that_line_up(folder: Path) -> None:
    searches.make(folder, failed=1)
    build.write(folder, images=False)
    text = (folder / "report.md").read_text(encoding="utf-8")
    for part in ("## Train it again", "## Warnings", "## Cost", "## Importance", "## Trials"):
        assert part in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = table.splitlines()
        assert len({len(line) for line in lines}) == 1
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "depthray train best.yaml" in text


def test_markdown_text_is_escaped() -> None:
    assert escape("a|b\n<script>`x`[y](z) & *c*") == "a\\|b &lt;script&gt;\\`x\\`\\[y](z) &amp; \\*c\\*"


def test_main_prints_the_headline_and_the_path_of_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searches.make(folder)
    assert build.main([str(folder), "--no-images"]) == 0
    message = capsys.readouterr().out
    assert "Best configuration: trial" in message and "AbsRel 0." in message
    assert f"report   {folder / 'report.html'}" in message and "report.md, trials.csv, best.yaml, study.json" in message


def test_a_long_command_is_wrapped_where_a_shell_joins_it_again() -> None:
    command = "depthray train best.yaml --data '/data/my rooms --all/it'\"'\"'s' --workers 16 --gpu --cpus-per-worker 4"
    wrapped = build.wrap_command(command)
    assert len(wrapped.splitlines()) > 1 and max(map(len, wrapped.splitlines())) < 70
    assert shlex.split(wrapped.replace("\\\n", "")) == shlex.split(command)
    assert build.wrap_command("") == ""
