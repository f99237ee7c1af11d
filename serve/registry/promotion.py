"""A checkpoint becomes what is served, once it is shown to be good: copied, verified, loaded, asked, compared.

Whatever goes wrong on the way leaves what is served as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from depthray.errors import CheckpointError
from depthray.runs import locate
from serve.registry import golden
from serve.registry.store import Pointer, Store


@dataclass(frozen=True)
class Promotion:
    """What came of it."""

    name: str
    pointer: Pointer
    typical: float | None  # factor between this and the version before on golden images; None: there was none


def promote(store: Store, name: str, path: Path, *, device: str | None = None, force: bool = False) -> Promotion:
    """Serve a checkpoint, or a run's best, under a name. `force` allows one far from the version before.

    Raises CheckpointError for one that is missing, damaged, of other weights than its recipe's, or says no depth.
    """

    found = locate.resolve(path)
    version = store.add(name, found)
    try:
        typical = _examine(store, name, version, device=device, force=force)
    except Exception:
        store.remove(name, version)
        raise
    return Promotion(name, store.point(name, version), typical)


def _examine(store: Store, name: str, version: str, *, device: str | None, force: bool) -> float | None:
    """Load a version and ask it; its answers are kept. Returns the factor between it and the one served."""
    from depthray.predict import load

    answers = golden.answers(load(store.path(name, version), device=device))
    before = _said_before(store, name, version)
    typical = golden.difference(answers, before).typical if before else None
    if typical is not None and not typical <= golden.APART and not force:
        raise CheckpointError(
            f"on golden images this network's depths are {typical:.1f} times apart from those of the version that "
            f"is served (at most {golden.APART:g}); look at both with depthray predict, or give --force"
        )
    store.keep_golden(name, version, answers)
    return typical


def _said_before(store: Store, name: str, version: str) -> list[golden.Maps]:
    """What the version served says; nothing where there is none or where it is broken, which promotion mends."""
    try:
        current = store.pointer(name).current
        return [] if current == version else store.golden(name, current)
    except CheckpointError:
        return []
