"""Networks in words: what a recipe builds, and the keys by which another recipe would build the same."""

from __future__ import annotations

import inspect
from typing import Any

from depthray import models
from depthray.config.sections import Model
from depthray.weights.catalogue import entries

SHOWN = 3  # names of weights in a line
SHAPING = ("encoder", "size")  # options by which networks of one architecture differ most


def describe_network(section: Model) -> str:
    """The architecture and its encoder or size: "unet with encoder=resnet34"."""
    shaping = [f"{key}={option(section, key)}" for key in SHAPING if option(section, key) is not None]
    return f"{section.name} with {' '.join(shaping)}" if shaping else section.name


def fitting_keys(section: Model) -> str:
    """The keys of a recipe that builds a network of these shapes."""
    shaping = [f"model.{key}={option(section, key)}" for key in SHAPING if option(section, key) is not None]
    return " ".join([f"model.name={section.name}", *shaping])


def what_fits(section: Model) -> str:
    """What weights the network of a recipe can start from, as values of model.weights."""
    names = [entry.name for entry in entries() if _is_made_for(entry.fits, section)]
    return ", ".join([*names[:SHOWN], "a depthray run of such a network"])


def _is_made_for(fits: str, section: Model) -> bool:
    wanted = dict(word.removeprefix("model.").split("=") for word in fits.split())
    given = {key: wanted[key] for key in (*SHAPING, "name") if key in wanted}
    return all(value == (section.name if key == "name" else option(section, key)) for key, value in given.items())


def option(section: Model, key: str) -> Any:
    """An option of the architecture, given or by default; None where it has no such option."""
    if key in section.options:
        return section.options[key]
    parameter = inspect.signature(models.builder(section.name)).parameters.get(key)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default
