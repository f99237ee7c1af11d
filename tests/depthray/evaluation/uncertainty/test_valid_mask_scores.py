"""Scores of a mask of valid pixels against brute force, and in an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring import BATCH, DATA, Net, Rooms
from torch import nn

from depthray.batch import Batch
from depthray.data.loader import eval_batches
from depthray.evaluation import report
from depthray.evaluation.evaluate import evaluate
from depthray.evaluation.protocols import PLAIN
from depthray.evaluation.uncertainty import valid_mask_scores
from depthray.evaluation.uncertainty.valid_mask_scores import BINS, means, of_frames, summary

LIMITS = (0.001, 10.0)


def frames(seed: int = 0, count: int = 3) -> tuple[Any, Any]:
    """Logits that know a little, and truth of which parts are beyond 10 m and parts are missing."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(3, (count, 1, 12, 20), p=[0.7, 0.2, 0.1])
    depth = np.choose(kinds, [rng.uniform(1, 9, kinds.shape), np.full(kinds.shape, 60.0), np.zeros(kinds.shape)])
    logits = torch.tensor(rng.normal(1.0 - 2.0 * (kinds > 0), 1.0), dtype=torch.float32)
    truth = torch.tensor(depth, dtype=torch.float32)
    return logits, {"depth": truth, "valid": (truth > 0) & (truth < 10), "id": [str(each) for each in range(count)]}


def brute(logits: torch.Tensor, batch: Any, *, missing: bool) -> dict[str, float]:
    chance = np.floor(torch.sigmoid(logits).numpy() * BINS)  # ties are those of a bin
    counted = np.ones(chance.shape, bool) if missing else (batch["depth"] > 0).numpy()
    chance, invalid = chance[counted], ~batch["valid"].numpy()[counted]
    called = chance < BINS / 2
    pairs = chance[invalid][:, None] - chance[~invalid][None, :]
    return {
        "precision": invalid[called].mean(),
        "recall": called[invalid].mean(),
        "iou": (called & invalid).sum() / (called | invalid).sum(),
        "accuracy": (called == invalid).mean(),
        "auroc": (pairs < 0).mean() + (pairs == 0).mean() / 2,
    }


def test_scores_are_those_of_all_pixels_by_brute_force() -> None:
    logits, batch = frames()
    rows: Any = of_frames({"valid": logits}, batch, LIMITS)
    found = summary(rows, ["a", "b", "b"])
    for name, missing in (("overall", True), ("without_missing", False)):
        for key, value in brute(logits, batch, missing=missing).items():
            score = found[name][key]
            assert score["mean"] == pytest.approx(value, rel=1e-9), (name, key)
            assert score["low"] <= score["mean"] <= score["high"]
    assert means(rows)["invalid_iou"] == pytest.approx(found["overall"]["iou"]["mean"])
    share = (batch["depth"] == 0).float().mean().item()
    assert found["classes"]["missing"]["share"] == pytest.approx(share)
    assert 0.6 < found["classes"]["beyond"]["called_invalid"] < 1 and found["classes"]["valid"]["called_invalid"] < 0.4


def test_frames_without_an_invalid_pixel_or_a_mask() -> None:
    logits, batch = frames()
    batch["depth"] = torch.full_like(batch["depth"], 2.0)
    rows: Any = of_frames({"valid": logits}, batch, LIMITS)
    found = summary(rows, ["a", "b", "c"])
    assert np.isnan(found["overall"]["recall"]["mean"]) and found["overall"]["precision"]["mean"] == 0
    assert "without_missing" not in found and {*found["classes"]} == {"valid"}
    assert "| recall            | -" in valid_mask_scores.sections(found)[1]
    assert of_frames({"depth": logits}, batch, LIMITS) == [None] * 3
    broken: Any = of_frames({"valid": torch.full_like(logits, np.nan)}, batch, LIMITS)
    assert means(broken)["invalid_accuracy"] == 0  # a network that has failed knows of no depth


class MaskedNet(nn.Module):
    """The network of other tests with a coarser mask: nothing in the right half is valid."""

    inputs, stride = ("image",), 1

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, batch: Batch) -> Any:
        prediction: Any = dict(self.net(batch))
        half = prediction["depth"][..., ::2, ::2]
        columns = torch.arange(half.shape[-1]) < half.shape[-1] // 2
        return {**prediction, "valid": torch.where(columns, 3.0, -3.0).expand_as(half)}


def test_an_evaluation_has_them_in_text_and_json(tmp_path: Path) -> None:
    source: Any = Rooms()
    batches = eval_batches(source, range(4), DATA, batch_size=BATCH)
    evaluation = evaluate(MaskedNet(), batches, protocol=PLAIN, device=torch.device("cpu"))
    evaluation.write(tmp_path)
    found = json.loads((tmp_path / "evaluation.json").read_text())["valid_mask"]
    assert found["overall"]["accuracy"]["mean"] == pytest.approx(evaluation.scores()["invalid_accuracy"])
    assert 0.4 < found["classes"]["valid"]["called_invalid"] < 0.6
    text = report.markdown(evaluation.summary())
    assert "## Where there is no depth" in text and "called invalid" in text and "valid mask |" not in text
