"""A robustness report in its written forms: Markdown for people, JSON for programs, and a picture."""

from __future__ import annotations

from pathlib import Path

from depthray.errors import UsageError
from depthray.evaluation.comparing.paired import of_metric
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.report import metric_title
from depthray.evaluation.robustness import consistency_report, corruptions
from depthray.evaluation.robustness.consistency import CropChange, Flicker
from depthray.evaluation.robustness.corruptions import STRENGTHS
from depthray.evaluation.robustness.robustness import WORST_AT, CorruptionScores, NetworkRobustness, RobustnessReport
from depthray.imaging import plots, sheets
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import to_json


def write(report: RobustnessReport, out: Path) -> None:
    """Write robustness.md, .json and .png into a folder, which is made if need be; of crops and clips a picture too."""
    with translate_os_errors(out, to=UsageError, doing="write the report", advice="give another --out"):
        out.mkdir(parents=True, exist_ok=True)
        (out / "robustness.md").write_text(markdown(report), encoding="utf-8")
        (out / "robustness.json").write_text(as_json(report), encoding="utf-8")
        if any(network.corruptions for network in report.networks):
            sheets.save_png(out / "robustness.png", plot(report))
        crops, clips = _crops(report), _clips(report)
        if any(crops.values()) or clips:
            sheets.save_png(out / "consistency.png", consistency_report.plot(crops, clips))


def markdown(report: RobustnessReport) -> str:
    """A table a network for people, the corruption that harms most first."""
    about = report.about
    parts = [
        "# Robustness",
        f"{about['frames']} frames of {about['data']}, split {about['split']}, protocol {about['protocol']}.",
    ]
    for network in (each for each in report.networks if each.corruptions):
        clean = of_metric(network.clean, report.monitor)
        ranked = sorted(network.corruptions, key=lambda each: -abs(each.slope))
        head = ["corruption", *(str(strength) for strength in STRENGTHS), "slope"]
        lines = [[each.corruption, *_cells(each, report.monitor), f"{100 * each.slope:+.1f} %"] for each in ranked]
        parts += [
            f"## {network.name}",
            f"As they are: {metric_title(report.monitor)} {clean.after.mean:.4f} "
            f"({clean.after.low:.4f} to {clean.after.high:.4f})."
            + (f" {network.left_out}." if network.left_out else ""),
            markdown_table(head, lines),
            f"Frames that get worst at strength {WORST_AT}:",
            markdown_table(["corruption", "frames"], [[each.corruption, _worst(each)] for each in ranked]),
        ]
    if any(network.corruptions for network in report.networks):
        parts.append(_explain(report.monitor))
    parts += consistency_report.sections(_crops(report), _clips(report), about.get("clip", ""))
    return "\n\n".join(parts) + "\n"


def as_json(report: RobustnessReport) -> str:
    """The report as JSON, with null for what could not be scored."""
    content = {
        **report.about,
        "monitor": report.monitor,
        "strengths": corruptions.meanings(),
        "networks": [_tree(network) for network in report.networks],
    }
    return to_json(content, indent=2, ensure_ascii=False) + "\n"


def plot(report: RobustnessReport) -> sheets.RgbImage:
    """(H,W,3) uint8 RGB: a panel a corruption, the monitored metric of each network against the strength."""
    names = list(dict.fromkeys(each.corruption for network in report.networks for each in network.corruptions))
    panels = [
        plots.Panel(name, [line for network in report.networks for line in _lines(network, name, report.monitor)])
        for name in names
    ]
    return plots.draw_grid(panels, x_label="strength", y_label=metric_title(report.monitor))


def _lines(network: NetworkRobustness, name: str, monitor: str) -> list[plots.PlotLine]:
    clean = of_metric(network.clean, monitor).after
    for each in network.corruptions:
        if each.corruption == name:
            values = [clean, *(of_metric(metrics, monitor).after for metrics in each.by_strength)]
            mean, low, high = ([value[end] for value in values] for end in range(3))
            return [plots.PlotLine(network.name, [0, *STRENGTHS], mean, low, high)]
    return []


def _crops(report: RobustnessReport) -> dict[str, tuple[CropChange, ...]]:
    return {network.name: network.crops for network in report.networks}


def _clips(report: RobustnessReport) -> dict[str, Flicker]:
    return {network.name: network.flicker for network in report.networks if network.flicker is not None}


def _tree(network: NetworkRobustness) -> dict[str, object]:
    return {
        "name": network.name,
        **consistency_report.tree(network.crops, network.flicker),
        "clean": [metric.as_tree() for metric in network.clean],
        "corruptions": {
            each.corruption: {
                "slope": each.slope,
                "by_strength": [[metric.as_tree() for metric in metrics] for metrics in each.by_strength],
                "worst": [frame._asdict() for frame in each.worst],
            }
            for each in network.corruptions
        },
    }


def _explain(monitor: str) -> str:
    strengths = "; ".join(f"{name}: {text}" for name, text in corruptions.meanings().items())
    return (
        f"Each row is the {metric_title(monitor)} at strengths 1 to 5; bold where it is worse than on frames as they "
        "are beyond the luck of which scenes were scored. Slope: its change a strength, in per cent of its value "
        f"there.\n\nStrengths: {strengths}."
    )


def _cells(each: CorruptionScores, monitor: str) -> list[str]:
    scored = [of_metric(metrics, monitor) for metrics in each.by_strength]
    return [f"**{one.after.mean:.3f}**" if one.verdict == "worse" else f"{one.after.mean:.3f}" for one in scored]


def _worst(each: CorruptionScores) -> str:
    return ", ".join(f"{frame.id} {frame.before:.2f} to {frame.after:.2f}" for frame in each.worst)
