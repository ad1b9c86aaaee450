"""Settings of the stage details; see :mod:`unet.config.stage_settings`."""

from __future__ import annotations

from typing import Self

from unet.config.data_settings import Task
from unet.config.run import Config
from unet.config.tracked import Settings


class DetailsSettings(Settings):
    """Settings of the tables behind the scores.

    Attributes:
        applied: whether images without labels are allowed; they are predicted but not compared.
    """

    stage = "details"
    task: Task
    class_names: tuple[str, ...]
    applied: bool = False

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        return cls.filled(config, dataset, applied=bool(config.origins_for(dataset)))
