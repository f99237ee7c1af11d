"""Depth of photographs by Ultralytics' YOLO depth networks. Run by `given_weights.py` in the peer's own environment.

    peer/bin/python predict_ultralytics.py WEIGHTS.pt FRAMES OUT

Writes OUT/NAME.npy, (H,W) float32 metres, for each FRAMES/NAME.png, and OUT/about.json. Exit code 3 with one line where
there are no weights: they are looked for by name on this machine, and Ultralytics downloads those it publishes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

NO_WEIGHTS = 3


def main(weights: str, frames: Path, out: Path) -> int:
    """Predict each frame."""
    try:
        from ultralytics import YOLO

        network: Any = YOLO(weights)
    except (FileNotFoundError, ConnectionError, OSError) as error:
        print(f"no weights: {weights}: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        return NO_WEIGHTS
    paths = sorted(frames.glob("*.png"))
    network(str(paths[0]), verbose=False)  # the first pass builds what the others use
    began = time.perf_counter()
    for path in paths:
        (result,) = network(str(path), verbose=False)
        np.save(out / f"{path.stem}.npy", np.asarray(result.depth.data.cpu(), np.float32).squeeze())
    seconds = (time.perf_counter() - began) / len(paths)
    (out / "about.json").write_text(json.dumps({"kind": "metric", "seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
