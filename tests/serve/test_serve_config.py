"""The production file and the command line: all names in them exist, and mistakes are reported before Ray starts."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import ray
from serve_networks import write_checkpoint

from depthray.__main__ import main
from depthray.config.overrides import read_yaml
from depthray.errors import ResourceError, UsageError
from serve import settings
from serve.registry.store import Store

CONFIG = Path(settings.__file__).parent / "config.yaml"


def test_the_production_file_is_understood_by_ray_and_by_us() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.serve.schema import ServeDeploySchema

    tree = read_yaml(CONFIG)
    ServeDeploySchema.model_validate(tree)
    (application,) = tree["applications"]
    found = settings.parse(application["args"])
    assert found.keys_file and application["import_path"] == "serve.app:build"
    assert tree["http_options"]["request_timeout_s"] >= found.timeout_seconds + found.limits.upload_seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "can be reached by others, and there are no API keys"),
        ([], "serve what?"),
        (["nowhere"], "nowhere: neither a checkpoint nor a run"),
        (["model.max_bach=3"], "did you mean 'max_batch'?"),
        (["--max-replicas", "0"], "model_replicas.max"),
        (["--port", "70000"], "choose another --port"),
        (["rollback"], "no model 'depth'"),
        (["promote", "nowhere"], "nowhere: neither a checkpoint nor a run"),
    ],
)
def test_a_mistake_is_one_line_and_starts_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *arguments]) != 0
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_promote_list_and_rollback_print_what_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_checkpoint(tmp_path / f"run{seed}", seed=seed) for seed in (0, 1)]
    store = ["--store", str(tmp_path / "served")]
    for run in runs:
        assert main(["serve", "promote", str(run), "--name", "rooms", *store]) == 0
    assert "x apart from the one before" in capsys.readouterr().out
    assert main(["serve", "rollback", "--name", "rooms", *store]) == 0
    back = capsys.readouterr().out
    assert main(["serve", "list", *store]) == 0
    line = capsys.readouterr().out
    assert line.split()[0] == back.split()[1] and "96x64 image -> depth" in line


def test_old_versions_are_pruned_by_a_command_or_after_a_promotion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "served")]
    versions = tmp_path / "served" / "rooms" / "versions"
    for seed in range(4):
        run = write_checkpoint(tmp_path / f"run{seed}", seed=seed)
        assert main(["serve", "promote", str(run), "--name", "rooms", "--keep", "0", *store]) == 0
        for path in versions.iterdir():
            os.utime(path, (1, 1))
    assert "rooms: 1 deleted, 3 kept" in capsys.readouterr().out  # two, but one was served until just now
    assert main(["serve", "prune", *store]) == 0
    assert "rooms: 0 deleted, 3 kept" in capsys.readouterr().out
    assert main(["serve", "prune", "--keep", "0", *store]) == 0
    assert "rooms: 1 deleted, 2 kept" in capsys.readouterr().out
    assert main(["serve", "prune", "--name", "room", *store]) == 3
    assert main(["serve", "prune", "--keep", "-1", *store]) == 2


def test_the_builder_accepts_trees_and_overrides(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from serve.app import build
    store, run = tmp_path / "served", str(write_checkpoint(tmp_path / "run"))
    build({"checkpoint": run, "name": "rooms", "store": str(store), "model.max_batch": "2", "limits": {"pixels": 9}})
    assert Store(store).names() == ["rooms"]
    with pytest.raises(UsageError, match="no model to serve"):
        build({"store": str(tmp_path / "empty")})
    with pytest.raises(UsageError, match="did you mean 'max_batch'"):
        build({"store": str(store), "model.max_bach": "2"})


@pytest.mark.parametrize(
    ("arguments", "there", "each"),
    [
        ({}, 0, 0.0),
        ({}, 1, 1.0),
        ({"model_replicas": {"max": 3}}, 1, 0.3333),
        ({"model_replicas": {"max": 3}}, 2, 0.5),  # not 0.666, of which two GPUs hold two
        ({"model_replicas": {"max": 4}}, 3, 0.5),
        ({"model_replicas": {"max": 2}}, 8, 1.0),
        ({"model": {"device": "cpu"}}, 1, 0.0),
        ({"model": {"gpus": 0.5}}, 0, 0.5),
        ({"model": {"gpus": 0}}, 4, 0.0),
    ],
)
def test_replicas_share_the_gpus_of_the_cluster(
    arguments: dict[str, Any], there: int, each: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from serve import app

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0} | ({"GPU": float(there)} if there else {}))
    assert app._gpus(settings.parse(arguments)) == each


@pytest.mark.parametrize(
    ("model", "there", "device", "hidden", "surge"),
    [
        ({}, 0, "cpu", True, 100),
        ({}, 1, "", False, 0),  # a second replica would wait for a GPU for ever
        ({"gpus": 0.5}, 1, "", False, 100),
        ({"gpus": 1}, 2, "", False, 100),
        ({"gpus": 0}, 8, "cpu", True, 100),
        ({"device": "cuda"}, 1, "cuda", False, 0),
    ],
)
def test_a_replica_that_reserves_no_gpu_takes_none(
    model: dict[str, Any], there: int, device: str, hidden: bool, surge: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from serve import app

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": float(there)})
    bound = app._depth(settings.parse({"model": model}))._bound_deployment
    (tree,) = bound.init_args
    environment = bound.ray_actor_options["runtime_env"]["env_vars"]
    assert tree["model"]["device"] == device
    assert (environment.get("CUDA_VISIBLE_DEVICES") == "") == hidden
    assert bound._deployment_config.max_surge_percent == surge
    ingress = app._ingress(settings.parse({"model": model}), app._depth(settings.parse({"model": model})))
    assert ingress._bound_deployment.ray_actor_options["runtime_env"]["env_vars"]["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"gpus": 1.5}, "model.gpus=1.5: above 1 it is a whole number"),
        ({"gpus": 0, "device": "cuda"}, "model.device=cuda needs a GPU and model.gpus=0 reserves none"),
    ],
)
def test_shares_that_ray_cannot_place_are_refused(model: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        settings.parse({"model": model})


def test_a_gpu_that_the_cluster_lacks_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from serve import app

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    with pytest.raises(ResourceError, match=r"model\.device=cuda: the cluster has no GPU"):
        app._gpus(settings.parse({"model": {"device": "cuda"}}))


def test_decoders_are_bounded_by_the_limits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from serve.app import _decoder_environment

    code = """
import sys, cv2, numpy as np
for width in (100, 101):
    data = cv2.imencode(sys.argv[1], np.zeros((100, width), np.uint8))[1]
    try:
        print(cv2.imdecode(data, cv2.IMREAD_UNCHANGED) is not None)
    except cv2.error:
        print(False)
"""
    bounds = _decoder_environment(settings.RequestLimits(pixels=10_000, side=200))
    for suffix in (".png", ".jpg", ".webp"):
        command = [sys.executable, "-c", code, suffix]
        done = subprocess.run(command, env=os.environ | bounds, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["True", "False"], suffix
