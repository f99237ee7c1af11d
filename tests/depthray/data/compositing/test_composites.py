"""`depthray data composite`: pictures, masks and boxes agree, the seed decides, an interrupted call goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from depthray.cli import data as command
from depthray.cli.datasets import composite
from depthray.config.sections import Data
from depthray.data.compositing import composite_folder
from depthray.data.compositing.composites import CompositePlan, Pictures, fit_background, place
from depthray.data.compositing.cutouts import read_cutout
from depthray.data.source import notes
from depthray.data.sources import open_source, recognise
from depthray.errors import DataError, DepthrayError, UsageError
from depthray.imaging import photos

COLOURS = ((250, 10, 20), (10, 240, 30), (20, 30, 250))


def save(path: Path, pixels: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    order = [2, 1, 0, 3][: pixels.shape[2]] if pixels.ndim == 3 else slice(None)
    assert cv2.imwrite(str(path), pixels[..., order] if pixels.ndim == 3 else pixels)
    return path


def disc(colour: Sequence[int], *, size: tuple[int, int] = (40, 30), margin: int = 6) -> NDArray[np.uint8]:
    """(H,W,4) an ellipse of a colour, everything around it transparent, and of another colour."""
    rgba = np.zeros((size[0] + 2 * margin, size[1] + 3 * margin, 4), np.uint8)
    rgba[..., :3] = 255 - np.array(colour)
    centre = (margin + size[1] // 2, margin + size[0] // 2)
    inside = cv2.ellipse(np.zeros(rgba.shape[:2], np.uint8), centre, (size[1] // 2, size[0] // 2), 0, 0, 360, 1, -1)
    rgba[inside > 0] = (*colour, 255)
    return rgba


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three objects, and four backgrounds of different size and of one grey each."""
    for number, colour in enumerate(COLOURS):
        save(tmp_path / "fg" / f"object-{number}.png", disc(colour))
    for number, size in enumerate([(60, 90), (80, 80), (90, 60), (64, 64)]):
        save(tmp_path / "bg" / f"room-{number}.png", np.full((*size, 3), 60 + 20 * number, np.uint8))
    return tmp_path / "fg", tmp_path / "bg"


def plan_of(folders: tuple[Path, Path], out: Path, **changes: Any) -> CompositePlan:
    usual: dict[str, Any] = {
        **{"masks": None, "size": (48, 64), "placements": 2, "per_background": None, "scale": (0.3, 0.8)},
        **{"flip": 0.5, "seed": 3, "quality": 95, "teacher": ""},
    }
    return CompositePlan(**{"foregrounds": folders[0], "backgrounds": folders[1], "out": out, **usual, **changes})


def write(plan: CompositePlan, **options: Any) -> int:
    return composite_folder.write(plan, Pictures.of(plan), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*words: object) -> int:
    return command.main(["composite", *map(str, words)])


def test_the_form_reads_what_the_command_writes(folders: tuple[Path, Path], tmp_path: Path, capsys: Any) -> None:
    assert run(*folders, tmp_path / "out", "--size", 48, 64, "--placements", 3, "--seed", 5) == 0
    assert "36 composites without depth at" in capsys.readouterr().out and recognise(tmp_path / "out") == "modest"
    section = {"inputs": ("image", "background"), "targets": ("depth", "mask"), "val_fraction": 0.34}
    source = open_source(Data(source="modest", root=str(tmp_path / "out"), **section))
    assert {frame.split for frame in source.frames} == {"train", "val"} and "left out" in notes(source)[0]
    boxes = dict(
        (line[0], [int(each) for each in line[1:]])
        for line in (text.split("\t") for text in (tmp_path / "out" / "bbox.txt").read_text().splitlines())
    )
    assert len(boxes) == 36
    for index, frame in enumerate(source.frames):
        sample = source.read(index)
        grey, colour = 60 + 20 * (int(frame.scene[2:]) - 1), COLOURS[int(frame.id.split("_")[1][2:]) - 1]
        assert sample["image"].shape == (48, 64, 3) and np.abs(sample["background"].astype(int) - grey).max() <= 2
        mask = sample["mask"] > 0
        inner, outer = cv2.erode(sample["mask"], np.ones((7, 7))) > 0, cv2.dilate(sample["mask"], np.ones((9, 9))) == 0
        assert np.abs(sample["image"][inner].astype(int) - colour).mean() < 8
        assert np.abs(sample["image"][outer].astype(int) - grey).mean() < 4
        rows, columns = np.nonzero(mask)
        assert boxes[f"{frame.id}.jpeg"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert 0.28 * 48 <= np.ptp(rows) + 1 <= 0.72 * 48 and not sample["depth"].any()


def test_composites_without_depth_are_no_faulty_set(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*folders, tmp_path / "out", "--size", 48, 64) == 0
    assert command.main(["pack", str(tmp_path / "out"), str(tmp_path / "packed")]) == 0
    for name in ("out", "packed"):
        capsys.readouterr()
        assert command.main(["check", str(tmp_path / name)]) == 0
        printed = capsys.readouterr().out
        assert "no findings" in printed and "note: no frame has depth: a set for masks alone" in printed


def test_depth_is_that_of_the_teacher_of_the_composites(folders: tuple[Path, Path], tmp_path: Path) -> None:
    seen: list[int] = []

    def label(images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        seen.append(len(images))
        return [np.asarray(1 + image[..., 0] / 50, np.float32) for image in images]

    assert write(plan_of(folders, tmp_path / "out", teacher="network"), label=label) == 24
    assert sum(seen) == 24 and max(seen) == composite_folder.AT_ONCE
    source = open_source(Data(source="modest", root=str(tmp_path / "out"), val_fraction=0.0))
    for index in range(3):
        sample = source.read(index)
        assert np.abs(sample["depth"] - (1 + sample["image"][..., 0] / 50.0)).mean() < 0.2
    assert source.encoding(0) == "uint16_mm"  # type: ignore[attr-defined]


def test_the_seed_decides_and_files_do_not_depend_on_others(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 4})):
        write(plan_of(folders, tmp_path / name, **changes))
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second and first["bbox.txt"] != other["bbox.txt"]
    (folders[1] / "room-9.png").write_bytes((folders[1] / "room-0.png").read_bytes())
    write(plan_of(folders, tmp_path / "d"))
    more = contents(tmp_path / "d")
    pictures = {name for name in first if name.endswith((".png", ".jpeg"))}
    assert len(pictures) == 52 and all(more[name] == first[name] for name in pictures)


def test_an_interrupted_call_goes_on_and_labels_nothing_twice(folders: tuple[Path, Path], tmp_path: Path) -> None:
    labelled: list[int] = []

    def label(images: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        if sum(labelled) >= 16:
            raise KeyboardInterrupt
        labelled.append(len(images))
        return [np.full(image.shape[:2], 2, np.float32) for image in images]

    plan = plan_of(folders, tmp_path / "out", teacher="network")
    with pytest.raises(KeyboardInterrupt):
        write(plan, label=label)
    assert not (tmp_path / "out" / "file_map.txt").exists()  # nothing that would be read as a set
    victim = next((tmp_path / "out" / "bg_fg_depth_map").iterdir())
    victim.unlink()
    labelled.clear()
    assert write(plan, label=label) == 24 and sum(labelled) == 9
    labelled.append(-1000)  # so that it labels all
    write(plan._replace(out=tmp_path / "whole"), label=label)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_some_objects_of_each_background(folders: tuple[Path, Path], tmp_path: Path) -> None:
    plan = plan_of(folders, tmp_path / "out", per_background=2, placements=1)
    assert write(plan) == Pictures.of(plan).number_of_composites(plan) == 8
    pairs = [
        line.split("\t")[1].split("_")[:2] for line in (tmp_path / "out" / "file_map.txt").read_text().splitlines()
    ]
    assert len({tuple(pair) for pair in pairs}) == 8 and len({person for _, person in pairs}) == 3


@pytest.mark.parametrize("value", [1, 255])
def test_masks_cut_out_as_alpha_does(folders: tuple[Path, Path], tmp_path: Path, value: int) -> None:
    for path in folders[0].iterdir():
        rgba = photos.read_alpha(path)
        save(tmp_path / "plain" / path.name, rgba[..., :3])
        save(tmp_path / "masks" / f"{path.stem}_mask.png", (rgba[..., 3] > 0).astype(np.uint8) * np.uint8(value))
    write(plan_of(folders, tmp_path / "alpha"))
    write(plan_of((tmp_path / "plain", folders[1]), tmp_path / "masked", masks=tmp_path / "masks"))
    of_alpha, of_masks = contents(tmp_path / "alpha"), contents(tmp_path / "masked")
    assert of_alpha["bbox.txt"] == of_masks["bbox.txt"]
    assert all(of_alpha[name] == of_masks[name] for name in of_alpha if name.endswith((".png", ".jpeg")))


def test_transparent_pixels_do_not_bleed_in_and_wide_objects_fit(folders: tuple[Path, Path], tmp_path: Path) -> None:
    plan = plan_of(folders, tmp_path, scale=(0.9, 0.9), size=(48, 64))
    rgba = disc((200, 200, 200), size=(60, 60))
    rgba[rgba[..., 3] == 0] = (255, 0, 0, 0)  # as editors leave it
    grey = np.full((48, 64, 3), 200, np.uint8)
    placed = place(read_cutout(save(tmp_path / "x.png", rgba), largest=128), grey, plan, key="x")
    assert np.abs(placed.image.astype(int) - 200).max() <= 1 and placed.box[3] in (42, 43, 44)
    wide = read_cutout(save(tmp_path / "wide.png", disc((9, 9, 9), size=(40, 400))), largest=128)
    assert max(wide.cover.shape) <= 128
    left, _, width, height = place(wide, grey, plan, key="y").box
    assert left <= 1 and 62 <= width <= 64 and height <= 8


def test_a_background_is_the_middle_of_its_picture() -> None:
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = 200
    assert np.all(fit_background(picture, (20, 20)) == 200)
    assert fit_background(picture[:, 30:70], (30, 60)).shape == (30, 60, 3)


def bad_no_alpha(root: Path) -> str:
    save(root / "fg" / "flat.png", np.zeros((20, 20, 3), np.uint8))
    return r"fg/flat\.png: has no alpha channel; give a PNG or WebP that has one, or masks"


def bad_opaque(root: Path) -> str:
    save(root / "fg" / "full.png", np.full((20, 20, 4), 255, np.uint8))
    return r"fg/full\.png: nothing is cut out"


def bad_clear(root: Path) -> str:
    save(root / "fg" / "clear.png", np.zeros((20, 20, 4), np.uint8))
    return r"fg/clear\.png: nothing of the object is seen"


def bad_damaged(root: Path) -> str:
    path = save(root / "fg" / "broken.png", disc((1, 2, 3)))
    path.write_bytes(path.read_bytes()[:90])
    return r"fg/broken\.png: damaged"


def bad_empty(root: Path) -> str:
    for path in (root / "bg").iterdir():
        path.unlink()
    return r"bg: has no pictures \(jpg"


def bad_missing(root: Path) -> str:
    (root / "bg").rename(root / "elsewhere")
    return r"bg: no such folder"


@pytest.mark.parametrize("spoil", [bad_no_alpha, bad_opaque, bad_clear, bad_damaged, bad_empty, bad_missing])
def test_bad_pictures_are_named_and_leave_no_set(folders: tuple[Path, Path], tmp_path: Path, spoil: Any) -> None:
    message = spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        run(*folders, tmp_path / "out", "--size", 48, 64)
    assert not (tmp_path / "out" / "file_map.txt").exists()


FLAGS = [
    (("--placements", 0), r"--placements 0: must be at least 1 and at most 1000"),
    (("--scale", 0.8, 0.3), r"--scale 0\.8 0\.3: the second must be at least the first"),
    (("--scale", 0.5, 1.5), r"--scale 0\.5 1\.5: .* at most 1"),
    (("--flip", "nan"), r"--flip nan"),
    (("--size", 4, 64), r"--size 4: must be at least 8"),
    (("--masks", "NOWHERE"), r"object-0\.png: no mask of it in NOWHERE"),
    (("--teacher", "NOWHERE"), r"NOWHERE"),
]


@pytest.mark.parametrize(("flags", "message"), FLAGS)
def test_bad_flags_are_named(folders: tuple[Path, Path], tmp_path: Path, flags: Any, message: str) -> None:
    with pytest.raises(DepthrayError, match=message):
        run(*folders, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_or_of_another_plan_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    plan = plan_of(folders, tmp_path / "out")
    write(plan)
    with pytest.raises(UsageError, match=r"out: was begun with seed 3, and now it is 4; choose another folder"):
        write(plan._replace(seed=4))
    save(folders[0] / "object-7.png", disc((5, 5, 5)))
    with pytest.raises(UsageError, match=r"out: was begun with other foregrounds"):
        write(plan)
    with pytest.raises(UsageError, match=r"fg: holds other files"):
        write(plan._replace(out=folders[0]))
    (tmp_path / "out" / "composite.json").write_text("{")
    with pytest.raises(DataError, match=r"composite\.json: damaged"):
        write(plan)
    assert len((tmp_path / "out" / "names.txt").read_text().splitlines()) == 7


def test_a_teacher_must_predict_metres(
    monkeypatch: pytest.MonkeyPatch, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    class OfMasks:
        """What is known of a network that predicts masks."""

        recipe = type("Recipe", (), {"data": Data(targets=("mask",))})

    monkeypatch.setattr("depthray.predict.load", lambda path: OfMasks())
    with pytest.raises(UsageError, match=r"--teacher network: predicts no depth"):
        composite._labeller(plan_of(folders, tmp_path, teacher="network"))
