"""Good and bad promotions under load: the good are served, the bad never, and no request fails or is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from chaos import ROOT
from chaos.serving.load import Load, failed, good, percentile, tally
from chaos.serving.report import Finding, Sizes
from chaos.serving.service import Service, checkpoint, png_image, wait_until
from depthray import models
from depthray.checkpoints import save
from depthray.checkpoints.load import CheckpointContents
from depthray.training import preflight
from serve.registry.store import Store

HALF_LOAD_NETWORKS, HALF_LOAD_PROMOTIONS = 5, 20
DEFAULTS = ("model.threads=0", "model.poll_seconds=1", "limits.upload_seconds=30")
KINDS = ("good", "flipped", "good", "other", "good", "missing", "good", "gone", "good", "nan")
ROUNDS = 2


def promotions(sizes: Sizes) -> Iterator[Finding]:
    """Twenty promotions by command, a version that is corrupted in the store, a rollback; at least so many requests."""
    with Service(sizes.port) as service:
        store = Store(service.store)
        runs = [
            checkpoint(service.folder / f"good{seed}", f"data.size={48 + 16 * seed},96", seed=seed) for seed in (0, 1)
        ]
        with Load(service.port, png_image()) as load:
            load.wait(20)
            outcomes = [_promote(service, store, load, kind, runs) for kind in KINDS * ROUNDS]
            yield _summary("good promotions are served", [o for kind, o in outcomes if kind == "good"])
            yield _summary("bad promotions change nothing", [o for kind, o in outcomes if kind != "good"])
            yield _rollback(store, load)
            yield _corrupt_in_store(service, store, load)
            load.wait(max(1, sizes.requests - len(load.outcomes)), seconds=1200)
        served = {each.model for each in good(load.outcomes)}
        wrong = failed(load.outcomes)
        observed = f"{len(wrong)} of {len(load.outcomes)} ({tally(load.outcomes)}), {len(served)} versions"
        yield Finding("requests failed meanwhile", f"0 of at least {sizes.requests}", observed, not wrong)


def half_load(sizes: Sizes) -> Iterator[Finding]:
    """Twenty promotions at default settings under half of the load that is answered: nobody is refused.

    The network is one of usual size, and the first promotion of each version also exports it, on the same cores.
    """
    image = png_image(480, 640)
    with Service(sizes.port, *DEFAULTS, make_run=_usual_network) as service:
        store = Store(service.store)
        runs = [_usual_network(service.folder / f"run{seed}", seed=seed) for seed in range(1, 1 + HALF_LOAD_NETWORKS)]
        with Load(service.port, image, clients=8) as load:
            load.wait(200)
        capacity = len(load.outcomes) / (load.outcomes[-1].ended - load.outcomes[0].began)
        with Load(service.port, image, rate=capacity / 2) as load:
            load.wait(50)
            outcomes = [_promote(service, store, load, "good", runs) for _ in range(HALF_LOAD_PROMOTIONS)]
        yield _summary(f"promotions at {capacity / 2:.1f} requests a second", [served for _, served in outcomes])
        wrong, seconds = failed(load.outcomes), [each.seconds for each in good(load.outcomes)]
        observed = f"{len(wrong)} of {len(load.outcomes)} ({tally(load.outcomes)}), "
        observed += f"p50 {1000 * percentile(seconds, 0.5):.0f} ms, p99 {1000 * percentile(seconds, 0.99):.0f} ms"
        yield Finding("requests refused or failed meanwhile", "0", observed, not wrong and not load.unsent)


def _usual_network(folder: Path, *, seed: int = 0) -> Path:
    """A run of unet-resnet34 with random weights."""
    recipe = preflight.load("unet-resnet34", training=False)
    torch.manual_seed(seed)
    weights = dict(models.build_model(recipe.model, recipe.data.inputs).state_dict())
    contents = CheckpointContents(weights, {}, recipe, {}, epoch=0, step=0, fingerprint="untrained")
    return save.write(folder / "checkpoints", contents).parents[1]


def _promote(service: Service, store: Store, load: Load, kind: str, runs: list[Path]) -> tuple[str, bool]:
    """Whether a promotion did what it should."""
    before = store.pointer("depth").current
    if kind == "good":
        runs.append(runs.pop(0))  # alternately: each good promotion changes the version
    run = runs[0] if kind == "good" else _copy_corrupted(service.folder / "bad", runs[0], kind)
    # Random networks may differ by more than a factor of two.
    flags = ["--store", str(service.store), *(["--force"] if run.name.startswith("run") else [])]
    command = [sys.executable, "-m", "depthray", "serve", "promote", str(run), *flags]
    code = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300).returncode
    now = store.pointer("depth").current
    if kind == "good":
        return kind, code == 0 and now != before and _wait_until_served(load, f"depth@{now}")
    return kind, code != 0 and now == before


def _copy_corrupted(folder: Path, run: Path, kind: str) -> Path:
    """A copy of a run whose checkpoint is corrupted, or a path where there is none."""
    from serve_networks import broken

    shutil.rmtree(folder, ignore_errors=True)
    if kind != "gone":
        shutil.copytree(run, folder)
        broken(next((folder / "checkpoints").iterdir()), kind)
    return folder


def _wait_until_served(load: Load, version: str) -> bool:
    """Whether answers come from a version within a minute."""
    try:
        wait_until(lambda: load.outcomes[-1].model == version, 60, version)
    except TimeoutError:
        return False
    return True


def _corrupt_in_store(service: Service, store: Store, load: Load) -> Finding:
    """The store names a version whose bytes changed after it was stored."""
    from serve_networks import broken

    before = store.pointer("depth")
    run = checkpoint(service.folder / "corrupted", seed=7)
    version = store.add("depth", next((run / "checkpoints").iterdir()))
    # With golden answers, so that its bytes alone are at fault.
    store.keep_golden("depth", version, store.golden("depth", before.current))
    broken(store.path("depth", version), "flipped")
    store.point("depth", version)
    load.wait(200)
    kept = {each.model for each in load.outcomes[-100:]} == {f"depth@{before.current}"}
    store.rollback("depth")
    observed = "it answers" if kept else "it does not"
    return Finding("a version corrupted in the store", "the one before answers", observed, kept)


def _rollback(store: Store, load: Load) -> Finding:
    began = time.monotonic()
    pointer = store.rollback("depth")
    good = _wait_until_served(load, f"depth@{pointer.current}")
    observed = f"{time.monotonic() - began:.1f} s"
    return Finding("rollback to the version before", "answers", observed, good)


def _summary(what: str, outcomes: list[bool]) -> Finding:
    return Finding(what, f"{len(outcomes)} of {len(outcomes)}", f"{sum(outcomes)} of {len(outcomes)}", all(outcomes))
