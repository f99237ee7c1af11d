"""Runs and checkpoints that lie remote, brought to the cache of this machine and verified there.

What a run writes lies in its working folder, CACHE/runs/NAME-DIGEST; what is only looked at, in CACHE/fetched/...
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from depthray.checkpoints import manifest, select
from depthray.checkpoints.select import FOLDER, TEMPORARY
from depthray.errors import CheckpointError, UsageError
from depthray.runs import progress
from depthray.storage import remote
from depthray.storage.remote import Folder
from depthray.training import preflight

RECIPE = "recipe.yaml"
IDENTITY = "identity"  # a word of its own for each run; a working folder with another one belongs to a run of before
STOP = "STOP"


def working_folder(url: str | Path) -> Path:
    """Where a process of this machine writes a run that lies remote."""
    return remote.place("runs", remote.address(url))


def recipe_file(url: str | Path) -> Path:
    """The recipe of a remote run as a local file. Raises UsageError where there is no run."""
    url = remote.address(url)
    path = remote.place("fetched", url) / RECIPE
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        Folder(url, patience=30).download(RECIPE, path)
    except FileNotFoundError:
        raise UsageError(f"--resume: {url} holds no run (no {RECIPE} there)") from None
    return path


def complete(run: Folder) -> list[str]:
    """The names of the complete checkpoints of a remote run, by step."""
    files = (run / FOLDER).files()
    names = {name.partition("/")[0] for name in files if name.endswith(f"/{manifest.NAME}") and name.count("/") == 1}
    return sorted((name for name in names if select.place(name)), key=order)


def order(name: str) -> tuple[int, int, int]:
    """The place of a checkpoint in its run: a key to sort names by."""
    return select.place(name) or (0, 0, 0)


def bring(run: Folder, working: Path, name: str) -> Path:
    """Download a checkpoint into a run's folder; it appears there verified and whole, or CheckpointError."""
    source, target = run / FOLDER / name, working / FOLDER / name
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{uuid4().hex}")
    temporary.mkdir()
    try:
        for file in source.files():
            (temporary / file).parent.mkdir(exist_ok=True)
            source.download(file, temporary / file)
        manifest.verify(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(temporary, target)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(temporary), source.url)) from None
    except FileNotFoundError:
        raise CheckpointError(f"{source.url}: went away while it was fetched; use another checkpoint") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def take_up(run: Folder, working: Path, say: Callable[[str], None]) -> None:
    """Make the working folder ready to go on with a remote run: progress, and the newest good checkpoint of both.

    A damaged checkpoint is passed over, and said; CheckpointError where there are some and none is good.
    """
    with _alone(working):
        _same_run(run, working, say)
        (working / FOLDER).mkdir(exist_ok=True)
        _newest(run, working, say)
        _longer_progress(run, working)
        if run.size(STOP) is None:
            (working / STOP).unlink(missing_ok=True)


def _same_run(run: Folder, working: Path, say: Callable[[str], None]) -> None:
    try:
        word = run.read(IDENTITY)
    except FileNotFoundError:
        raise CheckpointError(f"{run.url}: holds no run any more; somebody removed it") from None
    mine = working / IDENTITY
    if working.exists() and (mine.read_bytes() if mine.exists() else b"") != word:
        aside = working.with_name(f"{working.name}-before-{time.strftime('%Y%m%d-%H%M%S')}")
        os.rename(working, aside)
        say(f"{working} held another run of the same name; it is now {aside.name}, to be removed if it is not wanted")
    working.mkdir(parents=True, exist_ok=True)
    mine.write_bytes(word)


def _newest(run: Folder, working: Path, say: Callable[[str], None]) -> None:
    names = complete(run)
    here = [order(path.name) for path in select.committed(working / FOLDER) if _good(path)]
    for name in reversed(names):
        if any(mine >= order(name) for mine in here):
            return
        try:
            bring(run, working, name)
        except CheckpointError as error:
            say(f"{error}; going back to the checkpoint before")
        else:
            return
    if names and not here:
        raise CheckpointError(f"{run.url}: none of {len(names)} checkpoints is good; give another --out to begin again")


def _good(path: Path) -> bool:
    try:
        manifest.verify(path)
    except CheckpointError:
        return False
    return True


def _longer_progress(run: Folder, working: Path) -> None:
    """Progress goes on after the records that are known; those of this machine may be ahead of the mirrored ones."""
    mine, theirs = working / progress.FILE, run.size(progress.FILE)
    if theirs and theirs > (mine.stat().st_size if mine.exists() else 0):
        run.download(progress.FILE, mine)


def ensure(run: Folder, working: Path, name: str) -> Path:
    """A checkpoint that another process of the run chose, in this machine's working folder."""
    with _alone(working):
        path = working / FOLDER / name
        return path if _good(path) else bring(run, working, name)


@contextmanager
def _alone(working: Path) -> Iterator[None]:
    """Keep the other processes of this machine from fetching the same."""
    working.parent.mkdir(parents=True, exist_ok=True)
    with working.with_name(f"{working.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetched(url: str) -> Path:
    """The checkpoint meant by a remote path (itself, or of a run its best), in the cache of this machine."""
    run, name = _split(url)
    if name is None:
        name, _ = best(url)
    place = remote.place("fetched", run.url)
    with _alone(place):
        path = place / FOLDER / name
        return path if _is_copy(path, run / FOLDER / name) else bring(run, place, name)


def best(url: str) -> tuple[str, dict[str, float]]:
    """The best checkpoint of a remote run, or the last if none is scored: its name and scores. Little is fetched."""
    run = Folder(url)
    names = complete(run)
    if not names:
        raise CheckpointError(f"{run.url}: neither a checkpoint nor a run folder with one in {FOLDER}/")
    look = remote.place("fetched", run.url) / f"{TEMPORARY}{uuid4().hex}"
    try:
        for name in names:
            (look / name).mkdir(parents=True)
            for file in (manifest.METRICS, manifest.RECIPE, manifest.NAME):
                (run / FOLDER / name).download(file, look / name / file)
        parts = [look / name for name in names]
        chosen = select.best(parts, _monitor(parts[-1], run))
        return chosen.name, json.loads((chosen / manifest.METRICS).read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{run.url}: its checkpoints change; try again in a moment") from None
    finally:
        shutil.rmtree(look, ignore_errors=True)


def _monitor(part: Path, run: Folder) -> str:

    try:
        return preflight.load(str(part / manifest.RECIPE), training=False).eval.monitor
    except UsageError as error:
        raise CheckpointError(f"{run.url}: {part.name}: its recipe cannot be read: {error}") from None


def _split(url: str) -> tuple[Folder, str | None]:
    """The run a remote path is of, and the name of the checkpoint if the path means one."""
    parent, _, name = url.rpartition("/")
    if not select.place(name):
        return Folder(url.removesuffix(f"/{FOLDER}")), None
    if parent.endswith(f"/{FOLDER}"):
        return Folder(parent.removesuffix(f"/{FOLDER}")), name
    raise CheckpointError(f"{url}: a checkpoint lies in the folder {FOLDER} of a run; give RUN or RUN/{FOLDER}/{name}")


def _is_copy(path: Path, source: Folder) -> bool:
    """Whether a local checkpoint is good and the very one that lies remote."""
    try:
        return _good(path) and source.read(manifest.NAME) == (path / manifest.NAME).read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{source.url}: no such checkpoint") from None
