"""The folder of an exported model: what `model.json` says of it, and that its files are the ones that were written.

    model.onnx | model.xml, model.bin | model.pt2      the graph with its weights
    recipe.yaml   metrics.json                         of the checkpoint
    README.md   parity.json ...                        for people; nothing here reads them
    model.json                                         ports, size rule, versions; size and SHA-256 of all others

`model.json` is written last, as a checkpoint's manifest is. Digests show damage, but a forger writes new ones: so the
spec is checked by itself, and each runtime checks its model file, before anything opens it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from depthray.checkpoints import manifest, model_facts
from depthray.checkpoints.calibration import Temperature
from depthray.checkpoints.manifest import METRICS, RECIPE
from depthray.checkpoints.model_facts import ModelFacts
from depthray.checkpoints.origin import Origin
from depthray.checkpoints.recorded_folder import RecordedFolder, seal
from depthray.config.sections import Data, Uncertainty
from depthray.errors import CheckpointError
from depthray.storage.local import FileRecord
from depthray.storage.local import replace as replace_file
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import finite_tree

NAME = model_facts.NAME  # a checkpoint has it too, with less in it
FORMAT = 1
ADVICE = "export the checkpoint again"
COLOUR_UNIT, DEPTH_UNIT, ID_UNIT = "0 to 255", "metres", "class id"
CANONICAL_UNIT = "metres of the canonical camera: times f / F metres"  # see `CanonicalCamera`
CANONICAL_SPARSE_UNIT = "metres times F / f, 0 = unmeasured"
SPARSE_UNIT, MASK_UNIT, MASK_INPUT_UNIT = "metres, 0 = unmeasured", "probability", "0 or 1"
CAMERA_UNIT = "pixels of H, W: fx, 0, cx; 0, fy, cy; 0, 0, 1"
INPUT_KEYS = ("image", "background", "sparse", "semantics", "instances", "mask", "intrinsics")  # of a batch
OUTPUT_KEYS = ("depth", "mask", "sigma", "valid")  # sigma: the deviation of depth; valid: whether there is one
MASKS = ("mask", "valid")  # outputs that are probabilities
MAX_STRIDE, MAX_SIDE = 1024, 1 << 16
_FOLDER = RecordedFolder(noun="export", manifest=NAME, advice=ADVICE)


@dataclass(frozen=True)
class Port:
    """An input or output (B,channels,H,W) of an exported graph; a camera is (B,3,3)."""

    name: str  # a key of a batch
    dtype: str  # float32 or int64
    channels: int
    unit: str

    def shape(self, batch: Any, size: Sequence[Any]) -> tuple[Any, ...]:
        """The shape for a batch of frames of a size (H,W), in numbers or in words."""
        return (batch, 3, 3) if self.name == "intrinsics" else (batch, self.channels, *size)


@dataclass(frozen=True)
class CanonicalCamera:
    """The camera that a graph knows, whose work is outside of the graph: f is that of a frame, see `transform`."""

    focal: float  # F, pixels
    # label: the graph's depth times f / F is metres, and sparse depth is given times F / f, f = sqrt(fx fy) of what the
    # graph gets. image: a frame is resized to columns times F / fx and rows times F / fy, and its depth is metres.
    transform: Literal["label", "image"]


@dataclass(frozen=True)
class ExportSpec:
    """What `model.json` says of an export."""

    target: str  # onnx, openvino, openvino-int8, torch-export, aoti or tensorrt
    precision: str  # fp32, bf16 or int8
    inputs: tuple[Port, ...]  # in the order of the graph's
    outputs: tuple[Port, ...]
    stride: int  # height and width of what the graph gets are multiples of it
    size: tuple[int, int]  # (H,W) that the network was evaluated at; the only one where `dynamic_size` is false
    dynamic_batch: bool  # else the graph takes one frame
    dynamic_size: bool
    largest_side: int  # pixels, of what the graph gets
    model_file: str
    depth_kind: str  # as `loss.depth_kind` of the recipe: metric, or what a loss left open
    checkpoint_sha256: str  # of the checkpoint's weights
    epoch: int
    step: int
    fingerprint: str  # of the data that it was trained on
    origin: Origin | None  # of the weights that its training started from
    versions: dict[str, str]
    scores: dict[str, float]  # of the checkpoint, by its own protocol
    tested: dict[str, Any]  # what the parity gate measured: sizes, batches, bound
    smallest_side: int = 1  # pixels; below it a graph of any size is not the network any more
    facts: ModelFacts | None = None  # what it was trained on, and what was measured of it
    canonical: CanonicalCamera | None = None  # None: the graph's depth is of any camera
    spread: str | None = None  # whose predictions `sigma` is the spread of; None: what the network itself predicts
    temperature: Temperature | None = None  # the factor of a spread that is not in the graph, but was fitted

    def __post_init__(self) -> None:
        """Refuse what no export of ours says, with a ValueError."""
        _check_ports(self.inputs, INPUT_KEYS)
        _check_ports(self.outputs, OUTPUT_KEYS)
        if not 1 <= self.stride <= MAX_STRIDE:
            raise ValueError(f"stride {self.stride}")
        if not all(0 < side <= self.largest_side and side % self.stride == 0 for side in self.size):
            raise ValueError(f"size {self.size}")
        if not 0 < self.smallest_side <= min(self.size) or self.largest_side > MAX_SIDE:
            raise ValueError(f"sides of {self.smallest_side} to {self.largest_side}")


@dataclass(frozen=True)
class ExportFolder:
    """An export whose spec is sound and whose files are all there; `read_file` checks their contents."""

    path: Path
    spec: ExportSpec
    files: dict[str, FileRecord]

    def read_file(self, name: str) -> bytes:
        """The bytes of one of its files, the very ones that were checked."""
        if name not in self.files:
            raise CheckpointError(f"{self.path}: has no {name}; {ADVICE}")
        return _FOLDER.read_file(self.path / name, self.files[name])

    def refusal(self, reason: str) -> CheckpointError:
        """The error for a model file that no runtime is given, or that one does not open."""
        return CheckpointError(f"{self.path / self.spec.model_file}: {reason}; {ADVICE}")


def canonical_of(data: Data) -> CanonicalCamera | None:
    """The canonical camera of a recipe's section; None also where the graph gets the camera of each frame alone."""
    if not data.canonical_focal or data.canonical == "none":
        return None
    return CanonicalCamera(data.canonical_focal, data.canonical)


def spread_family(own: Uncertainty) -> Uncertainty:
    """The distribution of ln depth where its deviation is a spread: the network's own, else Laplace."""
    return "laplace" if own == "none" else own  # whose tails are those of depth at edges


def dtype_of(key: str) -> str:
    """The type of an input or output in a graph."""
    return "int64" if key in ("semantics", "instances") else "float32"


def channels_of(key: str) -> int:
    """The channels of an input or output."""
    return 3 if key in ("image", "background", "intrinsics") else 1


def input_port(key: str, *, canonical: CanonicalCamera | None = None) -> Port:
    """The port of one of `data.inputs`."""
    if key == "sparse" and canonical is not None and canonical.transform == "label":
        return Port(key, dtype_of(key), channels_of(key), CANONICAL_SPARSE_UNIT)
    units = {"sparse": SPARSE_UNIT, "mask": MASK_INPUT_UNIT, "semantics": ID_UNIT, "instances": ID_UNIT}
    units["intrinsics"] = CAMERA_UNIT
    return Port(key, dtype_of(key), channels_of(key), units.get(key, COLOUR_UNIT))


def output_port(key: str, *, depth_unit: str = DEPTH_UNIT) -> Port:
    """The port of one of `data.targets`, or of what is predicted along with depth."""
    return Port(key, dtype_of(key), channels_of(key), MASK_UNIT if key in MASKS else depth_unit)


def write(folder: Path, spec: ExportSpec) -> None:
    """Record all files of the folder in `model.json`, which is written last; one that is there is replaced."""
    with translate_os_errors(folder, to=CheckpointError, doing="write the export", advice="{remedy}"):
        names = sorted(entry.name for entry in folder.iterdir() if entry.name != NAME)
        files = {name: _record(folder / name) for name in names}
        replace_file(folder / NAME, render(spec, files))
    read_folder(folder)  # whatever would be refused later is refused now


def render(spec: ExportSpec, files: dict[str, FileRecord]) -> bytes:
    """The bytes of model.json."""
    scores = {key: float(value) for key, value in spec.scores.items() if math.isfinite(value)}
    body = asdict(replace(spec, scores=scores, tested=finite_tree(spec.tested)))
    for key in ("facts", "canonical", "spread", "temperature"):  # folders of earlier versions have no such key
        if body[key] is None:
            del body[key]
    return seal({"format": FORMAT, **body, "files": {name: asdict(record) for name, record in files.items()}})


def read_folder(path: Path) -> ExportFolder:
    """The export in a folder that holds the files it names, of their size, and no others; contents are not read."""
    spec, files = parse(_FOLDER.read_manifest(path), where=path / NAME)
    _FOLDER.check_listing(path, files)
    for name, record in files.items():
        _FOLDER.check_size(path / name, record)
    return ExportFolder(path, spec, files)


def read(path: Path) -> ExportSpec:
    """What an export says of itself; contents of other files are not read."""
    return read_folder(path).spec


def verify(path: Path) -> ExportSpec:
    """The same of an export all of whose bytes are as they were written; else CheckpointError."""
    folder = read_folder(path)
    for name, record in folder.files.items():
        _FOLDER.check_file(path / name, record)
    return folder.spec


def is_export(path: Path) -> bool:
    """Whether a path is the folder of an export, sound or not."""
    return (path / NAME).is_file() and not (path / manifest.NAME).is_file()


def identity(path: Path) -> str:
    """SHA-256 of model.json, and so of all that the export consists of."""
    return sha256(_FOLDER.read_manifest(path)).hexdigest()


def parse(data: bytes, *, where: Path) -> tuple[ExportSpec, dict[str, FileRecord]]:
    """The spec and files that these bytes record; CheckpointError if they are not exactly what `render` writes."""
    try:
        tree = json.loads(data)
        if tree["format"] != FORMAT:
            raise CheckpointError(f"{where}: format {tree['format']!r} is not the format {FORMAT} this version reads")
        spec = _spec_type().validate_json(data, strict=True)
        files = {name: FileRecord(**record) for name, record in tree["files"].items()}
        intact = render(spec, files) == data  # so that a changed byte shows even where JSON ignores it, as in spaces
    except ValidationError as error:
        raise CheckpointError(f"{where}: {_fault(error)}; {ADVICE}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise CheckpointError(f"{where}: damaged (its digest does not match); {ADVICE}")
    if missing := [name for name in (spec.model_file, RECIPE, METRICS) if name not in files]:
        raise CheckpointError(f"{where}: records no {missing[0]}; {ADVICE}")
    return spec, files


def _check_ports(ports: tuple[Port, ...], keys: tuple[str, ...]) -> None:
    """Refuse ports that are no inputs or outputs of a network, with a ValueError."""
    names = [port.name for port in ports]
    if not names or len(set(names)) < len(names) or not set(names) <= set(keys):
        raise ValueError(f"ports {', '.join(names) or 'missing'}")
    for port in ports:
        if (port.dtype, port.channels) != (dtype_of(port.name), channels_of(port.name)):
            raise ValueError(f"port {port.name} of {port.channels} channels of {port.dtype}")


@cache
def _spec_type() -> TypeAdapter[ExportSpec]:
    return TypeAdapter(ExportSpec)


def _fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    return f"{key + ': ' if key else ''}{fault['msg'][:200]}"


def _record(path: Path) -> FileRecord:
    """Size and SHA-256 of a file that was just written."""
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
        return FileRecord(file.tell(), digest)
