"""Recipes: what is accepted, what is refused with which words, and that every shipped one is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from depthray import losses, recipe
from depthray.commands.recipe import commented
from depthray.errors import UsageError
from depthray.sections import LOSS_OPTIONS, Loss


@pytest.mark.parametrize("name", recipe.names())
def test_shipped_recipes_load_and_survive_a_round_trip(name: str) -> None:
    loaded = recipe.load(name)
    assert recipe.parse(yaml.safe_load(recipe.dump(loaded)), where=name) == loaded


def test_words_override_the_file_with_typed_values() -> None:
    loaded = recipe.load(
        "unet-resnet34", ["optim.lr=3e-4", "data.size=96,128", "model.encoder=resnet18", "data.inputs=[image]"]
    )
    assert loaded.optim.lr == 3e-4
    assert loaded.data.size == (96, 128)
    assert loaded.model.options["encoder"] == "resnet18"
    assert loaded.data.inputs == ("image",)


def test_words_reach_a_section_inside_a_section_and_lists_of_lists() -> None:
    words = ["data.sparse.samples=5", "curriculum.sizes=[[64,64],[128, 96]]", "curriculum.scale_weights=[[0,1],[1]]"]
    loaded = recipe.load("unet-resnet34", [*words, "data.sparse.pattern=grid"])
    assert (loaded.data.sparse.samples, loaded.data.sparse.pattern) == (5, "grid")
    assert loaded.curriculum.sizes == ((64, 64), (128, 96))
    assert loaded.curriculum.scale_weights == ((0.0, 1.0), (1.0,))
    assert recipe.flatten(loaded)["data.sparse.samples"] == 5


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optim.lrr=1", "unknown key 'optim.lrr' (did you mean 'lr'?)"),
        ("optm.lr=1", "unknown key 'optm' (did you mean 'optim'?)"),
        ("optim.schedule=cosin", "did you mean 'cosine'?"),
        ("model.encodr=resnet18", "unknown key 'model.encodr' (did you mean 'encoder'?)"),
        ("model.encoder=resnet35", "model.encoder='resnet35'"),
        ("model.name=unets", "no architecture 'unets' (did you mean 'unet'?)"),
        ("train.batch_size=0", "train.batch_size=0"),
        ("train.epochs=three", "train.epochs='three'"),
        ("optim.lr=-1", "optim.lr=-1"),
        ("optim.lr=nan", "optim.lr"),
        ("data.encoding=uint16_m", "uint16_mm"),
        ("data.source=shard", "did you mean 'shards'?"),
        ("eval.protocol=nyu-bt", "nyu-bts"),
        ("loss.l1=0 loss.gradient=0", "every loss weight is 0"),
        ("data.min_depth=11", "data.min_depth must be below data.max_depth"),
        ("nonsense", "'nonsense' is neither a flag nor a word"),
        ("seed.x=1", "'seed' is a value, not a section"),
        ("data.sparse.sample=5", "unknown key 'data.sparse.sample' (did you mean 'samples'?)"),
        ("data.sparse.pattern=lidar", "did you mean 'lidar"),
        ("data.sparse=5", "data.sparse=5"),
        ("curriculum.sizes=[[64,0]]", "curriculum.sizes.0.1=0"),
        ("curriculum.sizes=64,64", "curriculum.sizes.0=64"),
    ],
)
def test_a_wrong_word_is_one_line_naming_the_key(word: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.load("unet-resnet34", ["seed=1", *word.split()])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nseed: 2\n", "given twice"),
        ("optim: {lr: 1, lr: 2}\n", "given twice"),
        ("seed: !!python/object/apply:os.getcwd []\n", "not a readable YAML file"),
        ("- 1\n- 2\n", "a recipe is a mapping"),
        ("seed: [\n", "not a readable YAML file"),
        ("optim: 3\n", "optim=3"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"mine\.yaml") as caught:
        recipe.load(str(path))
    assert said in str(caught.value)


def test_a_missing_recipe_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'demo'"):
        recipe.load("deno")


def test_shown_recipe_has_a_comment_on_each_key_and_reads_back(tmp_path: Path) -> None:
    loaded = recipe.load(
        "unet-resnet34", ["optim.lr=3e-4", "data.sparse.samples=7", "curriculum.sizes=[[64,64],[96,96]]"]
    )
    lines = list(commented(loaded))
    assert all("#" in line for line in lines), [line for line in lines if "#" not in line]
    path = tmp_path / "shown.yaml"
    path.write_text("\n".join(lines))
    assert any(line.startswith("    samples: 7 ") for line in lines)
    shown, given = recipe.flatten(recipe.load(str(path))), recipe.flatten(loaded)
    assert given.items() <= shown.items()


def test_every_loss_weight_names_a_function() -> None:
    weights = set(Loss.model_fields) - set(LOSS_OPTIONS)
    assert weights == {name for name in weights if callable(getattr(losses, name, None))}
