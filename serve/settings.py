"""The settings of the service: where models are stored, batching, replicas, and the limits of a request.

Defaults <- a YAML file <- environment (DEPTHRAY_SERVE_MODEL__MAX_BATCH=16) <- overrides (model.max_batch=16).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from depthray.config.overrides import apply_override, read_yaml
from depthray.config.sections import Section
from depthray.config.validation import first_fault
from depthray.errors import UsageError

ENVIRONMENT = "DEPTHRAY_SERVE_"
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"  # of a model: it becomes a folder, a part of URLs and a Prometheus label

# Every number has an upper bound: a mistyped one is refused here rather than found by a service that never answers.
Count = Annotated[int, Field(gt=0, le=1_000_000_000_000)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)]


Runtime = Literal["auto", "eager", "openvino", "openvino-bf16", "openvino-int8", "onnx", "torch-export"]


class RequestLimits(Section):
    """Limits of one request, all of them checked before anything is decoded."""

    body_bytes: Count = Field(32 * 2**20, description="of one request, counted while it arrives")
    # By the header, before decoding: a PNG of a few kB may claim gigapixels.
    pixels: Count = Field(25_000_000, description="of one image")
    side: Count = Field(16_384, description="pixels of the longer side of an image")
    shortest_side: Count = Field(8, description="pixels of the shorter side of an image")
    aspect: float = Field(20.0, ge=1, le=10_000, description="longer side over shorter side")
    batch_images: Count = Field(16, description="images of one batch request")
    batch_pixels: Count = Field(50_000_000, description="of all images of one batch request")
    points: Count = Field(4_000_000, description="of one point cloud; larger ones are thinned")
    query_bytes: Count = Field(4096, description="of the query string")
    upload_seconds: Seconds = Field(30.0, description="that a body may take to arrive")


class ReplicaSettings(Section):
    """How many replicas a deployment has, and when it scales."""

    min: int = Field(1, ge=0, le=10_000, description="replicas kept; 0: none while there are no requests")
    max: int = Field(1, ge=1, le=10_000, description="replicas at most")
    ongoing: Count = Field(16, description="target of ongoing requests for each replica; more start another one")
    upscale_seconds: Seconds = Field(5.0, description="of too much load before a replica is added")
    downscale_seconds: Seconds = Field(60.0, description="of too little load before a replica is stopped")
    cpus: Share = Field(1.0, description="CPUs reserved for each, fractions allowed")


class ModelSettings(Section):
    """How the networks of a replica compute."""

    device: str = Field(
        "", description="cpu, cuda or cuda:N; empty: the GPU that is reserved for the replica, else the CPU"
    )
    # Unset, not 0: Serve reserves GPUs before a replica starts, and only then could it look for one.
    gpus: Share | None = Field(
        None,
        description="GPUs reserved for each replica, a part of one or whole ones; unset: an equal share of the "
        "cluster's GPUs; 0: none",
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = Field(
        "fp32", description="of PyTorch's forward pass; only fp32 equals `depthray predict` to the millimetre"
    )
    runtime: Runtime = Field(
        "auto",
        description="what computes networks on CPUs: an export that passed its gate at the promotion, or eager, "
        "PyTorch; auto: what was fastest then",
    )
    flip: bool = Field(False, description="answer the mean with the mirrored image, which takes twice the time")
    confidence: Literal["", "flip"] = Field(
        "",
        description="flip: sigma and confidence from the difference to the mirrored image, for networks that predict "
        "none, which takes twice the time",
    )
    compile: bool = Field(False, description="compile networks with torch.compile, which takes minutes at the start")
    threads: int = Field(
        0, ge=0, le=4096, description="of forward passes on CPUs; 0: an equal share of the machine's cores"
    )
    max_batch: int = Field(8, ge=1, le=1024, description="images of one forward pass at most")
    batch_wait_timeout_ms: float = Field(
        0.0, ge=0, le=1000, description="that a request waits for others to share its forward pass"
    )
    # Polled rather than watched: the store may be on a network file system, which reports no changes of other hosts.
    poll_seconds: float = Field(1.0, ge=0.05, le=3600, description="between reads of the store for new versions")
    trust: bool = Field(False, description="run code that comes with checkpoints: you know who wrote it")
    deviation: float = Field(
        0.02, gt=0, le=10, description="largest relative deviation on golden images from what promotion computed"
    )

    @model_validator(mode="after")
    def _check_gpus(self) -> ModelSettings:
        if self.gpus and self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"model.gpus={self.gpus:g}: above 1 it is a whole number, as Ray places it")
        if self.gpus == 0 and self.device.startswith("cuda"):
            raise ValueError(f"model.device={self.device} needs a GPU and model.gpus=0 reserves none; leave out one")
        return self

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, tree: Any) -> Any:
        """`linger_ms` is the name of `batch_wait_timeout_ms` in files written for depthray 0.1; deprecated."""
        if isinstance(tree, Mapping) and "linger_ms" in tree and "batch_wait_timeout_ms" not in tree:
            return {"batch_wait_timeout_ms" if key == "linger_ms" else key: value for key, value in tree.items()}
        return tree


class Settings(Section):
    """All settings of a service."""

    store: Path = Field(Path("served"), description="folder of the models")
    default: str = Field("", pattern=rf"{NAME}|^$", description="model that answers without a name; empty: the first")
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(30.0, description="until a request is cancelled")
    answer_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        2.0, description="target for an answer; requests that would take longer get 429 at once (by depthray serve)"
    )
    queued: Count = Field(32, description="ongoing requests of each ingress replica before more are refused with 429")
    keys_file: Path | None = Field(None, description="API keys, one a line; or set DEPTHRAY_API_KEYS")
    allow_anonymous: bool = Field(False, description="answer without keys on an address that others can reach")
    page: bool = Field(True, description="the page at /")
    limits: RequestLimits = RequestLimits()
    model: ModelSettings = ModelSettings()
    model_replicas: ReplicaSettings = ReplicaSettings()
    ingress_replicas: ReplicaSettings = ReplicaSettings(ongoing=32, cpus=0.5)

    @field_validator("model_replicas", "ingress_replicas")
    @classmethod
    def _check_order(cls, replicas: ReplicaSettings, info: ValidationInfo) -> ReplicaSettings:
        if replicas.min > replicas.max:
            key = info.field_name
            raise ValueError(f"{key}.min={replicas.min} is more than max={replicas.max}; raise {key}.max too")
        return replicas


def load(
    path: Path | None = None, overrides: Sequence[str] = (), *, environment: Mapping[str, str] = os.environ
) -> Settings:
    """The settings of a YAML file with the environment and dotted overrides applied; a UsageError names the key."""
    if path and not path.is_file():
        raise UsageError(f"{path}: no such file of settings")
    tree = read_yaml(path) if path else {}
    # Two underscores stand for the dot, which environment variables cannot have; keys contain single ones.
    for key, value in sorted(environment.items()):
        if key.startswith(ENVIRONMENT):
            apply_override(tree, f"{key.removeprefix(ENVIRONMENT).lower().replace('__', '.')}={value}")
    for override in overrides:
        apply_override(tree, override)
    return parse(tree, where=str(path or "settings"))


def parse(tree: Mapping[str, Any], *, where: str = "settings") -> Settings:
    """Check plain values; the first fault is a UsageError naming its key."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{where}: {first_fault(error, Settings)}") from None
