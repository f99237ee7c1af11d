"""A recipe of all its sections, and what must agree between them."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import Field, model_validator

from depthray.config.sections.augment_section import Augment
from depthray.config.sections.data_section import Data
from depthray.config.sections.loss_section import DepthKind, Loss
from depthray.config.sections.model_section import Model, Uncertainty
from depthray.config.sections.section import Section, Seed
from depthray.config.sections.training_sections import Curriculum, Eval, Finetune, Optim, Train

LIKELIHOODS: dict[Uncertainty, str] = {"laplace": "laplace_nll", "gaussian": "gaussian_nll"}  # term of each


class Recipe(Section):
    """Everything that decides a run's numbers."""

    about: str = Field("", description="one line: what this recipe is for")
    seed: Seed = Field(0, description="seed of weights, order, augmentation and dropout")
    data: Data = Data()
    augment: Augment = Augment()
    model: Model = Model()
    loss: Loss = Loss(l1=1.0)  # Loss() has no weight, which is an error
    optim: Optim = Optim()
    train: Train = Train()
    finetune: Finetune = Finetune()
    curriculum: Curriculum = Curriculum()
    eval: Eval = Eval()

    @property
    def depth_kind(self) -> DepthKind:
        """What the numbers of a predicted depth map are: of several data sets as that makes them which fixes most."""
        losses = [each.loss or self.loss for each in self.data.sets if each.is_used] or [self.loss]
        return min((loss.depth_kind for loss in losses), key=get_args(DepthKind).index)

    @model_validator(mode="after")
    def _check_spread(self) -> Recipe:
        data = self.data
        for loss in (self.loss, *(each.loss for each in data.sets if each.loss)):
            is_of_metres = "sparse" in data.inputs and "depth" in data.targets and loss.target == "metric"
            if loss.over_spread and not is_of_metres:
                raise ValueError(
                    "loss.over_spread=true divides by the loss of the spread samples in metres: it needs 'sparse' "
                    "among data.inputs, 'depth' among data.targets and loss.target=metric"
                )
        return self

    @model_validator(mode="after")
    def _check_uncertainty(self) -> Recipe:
        kind, weights = self.model.uncertainty, self.loss.weights | self.loss.teacher.weights
        wrong = [name for each, name in LIKELIHOODS.items() if name in weights and each != kind]
        if wrong:
            family = wrong[0].removesuffix("_nll")
            raise ValueError(f"loss.{wrong[0]} needs model.uncertainty={family}, and it is {kind}")
        if kind != "none" and LIKELIHOODS[kind] not in weights and not self.loss.terms:
            raise ValueError(f"model.uncertainty={kind}: no term trains it; give loss.{LIKELIHOODS[kind]} a weight")
        if kind == "none" and self.eval.monitor == "nll":
            raise ValueError("eval.monitor=nll is the likelihood of what model.uncertainty predicts, and that is none")
        return self

    @model_validator(mode="after")
    def _check_valid_mask(self) -> Recipe:
        sections = (self.loss, *(each.loss for each in self.data.sets if each.loss))
        is_trained = any("valid_bce" in each.weights for each in sections)
        if is_trained and not self.model.valid_mask:
            raise ValueError("loss.valid_bce needs model.valid_mask=true")
        if self.model.valid_mask and not is_trained and not self.loss.terms:
            raise ValueError("model.valid_mask=true: no term trains it; give loss.valid_bce a weight, e.g. 0.1")
        return self

    @model_validator(mode="before")
    @classmethod
    def _read_model_as_saved(cls, tree: Any) -> Any:
        """The model section of a saved recipe, as the other sections read theirs.

        Earlier versions wrote no more into it than an architecture's name and options, as anybody would. That all keys
        of training are listed shows that the recipe was saved.
        """
        train, model = (tree.get(key) if isinstance(tree, dict) else None for key in ("train", "model"))
        is_saved = isinstance(train, dict) and train.keys() >= Train.keys_before
        if not (is_saved and isinstance(model, dict)):
            return tree
        return {**tree, "model": {**Model.values_before, **model}}
