"""The frames of an epoch of several sets: shares, no frame twice, all equally often, a function of seed and epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from made_sources import Drawn

from depthray.config.sections import Curriculum, Data
from depthray.data.mixing.epoch_frames import ChosenFrames, chosen_frames_of, describe
from depthray.data.mixing.joined_source import Member, join
from depthray.data.split import Split
from depthray.errors import DataError, UsageError


def chosen(
    counts: list[int],
    weights: Sequence[float | list[float]],
    *,
    epoch_frames: int = 0,
    chunks: int = 1,
    seed: int = 3,
    epochs: int = 1,
) -> tuple[ChosenFrames, list[range]]:
    """What chooses frames of sets with so many training frames, and two that are held out; the indices of each set."""
    sources = [Drawn(count + 2) for count in counts]
    splits = [Split(list(range(2, count + 2)), [0, 1], []) for count in counts]
    source = join([Member(f"s{i}", *each) for i, each in enumerate(zip(sources, splits, strict=True))])
    ranges = [range(start + 2, end) for start, end in zip(source.starts, source.starts[1:], strict=False)]
    sets = [{"root": f"/s{number}", "weight": weight} for number, weight in enumerate(weights)]
    train = [index for each in ranges for index in each]
    section = Curriculum(chunks=chunks, epochs_per_chunk=2, epochs_per_set_weight=epochs)
    made = chosen_frames_of(source, train, Data(sets=sets, epoch_frames=epoch_frames), section, seed=seed)
    assert made is not None and describe(made, source).count(" of s") == len(counts)
    return made, ranges


@pytest.mark.parametrize(
    ("counts", "weights", "epoch_frames", "wanted"),
    [
        ([200, 2400], [0.9, 0.1], 0, [200, 22]),
        ([9, 100], [0.9, 0.1], 0, [9, 1]),  # 9 / 0.9 is not 10 in binary
        ([10, 10, 10], [1, 1, 1], 0, [10, 10, 10]),
        ([7, 5], [0.3, 0.7], 0, [2, 5]),
        ([7, 5], [3, 3], 7, [4, 3]),
        ([100, 50], [1, 1e-4], 0, [100, 0]),
    ],
)
def test_shares_are_the_weights_until_a_set_is_used_up(
    counts: list[int], weights: list[float], epoch_frames: int, wanted: list[int]
) -> None:
    made, ranges = chosen(counts, weights, epoch_frames=epoch_frames)
    assert (made.counts, made.size) == ([wanted], sum(wanted))
    seen: Counter[int] = Counter()
    for epoch in range(30):
        frames = made.of(epoch)
        assert len(set(frames)) == len(frames) == made.size  # none twice
        assert [sum(index in each for index in frames) for each in ranges] == wanted
        seen.update(frames)
    for each in ranges:
        often = [seen[index] for index in each]
        assert max(often) - min(often) <= 1  # all equally often


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    (one, _), (same, _), (other, _) = (chosen([20, 30], [1, 2], epoch_frames=12, seed=seed) for seed in (3, 3, 4))
    assert [one.of(epoch) for epoch in (5, 0, 2)] == [same.of(epoch) for epoch in (5, 0, 2)]
    assert one.of(0) != one.of(1) and one.of(0) != other.of(0)


def test_another_weight_changes_how_many_frames_of_a_set_there_are_and_not_their_order() -> None:
    (many, ranges), (few, _) = chosen([20, 30], [1, 1], epoch_frames=16), chosen([20, 30], [1, 3], epoch_frames=16)
    first = [[index for index in made.of(0) if index in ranges[0]] for made in (many, few)]
    assert len(first[0]) == 8 and first[0][:4] == first[1]


def test_chunks_are_cut_from_each_set() -> None:
    made, ranges = chosen([20, 40], [1, 1], chunks=2)
    epochs = [set(made.of(epoch)) for epoch in range(8)]
    assert made.counts == [[10, 10]]
    for each in ranges:
        parts = [{index for index in epoch if index in each} for epoch in epochs]
        assert not (parts[0] | parts[1] | parts[4] | parts[5]) & (parts[2] | parts[3] | parts[6] | parts[7])
        assert set().union(*parts) == set(each)


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ([[1, 0], [0, 1]], [[20, 0]] * 3 + [[0, 20]] * 4),  # first the one, then the other
        ([1, [1, 0.25, 0]], [[10, 10]] * 3 + [[16, 4]] * 3 + [[20, 0]] * 4),  # one fades out
    ],
    ids=["first-then", "fade-out"],
)
def test_weights_change_from_stage_to_stage(weights: list[float | list[float]], wanted: list[list[int]]) -> None:
    made, ranges = chosen([20, 30], weights, epochs=3)
    assert made.size == 20
    seen: Counter[int] = Counter()
    for epoch, counts in enumerate(wanted):
        frames = made.of(epoch)
        assert [sum(index in each for index in frames) for each in ranges] == counts
        assert len(set(frames)) == len(frames)
        seen.update(frames)
        for each in ranges:  # an epoch begins where the one before ended, whatever its stage
            assert max(seen[index] for index in each) - min(seen[index] for index in each) <= 1
    resumed, _ = chosen([20, 30], weights, epochs=3)
    assert resumed.of(4) == made.of(4)  # without those before


def test_stages_of_weights_go_on_in_the_chunks_of_a_set() -> None:
    made, ranges = chosen([20, 40], [1, [0, 1]], chunks=2, epochs=3)
    counts = [[sum(index in each for index in made.of(epoch)) for each in ranges] for epoch in range(5)]
    assert counts == [[10, 0], [10, 0], [10, 0], [5, 5], [5, 5]]
    # The second chunk is of epochs 2 and 3, the first of 0, 1 and 4.
    assert set(made.of(3)) & set(ranges[0]) <= set(made.of(2))
    assert set(made.of(4)) & set(ranges[0]) <= set(made.of(0)) and not set(made.of(4)) & set(made.of(3))


def test_the_line_on_an_epoch_says_when_its_shares_change() -> None:
    source = join([Member(name, Drawn(12), Split(list(range(10)), [10, 11], [])) for name in ("public", "mine")])
    data = Data(sets=[{"root": "/public", "weight": [1, 0]}, {"root": "/mine", "weight": [0, 1]}])
    made = chosen_frames_of(source, [*range(10), *range(12, 22)], data, Curriculum(epochs_per_set_weight=5), seed=1)
    assert made is not None
    assert describe(made, source) == (
        "an epoch has 10 of 10 frames of public, 0 of 10 frames of mine; from epoch 6 on 0, 10"
    )


def test_a_part_of_one_set_is_an_epoch() -> None:
    source, train = Drawn(20), list(range(0, 20, 2))
    made = chosen_frames_of(source, train, Data(epoch_frames=5), Curriculum(), seed=1)
    assert made is not None
    assert sorted(made.of(0) + made.of(1)) == train and sorted(made.of(2)) == sorted(made.of(0))
    assert chosen_frames_of(source, train, Data(), Curriculum(), seed=1) is None


def test_what_cannot_be_chosen_is_refused() -> None:
    with pytest.raises(UsageError, match=r"data\.epoch_frames=23 is more than the 22 frames"):
        chosen([20, 40], [0.9, 0.1], epoch_frames=23)
    with pytest.raises(DataError, match="'s1' has no frames to train on; leave it out with weight=0"):
        chosen([20, 0], [1, 1])


def test_indices_are_plain_numbers() -> None:
    assert all(type(index) is int and not isinstance(index, np.integer) for index in chosen([4, 4], [1, 1])[0].of(0))
