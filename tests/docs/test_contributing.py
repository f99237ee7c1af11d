"""CONTRIBUTING.md: its paths are real, and three of its ten tasks, done in a copy of the tree, touch what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TASK = re.compile(r"^\| (add [^|]*) \| (`[^|]*`) \|$", re.MULTILINE)
TASKS = {what: re.findall(r"`([^`]+)`", files) for what, files in TASK.findall(GUIDE)}
PLACE = re.compile(r"`((?:depthray|cluster|tuning|serve|tests|docs)/[^`\s]*)`")

ARCHITECTURE = '''
"""Three convolutions at half the size of the input."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from depthray.batch import Batch, Prediction
from depthray.models.layers.blocks import DepthHead, upsample
from depthray.models.layers.inputs import InputStack, guide, input_channels


class Plain(nn.Module):
    stride = 2

    def __init__(self, inputs: tuple[str, ...], *, width: int, max_depth: float) -> None:
        super().__init__()
        self.inputs = inputs
        self.stack = InputStack(inputs, max_depth=max_depth)
        self.first = nn.Conv2d(input_channels(inputs), width, 3, stride=2, padding=1)
        self.second = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        self.metres = DepthHead("sigmoid", max_depth=max_depth)
        self.metres.init_bias(self.last)

    def forward(self, batch: Batch) -> Prediction:
        stacked = self.stack(batch)
        logits = upsample(self.last(self.second(self.first(stacked))).float(), stacked.shape[-2:])
        return {"depth": self.metres(logits, guide(batch, self.inputs))}


def build(
    *, width: Annotated[int, Field(gt=0)] = 32, max_depth: float = 10.0, inputs: tuple[str, ...] = ("image",)
) -> Plain:
    return Plain(inputs, width=width, max_depth=max_depth)
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
    """The tree in another folder, which files of the library were changed in it, and its own tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.touched: set[str] = set()
        ignored = shutil.ignore_patterns("__pycache__", "ray", ".*_cache")
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

    def place(self, pattern: str) -> str:
        """The one file of a name, wherever it is."""
        (path,) = self.root.glob(f"tests/**/{pattern}")
        return str(path.relative_to(self.root))

    def passes(self, *files: str, only: str) -> int:
        """How many tests with a name in these files pass; none may fail."""
        places = [self.place(file) for file in files]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", only, *places]
        variables = {**os.environ, "PYTHONPATH": str(self.root)}
        done = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        return len(re.findall(r"\.", done.stdout.split("%]")[0]))

    def library(self) -> set[str]:
        return {name for name in self.touched if not name.startswith(("tests/", "docs/"))}


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def files_of(task: str, name: str) -> set[str]:
    return {file.replace("NAME", name) for file in TASKS[task]}


def test_there_are_ten_tasks_of_one_or_two_files() -> None:
    assert len(TASKS) == 10
    assert all(1 <= len(files) <= 2 for files in TASKS.values())


def test_every_path_of_the_guide_exists() -> None:
    places = [place for place in PLACE.findall(GUIDE) if "NAME" not in place]
    assert len(places) > 20
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_an_architecture_is_a_file_and_a_recipe(copy: Copy) -> None:
    copy.add("depthray/models/plain.py", ARCHITECTURE)
    copy.add("depthray/recipes/plain.yaml", RECIPE)
    assert copy.library() == files_of("add an architecture", "plain")
    assert copy.passes("test_models.py", "test_recipe_schema.py", only="plain") > 15


def test_a_form_of_data_sets_is_a_file(copy: Copy) -> None:
    copy.add("depthray/data/sources/scene_pairs.py", FORM)
    assert copy.library() == files_of("add a data set form", "scene_pairs")
    copy.add(copy.place("layouts_other.py"), LAYOUT)
    copy.add("docs/data.md", "\n### scene_pairs\n\nA folder for each scene.\n")
    assert copy.passes("test_sources.py", "test_convert.py", only="scene_pairs") > 5


def test_a_loss_term_is_a_function_and_its_weight(copy: Copy) -> None:
    copy.add("depthray/losses/depth.py", TERM)
    copy.insert("depthray/config/sections.py", WEIGHT, before="    berhu: Amount")
    assert copy.library() == files_of("add a loss term", "")
    copy.add(copy.place("loss_oracles.py"), ORACLE)
    assert copy.passes("test_losses.py", "test_losses_total.py", only="huber or every_weight") > 10
