"""The sections `optim`, `train`, `finetune`, `curriculum` and `eval`: how a network is trained and scored."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from depthray.config.sections.section import Amount, Fraction, NotNegative, Positive, PositiveFloat, Section, Side

NumberFormat = Literal["auto", "fp32", "tf32", "bf16", "fp16"]
Schedule = Literal["constant", "cosine", "onecycle", "step", "plateau"]


MASK_MONITORS = ("iou", "dice", "boundary_f1")
TEACHER_MONITORS = ("teacher_abs_rel", "teacher_delta1")  # against the depth of a teacher, where frames have it
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
    "teacher_abs_rel",
    "teacher_delta1",
]


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
    epochs_per_set_weight: Positive = Field(
        1, description="epochs with each weight of a data set that has several, data.sets.0.weight=[1, 0.5, 0]"
    )


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
