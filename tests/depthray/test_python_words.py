"""Messages of the commands, as the functions of Python say them."""

from __future__ import annotations

from pathlib import Path

import pytest

import depthray
from depthray.errors import UsageError
from depthray.python_words import flags_of, keywords_of, speaks_python, translate


@pytest.mark.parametrize(
    ("function", "message", "expected"),
    [
        ("train", "/x already holds a run; give --resume to resume it, or another --out", "give resume=True to resume"),
        ("train", "give --resume to resume it, or another --out", "or another out="),
        ("train", "data.root is empty: name the path of the data with --data PATH", "with data=PATH"),
        ("train", "/x is an export; give its checkpoint as --from, and another --out", "as start=, and another out="),
        ("train", "--resume: s3://b/x holds no run", "resume=True: s3://b/x holds no run"),
        ("train", "--gpu: PyTorch finds no GPU; leave it out", "gpu=True: PyTorch finds no GPU; leave it out"),
        ("train", "--local is one process; leave out --workers 2", "--local is one process; leave out --workers 2"),
        ("train", "stopped at step 7: STOP; resume with --resume", "resume with resume=True"),
        ("load", "code; add --trust (in Python trust=True) if you know it", "code; add trust=True if you know it"),
        ("evaluate", "name the form with --source", "name the form with source="),
        ("export", "--to onnx: 3.1 GB of weights", "to=onnx: 3.1 GB of weights"),
        (
            "export",
            "name some by --calibrate for a verdict, or --source FORM.",
            "by calibrate= for a verdict, or source=FORM.",
        ),
        ("tune", "--concurrent 9: 4 such trials fit", "concurrent=9: 4 such trials fit"),
        ("tune", "--address 10.0.0.1:6379: cannot connect", "address=10.0.0.1:6379: cannot connect"),
        (
            "tune",
            "lower --workers-per-trial, or give the --address of",
            "lower workers_per_trial=, or give the address= of",
        ),
        ("tune", "/s holds a search; continue it with --resume /s, or", "continue it with resume=True, or"),
        ("tune", "--objectives needs --search tpe", "objectives= needs search= tpe"),
    ],
)
def test_flags_become_keywords(function: str, message: str, expected: str) -> None:
    assert expected in translate(message, keywords_of(getattr(depthray, function)))


def test_an_error_keeps_its_class_and_its_place() -> None:
    @speaks_python
    def function(out: str = "") -> None:
        raise UsageError("give another --out")

    with pytest.raises(UsageError, match=r"^give another out=$") as raised:
        function()
    assert raised.value.exit_code == 2 and raised.traceback[-1].name == "function"


def test_keywords_are_flags():
    given = {"out": Path("a b"), "trials": 0, "gpu_hours": 1.5, "trust": True, "only": ["x", Path("y")]}
    left_out = {"data": None, "resume": False, "ensemble": ()}
    assert flags_of(given | left_out) == ["--out=a b", "--trials=0", "--gpu-hours=1.5", "--trust", "--only", "x", "y"]
