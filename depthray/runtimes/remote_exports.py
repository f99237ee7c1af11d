"""Exports on an object store, copied into the cache of this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from uuid import uuid4

from depthray.checkpoints import manifest
from depthray.checkpoints.remote_checkpoints import locked
from depthray.checkpoints.select import TEMPORARY, CheckpointName
from depthray.errors import CheckpointError
from depthray.runtimes import export_folder
from depthray.storage import environment
from depthray.storage.remote import RemoteFolder


def is_export(url: str) -> bool:
    """Whether an address is the folder of an export."""
    # A name that only checkpoints have saves requests.
    if CheckpointName.parse(url.rpartition("/")[2]):
        return False
    folder = RemoteFolder(url)
    return folder.size(export_folder.NAME) is not None and folder.size(manifest.NAME) is None


def cached_export(url: str) -> Path:
    """The copy of a remote export, verified."""
    source, copy = RemoteFolder(url), environment.cached_copy("exports", url)
    with locked(copy):
        return copy if _is_copy(copy, source) else _download(source, copy)


def _is_copy(path: Path, source: RemoteFolder) -> bool:
    """Whether a local export is good and the same as the remote one."""
    try:
        export_folder.verify(path)
        return source.read(export_folder.NAME) == (path / export_folder.NAME).read_bytes()
    except CheckpointError:
        return False


def _download(source: RemoteFolder, target: Path) -> Path:
    temporary = target.with_name(f"{TEMPORARY}{uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        for file in source.files():
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            source.download(file, temporary / file)
        export_folder.verify(temporary)
        shutil.rmtree(target, ignore_errors=True)  # of an earlier export at this address
        os.rename(temporary, target)
    except CheckpointError as error:
        # The user knows the address, not the temporary copy.
        raise CheckpointError(str(error).replace(str(temporary), source.url)) from None
    except FileNotFoundError:
        raise CheckpointError(f"{source.url}: was removed while it was downloaded; use another export") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
