"""Depth maps of a folder as euler-eval scores them. Run by `cross_check.py` in a process of its own.

    PYTHONPATH=PACKAGES python euler_scores.py FOLDER

FOLDER has a file .npz a frame: `prediction` and `truth` (H,W) metres and `valid` (H,W) bool. Prints one JSON object:
`frames`, the metrics by file, `image_mean` and `pixel_pool`. With `raw` in a file, depth before any alignment, also
`affine`: those of that after euler-eval's own alignment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path) -> None:
    """Score each file, and all of them together."""
    from euler_eval import DepthValidationAggregator, evaluate_dense_depth_sample

    aggregator: Any = DepthValidationAggregator()
    frames, affine = {}, {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as maps:
            truth, valid = maps["truth"], maps["valid"]
            found = evaluate_dense_depth_sample(maps["prediction"], truth, valid, min_valid_pixels=1)
            raw = maps.get("raw")
        if found is None:  # not a pixel to score
            continue
        aggregator.update(found)
        frames[path.stem] = found.metrics
        if raw is not None:
            fitted = evaluate_dense_depth_sample(raw, truth, valid, alignment="affine", min_valid_pixels=1)
            affine[path.stem] = fitted.metrics | {"pixels": fitted.valid_pixels} if fitted else {}
    standard = aggregator.summary()["standard"]
    print(
        json.dumps(
            {
                "frames": frames,
                "affine": affine,
                "image_mean": standard["image_mean"],
                "pixel_pool": standard["pixel_pool"],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
