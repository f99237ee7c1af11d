"""The client against the true API: maps, files, refusals and batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from serve_clients import QUICK, RGB, png
from serve_fake import Wall, running, wall

from depthray.client import DepthClient, RefusedError, remote_predictor
from depthray.errors import UsageError
from depthray.imaging import camera, export
from serve.http import auth, routes
from serve.settings import Settings


@pytest.fixture
def real() -> Iterator[DepthClient]:
    """A client of the true API, but for the network."""
    app = routes.create(Wall(), Settings(), keys=auth.Keys(["k" * 20]), send_id=True)
    with running(app) as url, DepthClient(url, key="k" * 20, retry=QUICK) as client:
        yield client


def test_the_true_api_is_understood(real: DepthClient) -> None:
    estimate = real.predict(RGB)
    np.testing.assert_array_equal(estimate.metres, wall(RGB))
    assert (estimate.model, estimate.input_size, estimate.timings["model"]) == ("room@0123456789ab", "320x240", 0.5)
    assert len(estimate.request_id) == 32
    assert set(real.maps(RGB, model="room@0123456789ab").maps) == {"depth", "mask"}
    assert real.ready() and real.models()[0]["inputs"] == ["image"]
    sparse = np.full((12, 20), 1.5, np.float32)
    np.testing.assert_array_equal(real.predict(RGB, sparse=sparse).metres, sparse)


def test_the_true_api_s_files_and_points_agree_with_ours(real: DepthClient) -> None:
    ours = export.points(wall(RGB), RGB, camera=camera.assumed_camera(12, 20, degrees=75))
    cloud = real.fetch(RGB, "ply", query={"fov": 75})
    assert cloud.endswith(ours.tobytes())
    np.testing.assert_array_equal(real.predict(RGB).points(degrees=75), ours)


def test_refusals_of_the_real_api_are_reported(real: DepthClient) -> None:
    for message, call in (
        ("no such model", lambda: real.predict(RGB, model="hall")),
        ("JPEG, PNG or WebP", lambda: real.predict(b"GIF89a" + bytes(50))),
        ("unknown parameter 'fvo'", lambda: real.fetch(RGB, "ply", query={"fvo": 60})),
        ("sparse is 9x9", lambda: real.predict(RGB, sparse=np.ones((9, 9), np.float32))),
    ):
        with pytest.raises(RefusedError, match=message):
            call()


def test_a_bad_image_of_a_batch_is_an_error_at_its_index(real: DepthClient) -> None:
    first, bad, last = real.batch([RGB, png()[:60], RGB[::-1].copy()], model="room")
    np.testing.assert_array_equal(first.metres, wall(RGB))
    np.testing.assert_array_equal(last.metres, wall(RGB[::-1]))
    assert first.model == "room@0123456789ab" and len(last.points()) == 240
    assert isinstance(bad, RefusedError) and bad.status == 400 and "damaged" in str(bad)
    sparse = [np.full((12, 20), metres, np.float32) for metres in (1, 2)]
    assert [each.metres.max() for each in real.batch([RGB, RGB], sparse=sparse)] == [1, 2]
    with pytest.raises(UsageError, match="1 sparse for 2 images"):
        real.batch([RGB, RGB], sparse=sparse[:1])


def test_a_server_stands_in_for_a_checkpoint() -> None:
    app = routes.create(Wall(), Settings(), keys=auth.Keys(["k" * 20]))
    with running(app) as url:
        with remote_predictor.connect(url, key="k" * 20) as predictor:
            assert predictor.inputs == ("image",)
            np.testing.assert_array_equal(predictor.maps(RGB)["depth"], wall(RGB))
        with remote_predictor.connect(url, key="k" * 20, model="room") as predictor:
            assert predictor.name == "room"
        for arguments, fault, message in (
            ({"key": "k" * 20, "model": "rom"}, UsageError, r"no model 'rom' there \(did you mean 'room'\?\)"),
            ({}, RefusedError, "401"),
        ):
            with pytest.raises(fault, match=message), remote_predictor.connect(url, **arguments):
                pass
