"""The manifest of a checkpoint: what its files must be, byte for byte, and where in the run it was taken.

It is written last, so a folder without one is no checkpoint. It ends with a digest of itself and is valid only exactly
as `render` writes it, so that a changed byte shows wherever it is.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from depthray.checkpoints import calibration, origin
from depthray.checkpoints.calibration import NETWORK, Calibration, Temperature
from depthray.checkpoints.origin import Origin
from depthray.checkpoints.recorded_folder import RecordedFolder, seal
from depthray.config.own_code import CodeRecord
from depthray.errors import CheckpointError
from depthray.storage.local import FileRecord

NAME = "manifest.json"
FORMAT = 1
FORMAT_WITH_ORIGIN = 2  # of the network's first weights; a checkpoint without one keeps the first format
FORMAT_WITH_CODE = 3  # of one's own, which older versions cannot read
FORMAT_WITH_CALIBRATION = 4  # without which the same weights predict other metres
FORMAT_WITH_TEMPERATURE = 5  # without which they predict another confidence
FORMAT_WITH_SPREAD = 6  # a temperature that is of no network's own confidence
FORMATS = (
    *(FORMAT, FORMAT_WITH_ORIGIN, FORMAT_WITH_CODE),
    *(FORMAT_WITH_CALIBRATION, FORMAT_WITH_TEMPERATURE, FORMAT_WITH_SPREAD),
)
OPTIONAL = ("origin", "code", "calibration", "temperature")  # left out where there is nothing
WEIGHTS, STATE, RECIPE, METRICS = FILES = ("model.safetensors", "state.pt", "recipe.yaml", "metrics.json")
_FOLDER = RecordedFolder(noun="checkpoint", manifest=NAME, advice="use another checkpoint")
check_size, read_file = _FOLDER.check_size, _FOLDER.read_file


@dataclass(frozen=True)
class Manifest:
    """When in its run a checkpoint was taken, by which versions, and the files it consists of."""

    epoch: int
    step: int
    fingerprint: str
    versions: dict[str, str]  # of what computed it, and in which arithmetic: device, precision, deterministic
    files: dict[str, FileRecord]
    origin: Origin | None = None  # of the weights that the run started from; None: random ones
    code: tuple[CodeRecord, ...] = ()  # of one's own, that the recipe names
    calibration: Calibration | None = None  # of its depth, fitted afterwards
    temperature: Temperature | None = None  # of its confidence, fitted afterwards


def render(manifest: Manifest) -> bytes:
    """The bytes of manifest.json, the last of which is a digest of the rest."""
    fitted = manifest.temperature
    has = {
        FORMAT_WITH_SPREAD: fitted and fitted.of != NETWORK,
        FORMAT_WITH_TEMPERATURE: fitted,
        FORMAT_WITH_CALIBRATION: manifest.calibration,
        FORMAT_WITH_CODE: manifest.code,
        FORMAT_WITH_ORIGIN: manifest.origin,
    }
    body: dict[str, Any] = {
        "format": next((number for number, value in has.items() if value), FORMAT),
        **asdict(manifest),
    }
    for key in OPTIONAL:
        if not getattr(manifest, key):
            del body[key]
    if fitted and fitted.of == NETWORK:
        del body["temperature"]["of"]
    return seal(body)


def parse(data: bytes, *, where: Path) -> Manifest:
    """The manifest whose bytes these are; CheckpointError if they are not exactly what `render` writes."""
    try:
        tree = json.loads(data)
        if tree["format"] not in FORMATS:
            known = ", ".join(map(str, FORMATS))
            raise CheckpointError(f"{where}: format {tree['format']!r} is none of those this version reads: {known}")
        manifest = _build(tree)
        intact = render(manifest) == data  # so that a changed byte shows even where JSON ignores it, as in spaces
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(f"{where}: damaged (its digest does not match); use another checkpoint")
    return manifest


def read(path: Path) -> Manifest:
    """The manifest of a checkpoint folder that holds the files it names and no others; contents are not read."""
    manifest = parse(_FOLDER.read_manifest(path), where=path / NAME)
    _FOLDER.check_listing(path, manifest.files)
    return manifest


def verify(path: Path) -> Manifest:
    """The manifest of a checkpoint all of whose bytes are as they were written; else CheckpointError."""
    manifest = read(path)
    for name, expected in manifest.files.items():
        _FOLDER.check_file(path / name, expected)
    return manifest


def _build(tree: dict[str, Any]) -> Manifest:
    # Files beyond FILES are allowed: a later version may add one.
    files = {name: FileRecord(**record) for name, record in tree["files"].items()}
    code = tuple(CodeRecord(**record) for record in tree.get("code", ()))
    if not {*FILES, *(record.file for record in code if record.file)} <= set(files):
        raise KeyError("files")
    return Manifest(
        epoch=tree["epoch"],
        step=tree["step"],
        fingerprint=tree["fingerprint"],
        versions=tree["versions"],
        files=files,
        origin=origin.from_json(tree.get("origin")),
        code=code,
        calibration=calibration.from_json(tree.get("calibration")),
        temperature=calibration.temperature_from_json(tree.get("temperature")),
    )
