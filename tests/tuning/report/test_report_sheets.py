"""Sample sheets of a report: the same frames for the best trials and the default, drawn once, and small."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import searches
from report_html import checked

from depthray.training import preflight
from tuning.report import build, sample_sheets
from tuning.study.study import Study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "search"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small network over rendered frames, with its checkpoint."""
    import torch

    from depthray.runs.run import prepare, record

    run = tmp_path_factory.mktemp("trained") / "run"
    words = ["data.frames=32", "data.size=32,40", "data.val_fraction=0.5", "train.epochs=1", "train.batch_size=4"]
    recipe = preflight.load("demo", words)
    prepare(run, recipe, resume=False)
    for _ in record(recipe, run, torch.device("cpu")):
        pass
    return run


def with_checkpoints(folder: Path, run: Path, names: list[str]) -> None:
    for name in names:
        shutil.copytree(run / "checkpoints", folder / "trials" / name / "checkpoints")


def test_the_same_frames_are_shown_for_the_best_and_the_default(folder: Path, trained: Path) -> None:
    searches.make(folder, trials=6)
    best = [each.name for each in Study.read(folder).ranking[:3]]
    with_checkpoints(folder, trained, [*best, "default"])
    build.write(folder)
    page = checked(folder)
    images = page.named("img")
    assert len(images) == 4 and len({each["src"] for each in images}) == 1  # one network, hence one image
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.glob("trials/*/sheet-*.jpg"))
    assert len(kept) == 4
    assert sum("checked" in each for each in page.named("input")) == 1
    winner = Study.read(folder).winner
    assert winner
    others = [name for name in best if name != winner.name]
    assert [each["data-trial"] for each in page.named("label")] == [winner.name, *others, "default"]


def test_sheets_are_drawn_once_for_a_checkpoint(folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searches.make(folder, trials=1, default=False, repeats=0)
    with_checkpoints(folder, trained, ["0001"])
    build.write(folder)
    (old,) = folder.glob("trials/0001/sheet-*.jpg")
    monkeypatch.setattr(sample_sheets, "draw_sheet", lambda *_: pytest.fail("drawn again"))
    build.write(folder)
    monkeypatch.undo()
    stale = old.rename(old.with_name("sheet-epoch-0000-step-00000001.jpg"))
    build.write(folder)
    assert old.exists() and not stale.exists()


def test_missing_data_is_mentioned_in_the_report(folder: Path, trained: Path) -> None:
    searches.make(folder, trials=3, repeats=0)
    build.write(folder)
    page = checked(folder)
    assert not page.named("img") and "Some images could not be made" in page.text
    with_checkpoints(folder, trained, ["0001"])
    broken = next((folder / "trials/0001/checkpoints").glob("*/model.safetensors"))
    broken.write_bytes(b"damaged")
    build.write(folder)
    assert "Some images could not be made" in checked(folder).text


def test_frames_that_have_moved_are_found_by_data(folder: Path, trained: Path, tmp_path: Path) -> None:
    searches.make(folder, trials=1, default=False, repeats=0)
    with_checkpoints(folder, trained, ["0001"])
    seen: list[Path | str | None] = []

    def drawn(path: Path, data: Path | str | None) -> Any:
        import numpy as np

        seen.append(data)
        return np.zeros((40, 2000, 3), np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_sheets, "draw_sheet", drawn)
        build.main([str(folder), "--data", str(tmp_path)])
    assert seen == [str(tmp_path)]
    assert checked(folder).named("img")[0]["width"] == str(sample_sheets.MAX_WIDTH)


def test_large_sheets_are_compressed_to_fit() -> None:
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3)).astype(np.uint8)
    assert len(sample_sheets.encode_jpeg(noise)) < 1.5 * sample_sheets.MAX_BYTES
