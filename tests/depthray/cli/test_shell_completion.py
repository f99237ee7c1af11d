"""`depthray shell-completion`: what bash offers with its script, and what all three scripts are made from."""

from __future__ import annotations

import io
import shutil
import subprocess
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from depthray.__main__ import COMMANDS, main
from depthray.config import recipe as recipes

# Words on the line, the last as far as it was typed, and what bash offers. Readline splits words at "=".
OFFERED = {
    "tra": {"train"},
    "train unet-l": {"unet-lite"},
    "train ./own.yaml --resu": {"--resume"},
    "train demo optim.weight_d": {"optim.weight_decay="},
    "train demo curr": {"curriculum."},
    "train demo optim.name = ada": {"adam", "adamw", "adan"},
    "train demo model.name = dp": {"dpt"},
    "train demo train.accumulate = ": set(),
    "train demo --out ": set(),  # a value of any kind: readline completes files
    "tune demo --search t": {"tpe"},
    "tune demo --sub": {"--submit"},
    "export run --to = on": {"onnx"},
    "data ": {"index", "pack", "convert", "check", "stats", "render", "composite"},
    "data pack frames --skip": {"--skip-bad"},
    "data convert kitti --wor": {"--workers"},
    "recipe show original/bi": {"original/bifpn-efficientnet-b0"},
    "serve pro": {"promote"},
    "serve promote run --k": {"--keep"},
    "serve run limits.pix": {"limits.pixels="},
    "evaluate first-r": {"first-run"},  # a folder of the working directory
    "evaluate first-run eval.batch": {"eval.batch_size="},
    "shell-completion z": {"zsh"},
    "nonsense ": set(),
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell, as a file."""
    files = {}
    for shell in ("bash", "zsh", "fish"):
        with redirect_stdout(io.StringIO()) as printed:
            assert main(["shell-completion", shell]) == 0
        files[shell] = tmp_path_factory.mktemp(shell) / f"depthray.{shell}"
        files[shell].write_text(printed.getvalue(), encoding="utf-8")
    return files


def test_bash_offers_what_the_command_takes(scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "first-run").mkdir()
    # Where the cursor stands after a space, an empty word is completed.
    asked = "\n".join(f"ask {line}''" if line.endswith(" ") else f"ask {line}" for line in OFFERED)
    program = f"source '{scripts['bash']}'\n{ASK}\n{asked}\n"
    done = subprocess.run(["bash", "--norc", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    offered = [set(line.split()) for line in done.stdout.splitlines()]
    assert dict(zip(OFFERED, offered, strict=True)) == OFFERED


ASK = 'ask() { COMP_WORDS=(depthray "$@"); COMP_CWORD=$#; _depthray; echo "${COMPREPLY[*]}"; }'


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_knows_every_command_recipe_and_job_flag(scripts: dict[str, Path], shell: str) -> None:
    text = scripts[shell].read_text(encoding="utf-8")
    words = set(text.replace("'", " ").replace('"', " ").replace(")", " ").split())
    assert words >= {word for name in COMMANDS for word in name.split()}
    assert words >= {*recipes.names(), *recipes.originals()}
    assert "optim.lr=" in words and "data.sparse.margin=" in words and "model_replicas.max=" in words
    assert words >= ({"submit", "job-cpus"} if shell == "fish" else {"--submit", "--job-cpus"})


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "offered"),
    [("tra", "train"), ("train unet-l", "unet-lite"), ("data pack a --skip", "--skip-bad"), ("serve pro", "promote")],
)
def test_fish_offers_what_the_command_takes(scripts: dict[str, Path], line: str, offered: str) -> None:
    program = f"source '{scripts['fish']}'; complete -C 'depthray {line}'"
    done = subprocess.run(["fish", "--no-config", "-c", program], capture_output=True, text=True, timeout=60)
    assert [each.split("\t")[0] for each in done.stdout.splitlines()] == [offered]


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shell-completion", "bas"]) == 2
    assert "did you mean 'bash'?" in capsys.readouterr().err
