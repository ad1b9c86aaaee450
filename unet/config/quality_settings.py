"""Settings of the stage quality; see :mod:`unet.config.stage_settings`."""

from __future__ import annotations

from typing import Self

from unet.config.data_settings import Task, networks_of
from unet.config.run import Config
from unet.config.tracked import Settings
from unet.errors import UserError
from unet.paths import ENSEMBLE, fold_name, origin_of


class QualitySettings(Settings):
    """Settings of the judgement of images that a model of another dataset predicted.

    Attributes:
        confidence: level of the intervals (``report.confidence``).
        networks: the folds whose networks predict together.
        held_out: names of the folds that were tested where the model was trained.
    """

    stage = "quality"
    task: Task
    confidence: float
    networks: tuple[int, ...]
    held_out: tuple[str, ...]

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        origin = origin_of(model)
        if origin is None:
            raise UserError(
                f"config: datasets.{dataset}: model {model!r} was trained on it; the stage quality "
                "is for a dataset with predict_with"
            )
        return cls.filled(
            config,
            dataset,
            confidence=config.report.confidence,
            networks=networks_of(config, dataset, model),
            held_out=tuple(fold_name(fold) for fold in config.tested_for(origin.dataset)),
        )

    @property
    def same_networks(self) -> bool:
        """Whether as many networks predict the new images as predicted each held-out one.

        A mean of several networks is less sure than one network wherever they disagree, so
        probabilities of the two can't be compared.
        """
        return len(self.networks) == 1 or self.held_out == (fold_name(ENSEMBLE),)
