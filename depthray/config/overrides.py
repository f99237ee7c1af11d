"""A recipe as plain values: read from a YAML file, changed by dotted overrides such as `optim.lr=3e-4`."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from depthray.config import own_code
from depthray.config.deprecated import weights_of
from depthray.errors import UsageError, did_you_mean


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; see `parse_yaml`."""
    return parse_yaml(path.read_bytes(), where=path)


def parse_yaml(data: bytes, *, where: Path) -> dict[str, Any]:
    """A YAML mapping by the safe loader; duplicate keys and Python tags are refused."""
    try:
        tree = _load(data.decode("utf-8"))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # not all of them are PyYAML's own
        raise UsageError(f"{where}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        kind = "empty" if tree is None else f"a {type(tree).__name__}"
        raise UsageError(f"{where}: a recipe is a mapping of sections, this file is {kind}")
    return tree


def _load(text: str) -> Any:
    """What a YAML text says, each time anew."""
    return copy.deepcopy(_load_shared(text))


@lru_cache(maxsize=256)  # a run reads its recipe several times, and each takes 30 ms
def _load_shared(text: str) -> Any:
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def find_yaml(name: str, folder: Path, *, kind: str) -> Path:
    """The YAML file that a NAME.yaml of the folder or a path names; `kind` is the noun in messages."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"{kind} file {path} {'is not a file' if path.exists() else 'does not exist'}")
        return path
    known = yaml_names(folder)
    if name not in known:
        raise UsageError(f"no {kind} '{name}'{did_you_mean(name, known)}; a file is given as path/to/it.yaml")
    return folder / f"{name}.yaml"


def yaml_names(folder: Path) -> list[str]:
    """The YAML files of a folder and those below it, without their suffix: `a`, `original/a`."""
    paths = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml")]
    return sorted((path.as_posix() for path in paths), key=lambda name: (name.count("/"), name))


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set the dotted key of `key=value` in the tree, the value read as YAML; the key is checked by `recipe.build`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"'{override}' is neither a flag nor an override of the form section.key=value")
    _replace_data_sets(tree, key, text)
    *parents, last = key.split(".")
    tree = _section_of(tree, parents, key)
    if key == "model.pretrained":  # translated here, where its place among the other overrides is known
        try:
            tree["weights"] = weights_of(_parse_value(text))
        except ValueError as error:
            raise UsageError(str(error)) from None
        return
    value = _parse_value(text)
    if key == "model.name" and tree.get(last) != value and own_code.is_of(own_code.MODEL, text):
        tree.clear()  # the options and weights of a recipe's architecture are not those of one's own
    tree[last] = text if value is None else value  # no key takes null: `key=null` is a text, and `key=` an empty one
    # a,b is a list: YAML's own [a,b] needs quotes in most shells.
    if isinstance(value, str) and "," in value:
        tree[last] = [_parse_value(part) for part in value.split(",")]


def _section_of(tree: dict[str, Any], parents: list[str], key: str) -> dict[str, Any]:
    """The section with the last part of a key, made where it is not there yet; of several, such as data.sets.0."""
    here: Any = tree
    for place, parent in enumerate(parents, start=1):
        if isinstance(here, list):
            here = _numbered(here, parent, key, of=".".join(parents[: place - 1]))
            continue
        following = key.split(".")[place]
        here = here.setdefault(parent, [] if following.isdecimal() else {})
        if not isinstance(here, dict) and not (isinstance(here, list) and all(isinstance(each, dict) for each in here)):
            raise UsageError(f"{key}: '{parent}' is a value, not a section")
    if isinstance(here, list):
        several, last = ".".join(parents), key.rpartition(".")[2]
        name = f"{several}.{last}.KEY" if last.isdecimal() else f"{several}.0.{last}"
        raise UsageError(f"{key}: '{several}' are several sections, numbered from 0; name a key of one, {name}=VALUE")
    return here  # type: ignore[no-any-return]


def _numbered(sections: list[Any], number: str, key: str, *, of: str) -> Any:
    """The section of a number; that after the last one is made."""
    count = len(sections)
    if not number.isdecimal() or int(number) > count:
        raise UsageError(f"{key}: {of} has {count} sections, numbered from 0; there is no {of}.{number}")
    if int(number) == count:
        sections.append({})
    return sections[int(number)]


def _replace_data_sets(tree: dict[str, Any], key: str, text: str) -> None:
    """Where an override names one data set, several of before are gone, and one where it names several."""
    data = tree.get("data")
    if not isinstance(data, dict):
        return
    if key == "data.root" and text:
        data.pop("sets", None)
    elif key == "data.sets" or key.startswith("data.sets."):
        data.pop("root", None)


def _parse_value(text: str) -> Any:
    """A text parsed as YAML; the text itself where it is not valid YAML."""
    try:
        return _load(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return text
