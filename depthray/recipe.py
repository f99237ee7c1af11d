"""A recipe says everything about a run's numbers. Defaults <- YAML file <- dotted words, typed and checked.

`load("unet-resnet34", ["optim.lr=3e-4"])` reads `recipes/unet-resnet34.yaml` (or a path), applies the words in order
and returns a frozen `Recipe`. Whatever is unknown or out of range is a `UsageError` naming the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from depthray.errors import UsageError, did_you_mean
from depthray.words import apply_word, read_yaml

RECIPES = Path(__file__).parent / "recipes"

Positive = Annotated[int, Field(gt=0, strict=True)]  # strict: `true` is no number of epochs
NotNegative = Annotated[int, Field(ge=0, strict=True)]
Side = Annotated[int, Field(gt=0, le=8192, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Schedule = Literal["constant", "cosine", "onecycle", "step", "plateau"]


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Section):
    """Which frames, how they are encoded and split, and at what size the network sees them."""

    source: str = Field("shards", description="form of the data set: a module of depthray/data/sources")
    root: str = Field("", description="where the data lies; `--data PATH` sets it")
    encoding: str = Field("uint16_mm", description="unit of the stored depth, declared: see depthray/data/encodings.py")
    size: tuple[Side, Side] = Field((128, 160), description="height, width in pixels the network is trained at")
    inputs: tuple[str, ...] = Field(("image",), description="batch keys the network is given", min_length=1)
    min_depth: Amount = Field(1e-3, description="metres; nearer truth is not valid")
    max_depth: PositiveFloat = Field(10.0, description="metres; farther truth is not valid")
    val_fraction: Fraction = Field(0.1, description="share of frames held out, whole scenes; a split in the index wins")
    split_seed: NotNegative = Field(0, description="which scenes are held out")
    frames: Positive = Field(480, description="synthetic source only: number of frames rendered")
    workers: NotNegative = Field(0, description="loader processes per training worker; 0 = a background thread")

    @model_validator(mode="after")
    def _ordered(self) -> Data:
        if self.min_depth >= self.max_depth:
            raise ValueError("data.min_depth must be below data.max_depth")
        return self


class Augment(Section):
    """Random changes of training samples. Geometry moves every map and the intrinsics; photometry the RGB only."""

    hflip: Fraction = Field(0.5, description="probability of a left-right flip")
    crop: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="smallest side kept by a random crop, as a share; 1 = none"
    )
    rotate: Annotated[float, Field(ge=0, le=45)] = Field(0.0, description="largest rotation in degrees")
    brightness: Fraction = Field(0.0, description="largest relative change of brightness")
    contrast: Fraction = Field(0.0, description="largest relative change of contrast")
    saturation: Fraction = Field(0.0, description="largest relative change of saturation")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="largest shift of hue, as a share of the circle"
    )
    blur: Fraction = Field(0.0, description="probability of a Gaussian blur")
    noise: Fraction = Field(0.0, description="probability of sensor noise")


class Model(BaseModel):
    """The architecture. Keys besides `name` are options of its build function in depthray/models/<name>.py."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field("unet", description="a module of depthray/models")

    @property
    def options(self) -> dict[str, Any]:
        """The options of the architecture, by name."""
        return dict(self.model_extra or {})


class Loss(Section):
    """Weights of the loss terms, each a function of that name in depthray/losses.py; 0 leaves a term out."""

    l1: Amount = Field(0.0, description="mean |error| in metres")
    l2: Amount = Field(0.0, description="mean squared error in square metres")
    berhu: Amount = Field(0.0, description="reverse Huber, threshold 0.2 of the largest error")
    silog: Amount = Field(0.0, description="scale-invariant log error (Eigen et al. 2014)")
    log_l1: Amount = Field(0.0, description="mean |error of ln depth|")
    gradient: Amount = Field(0.0, description="mean |error of forward differences|, x plus y")
    silog_lambda: Fraction = Field(0.85, description="how much of the common scale error silog forgives")

    @property
    def terms(self) -> dict[str, float]:
        """Weight by term, of the terms that count."""
        return {key: value for key, value in self if key != "silog_lambda" and value > 0}

    @model_validator(mode="after")
    def _something(self) -> Loss:
        if not self.terms:
            raise ValueError("every loss weight is 0; give at least one, e.g. loss.l1=1")
        return self


class Optim(Section):
    """Optimiser, learning-rate schedule and weight averaging."""

    name: Literal["adam", "adamw", "sgd"] = Field("adam", description="optimiser")
    lr: PositiveFloat = Field(1e-4, description="peak learning rate")
    encoder_lr: PositiveFloat = Field(1.0, description="learning rate of the encoder, as a multiple of lr")
    weight_decay: Amount = Field(0.0, description="weight decay; not on biases and norms")
    momentum: Fraction = Field(0.9, description="momentum of sgd")
    clip_norm: Amount = Field(0.0, description="largest gradient norm; 0 = no clipping")
    schedule: Schedule = Field("constant", description="shape of the learning rate over the phase")
    warmup_steps: NotNegative = Field(0, description="steps of linear warm-up from 0")
    min_lr: Amount = Field(0.0, description="learning rate at the end of cosine and onecycle, floor of plateau")
    step_epochs: Positive = Field(10, description="step: epochs between drops")
    step_factor: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="step and plateau: factor of a drop")
    plateau_patience: NotNegative = Field(
        2, description="plateau: epochs without a better validation score before a drop"
    )
    average: Literal["none", "ema", "swa"] = Field(
        "none", description="weights used for validation and saved: raw or averaged"
    )
    ema_decay: Fraction = Field(0.999, description="decay of the exponential moving average per step")
    swa_start: Fraction = Field(0.75, description="share of all epochs after which weights are averaged equally")


class Train(Section):
    """How long and how training runs."""

    epochs: Positive = Field(20, description="passes over the training frames in the first phase")
    batch_size: Positive = Field(16, description="global batch: frames per optimiser step over all workers")
    accumulate: Positive = Field(1, description="parts a worker's share of the batch is run in, to save memory")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the device gains from it"
    )
    channels_last: bool = Field(
        True, description="memory layout of images and weights; the faster one for convolutions"
    )
    compile: bool = Field(False, description="torch.compile the network")
    sync_batchnorm: bool = Field(False, description="batch-norm statistics over all workers (GPU only)")
    max_bad_steps: Positive = Field(10, description="non-finite losses in a row after which training stops")
    patience: NotNegative = Field(0, description="epochs without a better score after which training stops; 0 = never")
    max_minutes: Amount = Field(0.0, description="wall-clock limit; 0 = none")
    save_every_steps: NotNegative = Field(250, description="steps between save points inside an epoch; 0 = none")
    keep_best: Positive = Field(2, description="best checkpoints kept, besides the last")
    log_seconds: PositiveFloat = Field(10.0, description="seconds between progress lines")


class Finetune(Section):
    """A second phase after the first: a fresh optimiser with its own rate and schedule."""

    epochs: NotNegative = Field(0, description="passes in the second phase; 0 = no second phase")
    lr: Amount = Field(1e-5, description="peak learning rate of the second phase")
    schedule: Schedule = Field("cosine", description="schedule of the second phase")


class Curriculum(Section):
    """Training on one chunk of the frames after the other; each epoch passes over one chunk."""

    chunks: Positive = Field(1, description="parts the training frames are cut into; 1 = no curriculum")
    epochs_per_chunk: Positive = Field(
        5, description="epochs on a chunk before the next; after the last, the first again"
    )
    order: Literal["random", "difficulty"] = Field(
        "random", description="random: seeded chunks; difficulty: easy frames first"
    )


class Eval(Section):
    """How checkpoints are scored and ranked."""

    protocol: str = Field("plain", description="named protocol: see depthray/protocols.py")
    batch_size: Positive = Field(16, description="frames per forward pass")
    monitor: Literal["abs_rel", "rmse", "rmse_log", "mae", "silog", "log10", "sq_rel"] = Field(
        "abs_rel", description="validation metric that ranks checkpoints; lower is better"
    )


class Recipe(Section):
    """Everything that decides a run's numbers."""

    about: str = Field("", description="one line: what this recipe is for")
    seed: Seed = Field(0, description="seed of weights, order, augmentation and dropout")
    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    loss: Loss = Loss(l1=1.0)
    optim: Optim = Optim()
    train: Train = Train()
    finetune: Finetune = Finetune()
    curriculum: Curriculum = Curriculum()
    eval: Eval = Eval()


def names() -> list[str]:
    """The recipes that come with depthray."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load(name: str, words: Sequence[str] = ()) -> Recipe:
    """The recipe of a name or YAML path with dotted words (`optim.lr=3e-4`) applied in order."""
    path = _find(name)
    tree = read_yaml(path)
    for word in words:
        apply_word(tree, word)
    return parse(tree, where=name)


def parse(tree: dict[str, Any], *, where: str) -> Recipe:
    """Check a tree of plain values; the first fault is raised as a `UsageError` naming its key."""
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise UsageError(f"{where}: {_first_fault(error)}") from None
    from depthray import models, protocols
    from depthray.data import sources

    models.check(recipe.model, where=where)
    protocols.check(recipe.eval.protocol, where=where)
    sources.check(recipe.data, where=where)
    return recipe


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Dotted key -> value, of every key of the recipe."""
    return dict(_leaves(recipe.model_dump(mode="json"), ""))


def difference(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new), of the keys in which two recipes differ."""
    before, after = flatten(old), flatten(new)
    keys = [*before, *(key for key in after if key not in before)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"recipe file {path} {'is not a file' if path.exists() else 'does not exist'}")
        return path
    if name not in names():
        raise UsageError(f"no recipe '{name}'{did_you_mean(name, names())}; a file is given as path/to/it.yaml")
    return RECIPES / f"{name}.yaml"


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, last = (str(part) for part in fault["loc"])
        fields = type_of(parents).model_fields
        return f"unknown key '{key}'{did_you_mean(last, fields)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message
    return f"{key}={fault['input']!r}: {message[0].lower()}{message[1:]}{_nearest(fault)}"


def _nearest(fault: Any) -> str:
    if fault["type"] != "literal_error":
        return ""
    choices = [choice.strip("' ") for choice in fault["ctx"]["expected"].replace(" or ", ",").split(",")]
    near = did_you_mean(str(fault["input"]), choices)
    return near if "did you mean" in near else ""


def type_of(path: Sequence[str]) -> type[BaseModel]:
    """The class of the section at a path of keys; the root is Recipe itself."""
    section: type[BaseModel] = Recipe
    for part in path:
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel), path
        section = annotation
    return section


def _leaves(tree: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves += _leaves(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves
