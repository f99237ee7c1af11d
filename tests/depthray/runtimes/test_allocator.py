"""Memory that was freed is used again without the kernel, which a process notices by its page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from depthray.runtimes import allocator

PAGES = 64 * 2**20 // 4096  # of a block that glibc always requests from the kernel
SCRIPT = f"""
import resource
from depthray.runtimes import allocator
{{}}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray({PAGES} * 4096)  # written to, and freed at once
before = faults()
for _ in range(4):
    bytearray({PAGES} * 4096)
print(faults() - before)
"""


def faults(line: str, **variables: str) -> int:
    """Page faults of four blocks that are allocated and freed, in a process that runs a line before."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
    command = [sys.executable, "-c", SCRIPT.format(line)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_freed_memory_is_kept() -> None:
    keep = "allocator.keep_freed_memory()"
    assert faults("") >= 4 * PAGES / 512  # a fault clears one page of 4 KiB, or of 2 MiB where the kernel has those
    assert faults(keep) < 8
    assert faults("", **allocator.ENVIRONMENT) < 8
    assert faults(keep, MALLOC_TRIM_THRESHOLD_="0") >= 4 * PAGES / 512  # whoever sets a variable keeps it


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda *_: pytest.fail("asked for glibc"))
    allocator.keep_freed_memory()
