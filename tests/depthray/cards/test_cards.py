"""Model cards: what training records of its frames, what reports add, and the card in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from model_cards import FACTS

from depthray.__main__ import main
from depthray.cards import collected, measured, run_card
from depthray.checkpoints import load, manifest, model_facts, save
from depthray.checkpoints.calibration import Calibration
from depthray.data import sources
from depthray.data.source import Frame
from depthray.errors import CheckpointError
from depthray.runs.run import _contents, prepare, record
from depthray.runtimes import export_folder
from depthray.training import preflight
from depthray.training.loop import Epoch, SavePoint


class Walls:
    """Frames of a wall: of one brightness and distance each, seen by one camera."""

    fingerprint = "f" * 64

    def __init__(self, *, camera: bool = True) -> None:
        self.frames = [Frame(str(index), f"scene-{index % 4}", "", "nyu") for index in range(100)]
        self.camera = camera
        self.seen: list[int] = []

    def read(self, index: int) -> Any:
        self.seen.append(index)
        image = np.full((48, 64, 3), 2 * index, np.uint8)
        image[::8] = 255
        sample: dict[str, Any] = {"image": image, "depth": np.full((48, 64), 1 + index / 20, np.float32)}
        sample["depth"][0] = 0  # unmeasured
        return sample | ({"intrinsics": np.diag([50.0, 50.0, 1.0]).astype(np.float32)} if self.camera else {})


def test_limits_are_those_of_frames_spread_over_all_of_them() -> None:
    source: Any = Walls()
    section = preflight.load("demo", ["data.size=24,32"]).data
    limits = measured.limits(source, range(100), section)
    assert limits.measured == len(source.seen) == measured.SAMPLE and source.seen[-1] >= 95
    assert limits.width == (64, 64) and limits.height == (48, 48)
    assert limits.focal == (50, 50) and limits.input_focal == (25, 25)
    assert limits.depth is not None and 1 <= limits.depth[0] < 1.1 and 5.6 < limits.depth[1] < 6
    # Of black walls one row in eight is white.
    assert limits.brightness[0] == pytest.approx(1 / 8, abs=0.01) and 0.75 < limits.brightness[1] < 0.9
    without: Any = Walls(camera=False)
    assert measured.limits(without, range(10), section).focal is None


def test_data_is_named_with_its_terms(tmp_path: Path) -> None:
    source: Any = Walls()
    section = preflight.load("demo", []).data.model_copy(update={"root": str(tmp_path)})
    data = measured.training_data(source, range(100), section)
    nyu = sources.terms("nyu")
    assert nyu and (data.names, data.frames, data.scenes, data.places) == (("nyu",), 100, 4, (nyu.places,))
    assert data.licences == (nyu.licence,)
    (tmp_path / "LICENSE.txt").write_text("\n# CC BY 4.0\nmore\n")
    assert measured.training_data(source, range(100), section).licences == ("CC BY 4.0", nyu.licence)


def test_blur_lowers_sharpness_and_darkness_does_not() -> None:
    rng = np.random.default_rng(0)
    sharp = np.repeat(rng.integers(0, 200, (48, 64, 1), np.uint8), 3, axis=2)
    blurred = sum(np.roll(sharp.astype(float), shift, axis=1) for shift in range(5)) / 5
    assert measured.light(blurred.astype(np.uint8)).sharpness < 0.8 * measured.light(sharp).sharpness
    assert measured.light(sharp // 4).sharpness == pytest.approx(measured.light(sharp).sharpness, rel=0.1)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda tree: tree.update(format=2), "another version"),
        (lambda tree: tree["limits"].update(measured="many"), "limits.measured"),
        (lambda tree: tree["limits"].update(depth=[None, 1.0]), "limits.depth"),
        (lambda tree: tree.pop("data"), "data"),
    ],
)
def test_facts_are_read_back_and_others_refused(harm: Any, message: str) -> None:
    data = model_facts.render(FACTS)
    assert model_facts.parse(data, where=Path("model.json")) == FACTS
    tree = json.loads(data)
    harm(tree)
    with pytest.raises(CheckpointError, match=message):
        model_facts.parse(json.dumps(tree).encode(), where=Path("model.json"))
    with pytest.raises(CheckpointError, match="damaged"):
        model_facts.parse(data[:-20], where=Path("model.json"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, of a network that predicts where there is a depth besides."""
    folder = tmp_path_factory.mktemp("cards") / "run"
    words = ["data.size=32,64", "data.frames=16", "train.batch_size=8", "train.epochs=1", "model.encoder=tiny"]
    words += ["model.valid_mask=true", "loss.valid_bce=0.1", "data.max_depth=4", "model.max_depth=4"]
    recipe = preflight.load("demo", words)
    prepare(folder, recipe, resume=False)
    for _ in record(recipe, folder, torch.device("cpu")):
        pass
    return folder


def test_a_run_writes_facts_into_its_checkpoints_and_the_card_of_the_best(run: Path) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    facts = load.read_facts(checkpoint)
    assert facts and facts == load.load(checkpoint).facts
    assert facts.data.names == ("synthetic",) and facts.data.fingerprint == manifest.read(checkpoint).fingerprint
    (scores,) = facts.scores
    mean, low, high = scores.metrics["abs_rel"]
    metrics = load.read_metrics(checkpoint)
    assert mean == pytest.approx(metrics["abs_rel"]) and low <= mean <= high
    assert 0 <= metrics["invalid_iou"] < 1 and 0 < metrics["invalid_accuracy"] <= 1  # of what is beyond 4 m
    card = (run / "MODEL_CARD.md").read_text()
    assert facts.data.fingerprint in card and f"{low:.4f} to {high:.4f}" in card and "![" not in card
    assert "rendered rooms" in card and "fx " in card and "random weights" in card
    # It is a checkpoint with the name of an export's file in it, and no export.
    assert not export_folder.is_export(checkpoint) and manifest.verify(checkpoint)


def test_intervals_are_drawn_for_checkpoints_that_are_kept(tmp_path: Path) -> None:
    class Writer:
        is_among_best = staticmethod(lambda metrics: metrics["abs_rel"] < 0.2)

    class Anything:
        facts, fingerprint = FACTS, ""
        contents = staticmethod(lambda metrics, **rest: rest["facts"])

    drawn = replace(FACTS.scores[0], frames=5)
    writer, both = cast(Any, Writer()), cast(Any, Anything())
    for score, ended, expected in ((0.1, "", (drawn,)), (0.3, "", FACTS.scores), (0.3, "all epochs done", (drawn,))):
        event = Epoch(1, 1, {"abs_rel": score}, ended=ended, intervals=lambda: drawn)
        assert cast(Any, _contents(event, both, both, writer)).scores == expected
    assert cast(Any, _contents(SavePoint(), both, both, writer)) == FACTS


def test_the_command_adds_reports_to_the_card(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkpoint,) = (run / "checkpoints").iterdir()
    folder = run / "evaluations" / f"{checkpoint.name}-test-nyu-bts"
    folder.mkdir(parents=True)
    overall = {"abs_rel": {"mean": 0.11, "low": 0.1, "high": 0.12}, "iou": {"mean": None, "low": None, "high": None}}
    tree = {"protocol": {"name": "nyu-bts"}, "data": "/home/me/mine (folder, float_m)", "split": "test"}
    evaluation = tree | {"frames": 5, "scene_count": 2, "overall": overall, "confidence": {"ause": 0.05}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    corruptions = {"dark": {"slope": 0.5}, "jpeg": {"slope": None}}
    (folder / "robustness.json").write_text(json.dumps({"networks": [{"corruptions": corruptions}]}))
    (run / "results.png").touch()  # as runs of several epochs have
    assert main(["card", str(run)]) == 0
    out = capsys.readouterr().out
    card = (run / "MODEL_CARD.md").read_text()
    assert "](results.png)" in card
    for text in (out, card):
        assert "Protocol nyu-bts on mine (folder, float_m), split test: 5 frames of 2 scenes" in text
        assert "0.1000 to 0.1200" in text and "+50.0 %" in text and "/home/me" not in text and "0.0500" in text
    assert main(["card", str(run), "--json"]) == 0
    facts = model_facts.parse(capsys.readouterr().out.encode(), where=Path("stdout"))
    assert facts.robustness == {"dark": 0.5} and facts.confidence == {"ause": 0.05} and len(facts.scores) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"overall": 3}', '{"networks": []}'])
def test_a_report_that_cannot_be_read_is_left_out(text: str, tmp_path: Path) -> None:
    for name in ("evaluation.json", "robustness.json"):
        (tmp_path / "epoch-1").mkdir(exist_ok=True)
        (tmp_path / "epoch-1" / name).write_text(text)
    assert collected.with_reports(FACTS, tmp_path, "epoch") == FACTS


def test_validation_that_was_evaluated_again_is_there_once(tmp_path: Path) -> None:
    (tmp_path / "epoch-1").mkdir()
    overall = {"abs_rel": {"mean": 0.17, "low": 0.1, "high": 0.2}, "mae": {"mean": 0.3, "low": 0.2, "high": 0.4}}
    tree = {"protocol": {"name": "plain"}, "data": "nyu", "split": "val", "frames": 79, "scene_count": 40}
    (tmp_path / "epoch-1" / "evaluation.json").write_text(json.dumps(tree | {"overall": overall}))
    (scores,) = collected.with_reports(FACTS, tmp_path, "epoch").scores
    assert set(scores.metrics) == {"abs_rel", "mae"}


def test_old_checkpoints_have_a_card_that_says_what_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "run")
    assert load.read_facts(checkpoint) is None
    assert main(["card", str(checkpoint), "--out", str(tmp_path / "cards" / "x.md")]) == 0
    card = (tmp_path / "cards" / "x.md").read_text()
    assert "earlier version" in card and "0.1000" in card and card.strip() in capsys.readouterr().out
    assert main(["card", str(checkpoint), "--out", str(checkpoint / "recipe.yaml" / "x.md")]) == 3
    assert "x.md: cannot write the model card: " in capsys.readouterr().err
    assert main(["card", str(checkpoint), "--json"]) == 3
    assert "does not say what it was trained on" in capsys.readouterr().err


def test_a_calibrated_copy_keeps_the_facts(tmp_path: Path) -> None:
    contents = replace(load.load(write_checkpoint(tmp_path / "run"), state=True), facts=FACTS)
    fitted = Calibration(0.1, 1.0, "mine", frames=20, before=0.3, after=0.2)
    path = save.write(tmp_path / "calibrated", replace(contents, calibration=fitted))
    text = run_card.read(path, reports=None)
    assert load.read_facts(path) == FACTS and "AbsRel 0.3000 before, 0.2000 after" in text


def test_a_card_that_cannot_be_written_does_not_hide_how_a_run_ended(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "MODEL_CARD.md").mkdir()
    lines: list[str] = []
    root, out = tmp_path / "checkpoints", tmp_path / "MODEL_CARD.md"
    run_card.write_best(root, out, reports=tmp_path / "evaluations", curves="results.png", log=lines.append)
    assert len(lines) == 1 and lines[0].startswith("no model card: ")
    run_card.write_best(tmp_path / "none", out, reports=tmp_path, curves="", log=lines.append)
    assert len(lines) == 1 and not list(tmp_path.glob(".*"))
