"""The loader: the same samples in the same order for any number of processes and ranks."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_sources import Drawn

from depthray.batch import Batch, Sample, to_device
from depthray.config import own_code
from depthray.config.sections import Augment, Curriculum, Data, Sparse
from depthray.data.columns.selection import Selection
from depthray.data.loader import TrainLoader, eval_batches, eval_groups
from depthray.data.loader_processes import MOST_AUTO, MOST_READING, worker_count
from depthray.data.source import Place
from depthray.data.sources import open_source
from depthray.errors import DataError, UsageError

COLOURED = Augment(hflip=0.5, crop=0.8, brightness=0.3, contrast=0.3, noise=0.5)


def loader(source: Drawn, workers: int = 0, augment: Augment = COLOURED, **options: int) -> TrainLoader:
    data = Data(size=(12, 16), workers=workers)
    indices = range(len(source.frames))
    return TrainLoader(source, indices, data, augment, **{"seed": 7, "batch_size": 4, **options})


def steps_of(batches: Iterator[list[Batch]]) -> list[Batch]:
    """Each step's micro-batches joined."""
    return [
        {
            "image": torch.cat([part["image"] for part in step]),
            "depth": torch.cat([part["depth"] for part in step]),
            "id": [name for part in step for name in part["id"]],
        }
        for step in batches
    ]


def check_equal(one: list[Batch], two: list[Batch]) -> None:
    assert [step["id"] for step in one] == [step["id"] for step in two]
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left["image"], right["image"]) and torch.equal(left["depth"], right["depth"])


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_loader_processes_do_not_change_samples(workers: int) -> None:
    plain, parallel = loader(Drawn(18)), loader(Drawn(18), workers)
    epochs = []
    for epoch in range(2):
        epochs.append(steps_of(plain.epoch(epoch)))
        check_equal(epochs[-1], steps_of(parallel.epoch(epoch)))
    assert len(epochs[0]) == 4 and epochs[0][0]["image"].shape == (4, 3, 12, 16)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_ranks_and_parts_share_out_the_same_batches(world: int, accumulate: int) -> None:
    complete = steps_of(loader(Drawn(18)).epoch(3))
    ranks = [loader(Drawn(18), rank=rank, world_size=world, accumulate=accumulate).epoch(3) for rank in range(world)]
    joined = [steps_of(iter([list(chain.from_iterable(parts))]))[0] for parts in zip(*ranks, strict=True)]
    check_equal(complete, joined)
    assert len(next(loader(Drawn(18), world_size=world, accumulate=accumulate).epoch(3))) == accumulate


def test_epochs_differ_in_order_and_in_changes() -> None:
    one, two = (steps_of(loader(Drawn(16)).epoch(epoch)) for epoch in (0, 1))
    images = [{n: x for step in e for n, x in zip(step["id"], step["image"], strict=True)} for e in (one, two)]
    assert [step["id"] for step in one] != [step["id"] for step in two]
    assert sorted(images[0]) == sorted(images[1]) == sorted(f"f{i}" for i in range(16))
    assert sum(torch.equal(images[0][name], images[1][name]) for name in images[0]) <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_continues_from_any_step(workers: int) -> None:
    made = loader(Drawn(18), workers)
    complete = steps_of(made.epoch(1))
    check_equal(complete[2:], steps_of(made.epoch(1, first_step=2)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_left_early_does_not_disturb_the_next(workers: int) -> None:
    made = loader(Drawn(18), workers)
    left = made.epoch(0)
    next(left)
    left.close()  # type: ignore[attr-defined]
    check_equal(steps_of(loader(Drawn(18)).epoch(1)), steps_of(made.epoch(1)))


def test_a_chunk_is_shuffled_and_nothing_else_is_read() -> None:
    chunk = [3, 5, 7, 11, 13, 17]
    steps = [steps_of(loader(Drawn(18), batch_size=2).epoch(epoch, chunk)) for epoch in range(2)]
    names = [[name for step in epoch for name in step["id"]] for epoch in steps]
    assert set(names[0]) == set(names[1]) == {f"f{i}" for i in chunk}
    assert names[0] != names[1]


@pytest.mark.parametrize("options", [{"world_size": 3}, {"accumulate": 3}, {"world_size": 2, "accumulate": 4}])
def test_a_batch_that_cannot_be_shared_is_an_error(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"train\.batch_size=4 .* \d workers .* set train\.batch_size=\d"):
        loader(Drawn(18), **options)


def test_a_plan_keeps_the_frames_of_an_epoch_and_makes_keys_when_asked() -> None:
    plan = loader(Drawn(18), accumulate=2).plan(1)
    assert len(plan) == 4 and plan.frames.nbytes == 8 * 16
    assert plan[2:][0] == plan[2] and plan[-1] == list(plan)[3]
    assert [part for step in plan for part in step] == list(plan.micro_batches())
    assert {epoch for step in plan for part in step for epoch, _ in part} == {1}


def cipher(workers: int = 0, **options: int) -> TrainLoader:
    """A loader whose order has no table."""
    data = Data(size=(12, 16), workers=workers, shuffle="cipher")
    return TrainLoader(Drawn(18), Selection.all(18), data, COLOURED, **{"seed": 7, "batch_size": 4, **options})


@pytest.mark.parametrize("workers", [0, 2])
def test_an_order_without_a_table_is_the_same_for_processes_and_continues(workers: int) -> None:
    made, plain = cipher(workers), cipher()
    complete = steps_of(plain.epoch(1))
    check_equal(complete, steps_of(made.epoch(1)))
    check_equal(complete[2:], steps_of(made.epoch(1, first_step=2)))
    names = [name for step in complete for name in step["id"]]
    assert len(set(names)) == len(names) == 16 and set(names) <= {f"f{i}" for i in range(18)}
    assert names != [name for step in steps_of(plain.epoch(2)) for name in step["id"]]
    assert names != [name for step in steps_of(loader(Drawn(18)).epoch(1)) for name in step["id"]]


@pytest.mark.parametrize(("world", "accumulate"), [(1, 2), (2, 2), (4, 1)])
def test_ranks_share_out_an_order_without_a_table(world: int, accumulate: int) -> None:
    complete = cipher().plan(3)
    ranks = [cipher(rank=rank, world_size=world, accumulate=accumulate).plan(3) for rank in range(world)]
    for number, step in enumerate(complete):
        assert [key for plan in ranks for part in plan[number] for key in part] == step[0]
    assert [part for step in ranks[0] for part in step] == list(ranks[0].micro_batches())
    assert [key for step in complete[2:] for key in step] == [key for step in list(complete)[2:] for key in step]


def test_too_few_frames_are_an_error() -> None:
    with pytest.raises(DataError, match=r"3 training frames do not fill one batch of 4; use train\.batch_size=3"):
        loader(Drawn(3))
    with pytest.raises(DataError, match="2 training frames"):
        loader(Drawn(8)).epoch(0, [0, 1])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_frame_is_one_clear_line(workers: int) -> None:
    made = loader(Drawn(8, broken=(5,)), workers)
    with pytest.raises(DataError, match=r"^drawn: frame 5 is broken$"):
        list(made.epoch(0))
    assert len(list(made.epoch(0, [0, 1, 2, 3]))) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_draws_nothing_from_the_global_generators(workers: int) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(loader(Drawn(8), workers).epoch(0))
    assert torch.equal(before, torch.get_rng_state())


def test_processes_end_by_themselves_when_the_loader_is_garbage() -> None:
    made: Any = loader(Drawn(8), 2)
    list(made.epoch(0))
    processes = list(made._processes._loader._iterator._workers)
    made.itself = made
    del made
    gc.collect()
    assert [process.exitcode for process in processes] == [0, 0]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_eval_batches_do_not_depend_on_the_world_size(world: int) -> None:
    found = {}
    for rank in range(world):
        for indices, batch in eval_batches(
            Drawn(11), range(11), Data(size=(12, 16)), batch_size=4, rank=rank, world_size=world
        ):
            found[tuple(indices)] = batch["id"]
    assert found == {t: [f"f{i}" for i in t] for t in [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10)]}


def test_eval_truth_keeps_its_native_size() -> None:
    source = Drawn(6, odd=(2, 4))
    batches = list(eval_batches(source, [0, 1, 2, 3, 4, 5], Data(size=(12, 16)), batch_size=6))
    assert [indices for indices, _ in batches] == [[0, 1, 3, 5], [2, 4]]
    for (indices, batch), size in zip(batches, [(24, 32), (20, 28)], strict=True):
        assert batch["image"].shape[2:] == (12, 16) and batch["depth"].shape[2:] == size
        np.testing.assert_array_equal(batch["depth"][0, 0].numpy(), source.read(indices[0])["depth"])


COMPLETING = Data(size=(12, 16), inputs=("image", "sparse"), sparse=Sparse(samples=20))


def completing(workers: int = 0, **options: Any) -> TrainLoader:
    data = COMPLETING.model_copy(update={"workers": workers})
    return TrainLoader(Drawn(8), range(8), data, COLOURED, seed=7, batch_size=4, **options)


def joined(steps: Iterator[list[Batch]], key: str) -> dict[str, torch.Tensor]:
    """A map of each frame, by id."""
    parts = [part for step in steps for part in step]
    return {name: value for part in parts for name, value in zip(part["id"], part[key], strict=True)}


def test_sparse_depth_is_drawn_from_the_changed_depth_at_the_networks_size() -> None:
    for part in next(completing().epoch(0)):
        taken = part["sparse"] > 0
        assert part["sparse"].shape == (4, 1, 12, 16)
        assert taken.sum(dim=(1, 2, 3)).tolist() == [20] * 4
        assert torch.equal(part["sparse"][taken], part["depth"][taken])


def test_sparse_depth_is_made_only_where_it_is_an_input() -> None:
    assert "sparse" not in next(loader(Drawn(8)).epoch(0))[0]
    assert "sparse" not in next(eval_batches(Drawn(4), range(4), Data(size=(12, 16)), batch_size=4))[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_sparse_training_draws_change_with_the_epoch_and_not_with_the_process(workers: int) -> None:
    plain, parallel = completing(), completing(workers)
    epochs = [joined(plain.epoch(epoch), "sparse") for epoch in (0, 1)]
    again = [joined(parallel.epoch(epoch), "sparse") for epoch in (0, 1)]
    for name in epochs[0]:
        assert torch.equal(epochs[0][name], again[0][name]) and torch.equal(epochs[1][name], again[1][name])
        assert not torch.equal(epochs[0][name] > 0, epochs[1][name] > 0)


def test_sparse_evaluation_draws_are_always_the_same_and_of_the_networks_size() -> None:
    once, again = (list(eval_batches(Drawn(4), order, COMPLETING, batch_size=4)) for order in ([0, 1, 2, 3], [3, 1]))
    first, second = ({n: v for n, v in zip(b["id"], b["sparse"], strict=True)} for [(_, b)] in (once, again))
    assert all(torch.equal(second[name], first[name]) for name in second) and len(second) == 2
    sparse, truth = once[0][1]["sparse"], once[0][1]["depth"]
    assert sparse.shape == (4, 1, 12, 16) and truth.shape == (4, 1, 24, 32)
    assert (sparse > 0).sum(dim=(1, 2, 3)).tolist() == [20] * 4
    assert np.isin(sparse[sparse > 0].numpy(), truth.numpy()).all()
    grid = COMPLETING.model_copy(update={"sparse": Sparse(samples=20, pattern="grid")})
    other = next(eval_batches(Drawn(4), range(4), grid, batch_size=4))[1]["sparse"]
    assert not torch.equal(other, sparse)


@pytest.mark.parametrize("workers", [0, 2])
def test_stored_samples_that_are_not_there_are_one_clear_line(workers: int) -> None:
    data = COMPLETING.model_copy(update={"sparse": Sparse(pattern="stored"), "workers": workers})
    made = TrainLoader(Drawn(8), range(8), data, COLOURED, seed=7, batch_size=4)
    with pytest.raises(DataError, match=r"^frame 'f.': data\.sparse\.pattern=stored, but"):
        list(made.epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_has_its_size(workers: int) -> None:
    curriculum = Curriculum(sizes=((4, 6), (8, 10)), epochs_per_size=2)
    made = completing(workers, curriculum=curriculum)
    for epoch, size in ((0, (4, 6)), (1, (4, 6)), (3, (8, 10)), (4, (12, 16)), (2, (8, 10)), (9, (12, 16))):
        part = next(made.epoch(epoch))[0]
        assert part["image"].shape[2:] == part["depth"].shape[2:] == part["sparse"].shape[2:] == size


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_between_epochs_is_read_by_the_processes_of_training(workers: int) -> None:
    made = loader(Drawn(18, odd=(2, 4)), workers)
    options: dict[str, Any] = {"batch_size": 4, "rank": 0, "world_size": 1}
    groups = eval_groups(range(11), shard_order=None, **options)
    expected = list(eval_batches(Drawn(18, odd=(2, 4)), range(11), Data(size=(12, 16)), **options))
    for epoch in range(2):
        found = list(made.eval_batches(groups))
        assert [indices for indices, _ in found] == [indices for indices, _ in expected]
        for (_, one), (_, two) in zip(found, expected, strict=True):
            assert torch.equal(one["image"], two["image"]) and torch.equal(one["depth"], two["depth"])
        check_equal(steps_of(loader(Drawn(18, odd=(2, 4))).epoch(epoch)), steps_of(made.epoch(epoch)))


def test_an_unreadable_frame_of_validation_is_one_clear_line() -> None:
    made = loader(Drawn(8, broken=(5,)), 1)
    with pytest.raises(DataError, match=r"^drawn: frame 5 is broken$"):
        list(made.eval_batches([[4, 5]]))


def test_loader_processes_are_no_forks_of_the_training_process() -> None:
    made: Any = loader(Drawn(8), 1)
    list(made.epoch(0))
    (process,) = made._processes._loader._iterator._workers
    parent = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) != os.getpid()


@pytest.mark.parametrize(
    ("workers", "device", "on_device", "cpus", "count"),
    [
        (3, "cuda", False, 8, 3),
        (0, "cuda", False, 8, 0),
        ("auto", "cpu", False, 8, 0),
        ("auto", "cuda", False, 8, 7),
        ("auto", "cuda", False, 1, 1),
        ("auto", "cuda", False, 64, MOST_AUTO),
        ("auto", "cuda", True, 64, MOST_READING),
        ("auto", "cuda", True, 3, 2),
    ],
)
def test_the_number_of_processes_follows_the_cpus_that_a_worker_was_given(
    workers: int | str, device: str, on_device: bool, cpus: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPTHRAY_WORKER_CPUS", str(cpus))
    assert worker_count(workers, device=torch.device(device), on_device=on_device) == count
    monkeypatch.delenv("DEPTHRAY_WORKER_CPUS")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(2 * cpus))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(2 * cpus * cpus)))
    assert worker_count(workers, device=torch.device(device), on_device=on_device) == count


OWN_FORM = """
import numpy as np
from depthray.data.source import Frame

class Grey:
    keys, fingerprint = frozenset({"image", "depth"}), "0" * 64
    frames = [Frame(f"f{i}", f"s{i}", "", "grey") for i in range(4)]

    def read(self, index):
        image = np.full((12, 16, 3), index, np.uint8)
        return {"image": image, "depth": np.ones((12, 16), np.float32), "id": f"f{index}"}

    def faults(self, index):
        return []

def open_source(section):
    return Grey()
"""


def test_frames_of_an_own_form_are_read_by_loader_processes(tmp_path: Path) -> None:
    (tmp_path / "grey_frames.py").write_text(OWN_FORM)
    data = Data(source=str(tmp_path / "grey_frames.py"), size=(12, 16), workers=1)
    own_code.allow([data.source])
    made = TrainLoader(open_source(data), range(4), data, Augment(hflip=0), seed=0, batch_size=4)
    [[batch]] = made.epoch(0)
    assert sorted(batch["image"][:, 0, 0, 0].tolist()) == [0, 1, 2, 3]


class Stored(Drawn):
    """The same frames with depth in millimetres, which can be had as stored."""

    def read(self, index: int) -> Sample:
        sample = self.read_stored(index)
        sample["depth"] = np.divide(sample["depth"], np.float32(sample.pop("depth_scale")[0]), dtype=np.float32)
        return sample

    def read_stored(self, index: int, place: Place | None = None) -> Sample:
        sample = super().read(index)
        millimetres = (sample["depth"] * 1500).astype(np.uint16)  # some beyond 10 m
        return {**sample, "depth": millimetres, "depth_scale": np.array([1000, 1, 0], np.float32)}  # type: ignore[typeddict-item]


@pytest.mark.parametrize("crop", [1.0, 0.6])
def test_stored_depth_becomes_metres_on_the_device_as_it_does_when_read(crop: float) -> None:
    section = Augment(hflip=0.5, crop=crop)
    curriculum = Curriculum(sizes=((8, 10),), epochs_per_size=1, scale_depth=True)

    def depths(data: Data) -> list[torch.Tensor]:
        made = TrainLoader(Stored(8), range(8), data, section, seed=7, batch_size=4, curriculum=curriculum)
        parts = [part for epoch in range(2) for step in made.epoch(epoch) for part in step]
        as_stored = data.inputs == ("image",)
        assert all((part["depth"].dtype == torch.uint16) == ("depth_scale" in part) == as_stored for part in parts)
        moved = [to_device(part, torch.device("cpu"), min_depth=1e-3, max_depth=10.0) for part in parts]
        assert all("depth_scale" not in part for part in moved)
        # What is not valid counts for nothing, and zooms may leave it or not.
        return [torch.where(part["valid"], part["depth"], 0) for part in moved]

    sampled = Data(size=(12, 16), inputs=("image", "sparse"), sparse=Sparse(samples=2))  # made metres at once
    for one, two in zip(depths(Data(size=(12, 16))), depths(sampled), strict=True):
        assert (one > 0).any() and torch.allclose(one, two, rtol=1e-6, atol=0)
