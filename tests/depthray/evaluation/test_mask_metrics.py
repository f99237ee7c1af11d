"""Scores of masks against masks drawn by hand and against NumPy, and the evaluation of networks that predict them."""

import csv
import io
import json
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from scoring import BATCH, COUNT, DATA, Net, Rooms

from depthray.data.loader import eval_batches
from depthray.errors import DataError, UsageError
from depthray.evaluation import report
from depthray.evaluation.evaluate import EvaluationReport, evaluate, sheet_rows
from depthray.evaluation.mask_metrics import MASK_METRICS, boundary, boundary_f1, mask_scores, probability, tolerance
from depthray.evaluation.metrics import METRICS
from depthray.evaluation.protocols import PLAIN
from depthray.evaluation.report import Evaluation
from depthray.imaging import sheets
from depthray.training.loop import validate
from depthray.training.preflight import load

CPU = torch.device("cpu")


def box(top, left, height, width, size=(40, 50)):
    mask = torch.zeros(1, 1, *size)
    mask[..., top : top + height, left : left + width] = 1
    return mask


def logits(mask):
    return mask * 8 - 4


def score(predicted, expected):
    return {name: float(value[0]) for name, value in mask_scores(logits(predicted), expected).items()}


def blobs(count, seed, size=(37, 53)):
    """Masks (count,1,H,W) of a few random ellipses each."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *size), np.uint8)
    for mask in masks:
        for _ in range(rng.integers(1, 4)):
            centre, axes = rng.integers(5, 45, 2).tolist(), rng.integers(3, 15, 2).tolist()
            cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return torch.from_numpy(masks)[:, None].float()


def numpy_scores(predicted, expected, radius):
    """One pair of (H,W) bool masks, by sets and distances."""

    def edge(mask):
        around = np.pad(mask, 1, mode="edge")
        shifted = [around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]]
        return np.argwhere(mask & ~np.all(shifted, axis=0))

    ours, theirs = edge(predicted), edge(expected)
    apart = np.hypot(*(ours[:, None] - theirs[None]).transpose(2, 0, 1))
    precision, recall = (apart.min(axis=1) <= radius).mean(), (apart.min(axis=0) <= radius).mean()
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    both = np.count_nonzero(predicted & expected)
    dice = 2 * both / (np.count_nonzero(predicted) + np.count_nonzero(expected))
    return {"iou": both / np.count_nonzero(predicted | expected), "dice": dice, "boundary_f1": f1}


def test_of_two_overlapping_boxes():
    scores = score(box(10, 10, 10, 10), box(10, 15, 10, 10))
    assert scores["iou"] == 50 / 150 and scores["dice"] == 0.5


def test_agrees_with_numpy_on_random_shapes():
    result, wanted = blobs(12, seed=0), blobs(12, seed=1)
    wanted[::2] = torch.roll(result[::2], 1, -1)
    values = mask_scores(logits(result), wanted)
    for position in range(12):
        predicted, truth = (mask[position, 0].numpy() > 0.5 for mask in (result, wanted))
        expected = numpy_scores(predicted, truth, tolerance(37, 53))
        assert {name: float(values[name][position]) for name in MASK_METRICS} == pytest.approx(expected, rel=1e-12)
    assert values["boundary_f1"].min() < 0.2 and values["boundary_f1"].max() > 0.8


def test_boundary_is_the_outermost_foreground_but_not_the_frame():
    assert boundary(box(10, 10, 10, 8) > 0).sum() == 2 * 10 + 2 * 6
    corner = boundary(box(0, 0, 10, 8) > 0)[0, 0]
    assert corner.sum() == 10 + 8 - 1 and not corner[0, 0] and corner[9, 7]


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (2, 1.0), (3, 0.0)])
def test_boundary_counts_within_the_tolerance(shift, expected):
    line, moved = (box(10, left, 20, 1) > 0 for left in (10, 10 + shift))
    assert boundary_f1(line, moved, radius=2).tolist() == [expected]


@pytest.mark.parametrize(("size", "pixels"), [((128, 160), 2), ((224, 224), 3), ((480, 640), 7)])
def test_tolerance_grows_with_the_image(size, pixels):
    assert tolerance(*size) == pixels


def test_empty_and_full_masks():
    empty, full, some = box(0, 0, 0, 0), box(0, 0, 40, 50), box(5, 5, 9, 9)
    assert score(empty, empty) == score(full, full) == dict.fromkeys(MASK_METRICS, 1.0)
    assert score(empty, some) == score(some, empty) == score(empty, full) == dict.fromkeys(MASK_METRICS, 0.0)
    assert score(full, some)["boundary_f1"] == 0


def test_logits_are_resized_to_the_truth_and_nan_is_background():
    truth = box(10, 10, 20, 20, size=(40, 40))
    coarse = logits(box(5, 5, 10, 10, size=(20, 20)))
    assert mask_scores(coarse, truth)["iou"][0] == pytest.approx(1, abs=0.05)
    broken = torch.full_like(truth, torch.nan)
    assert probability(broken, size=(40, 40)).max() == 0 and mask_scores(broken, truth)["iou"][0] == 0


class Figures(Rooms):
    """Rooms with a box in the foreground, larger from frame to frame."""

    def __init__(self, keys):
        super().__init__()
        self.keys = frozenset(keys)

    def read(self, index):
        sample = super().read(index)
        mask = np.zeros(sample["depth"].shape, np.uint8)
        mask[8:20, 4 : 8 + index] = 1
        sample["mask"] = mask
        return {key: value for key, value in sample.items() if key in self.keys | {"id", "scene", "source"}}


class Masks(Net):
    """Predicts the same box as the foreground of every frame, and depth on request."""

    def __init__(self, *, depth=False):
        super().__init__()
        self.depth = depth

    def forward(self, batch):
        mask = torch.zeros_like(batch["image"][:, :1])
        mask[..., 8:20, 4:14] = 1
        return {"mask": logits(mask), **(super().forward(batch) if self.depth else {})}


def run(*, depth=False, keys=("image", "depth", "mask"), **process):
    batches = eval_batches(Figures(keys), range(COUNT), DATA, batch_size=BATCH, **process)
    return evaluate(Masks(depth=depth), batches, protocol=PLAIN, device=CPU)


@pytest.mark.parametrize("keys", [("image", "mask"), ("image", "depth", "mask")])
def test_a_network_of_masks_alone_has_no_scores_of_depth(keys, tmp_path):
    evaluation = run(keys=keys)
    assert tuple(evaluation.scores()) == MASK_METRICS
    summary = evaluation.summary()
    assert summary["frames_scored"] == COUNT and summary["ranges"] == [] and "pixels" not in summary
    assert all(0 < value["low"] <= value["mean"] <= value["high"] <= 1 for value in summary["overall"].values())
    evaluation.write(tmp_path)
    text = (tmp_path / "evaluation.md").read_text()
    assert "boundary_f1" in text and "abs_rel" not in text and "By true depth" not in text
    assert json.loads((tmp_path / "evaluation.json").read_text())["scenes"][0]["iou"] < evaluation.scores()["iou"]


def test_scores_of_a_mask_are_those_of_its_frames():
    evaluation = run(keys=("image", "mask"))
    lines = list(csv.DictReader(io.StringIO(report.as_csv(evaluation))))
    assert float(lines[0]["iou"]) == pytest.approx(4 / 10) and float(lines[6]["iou"]) == 1
    assert evaluation.scores()["iou"] == math.fsum(float(line["iou"]) for line in lines) / COUNT


def test_depth_and_mask_are_both_scored():
    both, masks = run(depth=True), run()
    assert tuple(both.scores()) == (*METRICS, *MASK_METRICS)
    assert {name: both.scores()[name] for name in MASK_METRICS} == masks.scores()
    summary = both.summary()  # frame 3 has no depth, but a mask
    assert summary["frames_scored"] == COUNT - 1 and summary["overall"]["iou"] == masks.summary()["overall"]["iou"]
    assert len({len(line) for line in report.markdown(summary).split("\n\n")[-1].splitlines()}) == 1


@pytest.mark.parametrize("world_size", [2, 3])
def test_dealing_batches_does_not_change_a_bit(world_size):
    parts = [run(depth=True, rank=rank, world_size=world_size) for rank in range(world_size)]
    rows = sorted((row for part in parts for row in part.rows), key=lambda row: row.index)
    assert report.as_json(Evaluation(PLAIN, rows).summary()) == report.as_json(run(depth=True).summary())


def test_frames_are_ranked_by_iou_where_there_is_no_depth():
    evaluation = run(keys=("image", "mask"))
    values = [row.score("iou") for row in evaluation.ranked()]
    assert values == sorted(values, reverse=True) and evaluation.ranked_by == "iou"
    assert evaluation.best_median_worst()[0][1].index == 6


def test_neither_depth_nor_mask_is_an_error():
    with pytest.raises(DataError, match="neither depth nor a mask"):
        run(keys=("image",))


def test_sheets_have_a_row_for_depth_and_one_for_the_mask(tmp_path):
    batches = eval_batches(Figures(("image", "depth", "mask")), [1], DATA, batch_size=1)
    rows = sheet_rows(Masks(depth=True), batches, protocol=PLAIN, device=CPU)
    assert [row.kind for row in rows] == ["depth", "mask"]
    assert set(np.unique(rows[1].truth)) == {0, 1} and 0 < rows[1].prediction.min() < 0.5 < rows[1].prediction.max() < 1
    EvaluationReport(run(depth=True), rows).write(tmp_path)
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None


def test_a_sheet_of_masks_is_black_and_white_with_their_iou():
    batches = eval_batches(Figures(("image", "mask")), [6], DATA, batch_size=1)
    (row,) = sheet_rows(Masks(), batches, protocol=PLAIN, device=CPU)
    assert sheets._score_text(row, row.prediction) == "mask IoU 1.000"
    assert sheets._score_text(row._replace(score=0.25), row.prediction) == "mask IoU 0.250"
    sheet, width = sheets.draw_sheet([row]), sheets._tile_width([row])
    tile = sheet[74 + 30 :, sheets._column_start(1, width) :][:170, :width]
    assert tile[100, 20].tolist() == [0, 0, 0] and tile[100, width // 4].tolist() == [255, 255, 255]


def place_of(overrides):
    """A recipe, a state and frames as `validate` wants them."""
    recipe = load("demo", overrides)
    source = Figures(("image", "mask"))
    frames = SimpleNamespace(
        source=source,
        fixed_frames=lambda: [0, 6],
        val_batches=lambda: eval_batches(source, range(COUNT), DATA, batch_size=4),
    )
    return recipe, SimpleNamespace(model=Masks(), predictor=Masks(), device=CPU), frames


def test_validation_by_iou():
    evaluation, rows = validate(*place_of(["eval.monitor=iou", "data.targets=mask"]))
    scores = evaluation.scores()
    assert tuple(scores) == MASK_METRICS and [row.kind for row in rows] == ["mask", "mask"]


def test_a_monitor_that_is_not_scored_is_an_error_that_names_those_that_are():
    with pytest.raises(UsageError, match=r"eval\.monitor=abs_rel is not scored here.*iou, dice, boundary_f1"):
        validate(*place_of([]))


def test_void_pixels_are_not_scored():
    truth, predicted = box(5, 5, 20, 20), box(5, 5, 20, 40)
    valid = torch.ones(1, 1, 40, 50, dtype=torch.bool)
    valid[..., 20:] = False
    values = mask_scores(logits(predicted), truth, valid=valid)
    assert {name: float(value) for name, value in values.items()} == {"iou": 1.0, "dice": 1.0, "boundary_f1": 1.0}
    assert score(predicted, truth)["iou"] == pytest.approx(0.5)
    assert not boundary(truth.bool() & valid, valid)[..., 10:15, 19].any()


def test_masks_are_scored_at_their_own_size():
    class Fine(Rooms):
        """Masks of columns one pixel wide, which the network's size does not show."""

        def read(self, index):
            sample = super().read(index)
            sample["mask"] = (np.indices(sample["image"].shape[:2])[1] % 4 == 0).astype(np.uint8)
            return sample

    half = DATA.model_copy(update={"size": (DATA.size[0] // 2, DATA.size[1] // 2), "targets": ("mask",)})
    source = Fine(1)
    [(_, batch)] = eval_batches(source, [0], half, batch_size=2)
    native = source.read(0)["image"].shape[:2]
    assert batch["mask"].shape[-2:] == native and batch["image"].shape[-2:] == half.size != native
    as_input = half.model_copy(update={"inputs": ("image", "mask"), "targets": ("depth",)})
    [(_, batch)] = eval_batches(source, [0], as_input, batch_size=2)
    assert batch["mask"].shape[-2:] == half.size
