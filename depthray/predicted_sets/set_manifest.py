"""`predictions.json`, which begins a folder of predictions: whose they are, of which data, made how.

A folder is continued only by a call for which all of it is the same, as predictions of two networks would be read as
one data set.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from depthray.errors import DataError, ResourceError
from depthray.predicted_sets.model_identity import ModelIdentity
from depthray.storage.folders import AnyFolder, LocalFolder
from depthray.storage.os_errors import translate_os_errors

NAME = "predictions.json"
PARTS = "parts"  # folder of the records of finished parts
STAGING = ".tmp-"  # begins the names of folders in which parts are being written
VERSION = 1


class SetManifest(NamedTuple):
    """What all parts of a predicted data set have in common."""

    model: ModelIdentity
    data: dict[str, Any]  # root, fingerprint and number of frames
    options: dict[str, Any]  # that decide what is written

    def as_tree(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "version": VERSION,
            "labelled_by": self.model.as_record(),
            "fitted": self.model.fitted,
            "data": self.data,
            "options": self.options,
        }


def is_begun(folder: AnyFolder, manifest: SetManifest) -> bool:
    """Whether a folder has some of these predictions; DataError where it has others, or other files."""
    existing = _read(folder)
    if existing is None:
        if names := [name for name in folder.names() if not name.startswith(STAGING)]:
            raise DataError(
                f"{folder.url}: holds {names[0]} and no {NAME}, so it was not begun by this command; choose another "
                "--out"
            )
        return False
    try:
        # As it is read back, with lists for tuples.
        _refuse_other(existing, json.loads(json.dumps(manifest.as_tree())), folder.url)
    except (KeyError, TypeError):
        raise DataError(f"{folder.url}/{NAME}: damaged; choose another --out") from None
    return True


def write(folder: AnyFolder, manifest: SetManifest) -> None:
    """Begin a folder of predictions."""
    if isinstance(folder, LocalFolder):
        with translate_os_errors(folder.path, to=ResourceError, doing="be written", advice="choose another --out"):
            (folder.path / PARTS).mkdir(parents=True, exist_ok=True)
    folder.write(NAME, json.dumps(manifest.as_tree(), indent=1).encode() + b"\n")


def _read(folder: AnyFolder) -> dict[str, Any] | None:
    try:
        tree: dict[str, Any] = json.loads(folder.read(NAME))
        if tree["version"] != VERSION:
            raise DataError(f"{folder.url}/{NAME}: of another version of depthray; choose another --out")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{folder.url}/{NAME}: damaged; choose another --out") from None
    return tree


def _refuse_other(existing: dict[str, Any], tree: dict[str, Any], where: str) -> None:
    """Raise DataError where a folder has predictions of another model, of other data, or made otherwise."""
    ours, theirs = tree["labelled_by"], existing["labelled_by"]
    if ours != theirs:
        raise DataError(
            f"{where}: has predictions by another model, {_describe(theirs)}, not by {_describe(ours)}; choose another "
            "--out"
        )
    if existing["fitted"] != tree["fitted"]:
        raise DataError(f"{where}: has predictions by {_describe(ours)} calibrated otherwise; choose another --out")
    for key in dict.fromkeys([*tree["options"], *existing["options"]]):
        before, value = (each["options"].get(key) for each in (existing, tree))
        if before != value:
            raise DataError(
                f"{where}: was begun with {_text(before)}, and this call has {_text(value)}, for {_flag(key)}; give "
                "the same as before, or choose another --out"
            )
    # The same data may be at another path by now.
    if any(existing["data"][key] != tree["data"][key] for key in ("fingerprint", "frames")):
        raise DataError(
            f"{where}: has predictions of other data ({existing['data']['root']}), or of data that has changed since; "
            "choose another --out"
        )


def _describe(model: dict[str, Any]) -> str:
    return f"{model.get('name')} (epoch {model.get('epoch')}, sha256 {str(model.get('sha256'))[:8]})"


def _flag(option: str) -> str:
    return "the encoding of depth" if option == "encoding" else "--" + option.replace("_", "-")


def _text(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value).strip('"')
