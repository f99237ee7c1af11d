"""How glibc, which gives PyTorch its memory on a CPU, treats what is freed.

By default each block above 128 KiB to 32 MiB, a bound that grows, is requested from the kernel and returned when it is
freed, and so is the free end of the heap. The maps of a step are freed and requested again in the next one, and the
kernel has to clear every page of them each time. Kept by the process they need no clearing.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEPT = 512 * 2**20  # bytes at the end of the heap that stay with the process when they are free
# For processes that are yet to start; `man mallopt`.
ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(KEPT)}
# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Keep memory that is freed, in this process, for what it allocates next.

    Whoever has set one of glibc's variables (`MALLOC_...`) keeps those; other allocators and systems are left as
    they are.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, KEPT)
