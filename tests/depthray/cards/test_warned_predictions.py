"""`depthray predict` says what of an image, its camera and its depth is not as in training; an export does too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint
from exports import write_export
from model_cards import FACTS, LIMITS, with_facts
from PIL import Image
from videos import write_video

from depthray import load
from depthray.__main__ import main
from depthray.imaging.camera import Camera
from depthray.runtimes import export_folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_facts(write_checkpoint(tmp_path_factory.mktemp("run")))


def smooth(height: int = 64, width: int = 96) -> np.ndarray:
    return np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None] // 4, (height, width, 3)).copy()


def test_images_and_videos_are_warned_of_and_predicted(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "dark.png"
    Image.fromarray(smooth()).save(photo)
    video = write_video(tmp_path / "clip.mp4", [smooth()] * 3)
    words = [str(photo), str(video), "--out", str(tmp_path / "out"), "--intrinsics", "1000,1000,40,30"]
    assert main(["predict", str(checkpoint), *words]) == 0
    lines = capsys.readouterr().err.splitlines()
    for path in (photo, video):  # of the video the first frame alone
        mine = [line.removeprefix(f"WARNING: {path}: ") for line in lines if line.startswith(f"WARNING: {path}: ")]
        assert [text.partition(" ")[0] for text in mine] == ["dark:", "focal"]


def test_a_network_without_facts_is_as_silent_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(smooth()).save(tmp_path / "dark.png")
    words = [str(tmp_path / "dark.png"), "--out", str(tmp_path / "out")]
    assert main(["predict", str(write_checkpoint(tmp_path / "run")), *words]) == 0
    assert "WARNING" not in capsys.readouterr().err


def test_an_export_carries_the_facts_and_its_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_export(tmp_path / "export", facts=FACTS)
    assert export_folder.read(folder).facts == FACTS
    predictor = load(folder, device="cpu")
    assert predictor.warnings(smooth(), camera=Camera(9, 9, 0, 0))[-1].startswith("focal length")
    assert main(["card", str(folder)]) == 3  # one that was written before there were cards
    assert "MODEL_CARD.md" in capsys.readouterr().err
    (folder / "MODEL_CARD.md").write_text("# Model card: tiny\n")
    export_folder.write(folder, export_folder.parse((folder / "model.json").read_bytes(), where=folder)[0])
    assert main(["card", str(folder)]) == 0 and "# Model card: tiny" in capsys.readouterr().out
    old = write_export(tmp_path / "old")
    assert export_folder.read(old).facts is None and b'"facts"' not in (old / "model.json").read_bytes()


def test_depth_beyond_training_is_a_warning_in_metres_alone(checkpoint: Path) -> None:
    predictor = load(checkpoint, device="cpu")
    predictor.facts = replace(FACTS, limits=replace(LIMITS, depth=(50.0, 60.0)))
    depth = predictor.predict(smooth())
    assert predictor.warnings(smooth(), depth=depth)[-1].startswith("depth: 100 % of it is beyond the 50.00 to 60.00 m")
    recipe = predictor.recipe
    predictor.recipe = recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"target": "relative"})})
    assert not [text for text in predictor.warnings(smooth(), depth=depth) if text.startswith("depth")]
