"""The frames of a run on one process: opened, split by scene, cut into chunks, this rank's share loaded."""

from __future__ import annotations

from collections.abc import Iterator

from depthray import distributed
from depthray.batch import Batch
from depthray.config.sections import Recipe
from depthray.data.curriculum import cut_into_chunks
from depthray.data.encodings import depth_faults
from depthray.data.loader import TrainLoader, eval_batches
from depthray.data.shard_order import shard_order_of
from depthray.data.source import ShardedSource, Source
from depthray.data.sources import open_source
from depthray.data.split import Split, split
from depthray.errors import DataError

STATISTICS_BATCHES, STATISTICS_BATCH = 32, 32  # batches, and frames in one at most, for statistics of batch norm


class Frames:
    """Training and validation frames of a recipe.

    Raises DataError where there are too few frames for one step, or none to validate on.
    """

    def __init__(self, recipe: Recipe, source: Source) -> None:
        self.recipe = recipe
        self.source = source
        self.split: Split = split(source.frames, recipe.data)
        self.shard_order = shard_order_of(source, recipe.data, seed=recipe.seed)
        self.chunks = cut_into_chunks(self.split.train, source, recipe.curriculum, seed=recipe.seed)
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
        )
        # All epochs have equally many steps, so that the schedule is a pure function of the step.
        self.steps_per_epoch = min(len(chunk) for chunk in self.chunks) // recipe.train.batch_size
        if not self.steps_per_epoch:
            raise DataError(
                f"{len(self.split.train)} training frames in {len(self.chunks)} chunk(s) do not fill one batch of "
                f"{recipe.train.batch_size}; lower train.batch_size or curriculum.chunks"
            )

    @staticmethod
    def open(recipe: Recipe) -> Frames:
        """The frames of a recipe's data section."""
        return Frames(recipe, open_source(recipe.data))

    @property
    def fingerprint(self) -> str:
        """A digest of what the frames are; two data sets with equal ones are the same."""
        return self.source.fingerprint

    def train_epoch(self, epoch: int, *, first_step: int = 0) -> Iterator[list[Batch]]:
        """The steps of an epoch for this rank: each a list of micro-batches, uint8 colour, on the CPU."""
        self._refuse_misfit()
        # After the last chunk comes the first again, so any number of epochs has frames.
        chunk = self.chunks[epoch // self.recipe.curriculum.epochs_per_chunk % len(self.chunks)]
        return self.loader.epoch(epoch, order=chunk, first_step=first_step)

    def _refuse_misfit(self) -> None:
        """Refuse a cache too small for a shuffle of all frames: every shard would be downloaded again and again."""
        if self.shard_order is None and isinstance(self.source, ShardedSource) and self.source.remote:
            used = self.source.shard_numbers[[*self.split.train, *self.split.val]]  # test frames are not read
            self.source.refuse_misfit(sorted(set(used.tolist())))

    def statistics_batches(self, epoch: int) -> Iterator[Batch]:
        """Batches of training frames as in an epoch, the same for any number of workers, for statistics of batch norm.

        They are spread over all training frames; with data.order=shards they are of a few shards, which one worker can
        read.
        """
        recipe, train = self.recipe, self.split.train
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
        )
        return (batch for step in loader.epoch(epoch) for batch in step)

    def val_batches(self) -> Iterator[tuple[list[int], Batch]]:
        """This rank's batches of the validation frames, truth at native size."""
        return eval_batches(
            self.source,
            self.split.val,
            self.recipe.data,
            batch_size=self.recipe.eval.batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            shard_order=self.shard_order,
        )

    def sanity_warnings(self) -> list[str]:
        """What is implausible about the depth of the fixed validation frames, such as a mistaken unit."""
        limit = self.recipe.data.max_depth
        # A few frames, as this runs before every training; `depthray data check` reads all of them.
        samples = [self.source.read(index) for index in self.fixed_frames()]
        return [
            f"frame '{sample['id']}': {kind}: {detail}; see `depthray data check`"
            for sample in samples
            if "depth" in sample
            for kind, detail in depth_faults(sample["depth"], max_depth=limit)
        ]

    def fixed_frames(self, count: int = 4) -> list[int]:
        """Indices of validation frames spread over the set, the same at every epoch, for contact sheets."""
        # With data.order=shards take those of rank 0's shards: it draws the sheets.
        val = self.split.val if self.shard_order is None else self.shard_order.first(self.split.val)
        return [val[i * len(val) // min(count, len(val))] for i in range(min(count, len(val)))]
