"""The sections of a recipe: every key with its type, limits and meaning, from which its JSON schema is made."""

from depthray.config.sections.augment_section import Augment
from depthray.config.sections.data_section import Data, DataSet, RecordingOptions, Sparse
from depthray.config.sections.loss_section import LOSS_OPTIONS, DepthKind, Loss
from depthray.config.sections.model_section import Model, Uncertainty
from depthray.config.sections.section import Section
from depthray.config.sections.training_sections import (
    MASK_MONITORS,
    TEACHER_MONITORS,
    Curriculum,
    Eval,
    Finetune,
    Monitor,
    Optim,
    Schedule,
    Train,
)
from depthray.config.sections.whole_recipe import Recipe

__all__ = [
    "LOSS_OPTIONS",
    "MASK_MONITORS",
    "TEACHER_MONITORS",
    "Augment",
    "Curriculum",
    "Data",
    "DataSet",
    "DepthKind",
    "Eval",
    "Finetune",
    "Loss",
    "Model",
    "Monitor",
    "Optim",
    "Recipe",
    "RecordingOptions",
    "Schedule",
    "Section",
    "Sparse",
    "Train",
    "Uncertainty",
]
