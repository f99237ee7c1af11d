"""`depthray doctor`: what of this machine matters for training, and how to fix it. Ray is looked up, not imported."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from depthray.cli.flags.command_parser import CommandParser
from depthray.errors import ResourceError, UsageError

if TYPE_CHECKING:
    import torch

_GIB = 2**30
_CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"  # of a checkout; an installation has none
_SHARED = Path("/dev/shm")
_CGROUP = Path("/sys/fs/cgroup")  # version 2; under version 1 no limit is found
_NVIDIA = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Finding:
    """The result of one check: `bad` stops training, `warn` slows it or may stop it later."""

    name: str
    state: Literal["ok", "warn", "bad"]
    detail: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """The finding under the keys of `--json`, which scripts depend on, so they are not renamed with the fields."""
        return {"name": self.name, "state": self.state, "found": self.detail, "mend": self.advice}


Examine = Callable[[str, str | None], Iterator[Finding]]  # (address, storage) -> findings on a cluster


def main(argv: list[str], examine_cluster: Examine | None = None) -> int:
    """Examine the machine or the cluster, print the findings, and return 5 if one of them stops training.

    `examine_cluster` examines the cluster of --address; this package imports no Ray, so it is passed in.
    """
    arguments = build_parser().parse_args(argv)
    findings = list(_examination(arguments, examine_cluster))
    if arguments.json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        print("\n".join(_format_findings(findings)))
    return ResourceError.exit_code if any(finding.state == "bad" for finding in findings) else 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of `depthray doctor`."""
    parser = CommandParser(
        prog="depthray doctor", description="Check this machine, or a cluster, and print how to fix it."
    )
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where runs will be written (default: runs)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--address", help="examine this Ray cluster instead, HOST:PORT of its head or auto")
    parser.add_argument("--storage", metavar="PATH", help="with --address: write and read there on every node")
    return parser


def _examination(arguments: argparse.Namespace, examine_cluster: Examine | None) -> Iterator[Finding]:
    if arguments.address:
        assert examine_cluster, "--address is for the command `depthray doctor`, which passes in how to examine one"
        return examine_cluster(arguments.address, arguments.storage)
    if arguments.storage:
        raise UsageError("--storage is tested from the nodes of a cluster: give --address too, such as --address auto")
    return examine_machine(arguments.out)


def examine_machine(out: Path) -> Iterator[Finding]:
    """Findings on all that matters for a run written below `out`."""
    yield _python()
    yield from _packages()
    yield _pins()
    yield _processors()
    yield _memory()
    yield _shared_memory()
    yield _disk(out)
    yield _open_files()
    yield from _torch()
    yield from _runtimes()


def _format_findings(findings: list[Finding]) -> Iterator[str]:
    marks = {"ok": "ok  ", "warn": "WARN", "bad": "BAD "}
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        yield f"{marks[finding.state]}  {finding.name:<{width}}  {finding.detail}"
        if finding.advice:
            yield f"{'':<{width + 6}}  -> {finding.advice}"
    bad = [finding.name for finding in findings if finding.state == "bad"]
    yield f"training is stopped by: {', '.join(bad)}" if bad else "ready to train"


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    """Every package depthray declares, against the version it requires."""
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires("depthray") or []
    except metadata.PackageNotFoundError:
        yield Finding("depthray", "warn", "not installed, used from its folder", "make setup, or pip install -e .")
        return
    for requirement in map(Requirement, declared):
        # Requirements of extras have markers that no empty extra satisfies.
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement.name, requirement.specifier.contains)


def _package(name: str, fits: Callable[[str], bool]) -> Finding:
    # Without Ray everything but `depthray train` over several workers still runs.
    worst: Literal["warn", "bad"] = "warn" if name == "ray" else "bad"
    without = "; until then train with --local" if name == "ray" else ""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, worst, "not installed", f"make setup, or pip install -c constraints.txt {name}{without}")
    if not fits(version):
        return Finding(name, worst, f"{version}, which does not fit", f"make setup, or pip install -U {name}{without}")
    return Finding(name, "ok", version)


def _pins() -> Finding:
    """Installed versions against the tested ones."""
    if not _CONSTRAINTS.is_file():
        return Finding(
            "tested versions", "ok", "not compared: this installation has no constraints.txt, which a checkout has"
        )
    lines = [line.split("==") for line in _CONSTRAINTS.read_text(encoding="utf-8").splitlines() if "==" in line]
    pins = {name.strip(): version.split("#")[0].strip() for name, version in lines}
    # Packages of extras that are not installed are no deviation.
    other = [
        f"{name} {_version(name)}, tested {pin}" for name, pin in pins.items() if _version(name) not in (None, pin)
    ]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        return Finding(
            "tested versions", "warn", "; ".join(other[:3]) + more, "make setup installs the tested versions"
        )
    return Finding("tested versions", "ok", f"all of the {len(pins)} in constraints.txt, as far as installed")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name).split("+")[0]  # "2.15.0+cpu" is a build of 2.15.0
    except metadata.PackageNotFoundError:
        return None


def _processors() -> Finding:
    # `os.cpu_count` ignores taskset and the cpuset of a container, and neither knows a container's share of time.
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup("cpu.max")
    share = float(quota[0]) / float(quota[1]) if len(quota) == 2 else float(count)
    if share < count:
        advice = (
            f"the container limits it: OMP_NUM_THREADS={max(1, int(share))} keeps threads from waiting for each other"
        )
        return Finding("cpu", "warn", f"{count} cores, of which {share:.3g} may be used", advice)
    return Finding("cpu", "ok", f"{count} cores")


def _memory() -> Finding:
    free = _free_memory()
    advice = "close other programs, or lower train.batch_size, data.workers and --workers"
    return _space_finding("memory", free, least=1.5, good=4, advice=advice)


def _free_memory() -> float:
    """GiB this process can still allocate, by the machine and by the limits of its container."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # no /proc, as on macOS
        free = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    # In a container /proc/meminfo is that of the host; the limit kills the process long before.
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit and used:
        free = min(free, float(limit[0]) - float(used[0]))
    return free / _GIB


def _cgroup(name: str) -> list[str]:
    """The fields of a limit of this container; empty where there is no limit."""
    try:
        fields = (_CGROUP / name).read_text(encoding="ascii").split()
    except OSError:
        return []
    return [] if fields[0] == "max" else fields


def _shared_memory() -> Finding:
    if not _SHARED.is_dir():
        return Finding("shared memory", "ok", "no /dev/shm here; loader processes use files")
    free = shutil.disk_usage(_SHARED).free / _GIB
    advice = "start the container with --shm-size=8g; until then data.workers=0, and Ray is slow"
    # Too little of it makes loading slow, but stops no training.
    return _space_finding("shared memory", free, least=0, good=2, advice=advice)


def _disk(out: Path) -> Finding:
    # The folder of runs may not exist yet: then its nearest parent decides.
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Finding("disk", "bad", f"{folder} cannot be written to", "choose another folder with --out")
    free = shutil.disk_usage(folder).free / _GIB
    return _space_finding(
        "disk", free, least=1, good=10, advice=f"free some space on the disk of {folder}, or choose another with --out"
    )


def _space_finding(name: str, free: float, *, least: float, good: float, advice: str) -> Finding:
    """The finding on so many free GiB; fewer than `least` stop training."""
    detail = f"{free:.3g} GiB free"
    if free >= good:
        return Finding(name, "ok", detail)
    return Finding(name, "bad" if free < least else "warn", f"{detail}, {good:g} recommended", advice)


def _open_files() -> Finding:
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < 4096:  # a negative limit is RLIM_INFINITY
        return Finding("open files", "warn", f"at most {limit}", f"ulimit -n {max(4096, most)}; Ray opens many")
    return Finding("open files", "ok", "no limit" if limit < 0 else f"at most {limit}")


def _torch() -> Iterator[Finding]:
    """Findings on the devices that PyTorch can use."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a library of CUDA cannot be loaded
        yield Finding("pytorch", "bad", f"cannot be imported: {' '.join(str(error).split())}", "make setup")
        return
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    yield from (_gpu(device) for device in devices)
    if not devices:
        yield _no_gpu()
    for device in devices or [torch.device("cpu")]:
        yield _precision(device)
        yield _device_computes(device)


def _gpu(device: torch.device) -> Finding:
    import torch

    free, total = (size / _GIB for size in torch.cuda.mem_get_info(device))
    detail = f"{torch.cuda.get_device_name(device)}, {free:.3g} of {total:.3g} GiB free"
    if free < 2:
        return Finding(str(device), "warn", detail, "other programs use it: see nvidia-smi; or lower train.batch_size")
    return Finding(str(device), "ok", detail)


def _no_gpu() -> Finding:
    import torch

    # The driver's file tells a machine without GPU, which is fine, from a GPU that PyTorch misses.
    if _NVIDIA.exists() and torch.version.cuda is None:
        return Finding("gpu", "warn", "there is one, but this PyTorch is built without CUDA", "install the CUDA build")
    if _NVIDIA.exists():
        advice = f"update the driver to one that runs CUDA {torch.version.cuda}, or unset CUDA_VISIBLE_DEVICES"
        return Finding("gpu", "warn", "there is a driver, but PyTorch can use no GPU", advice)
    return Finding("gpu", "ok", "none; training runs on the CPU")


def _precision(device: torch.device) -> Finding:
    import torch

    from depthray.runtimes.precision import fastest

    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32 (no fast 16-bit arithmetic here)"}
    return Finding(f"{device} precision", "ok", f"train.precision=auto is {names[fastest(device)]}")


def _device_computes(device: torch.device) -> Finding:
    """One forward and backward pass, as a broken driver or build shows only when it computes."""
    import torch
    from torch.nn import functional as F

    name = f"{device} computes"
    try:
        weight = torch.ones(8, 3, 3, 3, device=device, requires_grad=True)
        total = F.conv2d(torch.ones(2, 3, 16, 16, device=device), weight).sum()
        # Each weight is multiplied by 2 images of 14 x 14 positions of ones: the gradient is exact in any precision.
        right = bool((torch.autograd.grad(total, weight)[0] == 2 * 14 * 14).all())
    except RuntimeError as error:
        return Finding(name, "bad", " ".join(str(error).split())[:200], "reinstall PyTorch for this machine's driver")
    if not right:
        return Finding(name, "bad", "a convolution gave a wrong gradient", "the device or its driver is faulty")
    return Finding(name, "ok", "a convolution and its gradient are right")


def _runtimes() -> Iterator[Finding]:
    """What opens exports here, and how much faster than PyTorch each is."""
    try:
        from depthray.runtimes import gains
        from depthray.runtimes.open import INSTALL, backend, missing, names
    except (ImportError, OSError):  # of PyTorch, which has a finding of its own
        return
    try:
        measured = gains.measured()
    except Exception as error:  # of packages that are installed and do not work, each with its own
        yield Finding("runtimes", "warn", " ".join(str(error).split())[:200], f"reinstall them: {INSTALL}")
        return
    for name in names():
        module = backend(name)
        if packages := missing(name):
            yield Finding(f"runtime {name}", "ok", f"{packages[0]} is not installed", f"to run exports: {INSTALL}")
            continue
        versions = ", ".join(f"{package} {_version(package)}" for package in module.PACKAGES)
        speeds = [f"{key.split()[1]} {gain:.1f}" for key, gain in measured.items() if key.split()[0] == name]
        gain = f"; times PyTorch's speed on convolutions: {', '.join(speeds)}" if speeds else module.GAIN
        yield Finding(f"runtime {name}", "ok", f"{versions}{gain}")
