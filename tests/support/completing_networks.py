"""One small network of each architecture that completes depth."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "bifpn": {"encoder": "efficientnet_lite0"},
    "depthmasknet": {},
    "depthnet": {},
    "dpt": {"size": "tiny"},
    "fpn": {"encoder": "resnet18"},
    "unet": {"encoder": "tiny"},
}  # architecture: options


def inputs_of(name: str) -> tuple[str, ...]:
    """The inputs of an architecture, sparse depth among them."""
    return ("background", "image", "sparse") if name == "depthmasknet" else ("image", "sparse")
