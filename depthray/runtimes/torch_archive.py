"""Archives of `torch.export.save`, made safe: unpickling, and expressions that are evaluated, can run any code.

torch.export.load says "never load data from an untrusted source": it unpickles weights that are marked so and example
inputs, evaluates sizes by sympy, looks operators up by any dotted name, and generates Python from names of nodes. So
an archive is rebuilt here from the parts that are needed, each of which is checked.
"""

from __future__ import annotations

import ast
import io
import json
import keyword
import re
import zipfile
from collections.abc import Callable
from typing import Any

# Of an archive's entries, below its one top folder.
PROGRAM, WEIGHTS, CONSTANTS = "models/model.json", "data/weights/", "data/constants/"
WEIGHTS_CONFIG, CONSTANTS_CONFIG = f"{WEIGHTS}model_weights_config.json", f"{CONSTANTS}model_constants_config.json"
EXAMPLES = "data/sample_inputs/model.pt"
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,6}")
_FRAME = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
_REQUIRED = ("archive_format", "archive_version", PROGRAM, WEIGHTS_CONFIG, CONSTANTS_CONFIG)

_IDENTIFIER = re.compile(r"([A-Za-z_]\w{0,199})?", re.ASCII)
_DOTTED = re.compile(r"(\w{1,99}(\.\w{1,99}){0,30})?", re.ASCII)
_VERSION = re.compile(r"[\w.+<=]{0,60}", re.ASCII)
_RANGE = re.compile(r"[\w*+/() ,-]{1,400}", re.ASCII)  # names of sizes, only looked up
_SYMBOL = re.compile(r"[suz]\d{1,6}", re.ASCII)
# Operators of ATen that begin with an underscore are internal, and check less of their arguments: some are allowed.
_ATEN = re.compile(r"torch\.ops\.aten\.((?!_)\w+|__(and|or|xor|[lr]shift)__)\.(?!_)\w+", re.ASCII)
_INTERNAL = {f"torch.ops.aten.{name}.default" for name in ("_assert_tensor_metadata", "_assert_scalar", "_to_copy")}
_FILES = re.compile(r"torch\.ops\.aten\.(from_file|save|load|open|read|write|print|warn|format)\.\w+", re.ASCII)
_SIZES = re.compile(r"_operator\.(add|sub|mul|floordiv|mod|neg|pow|truediv|eq|ne|lt|le|gt|ge|getitem)", re.ASCII)
_SYMBOLIC = re.compile(r"math\.(ceil|floor|trunc)|torch\.sym_(max|min|int|float|not|sqrt|ite)", re.ASCII)
# Strings that operators take: modes of interpolation, padding and rounding. None of them is a file's name.
_MODES = """none mean sum tanh floor trunc constant reflect replicate circular nearest nearest-exact bilinear bicubic
area same valid xy ij"""
# Of sympy: what sizes are made of. Each is called with numbers, symbols and other sizes.
_SIZE_CLASSES = """Symbol Integer Rational Add Mul Pow Max Min Mod PythonMod FloorDiv CeilDiv CleanDiv IntTrueDiv
ModularIndexing FloorToInt CeilToInt TruncToInt ToFloat Equality Unequality StrictLessThan LessThan StrictGreaterThan
GreaterThan And Or Not"""
_POWERS = ("Integer(-1)", "Integer(2)", "Integer(3)", "Integer(4)", "Rational(1, 2)")
_FIELDS = ("user_input", "parameter", "buffer", "tensor_constant"), ("user_output",)
_SPEC_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


class UnsafeArchiveError(ValueError):
    """What an archive holds that is not run, or lacks."""


def rebuild(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """The same archive of what was checked alone, and its program as plain values. Raises UnsafeArchiveError."""
    entries = _entries(data)
    program = check_program(_parse(entries, PROGRAM))
    for config in (WEIGHTS_CONFIG, CONSTANTS_CONFIG):
        _check_payload(_parse(entries, config), entries, folder=config.rpartition("/")[0])
    entries[PROGRAM] = json.dumps(program).encode()
    entries[EXAMPLES] = b""  # a pickle, and of no use
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue(), program


def check_program(tree: dict[str, Any]) -> dict[str, Any]:
    """A serialized program without what does not compute, all of whose names and texts are harmless."""
    program: dict[str, Any] = _without_metadata(tree)
    try:
        program["guards_code"] = []  # Python source; shapes are checked by whoever calls the program
        _check_signature(program["graph_module"]["signature"])
        for name in program["range_constraints"]:
            _match(_RANGE, name, "size")
    except (KeyError, TypeError, AttributeError):
        raise UnsafeArchiveError("its program is not one of torch.export") from None
    _check_texts({**program, "range_constraints": {}}, key="")
    return program


def _entries(data: bytes) -> dict[str, bytes]:
    """The files of an archive without its top folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):  # else it could unpack to any size
                raise UnsafeArchiveError("it is compressed, which no archive of torch.export is")
            entries = {info.filename.partition("/")[2]: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError) as error:  # the last: of encrypted ones
        raise UnsafeArchiveError(f"not an archive of torch.export ({str(error)[:80]})") from None
    known = {*_FRAME, PROGRAM, WEIGHTS_CONFIG, CONSTANTS_CONFIG, EXAMPLES}
    if unknown := [name for name in entries if name not in known and not _TENSORS.fullmatch(name)]:
        raise UnsafeArchiveError(f"it holds '{unknown[0][:80]}', which is not needed to predict")
    if missing := [name for name in _REQUIRED if name not in entries]:
        raise UnsafeArchiveError(f"it holds no '{missing[0]}'")
    return entries


def _parse(entries: dict[str, bytes], name: str) -> dict[str, Any]:
    try:
        tree = json.loads(entries[name])
    except (ValueError, RecursionError):
        raise UnsafeArchiveError(f"'{name}' is not JSON") from None
    if not isinstance(tree, dict):
        raise UnsafeArchiveError(f"'{name}' is not what torch.export writes")
    return tree


def _check_payload(config: dict[str, Any], entries: dict[str, bytes], *, folder: str) -> None:
    """Of weights or constants: plain bytes, each in the archive."""
    _check_texts(config, key="config")
    try:
        pickled = [name for name, record in config["config"].items() if record["use_pickle"] is not False]
        files = {name: f"{folder}/{record['path_name']}" for name, record in config["config"].items()}
    except (KeyError, TypeError, AttributeError):
        raise UnsafeArchiveError(f"{folder} is not described as torch.export does") from None
    if pickled:
        raise UnsafeArchiveError(f"'{pickled[0][:80]}' is a pickle, which can run any code")
    if missing := [name for name, file in files.items() if file not in entries]:
        raise UnsafeArchiveError(f"'{missing[0][:80]}' is missing")


def _without_metadata(tree: Any) -> Any:
    """A tree with every `metadata` of nodes emptied: where in its source each came from."""
    if isinstance(tree, dict):
        return {key: {} if key == "metadata" else _without_metadata(value) for key, value in tree.items()}
    return [_without_metadata(value) for value in tree] if isinstance(tree, list) else tree


def _check_signature(signature: dict[str, Any]) -> None:
    """Weights and tensors in, tensors out: nothing is changed by a call, and no objects of other kinds go in."""
    for specs, known in zip((signature["input_specs"], signature["output_specs"]), _FIELDS, strict=True):
        for spec in specs:
            if len(spec) != 1 or not set(spec) <= set(known):
                raise UnsafeArchiveError(f"it has an input or output of the kind '{', '.join(spec)[:80]}'")


def _check_texts(tree: Any, *, key: str) -> None:
    """Each text of a tree against what its key allows; `key` is the nearest one above."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            _match(_DOTTED, name, "name")
            _check_texts(value, key=name)
    elif isinstance(tree, list):
        for value in tree:
            _check_texts(value, key=key)
    elif isinstance(tree, str):
        if key not in _CHECKS:
            raise UnsafeArchiveError(f"it has '{key[:40]}', which is not needed to predict")
        _CHECKS[key](tree)


def _match(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text) or keyword.iskeyword(text):
        raise UnsafeArchiveError(f"'{text[:80]}' is no {what}")


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], None]:
    return lambda text: _match(pattern, text, what)


def _check_operator(target: str) -> None:
    allowed = target in _INTERNAL or any(each.fullmatch(target) for each in (_ATEN, _SIZES, _SYMBOLIC))
    if not allowed or _FILES.fullmatch(target):
        raise UnsafeArchiveError(f"it has the operator '{target[:80]}', and only standard ones are run")


def _check_mode(text: str) -> None:
    if text not in _MODES.split() and not re.fullmatch(r"[a-z, ]{1,40}->[a-z ]{0,20}", text):  # of einsum
        raise UnsafeArchiveError(f"an operator is given the text '{text[:80]}'")


def _check_treespec(text: str) -> None:
    """How arguments are nested: in tuples, lists and dicts."""

    def check(node: dict[str, Any]) -> None:
        if node["type"] not in _SPEC_TYPES:
            raise UnsafeArchiveError(f"an argument is a '{str(node['type'])[:80]}'")
        for child in node["children_spec"]:
            check(child)

    try:
        check(json.loads(text)[1])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        if isinstance(error, UnsafeArchiveError):
            raise
        raise UnsafeArchiveError("its arguments are not described") from None


def _check_size(text: str) -> None:
    """An expression that sympy evaluates: sums, products and the like of numbers and sizes."""
    try:
        tree = ast.parse(text[:4000], mode="eval").body
        known = _is_size(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        known = False
    if not known:
        raise UnsafeArchiveError(f"'{text[:80]}' is no size")


def _is_size(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant) and _is_size(node.operand)
    if isinstance(node, ast.Constant):
        value = node.value
        return bool(_SYMBOL.fullmatch(value)) if isinstance(value, str) else isinstance(value, int) and value < 1 << 63
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return isinstance(node, ast.Name) and node.id in ("true", "false")
    if node.func.id == "Pow" and not _is_small_power(node.args):
        return False
    return node.func.id in _SIZE_CLASSES.split() and all(
        _is_size(each) for each in (*node.args, *(keyword.value for keyword in node.keywords))
    )


def _is_small_power(args: list[ast.expr]) -> bool:
    """Whether a power is computed at once: towers of them would take for ever."""
    texts = [ast.unparse(each) for each in args]
    return len(texts) == 2 and "Pow" not in texts[0] and texts[1] in _POWERS


_CHECKS: dict[str, Callable[[str], None]] = {
    "target": _check_operator,
    "expr_str": _check_size,
    "as_string": _check_mode,
    "as_strings": _check_mode,
    "in_spec": _check_treespec,
    "out_spec": _check_treespec,
    "torch_version": _matching(_VERSION, "version"),
    "type": _matching(re.compile("cpu|cuda"), "device"),
    "path_name": _matching(re.compile(r"(weight|tensor)_\d{1,6}"), "file of weights"),
    "verifiers": _matching(re.compile("[A-Z_]{1,20}"), "verifier"),
    **{key: _matching(_IDENTIFIER, "name of a value") for key in ("name", "as_name", "forward_arg_names")},
    **{
        key: _matching(_DOTTED, "name of weights")
        for key in ("parameter_name", "buffer_name", "tensor_constant_name", "fqn")
    },
}
