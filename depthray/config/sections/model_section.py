"""The section `model`: the architecture and where its weights start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from depthray.config.deprecated import rename_model_keys
from depthray.config.sections.section import Positive

Uncertainty = Literal["none", "laplace", "gaussian"]  # the distribution of ln depth around what is predicted


class Model(BaseModel):
    """The architecture. Keys besides `name` are options of its build function in depthray/models/<name>.py."""

    # The options are those of the architecture, against which depthray.models.check compares them.
    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field("unet", description="a module of depthray/models, or one's own (mypkg.net, ./net.py)")
    weights: str = Field(
        "",
        description="where a new run starts: imagenet (imagenet?: if it is here), a run, checkpoint or file, "
        "hf:OWNER/REPO@REVISION/FILE, https://...#sha256=HEX, or a name of `depthray weights list`; empty = random",
    )
    weights_match: Literal["strict", "partial"] = Field(
        "strict", description="strict: all weights of the file fit; partial: those that fit are loaded, others listed"
    )
    weights_depth: Literal["auto", "metric", "relative"] = Field(
        "auto",
        description="depth of a Depth Anything V2 file: auto = by its name; relative = its last layer starts anew",
    )

    start: Literal["samples", "legacy"] = Field(
        "samples",
        description="with sparse depth among data.inputs: samples = ln depth is corrected from the spread samples, at "
        "which the untrained network starts; legacy = as depthray 0.2 had it",
    )
    sparse_fusion: Literal["early", "late"] = Field(
        "early",
        description="where sparse depth joins the other inputs: early = in the first layer; late = in the depth head, "
        "so that the depth without samples is predicted along, for loss.monocular",
    )
    fill: Literal["blocks", "guided"] = Field(
        "blocks",
        description="how samples reach the pixels between them: blocks = as means over blocks of pixels; guided = the "
        "network predicts which of the blocks around it a pixel takes",
    )
    refine: Literal["none", "cspn", "nlspn"] = Field(
        "none",
        description="depth is propagated between pixels: cspn = from neighbours, nlspn = from learned places",
    )
    refine_steps: Positive = Field(6, description="steps of propagation")
    refine_kernel: Literal[3, 5, 7] = Field(3, description="pixels of a side of the neighbourhood in a step")
    refine_samples: Literal["learned", "exact", "free"] = Field(
        "learned", description="samples while depth is propagated: kept by a learned confidence, exactly, or not at all"
    )

    uncertainty: Uncertainty = Field(
        "none",
        description="what is predicted along with depth: nothing, or the standard deviation of ln depth, trained by "
        "loss.laplace_nll or loss.gaussian_nll",
    )

    valid_mask: bool = Field(
        False,
        description="predict besides where there is a depth to measure within data.min_depth and max_depth: no sky, "
        "glass, mirrors; trained by loss.valid_bce",
    )

    rays: bool = Field(
        False,
        description="the network also sees where the ray of each pixel points and how long the focal length is; with "
        "data.canonical_focal",
    )

    values_before: ClassVar[Mapping[str, Any]] = MappingProxyType({"start": "legacy"})  # until 0.2.0

    @model_validator(mode="before")
    @classmethod
    def _rename_keys(cls, section: Any) -> Any:
        return rename_model_keys(section) if isinstance(section, dict) else section

    @property
    def options(self) -> dict[str, Any]:
        """The options of the architecture, by name."""
        return dict(self.model_extra or {})

    @property
    def auxiliary_maps(self) -> dict[str, str]:
        """Key -> map of a prediction, of those that are predicted along with depth."""
        maps = {"uncertainty": ("log_sigma", self.uncertainty != "none"), "valid_mask": ("valid", self.valid_mask)}
        return {key: name for key, (name, is_wanted) in maps.items() if is_wanted}

    @property
    def weights_path(self) -> str:
        """`weights`, where that is a path on this machine; "" for all other forms. A path has a slash or a suffix."""
        text = self.weights
        is_path = "://" not in text and not text.startswith("hf:") and ("/" in text or Path(text).suffix)
        return text if is_path else ""
