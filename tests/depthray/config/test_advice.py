"""What a number of frames suggests, and when a training says so."""

from __future__ import annotations

import pytest

from depthray.config import advice
from depthray.config.sections import Model, Optim, Recipe, Train


def lines(frames: int, *, epochs: int, batch: int = 16, weights: str = "", **optim: object) -> list[str]:
    recipe = Recipe(
        model=Model(weights=weights),
        optim=Optim.model_validate(optim),
        train=Train(epochs=epochs, batch_size=batch),
    )
    return advice.lines(recipe, frames=frames, steps=epochs * (frames // batch))


def test_the_table_holds_at_its_rows_and_between_them() -> None:
    assert {frames: advice.advise(frames) for frames in advice.TABLE} == advice.TABLE
    steps = [advice.advise(frames).steps for frames in (1, 10, 60, 200, 800, 3000, 10_000, 50_000, 100_000, 1_000_000)]
    assert steps == sorted(steps) and len(set(steps)) == len(steps)
    epochs = [advice.advise(frames).steps * 16 / frames for frames in (60, 200, 800, 3000, 10_000, 100_000, 1_000_000)]
    assert epochs == sorted(epochs, reverse=True)  # more frames, fewer passes over them
    assert advice.advise(150).freeze == "optim.encoder_lr=0" and advice.advise(400).freeze == "optim.encoder_lr=0.3"


@pytest.mark.parametrize(("epochs", "batch", "lines_expected"), [(60, 16, 0), (60, 4, 0), (5, 16, 1), (1000, 16, 1)])
def test_a_recipe_far_from_the_advice_gets_a_line(epochs: int, batch: int, lines_expected: int) -> None:
    result = lines(800, epochs=epochs, batch=batch)
    assert len(result) == lines_expected
    assert all("800 training frames usually take about 60 epochs" in line for line in result)


def test_few_frames_suggest_to_keep_a_pretrained_encoder() -> None:
    (line,) = lines(60, epochs=100, batch=15, weights="imagenet")
    assert "optim.encoder_lr=0" in line and "augment.crop" in line
    assert lines(60, epochs=100, batch=15) == []
    assert lines(60, epochs=100, batch=15, weights="imagenet", encoder_lr=0) == []
    assert lines(60, epochs=100, batch=15, weights="imagenet", freeze=["encoder.*"]) == []
    assert lines(800, epochs=60, weights="imagenet") == []


def test_nothing_is_said_of_a_recipe_without_epochs() -> None:
    assert lines(800, epochs=0) == []
