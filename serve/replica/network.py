"""A served network: loaded, warmed up, and compared with its answers at the time of its promotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from depthray.errors import CheckpointError
from depthray.runtimes.open import EAGER
from serve.registry import golden
from serve.settings import ModelSettings

if TYPE_CHECKING:  # torch takes seconds to import
    from depthray.batch import Sample
    from depthray.predict import Predictor


class Network:
    """A loaded version, warmed up for the sizes of batches that it will get."""

    def __init__(self, predictor: Predictor, settings: ModelSettings) -> None:
        self.predictor = predictor
        self._is_compiled = settings.compile and predictor.runtime == EAGER
        if self._is_compiled:
            import torch

            predictor.model = torch.compile(predictor.model)  # type: ignore[assignment]  # it acts as the module it wraps
        self._golden = golden.samples(predictor.recipe.data)
        self._warm_up(settings.max_batch)

    def run(self, samples: Sequence[Sample]) -> list[golden.Maps]:
        """Prepared samples of one size -> the maps (h,w) of each, in one pass."""
        # A compiled network is compiled again for each new batch size: powers of two keep their number small.
        padding = [samples[-1]] * (_next_power(len(samples)) - len(samples)) if self._is_compiled else []
        return self.predictor.run([*samples, *padding], passes=self.predictor.passes)[: len(samples)]

    def compare(self, expected: Sequence[Mapping[str, Any]], most: float) -> None:
        """CheckpointError if the depth of golden images differs from what this version predicted when promoted."""
        maps = [self.predictor.run([sample])[0] for sample in self._golden]  # one pass, as promotion computed
        relative = golden.difference(maps, expected).relative
        if not relative <= most:  # NaN is refused too
            raise CheckpointError(f"its depth of golden images is off by {relative:.1%} (model.deviation={most:.1%})")

    def probe(self) -> None:
        """RuntimeError if the prediction for a golden image is invalid."""
        for key, values in self.run(self._golden[:1])[0].items():
            if fault := golden.fault_of(key, values):
                raise RuntimeError(f"{key} of a golden image is {fault}")

    def _warm_up(self, most: int) -> None:
        """Compute every batch size whose first pass is slow, before requests wait for it."""
        sizes = {1, most}
        if self._is_compiled:
            sizes = {1 << power for power in range(_next_power(most).bit_length())}
        for size in sorted(sizes):
            self.run([self._golden[0]] * size)


def _next_power(number: int) -> int:
    """The smallest power of two that is not below a number."""
    return 1 << (number - 1).bit_length()
