"""CONTRIBUTING.md: its paths are real, and three of its ten tasks, done in a copy, touch the files it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from paths import ROOT

GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TASK = re.compile(r"^\| (add [^|]*) \| (`[^|]*`) \|$", re.MULTILINE)
TASKS = {what: re.findall(r"`([^`]+)`", files) for what, files in TASK.findall(GUIDE)}
PATH = re.compile(r"`((?:depthray|cluster|tuning|serve|tests|docs)/[^`\s]*)`")

ARCHITECTURE = '''
"""Three convolutions at half the size of the input."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from depthray.batch import Batch, Prediction
from depthray.models.layers.blocks import upsample
from depthray.models.layers.depth_head import Completion, DepthHead
from depthray.models.layers.inputs import InputStack, input_channels


class Plain(nn.Module):
    stride = 2

    def __init__(
        self, inputs: tuple[str, ...], *, width: int, max_depth: float, completion: Completion | None = None
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.stack = InputStack(inputs, max_depth=max_depth)
        self.first = nn.Conv2d(input_channels(inputs), width, 3, stride=2, padding=1)
        self.second = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        self.metres = DepthHead("sigmoid", max_depth=max_depth, inputs=inputs, channels=width, completion=completion)
        self.metres.init_bias(self.last)

    def forward(self, batch: Batch) -> Prediction:
        stacked = self.stack(batch)
        features = self.second(self.first(stacked))
        logits = upsample(self.last(features).float(), stacked.shape[-2:])
        return self.metres.predict(logits, batch, features)


def build(
    *,
    width: Annotated[int, Field(gt=0)] = 32,
    max_depth: float = 10.0,
    inputs: tuple[str, ...] = ("image",),
    completion: Completion | None = None,
) -> Plain:
    return Plain(inputs, width=width, max_depth=max_depth, completion=completion)
'''
RECIPE = """
# yaml-language-server: $schema=schema.json
about: three convolutions on rendered rooms
data: {source: synthetic, size: [96, 128]}
model: {name: plain}
"""
FORM = '''
"""Scenes as folders of pairs: SCENE/NAME.png in colour and SCENE/NAME.npy in float metres."""

from __future__ import annotations

from pathlib import Path

from depthray.config.sections import Data
from depthray.data.readers.files import data_root
from depthray.data.readers.frame_files import PAIR, FrameFiles, FrameRow
from depthray.data.source import Frame, refuse_encoding


class ScenePairs(FrameFiles):
    fingerprint_tag = "scene_pairs"


def open_source(section: Data) -> ScenePairs:
    refuse_encoding(section)
    root = data_root(section)
    rows = []
    for path in sorted(root.glob("*/*.npy")):
        name = str(path.relative_to(root).with_suffix(""))
        rows.append(FrameRow(Frame(name, path.parent.name, "", "scenes"), (f"{name}.png", f"{name}.npy")))
    return ScenePairs(root, rows, keys=frozenset(PAIR), encoding="float_m")


def fits(root: Path) -> bool:
    return any(path.with_suffix(".png").is_file() for path in root.glob("*/*.npy"))
'''
LAYOUT = '''
def scene_pairs(root: Path) -> Data:
    """2 scenes of 3 frames."""
    for number in range(6):
        sample, stem = frame(number), root / f"scene{number // 3}" / f"{number}"
        save(stem.with_suffix(".png"), sample["image"])
        np.save(stem.with_suffix(".npy"), sample["depth"])
    return Data(source="scene_pairs", root=str(root))


MAKERS["scene_pairs"] = scene_pairs
'''
TERM = '''
def huber(depth: Tensor, truth: Tensor, *, valid: Tensor) -> Tensor:
    """(B,1,H,W) metres -> (B,) mean of e^2 / 2 up to 1 m and |e| - 1/2 beyond."""
    size = error(depth, truth, valid=valid).abs()
    return mean(torch.where(size < 1, size.square() / 2, size - 0.5), valid)
'''
WEIGHT = '    huber: Amount = Field(0.0, description="Huber loss: squared up to 1 m, linear beyond")\n'
ORACLE = """
def huber(depth, truth, valid):
    return np.mean([e * e / 2 if e < 1 else e - 0.5 for e in np.abs(depth - truth)[valid]])
"""


class Copy:
    """The tree in another folder, and which files of the library were changed in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.touched: set[str] = set()
        ignored = shutil.ignore_patterns("ray", ".*_cache")  # with what Python has compiled
        for name in ("depthray", "cluster", "tuning", "serve", "tests", "docs"):
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        for name in ("pyproject.toml", "CONTRIBUTING.md", "README.md"):
            shutil.copy(ROOT / name, root)

    def add(self, name: str, text: str) -> None:
        """Append a text to a file, which need not exist."""
        self.touched.add(name)
        with (self.root / name).open("a", encoding="utf-8") as file:
            file.write(text if file.tell() else text.lstrip())

    def insert(self, name: str, text: str, *, before: str) -> None:
        self.touched.add(name)
        path = self.root / name
        content = path.read_text(encoding="utf-8")
        assert content.count(before) == 1
        path.write_text(content.replace(before, text + before), encoding="utf-8")

    def find(self, name: str) -> str:
        """The path of the one test file of a name."""
        (path,) = self.root.glob(f"tests/**/{name}")
        return str(path.relative_to(self.root))

    def library(self) -> set[str]:
        """The files of the library that were changed since the last call."""
        names = {name for name in self.touched if not name.startswith(("tests/", "docs/"))}
        self.touched.clear()
        return names


@dataclass(frozen=True)
class Addition:
    """One task done in a copy of the tree."""

    files: set[str]  # of the library
    tests: tuple[str, ...]  # files of tests that then cover it
    names: str  # which of those tests, as pytest selects them


@dataclass(frozen=True)
class Copies:
    """The tasks by name, and the results of all their tests in the copy."""

    additions: dict[str, Addition]
    code: int
    output: str

    def passed(self, task: str) -> int:
        """How many tests of a task passed; none of any task may fail."""
        assert self.code == 0, self.output[-4000:]
        files, names = "|".join(self.additions[task].tests), self.additions[task].names.replace(" or ", "|")
        return len(re.findall(rf"^PASSED \S*({files})::.*({names})", self.output, re.MULTILINE))


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """Three tasks done in one copy, whose tests are then run by one pytest."""
    copy = Copy(tmp_path_factory.mktemp("tree"))
    additions = {
        "add an architecture": add_architecture(copy),
        "add a data set form": add_data_set_form(copy),
        "add a loss term": add_loss_term(copy),
    }
    files = [copy.find(name) for each in additions.values() for name in each.tests]
    names = " or ".join(each.names for each in additions.values())
    chosen = f"({names}) and not compiles"  # the slowest, of which the others are enough to show it
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-k", chosen, *files]
    variables = {**os.environ, "PYTHONPATH": str(copy.root)}
    done = subprocess.run(command, cwd=copy.root, env=variables, capture_output=True, text=True, check=False)
    return Copies(additions, done.returncode, done.stdout + done.stderr)


def add_architecture(copy: Copy) -> Addition:
    copy.add("depthray/models/plain.py", ARCHITECTURE)
    copy.add("depthray/recipes/plain.yaml", RECIPE)
    return Addition(copy.library(), ("test_models.py", "test_recipe_schema.py", "test_shipped_recipes.py"), "plain")


def add_data_set_form(copy: Copy) -> Addition:
    copy.add("depthray/data/sources/scene_pairs.py", FORM)
    copy.add(copy.find("layouts_other.py"), LAYOUT)
    copy.add("docs/data.md", "\n### scene_pairs\n\nA folder for each scene.\n")
    return Addition(copy.library(), ("test_sources.py", "test_convert.py"), "scene_pairs")


def add_loss_term(copy: Copy) -> Addition:
    copy.add("depthray/losses/depth.py", TERM)
    copy.insert("depthray/config/sections/loss_section.py", WEIGHT, before="    berhu: Amount")
    copy.add(copy.find("loss_oracles.py"), ORACLE)
    return Addition(copy.library(), ("test_losses.py", "test_losses_total.py"), "huber or every_weight")


def files_of(task: str, name: str) -> set[str]:
    return {file.replace("NAME", name) for file in TASKS[task]}


def test_there_are_ten_tasks_of_one_or_two_files() -> None:
    assert len(TASKS) == 10
    assert all(1 <= len(files) <= 2 for files in TASKS.values())


def test_every_path_of_the_guide_exists() -> None:
    paths = [path for path in PATH.findall(GUIDE) if "NAME" not in path]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("task", "name", "tests"),
    [("add an architecture", "plain", 15), ("add a data set form", "scene_pairs", 5), ("add a loss term", "", 10)],
)
def test_a_task_is_done_by_the_files_that_the_guide_names(copies: Copies, task: str, name: str, tests: int) -> None:
    assert copies.additions[task].files == files_of(task, name)
    assert copies.passed(task) > tests
