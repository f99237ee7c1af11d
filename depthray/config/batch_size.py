"""How the global batch divides between workers, and a worker's share into micro-batches."""

from __future__ import annotations

from depthray.errors import UsageError


def possible_workers(batch_size: int, accumulate: int) -> list[int]:
    """The numbers of workers that can share a global batch in `accumulate` equal parts each."""
    return [workers for workers in range(1, batch_size // accumulate + 1) if batch_size % (workers * accumulate) == 0]


def check_batch_size(batch_size: int, *, workers: int, accumulate: int, name: str = "") -> None:
    """Raise UsageError where a global batch does not divide; `name` is how the user gave the number of workers."""
    # Parts must be equal: gradients are averaged over workers, so frames of a smaller part would count more.
    parts = workers * accumulate
    if batch_size % parts == 0:
        return
    below = batch_size // parts * parts
    sizes = [size for size in (below, below + parts) if size]
    possible = possible_workers(batch_size, accumulate)
    fits = f"it does for {_join(possible)} workers; or " if possible else ""
    raise UsageError(
        f"train.batch_size={batch_size} is the global batch and must divide by {name or f'{workers} workers'} x "
        f"train.accumulate={accumulate}; {fits}set train.batch_size={_join(sizes)}"
    )


def _join(numbers: list[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last
