"""The frames of a run on one process: opened, split by scene, cut into chunks, this rank's share loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

import torch

from depthray import distributed
from depthray.batch import Batch
from depthray.cards import measured
from depthray.checkpoints.model_facts import ModelFacts
from depthray.config.sections import Data, Recipe
from depthray.data.columns.frame_columns import FrameColumns
from depthray.data.columns.selection import Selection
from depthray.data.columns.shard_numbers import ShardNumbers
from depthray.data.curriculum import chunk_at, cut_into_chunks
from depthray.data.encodings import depth_faults, judged_depth
from depthray.data.loader import CPU, TrainLoader, eval_batches, eval_groups
from depthray.data.mixing import data_sets
from depthray.data.mixing.epoch_frames import chosen_frames_of, describe
from depthray.data.mixing.joined_source import JoinedSource
from depthray.data.shard_order import shard_order_of
from depthray.data.source import Frame, ShardedSource, Source
from depthray.data.sources import open_source, recognise
from depthray.data.split import Split, count_scenes, declared, split
from depthray.errors import DataError, UsageError, count_of
from depthray.evaluation.protocols import scored_data

MEASURED = 256  # remote frames, of which some are read for the model card
STATISTICS_BATCHES, STATISTICS_BATCH = 32, 32  # batches, and frames in one at most, for statistics of batch norm


@dataclass(frozen=True)
class FurtherSet:
    """A data set of `eval.also`, and which of its frames are scored."""

    path: str
    name: str  # short, and no other set's
    source: Source
    indices: Selection
    data: Data  # how its frames are read
    batch_size: int

    def batches(self) -> Iterator[tuple[list[int], Batch]]:
        """This rank's batches, truth at native size."""
        return eval_batches(
            self.source,
            self.indices,
            self.data,
            batch_size=self.batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )


def open_further(recipe: Recipe) -> list[FurtherSet]:
    """The data sets of `eval.also`. Raises the error of one that cannot be scored, before anything is trained."""
    paths = list(dict.fromkeys(recipe.eval.also))
    names = [PurePath(path).name for path in paths]
    return [
        _open_further(recipe, path, name if names.count(name) == 1 else path)
        for path, name in zip(paths, names, strict=True)
    ]


def _open_further(recipe: Recipe, path: str, name: str) -> FurtherSet:
    section = scored_data(recipe)
    try:
        form = recognise(path)
        # The recipe's unit is that of its own form; other forms state theirs, or have the usual one.
        usual = Data.model_fields["encoding"].default
        unit = section.encoding if form == section.source else usual
        data = data_sets.one_set(section, root=path, source=form, encoding=unit)
        source = open_source(data)
    except (DataError, UsageError) as error:
        raise type(error)(f"eval.also={path}: {error}") from None
    return FurtherSet(path, name, source, _scored_frames(source.frames), data, recipe.eval.batch_size)


def _scored_frames(frames: Sequence[Frame]) -> Selection:
    """The frames declared val, else those declared test, else all: none of them is trained on."""
    sides = (declared(frames, side) for side in ("val", "test"))
    return next((chosen for chosen in sides if chosen), Selection.all(len(frames)))


class Frames:
    """Training and validation frames of a recipe.

    Raises DataError where there are too few frames for one step, or none to validate on.
    """

    def __init__(self, recipe: Recipe, source: Source, *, device: torch.device = CPU) -> None:
        recipe = data_sets.resolve(recipe)
        self.recipe, self.device = recipe, device
        self.source = source
        self.columns = FrameColumns.of(source.frames)
        self.split: Split = split(self.columns, recipe.data)
        self.further = open_further(recipe)
        self.shard_order = shard_order_of(source, recipe.data, seed=recipe.seed)
        train, curriculum = self.split.train, recipe.curriculum
        self.chosen = chosen_frames_of(source, train, recipe.data, curriculum, seed=recipe.seed)
        self.chunks = [] if self.chosen else cut_into_chunks(train, source, curriculum, seed=recipe.seed)
        self._check_overall()
        self.loader = TrainLoader(
            source,
            self.split.train,
            recipe.data,
            recipe.augment,
            seed=recipe.seed,
            batch_size=recipe.train.batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            accumulate=recipe.train.accumulate,
            curriculum=recipe.curriculum,
            shard_order=self.shard_order,
            eval_data=scored_data(recipe),
            device=device,
        )
        # All epochs have equally many steps, so that the schedule is a pure function of the step.
        self.steps_per_epoch = self._frames_of_an_epoch() // recipe.train.batch_size
        if not self.steps_per_epoch:
            raise DataError(self._too_few())

    def _frames_of_an_epoch(self) -> int:
        return self.chosen.size if self.chosen else min(len(chunk) for chunk in self.chunks)

    def _too_few(self) -> str:
        size = self.recipe.train.batch_size
        if self.chosen:
            how = describe(self.chosen, self.source) if isinstance(self.source, JoinedSource) else "data.epoch_frames"
            return (
                f"the {self.chosen.size} frames of an epoch do not fill one batch of {size} ({how}); lower "
                "train.batch_size, or give other weights"
            )
        return (
            f"{count_of(len(self.split.train), 'training frame')} in {count_of(len(self.chunks), 'chunk')} do not "
            f"fill one batch of {size}; lower train.batch_size or curriculum.chunks"
        )

    def _check_overall(self) -> None:
        """Refuse sets of which none that counts in the overall scores has a validation frame."""
        if not isinstance(self.source, JoinedSource):
            return
        counted = [each.name for each in self.recipe.data.sets if each.overall]
        if not any(member.split.val for member in self.source.members if member.name in counted):
            raise DataError(
                f"no frames to rank checkpoints by: none of the data sets that count in the overall scores "
                f"({', '.join(counted)}) has validation frames"
            )

    @staticmethod
    def open(recipe: Recipe, *, device: torch.device = CPU) -> Frames:
        """The frames of a recipe's data section, to be used on a device."""
        return Frames(recipe, open_source(recipe.data), device=device)

    def describe_split(self) -> str:
        """The numbers of frames and scenes to train and to validate on, and why so many where that is not obvious."""
        train, val = (
            f"{count_of(len(side), 'frame')} of {count_of(count_scenes(self.columns, side), 'scene')}"
            for side in (self.split.train, self.split.val)
        )
        if isinstance(self.source, JoinedSource) and self.chosen:
            return f"trains on {train}, validates on {val}; {describe(self.chosen, self.source)}"
        if declared(self.columns, "val"):
            return f"trains on {train}, validates on {val}, as the data set declares"
        if self.chosen:
            train = f"{self.chosen.size} at a time of {train}"
        return (
            f"trains on {train}, validates on {val}: whole scenes, data.val_fraction={self.recipe.data.val_fraction:g}"
        )

    @property
    def fingerprint(self) -> str:
        """A digest of what the frames are; two data sets with equal ones are the same."""
        return self.source.fingerprint

    @cached_property
    def facts(self) -> ModelFacts:
        """What is trained on, for the checkpoints of the run; some frames are read when it is first asked for."""
        train, section = self.split.train, self.recipe.data
        limits = measured.limits(self.source, self._measured_frames(), section)
        return ModelFacts(measured.training_data(self.source, train, section), limits)

    def _measured_frames(self) -> Sequence[int]:
        """Training frames of which some are read for `facts`, on rank 0; of remote shards those of the first."""
        train = self.split.train
        if self.shard_order is not None:
            return self.shard_order.first(train)
        is_remote = isinstance(self.source, ShardedSource) and self.source.remote
        return [int(train[place]) for place in range(min(len(train), MEASURED))] if is_remote else train

    def train_epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[list[Batch]]:
        """The steps of an epoch for this rank: each a list of micro-batches, on the CPU."""
        self._refuse_misfit()
        if self.chosen:
            return self.loader.epoch(epoch, order=self.chosen.of(epoch), first_step=first_step)
        chunk, _ = chunk_at(epoch, self.recipe.curriculum)
        return self.loader.epoch(epoch, order=self.chunks[chunk], first_step=first_step)

    def _refuse_misfit(self) -> None:
        """Refuse a cache too small for a shuffle of all frames: every shard would be downloaded again and again."""
        if self.shard_order is None and isinstance(self.source, ShardedSource) and self.source.remote:
            numbers = ShardNumbers.of(self.source.shard_numbers)
            self.source.refuse_misfit(numbers.used_by(self.split.train, self.split.val))  # test frames are not read

    def statistics_batches(self, epoch: int) -> Iterator[Batch]:
        """Batches of training frames as in an epoch, the same for any number of workers, for statistics of batch norm.

        They are spread over all training frames; with data.order=shards they are of a few shards, which one worker can
        read.
        """
        recipe = self.recipe
        train: Sequence[int] = sorted(self.chosen.of(epoch)) if self.chosen else self.split.train
        if self.shard_order is not None:
            train = self.shard_order.first(train)
        size = min(recipe.train.batch_size // recipe.train.accumulate, STATISTICS_BATCH, len(train))
        count = min(STATISTICS_BATCHES, len(train) // size) * size
        loader = TrainLoader(
            self.source,
            [train[index * len(train) // count] for index in range(count)],
            recipe.data.model_copy(update={"workers": 0}),  # processes would take longer to start than this takes
            recipe.augment,
            seed=recipe.seed,
            batch_size=size,
            curriculum=recipe.curriculum,
            device=self.device,
        )
        return (batch for step in loader.epoch(epoch) for batch in step)

    def val_batches(self) -> Iterator[tuple[list[int], Batch]]:
        """This rank's batches of the validation frames, truth at native size."""
        groups = eval_groups(
            self.split.val,
            batch_size=self.recipe.eval.batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            shard_order=self.shard_order,
        )
        return self.loader.eval_batches(groups)

    def further_name(self, path: str) -> str:
        """The short name of a data set of `eval.also`."""
        return next(each.name for each in self.further if each.path == path)

    def sanity_warnings(self) -> list[str]:
        """What is implausible about the depth of the fixed validation frames, such as a mistaken unit."""
        # A few frames, as this runs before every training; `depthray data check` reads all of them.
        samples = [(index, self.source.read(index)) for index in self.fixed_frames()]
        return [
            f"frame '{sample['id']}': {kind}: {detail}; see `depthray data check`"
            for index, sample in samples
            if "depth" in sample and "depth" in self.recipe.data.targets
            for kind, detail in depth_faults(judged_depth(sample), max_depth=self._max_depth(index))
        ]

    def _max_depth(self, index: int) -> float:
        """Metres beyond which the truth of a frame is not valid."""
        data, source = self.recipe.data, self.source
        own = data.sets[source.set_of(index)].max_depth if isinstance(source, JoinedSource) else None
        return own or data.max_depth

    def fixed_frames(self, count: int = 4) -> list[int]:
        """Indices of validation frames spread over the set, the same at every epoch, for contact sheets."""
        # With data.order=shards take those of rank 0's shards: it draws the sheets.
        val: Sequence[int] = self.split.val if self.shard_order is None else self.shard_order.first(self.split.val)
        return [val[i * len(val) // min(count, len(val))] for i in range(min(count, len(val)))]
