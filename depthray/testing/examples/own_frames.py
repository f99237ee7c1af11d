"""A data set form of one's own: SCENE/NAME.png in colour with SCENE/NAME.npy in metres.

Use it with data.source=./THIS_FILE.py. `open_source` reads which frames there are; files are read when a frame is.
Check a change with python -m depthray.testing ./THIS_FILE.py --data FOLDER.
"""

from __future__ import annotations

from depthray.config.sections import Data
from depthray.data.readers.files import data_root
from depthray.data.readers.frame_files import PAIR, FrameFiles, FrameRow
from depthray.data.source import Frame, refuse_encoding


class OwnFrames(FrameFiles):
    """Frames that are a colour and a depth file each; `FrameFiles` reads them."""

    fingerprint_tag = "own_frames"  # part of the fingerprint that a run is resumed by: never changed


def open_source(section: Data) -> OwnFrames:
    """The frames below data.root. The folder of a frame is its scene: scenes are not split."""
    refuse_encoding(section)  # the files state their unit, and data.encoding is not asked
    root = data_root(section)
    rows = []
    for path in sorted(root.glob("*/*.npy")):
        name = str(path.relative_to(root).with_suffix(""))
        rows.append(FrameRow(Frame(name, path.parent.name, "", "own"), (f"{name}.png", f"{name}.npy")))
    return OwnFrames(root, rows, keys=frozenset(PAIR), encoding="float_m")
