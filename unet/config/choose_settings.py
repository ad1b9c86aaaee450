"""Settings of the stage choose; see :mod:`unet.config.stage_settings`."""

from __future__ import annotations

from typing import Any, Self

from unet.config.run import Config
from unet.config.tracked import Settings
from unet.errors import UserError


class ChooseSettings(Settings):
    """Settings of the choice among the models of a sweep.

    Attributes:
        members: the models to choose from, in the order in which ties are decided.
        values: what each of them tries: a value by dotted key.
        folds: the folds whose mean validation score decides for all of them; none: each fold
            decides by its own score, because the others' validation images are among its test
            images.
    """

    stage = "choose"
    members: tuple[str, ...]
    values: dict[str, dict[str, Any]]
    folds: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        found = config.members_of(model)
        if not found:
            raise UserError(f"config: models.{model}: has no sweep; there is nothing to choose")
        folds = config.folds_for(dataset) if config.datasets[dataset].split.same_test else ()
        return cls.made(members=tuple(found), values=found, folds=folds)
