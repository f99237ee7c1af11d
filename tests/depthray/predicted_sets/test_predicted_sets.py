"""Whole data sets predicted: each frame once and as `predict` has it, resumed, and never mixed with others."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint, write_unsure
from frames import folder_dataset, read_index, write_index
from set_predictions import predict

import depthray
from depthray.__main__ import main
from depthray.config.sections import Data
from depthray.data import sources
from depthray.data.shards import format
from depthray.data.sources.shards import LocalShards, Shards
from depthray.errors import CheckpointError, DataError, UsageError
from depthray.predict import Predictor, load
from depthray.predicted_sets import set_parts, set_plan
from depthray.predicted_sets.set_plan import SetPlan, SetRequest

RELATIVE = ("loss.target=relative", "eval.protocol=legacy-003", "eval.monitor=mse", "model.max_depth=1")
LABELS = frozenset({"image", "depth", "teacher", "sigma", "semantics", "intrinsics"})
OWN = '''
import numpy as np
from depthray.data.source import Frame


class Unmeasured:
    """Frames with a camera and without depth, the last of another size."""

    frames = [Frame(f"f{i}", "room", "", "mine") for i in range(3)]
    keys = frozenset({"image", "intrinsics"})
    fingerprint = "f" * 64

    def read(self, index):
        size = (40, 56) if index == 2 else (48, 64)
        image = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
        camera = np.array([[50, 0, 31.5], [0, 51, 23.5], [0, 0, 1]], np.float32)
        return {"image": image, "intrinsics": camera, "id": f"f{index}", "scene": "room", "source": "mine"}

    def faults(self, index):
        return []


def open_source(section):
    return Unmeasured()
'''


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a run whose network predicts how sure it is, too."""
    return write_unsure(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return load(model)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return folder_dataset(tmp_path / "frames", scenes=2, per_scene=5)


def request(model: Path, data: Path | str, out: Path | str, **values: Any) -> SetRequest:
    return SetRequest(str(model), str(data), str(out), **{"frames_per_part": 4, **values})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def truth(predictor: Predictor, root: Path, key: str = "depth") -> list[Any]:
    """What `predict` has of each frame by itself, in the order of the data set."""
    source = sources.open_source(Data(source="folder", root=str(root)))
    return [predictor.maps(source.read(index)["image"])[key] for index in range(len(source.frames))]


@pytest.mark.parametrize("to", ["shards", "png"])
def test_each_frame_is_there_once_and_as_predict_has_it(
    to: str, model: Path, predictor: Predictor, frames: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    summary = predict(request(model, frames, out, to=to, batch=3))
    assert summary == set_parts.SetSummary(10, {}, 3 if to == "shards" else 0)
    assert sources.recognise(out) == ("shards" if to == "shards" else "folder")
    before = sources.open_source(Data(source="folder", root=str(frames)))
    after = sources.open_source(Data(source=sources.recognise(out), root=str(out)))
    assert list(after.frames) == list(before.frames)
    for index, depth in enumerate(truth(predictor, frames)):
        sample = after.read(index)
        assert (sample["image"] == before.read(index)["image"]).all()
        assert np.abs(sample["depth"] - depth).max() < 0.00051  # half a millimetre, by which it is stored
    assert not any(path.name.startswith(".tmp-") for path in out.iterdir())


def test_labels_stand_beside_the_depth_that_was_measured(
    model: Path, predictor: Predictor, frames: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(request(model, frames, out, as_labels=True))
    shards, before = Shards(LocalShards(out), LABELS), sources.open_source(Data(source="folder", root=str(frames)))
    for key, label in (("depth", "teacher"), ("sigma", "sigma")):
        for index, expected in enumerate(truth(predictor, frames, key)):
            found = shards.read(index)[label]
            np.testing.assert_allclose(found, expected, rtol=1e-3)  # float16 has 11 bits
    assert all((shards.read(index)["depth"] == before.read(index)["depth"]).all() for index in range(10))
    assert shards.read(9)["semantics"].min() == 2  # all else that the frames had, too

    made_by = json.loads((out / "predictions.json").read_bytes())["labelled_by"]
    assert made_by.keys() == {"name", "sha256", "architecture", "depth_kind", "epoch", "step"}
    assert (made_by["name"], made_by["depth_kind"], made_by["step"]) == (model.name, "metric", 1)
    records = [format.open_shard(path).provenance["labelled_by"] for path in sorted(out.glob("*.h5"))]
    assert records == [made_by] * 3


def test_labels_that_are_packed_anew_are_kept_with_what_made_them(model: Path, frames: Path, tmp_path: Path) -> None:
    predict(request(model, frames, tmp_path / "labels", as_labels=True))
    assert main(["data", "pack", str(tmp_path / "labels"), str(tmp_path / "packed"), "--frames-per-shard", "9"]) == 0
    before, after = (Shards(LocalShards(tmp_path / name), LABELS) for name in ("labels", "packed"))
    assert [len(list((tmp_path / name).glob("*.h5"))) for name in ("labels", "packed")] == [3, 2]
    for index in range(10):
        one, other = before.read(index), after.read(index)
        assert one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
    assert before.provenance()["labelled_by"] == after.provenance()["labelled_by"]


@pytest.mark.parametrize("as_labels", [True, False])
def test_the_spread_of_predictions_is_beside_them(as_labels: bool, frames: Path, tmp_path: Path) -> None:
    plain, other = write_checkpoint(tmp_path / "one"), write_unsure(tmp_path / "two")
    out = tmp_path / "out"
    wanted = request(plain, frames, out, as_labels=as_labels, confidence="flip", ensemble=(str(other),), batch=1)
    predict(wanted)
    made = Shards(LocalShards(out), LABELS).read(4)
    image = sources.open_source(Data(source="folder", root=str(frames))).read(4)["image"]
    maps = load(plain, confidence="flip", ensemble=[other]).maps(image)
    np.testing.assert_allclose(made["sigma"], maps["sigma"], rtol=1e-3)
    np.testing.assert_allclose(made["teacher" if as_labels else "depth"], maps["depth"], rtol=1e-3)
    for change in ({"confidence": ""}, {"ensemble": ()}, {"ensemble": (str(plain),)}):
        with pytest.raises(DataError, match=r"was begun with .* for --(confidence|ensemble)"):
            set_plan.prepare(replace(wanted, **change))


def test_frames_without_depth_are_labelled_and_keep_their_camera(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    summary = predict(request(model, tmp_path, tmp_path / "out", source="./mine.py", as_labels=True))
    assert (summary.frames, summary.shards) == (3, 2)  # one for each size
    shards = Shards(LocalShards(tmp_path / "out"), LABELS)
    assert sorted(frame.id for frame in shards.frames) == ["f0", "f1", "f2"]
    sample = shards.read(0)
    assert not sample["depth"].any() and sample["teacher"].min() > 0 and sample["intrinsics"][1, 1] == 51


@pytest.mark.parametrize("to", ["shards", "png"])
def test_an_interrupted_call_is_continued_to_the_same_bytes(
    to: str, model: Path, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(model, frames, tmp_path / "out", to=to)
    with pytest.raises(KeyboardInterrupt):
        predict(wanted, lasts=6)
    assert sorted(path.name for path in (tmp_path / "out/parts").iterdir()) == ["00000.json"]
    assert not list((tmp_path / "out").glob(".tmp-*"))
    (tmp_path / "out/.tmp-killed").mkdir()  # of a worker that was killed
    seen: list[int] = []
    original = set_parts.predict_part

    def spy(plan: SetPlan, number: int, *args: Any, **more: Any) -> int:
        seen.append(number)
        return original(plan, number, *args, **more)

    monkeypatch.setattr(set_parts, "predict_part", spy)
    predict(wanted)
    predict(wanted)  # of which nothing is left to do
    assert seen == [1, 2]
    predict(replace(wanted, out=str(tmp_path / "whole")))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_an_unrecorded_attempt_left_is_replaced(model: Path, frames: Path, tmp_path: Path) -> None:
    wanted = request(model, frames, tmp_path / "out")
    predict(wanted)
    expected = contents(tmp_path / "out")
    (tmp_path / "out/parts/00001.json").unlink()
    shard = tmp_path / "out/shard-00001.h5"
    (tmp_path / "out/shard-00001-1.h5").write_bytes(shard.read_bytes())  # its frames would be there twice
    shard.write_bytes(b"half")
    predict(wanted)
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize("to", ["shards", "png"])
def test_failed_frames_are_listed_and_cost_no_other(
    to: str, model: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (frames / "rgb/s0-001.jpg").write_bytes(b"no image")
    (frames / "rgb/s1-000.jpg").unlink()
    rows = read_index(frames)
    rows[8]["depth"] = "depth/small.png"
    folder_dataset(tmp_path / "small", scenes=1, per_scene=1, size=(24, 32))
    (frames / "depth/small.png").write_bytes((tmp_path / "small/depth/s0-000.png").read_bytes())
    write_index(frames, rows)
    out = tmp_path / "out"
    argv = ["predict", str(model), "--data", str(frames), "--out", str(out), "--to", to, "--frames-per-part", "4"]
    for _ in range(2):  # the second call has nothing to do, and says the same
        assert main(argv) == 3
        printed = capsys.readouterr()
        assert "7 of 10 frames predicted" in printed.out and "failed.csv" in printed.err
    with (out / "failed.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["frame"] for row in table] == ["rgb/s0-001", "rgb/s1-000", "rgb/s1-003"]
    assert ["not a readable image" in table[0]["reason"], "size mismatch" in table[2]["reason"]] == [True, True]
    kept = sources.open_source(Data(source=sources.recognise(out), root=str(out)))
    names = [f"rgb/s{scene}-{frame:03d}" for scene in (0, 1) for frame in range(5)]
    assert [frame.id for frame in kept.frames] == [name for name in names if name not in {r["frame"] for r in table}]


def test_a_folder_takes_no_other_predictions(model: Path, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = request(model, frames, out)
    predict(wanted)
    before = contents(out)
    others = {
        "predictions by another model, epoch-0001-step-00000001": {"model": str(write_checkpoint(tmp_path / "run"))},
        "begun with 4, and this call has 5, for --frames-per-part": {"frames_per_part": 5},
        "begun with shards, and this call has png, for --to": {"to": "png"},
        "begun with false, and this call has true, for --as-labels": {"as_labels": True},
        "has true, for --flip": {"flip": True},
        "other data": {"data": str(folder_dataset(tmp_path / "more", scenes=1))},
    }
    for message, change in others.items():
        with pytest.raises(DataError, match=message):
            set_plan.prepare(replace(wanted, **change))
    with pytest.raises(DataError, match=r"holds .* and no predictions.json"):
        set_plan.prepare(replace(wanted, out=str(frames)))
    (out / "predictions.json").write_text("{}")
    with pytest.raises(DataError, match=r"predictions.json: damaged; choose another --out"):
        set_plan.prepare(wanted)
    assert contents(out) == before | {"predictions.json": b"{}"}


def test_a_worker_refuses_another_network_than_the_plan_has(model: Path, frames: Path, tmp_path: Path) -> None:
    source, plan = set_plan.prepare(request(model, frames, tmp_path / "out"))
    other = replace(plan.request, model=str(write_checkpoint(tmp_path / "run")))
    with pytest.raises(CheckpointError, match="another network than the one this call began with"):
        set_parts.predict_all(SetPlan(other, *plan[1:]), source)
    assert not (tmp_path / "out").exists()  # nothing was predicted, and nothing half-made is left


def test_a_remote_place_gets_the_same_files(model: Path, frames: Path, tmp_path: Path) -> None:
    predict(request(model, frames, tmp_path / "here", as_labels=True))
    predict(request(model, frames, f"file://{tmp_path}/there", as_labels=True))
    here = contents(tmp_path / "here")
    assert here == contents(tmp_path / "there") and "index/index.json" in here
    (tmp_path / "there/parts/00001.json").unlink()
    (tmp_path / "there/index/index.json").write_bytes(b"of before")
    predict(request(model, frames, f"file://{tmp_path}/there", as_labels=True))
    assert here == contents(tmp_path / "there")


def test_a_completion_network_gets_points_of_the_depth(frames: Path, tmp_path: Path) -> None:
    network = write_checkpoint(tmp_path / "run", "data.inputs=[image,sparse]", "data.sparse.samples=50")
    predict(request(network, frames, tmp_path / "out"))
    predict(request(network, frames, tmp_path / "again", batch=2))
    first, again = (sources.open_source(Data(source="shards", root=str(tmp_path / name))) for name in ("out", "again"))
    assert np.abs(first.read(3)["depth"] - again.read(3)["depth"]).max() <= 0.0011  # the same points, drawn again
    monocular = load(network).maps(first.read(3)["image"], sparse=np.zeros((48, 64), np.float32))["depth"]
    assert np.abs(first.read(3)["depth"] - monocular).max() > 0.01  # they were used


def test_the_function_answers_what_failed_and_where_it_is(model: Path, frames: Path, tmp_path: Path) -> None:
    (frames / "rgb/s0-001.jpg").write_bytes(b"no image")
    made = depthray.predict_set(model, data=frames, out=tmp_path / "out", to="png", frames_per_part=4)
    assert (made.frames, list(made.failed)) == (9, ["rgb/s0-001"])
    assert sources.recognise(Path(made)) == "folder"
    with pytest.raises(DataError, match=r"begun with png, and this call has shards, for to=; .* choose another out="):
        depthray.predict_set(model, data=frames, out=tmp_path / "out", frames_per_part=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "frames", "--format", "png"], "--format cannot be combined with --data"),
        (["--data", "frames", "photo.jpg"], "photo.jpg: give either images or --data"),
        (["--data", "frames", "data.size=32,32"], "data.size=32,32: only data.* that says how frames are read"),
        (["--data", "frames", "optim.lr=1"], "optim.lr=1: only data.* that says how frames are read"),
        (["--data", "frames", "data.canonical_focal=9"], "data.canonical_focal=9: only data.* that says how"),
        (["--data", "frames", "--confidence", "flip", "--to", "png"], "--to png: has depth alone, and --confidence"),
        (["--data", "frames", "data.recording.every=2"], "data.recording.every is of recordings"),
        (["--data", "frames", "--keep-invalid"], "--keep-invalid cannot be combined with --data"),
        (["--data", "frames", "--to", "bag"], "--to bag: choose from shards, png, rosbag2"),
        (["--data", "frames", "--to", "png", "--as-labels"], "labels are shards alone"),
        (["--data", "frames", "--workers", "0"], "--workers 0: at least 1 is needed"),
        (["--data", "frames", "--batch", "0"], "--batch 0: give a number above 0"),
        (["--data", "frames", "--source", "foldr"], "no data.source='foldr' (did you mean 'folder'?)"),
        (["photo.jpg", "--as-labels"], "--as-labels needs --data"),
        (["photo.jpg", "--workers", "2"], "--workers needs --data"),
        (["--data", "frames", "--address", "auto"], "--address auto needs --workers above 1"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str],
    message: str,
    model: Path,
    frames: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(frames.parent)
    assert main(["predict", str(model), *arguments, "--out", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_numbers_that_are_no_metres_become_labels_alone(frames: Path, tmp_path: Path) -> None:
    relative = write_checkpoint(tmp_path / "run", *RELATIVE)
    with pytest.raises(
        UsageError, match=r"--to shards holds metres, and this network's depth is shares .* --as-labels"
    ):
        set_plan.prepare(request(relative, frames, tmp_path / "out"))
    predict(request(relative, frames, tmp_path / "out", as_labels=True))
    made_by = json.loads((tmp_path / "out/predictions.json").read_bytes())["labelled_by"]
    assert made_by["depth_kind"] == "relative"
