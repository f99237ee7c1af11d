"""Rendered rooms, drawn when they are read: nothing on disk."""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from depthray.data import synthetic
from depthray.data.sources import Frame, wanted

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.recipe import Data
