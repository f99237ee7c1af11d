"""data.sets: what is accepted, what each set is read as, and what is refused with which message."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from depthray.cli.recipe import commented
from depthray.config import own_code
from depthray.config import recipe as recipes
from depthray.config.sections import Recipe
from depthray.data.mixing import data_sets
from depthray.errors import UsageError
from depthray.training import preflight

TWO = ["data.sets.0.root=/a/mine", "data.sets.1.root=s3://bucket/nyu v2.h5"]
AFFINE = ["data.sets.1.loss.ssi=1", "data.sets.1.protocol=affine-disparity"]


def read(*overrides: str) -> Recipe:
    return recipes.read("unet-resnet34", overrides)


def test_overrides_make_sets_and_change_them() -> None:
    made = read(*TWO, *AFFINE, "data.sets.1.weight=0.3", "data.sets.1.loss.multiscale_weights=1")
    assert [each.name for each in made.data.sets] == ["mine", "nyu-v2"]
    assert made.data.sets[1].weight == 0.3
    assert made.data.sets[1].loss is not None and made.data.sets[1].loss.weights == {"ssi": 1.0}
    assert made.data.place == "mine, nyu-v2"
    assert recipes.build(yaml.safe_load(recipes.dump(made)), where="saved") == made
    assert recipes.build(yaml.safe_load("\n".join(commented(made))), where="shown").data == made.data
    assert recipes.build(recipes.unflatten(recipes.flatten(made)), where="flat") == made
    changed = recipes.override(made, ["data.sets.1.weight=0"], where="changed")
    assert recipes.difference(made, changed) == {"data.sets.1.weight": (0.3, 0.0)}


def test_a_set_keeps_its_name_where_it_is_moved() -> None:
    moved = recipes.override(read(*TWO), ["data.sets.0.root=/b/other"], where="moved")
    assert (moved.data.sets[0].name, moved.data.sets[0].root) == ("mine", "/b/other")


def test_the_later_of_one_root_and_several_sets_is_used() -> None:
    assert read(*TWO, "data.root=/one").data.sets == ()
    sets = read("data.root=/one", *TWO).data
    assert sets.root == "" and len(sets.sets) == 2


def test_what_a_set_leaves_out_is_as_the_sections_have_it() -> None:
    made = read(*TWO, *AFFINE, "data.sets.1.max_depth=80", "data.encoding=uint16_256", "data.sets.0.encoding=uint16_mm")
    first, second = data_sets.recipes_of(made)
    assert (first.data.root, first.data.encoding, first.data.max_depth) == ("/a/mine", "uint16_mm", 10.0)
    assert (second.data.encoding, second.data.max_depth) == ("uint16_256", 80.0)
    assert (first.loss, first.eval.protocol) == (made.loss, made.eval.protocol)
    assert (second.loss.weights, second.eval.protocol) == ({"ssi": 1.0}, "affine-disparity")
    assert first.data.sets == second.data.sets == ()
    assert data_sets.resolve(made).data.max_depth == 80.0  # that of all


def test_a_set_of_weight_0_leaves_the_recipe_of_the_other() -> None:
    alone = read("data.root=/a/mine", "data.source=folder")
    both = read(*TWO, *AFFINE, "data.sets.0.source=folder", "data.sets.1.max_depth=80", "data.sets.1.weight=0")
    assert data_sets.resolve(both) == alone
    assert data_sets.resolve(alone) is alone
    assert data_sets.losses_of(both) == (alone.loss,)


def test_a_set_whose_weight_is_above_0_at_some_stage_is_used() -> None:
    made = read(*TWO, "data.sets.0.weight=1,0.5,0", "data.sets.1.weight=0,1")
    assert made.data.weight_stages == [(1, 0), (0.5, 1), (0, 1)]
    assert len(data_sets.recipes_of(made)) == 2
    assert recipes.build(recipes.unflatten(recipes.flatten(made)), where="flat") == made
    assert recipes.build(yaml.safe_load(recipes.dump(made)), where="saved") == made
    alone = read("data.root=/a/mine", "data.source=shards")
    never = read(*TWO, "data.sets.0.weight=1,0.5", "data.sets.0.source=shards", "data.sets.1.weight=0,0")
    assert data_sets.resolve(never) == alone


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        ([], "metric"),
        (["data.sets.1.weight=0", "data.sets.0.loss.ssi=1"], "affine-disparity"),
        (["data.sets.0.weight=0"], "affine-disparity"),
    ],
)
def test_depth_means_what_the_set_that_fixes_most_makes_of_it(overrides: list[str], kind: str) -> None:
    made = read(*TWO, *AFFINE, *overrides)
    assert made.depth_kind == kind
    assert data_sets.without_sets(made, root="/x").depth_kind == kind  # scored elsewhere, it predicts the same


def test_own_code_of_sets_is_named(tmp_path: Path) -> None:
    own = ["data.sets.1.source=./mine.py", "data.sets.1.loss.terms.mypkg.losses.x=1", "data.sets.1.protocol=mypkg.p.P"]
    named = {name for _, name in own_code.names_in(read(*TWO, *own, "data.sets.1.weight=0"))}
    assert named == {"./mine.py", "mypkg.losses.x", "mypkg.p.P"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.sets.0.wieght=1"], r"unknown key 'data\.sets\.0\.wieght' \(did you mean 'weight'\?\)"),
        (["data.sets.0.size=9,9"], r"unknown key 'data\.sets\.0\.size' \(did you mean 'data\.size'\?\)"),
        (["data.sets.0.weight=-1"], r"data\.sets\.0\.weight=-1: input should be greater than or equal to 0"),
        (["data.sets.0.weight=0", "data.sets.1.weight=0"], "every weight is 0; give at least one above it"),
        (["data.sets.0.weight=1,0", "data.sets.1.weight=0"], "every weight is 0 at place 2 of their lists"),
        (["data.sets.0.weight=[]"], r"data\.sets\.0\.weight=\[\]: input should be a valid number"),
        (["data.sets.0.weight=1,-1"], r"data\.sets\.0\.weight\[1\]=-1: input should be greater than or equal to 0"),
        (["data.sets.0.overall=false", "data.sets.1.weight=0"], "give at least one of them overall=true"),
        (["data.sets.1.root=/b/mine"], r"data\.sets\.0 and data\.sets\.1 are both called 'mine'"),
        (["data.sets.1.name=a/b"], "'a/b' may have letters, digits"),
        (["data.sets.3.root=/c"], r"data\.sets has 2 sections, numbered from 0; there is no data\.sets\.3"),
        (["data.sets.x.root=/c"], r"data\.sets has 2 sections, numbered from 0; there is no data\.sets\.x"),
        (["data.sets.weight=1"], r"'data\.sets' are several sections.* data\.sets\.0\.weight=VALUE"),
        (["data.sets.0=1"], r"name a key of one, data\.sets\.0\.KEY=VALUE"),
        (["data.sets=3"], r"data\.sets is a list of data sets; name the keys of one by its number"),
        (["data.sets.2.weight=1"], r"data\.sets\.2 has no name; give data\.sets\.2\.root=PATH"),
        (["data.sets.1.max_depth=0.0001"], r"min_depth of 'nyu-v2' must be below its max_depth"),
        (["data.sets.1.loss.l1=0"], r"data\.sets\.1\.loss: every loss weight is 0"),
        (["data.sets.1.loss.ssi=1"], r"data\.sets: 'nyu-v2': eval\.protocol=plain does not fit .*affine-disparity"),
        (["data.sets.1.protocol=nyu"], r"data\.sets: 'nyu-v2': eval\.protocol: no protocol 'nyu'"),
        (["data.sets.1.source=folders"], r"data\.sets: 'nyu-v2': no data\.source='folders' \(did you mean 'folder'"),
        (["data.sets.1.encoding=mm"], r"data\.sets: 'nyu-v2': no depth encoding"),
        (["data.sets.1.max_depth=80"], r"data\.sets: 'nyu-v2': data\.max_depth=80 is beyond model\.max_depth=10"),
        (["data.sets.1.protocol=legacy-004"], r"data\.sets: 'nyu-v2': eval\.protocol=legacy-004 scores depth and mask"),
        (["data.order=shards"], r"data\.order=shards divides the shards of one data set.*with data\.sets leave it out"),
        (
            ["data.sets.1.loss.l1=1", "data.sets.1.loss.target=relative", "data.sets.1.protocol=median-scaled"],
            r"data\.sets: 'nyu-v2': loss\.target=relative: .* give model\.max_depth=1",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_naming_the_key(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        preflight.load("unet-resnet34", [*TWO, *overrides])
    assert "\n" not in str(caught.value)


def test_a_root_and_sets_in_one_file_are_refused() -> None:
    tree = {"data": {"root": "/a", "sets": [{"root": "/b"}]}}
    with pytest.raises(UsageError, match=r"data\.root is one data set and data\.sets are several"):
        recipes.build(tree, where="mine.yaml")


def test_a_set_that_does_not_count_need_not_have_the_monitored_score() -> None:
    preflight.load("unet-resnet34", [*TWO, "data.sets.1.protocol=legacy-004", "data.sets.1.overall=false"])
