"""Contact sheets of a report: the same four validation frames through the best networks, on one scale in metres."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from depthray.config import recipe as recipes
from depthray.data.mixing import data_sets
from depthray.errors import DepthrayError
from depthray.runs import layout, locate
from depthray.storage import local
from tuning.report import phrases
from tuning.report.report_data import ReportData
from tuning.study.outcome import Outcome

if TYPE_CHECKING:  # the report must not import torch before it draws
    from depthray.config.sections import Recipe
    from depthray.imaging.sheets import RgbImage

BEST_SHOWN = 3
MAX_WIDTH, MAX_BYTES = 1600, 900_000  # pixels, bytes: the page is sent by mail
QUALITIES = (88, 80, 70, 55)


class Sheet(NamedTuple):
    """A contact sheet as it is embedded in a page."""

    trial: str
    label: str
    score: str
    caption: str
    data: str  # data: URL of a JPEG
    width: int
    height: int


class Sheets(NamedTuple):
    """Contact sheets, and why some are missing."""

    sheets: tuple[Sheet, ...]
    missing: str = ""


def sample_sheets(folder: Path, report: ReportData, *, data: Path | str | None = None) -> Sheets:
    """Contact sheets of the best configurations and the default; `data` replaces the recipe's data.root.

    A sheet is cached in its trial's folder under the name of its checkpoint. Without frames, weights or memory the
    report is made without images.
    """
    made: list[Sheet] = []
    reasons: dict[str, None] = {}
    for label, each in configurations_shown(report):
        try:
            made.append(_sheet(layout.trial(folder, each.name), label, each, report, data))
        # Whatever is missing or too large: a report without images is better than none.
        except (DepthrayError, OSError, RuntimeError, ValueError, MemoryError) as error:
            reasons.setdefault(" ".join(str(error).replace(f"{folder}/", "").split())[:300])
    return Sheets(tuple(made), "; ".join(list(reasons)[:2]))


def configurations_shown(report: ReportData) -> list[tuple[str, Outcome]]:
    """The winner, the next best ones, and the baseline, each with its label."""
    winner, default = report.study.winner, report.study.default
    ranked = [each.outcome for each in report.study.ranking if not report.study.is_infeasible(each.outcome)]
    first = [winner.outcome] if winner else []
    best = [*first, *(each for each in ranked if not first or each.name != first[0].name)][:BEST_SHOWN]
    shown = [("the best" if index == 0 else f"trial {each.name}", each) for index, each in enumerate(best)]
    if default and default.name not in [each.name for each in best]:
        shown.append(("baseline", default.outcome))
    return shown


def _sheet(run: Path, label: str, each: Outcome, report: ReportData, data: Path | str | None) -> Sheet:
    jpeg, checkpoint = _cached_sheet(run, data)
    width, height = _jpeg_size(jpeg)
    score = f"{report.metric_name} {phrases.score(each.score)}"
    return Sheet(
        trial=each.name,
        label=label,
        score=score,
        caption=f"trial {each.name}, checkpoint {checkpoint}, {score} over all validation frames",
        data="data:image/jpeg;base64," + base64.b64encode(jpeg).decode(),
        width=width,
        height=height,
    )


def _cached_sheet(run: Path, data: Path | str | None) -> tuple[bytes, str]:
    """The JPEG of a run's best checkpoint, drawn unless it was before, and the checkpoint's name."""
    checkpoint = locate.resolve(run)
    cached = run / f"sheet-{checkpoint.name}.jpg"
    if not cached.is_file():
        jpeg = encode_jpeg(draw_sheet(checkpoint, data))
        for old in run.glob("sheet-*.jpg"):
            # Of earlier best checkpoints: a long search would leave one for each.
            old.unlink(missing_ok=True)
        local.replace(cached, jpeg)
    return cached.read_bytes(), checkpoint.name


def draw_sheet(checkpoint: Path, data: Path | str | None) -> RgbImage:
    """The fixed validation frames of a checkpoint's recipe.

    The scales of a sheet depend on the true depths alone, which no search changes: all sheets of a search share them.
    """
    import torch

    from depthray import predict
    from depthray.data.loader import eval_batches
    from depthray.evaluation import evaluate, protocols
    from depthray.imaging import sheets
    from depthray.training.frames import Frames

    device = torch.device("cpu")  # a GPU may be busy with the next trials
    predictor = predict.load(checkpoint, device="cpu")
    recipe = _with_data_root(predictor.recipe, data)
    frames = Frames.open(recipe)
    batches = eval_batches(frames.source, frames.fixed_frames(), recipe.data, batch_size=1)
    rows = evaluate.sheet_rows(predictor.model, batches, protocol=protocols.of(recipe), device=device)
    return sheets.draw_sheet(rows)


def _with_data_root(recipe: Recipe, data: Path | str | None) -> Recipe:
    if data is None:
        return recipe
    return data_sets.without_sets(recipe, root=recipes.absolute_path(data), intrinsics=recipe.data.intrinsics)


def encode_jpeg(sheet: RgbImage) -> bytes:
    """(H,W,3) uint8 RGB -> a JPEG at most MAX_WIDTH wide, of the best quality that fits into MAX_BYTES"""
    import cv2

    height, width = sheet.shape[:2]
    if width > MAX_WIDTH:
        size = (MAX_WIDTH, max(1, round(height * MAX_WIDTH / width)))
        # By averages of pixels: other methods lose thin lines of the text.
        sheet = cv2.resize(sheet, size, interpolation=cv2.INTER_AREA).astype(sheet.dtype)
    bgr = cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)
    jpeg = b""
    for quality in QUALITIES:  # the last is taken whatever its size
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(jpeg) <= MAX_BYTES:
            break
    return jpeg


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Width and height of a JPEG."""
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("the cached sheet is not an image; remove it")
    return image.shape[1], image.shape[0]
