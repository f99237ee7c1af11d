"""The same four validation frames as the best configurations see them, on one scale in metres."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from depthray.config import recipe as recipes
from depthray.errors import DepthrayError
from depthray.runs import locate
from depthray.storage import local
from tuning.report import phrases
from tuning.report.report_data import ReportData
from tuning.study.outcome import Outcome

if TYPE_CHECKING:
    from depthray.config.sections import Recipe
    from depthray.imaging.sheets import RgbImage

BEST_SHOWN = 3
MAX_WIDTH, MAX_BYTES = 1600, 900_000  # pixels, bytes
QUALITIES = (88, 80, 70, 55)


class Sheet(NamedTuple):
    """A contact sheet as a page holds it."""

    trial: str
    label: str
    score: str
    caption: str
    data: str  # data: address of a JPEG
    width: int
    height: int


class Sheets(NamedTuple):
    """Contact sheets, and why some are missing."""

    found: tuple[Sheet, ...]
    missing: str = ""


def sample_sheets(folder: Path, view: ReportData, *, data: Path | str | None = None) -> Sheets:
    """Contact sheets of the top configurations and the default; `data` is where the frames lie now.

    A sheet is kept in its trial's folder under the name of its checkpoint. Frames, weights or memory that are not there
    leave a report without pictures, not without a report.
    """
    found: list[Sheet] = []
    reasons: dict[str, None] = {}
    for label, each in configurations_shown(view):
        try:
            found.append(_sheet(folder / "trials" / each.name, label, each, view, data))
        except (DepthrayError, OSError, RuntimeError, ValueError, MemoryError) as error:
            reasons.setdefault(" ".join(str(error).replace(f"{folder}/", "").split())[:300])
    return Sheets(tuple(found), "; ".join(list(reasons)[:2]))


def configurations_shown(view: ReportData) -> list[tuple[str, Outcome]]:
    """The winner, the next best ones, and the recipe as it was given, each with its label."""
    ranking = [each.outcome for each in view.ranking]
    first = [view.winner.outcome] if view.winner else []
    others = [each for each in ranking if not first or each.name != first[0].name]
    best = [*first, *others][:BEST_SHOWN]
    found = [("the best" if place == 0 else f"trial {each.name}", each) for place, each in enumerate(best)]
    own = [view.default.outcome] if view.default else []
    return [*found, *(("as given", each) for each in own if each.name not in [each.name for each in best])]


def _sheet(run: Path, label: str, each: Outcome, view: ReportData, data: Path | str | None) -> Sheet:
    picture, checkpoint = _cached_sheet(run, data)
    width, height = _jpeg_size(picture)
    score = f"{phrases.NAMES.get(view.metric, view.metric)} {phrases.score(each.score)}"
    return Sheet(
        trial=each.name,
        label=label,
        score=score,
        caption=f"trial {each.name}, checkpoint {checkpoint}, {score} over all validation frames",
        data="data:image/jpeg;base64," + base64.b64encode(picture).decode(),
        width=width,
        height=height,
    )


def _cached_sheet(run: Path, data: Path | str | None) -> tuple[bytes, str]:
    """The JPEG of a run's best checkpoint, drawn unless it was before, and the checkpoint's name."""

    path = locate.resolve(run)
    kept = run / f"sheet-{path.name}.jpg"
    if not kept.is_file():
        picture = encode_jpeg(draw_sheet(path, data))
        for old in run.glob("sheet-*.jpg"):
            old.unlink(missing_ok=True)
        local.replace(kept, picture)
    return kept.read_bytes(), path.name


def draw_sheet(path: Path, data: Path | str | None) -> RgbImage:
    """The fixed validation frames of a checkpoint's recipe.

    The scales of a sheet depend on the truths alone, and no search changes these: sheets of a search share one.
    """
    import torch

    from depthray import predict
    from depthray.data.loader import eval_batches
    from depthray.evaluation import evaluate
    from depthray.evaluation.protocols import PROTOCOLS
    from depthray.imaging import sheets as picture
    from depthray.training.frames import Frames

    device = torch.device("cpu")  # a GPU may be busy with the trials to come
    predictor = predict.load(path, device="cpu")
    recipe = _with_data_root(predictor.recipe, data)
    frames = Frames.open(recipe)
    batches = eval_batches(frames.source, frames.fixed(), recipe.data, batch_size=1)
    protocol = PROTOCOLS[recipe.eval.protocol]
    return picture.draw_sheet(evaluate.pictures(predictor.model, batches, protocol=protocol, device=device))


def _with_data_root(recipe: Recipe, data: Path | str | None) -> Recipe:
    """The recipe with its frames where they lie now."""
    if data is None:
        return recipe
    section = recipe.data.model_copy(update={"root": recipes.located(data)})
    return recipe.model_copy(update={"data": section})


def encode_jpeg(sheet: RgbImage) -> bytes:
    """(H,W,3) uint8 RGB -> a JPEG no wider than WIDEST, as good as fits into LARGEST bytes."""
    import cv2

    height, width = sheet.shape[:2]
    if width > MAX_WIDTH:
        size = (MAX_WIDTH, max(1, round(height * MAX_WIDTH / width)))
        sheet = cv2.resize(sheet, size, interpolation=cv2.INTER_AREA).astype(sheet.dtype)
    bgr = cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)
    tries: Sequence[bytes] = ()
    for quality in QUALITIES:
        tries = [cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()]
        if len(tries[-1]) <= MAX_BYTES:
            break
    return tries[-1]


def _jpeg_size(picture: bytes) -> tuple[int, int]:
    """Width and height of a JPEG."""
    import cv2
    import numpy as np

    found = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise ValueError("the kept sheet is no picture; remove it")
    return found.shape[1], found.shape[0]
