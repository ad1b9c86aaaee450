"""The settings of the audit stage."""

from __future__ import annotations

from typing import Self

from unet.config.data_settings import Task
from unet.config.run import Config
from unet.config.tracked import Settings


class AuditSettings(Settings):
    """Settings of the audit of the labels.

    Attributes:
        class_names: in the order of the class index.
        most: largest number of doubts in the table.
    """

    stage = "audit"
    task: Task
    class_names: tuple[str, ...]
    most: int = 200

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        return cls.filled(config, dataset)
