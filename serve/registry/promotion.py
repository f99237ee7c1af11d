"""Promotion: a checkpoint is copied, verified, loaded, run on golden images and compared, and only then served.

A failure at any step changes nothing of what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from depthray.cards import collected
from depthray.errors import CheckpointError
from depthray.runs import layout, locate
from depthray.runtimes import export_folder
from depthray.storage.remote import is_remote
from serve.registry import exports, golden, quality
from serve.registry.exports import RuntimeRequest
from serve.registry.quality import Demand
from serve.registry.store import Pointer, Store


@dataclass(frozen=True)
class Promotion:
    """The result of a promotion."""

    name: str
    pointer: Pointer
    typical: (
        float | None
    )  # factor between the depths of this and the version before on golden images; None: there was none
    speeds: Mapping[str, float] = field(default_factory=dict)  # images a second by runtime, where exports were made
    found: str = ""  # by a comparison with the version before, where one was demanded


def promote(
    store: Store,
    name: str,
    path: Path,
    *,
    force: bool = False,
    trust: bool = False,
    request: RuntimeRequest | None = None,
    demand: Demand | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> Promotion:
    """Serve a checkpoint, an export, or a run's best, under a name; with a `request` exports of it too.

    `force` allows depths far from those of the version before, and worse ones on the frames of a `demand`; `trust`
    code that comes with the checkpoint. Raises CheckpointError if it is missing or damaged, its weights do not fit its
    recipe, its depth is invalid, or a demand is not met.
    """
    checkpoint = locate.resolve(path)
    version = store.add(name, checkpoint)
    try:
        found = _check_demand(store, name, version, demand, trust=trust) if demand and not force else ""
        typical = _check_on_golden_images(store, name, version, force=force, trust=trust)
        speeds = _export(store, name, version, request, log) if request else {}
    except Exception:
        store.remove(name, version)  # unless it is served already: promoting it again may fail as well
        raise
    if facts := collected.facts_of(checkpoint, reports=None if is_remote(path) else layout.reports(checkpoint)):
        store.keep_facts(name, version, facts)
    return Promotion(name, store.point(name, version), typical, speeds, found)


def _check_demand(store: Store, name: str, version: str, demand: Demand, *, trust: bool) -> str:
    """Hold a version against the one that is served, if there is one."""
    if name not in store.names():
        return ""
    served = store.pointer(name).current
    if served == version:
        return ""
    paths = store.path(name, served), store.path(name, version)
    return quality.check_not_worse(*paths, demand, trust=trust)


def _export(
    store: Store, name: str, version: str, request: RuntimeRequest, log: Callable[[str], None]
) -> dict[str, float]:
    """Make the exports of a version that is a checkpoint and has none of these yet; images a second by runtime."""
    path, folder = store.path(name, version), store.exports(name, version)
    if export_folder.is_export(path):
        return {}
    if exports.are_made(folder, request):
        return exports.speeds(folder)
    return exports.make(path, folder, request, log)


def _check_on_golden_images(store: Store, name: str, version: str, *, force: bool, trust: bool) -> float | None:
    """Load a version and store its predictions. Returns the factor between its depths and those of the one served."""
    from depthray.predict import load

    # On the CPU: the process that promotes has reserved no GPU, and what it computes is compared on every device.
    predictor = load(store.path(name, version), device="cpu", trust=trust)
    predictor.check_metres("serving")  # clients, PNGs and point clouds take answers for metres
    answers = golden.answers(predictor)
    before = _served_answers(store, name, version)
    typical = golden.difference(answers, before).typical if before else None
    if typical is not None and not typical <= golden.MAX_FACTOR and not force:
        raise CheckpointError(
            f"on golden images this network's depths are {typical:.1f} times apart from those of the version that "
            f"is served (at most {golden.MAX_FACTOR:g}); compare both with depthray predict, or give --force"
        )
    # Before `point`: a replica that follows the pointer must find them.
    store.keep_golden(name, version, answers)
    return typical


def _served_answers(store: Store, name: str, version: str) -> list[golden.Maps]:
    """The stored predictions of the current version; empty if there is none, or if it is damaged, to be replaced."""
    try:
        current = store.pointer(name).current
        return [] if current == version else store.golden(name, current)
    except CheckpointError:
        return []
