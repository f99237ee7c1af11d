"""How the service runs: where models lie, how they are batched and multiplied, what is refused.

Defaults <- a YAML file <- environment (DEPTHRAY_SERVE_MODEL__MAX_BATCH=16) <- words (model.max_batch=16).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from depthray.config.overrides import apply_word, read_yaml
from depthray.errors import UsageError, did_you_mean

ENVIRONMENT = "DEPTHRAY_SERVE_"
NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Count = Annotated[int, Field(gt=0, le=1_000_000_000_000)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of the settings: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Section):
    """What a request may ask for; all of it is checked before anything is decoded."""

    body_bytes: Count = Field(32 * 2**20, description="of one request, counted while it arrives")
    pixels: Count = Field(25_000_000, description="of one picture")
    side: Count = Field(16_384, description="pixels of the longer side of a picture")
    shortest_side: Count = Field(8, description="pixels of the shorter side of a picture")
    aspect: float = Field(20.0, ge=1, le=10_000, description="longer side over shorter side")
    batch_images: Count = Field(16, description="pictures of one batch request")
    batch_pixels: Count = Field(50_000_000, description="of all pictures of one batch request")
    points: Count = Field(4_000_000, description="of one point cloud; larger ones are thinned")
    query_bytes: Count = Field(4096, description="of the query string")
    upload_seconds: Seconds = Field(30.0, description="a body may take to arrive")


class Replicas(Section):
    """How many copies there are and when there are more."""

    min: int = Field(1, ge=0, le=10_000, description="replicas kept; 0: none while nobody asks")
    max: int = Field(1, ge=1, le=10_000, description="replicas at most")
    ongoing: Count = Field(16, description="requests a replica should have at a time; more start another one")
    upscale_seconds: Seconds = Field(5.0, description="of too much load before a replica is added")
    downscale_seconds: Seconds = Field(60.0, description="of too little load before a replica is taken away")
    cpus: Share = Field(1.0, description="CPUs reserved for each, fractions allowed")

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min={self.min} is more than max={self.max}")
        return self


class Model(Section):
    """How networks compute."""

    device: str = Field("", description="cpu, cuda or cuda:N; empty: the GPU a replica was given, else the CPU")
    gpus: Share | None = Field(
        None, description="GPUs reserved for each replica, fractions allowed; unset: what the cluster has, in parts"
    )
    precision: Literal["fp32", "bf16", "fp16", "auto"] = Field(
        "fp32", description="of the forward pass; only fp32 equals `depthray predict` to the millimetre"
    )
    compile: bool = Field(False, description="compile networks with torch.compile, which takes minutes at the start")
    threads: int = Field(
        0, ge=0, le=4096, description="of forward passes on CPUs; 0: this machine's share of a replica"
    )
    max_batch: int = Field(8, ge=1, le=1024, description="pictures of one forward pass at most")
    linger_ms: float = Field(0.0, ge=0, le=1000, description="a first request waits for others to share its pass")
    poll_seconds: float = Field(1.0, ge=0.05, le=3600, description="between looks at which versions are served")
    deviation: float = Field(
        0.02, gt=0, le=10, description="largest relative deviation on golden images from what promotion computed"
    )


class Settings(Section):
    """All of it."""

    store: Path = Field(Path("served"), description="folder of the models")
    default: str = Field("", pattern=rf"{NAME}|^$", description="model that answers without a name; empty: the first")
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(30.0, description="until a request is given up")
    answer_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        2.0, description="wanted for an answer; more requests than fit into it are refused with 429 (by depthray serve)"
    )
    queued: Count = Field(32, description="requests in work at each ingress replica before more are refused with 429")
    keys_file: Path | None = Field(None, description="API keys, one a line; or give DEPTHRAY_API_KEYS")
    allow_anonymous: bool = Field(False, description="answer without keys on an address others can reach")
    page: bool = Field(True, description="the page at /")
    limits: Limits = Limits()
    model: Model = Model()
    model_replicas: Replicas = Replicas()
    ingress_replicas: Replicas = Replicas(ongoing=32, cpus=0.5)


def load(
    path: Path | None = None, words: Sequence[str] = (), *, environment: Mapping[str, str] = os.environ
) -> Settings:
    """The settings of a YAML file with the environment and dotted words applied in order; UsageError names the key."""
    tree = read_yaml(path) if path else {}
    for key, value in sorted(environment.items()):
        if key.startswith(ENVIRONMENT):
            apply_word(tree, f"{key.removeprefix(ENVIRONMENT).lower().replace('__', '.')}={value}")
    for word in words:
        apply_word(tree, word)
    return parse(tree, where=str(path or "settings"))


def parse(tree: Mapping[str, Any], *, where: str = "settings") -> Settings:
    """Check plain values; the first fault is a UsageError naming its key."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{where}: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(map(str, fault["loc"]))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{key}'{did_you_mean(str(fault['loc'][-1]), _keys(fault['loc'][:-1]))}"
    return f"{key}={fault['input']!r}: {message[0].lower()}{message[1:]}"


def _keys(place: tuple[int | str, ...]) -> list[str]:
    section: Any = Settings
    for part in place:
        section = section.model_fields[str(part)].annotation
    return list(section.model_fields)
