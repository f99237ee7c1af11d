"""Bags of ROS 1 and 2 and MCAP files, made by the libraries' own writers, read value by value."""

from __future__ import annotations

import pickle
import sys
import threading

import numpy as np
import pytest
import recorded
from recorded import COLOUR, DEPTH, MATRIX, START, STEP, WRITERS, aligned, image, millimetres, picture

from depthray.__main__ import main
from depthray.config.sections import Data
from depthray.data.recordings.containers import mcap_files, rosbag_files
from depthray.data.recordings.recording import name_in
from depthray.data.sources import open_source, recognise
from depthray.errors import DataError, UsageError


@pytest.fixture(params=WRITERS)
def form(request):
    return request.param


def opened(form, path, **options):
    return open_source(Data(source=form, root=str(path), recording={"change": 0, **options}))


def written(form, folder, messages, **options):
    name, write = WRITERS[form]
    return write(folder / name, messages, **options)


def check(source, numbers):
    """Frame by frame equal to what was written, in an order that goes back and forth."""
    assert len(source.frames) == len(numbers)
    for index in (*range(len(numbers)), *reversed(range(len(numbers)))):
        sample = source.read(index)
        assert np.array_equal(sample["image"], picture(numbers[index]))
        assert np.array_equal(sample["depth"], millimetres(numbers[index]) / np.float32(1000))
        assert sample["intrinsics"].reshape(-1).tolist() == list(MATRIX)


def test_values_are_those_that_were_written(form, tmp_path):
    path = written(form, tmp_path, aligned(5))
    source = opened(form, path)
    check(source, range(5))
    assert source.frames[1].id == f"one/{START + STEP}"
    assert {frame.scene for frame in source.frames} == {"one"}
    assert source.encoding(0) == "uint16_mm"
    assert source.notes == ["colour and depth of a frame are at most 2 ms apart"]
    assert recognise(path) == form


@pytest.mark.parametrize("storage", ["MCAP"])
def test_bags_of_ros_2_with_mcap_in_them(tmp_path, storage):
    path = recorded.write_bag2(tmp_path / "bag", aligned(3), storage=storage)
    check(opened("rosbag2", path), range(3))
    check(opened("mcap", path), range(3))


@pytest.mark.parametrize(("chunk", "compression"), [(1, "NONE"), (10**6, "LZ4"), (3_000, "ZSTD")])
def test_mcap_of_every_compression(tmp_path, chunk, compression):
    path = recorded.write_mcap(tmp_path / "a.mcap", aligned(3), chunk=chunk, compression=compression)
    check(opened("mcap", path), range(3))


def test_messages_of_ros_1_in_mcap(tmp_path):
    from mcap.writer import Writer

    path = recorded.write_bag1(tmp_path / "a.bag", aligned(2))
    reader = rosbag_files._open_reader(path, "ros1")
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start()
        channels = {}
        for connection, logged, raw in reader.messages():
            if connection.topic not in channels:
                name = connection.msgtype.replace("/msg/", "/")
                schema = writer.register_schema(name, "ros1msg", connection.msgdef.data.encode())
                channels[connection.topic] = writer.register_channel(connection.topic, "ros1", schema)
            writer.add_message(channels[connection.topic], logged, raw, logged)
        writer.finish()
    reader.close()
    check(opened("mcap", tmp_path / "a.mcap"), range(2))


def test_messages_of_another_serialisation_are_named(tmp_path):
    from mcap.writer import Writer

    with (tmp_path / "a.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("foxglove.RawImage", "protobuf", b"")
        channel = writer.register_channel("/camera", "protobuf", schema)
        writer.add_message(channel, 1, b"abc", 1)
        writer.finish()
    with pytest.raises(DataError, match=r"no topics of images; its topics: /camera \(foxglove.RawImage as protobuf\)"):
        opened("mcap", tmp_path / "a.mcap")


def test_big_endian_images_and_rows_with_bytes_at_their_end(form, tmp_path):
    messages = aligned(0)
    for number in range(3):
        stamp = START + number * STEP
        messages.append(image(COLOUR, stamp, picture(number), "rgb8", padding=5))
        messages.append(image(DEPTH, stamp, millimetres(number), "16UC1", big=True, padding=2 * number))
    check(opened(form, written(form, tmp_path, messages)), range(3))


def test_a_folder_of_recordings_has_a_scene_each(form, tmp_path):
    source = open_source(recorded.MAKERS[form](tmp_path))
    assert sorted({frame.scene for frame in source.frames}) == sorted(
        {frame.id.rpartition("/")[0] for frame in source.frames}
    )
    assert len({frame.scene for frame in source.frames}) == 2
    assert recognise(tmp_path) == form


def test_names_of_recordings_are_their_own(tmp_path):
    folders = [tmp_path / "drive.1", tmp_path / "drive.2", tmp_path / "a" / "drive.1"]
    for folder in folders:
        folder.mkdir(parents=True)
    (tmp_path / "b.2.bag").touch()
    assert [name_in(tmp_path, folder) for folder in folders] == ["drive.1", "drive.2", "a/drive.1"]
    assert name_in(tmp_path, tmp_path / "b.2.bag") == "b.2"
    assert name_in(tmp_path / "b.2.bag", tmp_path / "b.2.bag") == "b.2"
    assert name_in(folders[0], folders[0]) == "drive.1"


def test_copies_and_threads_read_the_same(form, tmp_path):
    source = opened(form, written(form, tmp_path, aligned(6)))
    source.read(3)
    copied = pickle.loads(pickle.dumps(source))  # noqa: S301 - it was pickled in this line
    wrong: list[int] = []

    def read(number):
        numbers = (number, 5 - number, number)
        wrong.extend(each for each in numbers if not np.array_equal(copied.read(each)["image"], picture(each)))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def cut(path, share):
    """Cut the file, or the one in the folder, to a share of its bytes."""
    file = next(path.glob("*.db3")) if path.is_dir() else path
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])


def test_what_is_before_the_end_of_a_truncated_file_is_read(tmp_path):
    path = written("mcap", tmp_path, aligned(8), chunk=6_000)
    cut(path, 0.6)
    source = opened("mcap", path)
    assert 2 <= len(source.frames) < 8
    check(source, range(len(source.frames)))
    assert f"{path} is damaged: what was recorded after that is left out (EOFError: cut off within" in source.notes[0]


@pytest.mark.parametrize(("form", "share"), [("rosbag", 0.6), ("rosbag", 0.01), ("rosbag2", 0.7), ("mcap", 0.01)])
def test_a_file_of_which_nothing_can_be_read_is_one_line(tmp_path, form, share):
    path = written(form, tmp_path, aligned(8))
    cut(path, share)
    with pytest.raises(DataError, match=str(path)) as error:
        opened(form, path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", WRITERS)
def test_files_of_other_content(tmp_path, form):
    path = tmp_path / {"rosbag": "a.bag", "rosbag2": "a.db3", "mcap": "a.mcap"}[form]
    path.write_bytes(b"not a recording at all, but long enough" * 100)
    with pytest.raises(DataError, match="a\\."):
        opened(form, path)


def test_a_recorder_that_was_killed_leaves_no_metadata(tmp_path):
    path = written("rosbag2", tmp_path, aligned(3))
    (path / "metadata.yaml").unlink()
    check(opened("rosbag2", path), range(3))


def test_a_file_that_changes_is_noticed(tmp_path):
    path = written("mcap", tmp_path, aligned(3))
    source = opened("mcap", path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="was the file changed"):
        source.read(2)


@pytest.mark.parametrize(("form", "library"), [("rosbag", "rosbags"), ("rosbag2", "rosbags"), ("mcap", "mcap")])
def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch, form, library):
    path = written(form, tmp_path, aligned(1))
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    mcap_files._errors.cache_clear()
    rosbag_files._errors.cache_clear()
    with pytest.raises(
        UsageError, match=rf"needs {library}, which is not installed: pip install 'depthray\[recordings\]'"
    ):
        opened(form, path)


def test_conversion_writes_the_frames_and_says_what_is_left_out(tmp_path, capsys):
    messages = aligned(6)
    dropped = [each for each in messages if not (each.topic == DEPTH and each.logged == START + 2_000_000 + STEP)]
    path = written("rosbag2", tmp_path, dropped)
    words = ["data", "convert", "rosbag2", str(path), str(tmp_path / "out"), "data.recording.change=0"]
    assert main([*words, "--frames-per-shard", "2"]) == 0
    printed = capsys.readouterr().out
    assert "5 frames in 3 shards" in printed
    assert "note: 1 colour images without depth within 20 ms left out (one 1)" in printed
    check(open_source(Data(source="shards", root=str(tmp_path / "out"))), [0, 2, 3, 4, 5])
    assert main(words) == 3  # cut into other ranges
