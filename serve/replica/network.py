"""A network that is served: loaded, warm, and held against what it said when it was promoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from depthray.errors import CheckpointError
from serve.registry import golden
from serve.settings import Model

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.predict import Predictor


class Network:
    """A loaded version: warm, and found to say what it said when it was promoted."""

    def __init__(self, predictor: Predictor, settings: Model) -> None:
        from depthray.training.precision import Precision

        self.predictor = predictor
        self._precision = Precision.of(settings.precision, predictor.device)
        self._compiled = settings.compile
        if settings.compile:
            import torch

            predictor.model = torch.compile(predictor.model)  # type: ignore[assignment]  # it acts as the module it wraps
        data = predictor.recipe.data
        self._golden = golden.samples(data.inputs, data.size)
        if predictor.device.type == "cpu" and settings.precision == "fp32" and not settings.compile:
            from serve.replica import cpu_fusion

            cpu_fusion.pack(predictor.model, lambda: self.run([self._golden[0]] * settings.max_batch))
        self._warm(settings.max_batch)

    def run(self, samples: Sequence[Sample]) -> list[golden.Maps]:
        """Prepared samples of one size -> of each the maps (h,w), in one pass."""
        padded = [*samples, *[samples[-1]] * (_power(len(samples)) - len(samples))] if self._compiled else samples
        with self._precision.autocast():
            return self.predictor.run(padded)[: len(samples)]

    def compare(self, wanted: Sequence[Mapping[str, Any]], most: float) -> None:
        """CheckpointError if the golden images look otherwise than when this version was promoted."""
        found = golden.difference([self.run([sample])[0] for sample in self._golden], wanted).relative
        if not found <= most:
            raise CheckpointError(f"its depth of golden images is off by {found:.1%} (model.deviation={most:.1%})")

    def probe(self) -> None:
        """RuntimeError if the network no longer says anything sensible."""
        for key, values in self.run(self._golden[:1])[0].items():
            if fault := golden.fault_of(key, values):
                raise RuntimeError(f"{key} of a golden image is {fault}")

    def _warm(self, most: int) -> None:
        """Compute once in every batch size that costs time at first."""
        sizes = {1, most}
        if self._compiled:
            sizes = {1 << power for power in range(_power(most).bit_length())}
        for size in sorted(sizes):
            self.run([self._golden[0]] * size)


def _power(number: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << (number - 1).bit_length()
