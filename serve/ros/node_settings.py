"""The parameters of the ROS 2 node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from depthray.config.sections.section import Amount, Section
from depthray.config.validation import first_fault
from depthray.errors import UsageError

DepthEncoding = Literal["32FC1", "16UC1"]
OutputSize = Literal["image", "model"]


class NodeSettings(Section):
    """The parameters of the ROS 2 node, by the names that they have in ROS."""

    model: str = Field("", description="a checkpoint, a run or an export; with server the name of its model, or empty")
    server: str = Field("", description="address of a depth server, http://HOST:8000, in place of a network here")
    device: str = Field("", description="cpu, cuda or cuda:N; empty: the GPU if there is one")
    trust: bool = Field(False, description="run code that comes with the checkpoint: you know who wrote it")
    transport: Literal["raw", "compressed"] = Field(
        "raw", description="raw: subscribe to image; compressed: to image/compressed, JPEG or PNG"
    )
    depth_encoding: DepthEncoding = Field(
        "32FC1", description="32FC1: float32 metres, NaN where there is none; 16UC1: millimetres, 0 where there is none"
    )
    points: bool = Field(False, description="publish depth/points too, which needs camera_info")
    rectified: bool = Field(False, description="images are rectified: points by the camera_info's P, not by K and D")
    size: OutputSize = Field("image", description="size of the depth: that of the image, or of the network's own map")
    rate: Amount = Field(0.0, description="images a second at most; 0: as many as the network can")


def check(values: Mapping[str, Any]) -> NodeSettings:
    """Values by name, as ROS has them -> the settings; a UsageError names the parameter that is wrong."""
    try:
        settings = NodeSettings.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(f"parameter {first_fault(error, NodeSettings)}") from None
    if not (settings.model or settings.server):
        raise UsageError("depth by what? Give a run, checkpoint or export, or the parameter server:=http://HOST:8000")
    return settings
