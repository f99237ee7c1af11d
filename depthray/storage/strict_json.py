"""JSON that any reader accepts: NaN and infinity, which the standard does not have, become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def finite_tree(value: Any) -> Any:
    """A tree of plain values with None in place of each number that is not finite; tuples become lists."""
    if isinstance(value, Mapping):
        return {str(key): finite_tree(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite_tree(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """A tree of plain values as JSON text without a final newline."""
    # allow_nan=False: a number that finite_tree does not reach must fail here, not in a reader.
    return json.dumps(finite_tree(value), indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)
