"""Networks of timm under timm's names, for encoders of timm; and what timm records of its published weights.

An encoder of features flattens the first level of names, `stages.0.blocks` to `stages_0.blocks`, or puts a transformer
below `model.`; it leaves out what comes after its last map.
"""

from __future__ import annotations

from torch import nn

from depthray.errors import UsageError
from depthray.models.layers.timm_encoder import PREFIX, published_config
from depthray.weights.catalogue import CatalogueEntry
from depthray.weights.translation import ENCODER, Hints, Translation, Weights, encoder_of

NETWORK = f"{ENCODER}network."
MODEL_PAGE = "hf:{repository}@main/{file}"
COMMERCIAL = {"apache-2.0": True, "mit": True, "bsd-3-clause": True, "cc-by-nc-4.0": False}


def is_timm(network: nn.Module) -> bool:
    """Whether the encoder of a network is timm's."""
    return getattr(encoder_of(network), "imagenet", "").startswith(PREFIX)


def translate(weights: Weights, network: nn.Module, hints: Hints) -> Translation:
    """The encoder; parts of the file that features have no use for are idle."""
    keys = {key for key in network.state_dict() if key.startswith(NETWORK)}
    parts = {key.removeprefix(NETWORK).removeprefix("model.").split(".")[0] for key in keys}
    renamed, idle = {}, []
    for key, value in weights.items():
        ours = next((each for each in _candidates(key) if each in keys), "")
        if ours:
            renamed[ours] = value
        elif parts.isdisjoint((key.split(".")[0], "_".join(key.split(".")[:2]))):
            idle.append(key)  # a classifier, a norm before it, a token for masked patches
        else:
            renamed[NETWORK + key] = value
    return Translation(
        what=f"weights of timm, or of a network with its names ({next(iter(weights), 'empty')})",
        fits="",
        weights=renamed,
        prefix=NETWORK,
        idle=tuple(idle),
    )


def published(name: str, *, where: str) -> CatalogueEntry:
    """What timm records of the weights of an encoder. Raises UsageError where it has none on the hub."""
    config = published_config(name)
    repository = config.get("hf_hub_id")
    if not repository:
        raise UsageError(f"{where}: timm has no weights of {name} on the hub; give a file: model.weights=path/to/it")
    licence = config.get("license") or "not stated"
    sides = config.get("input_size") or (3, 224, 224)
    return CatalogueEntry(
        name=name.removeprefix(PREFIX).replace(".", "_").replace("-", "_").lower(),
        source=MODEL_PAGE.format(repository=repository, file=config.get("hf_hub_filename") or "model.safetensors"),
        family="timm",
        licence=licence,
        commercial=COMMERCIAL.get(licence.lower()),
        trained_on=str(config.get("tag") or "not stated"),
        input=f"{sides[1]}x{sides[2]}",
        megabytes=0,
        fits=f"model.encoder={name}",
    )


def _candidates(key: str) -> tuple[str, ...]:
    first, _, rest = key.partition(".")
    return (NETWORK + key, f"{NETWORK}{first}_{rest}", f"{NETWORK}model.{key}")
