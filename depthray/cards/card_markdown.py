"""MODEL_CARD.md: what a network is, what it was trained on, how good it is and where it ends, for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from depthray.cards import limits_text
from depthray.checkpoints.calibration import Calibration
from depthray.checkpoints.model_facts import ModelFacts, ProtocolScores
from depthray.checkpoints.origin import Origin
from depthray.config import own_code
from depthray.config.sections import LOSS_OPTIONS, Recipe
from depthray.errors import count_of
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.report import metric_title

MONITORED = ("abs_rel", "rmse", "delta1", "iou")  # shown first
UNKNOWN = "not recorded: this checkpoint was written by an earlier version of depthray"


@dataclass(frozen=True)
class CardSubject:
    """What a card is about."""

    recipe: Recipe
    facts: ModelFacts | None
    origin: Origin | None
    calibration: Calibration | None
    epoch: int
    step: int
    sha256: str  # of the weights
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)  # of validation, where `facts` has no intervals
    target: str = ""  # of an export
    curves: str = ""  # the name of a picture beside the card

    @property
    def name(self) -> str:
        """The architecture, and of an export what it is for."""
        return own_code.short_name(self.recipe.model.name) + (f" for {self.target}" if self.target else "")


def markdown(subject: CardSubject) -> str:
    """The card as Markdown."""
    sections = {
        "Data": _data(subject.facts),
        "Recipe": _recipe(subject.recipe),
        "Scores": _scores(subject),
        "Calibration": _calibration(subject.calibration),
        "Confidence": _confidence(subject.facts),
        "Robustness": _robustness(subject.facts),
        "Limits": "\n".join(f"- {line}" for line in limits_text.lines(subject.facts, subject.recipe)),
        "Licence of the weights": _licence(subject.origin),
        "Provenance": _provenance(subject),
    }
    head = [f"# Model card: {subject.name}", subject.recipe.about or "A depth network."]
    return "\n\n".join([*head, *(part for name, text in sections.items() for part in (f"## {name}", text))]) + "\n"


def _data(facts: ModelFacts | None) -> str:
    if facts is None:
        return UNKNOWN[0].upper() + UNKNOWN[1:] + "."
    data = facts.data
    rows = {
        "frames": f"{data.frames} of {count_of(data.scenes, 'scene')}",
        "data set": ", ".join(data.names),
        "shows": ", ".join(data.places) or "not recorded",
        "licence": ", ".join(data.licences) or "not recorded; whoever has the data knows",
        "fingerprint": data.fingerprint,
    }
    return markdown_table(["trained on", ""], [[key, value] for key, value in rows.items()])


def _recipe(recipe: Recipe) -> str:
    weights = {key: value for key, value in recipe.loss.model_dump().items() if key not in LOSS_OPTIONS and value}
    terms = {**weights, **{own_code.short_name(key): value for key, value in recipe.loss.terms.items()}}
    terms |= {f"teacher.{key}": value for key, value in recipe.loss.teacher.weights.items()}
    rows: dict[str, Any] = {
        "architecture": own_code.short_name(recipe.model.name),
        "encoder": getattr(recipe.model, "encoder", ""),
        "reads": ", ".join(recipe.data.inputs),
        "predicts": ", ".join(recipe.data.targets),
        "loss": ", ".join(f"{key} {value:g}" for key, value in terms.items()),
        "epochs": f"{recipe.train.epochs} of batches of {recipe.train.batch_size}",
        "optimiser": f"{recipe.optim.name}, lr {recipe.optim.lr:g}, {recipe.optim.schedule}",
        "seed": recipe.seed,
    }
    table = markdown_table(["", ""], [[key, str(value)] for key, value in rows.items() if value not in ("", None)])
    return f"{table}\n\nAll of it is in recipe.yaml, from which it can be trained again."


def _scores(subject: CardSubject) -> str:
    sets = subject.facts.scores if subject.facts else ()
    parts = [_one_set(each) for each in sets if each.metrics] or [_without_intervals(subject)]
    return "\n\n".join([*parts, *([f"![Scores and loss by epoch]({subject.curves})"] if subject.curves else [])])


def _without_intervals(subject: CardSubject) -> str:
    if not subject.metrics:
        return "None."
    rows = [[metric_title(name), f"{value:.4f}"] for name, value in sorted(subject.metrics.items())]
    table = markdown_table(["metric", "mean"], rows)
    return f"Of validation, protocol {subject.recipe.eval.protocol}, without intervals:\n\n{table}"


def _one_set(scores: ProtocolScores) -> str:
    of = scores.data or "the held-out frames of its own data"
    ranked = sorted(scores.metrics.items(), key=lambda item: item[0] not in MONITORED)
    rows = [[metric_title(name), f"{mean:.4f}", f"{low:.4f} to {high:.4f}"] for name, (mean, low, high) in ranked]
    frames = f"{count_of(scores.frames, 'frame')} of {count_of(scores.scenes, 'scene')}"
    return (
        f"Protocol {scores.protocol} on {of}, split {scores.split}: {frames}."
        f"\n\n{markdown_table(['metric', 'mean', '95 % interval'], rows)}"
    )


def _calibration(fitted: Calibration | None) -> str:
    if fitted is None:
        return "None: metres are as the network predicts them. `depthray calibrate` fits them to frames of your own."
    return (
        f"Depth is corrected, {fitted}, by {fitted.frames} frames: held-out AbsRel {fitted.before:.4f} before, "
        f"{fitted.after:.4f} after."
    )


def _confidence(facts: ModelFacts | None) -> str:
    if not facts or not facts.confidence:
        return "Not measured."
    return markdown_table(
        ["", ""], [[key.replace("_", " "), f"{value:.4f}"] for key, value in facts.confidence.items()]
    )


def _robustness(facts: ModelFacts | None) -> str:
    if not facts or not facts.robustness:
        return "Not measured; `depthray robust` does."
    ranked = sorted(facts.robustness.items(), key=lambda item: -abs(item[1]))
    table = markdown_table(["corruption", "change a strength"], [[name, f"{100 * v:+.1f} %"] for name, v in ranked])
    return (
        f"How much the score changes with each of five strengths, as a share of that on frames as they are.\n\n{table}"
    )


def _licence(origin: Origin | None) -> str:
    known = origin.published() if origin else {}
    if not known:
        return "Trained from random weights; their licence is for whoever trained them to say."
    rows = [[key.replace("_", " "), str(value)] for key, value in known.items()]
    return (
        f"Training started from published weights, whose terms hold for these too:\n\n{markdown_table(['', ''], rows)}"
    )


def _provenance(subject: CardSubject) -> str:
    rows = {
        "epoch, step": f"{subject.epoch}, {subject.step}",
        "SHA-256 of the weights": subject.sha256,
        **dict(sorted(subject.versions.items())),
    }
    return markdown_table(["", ""], [[key, value] for key, value in rows.items()])
