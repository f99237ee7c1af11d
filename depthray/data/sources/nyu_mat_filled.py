"""The labelled part of NYU Depth V2 with the holes of its depth filled by the data set's authors (`depths`).

The file is that of nyu_mat.py; this is a source of its own because sources are found by the name of their module.
Filled depth is dense, and the official scores are computed on it; but where nothing was measured it is a guess from
colour.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data.sources.nyu_mat import FILLED, NyuMat, open_mat

if TYPE_CHECKING:
    from depthray.config.sections import Data


def open_source(section: Data) -> NyuMat:
    """The .mat file at `section.root`, or in it, with depth filled in."""
    return open_mat(section, depth=FILLED)


def fits(root: Path) -> bool:
    """Never: a .mat file is recognised as nyu_mat; filled depth has to be requested by name."""
    return False
