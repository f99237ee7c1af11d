"""docs/recipes.md from the headers of the recipes and the catalogue of weights.

python docs/site/recipe_zoo.py --write
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "depthray" / "recipes"
CATALOGUE = ROOT / "depthray" / "weights" / "catalogue.yaml"
PAGE = ROOT / "docs" / "recipes.md"
INTRODUCTION = """# Recipes

Each recipe is one YAML file that says everything about a run's numbers, and opens with the commands that reproduce its
score; `make docs` makes this page of them. Scores are of frames that were held out by scene, on two CPU cores; they
compare on the same frames only. `depthray recipe show NAME` prints a recipe with the meaning of each key, and any key
can be overridden: see [Training](training.md).

Which one to begin with: `unet-lite` for frames of your own, `depthnet` for colour with sparse depth, `masknet` and
`depthmasknet` for a foreground in front of a known background, `dpt-vits-lora` for published weights.
"""
ORIGINALS = """## As published

`original/NAME` is the network and regime of an older system as it was published, with what is known of it in its
header:
"""
SCORE = re.compile(r"\b(AbsRel|RMSE|IoU)(?: about)? (\d\.\d+)(?: m\b)?")
MINUTES = re.compile(r"\b(?:in|about) (\d+(?:\.\d+)?) (minutes|s)\b")
COMMAND = re.compile(r"^ {2,}(depthray .*)$")


class Shown(NamedTuple):
    """A recipe as the page shows it."""

    name: str
    header: list[str]  # lines of its comment, without the marks
    network: str
    weights: str  # what it starts from, with the licence

    @property
    def measured(self) -> str:
        """The paragraph of its header with the first score, or ""."""
        return next((part for part in " \n".join(self.header).split("\n \n") if SCORE.search(part)), "")

    @property
    def score(self) -> str:
        """The first score of its header, of each metric."""
        found: dict[str, str] = {}
        for match in SCORE.finditer(re.sub(r"\([^)]*\)", "", self.measured)):
            found.setdefault(match[1], match[0])
        return ", ".join(found.values()) or "not measured"

    @property
    def frames(self) -> str:
        """What the score is of, by the paragraph that has it."""
        known = {"NYU Depth V2": "NYU", "rendered frames": "rendered rooms", "rooms": "rendered rooms"}
        return next((short for words, short in known.items() if words in self.measured), "")

    @property
    def minutes(self) -> str:
        """Minutes of training by its header."""
        match = MINUTES.search(self.measured)
        if not match:
            return ""
        return match[1] if match[2] == "minutes" else f"{float(match[1]) / 60:.1f}"


def catalogue() -> dict[str, dict[str, Any]]:
    """The entries of the catalogue of weights, by name."""
    return {entry["name"]: entry for entry in yaml.safe_load(CATALOGUE.read_text(encoding="utf-8"))}


def starting_weights(recipe: dict[str, Any], header: str) -> str:
    """What a recipe starts from and the licence, from its keys, else from the weights that its header names."""
    known = catalogue()
    model = recipe["model"]
    if str(model.get("weights", "")).startswith("imagenet"):
        return f"ImageNet, {known[model['encoder']]['licence']}"
    named = [entry for name, entry in known.items() if re.search(rf"model\.weights={re.escape(name)}\b", header)]
    return f"{named[0]['family']}, {named[0]['licence']}" if named else "random"


def read(path: Path) -> Shown:
    """A recipe's file -> what the page shows of it."""
    text = path.read_text(encoding="utf-8")
    lines = [line.removeprefix("#").removeprefix(" ") for line in text.splitlines() if line.startswith("#")]
    header = lines[1:]  # the first line is for editors
    recipe = yaml.safe_load(text)
    model = recipe["model"]
    network = f"`{model['name']}`" + (f" on `{model['encoder']}`" if "encoder" in model else "")
    return Shown(path.stem, header, network, starting_weights(recipe, "\n".join(header)))


def body(header: list[str]) -> str:
    """The comment of a recipe as Markdown: indented commands become blocks, all other lines text."""
    parts: list[str] = []
    for line in header:
        match = COMMAND.match(line)
        if match and parts and parts[-1] == "```":
            parts[-1:] = [match[1], "```"]
        elif match:
            parts += ["", "```bash", match[1], "```"]
        else:
            if parts and parts[-1] == "```":
                parts.append("")
            parts.append(_prose(line.strip()))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).strip()


def _prose(line: str) -> str:
    """A line of text, with keys and their values as code."""
    return re.sub(r"(?<![`\w./-])([a-z]+\.[a-z_]+=(?:[^\s,;:)]|,\d)*(?<!\.))", r"`\1`", line)


def page() -> str:
    """The whole page."""
    shown = [read(path) for path in sorted(RECIPES.glob("*.yaml"))]
    # Those that were measured first, so that the table begins with what can be compared.
    shown.sort(key=lambda recipe: (recipe.name != "unet-lite", recipe.score == "not measured"))
    table = ["| recipe | network | score | frames | minutes | starts from, licence |", "|---|---|---|---|---|---|"]
    table += [
        f"| [{name}](#{name}) | {each.network} | {each.score} | {each.frames} | {each.minutes} | {each.weights} |"
        for each in shown
        for name in [each.name]
    ]
    sections = [f"## {each.name}\n\n{body(each.header)}" for each in shown]
    originals = [f"- `original/{path.stem}`" for path in sorted((RECIPES / "original").glob("*.yaml"))]
    return "\n".join([INTRODUCTION, *table, "", "\n\n".join(sections), "", ORIGINALS, *originals, ""])


def main(argv: list[str]) -> int:
    """Print the page, or with --write save it."""
    if argv == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
