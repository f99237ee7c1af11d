"""What the parity gate measured, as text, as JSON and as a picture of the errors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from depthray.errors import UsageError
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.metrics import UNITS
from depthray.exporting.gate import GateRow, Parity, PicturedFrame
from depthray.imaging import sheets
from depthray.imaging.ticks import round_step
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import to_json

TEXT, JSON, PICTURE = FILES = ("parity.md", "parity.json", "parity.png")
COLUMNS = ("image", "checkpoint", "export", "difference")


def write(parity: Parity, folder: Path, *, title: str) -> None:
    """Write the three files into a folder, which is made if need be."""
    with translate_os_errors(folder, to=UsageError, doing="write the report", advice="give another --out"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TEXT).write_text(markdown(parity, title=title), encoding="utf-8")
        (folder / JSON).write_text(to_json(as_tree(parity), indent=1) + "\n", encoding="utf-8")
        sheets.save_png(folder / PICTURE, picture(parity))


def as_tree(parity: Parity) -> dict[str, Any]:
    """Everything but the pictures, for programs and for `model.json`."""
    return {
        "passed": parity.passed,
        "precision": parity.precision,
        "rule": parity.rule,
        "bound": parity.bound,
        "measured": parity.measured,
        "protocol": parity.protocol,
        "frames": parity.about,
        "scenes": parity.scenes,
        "notes": list(parity.notes),
        "rows": [asdict(row) for row in parity.rows],
    }


def markdown(parity: Parity, *, title: str) -> str:
    """The report as Markdown whose tables also line up in a terminal."""
    parts = [
        f"# {title}",
        verdict(parity),
        *parity.notes,
        f"{parity.rows[0].frames} frames of {parity.scenes} scenes: {parity.about}.",
        "## Differences of maps",
        markdown_table(["size", "batch", "output", "largest", "99.9th percentile", "relative"], _error_lines(parity)),
        f"## Scores under protocol {parity.protocol}",
        markdown_table(
            ["size", "batch", "metric", "checkpoint", "export", "change", "relative", "95 % interval of the change"],
            _score_lines(parity),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def verdict(parity: Parity) -> str:
    """One line: passed or not, what was measured and what is allowed."""
    unit = f"{parity.measured:.2g}" if parity.precision == "fp32" else f"{parity.measured:+.2%}"
    return f"{'PASSED' if parity.passed else 'FAILED'}: {parity.rule}; measured {unit}."


def picture(parity: Parity) -> sheets.RgbImage:
    """Frames, the maps of checkpoint and export, and their difference on a scale of its own."""
    frames = parity.pictured
    largest = max((_difference(frame) for frame in frames), default=0.0)
    step = round_step(max(largest, 1e-9) / 3)  # few, as the labels are long
    error = sheets.ColourScale(0.0, float(np.ceil(max(largest, 1e-9) / step) * step), step)
    return sheets.draw_sheet([_row(frame) for frame in frames], error=error, columns=COLUMNS)


def _row(frame: PicturedFrame) -> sheets.SheetRow:
    kind: sheets.Kind = "mask" if frame.output == "mask" else "depth"
    unit = "" if kind == "mask" else " m"
    caption = f"{frame.output}: at most {_difference(frame):.2g}{unit}"
    return sheets.SheetRow(frame.id, frame.image, frame.expected, frame.predicted, kind=kind, caption=caption)


def _difference(frame: PicturedFrame) -> float:
    values = np.abs(frame.predicted - frame.expected)
    return float(values[np.isfinite(values)].max(initial=0.0))


def _error_lines(parity: Parity) -> list[list[str]]:
    return [
        [*_where(row), key, f"{error.largest:.2g}{unit}", f"{error.p999:.2g}{unit}", f"{error.relative:.2g}"]
        for row in parity.rows
        for key, error in row.errors.items()
        for unit in ["" if key == "mask" else " m"]
    ]


def _score_lines(parity: Parity) -> list[list[str]]:
    return [
        [
            *_where(row),
            f"{name} [{UNITS[name]}]" if name in UNITS else name,
            *(f"{value:.4f}" for value in (score.before, score.after)),
            f"{score.after - score.before:+.2g}",
            f"{score.relative:+.2%}",
            f"{score.low:+.2g} to {score.high:+.2g}",
        ]
        for row in parity.rows
        for name, score in row.scores.items()
    ]


def _where(row: GateRow) -> list[str]:
    return [f"{row.size[1]}x{row.size[0]}", str(row.batch)]
