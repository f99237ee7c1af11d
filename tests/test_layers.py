"""The rooms of the house: imports of every kind point one way, and a newcomer finds each thing once."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "depthray": {"depthray"},
    "cluster": {"depthray", "cluster"},
    "tuning": {"depthray", "cluster", "tuning"},
    "serve": {"depthray", "serve"},
}
# The library from its top to its bottom: a room imports only from those after it, and from the modules named here.
ROOMS = (
    *(
        "__main__",
        "api",
        "measures",
        "testing",
        "cli",
        "client",
        "exporting",
        "predicted_sets",
        "predict",
        "network_inputs",
        "runs",
        "training",
        "losses",
        "audit",
        "cards",
        "evaluation",
    ),
    *("weights", "runtimes", "checkpoints", "models", "data", "imaging", "config", "storage", "distributed", "batch"),
    *("waiting", "python_words", "errors"),
    "__init__",
    "version",
)
REGISTRIES = {"depthray/models", "depthray/data/sources"}  # a file is an entry there, and there may be more of them
# What writes a target of an export and what computes it have the target's name.
TARGETS = {"depthray/exporting/targets", "depthray/runtimes/backends"}
MOST_FILES = 14
# The two files that name functions of other modules as text, and import them when they are used: the command line, and
# the package itself, whose functions are the same verbs. Nothing in the library may use the latter's.
TABLES = ("depthray.__main__", "depthray")
NAMED = re.compile(r"(?:depthray|cluster|tuning|serve)(?:\.\w+)+:[\w.]+")
# Packages that take long to import, or are not there on every machine. Imports inside functions are for these and for
# modules that import them; all others stand at the top of the file.
SLOW = {
    "albucore",
    *("torch", "torchvision", "ray", "cv2", "albumentations", "h5py", "numpy", "scipy", "PIL", "matplotlib", "pyarrow"),
    *("rerun", "tensorboard", "optuna", "rich", "fastapi", "starlette", "uvicorn", "httpx", "jinja2", "pydantic"),
    *(
        "timm",
        "pillow_heif",
        "mlflow",
        "wandb",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "openvino",
        "nncf",
        "huggingface_hub",
        "safetensors",
        "yaml",
        "packaging",
        "h11",
        "httptools",
        "prometheus_client",
        "requests",
        "aiohttp",
        "tenacity",
    ),
}
# What `python -m` runs is a package's __main__.py, its command line its command.py, and
# what it uses of Ray's private names its ray_private.py.
MAY_REPEAT = {"command.py", "ray_private.py", "__main__.py"}


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of all that is installed."""
    files = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def statements(node: ast.AST, *, inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Each import that runs, and whether it stands inside a function; those for type checkers never run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside
        yield from statements(child, inside=inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def names_in(statement: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    return [f"{statement.module}.{alias.name}" for alias in statement.names]


def module_of(name: str) -> str:
    """The module of ours that a dotted name is in; "" for those of others."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name


def named(module: str) -> Iterator[str]:
    """The names of functions that stand in strings of a module, as "package.module:function"."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            yield node.value


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of ours that a module imports, anywhere in it, or names in a string."""
    names = [name for statement, _ in statements(tree(module)) for name in names_in(statement)]
    if module not in TABLES:
        names += [name.partition(":")[0] for name in named(module)]
    return frozenset(found for name in names if (found := module_of(name)) and found != module)


@cache
def is_slow(module: str) -> bool:
    """Whether importing a module of ours imports one of the slow packages."""
    names = [name for statement, inside in statements(tree(module)) if not inside for name in names_in(statement)]
    if any(name.split(".")[0] in SLOW for name in names):
        return True
    return any(is_slow(found) for name in names if (found := module_of(name)) and found != module)


def folder(module: str) -> str:
    return str(modules()[module].parent.relative_to(ROOT))


def order(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of a graph, what each needs before it. Fails with the cycle where there is one."""
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_no_module_imports_itself_by_way_of_others() -> None:
    order({module: set(imported(module)) for module in modules()})


def test_no_two_folders_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for module in modules():
        for other in imported(module):
            ours, theirs = folder(module), folder(other)
            if ours != theirs and not f"{theirs}/".startswith(f"{ours}/") and not f"{ours}/".startswith(f"{theirs}/"):
                graph.setdefault(ours, set()).add(theirs)
    pairs = [(ours, theirs) for ours, others in graph.items() for theirs in others if ours in graph.get(theirs, ())]
    assert pairs == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_those_they_are_built_upon(package: str) -> None:
    own = [module for module in modules() if module.split(".")[0] == package]
    used = {other.split(".")[0] for module in own for other in imported(module)}
    assert used <= MAY_IMPORT[package]


def test_rooms_of_the_library_import_only_those_below() -> None:
    def room(module: str) -> str:
        return module.split(".")[1] if "." in module else "__init__"

    library = [module for module in modules() if module.split(".")[0] == "depthray"]
    assert {room(module) for module in library} == set(ROOMS)
    upward = {
        f"{module} imports {other}"
        for module in library
        for other in imported(module)
        if ROOMS.index(room(other)) < ROOMS.index(room(module))
    }
    assert upward == set()


def test_the_library_names_no_ray() -> None:
    library = [module for module in modules() if module.split(".")[0] == "depthray"]
    packages = {
        name.split(".")[0] for each in library for found, _ in statements(tree(each)) for name in names_in(found)
    }
    assert "ray" not in packages


def test_the_library_uses_no_function_that_the_package_itself_only_names() -> None:
    """`from depthray import tune` inside the library would be an import upwards that no other test sees."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    functions = {name.rpartition(":")[2] for name in named("depthray")} | {
        *project["entry-points"]["depthray.functions"]
    }
    used = [
        f"{module} uses depthray.{name}"
        for module in modules()
        for name in (
            *(
                alias.name
                for node, _ in statements(tree(module))
                if isinstance(node, ast.ImportFrom) and node.module == "depthray"
                for alias in node.names
            ),
            *(
                node.attr
                for node in ast.walk(tree(module))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "depthray"
            ),
        )
        if name in functions
    ]
    assert functions >= {"train", "tune", "evaluate", "export", "load"}
    assert used == []


def test_functions_named_in_strings_exist() -> None:
    for module in modules():
        for name in named(module):
            other, _, function = name.partition(":")
            assert other in modules(), f"{module}: {name}"
            assert any(getattr(node, "name", "") == function for node in tree(other).body), f"{module}: {name}"


def test_imports_inside_functions_are_for_what_is_slow_to_import() -> None:
    early = [
        f"{modules()[module].relative_to(ROOT)}:{statement.lineno} {name}"
        for module in modules()
        for statement, inside in statements(tree(module))
        if inside
        for name in names_in(statement)
        if name.split(".")[0] not in SLOW and not ((found := module_of(name)) and is_slow(found))
    ]
    assert early == []


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_imports(module: str) -> list[ast.ImportFrom]:
    """The statements `from X import ...` of a module whose X is a module of the library."""
    return [
        node for node in ast.walk(tree(module)) if isinstance(node, ast.ImportFrom) and module_of(node.module or "")
    ]


def private_imports(module: str) -> list[str]:
    """Private names and private modules of other folders that a module imports."""
    used = []
    for node in own_imports(module):
        above, _, last = (node.module or "").rpartition(".")
        names = [alias.name for alias in node.names if is_private(alias.name)]
        used += [f"{node.module}.{name}" for name in names if node.module != module.rpartition(".")[0]]
        if is_private(last) and above not in (module, module.rpartition(".")[0]):
            used.append(str(node.module))
    return used


def private_attributes(module: str) -> list[str]:
    """Private names of other modules that a module reads as attributes of these modules."""
    bound = {
        alias.asname or alias.name: f"{statement.module}.{alias.name}"
        for statement in own_imports(module)
        for alias in statement.names
    }
    attributes = [
        (node.value.id, node.attr)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and is_private(node.attr)
    ]
    return [f"{bound[name]}.{attribute}" for name, attribute in attributes if bound.get(name) in modules()]


def test_no_module_uses_a_private_name_of_another() -> None:
    used = {module: private_imports(module) + private_attributes(module) for module in modules()}
    assert {module: names for module, names in used.items() if names} == {}


def test_no_folder_is_crowded() -> None:
    count = Counter(folder(module) for module, path in modules().items() if path.name != "__init__.py")
    assert {name: files for name, files in count.items() if files > MOST_FILES and name not in REGISTRIES} == {}


def test_each_file_name_means_one_thing() -> None:
    paths = [path.relative_to(ROOT) for path in modules().values() if path.name != "__init__.py"]
    commands = {path.name for path in paths if path.parts[:2] == ("depthray", "cli")}
    others = [path for path in paths if path.parts[:2] != ("depthray", "cli") and str(path.parent) not in TARGETS]
    count = Counter(path.name for path in others)
    twice = {name for name, files in count.items() if files > 1}
    assert twice - MAY_REPEAT == set()
    assert commands  # a command of the library has the name of what it runs: predict, evaluate, runs ...


def test_each_class_name_means_one_thing() -> None:
    count = Counter(node.name for module in modules() for node in tree(module).body if isinstance(node, ast.ClassDef))
    assert {name for name, times in count.items() if times > 1 and not name.startswith("_")} == set()


BLOCKED = """
import sys
sys.modules["ray"] = None  # any import of it fails
from pathlib import Path
from depthray.__main__ import main
run = Path(sys.argv[1])
words = "data.size=32,64 data.frames=24 train.batch_size=8 train.epochs=1 eval.batch_size=4".split()
assert main(["train", "demo", *words, "--local", "--out", str(run / "run")]) == 0
assert main(["evaluate", str(run / "run"), "--out", str(run / "scores")]) == 0
assert main(["data", "render", str(run / "new"), "--layout", "folder", "--frames", "1", "--size", "32", "64"]) == 0
image = next((run / "new").rglob("*.jpg"))
assert main(["predict", str(run / "run"), str(image), "--out", str(run / "out")]) == 0
assert list((run / "out").glob("*.png"))
"""


def test_the_library_trains_evaluates_and_predicts_with_ray_blocked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("argv", [["--help"], ["--version"], []])
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys; from depthray.__main__ import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'ray', 'cv2', 'numpy', 'albumentations', 'pydantic', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_import_of_the_package_imports_nothing_heavy() -> None:
    code = "import sys, depthray; assert not {'torch', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
