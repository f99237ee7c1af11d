"""Depth of photographs by a network of the package depth-estimation. Run by `given_weights.py` in its own environment.

    peer/bin/python predict_depth_estimation.py MODEL[=FILE] FRAMES OUT

MODEL is one of its names, such as zoedepth or depth-anything-v2-vits; FILE, weights that are on this machine, takes the
place of its download. Writes OUT/NAME.npy, (H,W) float32, for each FRAMES/NAME.png, and OUT/about.json. Exit code 3
with a line where there are no weights.

The numbers are those of the network, resized: the package's own pipeline makes 0 to 1 of each image, metres too.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

NO_WEIGHTS = 3


def main(name: str, frames: Path, out: Path) -> int:
    """Predict each frame."""
    try:
        model, processor = _load(name)
    except Exception as error:  # of many kinds: each family loads in its own way
        print(f"no weights: {name}: {' '.join(str(error).split())[:200]}", file=sys.stderr)
        return NO_WEIGHTS
    import torch
    from torch.nn import functional

    paths = sorted(frames.glob("*.png"))
    seconds = 0.0
    for number, path in enumerate([paths[0], *paths]):  # the first once more, as its pass is slower
        began = time.perf_counter()
        inputs = processor.preprocess([str(path)])
        with torch.no_grad():
            depth = model(inputs["pixel_values"])
        depth = depth.reshape(1, 1, *depth.shape[-2:]).float()
        resized = functional.interpolate(depth, inputs["original_sizes"][0], mode="bilinear")
        seconds += (time.perf_counter() - began) * (number > 0)
        np.save(out / f"{path.stem}.npy", resized[0, 0].cpu().numpy())
    kind = "metric" if model.config.is_metric else "disparity"
    (out / "about.json").write_text(json.dumps({"kind": kind, "seconds": seconds / len(paths)}))
    return 0


def _load(name: str) -> tuple[Any, Any]:
    """The network and what prepares its inputs."""
    from depth_estimation import AutoDepthModel, AutoProcessor

    model, _, file = name.partition("=")
    if file:
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file}: no such file")
        import huggingface_hub

        # The package asks for its published file by this function; all else of its loading stays as it is.
        hub: Any = huggingface_hub
        hub.hf_hub_download = lambda *_, **__: file
    return AutoDepthModel.from_pretrained(model, device="cpu"), AutoProcessor.from_pretrained(model)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
