"""Keys with a new name: what their old names mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthray.config import recipe
from depthray.errors import UsageError


@pytest.mark.parametrize(
    ("given", "meant"), [("true", "imagenet"), ("false", ""), ("w.pth", "w.pth"), ("/runs/a.pth", "/runs/a.pth")]
)
def test_pretrained_is_the_old_name_of_weights(tmp_path: Path, given: str, meant: str) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(f"model: {{name: unet, pretrained: {given}}}\n")
    model = recipe.read(str(file)).model
    assert (model.weights, model.options) == (meant, {})
    assert recipe.read("unet-resnet34", [f"model.pretrained={given}"]).model.weights == meant


def test_the_last_override_counts_under_either_name() -> None:
    words = ["model.weights=imagenet", "model.pretrained=false"]
    assert [recipe.read("unet-resnet34", order).model.weights for order in (words, words[::-1])] == ["", "imagenet"]


def test_a_value_that_is_no_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model.pretrained=3: input should be a valid boolean"):
        recipe.read("demo", ["model.pretrained=3"])
    file = tmp_path / "old.yaml"
    file.write_text("model: {name: unet, pretrained: 3}\n")
    with pytest.raises(UsageError, match=r"model.pretrained=3: input should be a valid boolean"):
        recipe.read(str(file))


def test_one_recipe_has_one_of_the_names(tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    file.write_text("model: {weights: imagenet, pretrained: false}\n")
    with pytest.raises(UsageError, match=r"model.pretrained is the old name of model.weights"):
        recipe.read(str(file))


@pytest.mark.parametrize(
    ("weights", "is_path"),
    [
        ("imagenet", False),
        ("imagenet?", False),
        ("dinov2_vits14", False),
        ("hf:timm/resnet18@main/model.safetensors", False),
        ("https://example.org/w.pth#sha256=00", False),
        ("s3://bucket/runs/a", False),
        ("runs/a", True),
        ("w.safetensors", True),
        ("./run", True),
    ],
)
def test_which_references_are_paths(weights: str, is_path: bool) -> None:
    model = recipe.read("demo", [f"model.weights={weights}"]).model
    assert model.weights_path == (weights if is_path else "")
