"""The key of a recipe that somebody means who writes another section, no section, or another library's name for it."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from depthray.errors import did_you_mean

OTHER_NAMES = {
    **dict.fromkeys(("learning_rate", "lr0", "base_lr", "max_lr"), "optim.lr"),
    **dict.fromkeys(("batch", "bs", "batchsize", "per_device_train_batch_size"), "train.batch_size"),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs", "num_train_epochs"), "train.epochs"),
    **dict.fromkeys(("imgsz", "image_size", "img_size", "input_size", "resolution"), "data.size"),
    **dict.fromkeys(("num_workers", "loader_workers"), "data.workers"),
    **dict.fromkeys(("optimizer", "optimiser"), "optim.name"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "optim.schedule"),
    **dict.fromkeys(("warmup", "num_warmup_steps"), "optim.warmup_steps"),
    **dict.fromkeys(("wd", "decay"), "optim.weight_decay"),
    **dict.fromkeys(("grad_clip", "max_grad_norm", "gradient_clip_val"), "optim.clip_norm"),
    **dict.fromkeys(("gradient_accumulation_steps", "accumulate_grad_batches", "grad_accum"), "train.accumulate"),
    **dict.fromkeys(("amp", "half", "fp16", "bf16"), "train.precision"),
    **dict.fromkeys(("early_stopping",), "train.patience"),
    **dict.fromkeys(("backbone", "encoder", "encoder_name"), "model.encoder"),
    **dict.fromkeys(("architecture", "arch"), "model.name"),
    **dict.fromkeys(("pretrained", "checkpoint", "encoder_weights"), "model.weights"),
    **dict.fromkeys(("dataset", "data_root", "data_dir", "path"), "data.root"),
    **dict.fromkeys(("val_split", "validation_split", "val_ratio"), "data.val_fraction"),
    **dict.fromkeys(("metric", "best_metric"), "eval.monitor"),
}
NEAR = 0.75  # similarity of a name that is worth a guess across all sections
SLIP = 0.85  # similarity from which a name of the same section is meant, whatever other sections have


def nearest_key(name: str, root: type[BaseModel], *, exact: bool = False) -> str:
    """The dotted key, of any section of `root`, that a bare name means: `epochs` -> `train.epochs`; "" for none.

    With `exact`, a misspelt name means none.
    """
    name = name.lower().replace("-", "_")
    keys: dict[str, str] = {}
    for dotted, _ in leaf_keys(root):
        # Of several sections the first: train before finetune, and before eval.
        keys.setdefault(dotted.rpartition(".")[2], dotted)
    if name in keys:
        return keys[name]
    if (other := OTHER_NAMES.get(name, "")).partition(".")[0] in root.model_fields:
        return other
    near = [] if exact else get_close_matches(name, keys, n=1, cutoff=NEAR)
    return keys[near[0]] if near else ""


def suggest_key(name: str, section: type[BaseModel], root: type[BaseModel]) -> str:
    """A hint for an unknown key of a section: the key of another section, the nearest of this one, or all of them."""
    if slip := get_close_matches(name, section.model_fields, n=1, cutoff=SLIP):
        return f" (did you mean '{slip[0]}'?)"
    if elsewhere := nearest_key(name, root, exact=True):
        return f" (did you mean '{elsewhere}'?)"
    own = did_you_mean(name, section.model_fields)
    if "did you mean" not in own and (near := nearest_key(name, root)):
        return f" (did you mean '{near}'?)"
    return own


def section_in(kind: Any) -> type[BaseModel] | None:
    """The section that a type is, may be, or has several of: of Sparse, Loss | None, tuple[DataSet, ...]."""
    kinds = (kind, *get_args(kind))
    return next((each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)), None)


def leaf_keys(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each key that is no section: its dotted name, and its type."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaf_keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind
