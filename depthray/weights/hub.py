"""Files of the Hugging Face hub, through its own client and cache; the package is optional."""

from __future__ import annotations

from pathlib import Path

from depthray.errors import UsageError
from depthray.storage.environment import OFFLINE, is_offline
from depthray.weights.read import one_line
from depthray.weights.reference import Missing, Reference

INSTALL = "pip install 'depthray[hub]'"


def fetch(reference: Reference, *, may_download: bool = True) -> Path | None:
    """A file of the hub on this machine, downloaded where it is missing; None where it is and may not be.

    The client verifies what it downloads, resumes it, shows its progress and keeps to HF_HUB_OFFLINE and HF_HOME.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        if not may_download:
            return None
        raise Missing(f"{reference.where}: the package huggingface_hub is not installed: {INSTALL}") from None
    try:
        path = hf_hub_download(
            reference.target,
            reference.file,
            revision=reference.revision,
            local_files_only=is_offline() or not may_download,
        )
    except LocalEntryNotFoundError:
        if not may_download:
            return None
        reason = f"{OFFLINE}=1 forbids downloads" if is_offline() else "the hub cannot be reached"
        raise Missing(
            f"{reference.where}: {reference.target}/{reference.file} is not in the hub's cache on this machine, and "
            f"{reason}; fetch it where there is a network (depthray weights fetch), or give model.weights=path/to/it"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise UsageError(f"{reference.where}: cannot be had from the hub ({one_line(error)})") from None
    return Path(path)


def revision_of(path: Path) -> str:
    """The commit of a file in the hub's cache, "" elsewhere."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-2] else ""
