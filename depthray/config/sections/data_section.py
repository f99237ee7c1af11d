"""The section `data`: which frames, from one data set or several, and what the network gets of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from depthray.config.sections.loss_section import Loss
from depthray.config.sections.section import Amount, Fraction, NotNegative, Positive, PositiveFloat, Section, Side

_DEPTHS = ("min_depth", "max_depth")


class Sparse(Section):
    """How sparse depth is sampled from measured depth, where `sparse` is an input. See depthray/data/sparse.py."""

    pattern: Literal[
        "exact",
        "bernoulli",
        "grid",
        "features",
        "stored",
        "lidar64",
        "lidar16",
        "lidar8",
        "structured-light",
        "tof",
        "zones",
        "holes",
    ] = Field(
        "exact",
        description="where samples are; stored: the data set has its own; holes: all but holes like its own",
    )
    samples: NotNegative | tuple[NotNegative, NotNegative] = Field(
        500,
        description="samples an image: exact, bernoulli (expected), grid, features; from, to = another number for each "
        "image, by the cube of a uniform one",
    )
    dropout: Fraction = Field(0.0, description="probability that a training image has no samples")
    noise: Amount = Field(0.0, description="standard deviation of a sample's relative error")
    errors: Amount = Field(
        0.0,
        description="factor of the errors of the pattern's sensor (lidar, features, structured-light, tof, zones); 1 = "
        "as published",
    )
    outliers: Fraction = Field(0.0, description="share of samples that have the depth of another sample")
    lost: Fraction = Field(0.0, description="lidar: share of beams, and of shots of the others, without a return")
    tilt: Amount = Field(0.0, description="lidar: standard deviation of the calibration of its rotation, in degrees")
    baseline: Amount = Field(
        0.0,
        description="metres from the camera to the sensor at its right; 0 = none for a lidar, for others their own",
    )
    range: tuple[Amount, PositiveFloat] | None = Field(
        None, description="structured-light, tof, zones: metres between which there is depth; null = the sensor's"
    )
    margin: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0, description="share of each side at the border without samples; 0.025 = the pixels that nyu-s2d scores"
    )

    @property
    def may_be_none(self) -> bool:
        """Whether training has images without samples, so that a network can do without."""
        least = self.samples if isinstance(self.samples, int) else self.samples[0]
        return self.dropout > 0 or (least == 0 and self.pattern != "stored")

    @model_validator(mode="after")
    def _check_order(self) -> Sparse:
        for key in ("samples", "range"):
            value = getattr(self, key)
            if isinstance(value, tuple) and value[0] >= value[1]:
                raise ValueError(f"data.sparse.{key}: the first number must be below the second")
        return self


class RecordingOptions(Section):
    """Which frames of recordings (bags, MCAP, LeRobot sets ...) are read, and how. See depthray/data/recordings."""

    colour: str = Field("", description="topic of colour images; empty = found")
    depth: str = Field("", description="topic of depth images; empty = found")
    clock: Literal["sensor", "recorder"] = Field(
        "sensor", description="times by which colour and depth are paired: of the images, or of when they were recorded"
    )
    sync: PositiveFloat = Field(0.02, description="seconds that colour and depth of a frame may be apart")
    offset: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.0, description="seconds that are added to the times of depth"
    )
    every: Positive = Field(1, description="every n-th frame is kept")
    motion: Fraction = Field(
        0.0, description="least mean shift of the image since the last kept frame, as a share of its width"
    )
    change: Amount = Field(
        2.0,
        description="grey levels of 255 by which the most changed parts of the image must differ from the last kept "
        "frame; 0 = near-duplicates are kept",
    )
    gap: PositiveFloat = Field(10.0, description="seconds without a frame after which another scene begins")
    register_depth: bool | None = Field(
        None,
        description="depth is registered to colour; null = where the recording shows that it is not; false = never",
    )
    extrinsics: Annotated[tuple[float, ...], Field(min_length=7, max_length=7)] | None = Field(
        None,
        description="where the depth camera is in the colour camera's frame: x, y, z in metres, quaternion x, y, z, w",
    )
    intrinsics: Annotated[tuple[float, ...], Field(min_length=4, max_length=4)] | None = Field(
        None, description="fx, fy, cx, cy of colour in pixels, in place of what is recorded"
    )
    depth_intrinsics: Annotated[tuple[float, ...], Field(min_length=4, max_length=4)] | None = Field(
        None, description="those of depth"
    )
    undistort: bool = Field(
        True, description="remove the lens distortion that is recorded; false: it is kept with the frames"
    )


class DataSet(Section):
    """One of several data sets of a run. What it leaves out is as the sections `data`, `loss` and `eval` have it."""

    name: str = Field(
        "", description="its name in scores and messages, of letters, digits, . _ and -; empty = the end of root"
    )
    source: str = Field("", description="kind of data set, as data.source; empty = as root looks")
    root: str = Field("", description="path or address of the data, as data.root")
    weight: Amount | Annotated[tuple[Amount, ...], Field(min_length=1)] = Field(
        1.0,
        description="share of an epoch's frames, relative to the sum of all weights; 0 = the set is left out; several "
        "= one after the other, each for curriculum.epochs_per_set_weight epochs, and then the last",
    )
    encoding: str = Field("", description="unit of the stored depth; empty = data.encoding")
    min_depth: Amount | None = Field(None, description="metres; null = data.min_depth")
    max_depth: PositiveFloat | None = Field(None, description="metres; null = data.max_depth")
    loss: Loss | None = Field(
        None, description="its loss in place of the section loss, such as {ssi: 1} of truth without a known scale"
    )
    protocol: str = Field("", description="named protocol that scores it; empty = eval.protocol")
    intrinsics: Annotated[tuple[float, ...], Field(min_length=4, max_length=4)] | None = Field(
        None, description="fx, fy, cx, cy in pixels of its frames without a camera; null = data.intrinsics"
    )
    overall: bool = Field(
        True, description="whether its validation frames count in the overall scores, which rank checkpoints"
    )

    @model_validator(mode="before")
    @classmethod
    def _name(cls, tree: Any) -> Any:
        """A name for a set without one. Kept in saved recipes: frames are called by it, wherever they are moved."""
        if not isinstance(tree, dict) or tree.get("name"):
            return tree
        end = str(tree.get("root") or "").rstrip("/").rpartition("/")[2].removesuffix(".h5")
        return {**tree, "name": re.sub(r"[^\w.-]+", "-", end).strip(".-") or tree.get("source", "")}

    @property
    def weights(self) -> tuple[float, ...]:
        """Its weights, one after the other; the last is also that of all later epochs."""
        return self.weight if isinstance(self.weight, tuple) else (self.weight,)

    @property
    def is_used(self) -> bool:
        """Whether an epoch has frames of it."""
        return any(self.weights)

    @model_validator(mode="after")
    def _check_name(self) -> DataSet:
        if not re.fullmatch(r"[\w.-]*", self.name):
            raise ValueError(f"data.sets: the name '{self.name}' may have letters, digits, . _ and - only")
        return self


class Data(Section):
    """Which frames, how they are encoded and split, and the size of the network's inputs."""

    keys_before = frozenset(
        [
            *("source", "root", "encoding", "size", "fit", "inputs", "targets", "sparse", "min_depth", "max_depth"),
            *("val_fraction", "split_seed", "frames", "order", "workers"),
        ]
    )
    values_before: ClassVar[Mapping[str, Any]] = MappingProxyType({"shuffle": "table"})  # until 0.2.0

    source: str = Field(
        "shards", description="kind of data set: a module of depthray/data/sources, or one's own (mypkg.frames, ./x.py)"
    )
    root: str = Field("", description="path or address of the data; `--data PATH` sets it")
    sets: tuple[DataSet, ...] = Field((), description="several data sets in one run, in place of data.root")
    epoch_frames: NotNegative = Field(
        0,
        description="training frames of an epoch, of which the next one has others; 0 = all, of several sets until the "
        "first is used up",
    )
    encoding: str = Field("uint16_mm", description="unit of the stored depth, declared: see depthray/data/encodings.py")
    size: tuple[Side, Side] = Field((128, 160), description="height, width in pixels at which the network is trained")
    fit: Literal["exact", "aspect", "native"] = Field(
        "exact",
        description="size outside of training: data.size, or that of its shorter side, the aspect kept, bicubically, "
        "or the frame's own",
    )
    inputs: tuple[str, ...] = Field(("image",), description="batch keys that are inputs of the network", min_length=1)
    targets: tuple[str, ...] = Field(
        ("depth",), description="batch keys that the network learns to predict", min_length=1
    )
    sparse: Sparse = Sparse()
    recording: RecordingOptions = RecordingOptions()
    min_depth: Amount = Field(1e-3, description="metres; nearer truth is not valid")
    max_depth: PositiveFloat = Field(10.0, description="metres; farther truth is not valid")
    intrinsics: Annotated[tuple[float, ...], Field(min_length=4, max_length=4)] | None = Field(
        None, description="fx, fy, cx, cy in pixels of frames that have no camera of their own"
    )
    canonical_focal: Amount = Field(
        0.0,
        description="focal length in pixels of the canonical camera in which the network is trained and predicts, "
        "sqrt(fx fy) of the network's input; 0 = off. Each frame needs a camera then",
    )
    canonical: Literal["label", "image", "none"] = Field(
        "label",
        description="how frames become those of the canonical camera: label = depth times canonical_focal / focal "
        "length of the network's input, and back when predicting; image = the frame is resized to that focal length; "
        "none = not at all: the network learns metres of any camera from model.rays",
    )
    val_fraction: Fraction = Field(
        0.1, description="share of frames held out, whole scenes; a split in the index overrides it"
    )
    split_seed: NotNegative = Field(0, description="which scenes are held out")
    frames: Positive = Field(480, description="synthetic source only: number of frames rendered")
    order: Literal["frames", "shards"] = Field(
        "frames",
        description="frames: a shuffle of all, the same for any number of workers; shards: dealt to workers by shard",
    )
    shuffle: Literal["auto", "table", "cipher"] = Field(
        "auto",
        description="with order=frames: table = a table of all frames is shuffled, 8 bytes each in every process; "
        "cipher = each position's frame is computed; auto = a table of up to 4,194,304 frames",
    )
    workers: Literal["auto"] | NotNegative = Field(
        "auto",
        description="loader processes per training worker; 0 = a background thread; auto = that on a CPU, else as many "
        "as its CPUs allow",
    )

    @model_validator(mode="after")
    def _check_depth_order(self) -> Data:
        if self.min_depth >= self.max_depth:
            raise ValueError("data.min_depth must be below data.max_depth")
        for each in self.sets:
            least, most = (getattr(self, key) if (own := getattr(each, key)) is None else own for key in _DEPTHS)
            if least >= most:
                raise ValueError(f"data.sets: min_depth of '{each.name}' must be below its max_depth")
        return self

    @model_validator(mode="after")
    def _check_cameras(self) -> Data:
        given = {"data": self.intrinsics} | {f"data.sets '{each.name}'": each.intrinsics for each in self.sets}
        for key, numbers in given.items():
            if numbers is not None and not (all(map(math.isfinite, numbers)) and min(numbers[:2]) > 0):
                raise ValueError(f"{key}: intrinsics are fx,fy,cx,cy in pixels: fx and fy above 0, and all four finite")
        if self.resizes_to_focal and self.fit != "native":
            raise ValueError(
                f"data.canonical=image resizes frames by their focal length, and data.fit={self.fit} to another size; "
                "give data.fit=native"
            )
        return self

    @model_validator(mode="after")
    def _check_weights(self) -> Data:
        stages = self.weight_stages
        for number, weights in enumerate(stages, start=1):
            if not any(weights):
                where = f" at place {number} of their lists" if len(stages) > 1 else ""
                raise ValueError(
                    f"data.sets: every weight is 0{where}; give at least one above it, e.g. data.sets.0.weight=1"
                )
        return self

    @model_validator(mode="after")
    def _check_sets(self) -> Data:
        if not self.sets:
            return self
        if self.root:
            raise ValueError("data.root is one data set and data.sets are several: give one of the two")
        if not any(each.is_used and each.overall for each in self.sets):
            raise ValueError("data.sets: give at least one of them overall=true, whose scores rank checkpoints")
        names = [each.name for each in self.sets]
        for number, name in enumerate(names):
            if not name:
                key = f"data.sets.{number}"
                raise ValueError(f"{key} has no name; give {key}.root=PATH, or {key}.name=NAME")
            if name in names[:number]:
                raise ValueError(
                    f"data.sets.{names.index(name)} and data.sets.{number} are both called '{name}'; give one of "
                    f"them another name: data.sets.{number}.name=NAME"
                )
        return self

    @property
    def scales_labels(self) -> bool:
        """Whether the network's depth is that of a canonical camera, in metres only times focal length over its own."""
        return self.canonical_focal > 0 and self.canonical == "label"

    @property
    def resizes_to_focal(self) -> bool:
        """Whether frames are resized to the focal length of a canonical camera."""
        return self.canonical_focal > 0 and self.canonical == "image"

    @property
    def roots(self) -> list[str]:
        """The roots of all data sets, of those with weight 0 too."""
        return [root for root in (self.root, *(each.root for each in self.sets)) if root]

    @property
    def weight_stages(self) -> list[tuple[float, ...]]:
        """The weights of all sets at each stage: of a shorter list the last one stays."""
        count = max((len(each.weights) for each in self.sets), default=0)
        return [tuple(each.weights[min(stage, len(each.weights) - 1)] for each in self.sets) for stage in range(count)]

    @property
    def forms(self) -> list[str]:
        """The forms of all data sets, as far as they are named."""
        return [each.source for each in self.sets if each.source] if self.sets else [self.source]

    @property
    def place(self) -> str:
        """Where the frames are, for people: the root, the form of frames without one, or the names of several sets."""
        return ", ".join(each.name for each in self.sets if each.is_used) or self.root or self.source
