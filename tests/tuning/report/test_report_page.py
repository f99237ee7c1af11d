"""The report of a search in a real headless Chromium: one trial marked everywhere, tables sorted, ranges drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromium
import pytest
import searches

from tuning.report import build
from tuning.study.study import Study

if TYPE_CHECKING:
    from playwright import sync_api

Open = Callable[..., "sync_api.Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with chromium.launched() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = searches.make(tmp_path_factory.mktemp("page") / "search", trials=16, objectives=("latency_ms",))
    build.write(made, images=False)
    return made


@pytest.fixture
def show(browser: sync_api.Browser, folder: Path) -> Iterator[Open]:
    """Opens the report; at the end nothing may have been logged, thrown, refused by the policy, or downloaded."""
    faults: list[str] = []
    contexts = []

    def opened(**options: Any) -> sync_api.Page:
        context = browser.new_context(**{**chromium.DESK, **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"thrown: {error}"))
        page.on("console", lambda line: faults.append(f"logged: {line.text}"))
        page.on(
            "request",
            lambda request: faults.extend([] if request.url.startswith(("file:", "data:")) else [request.url]),
        )
        page.goto((folder / "report.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def marked(page: sync_api.Page) -> set[str]:
    return set(page.evaluate("[...document.querySelectorAll('.on[data-trial]')].map(each => each.dataset.trial)"))


def order(page: sync_api.Page) -> list[str]:
    rows = "[...document.querySelectorAll('.trials tbody')].filter(row => !row.hidden)"
    found: list[str] = page.evaluate(f"{rows}.map(row => row.dataset.trial)")
    return found


def test_a_trial_under_the_pointer_is_marked_in_all_charts_and_the_table(show: Open, folder: Path) -> None:
    page, winner = show(), Study.read(folder).winner
    assert winner
    page.locator(f".trials tbody[data-trial='{winner.name}'] th").hover()
    assert marked(page) == {winner.name}
    assert page.locator(f".on[data-trial='{winner.name}']").count() > 8
    page.locator("h1").hover()
    assert marked(page) == set()


def test_a_click_keeps_the_mark_until_escape(show: Open) -> None:
    page = show()
    page.locator(".chart .t.best .m").first.click()
    page.locator("h1").hover()
    assert len(marked(page)) == 1
    page.keyboard.press("Escape")
    assert marked(page) == set()


def test_the_tooltip_describes_the_trial(show: Open, folder: Path) -> None:
    page, winner = show(), Study.read(folder).winner
    assert winner and winner.outcome.score
    page.locator(".chart .t.best .m").first.hover()
    tooltip = page.inner_text("#tip")
    assert tooltip.startswith(f"{winner.name} · AbsRel {winner.outcome.score:.4f}")
    assert "the best configuration" in tooltip
    assert f"rank {1 + [each.name for each in Study.read(folder).ranking].index(winner.name)} of" in tooltip
    assert page.locator("svg title").count() == 0  # the browser's own would cover it


def test_rows_are_reached_and_marked_by_key(show: Open) -> None:
    page = show()
    row = page.locator(".trials tbody tr").first
    row.focus()
    assert marked(page) == {order(page)[0]}


def test_the_table_is_sorted_by_any_column_with_gaps_last(show: Open, folder: Path) -> None:
    page, study = show(), Study.read(folder)
    page.locator(".trials thead th", has_text="lr").click()
    values = [study.value(next(each for each in study.trials if each.name == name), "optim.lr") for name in order(page)]
    assert values == sorted(values)
    page.locator(".trials thead th", has_text="lr").click()
    assert page.locator(".trials thead th", has_text="lr").get_attribute("aria-sort") == "descending"
    page.locator(".trials thead th", has_text="AbsRel").click()
    scores = {each.name: each.score for each in study.trials}
    found = [scores[name] for name in order(page)]
    known = [score for score in found if score is not None]
    assert known == sorted(known) and found[len(known) :] == [None] * (len(found) - len(known)) != []


def test_states_are_filtered(show: Open) -> None:
    page = show()
    page.locator(".filters button[data-state=failed]").click()
    assert page.evaluate(
        "[...document.querySelectorAll('.trials tbody:not([hidden])')].every(r => r.dataset.state === 'failed')"
    )
    page.locator(".filters button[data-state=all]").click()
    assert len(order(page)) == page.locator(".trials tbody").count()


def test_a_range_drawn_on_an_axis_leaves_the_trials_that_pass_there(show: Open, folder: Path) -> None:
    page, study = show(), Study.read(folder)
    handle = page.locator(".parallel [data-axis] .brush").last  # the scores
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + box["height"] * 0.8)
    page.mouse.down()
    page.mouse.move(x, box["y"] + box["height"], steps=4)
    page.mouse.up()
    kept = order(page)
    scores = {each.name: each.score for each in study.trials if each.trial.kind == "search" and not each.lost}
    limit = max(scores[name] or 0 for name in kept)
    assert 0 < len(kept) < len(scores)
    assert set(kept) == {name for name, score in scores.items() if score is not None and score <= limit}
    page.keyboard.press("Escape")
    assert len(order(page)) == len(study.trials)


def test_the_command_is_copied(show: Open, browser: sync_api.Browser) -> None:
    page = show(permissions=["clipboard-read", "clipboard-write"])
    page.locator(".retrain .copy button").first.click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("depthray train best.yaml")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [chromium.DESK, chromium.PHONE], ids=["desk", "phone"])
def test_nothing_is_wider_than_the_screen_and_text_is_readable(show: Open, device: dict[str, Any], scheme: str) -> None:
    page = show(**device, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    heights = page.evaluate(
        "[...document.querySelectorAll('.chart text')].map(t => t.getBoundingClientRect().height).filter(h => h > 0)"
    )
    assert min(heights) > 9


def test_without_a_script_all_is_there(browser: sync_api.Browser, folder: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / "report.html").as_uri())
    assert page.locator("svg title").count() > 50 and page.locator(".trials tbody").count() > 16
    assert not page.locator("button").first.is_visible()
    context.close()
