"""Learning rates and momentum against hand-computed values and torch's own schedulers, and the plateau's drops."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from depthray.config.sections import Finetune, Optim, Recipe, Train
from depthray.training.schedule import Phases, Plateau, learning_rate, momentum


def rate(step, *, schedule="constant", total=100, lr=1.0, epoch=10, drops=0, **options):
    steps_per_epoch = epoch if total % epoch == 0 else total
    recipe = Recipe(optim=Optim(schedule=schedule, lr=lr, **options), train=Train(epochs=total // steps_per_epoch))
    return learning_rate(recipe, step, steps_per_epoch=steps_per_epoch, drops=drops)


@pytest.mark.parametrize(
    ("schedule", "options", "expected"),
    [
        ("constant", {}, {0: 1, 99: 1}),
        ("constant", {"warmup_steps": 4}, {0: 0.25, 1: 0.5, 3: 1, 4: 1}),
        ("cosine", {}, {0: 1, 25: 0.5 + 0.25 * math.sqrt(2), 50: 0.5, 75: 0.5 - 0.25 * math.sqrt(2), 100: 0}),
        ("cosine", {"min_lr": 0.2}, {0: 1, 50: 0.6, 100: 0.2, 120: 0.2}),
        ("cosine", {"warmup_steps": 20}, {9: 0.5, 19: 1, 20: 1, 60: 0.5, 100: 0}),
        ("onecycle", {"onecycle": "legacy"}, {0: 0.04, 15: 0.52, 30: 1, 65: 0.5, 100: 0}),
        (
            "onecycle",
            {"onecycle": "legacy", "warmup_steps": 50, "min_lr": 0.1},
            {0: 0.04, 25: 0.52, 50: 1, 75: 0.55, 100: 0.1},
        ),
        ("onecycle", {"warmup_steps": 51, "min_lr": 0.1}, {0: 0.04, 25: 0.52, 50: 1, 99: 0.1, 120: 0.1}),
        ("step", {"step_epochs": 3, "step_delay": 2}, {49: 1, 50: 0.1, 79: 0.1, 80: 0.01}),
        ("step", {"step_epochs": 3}, {29: 1, 30: 0.1, 59: 0.1, 60: 0.01}),
        ("step", {"step_epochs": 3, "step_factor": 0.5, "warmup_steps": 2}, {0: 0.5, 2: 1, 30: 0.5, 90: 0.125}),
    ],
)
def test_schedules(schedule, options, expected):
    rates = {step: rate(step, schedule=schedule, **options) for step in expected}
    assert rates == pytest.approx(expected, abs=1e-12)


def torch_onecycle(name, *, total, **options):
    """Rate and momentum of each step as torch's OneCycleLR sets them, and as ours do."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    rest = {"momentum": 0.9} if name == "sgd" else {}
    optimiser = kinds[name]([torch.nn.Parameter(torch.zeros(1))], lr=1.0, **rest)
    scheduler = OneCycleLR(optimiser, max_lr=0.3, total_steps=total, **options)
    for _ in range(total):
        group = optimiser.param_groups[0]
        yield group["lr"], group["momentum"] if name == "sgd" else group["betas"][0]
        optimiser.step()
        if scheduler.last_epoch < total - 1:
            scheduler.step()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(
    ("total", "section", "options"),
    [
        (100, {}, {}),
        (2240, {}, {}),
        (7, {}, {}),
        (4, {}, {}),
        (100, {"warmup_steps": 17}, {"pct_start": 0.17}),
        (100, {"min_lr": 0.3 / 25 / 50}, {"final_div_factor": 50}),
    ],
)
def test_onecycle_is_that_of_torch(name, total, section, options):
    optim = Optim(name=name, schedule="onecycle", lr=0.3, **section)
    recipe = Recipe(optim=optim, train=Train(epochs=1))
    ours = [
        (learning_rate(recipe, step, steps_per_epoch=total), momentum(recipe, step, steps_per_epoch=total))
        for step in range(total)
    ]
    theirs = list(torch_onecycle(name, total=total, **options))
    assert [rate for rate, _ in ours] == pytest.approx([rate for rate, _ in theirs], rel=1e-9, abs=0)
    assert [each for _, each in ours] == pytest.approx([each for _, each in theirs], rel=1e-9, abs=0)


def test_momentum_is_left_alone_unless_onecycle_changes_it():
    for section in (
        Optim(schedule="cosine"),
        Optim(schedule="onecycle", cycle_momentum=False),
        Optim(schedule="onecycle", onecycle="legacy"),
    ):
        assert momentum(Recipe(optim=section), 3, steps_per_epoch=4) is None


def test_steps_are_those_of_torch_and_with_a_delay_those_of_seed_002():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = StepLR(optimiser, step_size=2, gamma=0.9)
    theirs = []
    for _ in range(9):
        theirs.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    ours = [rate(epoch * 10, schedule="step", step_epochs=2, step_factor=0.9) for epoch in range(9)]
    assert ours == pytest.approx(theirs, rel=1e-12)
    # The seed multiplied by 0.9 at the start of each epoch whose number from 0 was above 1.
    seed = [rate(epoch * 10, schedule="step", step_epochs=1, step_factor=0.9, step_delay=1) for epoch in range(4)]
    assert seed == pytest.approx([1, 1, 0.9, 0.81])


def test_a_phase_that_ended_early_moves_the_next_one():
    recipe = Recipe(
        optim=Optim(schedule="constant", lr=1.0, warmup_steps=0),
        train=Train(epochs=5),
        finetune=Finetune(epochs=2, lr=0.5, schedule="cosine"),
    )
    assert (Phases.of(recipe).epochs, Phases.of(recipe, ended=3).epochs) == (7, 5)
    planned = [learning_rate(recipe, step, steps_per_epoch=2) for step in range(14)]
    early = [learning_rate(recipe, step, steps_per_epoch=2, ended=3) for step in range(10)]
    assert early == planned[:6] + planned[10:]


@pytest.mark.parametrize(("drops", "expected"), [(0, 1.0), (1, 0.1), (2, 0.05), (9, 0.05)])
def test_plateau_rate_follows_the_drops_down_to_the_floor(drops, expected):
    assert rate(50, schedule="plateau", drops=drops, min_lr=0.05) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle", "step", "plateau"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (3, 5), (5, 5), (7, 0)])
def test_rates_of_short_phases_are_positive_and_below_the_peak(schedule, total, warmup):
    rates = [rate(step, schedule=schedule, total=total, warmup_steps=warmup, lr=3.0) for step in range(total)]
    assert all(0 < value <= 3.0 for value in rates)


def test_rate_is_in_proportion_to_the_peak():
    for schedule in ("constant", "cosine", "onecycle", "step", "plateau"):
        assert rate(40, schedule=schedule, lr=2.0) == pytest.approx(2 * rate(40, schedule=schedule))


@pytest.mark.parametrize(
    ("patience", "scores", "drops"),
    [
        (1, [5, 4, 3, 2], [0, 0, 0, 0]),
        (1, [5, 5, 5, 5, 5], [0, 0, 1, 1, 2]),
        (0, [5, 6, 4, 4], [0, 1, 1, 2]),
        (2, [5, 6, 6, 4, 6, 6, 6], [0, 0, 0, 0, 0, 0, 1]),
        (0, [5, 4.9999, 4.9], [0, 1, 1]),
        (0, [math.nan, 5, math.nan, math.inf], [1, 1, 2, 3]),
    ],
)
def test_plateau_counts_epochs_without_a_better_score(patience, scores, drops):
    plateau = Plateau(patience)
    assert [plateau.update(score) for score in scores] == drops


def test_plateau_resumes_from_its_state():
    first, second = Plateau(1), Plateau(1)
    [first.update(score) for score in (5, 6)]
    second.load_state_dict(first.state_dict())
    assert second.update(6) == first.update(6) == 1
