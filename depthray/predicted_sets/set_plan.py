"""A prediction of a whole data set before it begins: what is asked for, checked, and how it is cut into parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from depthray.config import own_code
from depthray.config import recipe as recipes
from depthray.config.recipe import absolute_path
from depthray.config.sections import Data, Recipe
from depthray.data import packing, sources
from depthray.data.mixing import data_sets
from depthray.data.recordings.containers.rosbag_writer import check_library
from depthray.data.shards import format
from depthray.data.source import Source, TimedSource
from depthray.errors import CheckpointError, UsageError
from depthray.evaluation.protocols import MEANING
from depthray.predict import BATCH, Predictor, load
from depthray.predicted_sets import set_manifest
from depthray.predicted_sets.frame_stream import check_inputs
from depthray.predicted_sets.model_identity import identify, name_of
from depthray.predicted_sets.set_manifest import SetManifest
from depthray.runs import locate
from depthray.runtimes.open import read_recipe
from depthray.storage.folders import open_folder
from depthray.storage.remote import is_remote

FRAMES_PER_PART = 256
MOST_RATE = 1e6  # frames a second: their times differ in microseconds
BAGS = "rosbag2"
FORMS = ("shards", "png", BAGS)  # what predictions can be written as
OF_NETWORK = ("inputs", "sparse", "canonical_focal", "canonical")  # keys of data, as the network was trained with them
# What the network or the command decides, which an override would contradict.
FIXED = ("root", "source", "sets", "targets", "size", "fit", *OF_NETWORK)


@dataclass(frozen=True)
class SetRequest:
    """What is asked for."""

    model: str  # a checkpoint, an export or a run; a path or an address
    data: str
    out: str
    source: str = ""  # form of the data; "" as it looks
    overrides: tuple[str, ...] = ()  # of data.*, for reading the frames
    to: str = "shards"
    as_labels: bool = False  # the frames' own depth stays, and the prediction is beside it
    rate: float = 0.0  # of bags: frames a second of a data set whose frames have no times
    frames_per_part: int = FRAMES_PER_PART
    device: str = ""  # "" for the GPU if there is one
    precision: str = "fp32"
    flip: bool = False
    scales: tuple[float, ...] = ()
    tiles: int = 1
    confidence: str = ""  # "flip": sigma from the difference to the mirrored image
    ensemble: tuple[str, ...] = ()  # further checkpoints, of whose predictions depth is the mean and sigma the spread
    batch: int = BATCH
    trust: bool = False


class SetPlan(NamedTuple):
    """A prediction of a whole data set: the facts that all its parts have in common."""

    request: SetRequest  # with a model and places that mean the same to every worker
    section: Data  # by which frames are read
    manifest: SetManifest
    encoding: str  # of depth in shards
    is_begun: bool  # whether an earlier call has begun the folder

    @property
    def total(self) -> int:
        """The number of frames."""
        return int(self.manifest.data["frames"])

    @property
    def parts(self) -> range:
        """The numbers of all parts."""
        return range(-(-self.total // self.request.frames_per_part))

    def frames(self, number: int) -> range:
        """The indices of the frames of a part."""
        size = self.request.frames_per_part
        return range(number * size, min((number + 1) * size, self.total))


def prepare(request: SetRequest) -> tuple[Source, SetPlan]:
    """Check a request and its folder, which is not made yet -> the data set and the plan.

    Raises UsageError for what does not fit together, DataError where the folder has other predictions.
    """
    _check_numbers(request)
    path = locate.resolve(Path(request.model))
    recipe = read_recipe(path, trust=request.trust)
    _check_depth(recipe, request)
    section = _section(recipe, request)
    # Unverified: a file that is missing is a frame that fails, not the end.
    source = sources.open_source(section, verify=False)
    check_inputs(source, recipe, where=request.data)
    _check_times(source, request)
    model = request.model if is_remote(request.model) else str(path.resolve())
    others = tuple(each if is_remote(each) else str(locate.resolve(Path(each)).resolve()) for each in request.ensemble)
    request = replace(request, model=model, data=section.root, out=absolute_path(request.out), ensemble=others)
    encoding = _encoding(recipe, request, section, source)
    manifest = SetManifest(
        identify(path, recipe, name=name_of(request.model, path)),
        {
            "root": section.root,
            "form": section.source,
            "fingerprint": packing.fingerprint_of(source, skip_bad=True),
            "frames": len(source.frames),
        },
        {
            "to": request.to,
            "as_labels": request.as_labels,
            "frames_per_part": request.frames_per_part,
            "encoding": encoding,
            "precision": request.precision,
            "flip": request.flip,
            "scales": list(request.scales),
            "tiles": request.tiles,
            # Only where they are given, as folders that earlier versions have begun do not have them.
            **({"rate": request.rate} if request.to == BAGS else {}),
            **({"confidence": request.confidence} if request.confidence else {}),
            **({"ensemble": _ensemble(request)} if request.ensemble else {}),
        },
    )
    is_begun = set_manifest.is_begun(open_folder(request.out), manifest)
    return source, SetPlan(request, section, manifest, encoding, is_begun)


def open_network(plan: SetPlan) -> Predictor:
    """The network of a plan. Raises CheckpointError where it is not the one that the plan was made with."""
    request = plan.request
    path = locate.resolve(Path(request.model))
    predictor = load(
        path,
        device=request.device or None,
        precision=request.precision,
        trust=request.trust,
        flip=request.flip,
        scales=request.scales,
        tiles=request.tiles,
        confidence=request.confidence or None,
        ensemble=request.ensemble,
        batch=request.batch,
    )
    # A run may have got a better checkpoint since, and other nodes another file of that name.
    is_same = identify(path, predictor.recipe, name=plan.manifest.model.name) == plan.manifest.model
    if not is_same or _ensemble(request) != plan.manifest.options.get("ensemble", []):
        raise CheckpointError(f"{request.model}: another network than the one this call began with; name a checkpoint")
    return predictor


def _ensemble(request: SetRequest) -> list[str]:
    """SHA-256 of each further network."""
    paths = [locate.resolve(Path(each)) for each in request.ensemble]
    return [identify(path, read_recipe(path, trust=request.trust), name="").sha256 for path in paths]


def _check_numbers(request: SetRequest) -> None:
    for flag in ("frames_per_part", "batch"):
        if getattr(request, flag) < 1:
            raise UsageError(f"--{flag.replace('_', '-')} {getattr(request, flag)}: give a number above 0")
    if request.to not in FORMS:
        raise UsageError(f"--to {request.to}: choose from {', '.join(FORMS)}")
    if request.confidence and request.to != "shards":
        raise UsageError(f"--to {request.to}: has depth alone, and --confidence is beside it in shards; leave one out")
    if request.rate and request.to != BAGS:
        raise UsageError(f"--rate is the frames a second of --to {BAGS}; leave it out")
    if not 0 <= request.rate <= MOST_RATE:
        raise UsageError(f"--rate {request.rate:g}: give frames a second, above 0 and at most {MOST_RATE:g}")
    if request.as_labels and request.to != "shards":
        raise UsageError(f"--to {request.to}: labels are shards alone; leave it out, or leave out --as-labels")


def _check_times(source: Source, request: SetRequest) -> None:
    """Raise UsageError where bags have no times for their frames, or two."""
    if request.to != BAGS:
        return
    check_library()
    if isinstance(source, TimedSource):
        if request.rate:
            raise UsageError("--rate is for frames without times, and these were recorded at some; leave it out")
    elif not request.rate:
        raise UsageError(
            f"--to {BAGS}: the frames of {request.data} ({request.source or 'as it looks'}) have no times; give --rate "
            "HZ, by which they are numbered, or predict the recording itself"
        )


def _check_depth(recipe: Recipe, request: SetRequest) -> None:
    """Raise UsageError for a network without depth, and for one without metres where files hold these."""
    if "depth" not in recipe.data.targets:
        raise UsageError(f"{request.model}: predicts {', '.join(recipe.data.targets)}, not depth")
    if recipe.depth_kind != "metric" and not request.as_labels:
        raise UsageError(
            f"--to {request.to} holds metres, and this network's depth is {MEANING[recipe.depth_kind]}; use --as-labels"
        )


def _section(recipe: Recipe, request: SetRequest) -> Data:
    """The section by which the frames are read: not the one that the network was trained by, of another data set."""
    for each in request.overrides:
        key = each.partition("=")[0]
        if not key.startswith("data.") or key.split(".")[1] in FIXED:
            raise UsageError(f"{each}: only data.* that says how frames are read can be given here, as data.encoding")
    own_code.allow([request.source])
    form = request.source or sources.recognise(request.data)
    default = recipes.override(Recipe(), request.overrides, where="command line").data
    values = {key: getattr(recipe.data, key) for key in OF_NETWORK} | {"targets": ("depth",)}
    section = data_sets.one_set(default, root=absolute_path(request.data), source=form, **values)
    sources.check_name(form, where="--source")
    sources.check_recording(section, where="command line")
    return packing.select_all_inputs(section) if request.as_labels else section


def _encoding(recipe: Recipe, request: SetRequest, section: Data, source: Source) -> str:
    """The encoding of depth in shards: of labels that of the frames' own depth, else one that holds the predictions."""
    if request.as_labels:
        return packing.shard_encoding(section, source)
    return format.FAR_ENCODING if recipe.data.max_depth > format.FARTHEST else format.ENCODING
