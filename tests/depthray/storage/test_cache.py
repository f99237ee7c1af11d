"""The cache of a node: several processes at a time, and its bound."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from depthray.errors import UsageError
from depthray.storage import cache, environment

CROWD = """
import os, random, sys
from pathlib import Path
from depthray.storage import cache, file_lock
from depthray.storage.cache import Cache, CachedFile
root, seed = Path(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
store = Cache(root, limit=65_000)
for _ in range(150):
    number = random.randrange(12)
    content = bytes([number]) * 10_000
    handle = store.open(CachedFile(root / "set" / f"{number}.h5", 10_000, lambda path: path.write_bytes(content)))
    assert os.pread(handle, 10_001, 0) == content
    with file_lock.lock(root / ".lock"):  # no process removes a file or begins to download one meanwhile
        assert sum(map(cache._bytes, root.glob("*/*.h5"))) <= 65_000
    os.close(handle)
"""


def test_a_crowd_shares_a_small_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CROWD, str(tmp_path)]
    started = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE, text=True) for seed in range(4)]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert errors == [""] * 4


@pytest.mark.parametrize("text", ["much", "0", "-1"])
def test_a_bound_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.CACHE_GB, text)
    with pytest.raises(UsageError, match=f"DEPTHRAY_CACHE_GB={text}: give the size of the cache in GB"):
        cache.node_cache()
