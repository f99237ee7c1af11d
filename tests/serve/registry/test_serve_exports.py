"""Exports of served versions: made at the promotion, opened by replicas, and not used where they fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from exports import change
from serve_networks import photograph

from depthray.errors import CheckpointError
from depthray.exporting import fastest
from depthray.predict import Predictor, load
from depthray.runs import locate
from depthray.runtimes import export_folder
from depthray.runtimes.open import EAGER
from serve.registry import exports, golden
from serve.registry.exports import RuntimeRequest
from serve.registry.promotion import promote
from serve.registry.store import Store
from serve.replica.replica import Replica


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, runs: list[Path]) -> tuple[Path, list[str]]:
    """A store whose model has exports, and what its promotion logged."""
    folder = tmp_path_factory.mktemp("exported")
    lines: list[str] = []
    promotion = promote(Store(folder), "rooms", runs[0], request=RuntimeRequest(), log=lines.append)
    assert promotion.speeds.keys() == {EAGER, *fastest.auto_targets(calibrated=False)}
    return folder, lines


@pytest.fixture
def store(tmp_path: Path, exported: tuple[Path, list[str]]) -> Store:
    return Store(Path(shutil.copytree(exported[0], tmp_path / "served")))


def prefer(store: Store, runtime: str) -> Path:
    """Make a runtime the fastest of the served version, and PyTorch the next; the folder of its exports."""
    folder = store.exports("rooms", store.pointer("rooms").current)
    speeds = {name: 1.0 for name in exports.speeds(folder)} | {EAGER: 1.5} | {runtime: 2.0}
    (folder / exports.SPEEDS).write_text(json.dumps(speeds))
    return folder


def runtime_of(store: Store, runtime: str = "auto") -> str:
    """What a replica computes the served version by."""
    replica = Replica({"store": str(store.root), "model": {"runtime": runtime, "max_batch": 2}})
    try:
        (network,) = replica._networks.values()
        return network.predictor.runtime
    finally:
        replica.__del__()


def test_a_promotion_makes_and_times_an_export(
    store: Store, exported: tuple[Path, list[str]], runs: list[Path]
) -> None:
    assert exported[1] == []
    version = store.pointer("rooms").current
    folder = store.exports("rooms", version)
    speeds = exports.speeds(folder)
    assert list(speeds.values()) == sorted(speeds.values(), reverse=True) and min(speeds.values()) > 0
    spec = export_folder.verify(folder / "openvino")
    assert spec.target == "openvino" and spec.precision == "fp32"
    assert store.card("rooms").runtime == next(iter(speeds)) and list(store.runtimes("rooms", version)) == list(speeds)
    ours, theirs = (load(path).predict(photograph()) for path in (runs[0], folder / "openvino"))
    assert np.abs(ours - theirs).max() <= 1e-4 * ours.max()


def test_the_fastest_runtime_answers_unless_another_is_set(store: Store) -> None:
    prefer(store, "openvino")
    assert (runtime_of(store), runtime_of(store, EAGER), store.card("rooms").runtime) == ("openvino", EAGER, "openvino")
    prefer(store, EAGER)
    assert (runtime_of(store), runtime_of(store, "openvino"), store.card("rooms").runtime) == (EAGER, "openvino", EAGER)


def test_an_export_that_is_not_there_is_asked_for_in_vain(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CheckpointError, match="no model that can be served"):
        runtime_of(store, "openvino-int8")
    assert "has no export to openvino-int8 (model.runtime); promote it again with that setting" in caplog.text


def test_an_export_in_bf16_is_one_of_them(tmp_path: Path, runs: list[Path]) -> None:
    store = Store(tmp_path)
    lines: list[str] = []
    promotion = promote(store, "rooms", runs[0], request=RuntimeRequest("openvino-bf16"), log=lines.append)
    assert promotion.speeds.keys() == {EAGER, "openvino-bf16"} and lines == []
    folder = store.exports("rooms", promotion.pointer.current) / "openvino-bf16"
    assert export_folder.verify(folder).precision == "bf16"
    assert runtime_of(store, "openvino-bf16") == "openvino"


def test_an_export_is_compared_with_what_it_predicted_itself(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Its gate has allowed a difference of scores, which of single pixels may be any."""
    folder = prefer(store, "openvino")
    version = store.pointer("rooms").current
    own, of_version = (store.golden("rooms", version, runtime) for runtime in ("openvino", EAGER))
    assert golden.difference(own, of_version).relative <= 1e-3
    store.keep_golden("rooms", version, [{"depth": 1.1 * maps["depth"]} for maps in of_version])
    assert runtime_of(store) == "openvino"
    golden.write(exports.golden_of(folder, "openvino"), [{"depth": 1.1 * maps["depth"]} for maps in own])
    with pytest.raises(CheckpointError, match="no model that can be served"):
        runtime_of(store)
    assert "its export to openvino is not used: its depth of golden images is off by" in caplog.text


def test_an_export_of_a_store_of_before_is_compared_with_its_version_until_it_is_promoted_again(
    store: Store, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prefer(store, "openvino")
    assert exports.are_made(folder, RuntimeRequest())
    exports.golden_of(folder, "openvino").unlink()
    assert runtime_of(store) == "openvino" and not exports.are_made(folder, RuntimeRequest())
    made: list[Path] = []
    monkeypatch.setattr(exports, "make", lambda checkpoint, folder, *_: made.append(folder) or {})  # type: ignore[func-returns-value]
    promote(store, "rooms", runs[0], request=RuntimeRequest())
    assert made == [folder]


def test_an_export_that_predicts_no_depth_is_not_kept(
    tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(predictor: Predictor) -> list[golden.Maps]:
        raise CheckpointError("on a golden image the network's depth is not positive")

    monkeypatch.setattr(golden, "answers", answers)
    lines: list[str] = []
    assert exports.make(locate.resolve(runs[0]), tmp_path / "made", RuntimeRequest("onnx"), lines.append) == {}
    assert lines == ["onnx: not used: on a golden image the network's depth is not positive"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["damaged", "other"])
def test_an_export_that_fails_is_not_used(store: Store, how: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = prefer(store, "openvino") / "openvino"
    if how == "damaged":
        path = folder / "model.bin"
        path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    else:  # a sound export with other weights; as numbers of 32 bits, integers are tiny
        weights = np.frombuffer((folder / "model.bin").read_bytes(), np.float32)
        change(
            folder, "model.bin", np.where(np.abs(weights) > 1e-30, 1.3 * weights, weights).astype(np.float32).tobytes()
        )
    assert runtime_of(store) == EAGER
    assert "its export to openvino is not used" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"openvino": "fast"}', '{"openvino": NaN}', '{"torch-export": 3}'])
def test_speeds_that_cannot_be_read_leave_pytorch(store: Store, text: str) -> None:
    version = store.pointer("rooms").current
    (store.exports("rooms", version) / exports.SPEEDS).write_text(text)
    assert list(store.runtimes("rooms", version)) == [EAGER] and store.card("rooms").runtime == EAGER


def test_what_fails_its_gate_or_is_unknown_is_a_line_and_the_promotion_goes_through(
    tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from depthray.exporting import gate

    monkeypatch.setitem(gate.BOUNDS, "fp32", 0.0)
    lines: list[str] = []
    promotion = promote(Store(tmp_path), "rooms", runs[0], request=RuntimeRequest("onnx"), log=lines.append)
    assert not promotion.speeds and Store(tmp_path).names() == ["rooms"]
    (line,) = lines
    assert line.startswith("onnx: not used: ") and "more than is allowed" in line
    assert not list((tmp_path / "rooms").glob("exports/*"))


def test_frames_of_ones_own_add_8_bit_integers() -> None:
    assert RuntimeRequest("auto", "frames").targets == (*RuntimeRequest("auto").targets, "openvino-int8")
    assert RuntimeRequest("onnx", "frames").targets == ("onnx",) and RuntimeRequest(EAGER).targets == ()


def test_an_export_is_a_version_too(store: Store, runs: list[Path], tmp_path: Path) -> None:
    folder = store.exports("rooms", store.pointer("rooms").current) / "openvino"
    served = Store(tmp_path / "exports-only")
    promotion = promote(served, "rooms", folder, request=RuntimeRequest())
    assert not promotion.speeds and promotion.pointer.current == export_folder.identity(folder)[:12]
    card = served.card("rooms")
    assert (card.runtime, card.architecture) == ("openvino", "unet") and card.metrics == store.card("rooms").metrics
    assert runtime_of(served) == "openvino"
    path = served.path("rooms", card.version) / "model.xml"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(CheckpointError):
        served.verified("rooms", card.version)


def test_exports_go_with_their_version(store: Store, runs: list[Path]) -> None:
    old = store.pointer("rooms").current
    checkpoint = next((runs[1] / "checkpoints").iterdir())
    store.point("rooms", store.add("rooms", checkpoint))
    store.remove("rooms", old)  # the version before, which is still served
    assert store.exports("rooms", old).is_dir()
    path = store.root / "rooms" / "current.json"
    path.write_text(json.dumps({"current": store.pointer("rooms").current, "previous": ""}))
    store.remove("rooms", old)
    assert not store.exports("rooms", old).exists()
