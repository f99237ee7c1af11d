"""The report of a search: whole, offline, safe to open, and true, however the search went."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import json
import re
import shlex
import shutil
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import searches
import yaml

from depthray import recipe as recipes
from depthray.errors import UsageError
from tuning import records, report
from tuning.page import figures, headline, listing, phrases, sheets
from tuning.page.markdown import plain
from tuning.page.view import View
from tuning.study import Study

VOID = {"meta", "input", "img", "br", "hr", "link"}
LARGEST = 6 * 2**20
HOSTILE = (
    """</script></style></title></svg><script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7*7 }}\x00\x1b[31m|`"""
)
POINTS = [{"optim.lr": rate} for rate in (3e-5, 1e-4, 3e-4, 1e-3)]
CASES: dict[str, dict[str, Any]] = {
    "usual": {},
    "no trial": {"trials": 0, "default": False},
    "only the default": {"trials": 0},
    "one trial": {"trials": 1},
    "one trial alone": {"trials": 1, "default": False, "repeats": 0},
    "all failed": {"trials": 5, "failed": 5, "default": False},
    "all NaN": {"trials": 5, "nan": 5, "default": False},
    "all waiting": {"trials": 4, "waiting": 4, "default": False},
    "all running": {"trials": 4, "running": 4},
    "some of each": {"trials": 16, "running": 2, "waiting": 3, "failed": 2, "nan": 1},
    "equal": {"points": POINTS, "scores": [0.3] * 4, "seed_effect": 0.0},
    "zero": {"points": POINTS, "scores": [0.0] * 4},
    "higher is better": {"metric": "delta1"},
    "objectives": {"objectives": ("latency_ms", "parameters")},
    "population": {"history": True, "epochs": 8},
    "one epoch": {"epochs": 1},
    "GPUs": {"gpus": 1.0},
    "many": {"trials": 450},
}


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


def retold(folder: Path, name: str, **changes: Any) -> None:
    """Change what a trial's record says."""
    trial = next(each for each in records.read_trials(folder) if each.name == name)
    records.write_trial(folder, replace(trial, **changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "search"


# -- every search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_report_is_made_of_any_search(folder: Path, case: dict[str, Any]) -> None:
    searches.make(folder, **case)
    page = checked(report.write(folder, images=False).parent)
    study = Study.read(folder)
    shown = [each["data-trial"] for each in page.named("tbody") if "data-trial" in each]
    assert sorted(shown) == sorted(each.name for each in study.trials)
    states = [each["data-state"] for each in page.named("tbody") if "data-state" in each]
    assert sorted(states) == sorted(each.trial.state for each in study.trials)
    assert json.loads((folder / "study.json").read_text())["search"]["recipe"] == "demo"
    lines = list(csv.reader((folder / "trials.csv").read_text(encoding="utf-8").splitlines()))
    assert len(lines) == 1 + len(study.trials)
    assert (folder / "report.md").read_text(encoding="utf-8").startswith("# Search over demo\n")
    assert (folder / "best.yaml").exists() == (study.winner() is not None)
    for each in study.cautions():
        assert (each.key if each.kind == "unused" else " ".join(each.text[1:].split())) in page.text


def test_a_report_is_made_again_over_the_old_one(folder: Path) -> None:
    searches.make(folder, trials=3, running=3, default=False)
    first = report.write(folder, images=False).read_text(encoding="utf-8")
    shutil.rmtree(folder)
    searches.make(folder)
    second = report.write(folder, images=False).read_text(encoding="utf-8")
    assert "Best so far" in first and "Best configuration" in second
    assert not list(folder.glob(".writing-*"))


def test_a_copied_folder_has_the_same_report(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: searches.BEGAN + 9e5)
    searches.make(folder)
    elsewhere = searches.copy(folder, tmp_path / "elsewhere")
    pages = [report.write(each, images=False).read_text(encoding="utf-8") for each in (folder, elsewhere)]
    assert pages[0] == pages[1] and str(tmp_path) not in pages[0]


def test_where_there_is_no_search_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no search"):
        report.main([str(tmp_path)])


def test_a_folder_that_cannot_be_written_to_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    searches.make(folder, trials=2)
    monkeypatch.setattr(report.durable, "replace", refused)
    with pytest.raises(UsageError, match="cannot write the report .* Permission denied"):
        report.write(folder, images=False)


def test_a_winner_that_is_gone_leaves_no_best_recipe(folder: Path) -> None:
    searches.make(folder, trials=2, default=False)
    report.write(folder, images=False)
    for trial in (folder / "trials").iterdir():
        (trial / "progress.jsonl").unlink()
    report.write(folder, images=False)
    assert not (folder / "best.yaml").exists()
    assert "no configuration has a score" in checked(folder).text.lower()


# -- safety -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(folder: Path) -> Path:
    """A search in which everything that can be text is hostile."""
    searches.make(folder, trials=6, failed=1, about={HOSTILE: HOSTILE, "commit": "\u202eabc"})
    search = records.read_search(folder)
    records.write_search(
        folder, replace(search, recipe=HOSTILE, searcher=HOSTILE, space={**search.space, "about": HOSTILE})
    )
    for trial in records.read_trials(folder):
        failed = trial.state == "failed"
        words = {**trial.words, "about": HOSTILE + trial.name, **({"model.encoder": HOSTILE} if failed else {})}
        error = f"{HOSTILE}\n{HOSTILE}" if failed else ""
        records.write_trial(folder, replace(trial, words=words, error=error, node=HOSTILE))
    return folder


def test_hostile_text_stays_text(hostile: Path) -> None:
    report.write(hostile, images=False)
    page = checked(hostile)
    assert page.named("title") and len(page.named("title")) > 1  # that of the page, and the tooltips
    assert "<script>alert(1)</script>" in page.text and "{{ 7*7 }}" in page.text
    assert "\x00" not in page.text and "\x1b" not in page.text
    markdown = (hostile / "report.md").read_text(encoding="utf-8")
    outside = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert "<script" not in outside and "<img" not in outside


def test_hostile_text_cannot_break_out_of_the_best_recipe(hostile: Path) -> None:
    report.write(hostile, images=False)
    tree = yaml.safe_load((hostile / "best.yaml").read_text(encoding="utf-8"))
    assert tree["about"].startswith("</script>") and tree["optim"]["lr"]


def test_the_policy_lets_in_one_script_and_nothing_else(folder: Path) -> None:
    searches.make(folder, trials=2)
    text = report.write(folder, images=False).read_text(encoding="utf-8")
    policy = next(each["content"] for each in Page(text).named("meta") if "http-equiv" in each)
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert f"script-src 'sha256-{digest}'" in policy
    assert text.index("Content-Security-Policy") < text.index("<style>") < text.index("<script>")


def test_half_a_surrogate_pair_is_no_end_of_a_report(folder: Path) -> None:
    searches.make(folder, trials=2, failed=1)
    path = next(path for path in (folder / "trials").glob("*/trial.json") if '"failed"' in path.read_text())
    path.write_text(path.read_text(encoding="utf-8").replace("RuntimeError", "\\ud800 RuntimeError"), encoding="utf-8")
    report.write(folder, images=False)
    assert "RuntimeError" in checked(folder).text


# -- what it says -----------------------------------------------------------------------------------------------------


def test_the_headline_says_score_spread_and_gain(folder: Path) -> None:
    searches.make(folder)
    report.write(folder, images=False)
    page, study = checked(folder), Study.read(folder)
    winner, gain, default = study.winner(), study.gain(), study.default()
    assert winner and gain and default and winner.mean and winner.spread and gain.relative
    assert f"AbsRel {winner.mean:.4f} ± {winner.spread:.4f}" in page.text
    assert "mean of 3 seeds ± their standard deviation" in page.text
    assert f"The predicted depth is {100 * winner.mean:.3g} % off on average." in page.text
    assert f"{100 * gain.relative:.2g} % less error than the recipe as it was given" in page.text
    assert "More than luck of the seed" in page.text


def test_a_gain_within_the_spread_is_said_to_be_luck(folder: Path) -> None:
    searches.make(folder, points=POINTS, scores=[0.5, 0.4, 0.205, 0.21], seed_effect=0.1)
    said = [each.text for each in headline.headline(View(Study.read(folder))).sentences]
    assert any("may be luck of the seed" in each for each in said)
    assert not any("More than luck" in each for each in said)


def test_a_search_that_found_nothing_better_says_so(folder: Path) -> None:
    searches.make(folder, points=POINTS, scores=[0.9, 0.8, 0.7, 0.6])
    said = [each.text for each in headline.headline(View(Study.read(folder))).sentences]
    assert "The search found nothing better." in said
    assert any("more error than the recipe as it was given" in each for each in said)


def test_the_command_on_the_page_trains_the_best_recipe(folder: Path) -> None:
    searches.make(folder)
    report.write(folder, images=False)
    page, winner = checked(folder), Study.read(folder).winner()
    assert winner
    assert "depthray train best.yaml --workers 1 --cpus-per-worker 1" in page.text.replace("\\ ", "")
    best = recipes.flatten(recipes.load(str(folder / "best.yaml")))
    assert {key: best[key] for key in winner.outcome.words} == dict(winner.outcome.words)
    assert (folder / "best.yaml").read_text().startswith("# Best of the search over demo: trial ")


def test_the_python_on_the_page_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches.make(folder, trials=1, repeats=0)
    report.write(folder, images=False)
    small = {"data": {"frames": 24, "size": [32, 40], "val_fraction": 0.4}, "train": {"epochs": 1, "batch_size": 4}}
    tree = yaml.safe_load((folder / "best.yaml").read_text())
    for section, values in small.items():
        tree[section].update(values)
    (folder / "best.yaml").write_text(yaml.safe_dump(tree))
    code = (
        report._python("0001")
        .replace('load("trials/0001")', 'load("best", device="cpu")')
        .replace('"cuda" if', '"cpu" if')
    )
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    exec(compile(code, "page", "exec"), found)  # noqa: S102 - our own words
    assert found["network"].recipe.train.epochs == 1


def test_what_the_best_changes_is_listed_with_what_it_means(folder: Path) -> None:
    searches.make(folder, points=[{"optim.lr": 1e-3, "loss.gradient": 0.5}], trials=1)
    changes = headline.changes(View(Study.read(folder)))
    assert [(each.key, each.old, each.new, each.about) for each in changes] == [
        ("optim.lr", "0.003", "0.001", "peak learning rate")  # the recipe has loss.gradient=0.5 itself
    ]


def test_trials_are_ranked_and_failed_ones_tell_their_error(folder: Path) -> None:
    searches.make(folder, failed=2)
    report.write(folder, images=False)
    view = View(Study.read(folder))
    rows = listing.rows(view)
    ranks = [row.rank for row in rows if row.rank]
    assert ranks == list(range(1, len(ranks) + 1))
    scores = [float(row.score.raw) for row in rows if row.rank]
    assert scores == sorted(scores)
    assert [row.error for row in rows if row.state == "failed"] == [searches.FAULT] * 2
    assert searches.FAULT in html.unescape((folder / "report.html").read_text())
    assert all(len(row.cells) + 5 == len(listing.columns(view)) for row in rows)


def test_values_that_differ_from_the_recipe_are_marked(folder: Path) -> None:
    searches.make(folder, points=[{"optim.lr": 1e-3}, {"optim.lr": 3e-3}], repeats=0)
    view = View(Study.read(folder))
    place = [column.name for column in listing.columns(view)].index("lr") - 5
    cells = {row.trial: row.cells[place] for row in listing.rows(view)}
    assert {name: cell.kind for name, cell in cells.items()} == {"0001": "changed", "0002": "", "default": ""}


def test_a_trial_is_found_in_every_chart_and_in_the_table(folder: Path) -> None:
    searches.make(folder, objectives=("latency_ms",))
    text = report.write(folder, images=False).read_text(encoding="utf-8")
    winner = Study.read(folder).winner()
    assert winner
    inside = [svg for svg in charts(text) if f'data-trial="{winner.name}"' in svg]
    assert len(inside) >= 10  # one line, history, curves, pair, upright axes, 4 keys, trade-off, timeline
    assert all("<title>" in svg for svg in inside)


def test_the_doubt_about_importance_stands_beside_it(folder: Path) -> None:
    searches.make(folder, trials=8)
    report.write(folder, images=False)
    assert "Importance from 8 finished trials is a guess" in checked(folder).text
    searches.make(folder, trials=40)
    report.write(folder, images=False)
    assert "is a guess" not in checked(folder).text


def test_population_based_training_shows_who_copied_whom(folder: Path) -> None:
    searches.make(folder, history=True)
    report.write(folder, images=False)
    assert "Who copied whom" in checked(folder).text
    searches.make(folder, history=False)
    report.write(folder, images=False)
    assert "Who copied whom" not in checked(folder).text


def test_a_change_is_drawn_before_the_epoch_that_was_trained_with_it(folder: Path) -> None:
    searches.make(folder, trials=1, history=True, repeats=0)
    retold(folder, "0001", history=({"epoch": 3, "words": {"optim.lr": 5e-3}, "from": "0001"},))
    (each,) = (trial for trial in Study.read(folder).trials if trial.name == "0001")
    moves = figures._moves(View(Study.read(folder)), each, "optim.lr")
    assert [change.epoch for change in moves.changes] == [0, 2] and moves.changes[1].value == 5e-3 and moves.until == 4


def test_published_scores_stand_beside_ours_in_their_order(folder: Path) -> None:
    points = [{"optim.lr": 2e-4}, {"optim.lr": 2e-3}, {"optim.lr": 8e-3}]
    said = [{"abs_rel": 0.2, "rmse": 1.0}, {"abs_rel": 0.1}, {"abs_rel": 0.3}]
    space = {
        "points": [
            {"name": name, **point, "reference": reference}
            for name, point, reference in zip(("low", "mid", HOSTILE), points, said, strict=True)
        ]
    }
    searches.make(folder, points=points, scores=[0.25, 0.21, 0.4], space=space, stopped=0, nan=0, failed=0)
    table = listing.published(View(Study.read(folder)))
    assert table and table.head[:6] == ("configuration", "trial", "AbsRel, published", "its place", "ours", "its place")
    assert [line.cells[:5] for line in table.lines] == [
        ("0001", "0.2000", "2", "0.2500", "2"),
        ("0002", "0.1000", "1", "0.2100", "1"),
        ("0003", "0.3000", "3", "0.4000", "3"),
    ]
    assert table.lines[0].cells[5:] == ("1.000", "1", "0.7500", "2") and table.lines[1].cells[5] == "–"
    report.write(folder, images=False)
    assert "Beside the published scores" in checked(folder).text


def test_a_search_without_published_scores_has_no_such_table(folder: Path) -> None:
    searches.make(folder, trials=2)
    assert listing.published(View(Study.read(folder))) is None


@pytest.mark.parametrize(
    ("ended", "ago", "kind", "said"),
    [
        (True, 1e6, "ended", "ended 20"),
        (False, 60, "running", "running: 5 of "),
        (False, 1e5, "left", "the last sign of life was"),
    ],
)
def test_the_status_tells_a_search_that_runs_from_one_that_was_left(
    folder: Path, ended: bool, ago: float, kind: str, said: str
) -> None:
    searches.make(folder, trials=6, running=0 if ended else 2, repeats=0)
    view = View(Study.read(folder))
    sign = view.study.search.started + view.study.budget().wall_seconds
    found = headline.status(view, sign + ago)
    assert found.kind == kind and said in found.text


def test_many_trials_are_all_listed_and_the_best_drawn(folder: Path) -> None:
    searches.make(folder, trials=450, repeats=0, default=False)
    view = View(Study.read(folder))
    assert len(view.searched) == 450 and 300 <= len(view.drawn) <= 400
    best = [each.name for each in view.study.ranking()[:200]]
    assert set(best) <= {each.name for each in view.drawn}
    assert len(listing.rows(view)) == 450


def test_markdown_has_the_essentials_in_tables_that_line_up(folder: Path) -> None:
    searches.make(folder, failed=1)
    report.write(folder, images=False)
    text = (folder / "report.md").read_text(encoding="utf-8")
    for part in ("## Train it again", "## Before you believe it", "## Cost", "## What mattered", "## Trials"):
        assert part in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = table.splitlines()
        assert len({len(line) for line in lines}) == 1
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "depthray train best.yaml" in text


def test_markdown_text_is_taken_for_nothing_else() -> None:
    assert plain("a|b\n<script>`x`[y](z) & *c*") == "a\\|b &lt;script&gt;\\`x\\`\\[y](z) &amp; \\*c\\*"


def test_main_says_the_headline_and_where_the_report_lies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    searches.make(folder)
    assert report.main([str(folder), "--no-images"]) == 0
    said = capsys.readouterr().out
    assert "Best configuration: trial" in said and "AbsRel 0." in said
    assert f"report   {folder / 'report.html'}" in said and "report.md, trials.csv, best.yaml, study.json" in said


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "–"), (0, "0 s"), (45, "45 s"), (99.6, "2 min"), (3000, "50 min"), (11100, "3 h 05 min"), (2e5, "2 d 7 h")],
)
def test_spans_of_time_are_said_in_two_units_at_most(seconds: float | None, said: str) -> None:
    assert phrases.span(seconds) == said


@pytest.mark.parametrize(
    ("value", "spread", "said"),
    [
        (0.13218, 0.00314, "0.1322 ± 0.0031"),
        (0.3, None, "0.3000"),
        (0.3, 0.0, "0.3000 ± 0"),
        (0.3, 2e-6, "0.3000 ± 2e-6"),
        (12.345, 0.5, "12.35 ± 0.50"),
        (2.5e-5, 1e-6, "2.5e-5 ± 1e-6"),
        (0.0, 0.1, "0 ± 0.1"),
        (None, None, "–"),
        (float("nan"), 1.0, "–"),
    ],
)
def test_scores_keep_their_zeros_and_spreads_their_decimals(value: float, spread: float | None, said: str) -> None:
    assert phrases.score(value, spread) == said


@pytest.mark.parametrize(
    ("metric", "share", "said"),
    [
        ("abs_rel", 0.123, "12 % less error"),
        ("abs_rel", -0.05, "5 % more error"),
        ("delta1", 0.0312, "3.1 % higher"),
        ("delta1", -1.5, "150 % lower"),
    ],
)
def test_gains_are_said_by_the_direction_of_the_metric(metric: str, share: float, said: str) -> None:
    assert phrases.less(metric, share) == said


def test_every_metric_that_ranks_has_a_name() -> None:
    from typing import get_args

    from depthray.sections import Monitor

    assert set(get_args(Monitor)) <= set(phrases.NAMES)
    assert phrases.named("rmse") == "RMSE [m]" and phrases.named("never heard of") == "never heard of"
    assert all(
        phrases.meaning(metric, 0.5) == ""
        or "0.5" in phrases.meaning(metric, 0.5)
        or "50" in phrases.meaning(metric, 0.5)
        for metric in get_args(Monitor)
    )


def test_a_long_command_is_wrapped_where_a_shell_joins_it_again() -> None:
    command = "depthray train best.yaml --data '/data/my rooms --all/it'\"'\"'s' --workers 16 --gpu --cpus-per-worker 4"
    wrapped = report._wrapped(command)
    assert len(wrapped.splitlines()) > 1 and max(map(len, wrapped.splitlines())) < 70
    assert shlex.split(wrapped.replace("\\\n", "")) == shlex.split(command)
    assert report._wrapped("") == ""


@pytest.mark.parametrize(("count", "said"), [(950, "950"), (12_345, "12.3 k"), (2_073_600, "2.07 M"), (3e9, "3 G")])
def test_counts_are_short(count: float, said: str) -> None:
    assert phrases.compact(count) == said


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small network over rendered frames, with its checkpoint."""
    import torch

    from depthray.run import prepare, record

    run = tmp_path_factory.mktemp("trained") / "run"
    words = ["data.frames=32", "data.size=32,40", "data.val_fraction=0.5", "train.epochs=1", "train.batch_size=4"]
    recipe = recipes.load("demo", words)
    prepare(run, recipe, resume=False)
    for _ in record(recipe, run, torch.device("cpu")):
        pass
    return run


def with_checkpoints(folder: Path, run: Path, names: list[str]) -> None:
    for name in names:
        shutil.copytree(run / "checkpoints", folder / "trials" / name / "checkpoints")


def test_the_same_frames_are_shown_for_the_best_and_the_default(folder: Path, trained: Path) -> None:
    searches.make(folder, trials=6)
    best = [each.name for each in Study.read(folder).ranking()[:3]]
    with_checkpoints(folder, trained, [*best, "default"])
    report.write(folder)
    page = checked(folder)
    pictures = page.named("img")
    assert len(pictures) == 4 and len({each["src"] for each in pictures}) == 1  # one network, hence one picture
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.glob("trials/*/sheet-*.jpg"))
    assert len(kept) == 4
    assert sum("checked" in each for each in page.named("input")) == 1
    assert [each["data-trial"] for each in page.named("label")] == [
        *[Study.read(folder).winner().name],
        *[  # type: ignore[union-attr]
            name for name in best if name != Study.read(folder).winner().name
        ],
        "default",
    ]  # type: ignore[union-attr]


def test_pictures_are_drawn_once_for_a_checkpoint(folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches.make(folder, trials=1, default=False, repeats=0)
    with_checkpoints(folder, trained, ["0001"])
    report.write(folder)
    (old,) = folder.glob("trials/0001/sheet-*.jpg")
    monkeypatch.setattr(sheets, "_drawn", lambda *_: pytest.fail("drawn again"))
    report.write(folder)
    monkeypatch.undo()
    stale = old.rename(old.with_name("sheet-epoch-0000-step-00000001.jpg"))
    report.write(folder)
    assert old.exists() and not stale.exists()


def test_data_that_is_not_there_leaves_a_report_that_says_so(folder: Path, trained: Path) -> None:
    searches.make(folder, trials=3, repeats=0)
    report.write(folder)
    page = checked(folder)
    assert not page.named("img") and "Not all pictures could be made" in page.text
    with_checkpoints(folder, trained, ["0001"])
    broken = next((folder / "trials/0001/checkpoints").glob("*/model.safetensors"))
    broken.write_bytes(b"damaged")
    report.write(folder)
    assert "Not all pictures could be made" in checked(folder).text


def test_frames_that_have_moved_are_found_by_data(folder: Path, trained: Path, tmp_path: Path) -> None:
    searches.make(folder, trials=1, default=False, repeats=0)
    with_checkpoints(folder, trained, ["0001"])
    seen: list[Path | str | None] = []

    def drawn(path: Path, data: Path | str | None) -> Any:
        import numpy as np

        seen.append(data)
        return np.zeros((40, 2000, 3), np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sheets, "_drawn", drawn)
        report.main([str(folder), "--data", str(tmp_path)])
    assert seen == [str(tmp_path)]
    assert checked(folder).named("img")[0]["width"] == str(sheets.WIDEST)


def test_large_sheets_are_pressed_to_fit() -> None:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3)).astype(np.uint8)
    assert len(sheets._jpeg(noise)) < 1.5 * sheets.LARGEST
