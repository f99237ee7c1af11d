"""Networks whose depth is not in metres: what scores them, what refuses them, and that their training works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from numpy.typing import NDArray

from depthray import load
from depthray.__main__ import main
from depthray.errors import UsageError
from depthray.evaluation import protocols
from depthray.evaluation.alignment import to_metres
from depthray.evaluation.legacy_metrics import relative_at_56
from depthray.evaluation.protocols import PROTOCOLS
from depthray.imaging.photos import read
from depthray.training import preflight

RELATIVE = ["loss={l2: 1, target: relative}", "model.max_depth=1"]
SEED_003 = [*RELATIVE, "eval.protocol=legacy-003", "eval.monitor=mse"]
MIDAS = ["loss={ssi: 1, ssi_gradient: 0.5}", "eval.protocol=affine-disparity"]
KINDS = {
    "metric": [],
    "relative": SEED_003,
    "affine-disparity": MIDAS,
    "affine-depth": ["loss={ssi: 1, ssi_space: depth}", "eval.protocol=affine-depth"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_protocol_takes_what_it_fits_to_the_truth(kind: str) -> None:
    assert preflight.load("demo", KINDS[kind]).loss.depth_kind == kind
    taken = {name for name, protocol in PROTOCOLS.items() if kind in protocol.accepts}
    fitted = {name for name, protocol in PROTOCOLS.items() if protocol.align != "none"}
    expected = {
        "metric": set(PROTOCOLS),
        "relative": {"legacy-003", *fitted},
        "affine-depth": {name for name in fitted if name.startswith("affine-depth")},
        "affine-disparity": {name for name in fitted if name.startswith("affine-disparity")},
    }
    assert taken == expected[kind] and taken


REFUSED = [
    (RELATIVE, r"eval\.protocol=plain .* shares of each image's largest.*choose from: affine-depth, .*legacy-003"),
    ([*RELATIVE, "eval.protocol=nyu-bts"], "eval.protocol=nyu-bts does not fit depth"),
    (["loss.l1=0", "loss.gradient=0", "loss.ssi=1"], r"right up to a scale and a shift.*1 / depth.*affine-disparity"),
    ([*MIDAS, "eval.protocol=affine-depth"], "choose from: affine-disparity, affine-disparity-nyu"),
    ([*MIDAS, "eval.protocol=median-scaled"], "choose from: affine-disparity, "),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_metres_are_not_required_of_a_network_without_them(overrides: list[str], message: str, training: bool) -> None:
    with pytest.raises(UsageError, match=message):
        preflight.load("demo", overrides, training=training)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.max_depth=10", r"give model\.max_depth=1 \(now 10\)"),
        ("data.inputs=image,sparse", "sparse depth among data.inputs is in metres"),
        ("loss={ssim: 1, target: relative}", r"loss\.ssim needs loss\.depth_range=1"),
    ],
)
def test_a_network_of_shares_ends_at_1_and_gets_no_metres(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        preflight.load("demo", [*SEED_003, override])


def test_a_network_of_shares_may_have_any_range_of_truth() -> None:
    assert preflight.load("demo", [*SEED_003, "data.max_depth=80"]).model.options["max_depth"] == 1
    with pytest.raises(UsageError, match=r"now 10"):  # by default
        preflight.load("demo", SEED_003[:1] + SEED_003[2:])


def test_terms_in_metres_besides_aligned_ones_keep_the_metres() -> None:
    recipe = preflight.load("demo", ["loss.ssi=1"])
    assert recipe.loss.depth_kind == "metric" and recipe.eval.protocol == "plain"


def test_legacy_003_compares_the_shares_of_a_network_as_they_are() -> None:
    """As the seed did: a network of shares that are all too small is not forgiven, one of metres is."""
    truth = torch.rand(1, 1, 56, 56, generator=torch.Generator().manual_seed(0)) * 4 + 1
    batch: Any = {"depth": truth}
    half: Any = {"depth": 0.5 * truth / truth.max()}
    relative = protocols.of(preflight.load("demo", SEED_003))
    assert relative.name == "legacy-003" and relative.extra
    found = relative.extra(half, batch, None)["mse"]
    torch.testing.assert_close(found, (0.5 * truth / truth.max()).double().square().mean().view(1))
    metric = protocols.of(preflight.load("demo", SEED_003[2:]))
    assert metric is PROTOCOLS["legacy-003"] and metric.extra is relative_at_56
    assert metric.extra(half, batch, None)["mse"].item() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_depth_of_each_kind_becomes_metres_by_its_truth(kind: Any) -> None:
    truth = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0)) * 8 + 1
    made = {
        "metric": truth,
        "relative": truth / 9,
        "affine-depth": 0.1 * truth + 3,
        "affine-disparity": 1 / (0.3 / truth + 0.2),
    }
    found = to_metres(made[kind], truth, valid=truth > 2, limits=(1e-3, 10.0), kind=kind)
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=0)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    arguments = ["data.frames=12", "data.size=48,64"]
    return {kind: write_checkpoint(tmp_path_factory.mktemp("run"), *arguments, *KINDS[kind]) for kind in KINDS}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    from PIL import Image

    y, x = np.mgrid[:50, :70]
    path = tmp_path / "room.png"
    Image.fromarray(np.stack([x * 3, y * 4, 255 - x - y], -1).astype(np.uint8)).save(path)
    return path


def predict_cli(checkpoint: Path, image: Path, out: Path, *flags: str) -> int:
    return main(["predict", str(checkpoint), str(image), "--out", str(out), *flags])


@pytest.mark.parametrize("kind", KINDS)
def test_predict_writes_no_millimetres_of_what_is_not_in_metres(
    kind: str, checkpoints: dict[str, Path], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict_cli(checkpoints[kind], image, tmp_path / "out") == 0
    printed, first = capsys.readouterr().out, "png" if kind == "metric" else "npy"
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"room.depth.{first}", "room.colour.png"}
    assert (" m\n" in printed) == (kind == "metric")
    if kind != "metric":
        predictor = load(checkpoints[kind])
        depth: NDArray[np.float32] = np.load(tmp_path / "out" / "room.depth.npy")
        assert predictor.depth_kind == kind and np.array_equal(depth, predictor.predict(read(image)))


@pytest.mark.parametrize("name", ["png", "ply", "glb", "npy,png"])
def test_formats_in_metres_are_refused_of_a_relative_network(
    name: str, checkpoints: dict[str, Path], image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict_cli(checkpoints["relative"], image, tmp_path / "out", "--format", name) == UsageError.exit_code
    printed = capsys.readouterr().err
    assert "holds metres, and this network's depth is shares of each image's largest depth" in printed
    assert not (tmp_path / "out").exists()


def test_measuring_needs_metres(checkpoints: dict[str, Path], image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = ["1", "2", "30", "40"]
    assert main(["measure", str(checkpoints["affine-disparity"]), str(image), *points]) == UsageError.exit_code
    assert "measuring needs metres, and this network's depth is right up to" in capsys.readouterr().err
    assert main(["measure", str(checkpoints["metric"]), str(image), *points]) == 0


def test_view_fits_each_frame_and_reports_it(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--frames", "1", "--no-recording", "--out", str(tmp_path)]
    assert main(["view", str(checkpoints["relative"]), *arguments]) == 0
    assert "not in metres: it is fitted to the truth" in capsys.readouterr().out
    assert (tmp_path / "00.ply").is_file()


def test_an_evaluation_reports_the_kind_of_depth(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("metric", "affine-disparity"):
        assert main(["evaluate", str(checkpoints[kind]), "--out", str(tmp_path / kind)]) == 0
    summaries = {
        kind: json.loads((tmp_path / kind / "evaluation.json").read_text()) for kind in ("metric", "affine-disparity")
    }
    assert "predicted_depth" not in summaries["metric"]
    assert summaries["affine-disparity"]["predicted_depth"].startswith("right up to a scale and a shift")
    refused = ["evaluate", str(checkpoints["relative"]), "eval.protocol=plain", "--out", str(tmp_path / "no")]
    assert main(refused) == UsageError.exit_code
    assert "eval.protocol=plain does not fit depth that is shares" in capsys.readouterr().err


TRAINED = ["data.frames=48", "data.size=48,64", "train.epochs=4", "train.batch_size=8", "train.keep_best=9"]


@pytest.mark.parametrize(("overrides", "metric"), [(SEED_003, "mse"), (MIDAS, "abs_rel")], ids=["seed 003", "MiDaS"])
def test_training_without_metres_learns(overrides: list[str], metric: str, tmp_path: Path) -> None:
    assert main(["train", "demo", "--local", "--out", str(tmp_path / "run"), *TRAINED, *overrides]) == 0
    epochs = sorted((tmp_path / "run" / "checkpoints").iterdir())
    metrics = [json.loads((epoch / "metrics.json").read_text()) for epoch in epochs]
    assert len(metrics) == 4 and all(0 < scores[metric] < 1 for scores in metrics)
    assert metrics[-1]["train_loss"] < 0.85 * metrics[0]["train_loss"]
