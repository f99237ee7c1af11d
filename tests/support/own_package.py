"""Code of one's own in a temporary folder: the package `mypkg` and single files, and nothing allowed from before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from depthray.config import own_code
from depthray.testing.new import EXAMPLES

FILES = {"net.py": "own_net.py", "frames.py": "own_frames.py", "losses.py": "own_loss.py"}
PROTOCOL = '''
"""Protocols of mine."""

from dataclasses import replace

from depthray.evaluation.protocols import PLAIN

NEAR = replace(PLAIN, name="near", about="1 mm < truth < 3 m, whole image", max_depth=3.0)
'''

OWN = [
    *("model.name=mypkg.net", "data.source=./frames.py"),
    *("loss.terms.mypkg.losses.own_loss=0.5", "eval.protocol=mypkg.protocols.NEAR"),
]
NAMES = {"mypkg.net", "./frames.py", "mypkg.losses.own_loss", "mypkg.protocols.NEAR"}  # in these overrides


def write_package(folder: Path, name: str = "mypkg") -> Path:
    """The examples of `depthray new`, and a protocol, as modules of a package."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""Mine."""\n')
    (package / "protocols.py").write_text(PROTOCOL.lstrip())
    for file, example in FILES.items():
        (package / file).write_text((EXAMPLES / example).read_text())
    return package


def write_all(folder: Path) -> None:
    """What the names of OWN mean in this folder."""
    (folder / "frames.py").write_text((write_package(folder) / "frames.py").read_text())


def write_pairs(folder: Path, *, scenes: int = 4, frames: int = 2, size: tuple[int, int] = (32, 32)) -> Path:
    """Scenes of some frames of (height, width), as the example of a data set form reads them."""
    for number in range(scenes * frames):
        scene, share = folder / f"scene{number // frames}", number / (scenes * frames)
        scene.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), int(200 * share), np.uint8)).save(scene / f"{number}.png")
        depth = np.broadcast_to(np.linspace(1, 1.5, size[1], dtype=np.float32), size) + np.float32(share)  # metres
        np.save(scene / f"{number}.npy", depth)
    return folder


def forget(monkeypatch: Any, folder: Path) -> None:
    """A process that was allowed nothing and imported nothing of one's own, in a folder, until the test ends."""
    monkeypatch.setattr(own_code, "_allowed", own_code._Allowed())
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(folder))])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "mypkg" or name.startswith("depthray_own_")]:
        monkeypatch.delitem(sys.modules, name)
