"""`model.weights` as text, taken apart: what kind of place it names, and whether it may be missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from depthray.config.sections import Model
from depthray.errors import UsageError
from depthray.storage.remote import is_remote

Kind = Literal["imagenet", "path", "remote", "hub", "url", "name"]
IMAGENET = "imagenet"
HUB = re.compile(r"hf:(?P<repository>[^/@\s]+/[^/@\s]+)@(?P<revision>[^/\s]+)/(?P<file>\S+)")
URL = re.compile(r"(?P<url>https?://[^#\s]+)#sha256=(?P<sha256>[0-9a-fA-F]{64})")


class Missing(UsageError):
    """Weights that are not on this machine and cannot be downloaded."""


@dataclass(frozen=True)
class Reference:
    """A place of weights."""

    text: str  # as the recipe has it
    kind: Kind
    optional: bool = False  # a network starts from random weights where they are not on this machine
    target: str = ""  # a path, an address or a name of the catalogue
    revision: str = ""  # hub: a commit, tag or branch
    file: str = ""  # hub: a path in the repository
    sha256: str = ""  # url: that of the file

    @property
    def where(self) -> str:
        """What errors begin with."""
        return f"model.weights={self.text}"


def parse(text: str) -> Reference:
    """The reference that a text is. Raises UsageError for an address that is incomplete."""
    optional = text.endswith("?")
    bare = text.removesuffix("?")
    if bare == IMAGENET:
        return Reference(text, "imagenet", optional)
    if bare.startswith("hf:"):
        return _parse_hub(text, bare, optional)
    if bare.startswith(("https://", "http://")):
        return _parse_url(text, bare, optional)
    if is_remote(bare):
        return Reference(text, "remote", optional, bare)
    kind: Kind = "path" if Model(weights=bare).weights_path else "name"
    return Reference(text, kind, optional, bare)


def _parse_hub(text: str, bare: str, optional: bool) -> Reference:
    found = HUB.fullmatch(bare)
    if not found:
        raise UsageError(
            f"model.weights={text}: give hf:OWNER/REPO@REVISION/FILE, where REVISION is a commit, a tag or main, "
            "e.g. hf:timm/resnet18.a1_in1k@main/model.safetensors"
        )
    return Reference(text, "hub", optional, found["repository"], found["revision"], found["file"])


def _parse_url(text: str, bare: str, optional: bool) -> Reference:
    found = URL.fullmatch(bare)
    if not found:
        raise UsageError(
            f"model.weights={text}: a download needs the SHA-256 of its file, 64 digits: "
            f"{bare.partition('#')[0]}#sha256=... (sha256sum prints it)"
        )
    return Reference(text, "url", optional, found["url"], sha256=found["sha256"].lower())
