"""The doctor: each fault is found, named and comes with advice; a healthy machine is called ready."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata

import pytest
import torch

from depthray.cli import doctor
from depthray.runtimes import gains
from depthray.runtimes import open as runtimes

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def healthy(monkeypatch, tmp_path):
    """No limits but those a test sets, whatever machine it runs on."""
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    monkeypatch.setattr(doctor, "_free_memory", lambda: 16.0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 100 * 2**30))
    monkeypatch.setattr(doctor, "_NVIDIA", tmp_path / "none")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy>=2.0", "ruff; extra == 'dev'"])
    return tmp_path


def states(out):
    return {finding.name: finding.state for finding in doctor.examine_machine(out)}


def test_a_healthy_machine_is_ready(healthy, capsys):
    assert doctor.main(["--out", str(healthy / "runs")]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("ready to train\n") and "BAD" not in printed
    assert not (healthy / "runs").exists()  # looked at, not made


def test_json_holds_every_finding(healthy, capsys):
    assert doctor.main(["--out", str(healthy), "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"python", "numpy", "cpu", "memory", "disk", "cpu computes"} <= {finding["name"] for finding in findings}
    assert all(set(finding) == {"name", "state", "found", "mend"} for finding in findings)


def test_what_stops_training_is_named_last_and_exits_5(healthy, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_free_memory", lambda: 0.5)
    assert doctor.main(["--out", str(healthy)]) == 5
    printed = capsys.readouterr().out
    assert printed.endswith("training is stopped by: memory\n") and "-> close other programs" in printed


@pytest.mark.parametrize(("free", "state"), [(0.2, "bad"), (5, "warn"), (50, "ok")])
def test_disk_space(healthy, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, free * 2**30))
    assert doctor._disk(healthy / "a" / "b").state == state


def test_a_folder_that_cannot_hold_runs(healthy):
    (healthy / "file").write_text("")
    finding = doctor._disk(healthy / "file" / "runs")
    assert finding.state == "bad" and "cannot be written" in finding.detail and "--out" in finding.advice


def test_small_shared_memory_is_a_container_without_shm_size(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "_SHARED", healthy)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 64 * 2**20))
    finding = doctor._shared_memory()
    assert finding.state == "warn" and "--shm-size" in finding.advice and "data.workers=0" in finding.advice


def test_limits_of_a_container_count(healthy, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "_CGROUP", healthy)
    for name, text in {"cpu.max": "50000 100000", "memory.max": str(3 * 2**30), "memory.current": str(2**30)}.items():
        (healthy / name).write_text(text)
    assert doctor._free_memory() <= 2
    assert doctor._processors().state == "warn" and "0.5 may be used" in doctor._processors().detail


def test_a_container_without_limits_is_none(healthy):
    (healthy / "cpu.max").write_text("max 100000")
    assert doctor._processors().state == "ok"


@pytest.mark.parametrize(
    ("declared", "state", "argv"),
    [
        ("no-such-package>=1", "bad", "not installed"),
        ("numpy>=99", "bad", "does not fit"),
        ("ray>=99", "warn", "--local"),
        ("numpy>=1", "ok", ""),
    ],
)
def test_packages(healthy, monkeypatch, declared, state, argv):
    monkeypatch.setattr(metadata, "requires", lambda name: [declared])
    (finding,) = doctor._packages()
    assert finding.state == state and argv in finding.detail + finding.advice


def test_a_checkout_has_the_tested_versions():
    assert doctor._CONSTRAINTS.is_file()


def test_versions_other_than_the_tested_ones(healthy, monkeypatch):
    (healthy / "constraints.txt").write_text("numpy==0.0.1\nnot-here==1.0\n# a remark\n")
    monkeypatch.setattr(doctor, "_CONSTRAINTS", healthy / "constraints.txt")
    finding = doctor._pins()
    assert finding.state == "warn" and "tested 0.0.1" in finding.detail and "not-here" not in finding.detail


@pytest.mark.parametrize(("cuda", "argv"), [(None, "without CUDA"), ("13.0", "can use no GPU")])
def test_a_gpu_that_pytorch_cannot_use(healthy, monkeypatch, cuda, argv):
    (healthy / "driver").write_text("")
    monkeypatch.setattr(doctor, "_NVIDIA", healthy / "driver")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    finding = doctor._no_gpu()
    assert finding.state == "warn" and argv in finding.detail and finding.advice


def test_a_device_that_cannot_compute_stops_training(healthy, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(torch.nn.functional, "conv2d", broken)
    finding = doctor._device_computes(torch.device("cpu"))
    assert finding.state == "bad" and finding.detail == "no kernel image is available"


def test_few_open_files(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 8192))
    finding = doctor._open_files()
    assert finding.state == "warn" and "ulimit -n 8192" in finding.advice


def test_ray_is_not_loaded():
    code = "import sys; from depthray.cli import doctor; doctor.main([]); sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_every_fault_comes_with_advice(healthy, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 0))
    monkeypatch.setattr(doctor, "_free_memory", lambda: 0.0)
    faults = [finding for finding in doctor.examine_machine(healthy) if finding.state != "ok"]
    assert {finding.name for finding in faults} >= {"memory", "disk"}
    assert all(finding.advice for finding in faults)


def test_runtimes_say_what_they_would_gain(healthy):
    details = {finding.name: finding.detail for finding in doctor.examine_machine(healthy)}
    assert "times PyTorch's speed on convolutions: fp32 " in details["runtime onnx"]
    assert ", int8 " in details["runtime openvino"] and metadata.version("openvino") in details["runtime openvino"]
    assert "needs a C++ compiler" in details["runtime aoti"] and "torch " in details["runtime torch_export"]


def test_runtimes_that_are_not_installed_stop_nothing(healthy, monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    findings = {finding.name: finding for finding in doctor.examine_machine(healthy)}
    openvino = findings["runtime openvino"]
    assert openvino.state == "ok" and openvino.detail == "openvino is not installed"
    assert openvino.advice == "to run exports: pip install 'depthray[export]'"


def test_runtimes_that_are_broken_are_a_warning(healthy, monkeypatch):
    def fail():
        raise OSError("libopenvino.so: cannot open\nshared object file")

    monkeypatch.setattr(gains, "measured", fail)
    (finding,) = [each for each in doctor.examine_machine(healthy) if each.name == "runtimes"]
    assert (finding.state, finding.detail) == ("warn", "libopenvino.so: cannot open shared object file")
