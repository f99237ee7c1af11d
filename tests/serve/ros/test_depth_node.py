"""The ROS 2 node against a stub of rclpy: bags through its callbacks, the newest image alone, faults are logged."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import ros_stub
from checkpoints import write_checkpoint
from numpy.typing import NDArray
from paths import ROOT
from recorded import COLOUR, OPTICAL, aligned, camera, compressed, image, picture, png, write_bag2
from ros_stub import StubNode, built, interface, replay
from serve_fake import Fake, wall
from starlette.responses import PlainTextResponse

from depthray.__main__ import main
from depthray.errors import UsageError
from depthray.predict import load
from serve.ros import command, node_settings
from serve.ros.depth_node import AGAIN, DepthNode, read_settings
from serve.ros.estimators import open_estimator
from serve.ros.node_settings import NodeSettings
from serve.ros.ros_interface import import_ros

INFO = "/camera/color/camera_info"
INPUTS = {INFO: "camera_info", COLOUR: "image"}  # as one remaps them


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag2(tmp_path_factory.mktemp("bag") / "one", aligned(3))


def metres(message: Any) -> NDArray[np.float32]:
    return np.frombuffer(message.data, "<f4").reshape(message.height, message.width)


def started(estimate: Any = wall, **parameters: Any) -> StubNode:
    node, ros = StubNode(**parameters), interface()
    DepthNode(node, ros, estimate, read_settings(node, ros, model="unused"))
    return node


def pictures(count: int) -> list[Any]:
    """Images as rclpy gives them, with stamps of 0, 1, 2 ... seconds."""
    return [built(image(COLOUR, number * 10**9, picture(number), "rgb8")) for number in range(count)]


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_a_replayed_bag_gives_the_depth_of_predict(bag: Path, checkpoint: Path, encoding: str) -> None:
    settings = node_settings.check({"model": str(checkpoint), "depth_encoding": encoding, "points": True})
    node, ros = StubNode(), interface()
    predictor = load(checkpoint, device="cpu")
    images = []
    with open_estimator(settings) as estimate:
        DepthNode(node, ros, estimate, settings)
        for topic, message in replay(bag):
            if topic in INPUTS:
                node.arrive(INPUTS[topic], message)
                node.spin()
                images += [message] if topic == COLOUR else []
    assert len(images) == len(node.sent("depth/image")) == 3 and not node.errors
    for number, (given, made) in enumerate(zip(images, node.sent("depth/image"), strict=True)):
        wanted = predictor.predict(picture(number)).metres
        assert made.header is given.header and made.header.frame_id == OPTICAL
        if encoding == "32FC1":
            np.testing.assert_array_equal(metres(made), wanted)
        else:
            pixels = np.frombuffer(made.data, "<u2").reshape(made.height, made.width)
            np.testing.assert_array_equal(pixels, np.rint(wanted.astype(np.float64) * 1000))
        cloud, info = node.sent("depth/points")[number], node.sent("depth/camera_info")[number]
        assert cloud.header is info.header is given.header
        xyz = np.frombuffer(cloud.data, "<f4").reshape(24, 32, 4)[..., :3]
        np.testing.assert_array_equal(xyz[..., 2], wanted)
        np.testing.assert_allclose(xyz[5, 7, :2], (np.array([7, 5]) - (15.5, 11.5)) / 30 * wanted[5, 7], rtol=1e-5)
        assert info.k == [30.0, 0, 15.5, 0, 30.0, 11.5, 0, 0, 1]


def test_depth_of_the_networks_own_size_comes_with_its_camera(bag: Path, checkpoint: Path) -> None:
    settings = node_settings.check({"model": str(checkpoint), "size": "model", "points": True})
    node, ros = StubNode(), interface()
    with open_estimator(settings) as estimate:
        DepthNode(node, ros, estimate, settings)
        for topic, message in replay(bag):
            if topic in INPUTS:
                node.arrive(INPUTS[topic], message)
        node.spin()
    (depth,), (info,), (cloud,) = (node.sent(f"depth/{name}") for name in ("image", "camera_info", "points"))
    assert [(each.height, each.width) for each in (depth, info, cloud)] == [(64, 96)] * 3  # of images of 24x32
    assert info.k == pytest.approx([90, 0, 16 * 3 - 0.5, 0, 30 * 64 / 24, 12 * 64 / 24 - 0.5, 0, 0, 1])
    assert np.isfinite(metres(depth)).all() and not node.errors


def test_compressed_images_are_decoded() -> None:
    node = started(transport="compressed")
    assert list(node.subscriptions) == ["camera_info", "image/compressed"]
    node.arrive("image/compressed", built(compressed("/i", 7, png(picture(1)), "png")))
    node.spin()
    np.testing.assert_array_equal(metres(node.sent("depth/image")[0]), wall(picture(1)))


def test_a_server_gives_the_same(fake: Fake, url: str) -> None:
    with open_estimator(node_settings.check({"server": url, "model": "room"})) as estimate:
        np.testing.assert_array_equal(estimate(picture(0)), wall(picture(0)))
    with open_estimator(node_settings.check({"server": url, "size": "model"})) as estimate:
        estimate(picture(0))
    asked = [(path, query.get("size")) for path, query, _ in fake.seen]
    assert asked == [("/v1/models/room/depth", None), ("/v1/models/room/depth", "model")]
    with pytest.raises(UsageError, match="the node has images alone, and this network needs sparse too"):
        open_estimator(node_settings.check({"server": url, "model": "sparse-room"})).__enter__()


def test_a_server_that_fails_costs_the_image_alone(fake: Fake, url: str) -> None:
    with open_estimator(node_settings.check({"server": url})) as estimate:
        node = started(estimate)
        fake.faults = [PlainTextResponse("busy", 503)]
        for message in pictures(2):
            node.arrive("image", message)
            node.spin()
    assert len(fake.seen) == 2, "no image is tried twice: the next one is newer"
    assert [made.header.stamp.sec for made in node.sent("depth/image")] == [1]
    assert len(node.errors) == 1 and "503" in node.errors[0]


def test_of_images_that_come_faster_than_depth_the_newest_alone_is_predicted() -> None:
    node = started()
    for subscription in node.subscriptions.values():
        quality = subscription.quality
        assert (quality.history, quality.depth, quality.reliability) == ("keep last", 1, "best effort")
    assert {each.quality.reliability for each in node.publishers.values()} == {"reliable"}
    node.arrive("image", *pictures(5))
    node.spin()
    assert [made.header.stamp.sec for made in node.sent("depth/image")] == [4]


@pytest.mark.parametrize(("rate", "wanted"), [(0, 40), (5, 20), (4, 16), (30, 40)])
def test_a_rate_is_kept_on_average(rate: float, wanted: int) -> None:
    node, message = started(rate=rate), pictures(1)[0]
    for _ in range(40):  # of a camera of 10 images a second
        node.arrive("image", message)
        node.spin()
        node.nanoseconds += 10**8
    count = len(node.sent("depth/image"))
    assert abs(count - wanted) <= 1
    node.nanoseconds -= 10**11  # the clock of a simulation that starts anew
    node.arrive("image", message)
    node.spin()
    assert len(node.sent("depth/image")) == count + 1


def test_a_fault_is_logged_once_in_a_while_and_the_node_goes_on() -> None:
    node, (good, bad) = started(), pictures(2)
    bad.encoding = "rgb16"
    for _ in range(50):
        node.arrive("image", bad)
        node.spin()
        node.nanoseconds += AGAIN // 20
    assert len(node.errors) == 3 and set(node.errors) == {node.errors[0]}
    assert node.errors[0].startswith("/image: images are 'rgb16', which is no colour of 8 bits; known are rgb8, bgr8")
    node.arrive("image", good)
    node.spin()
    assert len(node.sent("depth/image")) == 1


def test_what_nobody_expected_is_logged_too() -> None:
    def fail(_: Any) -> Any:
        raise ZeroDivisionError("so")

    node = started(fail)
    for message in pictures(3):
        node.arrive("image", message)
        node.spin()
    assert node.errors == ["unexpected ZeroDivisionError: so"] and not node.sent("depth/image")


def test_points_wait_for_a_camera_and_depth_does_not() -> None:
    node, message = started(points=True), pictures(1)[0]
    node.arrive("image", message)
    node.spin()
    assert len(node.sent("depth/image")) == 1 and not node.sent("depth/points") and not node.sent("depth/camera_info")
    assert node.errors == ["no points as long as there is no camera_info; remap camera_info to its topic"]
    node.arrive("camera_info", built(camera(INFO, 0)))
    node.arrive("image", message)
    node.spin()
    assert len(node.sent("depth/points")) == 1 and len(node.errors) == 1
    assert "depth/points" not in started().publishers


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "depth by what? Give a run, checkpoint or export, or the parameter server:=http://HOST:8000"),
        (
            {"model": "x", "depth_encoding": "8UC1"},
            "parameter depth_encoding='8UC1': input should be '32FC1' or",
        ),
        ({"model": "x", "rate": -1}, "parameter rate=-1: input should be greater than or equal to 0"),
        ({"model": "x", "transport": "compresed"}, "did you mean 'compressed'?"),
    ],
)
def test_wrong_parameters_are_one_clear_line(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_settings(StubNode(**parameters), interface(), model="")
    assert message in str(raised.value)


def test_parameters_go_before_the_command_line_and_whole_numbers_are_rates() -> None:
    read = read_settings(StubNode(rate=5, model="theirs"), interface(), model="mine")
    assert (read.model, read.rate) == ("theirs", 5.0)
    assert read_settings(StubNode(), interface(), model="mine") == NodeSettings(model="mine")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["loss.target=relative", "eval.protocol=affine-depth", "model.max_depth=1"],
            "the node needs metres, and this network's depth is",
        ),
        (["data.inputs=image,sparse"], "the node has images alone, and this network needs sparse too"),
    ],
)
def test_networks_that_need_or_give_something_else_are_refused(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    made = write_checkpoint(tmp_path, *overrides)
    with pytest.raises(UsageError, match=message):
        open_estimator(node_settings.check({"model": str(made)})).__enter__()


def run(monkeypatch: pytest.MonkeyPatch, node: StubNode, script: Any, argv: list[str]) -> tuple[int, list[Any]]:
    ros = interface(node, script)
    monkeypatch.setattr(command, "import_ros", lambda: ros)
    return main(["ros", *argv]), ros.rclpy.calls


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, ros_stub.ShutdownException])
def test_the_command_runs_a_node_to_its_end(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, end: type[BaseException] | None
) -> None:
    node = StubNode()

    def script(node: StubNode) -> None:
        node.arrive("image", *pictures(1))
        node.spin()
        if end is not None:
            raise end

    remapped = ["--ros-args", "-r", "image:=/camera/image_raw"]
    code, calls = run(monkeypatch, node, script, [str(checkpoint), *remapped])
    assert (code, calls) == (0, [("init", remapped), ("node", "depthray"), "shutdown"])
    assert node.is_destroyed and len(node.sent("depth/image")) == 1
    assert node.infos == [f"depth by {checkpoint}, as 32FC1"]


def test_a_model_may_be_a_parameter_alone(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    node = StubNode(model=str(checkpoint))
    code, _ = run(monkeypatch, node, StubNode.spin, ["--ros-args", "-p", f"model:={checkpoint}"])
    assert code == 0 and node.infos == [f"depth by {checkpoint}, as 32FC1"]


def test_a_node_that_cannot_start_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = StubNode()
    code, calls = run(monkeypatch, node, StubNode.spin, [str(tmp_path / "none")])
    assert code in (2, 3) and node.is_destroyed and calls[-1] == "shutdown"
    assert capsys.readouterr().err.count("\n") == 1


def test_without_ros_the_command_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sensor_msgs", None)
    monkeypatch.setitem(sys.modules, "sensor_msgs.msg", None)
    assert main(["ros", "runs/first"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("depthray: the node needs ROS 2, which pip does not install: `source /opt/ros/")


def test_ros_is_imported_by_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = interface()
    where = {
        **{"sensor_msgs": (), "rcl_interfaces": (), "rclpy": ("init", "create_node", "spin", "try_shutdown")},
        "rclpy.qos": ("QoSProfile", "HistoryPolicy", "ReliabilityPolicy"),
        "rclpy.executors": ("ExternalShutdownException",),
        "sensor_msgs.msg": ("Image", "CompressedImage", "CameraInfo", "PointCloud2", "PointField"),
        "rcl_interfaces.msg": ("ParameterDescriptor",),
    }
    for name, members in where.items():
        module = ModuleType(name)
        module.__dict__.update({each: getattr(stub, each, getattr(stub.rclpy, each, None)) for each in members})
        monkeypatch.setitem(sys.modules, name, module)
    assert import_ros()._replace(rclpy=None) == stub._replace(rclpy=None)


def test_the_page_has_every_parameter_with_its_default() -> None:
    page = (ROOT / "docs" / "ros.md").read_text(encoding="utf-8")
    rows = {row.split("|")[1].strip(): row for row in page.splitlines() if row.startswith("|")}
    for name, field in NodeSettings.model_fields.items():
        default = "false" if field.default is False else "0" if field.default == 0 else field.default
        assert not default or f"| `{default}` |" in rows[f"`{name}`"], name
