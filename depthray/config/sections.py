"""The sections of a recipe: every key with its type, limits and meaning, from which its JSON schema is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from depthray.config.deprecated import rename_model_keys

Positive = Annotated[int, Field(gt=0, strict=True)]  # strict: `true` is not a number of epochs
NotNegative = Annotated[int, Field(ge=0, strict=True)]
Side = Annotated[int, Field(gt=0, le=8192, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]  # torch takes seeds as int64
Fraction = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LOSS_OPTIONS = (
    *("silog_lambda", "silog_unbiased", "depth_range"),
    *("multiscale_weights", "multiscale_norm", "multiscale_relative"),
    *("target", "ssi_space", "ssi_form"),
    *("over_spread", "terms"),
)
Uncertainty = Literal["none", "laplace", "gaussian"]  # the distribution of ln depth around what is predicted
LIKELIHOODS: dict[Uncertainty, str] = {"laplace": "laplace_nll", "gaussian": "gaussian_nll"}  # term of each
_DEPTHS = ("min_depth", "max_depth")
ALIGNED_TERMS = ("ssi", "ssi_gradient")  # blind to scale and shift
RANGE_TERMS = ("ssim", "ms_ssim", "depth_bce", "depth_dice")  # relative to depth_range
# What the numbers of a predicted depth map mean: metres; a share of the image's largest depth; or depth whose values,
# or whose inverses, are right up to an unknown scale and shift of each image.
DepthKind = Literal["metric", "relative", "affine-depth", "affine-disparity"]
NumberFormat = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
Schedule = Literal["constant", "cosine", "onecycle", "step", "plateau"]


MASK_MONITORS = ("iou", "dice", "boundary_f1")
Monitor = Literal[
    "abs_rel",
    "rmse",
    "rmse_log",
    "mae",
    "silog",
    "log10",
    "sq_rel",
    "irmse",
    "imae",
    "delta1",
    "delta2",
    "delta3",
    "ssim",
    "mse",
    "soft_iou",
    "iou",
    "dice",
    "boundary_f1",
    "nll",
]


def _join_keys(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        joined |= _join_keys(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return joined


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Of sections in which a key of today decides what versions before it did in one way only: the keys of those
    # versions, and what they did. Saved recipes list all keys, which is how one of theirs is recognised.
    keys_before: ClassVar[frozenset[str]] = frozenset()
    values_before: ClassVar[Mapping[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _read_as_saved(cls, tree: Any) -> Any:
        """A recipe saved by an older version keeps its meaning: resumed runs train as before."""
        is_older = isinstance(tree, dict) and cls.keys_before and cls.keys_before <= tree.keys()
        return {**cls.values_before, **tree} if is_older else tree


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
    undistort: bool = Field(True, description="remove the lens distortion that is recorded")


class DataSet(Section):
    """One of several data sets of a run. What it leaves out is as the sections `data`, `loss` and `eval` have it."""

    name: str = Field(
        "", description="its name in scores and messages, of letters, digits, . _ and -; empty = the end of root"
    )
    source: str = Field("", description="kind of data set, as data.source; empty = as root looks")
    root: str = Field("", description="path or address of the data, as data.root")
    weight: Amount = Field(
        1.0, description="share of an epoch's frames, relative to the sum of all weights; 0 = the set is left out"
    )
    encoding: str = Field("", description="unit of the stored depth; empty = data.encoding")
    min_depth: Amount | None = Field(None, description="metres; null = data.min_depth")
    max_depth: PositiveFloat | None = Field(None, description="metres; null = data.max_depth")
    loss: Loss | None = Field(
        None, description="its loss in place of the section loss, such as {ssi: 1} of truth without a known scale"
    )
    protocol: str = Field("", description="named protocol that scores it; empty = eval.protocol")
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
    def _check_sets(self) -> Data:
        if not self.sets:
            return self
        if self.root:
            raise ValueError("data.root is one data set and data.sets are several: give one of the two")
        if not any(each.weight for each in self.sets):
            raise ValueError("data.sets: every weight is 0; give at least one above it, e.g. data.sets.0.weight=1")
        if not any(each.weight and each.overall for each in self.sets):
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
    def roots(self) -> list[str]:
        """The roots of all data sets, of those with weight 0 too."""
        return [root for root in (self.root, *(each.root for each in self.sets)) if root]

    @property
    def forms(self) -> list[str]:
        """The forms of all data sets, as far as they are named."""
        return [each.source for each in self.sets if each.source] if self.sets else [self.source]

    @property
    def place(self) -> str:
        """Where the frames are, for people: the root, the form of frames without one, or the names of several sets."""
        return ", ".join(each.name for each in self.sets if each.weight) or self.root or self.source


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
    device: Literal["auto", "cpu", "device"] = Field(
        "auto",
        description="where changes are made, which are drawn on the CPU: device = where the network is; auto = there "
        "on a GPU",
    )


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
        description="what is predicted beside depth: nothing, or the standard deviation of ln depth, trained by "
        "loss.laplace_nll or loss.gaussian_nll",
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
    def weights_path(self) -> str:
        """`weights`, where that is a path on this machine; "" for all other forms. A path has a slash or a suffix."""
        text = self.weights
        is_path = "://" not in text and not text.startswith("hf:") and ("/" in text or Path(text).suffix)
        return text if is_path else ""


class Loss(Section):
    """Weights of the loss terms of depthray/losses, and their options; a weight of 0 leaves a term out."""

    l1: Amount = Field(0.0, description="mean |error| in metres")
    l2: Amount = Field(0.0, description="mean squared error in square metres")
    rmse: Amount = Field(0.0, description="root of the mean squared error, in metres")
    abs_rel: Amount = Field(0.0, description="mean |error| / depth, as the metric of that name")
    log_l1: Amount = Field(0.0, description="mean |error of ln depth|")
    log_rmse: Amount = Field(0.0, description="root of the mean squared error of ln depth")
    berhu: Amount = Field(0.0, description="reverse Huber, threshold 0.2 of the largest error")
    silog: Amount = Field(0.0, description="scale-invariant log error (Eigen et al. 2014)")
    gradient: Amount = Field(0.0, description="mean |error of forward differences|, x plus y")
    sobel: Amount = Field(0.0, description="mean |error of Sobel derivatives|, x plus y")
    gradient_matching: Amount = Field(0.0, description="|differences of the error| at 4 scales (MiDaS)")
    normals: Amount = Field(0.0, description="1 - cosine between normals of the two surfaces")
    smoothness: Amount = Field(0.0, description="edge-aware smoothness of inverse depth (Godard et al. 2017)")
    ssi: Amount = Field(0.0, description="error after scale and shift of each image are aligned (MiDaS)")
    ssi_gradient: Amount = Field(0.0, description="gradient matching of the aligned image (MiDaS: 0.5 of ssi)")
    ssim: Amount = Field(0.0, description="1 - SSIM of depth")
    ms_ssim: Amount = Field(0.0, description="1 - multi-scale SSIM of depth")
    multiscale: Amount = Field(0.0, description="error at every scale of a model with a depth pyramid")
    depth_bce: Amount = Field(0.0, description="binary cross-entropy of depth as a share of depth_range")
    depth_dice: Amount = Field(0.0, description="Dice loss of depth as a share of depth_range")
    laplace_nll: Amount = Field(
        0.0, description="negative log likelihood of ln depth, Laplace, of model.uncertainty=laplace"
    )
    gaussian_nll: Amount = Field(
        0.0, description="negative log likelihood of ln depth, Gaussian, of model.uncertainty=gaussian"
    )
    mask_bce: Amount = Field(0.0, description="binary cross-entropy of the mask's logits")
    mask_dice: Amount = Field(0.0, description="Dice loss of the mask's probability")
    mask_rmse: Amount = Field(0.0, description="root of the mean squared error of the mask's probability")
    mask_ssim: Amount = Field(0.0, description="1 - SSIM of the mask's probability")
    terms: dict[str, Amount] = Field(
        {}, description="weights of one's own terms by name: {mypkg.losses.mine: 0.1, ./losses.py:edges: 0.2}"
    )
    target: Literal["metric", "relative"] = Field(
        "metric",
        description="what depth terms compare with: metres, or shares of the image's largest valid depth (then "
        "model.max_depth=1); see docs/models.md",
    )
    over_spread: bool = Field(
        False,
        description="with sparse depth: the loss of an image is divided by that of its spread samples, so that images "
        "of few samples do not outweigh the others",
    )
    ssi_space: Literal["disparity", "depth"] = Field(
        "disparity", description="ssi, ssi_gradient: what is aligned, 1 / depth (MiDaS) or depth"
    )
    ssi_form: Literal["mse", "mae", "trim"] = Field(
        "trim", description="mse: least squares; mae: median and mean deviation; trim: that, less the largest 20 %"
    )
    silog_lambda: Fraction = Field(0.85, description="share of the common scale error that silog ignores")
    silog_unbiased: bool = Field(False, description="silog: variance over n - 1 pixels, as in AdaBins")
    depth_range: PositiveFloat = Field(
        10.0, description="metres that count as 1 for ssim, ms_ssim, depth_bce, depth_dice"
    )
    multiscale_weights: tuple[Amount, ...] = Field((1.0, 0.7, 0.5, 0.3, 0.2), description="weights, finest first")
    multiscale_norm: Literal["l1", "l2"] = Field("l1", description="error of a scale")
    multiscale_relative: bool = Field(False, description="error of a scale as a share of the true depth")

    @model_validator(mode="before")
    @classmethod
    def _join_names(cls, section: Any) -> Any:
        """Names of own terms as one text: an override `loss.terms.mypkg.losses.mine=0.1` is read as nested sections."""
        if not isinstance(section, dict) or not isinstance(section.get("terms"), dict):
            return section
        return {**section, "terms": _join_keys(section["terms"])}

    def __hash__(self) -> int:
        return hash(tuple((key, tuple(value.items()) if isinstance(value, dict) else value) for key, value in self))

    @property
    def weights(self) -> dict[str, float]:
        """Weight by term, of the terms whose weight is above 0; depthray's first, then one's own."""
        ours = {key: value for key, value in self if key not in LOSS_OPTIONS}
        return {key: value for key, value in (ours | self.terms).items() if value > 0}

    @property
    def depth_kind(self) -> DepthKind:
        """What the numbers of a depth map are that these terms train."""
        # Of one's own terms the function's name decides: mypkg.losses.mask_edges is not of depth.
        of_depth = {name for name in self.weights if not re.split(r"[.:]", name)[-1].startswith("mask_")}
        if not of_depth:
            return "metric"
        aligned = of_depth.intersection(ALIGNED_TERMS)
        if aligned and of_depth <= {*ALIGNED_TERMS, "normals", "smoothness"}:  # the last two fix no scale either
            return "affine-depth" if self.ssi_space == "depth" else "affine-disparity"
        return self.target

    @model_validator(mode="after")
    def _check_names(self) -> Loss:
        if ours := [name for name in self.terms if name in Loss.model_fields]:
            raise ValueError(f"loss.terms is for terms of one's own; write loss.{ours[0]}={self.terms[ours[0]]:g}")
        return self

    @model_validator(mode="after")
    def _check_some_weight(self) -> Loss:
        if not self.weights:
            raise ValueError("every loss weight is 0; give at least one, e.g. loss.l1=1")
        return self

    @model_validator(mode="after")
    def _check_range_of_shares(self) -> Loss:
        used = [name for name in RANGE_TERMS if name in self.weights]
        if self.target == "relative" and used and self.depth_range != 1:
            raise ValueError(f"loss.target=relative: shares end at 1, so loss.{used[0]} needs loss.depth_range=1")
        return self


DataSet.model_rebuild()  # it refers to Loss, which is defined after it
Data.model_rebuild()


class Optim(Section):
    """Optimiser, learning-rate schedule and weight averaging."""

    keys_before = frozenset(
        {
            *("name", "lr", "encoder_lr", "weight_decay", "momentum", "clip_norm", "schedule", "warmup_steps"),
            *("min_lr", "step_epochs", "step_factor", "plateau_patience", "average", "ema_decay", "swa_start"),
        }
    )
    values_before = MappingProxyType({"onecycle": "legacy", "cycle_momentum": False, "swa_batchnorm": "averaged"})

    name: Literal["adam", "adamw", "adan", "sgd"] = Field("adam", description="optimiser")
    lr: PositiveFloat = Field(1e-4, description="peak learning rate")
    encoder_lr: Amount = Field(1.0, description="learning rate of the encoder, as a multiple of lr; 0 = frozen")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="factor of the learning rate from each layer of the encoder to the one before"
    )
    freeze: tuple[str, ...] = Field(
        (), description="names of parameters that do not change, with wildcards, such as encoder.*"
    )
    freeze_epochs: NotNegative = Field(0, description="epochs that freeze holds for, from the first on; 0 = all")
    weight_decay: Amount = Field(0.0, description="weight decay; not on biases and norms")
    momentum: Fraction = Field(0.9, description="momentum of sgd")
    clip_norm: Amount = Field(0.0, description="largest gradient norm; 0 = no clipping")
    schedule: Schedule = Field("constant", description="shape of the learning rate over the phase")
    warmup_steps: NotNegative = Field(0, description="steps of linear warm-up from 0")
    min_lr: Amount = Field(
        0.0, description="learning rate at the end of cosine and onecycle (there 0 = lr / 250,000), floor of plateau"
    )
    onecycle: Literal["torch", "legacy"] = Field(
        "torch", description="onecycle: torch's OneCycleLR, or the shape that depthray 0.2 had"
    )
    cycle_momentum: bool = Field(
        True, description="onecycle: momentum of sgd, first beta of adam and adamw: 0.95, 0.85 at the peak, 0.95"
    )
    step_epochs: Positive = Field(10, description="step: epochs between drops")
    step_delay: NotNegative = Field(0, description="step: epochs before those between drops are counted")
    step_factor: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="step and plateau: factor of a drop")
    plateau_patience: NotNegative = Field(
        2, description="plateau: epochs without a better validation score before a drop"
    )
    average: Literal["none", "ema", "swa"] = Field(
        "none", description="weights used for validation and saved: raw or averaged, batch-norm statistics with them"
    )
    ema_decay: Fraction = Field(0.999, description="decay of the exponential moving average per step")
    swa_start: Fraction = Field(0.75, description="share of all epochs after which weights are averaged equally")
    swa_batchnorm: Literal["recomputed", "averaged"] = Field(
        "recomputed", description="swa: batch-norm statistics made from training frames again, or averaged as well"
    )


class Train(Section):
    """How long and how training runs."""

    keys_before = frozenset(
        {
            *("epochs", "batch_size", "accumulate", "precision", "channels_last", "compile", "sync_batchnorm"),
            *("max_bad_steps", "patience", "max_minutes", "save_every_steps", "keep_best", "log_seconds"),
        }
    )
    values_before = MappingProxyType({"patience_ends": "run"})

    epochs: NotNegative = Field(20, description="passes over the training frames in the first phase; 0 = none")
    batch_size: Positive = Field(16, description="global batch: frames per optimiser step over all workers")
    accumulate: Positive = Field(1, description="parts in which a worker's share of the batch is run, to save memory")
    precision: NumberFormat = Field(
        "auto", description="auto: bf16, or fp16, where it is faster on the device; tf32: float32 multiplied as such"
    )
    deterministic: bool = Field(
        False, description="the same bits from the same start on a GPU too, which is slower; CPUs always are"
    )
    channels_last: bool = Field(
        True, description="memory layout of images and weights; the faster one for convolutions"
    )
    compile: bool = Field(False, description="torch.compile the network and its loss")
    cuda_graph: bool = Field(
        False, description="forward and backward as one CUDA graph (one GPU; a size that is the same within an epoch)"
    )
    sync_batchnorm: bool = Field(False, description="batch-norm statistics over all workers (GPU only)")
    freeze_batchnorm: bool = Field(False, description="batch-norm statistics stay as they start")
    max_bad_steps: Positive = Field(10, description="non-finite losses in a row after which training stops")
    patience: NotNegative = Field(0, description="epochs without a better score after which a phase ends; 0 = never")
    min_delta: Amount = Field(0.0, description="how much better a score must be for patience to count anew")
    patience_ends: Literal["phase", "run"] = Field(
        "phase", description="what patience ends in the first of two phases: it alone, or the run"
    )
    max_minutes: Amount = Field(0.0, description="wall-clock limit; 0 = none")
    save_every_steps: NotNegative = Field(250, description="steps between save points inside an epoch; 0 = none")
    keep_best: Positive = Field(2, description="best checkpoints kept, besides the last")
    log_seconds: PositiveFloat = Field(8.0, description="seconds between progress lines")


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
    sizes: tuple[tuple[Side, Side], ...] = Field(
        (), description="height, width of the first epochs, one after the other; then data.size"
    )
    epochs_per_size: Positive = Field(3, description="epochs at each of the sizes")
    scale_depth: bool = Field(
        False, description="depth follows the focal length in pixels, which a smaller one of the sizes shortens"
    )
    scale_weights: tuple[tuple[Amount, ...], ...] = Field(
        (), description="loss.multiscale_weights of the first epochs, one after the other; then loss.multiscale_weights"
    )
    epochs_per_scale_weights: Positive = Field(3, description="epochs with each of the scale_weights")


class Eval(Section):
    """How checkpoints are scored and ranked."""

    protocol: str = Field(
        "plain", description="named protocol of depthray/evaluation/protocols.py, or one's own (mypkg.protocols.MINE)"
    )
    batch_size: Positive = Field(16, description="frames per forward pass")
    precision: NumberFormat = Field(
        "auto", description="of validation and evaluation; auto: that of training on a GPU, fp32 on a CPU"
    )
    flip: bool = Field(False, description="score the mean with the prediction of the mirrored picture: twice the time")
    scales: tuple[PositiveFloat, ...] = Field(
        (), description="score the mean with predictions at these multiples of data.size, such as [0.75, 1.25]"
    )
    tiles: Positive = Field(
        1, description="predict frames of so many times data.size in 2n - 1 overlapping tiles across and down"
    )
    monitor: Monitor = Field("abs_rel", description="validation metric that ranks checkpoints")
    zero_shot: bool = Field(
        True, description="weights that can predict are scored as they are, before a new run trains them"
    )
    also: tuple[str, ...] = Field(
        (), description="paths of further data sets, scored at the end of the run and, with zero_shot, before it"
    )


class Recipe(Section):
    """Everything that decides a run's numbers."""

    about: str = Field("", description="one line: what this recipe is for")
    seed: Seed = Field(0, description="seed of weights, order, augmentation and dropout")
    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    loss: Loss = Loss(l1=1.0)  # Loss() has no weight, which is an error
    optim: Optim = Optim()
    train: Train = Train()
    finetune: Finetune = Finetune()
    curriculum: Curriculum = Curriculum()
    eval: Eval = Eval()

    @property
    def depth_kind(self) -> DepthKind:
        """What the numbers of a predicted depth map are: of several data sets as that makes them which fixes most."""
        losses = [each.loss or self.loss for each in self.data.sets if each.weight] or [self.loss]
        return min((loss.depth_kind for loss in losses), key=get_args(DepthKind).index)

    @model_validator(mode="after")
    def _check_spread(self) -> Recipe:
        data = self.data
        for loss in (self.loss, *(each.loss for each in data.sets if each.loss)):
            is_of_metres = "sparse" in data.inputs and "depth" in data.targets and loss.target == "metric"
            if loss.over_spread and not is_of_metres:
                raise ValueError(
                    "loss.over_spread=true divides by the loss of the spread samples in metres: it needs 'sparse' "
                    "among data.inputs, 'depth' among data.targets and loss.target=metric"
                )
        return self

    @model_validator(mode="after")
    def _check_uncertainty(self) -> Recipe:
        kind, weights = self.model.uncertainty, self.loss.weights
        wrong = [name for each, name in LIKELIHOODS.items() if name in weights and each != kind]
        if wrong:
            family = wrong[0].removesuffix("_nll")
            raise ValueError(f"loss.{wrong[0]} needs model.uncertainty={family}, and it is {kind}")
        if kind != "none" and LIKELIHOODS[kind] not in weights and not self.loss.terms:
            raise ValueError(f"model.uncertainty={kind}: no term trains it; give loss.{LIKELIHOODS[kind]} a weight")
        if kind == "none" and self.eval.monitor == "nll":
            raise ValueError("eval.monitor=nll is the likelihood of what model.uncertainty predicts, and that is none")
        return self

    @model_validator(mode="before")
    @classmethod
    def _read_model_as_saved(cls, tree: Any) -> Any:
        """The model section of a saved recipe, as the other sections read theirs.

        Earlier versions wrote no more into it than an architecture's name and options, as anybody would. That all keys
        of training are listed shows that the recipe was saved.
        """
        train, model = (tree.get(key) if isinstance(tree, dict) else None for key in ("train", "model"))
        is_saved = isinstance(train, dict) and train.keys() >= Train.keys_before
        if not (is_saved and isinstance(model, dict)):
            return tree
        return {**tree, "model": {**Model.values_before, **model}}
