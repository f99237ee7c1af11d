"""PyTorch on one thread while another runtime computes on threads of its own.

The threads with which PyTorch shares an operation (OpenMP's) wait for the next one without giving up their core, for
milliseconds. On two cores a copy of one image before a pass of OpenVINO made the pass 1.3 to 1.6 times as long.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_own = threading.local()
_lock = threading.Lock()
_inside = 0  # threads
_outside = 1  # threads of PyTorch's operations where none is inside


@contextmanager
def one_thread() -> Iterator[None]:
    """Operations of the calling thread share no work with others; calls may be nested, and come from any thread."""
    global _inside, _outside
    if getattr(_own, "inside", False):
        yield
        return
    threads = torch.get_num_threads()  # before it is set: the first call of a thread takes over what is set elsewhere
    with _lock:
        # Else what another thread has set for its time inside would be taken for what it was before.
        _outside = _outside if _inside else threads
        _inside += 1
        before = _outside
    _own.inside = True
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _own.inside = False
        with _lock:
            _inside -= 1
