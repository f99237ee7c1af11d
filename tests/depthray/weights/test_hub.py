"""Files of the Hugging Face hub, with its client replaced: what is requested of it, and what its errors become."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from weight_files import random_weights, start_report, tiny_depth_anything_v2

from depthray.errors import UsageError
from depthray.storage import environment
from depthray.weights import obtain, reference

hub = pytest.importorskip("huggingface_hub")
TEXT = "hf:owner/repository@v1/folder/weights.pth"


@pytest.fixture
def requests(tmp_path, monkeypatch):
    """What is requested of the hub; each file is in a snapshot of a commit, as the client lays them out."""
    made: list[dict[str, Any]] = []

    def download(repository: str, file: str, **options: Any) -> str:
        made.append({"repository": repository, "file": file, **options})
        path = tmp_path / "snapshots" / ("c0ffee" * 7)[:40] / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            torch.save(random_weights(tiny_depth_anything_v2()), path)
        return str(path)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    return made


def failing(error: Exception) -> Any:
    def download(*_: object, **__: object) -> str:
        raise error

    return download


def test_owner_revision_and_file_are_passed_on(requests):
    path = obtain.obtain(reference.parse(TEXT)).path
    assert requests == [
        {"repository": "owner/repository", "file": "folder/weights.pth", "revision": "v1", "local_files_only": False}
    ]
    assert path.name == "weights.pth"


def test_offline_only_the_cache_is_asked(requests, monkeypatch):
    monkeypatch.setenv(environment.OFFLINE, "1")
    obtain.obtain(reference.parse(TEXT))
    assert requests[0]["local_files_only"]


def test_the_commit_is_remembered(requests):
    section = {"name": "dpt", "size": "tiny", "weights_depth": "metric"}
    _, report = start_report(**section, weights="hf:owner/repository@main/weights.pth")
    assert report.origin is not None
    assert report.origin.source == f"hf:owner/repository@main/weights.pth ({('c0ffee' * 7)[:40]})"


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("depth-anything/Depth-Anything-V2-Small-hf", "not metres"),
        ("depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf", "was trained for model.max_depth=20"),
        ("depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf", "was trained for model.max_depth=80"),
        ("somebody/depth", "does not say whether metric or relative"),
    ],
)
def test_the_name_of_the_repository_says_what_a_file_is(requests, repository, message):
    with pytest.raises(UsageError, match=message):
        start_report(name="dpt", size="tiny", weights=f"hf:{repository}@main/model.pth")


def test_a_name_of_the_catalogue_has_licence_and_range(requests):
    name = "depth_anything_v2_metric_vkitti_vitl"
    _, report = start_report(name="dpt", size="tiny", max_depth=80.0, weights=name)
    assert requests[0]["repository"] == "depth-anything/Depth-Anything-V2-Metric-VKITTI-Large"
    assert report.origin is not None
    assert (report.origin.licence, report.origin.commercial) == ("CC-BY-NC-4.0", False)
    assert f"{name} (CC-BY-NC-4.0, no commercial use)" in report.notes[0]


def test_an_address_of_the_catalogue_is_known_by_it(requests):
    text = "hf:depth-anything/Depth-Anything-V2-Small@main/depth_anything_v2_vits.pth"
    assert obtain.obtain(reference.parse(text)).entry is not None


def test_without_the_package_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"huggingface_hub is not installed: pip install 'depthray\[hub\]'"):
        obtain.obtain(reference.parse(TEXT))
    _, report = start_report(name="dpt", size="tiny", weights=f"{TEXT}?")
    assert "is not in the hub's cache on this machine; the network starts from random weights" in report.notes[0]


def test_a_file_that_is_neither_here_nor_reachable_is_one_line(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr(hub, "hf_hub_download", failing(LocalEntryNotFoundError("nothing here\nat all")))
    with pytest.raises(reference.Missing, match=r"is not in the hub's cache .*, and the hub cannot be reached"):
        obtain.obtain(reference.parse(TEXT))
    monkeypatch.setenv(environment.OFFLINE, "1")
    with pytest.raises(reference.Missing, match=r"DEPTHRAY_OFFLINE=1 forbids downloads; fetch it where"):
        obtain.obtain(reference.parse(TEXT))


def test_other_errors_of_the_hub_are_one_line(monkeypatch):
    monkeypatch.setattr(hub, "hf_hub_download", failing(ValueError("Repo id must be\nin the form")))
    with pytest.raises(UsageError, match=r"cannot be had from the hub \(Repo id must be in the form\)"):
        obtain.obtain(reference.parse(TEXT))
