"""The one reader of progress records on files that kills and failing disks left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depthray.runs import progress

NOTE = {"kind": "note", "text": "a \u2028 line separator is no end of a line"}
LINE = json.dumps(NOTE, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 0),
        (LINE + b"\n" + LINE + b"\n", 2),
        (LINE + b"\n" + LINE[:-1], 1),  # cut short
        (LINE + b"\n" + LINE, 2),  # complete but for its end
        (b"\0" * 99 + LINE + b"\n", 1),  # a disk lost what was written
        (b'{"kind": "no\n' + LINE + b"\n", 1),
        (b'\xff\xfe\n[1, 2]\n7\n"text"\n{"text": "of no kind"}\n' + LINE, 1),
    ],
)
def test_lines_that_are_no_records_are_left_out(data: bytes, count: int, tmp_path: Path) -> None:
    assert progress.parse(data) == [NOTE] * count
    (tmp_path / progress.FILE).write_bytes(data)
    assert progress.read(tmp_path) == [NOTE] * count


def test_a_run_that_has_not_started_has_no_records(tmp_path: Path) -> None:
    assert progress.read(tmp_path) == []
    assert progress.last_state([]) is None


def test_of_an_epoch_that_was_trained_again_the_last_one_counts() -> None:
    epochs = [{"kind": "epoch", "epoch": number, "step": step} for number, step in ((1, 2), (2, 4), (2, 5), (3, 7))]
    assert [each["step"] for each in progress.epochs(epochs)] == [2, 5, 7]
    rewound = [*epochs, {"kind": progress.REWOUND, "epoch": 1}, {"kind": "epoch", "epoch": 2, "step": 9}]
    assert [each["step"] for each in progress.epochs(rewound)] == [2, 9]
