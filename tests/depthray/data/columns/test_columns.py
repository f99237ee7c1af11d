"""Frames as columns, sets of them as bits, and orders without a table: the same as lists, and of a bounded size."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from depthray.data.columns.frame_columns import FrameColumns, Texts
from depthray.data.columns.permutation import Permutation
from depthray.data.columns.selection import Selection
from depthray.data.columns.shard_numbers import ShardNumbers
from depthray.data.columns.step_frames import MOST_IN_TABLE, StepFrames, StepLayout, shuffled, uses_table
from depthray.data.source import Frame
from depthray.errors import DataError

GOLDEN = [4, 9, 1, 8, 0, 7, 2, 3, 6, 5]
GOLDEN_LARGE = [13967304, 42514508, 18977989, 35915225]
NAMES = ["", "f", "küche/0001", "", "深度"]


def test_texts_come_back() -> None:
    texts = Texts.of(NAMES)
    assert list(texts) == NAMES == [texts[number] for number in range(len(NAMES))] == texts[:]
    assert texts[-1] == NAMES[-1] and list(Texts.of([])) == []
    with pytest.raises(IndexError):
        texts[5]


def test_frames_are_made_when_asked_for() -> None:
    frames = [Frame(f"f{i}", f"s{i // 3 % 4}", ("", "val", "odd")[i % 3], "ab"[i % 2]) for i in range(30)]
    columns = FrameColumns.of(frames)
    assert list(columns) == frames == [columns[i] for i in range(30)] and columns[-3:] == frames[-3:]
    assert FrameColumns.of(columns) is columns
    columns.scene[7] = 99
    with pytest.raises(DataError, match="frame 7: its facts in the index are damaged"):
        columns[7]


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1000])
def test_a_selection_is_a_list_of_frames(count: int) -> None:
    mask = np.random.default_rng(count).random(count) < 0.3
    numbers = np.flatnonzero(mask).tolist()
    chosen = Selection.of_masks([mask[:640], mask[640:]])
    assert chosen == numbers and list(chosen) == numbers and chosen[:] == numbers and len(chosen) == len(numbers)
    assert chosen[2:9:3] == numbers[2:9:3] and chosen[-2:] == numbers[-2:]
    bounds = range(count + 70)
    assert [number in chosen for number in bounds] == [number in numbers for number in bounds] and -1 not in chosen
    assert chosen.count_below(bounds).tolist() == [sum(number < bound for number in numbers) for bound in bounds]
    assert chosen.mask(64, count + 99).tolist() == [number in numbers for number in range(64, count + 99)]
    assert Selection.of(numbers[::-1]) == chosen and Selection.all(count) == list(range(count))
    assert chosen != [*numbers, 2000] and (not numbers or chosen != [*numbers[:-1], 2000])
    with pytest.raises(IndexError):
        chosen[len(numbers)]
    values = np.random.default_rng(1).integers(0, 3, count)
    assert Selection.by_value([values[:64], values[64:]], 3) == [np.flatnonzero(values == v).tolist() for v in range(3)]


def test_a_selection_of_millions_has_two_bits_a_frame() -> None:
    chosen = Selection.of_masks(np.arange(1 << 20) % 7 != part for part in range(4))
    assert chosen.nbytes * 8 < 1.6 * (4 << 20)
    positions = np.array([len(chosen) - 1, 0, 12345])
    assert chosen.take(positions).tolist() == [chosen[len(chosen) - 1], chosen[0], chosen[12345]]


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 1000, 4097])
def test_a_permutation_has_each_number_once(count: int) -> None:
    order = Permutation(count, 7, 3).take(np.arange(count))
    assert sorted(order.tolist()) == list(range(count))
    positions = np.array([count - 1, 0])
    assert Permutation(count, 7, 3).take(positions).tolist() == order[positions].tolist()


def test_permutations_are_those_of_today_for_ever() -> None:
    # Runs are resumed by them: a change of one number here changes what a resumed run trains on.
    assert Permutation(10, 0, 0).take(np.arange(10)).tolist() == GOLDEN
    assert Permutation(50_000_000, 3, 12).take(np.arange(4)).tolist() == GOLDEN_LARGE


def test_permutations_are_uniform() -> None:
    """Chi-squared of positions, of neighbours and of complete orders: each within what 1 of 10,000 draws exceeds."""
    drawn = np.stack([Permutation(128, seed, epoch).take(np.arange(128)) for seed in range(40) for epoch in range(10)])
    blocks = np.zeros((8, 8))
    np.add.at(blocks, (np.tile(np.arange(128) // 16, len(drawn)), drawn.ravel() // 16), 1)
    expected = drawn.size / 64
    assert ((blocks - expected) ** 2 / expected).sum() < 95  # 49 degrees of freedom
    steps = np.bincount(((drawn[:, 1:] - drawn[:, :-1]) % 128).ravel(), minlength=128)[1:]
    expected = steps.sum() / 127
    assert ((steps - expected) ** 2 / expected).sum() < 195  # 126
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.2  # of epochs that follow each other


def test_orders_of_few_frames_are_equally_likely() -> None:
    found = Counter(tuple(Permutation(4, seed).take(np.arange(4)).tolist()) for seed in range(240))
    assert sum((found[each] - 10) ** 2 / 10 for each in permutations(range(4))) < 60  # 23 degrees of freedom


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 3), (4, 1)])
def test_steps_of_ranks_are_those_of_a_table(world: int, accumulate: int) -> None:
    frames = Selection.of_masks([np.arange(1000) % 3 != 0])
    frame_at = shuffled(frames, seed=5, epoch=2)
    steps, batch = len(frames) // 12, 12
    table = frame_at(np.arange(steps * batch)).reshape(steps, world, accumulate, -1)
    for rank in range(world):
        lazy = StepFrames(frame_at, StepLayout(batch, rank, world, accumulate), range(steps))
        assert lazy.shape == table[:, rank].shape
        for number in (0, steps - 1, 7, -1):
            np.testing.assert_array_equal(lazy[number], table[number, rank])
        flat, rest = lazy.reshape(-1, lazy.shape[-1]), lazy[9:]
        np.testing.assert_array_equal(list(flat), table[:, rank].reshape(len(flat), -1))
        np.testing.assert_array_equal(list(rest), table[9:, rank])
        np.testing.assert_array_equal(list(rest.reshape(-1, 1)), table[9:, rank].reshape(len(rest.reshape(-1, 1)), -1))
        with pytest.raises(IndexError):
            lazy[steps]
    assert sorted(table.ravel().tolist()) == sorted(set(table.ravel().tolist())) and set(table.ravel()) <= set(frames)
    assert frame_at(np.arange(9)).tolist() == shuffled(list(frames), seed=5, epoch=2)(np.arange(9)).tolist()


def test_only_sets_of_millions_are_shuffled_without_a_table() -> None:
    assert [uses_table("auto", count) for count in (1, MOST_IN_TABLE, MOST_IN_TABLE + 1)] == [True, True, False]
    assert uses_table("table", 1 << 30) and not uses_table("cipher", 1)


def test_shards_are_found_by_their_ends() -> None:
    each = np.repeat(np.arange(5), [3, 1, 4, 2, 6])
    numbers = ShardNumbers.of(each)
    assert numbers[np.arange(16)].tolist() == each.tolist() and numbers[3] == 1 and len(numbers) == 16
    assert numbers.used_by([0, 15], Selection.of([9])) == [0, 3, 4]
    assert numbers.count(Selection.of([0, 2, 4, 15])).tolist() == [2, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="in the order of their shards"):
        ShardNumbers.of(each[::-1])
