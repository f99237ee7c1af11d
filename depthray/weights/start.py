"""A network with the weights that its recipe starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from depthray.checkpoints import load, manifest, select
from depthray.checkpoints.origin import Origin
from depthray.config.sections import DepthKind, Model
from depthray.errors import UsageError
from depthray.weights import fit
from depthray.weights.describe import describe_network, option, what_fits
from depthray.weights.families import own, translate
from depthray.weights.fit import Fit
from depthray.weights.obtain import WeightsFile, obtain
from depthray.weights.read import read
from depthray.weights.reference import Missing, Reference, parse
from depthray.weights.translation import Misfit, Translation, corrects_samples, last_layers

LISTED = 6  # names of weights in a line


@dataclass(frozen=True)
class StartReport:
    """Which weights of a network were loaded, and which were not."""

    origin: Origin | None = None  # None: random weights
    loaded: tuple[str, ...] = ()  # names of weights of the network
    random: tuple[str, ...] = ()  # names of weights of the network that stay as they were built
    unused: tuple[str, ...] = ()  # names of weights of the file
    notes: tuple[str, ...] = ()  # lines for people
    depth_kind: DepthKind = "metric"  # what the numbers of the loaded network's depth are

    def can_predict(self, kind: DepthKind) -> bool:
        """Whether all of the network was loaded, and its depth is of this kind: it predicts before it is trained."""
        return bool(self.loaded) and not self.random and self.depth_kind == kind


def start(network: nn.Module, section: Model) -> StartReport:
    """Load `model.weights` into a network that was built random. Raises UsageError where they do not fit.

    Of a network without memory (on the meta device) it is only checked that they do.
    """
    if not section.weights:
        return StartReport()
    reference = parse(section.weights)
    try:
        file = obtain(reference, network, may_download=not reference.optional)
    except Missing as error:
        if not reference.optional:
            raise
        return StartReport(notes=(f"{error}; the network starts from random weights",))
    own.refuse_export(file.path, where=reference.where)
    if (checkpoint := _checkpoint_of(file)) is not None:
        translation, origin = _read_checkpoint(checkpoint, reference)
    else:
        translation, origin = _read_file(file, network, section)
    translation = _without_last_layers(network, translation)
    result = fit.compare(network, translation)
    _check(result, translation, section, reference)
    fit.load(network, result)
    return _report(network, result, translation, origin, reference)


def _checkpoint_of(file: WeightsFile) -> Path | None:
    """The checkpoint folder that a path means, or that a file of weights is in; None for all other files."""
    path = file.path
    if path.is_dir():
        return select.resolve(path)
    if path.name == manifest.WEIGHTS and (path.parent / manifest.NAME).is_file():
        return path.parent
    return None


def _read_checkpoint(path: Path, reference: Reference) -> tuple[Translation, Origin]:
    contents = load.load(path)
    parent = contents.origin or Origin("")
    # The terms of the weights that it started from itself are those of all that follows.
    family = f"depthray, from {parent.family}" if parent.family else "depthray"
    origin = replace(parent, source=f"{reference.text} ({path.name})", family=family, sha256=contents.weights_sha256)
    return own.of_checkpoint(contents, where=str(path)), origin


def _without_last_layers(network: nn.Module, translation: Translation) -> Translation:
    """The same without the layers whose output corrects samples there and is depth itself here, or the reverse."""
    if translation.corrects is None or translation.corrects == corrects_samples(network):
        return translation
    meanings = ("is depth itself", "corrects sparse depth")
    there, here = (meanings[each] for each in (translation.corrects, not translation.corrects))
    note = f"the last layer starts anew: its output {there} in the file and {here} in this network"
    fresh = (*translation.fresh, *last_layers(network))
    return replace(translation, fresh=fresh, notes=(*translation.notes, note))


def _read_file(file: WeightsFile, network: nn.Module, section: Model) -> tuple[Translation, Origin]:
    where = f"model.weights={section.weights}"
    weights = read(file.path, where=where)
    try:
        translation = translate(weights, network, file.hints(section.weights_depth))
    except Misfit as error:
        raise UsageError(f"{where}: {error}") from None
    return translation, file.origin(section.weights, translation.what)


def _check(result: Fit, translation: Translation, section: Model, reference: Reference) -> None:
    """Raise UsageError for what does not fit and was not allowed by the recipe: one line, with what would."""
    network = describe_network(section)
    partial = section.weights_match == "partial"
    if translation.lost and not partial:
        raise UsageError(
            f"{reference.where}: is {translation.what}; {translation.why_lost}; model.weights_match=partial loads the "
            f"rest, {len(result.loaded)} weights"
        )
    range_fault = "" if partial else _range_fault(translation, section)
    if not result.is_empty and (partial or not (result.fault or range_fault)):
        return
    fault = result.fault or range_fault or "shares no weight with it"
    elsewhere = f"; it fits {translation.fits}" if translation.fits and result.fault else ""
    rest = "; model.weights_match=partial loads what fits" if not (result.is_empty or partial) else ""
    raise UsageError(
        f"{reference.where}: does not fit {network}: it is {translation.what} and {fault}{elsewhere}; {network} takes "
        f"{what_fits(section)}{rest}"
    )


def _range_fault(translation: Translation, section: Model) -> str:
    """What is wrong with model.max_depth: the last layer gives a share of it, so that it is part of the weights."""
    theirs, ours = translation.max_depth, option(section, "max_depth")
    if theirs is None or ours is None or theirs == ours:
        return ""
    return f"was trained for model.max_depth={theirs:g}, here it is {ours:g}"


def _report(
    network: nn.Module, result: Fit, translation: Translation, origin: Origin, reference: Reference
) -> StartReport:
    names = [name for name in network.state_dict() if not fit.may_lack(name)]
    loaded = [name for name in names if name in result.loaded]
    # A last layer that corrects samples begins at 0, with which a network predicts the samples.
    zero = last_layers(network) if corrects_samples(network) else ()
    random = [name for name in names if name not in result.loaded and not name.startswith(zero or ("\0",))]
    unused = [*result.unknown, *translation.lost, *result.misshapen]
    share = f"{len(loaded)} of {len(names)} weights of the network"
    notes = [f"weights: {share} are those of {translation.what}, {reference.text}{_terms(origin)}"]
    # Of an encoder's file the decoder is random by nature; what is worth a line is what the file was to fill.
    left = [*result.lacking, *result.misshapen, *result.fresh]
    if left:
        notes.append(f"weights: random: {_listed(left)}")
    if unused:
        notes.append(f"weights: of the file, not used: {_listed(unused)}")
    notes += [f"weights: {line}" for line in translation.notes]
    return StartReport(
        origin, tuple(loaded), tuple(random), tuple(unused), tuple(notes), depth_kind=translation.depth_kind
    )


def _terms(origin: Origin) -> str:
    if not origin.licence:
        return ""
    return f" ({origin.licence}{', no commercial use' if origin.commercial is False else ''})"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
