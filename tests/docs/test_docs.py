"""Every command, key, path, link and import in README.md and docs/ is real, and the README's tour runs."""

from __future__ import annotations

import argparse
import ast
import contextlib
import re
import runpy
import shlex
import shutil
import signal
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doc_pages import FENCED, PAGES, Block, blocks, commands
from paths import ROOT

from cluster import one_host
from depthray import models
from depthray.__main__ import COMMANDS, main
from depthray.cli.predicting import predict_flags
from depthray.cli.predicting.depth_files import FORMATS
from depthray.cli.shells import shell_completion
from depthray.config import recipe
from depthray.config.sections import Recipe
from depthray.data import sources
from depthray.data.encodings import find as find_encoding
from depthray.data.split import SIDES
from depthray.errors import UsageError
from depthray.evaluation.protocols import PROTOCOLS
from depthray.training import preflight
from serve import settings

RECIPE = "unet-resnet34"  # stands in where a command takes the recipe of a run or a checkpoint

INTERMIXED = (
    "train",
    "tune",
    "evaluate",
    "compare",
    "calibrate",
    "robust",
    "view",
    "completion",
)  # commands whose parser lets flags stand between positionals
NESTED = ("data", "recipe", "runs")  # commands with subcommands
CHOICES: dict[str, Iterable[str]] = {
    "protocol": PROTOCOLS,
    "source": sources.names(),
    "split": (*SIDES, "all"),
}

INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)\)")
KEY = re.compile(rf"({'|'.join(Recipe.model_fields)})\.[a-z][a-z0-9_]*(=.+)?")
FILE_ENDINGS = (".json", ".md", ".py", ".safetensors", ".yaml")  # `model.safetensors` looks like a key and is none
REPOSITORY = re.compile(r"(\.ci|benchmarks|cluster|depthray|docs|serve|tests|tuning)/\S*|\w+\.(toml|txt)|Makefile")


def inline() -> Iterator[tuple[Path, list[str]]]:
    """Every piece of code in running text, split into arguments."""
    for page in PAGES:
        for code in INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
            yield page, code.split()


def check_command(argv: list[str]) -> None:
    """Raise if a command line of a page would not be understood; nothing is run."""
    program, *rest = argv
    if program == "depthray":
        check_depthray(rest)
    elif program == "torchrun":
        check_torchrun(rest)
    elif program == "make":
        assert rest and set(rest) <= targets(), f"no such target in the Makefile: {rest}"
    elif program == "tensorboard":
        assert len(rest) == 2 and rest[0] == "--logdir", rest
    else:
        assert argv == ["source", ".venv/bin/activate"], f"not a command a page may show: {program}"


def targets() -> set[str]:
    return set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def check_torchrun(argv: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    try:
        arguments = get_args_parser().parse_args(argv)
    except SystemExit:
        raise AssertionError(f"refused: torchrun {' '.join(argv)}") from None
    assert arguments.module and arguments.training_script == "depthray"
    check_depthray(arguments.training_script_args)


def check_depthray(argv: list[str]) -> None:
    assert argv, "depthray alone does nothing"
    if argv[0] in ("--help", "--version"):
        return
    arguments = parsed(*argv)
    if argv[0] == "serve":
        return
    check_overrides(arguments, training=argv[0] in ("train", "recipe"))
    for flag, known in CHOICES.items():
        assert getattr(arguments, flag, None) in (None, *known), f"--{flag}: no such value"
    assert find_encoding(getattr(arguments, "encoding", None) or "uint16_mm"), "--encoding: no such unit"
    for name in (getattr(arguments, "format", None) or "png").split(","):
        assert name in FORMATS, f"--format: no format {name}"


def parsed(command: str, *rest: str) -> Any:
    """The rest as the command's own parser reads it; UsageError or AssertionError if it refuses."""
    module = module_of(command)
    try:
        if command in ("data", "predict"):
            return (predict_flags if command == "predict" else module).parse_arguments(list(rest))
        if command == "serve":
            return parsed_serve(module, list(rest))
        parser = parser_of(command)
        return parser.parse_intermixed_args(rest) if command in INTERMIXED else parser.parse_args(rest)
    except SystemExit as refused:
        assert not refused.code, f"refused: depthray {command} {' '.join(rest)}"
        return argparse.Namespace()  # --help


def parsed_serve(module, argv: list[str]) -> Any:
    """The arguments as `depthray serve`, or its subcommand, parses them."""
    nested = {command: getattr(module, f"build_{command}_parser") for command in module.SUBCOMMANDS}
    if argv and argv[0] in nested:
        return nested[argv[0]]().parse_args(argv[1:])
    arguments = module.build_parser().parse_intermixed_args(argv)
    module._settings(arguments)
    return arguments


def module_of(command: str):
    assert command in COMMANDS, f"no command '{command}'"
    return import_module(COMMANDS[command][0].partition(":")[0])


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command; where Ray is added to a command of the library, that one has it."""
    if command == "shell-completion":  # the one command of the table itself
        return shell_completion.build_parser()
    if command == "predict":
        return predict_flags.build_parser()
    module = module_of(command)
    return (module if hasattr(module, "build_parser") else module.command).build_parser()


def check_overrides(arguments: argparse.Namespace, *, training: bool) -> None:
    name = getattr(arguments, "recipe", "") or getattr(arguments, "name", "") or RECIPE
    argv = list(getattr(arguments, "overrides", []))
    if "=" in name:
        name, argv = RECIPE, [name, *argv]
    if name.startswith("runs/"):  # a recipe that a command of the page has written
        name = RECIPE
    preflight.load(name, argv, training=training)


def flags() -> set[str]:
    """Every flag of every command, subcommands too."""
    found: set[str] = set()
    parsers = [parser_of(argument) for argument in COMMANDS] + [one_host.build_parser()]
    parsers += [
        getattr(module_of("serve"), f"build_{argument}_parser")() for argument in module_of("serve").SUBCOMMANDS
    ]
    while parsers:
        for action in parsers.pop()._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


SHOWN = [(block.page.name, argv) for block in blocks("bash") for argv in commands(block.text)]


@pytest.mark.parametrize(("page", "argv"), SHOWN, ids=[f"{page}: {shlex.join(argv)}" for page, argv in SHOWN])
def test_a_command_is_understood(page: str, argv: list[str]) -> None:
    check_command(argv)


@pytest.mark.parametrize(
    "line",
    [
        "depthray",
        "depthray trian demo",
        "depthray train demo --wrokers 2",
        "depthray train demo optim.rl=1",
        "depthray train demo optim.name=adm",
        "depthray train no-such-recipe",
        "depthray train --out run --resume train.epohcs=3",
        "depthray evaluate run --splits val",
        "depthray evaluate run --split vol",
        "depthray evaluate run eval.protocol=nyu-btz",
        "depthray predict run",
        "depthray predict run photo.jpg --format pgn",
        "depthray predict --url http://localhost:8000 photo.jpg --device cpu",
        "depthray predict run photo.jpg --model room",
        "depthray data chekc folder",
        "depthray data check folder --encoding uint16_cm",
        "depthray data check folder data.max_dept=80",
        "depthray data pack folder out data.max_depth=80",
        "depthray recipe show demo model.encodr=tiny",
        "torchrun --nproc-per-node 2 -m depthray train demo --gpus",
        "torchrun --nproc-per-node 2 -m depthray train demo --local",
        "make tests",
        "pip install depthray",
    ],
)
def test_a_wrong_command_is_detected(line: str) -> None:
    with pytest.raises((AssertionError, UsageError)):
        check_command(line.split())


def test_pages_show_commands_of_every_kind() -> None:
    assert {"depthray", "torchrun", "make", "tensorboard"} <= {argv[0] for _, argv in SHOWN}
    assert {"train", "evaluate", "predict", "data", "recipe"} <= {argv[1] for _, argv in SHOWN if len(argv) > 1}


def test_commands_and_flags_in_running_text_are_real() -> None:
    known = flags()
    for page, argv in inline():
        if argv[0] == "depthray" and len(argv) > 1:
            assert argv[1] in COMMANDS or argv[1] == "--help", f"{page.name}: {argv}"
            if argv[1] in NESTED and len(argv) > 2:
                parsed(*argv[1:3], "--help")
        if argv[0] == "make":
            assert set(argv[1:]) <= targets(), f"{page.name}: {argv}"
        if argv[0] == "python" and len(argv) > 1 and argv[1].endswith(".py"):  # a script has flags of its own
            assert (ROOT / argv[1]).is_file(), f"{page.name}: {argv}"
            continue
        wrong = [argument for argument in argv if argument.startswith("--") and argument not in known]
        assert not wrong, f"{page.name}: no such flag: {wrong}"


def test_recipe_keys_in_running_text_are_real() -> None:
    known = recipe.flatten(preflight.load(RECIPE))
    seen = 0
    for page, argv in inline():
        for argument in argv:
            if KEY.fullmatch(argument) and not argument.endswith(FILE_ENDINGS):
                seen += 1
                key, _, value = argument.partition("=")
                assert value or key in known or is_setting(page, key), f"{page.name}: no recipe key {key}"
                assert (
                    not value
                    or serves(page, argument)
                    or any(loads(name, argument) for name in (RECIPE, *recipe.names(), *recipe.originals()))
                ), f"{page.name}: {argument}"
    assert seen > 20


def serves(page: Path, argument: str) -> bool:
    """Whether an argument is one of `depthray serve`, on its page."""
    with contextlib.suppress(UsageError):
        return page.name == "serving.md" and bool(settings.load(None, [argument]))
    return False


def is_setting(page: Path, key: str) -> bool:
    """Whether a key is one of `depthray serve`, on its page."""
    section, _, name = key.partition(".")
    return page.name == "serving.md" and name in getattr(settings.Settings(), section).model_dump()


def loads(name: str, argument: str) -> bool:
    """Whether a recipe takes the override, alone or, of another architecture's options, after its name."""
    for argv in ([argument], *([f"model={{name: {other}}}", argument] for other in models.names())):
        with contextlib.suppress(UsageError):
            preflight.load(name, argv, training=False)  # of one override alone; it may need others
            return True
    return False


def test_files_in_running_text_exist() -> None:
    named = [(page, argv[0]) for page, argv in inline() if REPOSITORY.fullmatch(argv[0])]
    assert named
    missing = [f"{page.name}: {name}" for page, name in named if not (ROOT / name).exists()]
    assert not missing


def test_links_lead_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in LINK.findall(page.read_text(encoding="utf-8"))]
    assert links
    broken = [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()]
    assert not broken


def test_the_tree_of_the_architecture_page_is_there() -> None:
    (tree,) = [block.text for block in blocks("text") if block.page.name == "architecture.md"]
    folders: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.split(r"\s{2,}", line.strip())[0].split()
        for name in names:
            assert ROOT.joinpath(*folders[:depth], name).exists(), line
        folders = [*folders[:depth], names[0]]


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.page.name)
def test_python_compiles_and_its_imports_resolve(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_ascii(page: Path) -> None:
    assert page.read_text(encoding="utf-8").isascii()


@pytest.fixture
def _own_signals() -> Iterator[None]:
    """Training in this process takes over the signals; they are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


SMALL = [
    *("model.encoder=tiny", "data.size=32,64", "curriculum.chunks=1"),
    *("train.batch_size=4", "train.epochs=1", "finetune.epochs=0"),
]


def smaller(argv: list[str]) -> list[str]:
    """A command of the tour as it is, but training without Ray and in seconds."""
    if argv[1] != "train":
        return argv[1:]
    place = argv.index("--workers")
    return [*argv[1:place], *argv[place + 2 :], "--local", *SMALL]


@pytest.mark.usefixtures("_own_signals")
def test_the_tour_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGES[0].read_text(encoding="utf-8").split("## Your own data")[1].split("\n## ")[0]
    tour, python = (
        next(body for language, body in FENCED.findall(text) if language == wanted) for wanted in ("bash", "python")
    )
    monkeypatch.chdir(tmp_path)
    assert main(["data", "render", "my-frames", "--frames", "24", "--size", "48", "64"]) == 0
    shutil.copy(tmp_path / "my-frames" / "rgb" / "000000.jpg", "photo.jpg")
    (tmp_path / "my-frames" / "index.csv").unlink()  # the tour writes another
    argv = [argv[1] for argv in commands(tour)]
    assert argv == ["data", "data", "data", "data", "train", "evaluate", "predict"]
    for line in commands(tour):
        assert main(smaller(line)) == 0, line
    assert list((tmp_path / "runs" / "first" / "evaluations").glob("*/sheet.png"))
    assert (tmp_path / "predictions" / "photo.depth.png").is_file()
    (tmp_path / "tour.py").write_text(python, encoding="utf-8")
    depth = runpy.run_path(str(tmp_path / "tour.py"))["depth"]
    assert depth.shape == (48, 64) and depth.dtype == np.float32 and (depth > 0).all()
