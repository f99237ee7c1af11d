"""`depthray weights`: what it lists, downloads and checks; and the catalogue itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from paths import ROOT

from depthray.__main__ import main
from depthray.config import recipe as recipes
from depthray.storage import environment
from depthray.weights import catalogue, obtain
from depthray.weights.catalogue import entries
from depthray.weights.reference import parse

LITE = "efficientnet_lite0"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setenv(environment.CACHE, str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv(environment.OFFLINE, "1")


def test_the_list_has_licences_and_what_is_here(capsys):
    assert main(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    assert "Apache-2.0" in printed and "CC-BY-NC-4.0" in printed
    (line,) = (line for line in printed.splitlines() if LITE in line.split()[:1])
    assert "yes" in line and "model.encoder=efficientnet_lite0" in line


def test_the_list_as_json_is_the_catalogue(capsys):
    assert main(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == [entry.name for entry in entries()]
    assert rows[LITE]["path"].endswith(".pth") and rows["resnet34"]["path"] == ""


def test_show_has_all_that_is_known(capsys):
    assert main(["weights", "show", "depth_anything_v2_metric_hypersim_vitl"]) == 0
    printed = capsys.readouterr().out
    for part in ("CC-BY-NC-4.0 (commercial use: no)", "metric, to 20 m", catalogue.BY_THE_HUB, "model.max_depth=20"):
        assert part in printed
    assert "here        no; depthray weights fetch depth_anything_v2_metric_hypersim_vitl" in printed


def test_an_unknown_name_is_one_line(capsys):
    assert main(["weights", "show", "efficientnet_lit0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "did you mean 'efficientnet_lite0'?" in line


def test_fetch_prints_where_the_file_is(capsys):
    assert main(["weights", "fetch", LITE]) == 0
    name, path = capsys.readouterr().out.split()
    assert name == LITE and Path(path).is_file()


def test_fetch_without_a_network_is_one_line(capsys):
    assert main(["weights", "fetch", "resnet34"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.weights=resnet34: resnet34-b627a593.pth is not on this machine, and DEPTHRAY_OFFLINE=1" in line


def test_verify_checks_what_is_here(capsys):
    assert main(["weights", "verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[f"efficientnet_lite{number}", "good"] for number in range(3)]


def test_verify_finds_a_damaged_file(capsys):
    url = next(entry.source for entry in entries() if entry.name == "resnet18")
    path = obtain.cached_path(url)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half of it")
    assert main(["weights", "verify", LITE, "resnet18"]) == 3
    printed = capsys.readouterr()
    assert "DAMAGED, not f37072fd" in printed.out and f"{LITE}  good" in printed.out
    assert f"{path}: damaged" in printed.err


def test_a_file_of_ones_own_has_no_digest_to_compare_with(tmp_path, capsys):
    (tmp_path / "own.pth").write_bytes(b"weights")
    assert main(["weights", "verify", str(tmp_path / "own.pth")]) == 0
    assert f"no digest to compare with  sha256 {sha256(b'weights').hexdigest()}" in capsys.readouterr().out


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_an_entry_says_whether_it_may_be_used_and_what_it_fits(entry):
    assert entry.commercial is (not entry.licence.startswith("CC-BY-NC"))
    assert parse(entry.name).kind == "name" and parse(f"{entry.name}?").optional
    network = "dpt-vits" if "model.name=dpt" in entry.fits else "unet-resnet34"
    if entry.name not in ("resnet101", "efficientnet_b0"):  # of other architectures
        made = recipes.read(network, entry.fits.split())
        assert made.model.name in ("dpt", "unet")
    if entry.source.startswith("hf:"):
        assert parse(entry.source).kind == "hub"
    elif entry.source.startswith("https:"):
        assert entry.sha256 and entry.sha256 in entry.source


def test_addresses_of_torchvision_are_its_own():
    from torchvision.models import get_model_weights

    for entry in entries():
        if "pytorch.org" in entry.source:
            published = get_model_weights(entry.name)["IMAGENET1K_V1"]
            assert entry.source == published.url
            assert entry.megabytes == pytest.approx(published.meta["_file_size"] * 1.048576, abs=0.1)


def test_names_differ():
    names = [entry.name for entry in entries()]
    assert len(set(names)) == len(names)


def test_an_import_needs_neither_the_clients_nor_a_network():
    code = (
        "import socket, sys; socket.socket.connect = lambda *_: sys.exit('connected'); "
        "import depthray.weights.start, depthray.weights.hub, depthray.weights.https; "
        "heavy = {'huggingface_hub', 'timm', 'httpx'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
