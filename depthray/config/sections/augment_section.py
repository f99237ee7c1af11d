"""The section `augment`: random changes of training samples."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from depthray.config.sections.section import Fraction, Section


class Augment(Section):
    """Random changes of training samples. Geometry moves every map and the intrinsics; photometry the RGB only."""

    keys_before = frozenset(
        [
            *("hflip", "crop", "rotate", "brightness", "contrast", "saturation", "hue"),
            *("brightness_contrast", "hue_saturation_value", "blur", "noise"),
        ]
    )
    values_before = MappingProxyType({"zoom_depth": False})  # until 0.2.0 depth stayed as it was

    hflip: Fraction = Field(0.5, description="probability of a left-right flip")
    vflip: Fraction = Field(0.0, description="probability of an upside-down flip")
    crop: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="smallest side kept by a random crop, as a share; 1 = none"
    )
    crop_mode: Literal["resize", "plain", "kb"] = Field(
        "resize",
        description="resize: a crop is resized to data.size; plain: data.size pixels of the frame as it is shown "
        "outside of training; kb: the same within KITTI's benchmark crop",
    )
    zoom_depth: bool = Field(
        True, description="depth follows the focal length where a crop is resized: times its share"
    )
    rotate: Annotated[float, Field(ge=0, le=45)] = Field(0.0, description="largest rotation in degrees")
    brightness: Fraction = Field(0.0, description="largest relative change of brightness")
    contrast: Fraction = Field(0.0, description="largest relative change of contrast")
    saturation: Fraction = Field(0.0, description="largest relative change of saturation")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="largest shift of hue, as a share of the circle"
    )
    brightness_contrast: Fraction = Field(
        0.0, description="probability of brightness and contrast changed by up to 20 %"
    )
    hue_saturation_value: Fraction = Field(
        0.0, description="probability of hue, saturation, value shifted by up to 20, 30, 20 of 255"
    )
    blur: Fraction = Field(0.0, description="probability of a Gaussian blur")
    noise: Fraction = Field(0.0, description="probability of sensor noise")
    gamma: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="largest change of the exponent of a gamma curve: 0.2 = 0.8 to 1.2"
    )
    bts_colour: Fraction = Field(
        0.0,
        description="probability of BTS's colour: gamma 0.9 to 1.1, brightness by bts_brightness, each of red, green "
        "and blue times 0.9 to 1.1; BTS has 0.5",
    )
    bts_brightness: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.25, description="largest relative change of brightness by bts_colour: of BTS 0.25 indoors, 0.1 outdoors"
    )
    motion_blur: Fraction = Field(
        0.0, description="probability of a straight motion blur of 3 to 15 pixels at a width of 320"
    )
    jpeg: Fraction = Field(0.0, description="probability of a JPEG's artefacts, of the quality 30 to 90")
    cutdepth: Fraction = Field(
        0.0, description="probability of a rectangle of the image replaced by depth / max_depth in grey (CutDepth)"
    )
    device: Literal["auto", "cpu", "device"] = Field(
        "auto",
        description="where changes are made, which are drawn on the CPU: device = where the network is; auto = there "
        "on a GPU",
    )
