"""The names of all that the folders of a run and of a search hold. Nobody else writes these names out.

RUN/recipe.yaml       what is trained; a folder with it is a run
    progress.jsonl    a JSON record a line (`depthray.runs.progress`)
    checkpoints/      epoch-0003-step-00000120/ ... (`depthray.checkpoints`)
    tensorboard/      curves, images and hyperparameters
    results.csv       a line an epoch, and results.png, its curves (`depthray.runs.loggers`)
    MODEL_CARD.md     of the best checkpoint (`depthray.cards`)
    gain.json         scores before and after training, with gain.md and gain.csv (`depthray.runs.gain_report`)
    evaluations/      one folder for each `depthray evaluate`
    ray/              Ray's own files, never read back
    STOP              exists: save and stop after the current step
    identity          of a remote run: a random id, new for each run at the same address
    .uploading/       of a remote run: links to the checkpoint that is being uploaded

SEARCH/search.json    what was requested; a folder with it is a search
    recipe.yaml  space.yaml  ray/
    trials/0007/      a run with trial.json
"""

from __future__ import annotations

from pathlib import Path

from depthray.checkpoints import manifest, select

RECIPE = manifest.RECIPE  # a run and its checkpoints call it the same, so either can start another run
PROGRESS = "progress.jsonl"
CHECKPOINTS = select.FOLDER
TENSORBOARD = "tensorboard"
RESULTS_TABLE = "results.csv"
RESULTS_PICTURE = "results.png"
MODEL_CARD = "MODEL_CARD.md"
GAIN_JSON = "gain.json"
GAIN_TABLE = "gain.md"
GAIN_FRAMES = "gain.csv"
EVALUATIONS = "evaluations"
RAY = "ray"
STOP = "STOP"
IDENTITY = "identity"
UPLOADING = ".uploading"
ERROR = "error.json"  # unreleased versions before 0.1 wrote it when a run failed

SEARCH = "search.json"
SPACE = "space.yaml"
TRIALS = "trials"
TRIAL = "trial.json"


def evaluation(checkpoint: Path, name: str, *, remote: bool = False) -> Path:
    """RUN/evaluations/CHECKPOINT-NAME; in the working directory for a checkpoint that is remote or outside a run."""
    checkpoint = checkpoint.resolve()
    in_run = checkpoint.parent.name == CHECKPOINTS and not remote
    return (checkpoint.parents[1] if in_run else Path()) / EVALUATIONS / f"{checkpoint.name}-{name}"


def reports(checkpoint: Path) -> Path | None:
    """The folder of the evaluations of a checkpoint, which there may be none of; None outside of a run."""
    checkpoint = checkpoint.resolve()
    return checkpoint.parents[1] / EVALUATIONS if checkpoint.parent.name == CHECKPOINTS else None


def trial(search: Path, name: str) -> Path:
    """The run of a trial of a search."""
    return search / TRIALS / name
