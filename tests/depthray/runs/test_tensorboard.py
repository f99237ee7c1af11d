"""The event files of a run, read back as TensorBoard reads them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer import event_file_writer

from depthray.imaging.sheets import SheetRow
from depthray.runs.tensorboard import Board


def read(directory):
    return EventAccumulator(str(directory), size_guidance={"images": 0, "scalars": 0, "histograms": 0}).Reload()


def row(metres=2.0, frame="room/00"):
    depth = np.full((24, 32), metres, np.float32)
    return SheetRow(frame, np.zeros((24, 32, 3), np.uint8), depth, depth)


def test_scalars_keep_step_and_value(tmp_path):
    with Board(tmp_path) as board:
        narrow: Any = np.float32(0.5)
        board.scalars(3, {"train/loss": narrow, "train/lr": 1e-4})
        board.scalars(7, {"train/loss": 0.25})
    points = read(tmp_path).Scalars("train/loss")
    assert [(point.step, point.value) for point in points] == [(3, 0.5), (7, 0.25)]


def test_images_have_the_names_of_their_frames(tmp_path):
    with Board(tmp_path) as board:
        board.contact_sheets(5, [row(), row(3.0, "room/01"), row(1.0)._replace(kind="mask")])
    images = read(tmp_path)
    assert images.Tags()["images"] == ["validation/room/00", "validation/room/01"]
    (image,) = images.Images("validation/room/01")
    assert image.height < images.Images("validation/room/00")[0].height, "a frame's mask is below its depth"
    decoded = cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert image.step == 5 and decoded.shape[:2] == (image.height, image.width)
    assert image.width > 4 * 240 and decoded.std() > 10


def test_histogram_counts_finite_values_only(tmp_path):
    with Board(tmp_path) as board:
        board.histogram(1, "depth/truth", np.array([[1.0, 2.0, np.nan], [np.inf, 4.0, 4.0]]))
        board.histogram(1, "depth/empty", np.zeros(0))
    events = read(tmp_path)
    shown = events.Histograms("depth/truth")[0].histogram_value
    assert (shown.num, shown.min, shown.max, sum(shown.bucket)) == (4, 1.0, 4.0, 4)
    assert events.Tags()["histograms"] == ["depth/truth"]


def test_hparams_stand_in_the_same_run(tmp_path):
    values = {"optim.lr": 1e-3, "train.compile": True, "data.size": [96, 128], "model.name": "unet", "model.x": None}
    with Board(tmp_path) as board:
        board.hparams(values, ["validation/abs_rel"])
        board.scalars(1, {"validation/abs_rel": 0.2})
    assert [path.is_file() for path in tmp_path.iterdir()] == [True]  # no second run directory
    metadata = read(tmp_path).summary_metadata["_hparams_/session_start_info"].plugin_data
    session = HParamsPluginData.FromString(metadata.content).session_start_info.hparams
    assert session["optim.lr"].number_value == 1e-3 and session["train.compile"].string_value == "true"
    assert session["data.size"].string_value == "96,128" and session["model.name"].string_value == "unet"


@pytest.fixture
def first_files(monkeypatch):
    """Files of one process and second are read in the order of their names, where the tenth is before the ninth."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


@pytest.mark.usefixtures("first_files")
@pytest.mark.parametrize("done", [0, 2, 5])
def test_resume_hides_what_is_run_again_and_keeps_the_rest(tmp_path, done):
    with Board(tmp_path) as board:
        board.hparams({"a": 1}, ["loss"])
        for step in range(1, 6):
            board.scalars(step, {"loss": step})
    with Board(tmp_path, first_step=done) as board:
        board.hparams({"a": 1}, ["loss"])
        board.scalars(done + 1, {"loss": 30})
    points = read(tmp_path).Scalars("loss")
    assert [(point.step, point.value) for point in points] == [*((s, s) for s in range(1, done + 1)), (done + 1, 30)]


def test_flush_makes_points_visible_before_the_end(tmp_path):
    with Board(tmp_path) as board:
        board.scalars(1, {"loss": 1.0})
        board.flush()
        assert read(tmp_path).Tags()["scalars"] == ["loss"]
