"""What a graph can be exported to, one file each, found by its name with a hyphen for the underscore.

`PRECISIONS` in it are those it computes in, `PACKAGES` what must be installed, and `write(traced, folder, request)`
writes the model into a folder and says what it wrote.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depthray.errors import UsageError, did_you_mean

if TYPE_CHECKING:  # torch takes seconds to import, and --help names the targets
    from torch import Tensor

    from depthray.exporting.graph import Inputs


class GateScores(NamedTuple):
    """Scores of some frames, higher is better."""

    mean: float
    each: list[float]


@dataclass(frozen=True)
class TargetRequest:
    """What a target may need besides the graph."""

    precision: str
    calibration: Callable[[], Iterator[Inputs]]  # frames, one by one, that the gate does not see
    # A function of a graph's inputs, and positions among those frames -> how good it is on them.
    score: Callable[[Callable[[Inputs], Sequence[Tensor]], Sequence[int]], GateScores]
    most_drop: float  # of that score, as a share of the network's own
    note: Callable[[str], None]  # for the report, a sentence
    say: Callable[[str], None] = lambda _: None  # for the user who waits, a line


@dataclass(frozen=True)
class WrittenModel:
    """The model file of a target and the versions of what wrote it."""

    model_file: str
    versions: dict[str, str] = field(default_factory=dict)


def names() -> list[str]:
    """The targets there are."""
    return sorted(path.stem.replace("_", "-") for path in Path(__file__).parent.glob("[!_]*.py"))


def about(name: str) -> str:
    """The first sentence of a target's file, which is not imported for that: it would import torch."""
    tree = ast.parse((Path(__file__).parent / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n\n")[0]


def target(name: str) -> Any:
    """The module of a target; a UsageError where there is none, or packages of it are not installed."""
    if name not in names():
        raise UsageError(f"--to {name}: no such target{did_you_mean(name, names())}")
    module = import_module(f"depthray.exporting.targets.{name.replace('-', '_')}")
    if absent := [package for package in module.PACKAGES if find_spec(package) is None]:
        raise UsageError(f"--to {name}: needs {absent[0]}, which is not installed: pip install 'depthray[export]'")
    return module
