"""results.csv and results.png: a line and a point for each epoch that counts, and a disk that fails ends no run."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthray.runs import loggers, progress

pytestmark = pytest.mark.usefixtures("curves")


def epoch(number, **scores):
    return {"kind": "epoch", "epoch": number, "step": 4 * number, "train_loss": 1 / number, "time": 5.0, **scores}


def write(run, *records):
    for record in records:
        progress.append(run, record)


def table(run):
    return list(csv.DictReader(io.StringIO((run / "results.csv").read_text())))


def test_the_table_has_the_epochs_that_count_and_no_null(tmp_path):
    files = loggers.ResultFiles(tmp_path, "abs_rel", print)
    write(tmp_path, {"kind": "note", "text": "x"}, epoch(1, abs_rel=0.5), epoch(2, abs_rel=None))
    files.epoch()
    assert [(row["epoch"], row["step"], row["abs_rel"]) for row in table(tmp_path)] == [
        ("1", "4", "0.5"),
        ("2", "8", ""),
    ]
    write(tmp_path, {"kind": "rewound", "epoch": 1, "text": "x"}, epoch(2, abs_rel=0.25, rmse=1.5))
    files.epoch()
    rows = table(tmp_path)
    assert [(row["epoch"], row["abs_rel"], row["rmse"]) for row in rows] == [("1", "0.5", ""), ("2", "0.25", "1.5")]
    assert list(rows[0])[:3] == ["epoch", "step", "train_loss"] and "time" not in rows[0] and "kind" not in rows[0]


def test_the_picture_is_drawn_at_the_end_and_from_two_epochs_on(tmp_path):
    for run, count in ((tmp_path / "one", 1), (tmp_path / "two", 2)):
        run.mkdir()
        files = loggers.ResultFiles(run, "rmse", print)
        write(run, *[epoch(1 + number, abs_rel=0.5, rmse=1.0, delta1=None) for number in range(count)])
        files.epoch()
        assert not (run / "results.png").exists()
        files.close()
    assert not (tmp_path / "one" / "results.png").exists()
    picture = cv2.imread(str(tmp_path / "two" / "results.png"))
    assert picture.shape == (360, 4 * 320, 3) and np.ptp(picture) > 100


def test_a_disk_that_fails_is_noted_once(tmp_path, monkeypatch):
    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    notes: list[str] = []
    files = loggers.ResultFiles(tmp_path, "abs_rel", notes.append)
    write(tmp_path, epoch(1, abs_rel=0.5))
    monkeypatch.setattr(loggers, "replace", fail)
    files.epoch()
    files.epoch()
    files.close()
    assert notes == ["storage: results.csv is old: No space left on device; training continues"]


@pytest.mark.parametrize("monitor", ["iou", "mse"])
def test_scores_of_other_protocols_are_drawn(monitor):
    records = [epoch(1, **{monitor: 0.5}), epoch(2, **{monitor: 0.6})]
    assert loggers.draw_results(records, monitor=monitor).startswith(b"\x89PNG")
