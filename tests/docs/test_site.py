"""The site: it builds without a warning and loads nothing from elsewhere; its hooks, and the page of recipes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from doc_pages import blocks, commands
from paths import ROOT
from scripts import load_script

FOLDER = ROOT / "docs" / "site"
LOADED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*>")  # tags by which a page loads something
ELSEWHERE = re.compile(r"\b(?:src|href)=[\"']?(?:https?:)?//")


site_hooks, recipe_zoo, gallery, run_gallery = (
    load_script("site_hooks", FOLDER),
    load_script("recipe_zoo", FOLDER),
    load_script("gallery", FOLDER),
    load_script("run_gallery", FOLDER),
)
TASKS = ("training", "fine-tuning", "completing", "tuning", "evaluation", "export", "serving", "cluster")
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name, reason="needs pip install 'depthray[docs]'")
    out = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return out


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        if page.name != "nyu-report.html":  # no page of MkDocs; the report's own tests read it
            tags = LOADED.findall(page.read_text(encoding="utf-8"))
            assert tags and not [tag for tag in tags if ELSEWHERE.search(tag)], page.name


def test_the_reference_shows_every_public_function_with_its_docstring(site: Path) -> None:
    html = (site / "reference.html").read_text(encoding="utf-8")
    for names in site_hooks.PUBLIC.values():
        for name in names:
            assert f'id="{name}"' in html, name
    assert "Search over a recipe's keys on Ray" in html or "Search over a recipe&#39;s keys on Ray" in html
    assert "<h2" in html and ":::" not in html


def test_llms_txt_names_every_page_and_where_its_markdown_is(site: Path) -> None:
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# depthray\n\n> Depth from images")
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", text, re.MULTILINE)
    assert {"index.md", "training.md", "recipes.md", "troubleshooting.md", "reference.html"} <= set(listed)
    assert [name for name in listed if not (site / name).is_file()] == []
    assert "## Tasks" in text and "](own-code.md): An architecture, a form of data set" in text


def test_every_public_name_is_there() -> None:
    package = {name for names in site_hooks.PUBLIC.values() for name in names if name.count(".") == 1}
    import depthray

    assert package == {f"depthray.{name}" for name in depthray._FUNCTIONS}


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "[data](docs/data.md)", "[data](data.md)"),
        ("index.md", "[b](benchmarks/README.md)", f"[b]({site_hooks.SOURCE}/blob/main/benchmarks/README.md)"),
        ("index.md", "[s](docs/scaling/README.md)", "[s](scaling/README.md)"),
        ("architecture.md", "[c](../CONTRIBUTING.md)", "[c](contributing.md)"),
        ("data.md", "[t](training.md#checkpoints)", "[t](training.md#checkpoints)"),
        ("data.md", "[t](#shards)", "[t](#shards)"),
        ("data.md", "[t](../tests)", f"[t]({site_hooks.SOURCE}/tree/main/tests)"),
        ("tuning.md", "[r](examples/nyu-report.md)", "[r](examples/search-report.md)"),
        ("scaling/README.md", "[r](../training.md)", "[r](../training.md)"),
        ("scaling/README.md", "![p](scaling.svg)", "![p](scaling.svg)"),
        ("data.md", "[w](https://example.org/a.md)", "[w](https://example.org/a.md)"),
        ("data.md", "[gone](no-such-page.md)", "[gone](no-such-page.md)"),  # which MkDocs reports
        ("index.md", "```sh\n[d](docs/data.md)\n```", "```sh\n[d](docs/data.md)\n```"),
    ],
)
def test_links_between_files_become_links_between_pages(page: str, link: str, expected: str) -> None:
    assert site_hooks.relink(link, page) == expected


def test_a_diagram_that_needs_a_script_is_left_out() -> None:
    shown = site_hooks.without_diagrams("before\n\n```mermaid\nflowchart TD\n```\n\nafter\n")
    assert "flowchart" not in shown and shown.startswith("before") and shown.endswith("after\n")


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("# Title\n\nA first sentence. A second.\n", "A first sentence."),
        ("# Title\n\n```bash\nmake demo\n```\n\nSee [the page](a.md): more.\n", "See the page"),
        ("# Title\n\n| a |\n|---|\n", ""),
    ],
)
def test_a_page_is_described_by_its_first_sentence(markdown: str, expected: str) -> None:
    assert site_hooks.about(markdown) == expected


def test_the_page_of_recipes_is_that_of_their_headers() -> None:
    assert recipe_zoo.PAGE.read_text(encoding="utf-8") == recipe_zoo.page(), (
        "run: python docs/site/recipe_zoo.py --write"
    )


@pytest.mark.parametrize(
    ("header", "model", "expected"),
    [
        (
            "NYU Depth V2:\n#   AbsRel 0.176 (mean map 0.395), RMSE 0.61 m, in 23 minutes. Worse: AbsRel 0.3",
            "{name: unet, encoder: efficientnet_lite0, weights: 'imagenet?'}",
            ("AbsRel 0.176, RMSE 0.61 m", "NYU", "23", "ImageNet, Apache-2.0"),
        ),
        (
            "On 40 rooms: AbsRel about 0.26, in about 75 s",
            "{name: unet}",
            ("AbsRel about 0.26", "rendered rooms", "1.2", "random"),
        ),
        (
            "With model.weights=depth_anything_v2_metric_hypersim_vits. Not measured.",
            "{name: dpt}",
            ("not measured", "", "", "Depth Anything V2, metric, Apache-2.0"),
        ),
    ],
)
def test_a_row_of_a_recipe(header: str, model: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"# yaml-language-server: x\n# A network.\n#\n# {header}\nabout: a network\nmodel: {model}\n", encoding="utf-8"
    )
    shown = recipe_zoo.read(path)
    assert (shown.score, shown.frames, shown.minutes, shown.weights) == expected


def test_the_text_of_a_header_has_commands_as_blocks_and_keys_as_code() -> None:
    header = [
        "A network.",
        "",
        "  depthray data pack NYU packed",
        "  depthray train demo --data packed",
        "with data.size=96,128: fast (optim.lr=1e-3).",
    ]
    assert recipe_zoo.body(header) == (
        "A network.\n\n```bash\ndepthray data pack NYU packed\ndepthray train demo --data packed\n```\n\n"
        "with `data.size=96,128`: fast (`optim.lr=1e-3`)."
    )


def test_every_page_has_one_title() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        text = site_hooks.FENCE.sub("", page.read_text(encoding="utf-8"))
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1, page.name


def test_lists_begin_after_an_empty_line() -> None:
    """GitHub needs none before a list, but MkDocs would show it as one paragraph."""
    wrong = []
    for page in [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in site_hooks.OUTSIDE.values())]:
        lines = site_hooks.FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
        for before, line in pairwise(lines):
            if re.match(r"(- |\d+\. )", line) and before.strip() and not re.match(r"(- |\d+\. |\s|#)", before):
                wrong.append(f"{page.name}: {line}")
    assert wrong == []


def test_no_font_and_no_card_of_a_repository_is_loaded_from_its_server() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False and "repo_url" not in settings


def test_pictures_are_those_that_the_galleries_make_and_small() -> None:
    committed = {path.name: path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()}
    made = [*gallery.PICTURES, *run_gallery.PICTURES]
    assert set(committed) == {f"{name}.png" if name == gallery.OPENING else f"{name}.jpg" for name in made}
    assert max(committed.values()) < 150_000 and sum(committed.values()) < 1_000_000
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert {Path(picture).name for picture in PICTURE.findall(page)} == set(committed)


def test_the_readme_opens_with_a_picture() -> None:
    opening = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    assert PICTURE.findall(opening) == [f"docs/pictures/{gallery.OPENING}.png"]


@pytest.mark.parametrize("task", TASKS)
def test_the_page_of_a_task_has_what_one_looks_for(task: str) -> None:
    text = (ROOT / "docs" / f"{task}.md").read_text(encoding="utf-8")
    drawn = re.findall(r"`python (docs/\S+\.py)([^`]*)`", text)
    pictures = PICTURE.findall(text)
    assert pictures
    for picture in pictures:
        assert picture.startswith("scaling/") or any(Path(picture).stem in words.split() for _, words in drawn), picture
    assert drawn and all((ROOT / script).is_file() for script, _ in drawn)
    shown = [
        line for block in blocks("bash", "sh", "console") if block.page.stem == task for line in commands(block.text)
    ]
    assert len(shown) >= 5 and any(block.page.stem == task for block in blocks("python"))
    assert {"## What it costs", "## What goes wrong"} <= set(text.splitlines())


def test_every_picture_says_what_it_shows() -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert "![](" not in page.read_text(encoding="utf-8"), page.name


def test_points_from_the_same_place_are_the_image() -> None:
    rows, columns = np.mgrid[0 : gallery.HEIGHT, 0 : gallery.WIDTH]
    image = np.stack([rows, columns // 2, rows * 0], axis=2).astype(np.uint8)
    camera = np.array([[250, 0, 159.5], [0, 250, 119.5], [0, 0, 1]], np.float32)
    frame = {"image": image, "depth": np.full(image.shape[:2], 2, np.float32), "intrinsics": camera}
    straight, moved = gallery.turned(frame, 0), gallery.turned(frame, 30)
    assert np.abs(straight[:-1, :-1].astype(int) - image[:-1, :-1])[..., :2].max() <= 1
    assert (moved == 255).all(axis=2).mean() > 0.1  # what the camera has not seen is white


def test_tiles_are_apart_and_in_order() -> None:
    black, red = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), [200, 0, 0], np.uint8)
    picture = gallery.tiles([[black, red], [red, black]])
    assert picture.shape == (8 + gallery.GAP, 12 + gallery.GAP, 3)
    assert (
        (picture[:4, :6] == 0).all()
        and (picture[:4, -6:, 0] == 200).all()
        and (picture[4 : 4 + gallery.GAP] == 255).all()
    )
