"""What the commands report of runs and searches, as plain values: recorded by the version that made them.

Only the command line, `depthray.load` and the files of a run are used, which every version has in common.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

Command = Callable[[Sequence[str]], str]  # arguments -> what the command printed; raises where it fails
LISTED = ("kind", "state", "done", "of", "metric", "score", "recipe")
TRAINING = ("epoch", "step", "iou", "dice", "boundary_f1", "train_loss", "lr")
GRID = 4  # cells along a side in which a predicted map is averaged


def processor() -> dict[str, str]:
    """What the last bits of a result depend on: where all of it agrees, results are equal to the bit."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    matches = {
        key: re.search(rf"^{key}\s*:\s*(.+)", cpu, re.MULTILINE) for key in ("model name", "cpu family", "model")
    }
    known = {key: match[1] for key, match in matches.items() if match}
    return {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability(), **known}


def listed(command: Command, folder: Path) -> dict[str, dict[str, Any]]:
    """`depthray runs list`: name -> state, epochs, score and the rest of its row that does not age."""
    rows = json.loads(command(["runs", "list", str(folder), "--json"]))
    return {row["name"]: {key: row[key] for key in LISTED} for row in rows}


def scores(command: Command, checkpoint: Path, out: Path, *arguments: str) -> dict[str, dict[str, float]]:
    """`depthray evaluate`: metric -> mean and interval over the validation frames."""
    command(["evaluate", str(checkpoint), "--out", str(out), *arguments])
    overall: dict[str, dict[str, float]] = json.loads((out / "evaluation.json").read_text())["overall"]
    return overall


def predicted(command: Command, checkpoint: Path, place: Path) -> list[list[float]]:
    """`depthray predict`: metres of a generated image, averaged in GRID x GRID cells."""
    place.mkdir()
    Image.fromarray(photograph()).save(place / "picture.png")
    arguments = ["predict", str(checkpoint), str(place / "picture.png")]
    command([*arguments, "--out", str(place / "out"), "--format", "npy", "--device", "cpu"])
    (path,) = (place / "out").rglob("*.npy")
    return cells(np.load(path))


def cells(depth: NDArray[Any]) -> list[list[float]]:
    """(H,W) -> the means of GRID x GRID equal cells; H and W are multiples of GRID."""
    height, width = depth.shape
    means = depth.astype(np.float64).reshape(GRID, height // GRID, GRID, width // GRID).mean(axis=(1, 3))
    found: list[list[float]] = means.tolist()
    return found


def photograph(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """(H,W,3) uint8 RGB, everywhere different."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 4, 255 - x - y], -1).astype(np.uint8)


def weights(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run: a digest of its weights, and of each tensor the size, sum, norm, first values."""
    tensors = load_file(sorted((run / "checkpoints").glob("epoch-*"))[-1] / "model.safetensors")
    digest, summaries = hashlib.sha256(), {}
    for name, tensor in sorted(tensors.items()):
        values = tensor.contiguous().numpy()
        digest.update(name.encode() + values.tobytes())
        flat = values.astype(np.float64).ravel()
        summaries[name] = [flat.size, flat.sum(), float(np.linalg.norm(flat)), *flat[:3].tolist()]
    return {"sha256": digest.hexdigest(), "tensors": summaries}


def epochs(run: Path) -> list[dict[str, float]]:
    """The epochs in a run's progress: their scores, loss and learning rate."""
    records = [json.loads(line) for line in (run / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: each[key] for key in TRAINING} for each in records if each["kind"] == "epoch"]


def resumed(command: Command, run: Path, *arguments: str) -> dict[str, Any]:
    """`depthray train --resume` in this process: the weights and epochs that the run comes to."""
    command(["train", "--out", str(run), "--resume", "--local", *arguments])
    return {"weights": weights(run), "epochs": epochs(run)}


def report(command: Command, search: Path) -> dict[str, Any]:
    """`depthray report`: the lines of trials.csv, the table of trials in report.md, the best recipe's file."""
    for name in ("trials.csv", "report.md", "best.yaml"):
        (search / name).unlink(missing_ok=True)
    command(["report", str(search), "--no-images"])
    page = (search / "report.md").read_text(encoding="utf-8").partition("\n## Trials\n")[2].partition("\n## ")[0]
    best = search / "best.yaml"
    return {
        "csv": (search / "trials.csv").read_text(encoding="utf-8").splitlines(),
        "table": [line for line in page.splitlines() if line.startswith("|")],
        "best": best.read_text(encoding="utf-8") if best.exists() else "",
    }


def trials(search: Path) -> dict[str, dict[str, Any]]:
    """Of each trial of a search its state, and the scores of its epochs."""
    return {
        path.parent.name: {
            "state": json.loads(path.read_text(encoding="utf-8"))["state"],
            "epochs": epochs(path.parent) if (path.parent / "progress.jsonl").exists() else [],
        }
        for path in sorted(search.glob("trials/*/trial.json"))
    }


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder, to work in."""
    return Path(shutil.copytree(source, target))


def check_resumed(now: dict[str, Any], before: dict[str, Any], made_on: dict[str, str]) -> None:
    """Assert that training came to the same weights and epochs: to the bit on the processor that they are from.

    Elsewhere the gradient of a bias before a batch norm is another rounding error, which Adam makes a whole step of, so
    that only the weights proper are compared.
    """
    if processor() == made_on:
        assert now["weights"]["sha256"] == before["weights"]["sha256"]
        assert now["epochs"] == before["epochs"]
        return
    assert [epoch["step"] for epoch in now["epochs"]] == [epoch["step"] for epoch in before["epochs"]]
    losses, losses_before = ([epoch["train_loss"] for epoch in each["epochs"]] for each in (now, before))
    assert np.allclose(losses, losses_before, rtol=0.02)
    tensors, expected = now["weights"]["tensors"], before["weights"]["tensors"]
    assert tensors.keys() == expected.keys()
    for name in (name for name in expected if name.endswith(".weight")):
        norm = expected[name][2]
        assert np.allclose(tensors[name], expected[name], rtol=1e-2, atol=1e-2 * norm), name
