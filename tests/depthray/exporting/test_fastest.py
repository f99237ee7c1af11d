"""The fastest runtime is chosen among the exports that pass their gate."""

import pytest

from depthray.errors import ParityError, UsageError
from depthray.exporting import fastest, write
from depthray.runtimes.backends import openvino


@pytest.mark.parametrize(("has_bf16", "bf16"), [(False, ()), (True, ("openvino-bf16",))])
def test_frames_of_the_users_own_allow_8_bit_integers_and_the_cpu_bf16(monkeypatch, has_bf16, bf16):
    monkeypatch.setattr(openvino, "has_bf16", lambda: has_bf16)
    assert fastest.auto_targets(calibrated=False) == ("openvino", "onnx", *bf16)
    assert fastest.auto_targets(calibrated=True) == ("openvino", "onnx", *bf16, "openvino-int8")


def test_without_openvino_its_precisions_are_not_asked_for(monkeypatch):
    monkeypatch.setattr(fastest, "missing", lambda name: [name])
    monkeypatch.setattr(openvino, "has_bf16", lambda: pytest.fail("OpenVINO is not installed"))
    assert fastest.auto_targets(calibrated=False) == ("openvino", "onnx")


def test_what_does_not_pass_is_a_line_of_the_log(tmp_path, monkeypatch):
    precisions = []

    def export(exporter, request):
        precisions.append((request.target, request.precision))
        if request.target == "absent":
            raise UsageError("needs openvino")
        request.out.mkdir(parents=True)
        if request.target == "bad":
            raise ParityError("differs")

    monkeypatch.setattr(write.Exporter, "export", export)
    lines: list[str] = []
    made = fastest.export_passing(
        tmp_path, tmp_path / "made", ["good", "bad", "absent", "openvino-bf16"], log=lines.append
    )
    assert made == {name: tmp_path / "made" / name for name in ("good", "openvino-bf16")}
    assert precisions == [("good", None), ("bad", None), ("absent", None), ("openvino", "bf16")]
    assert lines == ["bad: not used: differs", "absent: not used: needs openvino"]
    assert {path.name for path in (tmp_path / "made").iterdir()} == made.keys()


def test_calls_are_timed_in_turn_without_the_first(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def call(name, *seconds):
        left = list(seconds)

        def run():
            order.append(name)
            clock[0] += left.pop(0)

        return run

    seconds = fastest.median_seconds({"a": call("a", 9, 1, 2, 3), "b": call("b", 9, 5, 4, 7)}, rounds=3)
    assert seconds == {"a": pytest.approx(2), "b": pytest.approx(5)}
    assert order == ["a", "b"] * 4
