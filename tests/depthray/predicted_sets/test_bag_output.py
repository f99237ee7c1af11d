"""Predictions as bags of ROS 2: read back they are the frames, their times and their depth, value by value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import recorded
import rosbags.rosbag2
import yaml
from checkpoints import write_checkpoint
from frames import folder_dataset
from set_predictions import predict as predict_set

from depthray.__main__ import main
from depthray.config.sections import Data, RecordingOptions
from depthray.data import sources
from depthray.data.recordings.containers.rosbag_writer import BagFile
from depthray.errors import UsageError
from depthray.imaging import distortion
from depthray.predict import load
from depthray.predicted_sets.set_plan import SetRequest


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "run")


def predict(model: Path, data: Path, out: Path, *, lasts: int = 10**9, rate: float = 0.0) -> None:
    """Predict as the command does; it is interrupted at a frame."""
    # Alone in their batch, as `Predictor.maps` has them: then they are the same to the last bit.
    wanted = SetRequest(str(model), str(data), str(out), to="rosbag2", frames_per_part=4, rate=rate, batch=1)
    predict_set(wanted, lasts=lasts)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_bag_of_predictions_is_read_as_it_was_written(model: Path, tmp_path: Path) -> None:
    before = sources.open_source(recorded.rosbag2(tmp_path / "recorded"))  # two recordings of three frames
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(model, tmp_path / "recorded", out, lasts=5)
    predict(model, tmp_path / "recorded", out)
    assert sources.recognise(out) == "rosbag2"
    after = sources.open_source(Data(source="rosbag2", root=str(out)))
    names = [(each.id, each.scene) for each in after.frames]
    assert names == [(each.id, each.scene) for each in before.frames]  # ids have the times
    predictor = load(model)
    for index in range(6):
        one, other = before.read(index), after.read(index)
        assert (other["image"] == one["image"]).all() and (other["intrinsics"] == one["intrinsics"]).all()
        assert (other["depth"] == predictor.maps(one["image"])["depth"]).all()
    # A part ends within the second bag, which has two files then.
    assert [path.name for path in sorted((out / "1-one").iterdir())] == ["1-one_0.db3", "1-one_1.db3", "metadata.yaml"]
    predict(model, tmp_path / "recorded", tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


def test_metadata_are_those_of_all_files_of_a_bag(model: Path, tmp_path: Path) -> None:
    recorded.rosbag2(tmp_path / "recorded")
    predict(model, tmp_path / "recorded", tmp_path / "out")
    at = tmp_path / "out/1-one"
    told = yaml.safe_load((at / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    start = recorded.START + 10**11
    assert told["starting_time"] == {"nanoseconds_since_epoch": start}
    assert told["duration"] == {"nanoseconds": 2 * recorded.STEP}
    assert [each["message_count"] for each in told["files"]] == [4, 8]
    with rosbags.rosbag2.Reader(at) as reader:
        assert {name: info.msgcount for name, info in reader.topics.items()} == {
            **{"/image": 3, "/camera_info": 3},
            **{"/depth/image": 3, "/depth/camera_info": 3},
        }
        assert (reader.start_time, reader.message_count) == (start, 12)


def test_unmeasured_depth_is_nan_and_a_lens_that_was_kept_is_written(tmp_path: Path) -> None:
    lenses = {
        "plain": distortion.as_numbers("", ()),
        "brown": distortion.as_numbers(distortion.BROWN, (0.1, -0.2, 0.01, 0.02, 0.03)),
        "rational": distortion.as_numbers(distortion.BROWN, (0.1, -0.2, 0.01, 0.02, 0.03, 0.2, 0.1, 0.05)),
        "fisheye": distortion.as_numbers(distortion.FISHEYE, (0.1, 0.2, 0.3, 0.4)),
        "inverse": distortion.as_numbers(distortion.INVERSE, (0.1, -0.2, 0.01, 0.02, 0.03)),
    }
    image = np.random.default_rng(1).integers(0, 256, (8, 12, 3), np.uint8)
    depth = np.linspace(0, 5, 96, dtype=np.float32).reshape(8, 12)
    camera = np.array([[30, 0, 5.5], [0, 31, 3.5], [0, 0, 1]], np.float32)
    for name, lens in lenses.items():
        with BagFile(tmp_path / name) as file:
            file.add(7 * 10**9, image, depth, intrinsics=camera, lens=lens)
        options = RecordingOptions(undistort=False)
        read = sources.open_source(Data(source="rosbag2", root=str(tmp_path / name), recording=options)).read(0)
        assert (read["depth"] == depth).all() and read["depth"][0, 0] == 0
        assert (read["intrinsics"] == camera).all()
        assert (read.get("distortion", lenses["plain"]) == lens).all()


def test_frames_without_times_are_numbered_at_a_rate_or_refused(model: Path, tmp_path: Path) -> None:
    frames = folder_dataset(tmp_path / "frames", scenes=2, per_scene=3)
    with pytest.raises(UsageError, match=r"--to rosbag2: the frames of .* have no times; give --rate HZ"):
        predict(model, frames, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    predict(model, frames, tmp_path / "out", rate=8)
    after = sources.open_source(Data(source="rosbag2", root=str(tmp_path / "out")))
    times = [(scene, 125_000_000 * (3 * scene + frame + 1)) for scene in range(2) for frame in range(3)]
    assert [each.id for each in after.frames] == [f"scene-{scene}/{time}" for scene, time in times]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "10"], "--rate is for frames without times"),
        (["--rate", "-1"], "--rate -1: give frames a second"),
        (["--rate", "nan"], "--rate nan: give frames a second"),
        (["--to", "png", "--rate", "10"], "--rate is the frames a second of --to rosbag2"),
        (["--as-labels"], "labels are shards alone"),
    ],
)
def test_mistakes_about_bags(
    arguments: list[str], message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded.write_bag2(tmp_path / "bag", recorded.aligned(2))
    command = ["predict", str(model), "--data", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]
    assert main([*command, "--to", "rosbag2", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
