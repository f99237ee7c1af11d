"""Random numbers as pure functions of where they are drawn, so that resuming needs no saved generator."""

from __future__ import annotations

import numpy as np
import torch

from depthray import distributed


def seed_step(seed: int, step: int) -> None:
    """Seed this process's torch generators for one step: dropout is a function of (seed, step, rank)."""
    words = np.random.SeedSequence([seed, step, distributed.rank()]).generate_state(2)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
