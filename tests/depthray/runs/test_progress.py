"""Progress records: what is written is what is shown, on a terminal and in a log."""

from __future__ import annotations

import io
import json
import math
import os
import time
from pathlib import Path

import pytest

from depthray.runs import console, progress

INTERVAL = {
    "kind": "interval",
    "epoch": 2,
    "epochs": 9,
    "step": 30,
    "steps": 90,
    "loss": 0.51234,
    "lr": 3e-4,
    "images_per_second": 41.27,
    "wait_share": 0.031,
    "memory_gib": 1.52,
    "eta_seconds": 3725.0,
    "bad_steps": 0,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_line_has_all_an_operator_looks_for() -> None:
    wanted = "epoch 2/9 step 30/90 loss 0.5123 lr 3.00e-04 41.3 img/s data wait 3% mem 1.5 GiB eta 1:02:05"
    assert console.line(INTERVAL) == wanted
    assert console.line({**INTERVAL, "bad_steps": 3}) == f"{wanted} skipped 3"


def test_without_a_terminal_each_record_is_one_plain_line() -> None:
    stream = io.StringIO()
    display = console.Display(stream)
    display.show(INTERVAL)
    display.show({"kind": "note", "text": "resumed from epoch-0001"})
    display.close()
    assert stream.getvalue().splitlines() == [console.line(INTERVAL), "resumed from epoch-0001"]


def test_on_a_terminal_there_is_a_bar() -> None:
    stream = Terminal()
    display = console.Display(stream)
    display.show(INTERVAL)
    display.show({"kind": "note", "text": "a note above the bar"})
    display.close()
    shown = stream.getvalue()
    assert "epoch 2/9" in shown
    assert "30/90" in shown
    assert "a note above the bar" in shown


def test_records_that_are_not_numbers_stay_strict_json(tmp_path: Path) -> None:
    progress.append(tmp_path, {**INTERVAL, "loss": math.nan})
    written = json.loads((tmp_path / progress.FILE).read_text(), parse_constant=lambda word: 1 / 0)
    assert written["loss"] is None
    assert console.line(written).startswith("epoch 2/9 step 30/90 loss nan")
    assert abs(written["time"] - time.time()) < 60


def test_an_epoch_shows_the_scores_of_a_protocol_that_has_its_own_only() -> None:
    epoch = {"kind": "epoch", "epoch": 2, "train_loss": 0.5, "mse": 0.0143, "ssim": 0.775}
    assert console.line(epoch) == "epoch 2 done: ssim 0.7750 mse 0.0143 train_loss 0.5000"
    assert console.line({**epoch, "rmse": 0.25}) == "epoch 2 done: rmse 0.2500 train_loss 0.5000"


def test_a_follower_shows_what_is_new_and_waits_for_whole_lines(tmp_path: Path) -> None:
    seen: list[progress.Record] = []
    progress.append(tmp_path, {"kind": "note", "text": "before"})
    with console.Follower(tmp_path, seen.append, every=0.01):
        progress.append(tmp_path, {"kind": "note", "text": "whole"})
        with (tmp_path / progress.FILE).open("a") as file:
            file.write('{"kind": "no')
            file.flush()
            time.sleep(0.05)
            file.write('te", "text": "in two parts"}\n')
    assert [record["text"] for record in seen] == ["whole", "in two parts"]


def test_a_follower_reads_on_behind_what_a_disk_that_failed_left(tmp_path: Path) -> None:
    first, second = ({"kind": "note", "text": text} for text in ("one", "two"))
    lines = [json.dumps(first), '{"kind": "no', "\0" * 40 + json.dumps(second)]
    seen: list[progress.Record] = []
    with console.Follower(tmp_path, seen.append):
        (tmp_path / progress.FILE).write_text("\n".join(lines) + "\n")
    assert seen == [first, second]


def test_the_first_step_is_on_the_disk_before_anything_else_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a disk that loses what was not synced would let a run begin again at step 0 as if it were new."""
    synced: list[str] = []

    def sync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", sync)
    file = progress.Appender(tmp_path, retry_seconds=0)
    file.append({"kind": "note", "text": "begins"})
    assert not synced
    for _ in range(2):
        file.append(INTERVAL)
    assert synced == [str(tmp_path / progress.FILE), str(tmp_path)]
