"""Settings of the stage join; see :mod:`unet.config.stage_settings`."""

from __future__ import annotations

from typing import Self

from unet.config.data_settings import Task
from unet.config.run import Config
from unet.config.tracked import Settings


class JoinSettings(Settings):
    """Settings of a dataset that joins others.

    Attributes:
        members: the joined datasets, in the order of the config.
        classes: pairs of name and value in mask files (see
            :class:`unet.config.data_settings.PrepareSettings`).
    """

    stage = "join"
    members: tuple[str, ...]
    task: Task
    classes: tuple[tuple[str, int], ...] | None

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        data = config.datasets[dataset]
        if data.join is None:
            raise ValueError(f"{dataset} joins no datasets")
        classes = None if data.classes is None else tuple(data.classes.items())
        return cls.filled(config, dataset, members=tuple(data.weights), classes=classes)
