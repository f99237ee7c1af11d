"""Keys of recipes that have a new name: old recipes and checkpoints are read as before."""

from __future__ import annotations

from typing import Any

from depthray.errors import UsageError


def weights_of(pretrained: Any) -> str:
    """The `model.weights` of the old key `model.pretrained`: true, false, or the path of a file."""
    if not isinstance(pretrained, bool | str):
        raise ValueError(f"model.pretrained={pretrained!r}: input should be a valid boolean or text; see model.weights")
    if isinstance(pretrained, str):
        return pretrained
    return "imagenet" if pretrained else ""


def rename_model_keys(section: dict[str, Any]) -> dict[str, Any]:
    """The keys of a `model` section with the new name of `pretrained`."""
    if "pretrained" not in section:
        return section
    renamed = {key: value for key, value in section.items() if key != "pretrained"}
    weights = weights_of(section["pretrained"])
    if renamed.get("weights", "") not in ("", weights):
        raise ValueError("model.pretrained is the old name of model.weights; give model.weights alone")
    return {**renamed, "weights": weights}


def rename_keys(tree: dict[str, Any]) -> None:
    """Give the keys of a recipe's tree their new names, in place. Raises UsageError for a value that is none."""
    if isinstance(tree.get("model"), dict):
        try:
            tree["model"] = rename_model_keys(tree["model"])
        except ValueError as error:
            raise UsageError(str(error)) from None
