"""`depthray predict --url` writes over HTTP what `depthray predict` writes, whatever the network takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from serve_fake import running
from serve_networks import photograph, write_checkpoint

from depthray.__main__ import main
from depthray.imaging.camera import Camera
from depthray.predict import load
from serve import settings
from serve.backend import BackendAnswer, ModelCard, UnknownModel
from serve.http import auth, routes

KEY = "k" * 20


class Here:
    """A backend that computes in this process; the first model is the default."""

    def __init__(self, **checkpoints: Path) -> None:
        self.predictors = {name: load(path) for name, path in checkpoints.items()}

    async def predict(
        self,
        model: str,
        rgb: Any,
        others: Mapping[str, Any],
        deadline: float,
        *,
        native: bool = False,
        camera: Camera | None = None,
    ) -> BackendAnswer:
        name = model or next(iter(self.predictors))
        if name not in self.predictors:
            raise UnknownModel("no such model")
        return BackendAnswer(self.predictors[name].maps(rgb, camera=camera, **others), f"{name}@0123456789ab", (64, 96))

    async def models(self) -> list[ModelCard]:
        cards = []
        for name, predictor in self.predictors.items():
            data = predictor.recipe.data
            facts = (name, "0123456789ab", "unet", data.inputs, data.targets, data.size, 0.1, 10.0)
            cards.append(ModelCard(*facts, canonical_focal=data.canonical_focal))
        return cards

    async def ready(self) -> bool:
        return True


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {"plain": [], "completion": ["data.inputs=[image,sparse]"], "canonical": ["data.canonical_focal=50"]}
    return {name: write_checkpoint(tmp_path_factory.mktemp(name), *arguments) for name, arguments in made.items()}


@pytest.fixture(scope="module")
def url(checkpoints: dict[str, Path]) -> Iterator[str]:
    with running(routes.create(Here(**checkpoints), settings.Settings(), keys=auth.Keys([KEY]))) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPTHRAY_API_KEY", KEY)
    (tmp_path / "photos").mkdir()
    (tmp_path / "measured").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(photograph(60, 90)).save("photos/turned.jpg", exif=exif, quality=90)
    Image.fromarray(photograph(50, 70)).save("photos/plain.png")
    Image.fromarray(photograph(41, 77)).save("photos/web.webp", lossless=True)
    for name, (height, width) in {"turned": (90, 60), "plain": (50, 70), "web": (41, 77)}.items():
        depth = np.zeros((height, width), np.uint16)
        depth[::7, ::5] = 2345
        cv2.imwrite(f"measured/{name}.png", depth)
    return tmp_path


@pytest.mark.parametrize("name", ["plain", "completion", "canonical"])
def test_a_server_writes_the_files_a_checkpoint_writes(
    name: str, url: str, checkpoints: dict[str, Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["photos", "--format", "png,npy,colour,ply", "--intrinsics", "60,61,34.5,24.5"]
    arguments += ["--sparse", "measured"] if name == "completion" else []
    assert main(["predict", str(checkpoints[name]), *arguments, "--out", "here"]) == 0
    output = capsys.readouterr().out
    assert main(["predict", "--url", url, "--model", name, *arguments, "--out", "there"]) == 0
    assert capsys.readouterr().out == output.replace("here", "there")
    assert len(list(Path("here").iterdir())) == 12
    for path in Path("here").iterdir():
        other = Path("there") / path.name
        if path.name.endswith(".depth.npy"):
            assert np.abs(np.load(path) - np.load(other)).max() < 0.001
        elif path.name.endswith(".depth.png"):
            one, two = (cv2.imread(str(each), cv2.IMREAD_UNCHANGED).astype(int) for each in (path, other))
            assert one.shape == two.shape and np.abs(one - two).max() <= 1
        else:
            assert path.stat().st_size == other.stat().st_size


def test_the_default_model_answers_and_flags_stand_anywhere(url: str, folder: Path) -> None:
    assert main(["predict", "photos/plain.png", "--url", url, "photos/web.webp", "--out", "out"]) == 0
    assert {path.name for path in Path("out").glob("*.png")} == {
        *("plain.depth.png", "plain.colour.png", "web.depth.png", "web.colour.png")
    }


def test_one_that_is_refused_does_not_stop_the_others(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(photograph(4, 70)).save("photos/flat.png")  # the server takes 8 pixels a side at least
    assert main(["predict", "--url", url, "photos", "--out", "out"]) == 3
    output = capsys.readouterr()
    assert "3 of 4 images predicted" in output.out and "422" in output.err and "flat.png" in output.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--device", "cpu"], 2, "--device cannot be combined with --url"),
        (["--model", "pain"], 2, "did you mean 'plain'?"),
        (["--model", "completion"], 2, "needs --sparse as well"),
        (["--model", "canonical"], 2, "needs the camera of the images (data.canonical_focal): give --intrinsics"),
        (["--sparse", "measured"], 2, "--sparse: this network does not take it"),
        (["--key", "a wrong one"], 3, "401"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], code: int, message: str, url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--url", url, "photos/plain.png", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "photo.jpg", "--key", "x"], "--key needs --url"),
        (["run"], "no checkpoint is given"),
        (["--url", "localhost:8000", "photos/plain.png"], "begins with http"),
    ],
)
def test_a_wrong_command_line_sends_no_request(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *arguments]) == 2
    assert message in capsys.readouterr().err
