"""What scores are of, in words: where frames are, and the size at which a network sees them."""

from __future__ import annotations

from depthray.config import own_code
from depthray.config.sections import Data
from depthray.data.mixing import data_sets


def describe_data(data: Data) -> str:
    """Where the frames of a resolved section are, their form and unit."""
    if data.sets:
        each = zip(data.sets, data_sets.sections_of(data), strict=True)
        return "; ".join(f"{one.name}: {describe_data(section)}" for one, section in each)
    form = own_code.short_name(data.source)
    known = ", ".join(text for text in (form, data.encoding) if text)
    return f"{data.root} ({known})" if data.root else form


def network_size(data: Data) -> str:
    """The size of the network's inputs outside of training, in words."""
    height, width = data.size
    sizes = {"exact": f"{height}x{width}", "aspect": f"shorter side {min(data.size)}", "native": "the frame's own"}
    return sizes[data.fit]
