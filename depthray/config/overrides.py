"""A recipe as plain values: read from a YAML file, changed by dotted words such as `optim.lr=3e-4`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from depthray.errors import UsageError, did_you_mean


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping by the safe loader; duplicate keys and Python tags are refused."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # not all of them are PyYAML's own
        raise UsageError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: a recipe is a mapping of sections, this is {type(tree).__name__}")
    return tree


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
    known = sorted(each.stem for each in folder.glob("*.yaml"))
    if name not in known:
        raise UsageError(f"no {kind} '{name}'{did_you_mean(name, known)}; a file is given as path/to/it.yaml")
    return folder / f"{name}.yaml"


def apply_word(tree: dict[str, Any], word: str) -> None:
    """Set one dotted word in the tree, its value read as YAML; the key is checked by `parse`."""
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise UsageError(f"'{word}' is neither a flag nor a word of the form section.key=value")
    *parents, last = key.split(".")
    for parent in parents:
        child = tree.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UsageError(f"{key}: '{parent}' is a value, not a section")
        tree = child
    value = _value(text)
    tree[last] = text if value is None and text else value
    if isinstance(value, str) and "," in value:
        tree[last] = [_value(part) for part in value.split(",")]


def _value(text: str) -> Any:
    """What a text is as YAML; itself where it is none."""
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return text
