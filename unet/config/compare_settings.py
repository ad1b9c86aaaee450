"""Settings of the comparison with other tools; see :mod:`unet.config.stage_settings`."""

from __future__ import annotations

from typing import Literal, Self

from unet.config import inactive
from unet.config.choices import FAMILY_TABLE
from unet.config.run import Config
from unet.config.sections import EvaluateSection
from unet.config.tracked import Settings


class CompareSettings(Settings):
    """Settings of the scores of another tool's masks.

    Attributes:
        evaluate: with those families of metrics that need no probabilities.
        class_names: in the order of the class index.
        class_values: value of each class in the masks; None for task instances.
        axes: of files that do not declare theirs, as for the dataset's own files.
        applied: whether images without labels are allowed; they are not scored.
        fingerprint: identifies the content of the masks.
    """

    stage = "compare"
    evaluate: EvaluateSection
    task: Literal["semantic", "instances"]
    class_names: tuple[str, ...]
    class_values: tuple[int, ...] | None
    axes: str | None
    applied: bool = False
    fingerprint: str

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        data, section = config.datasets[dataset], config.evaluate_for(dataset)
        families = tuple(name for name in section.metrics if FAMILY_TABLE[name].masks)
        kept = inactive.reset_evaluate(section.model_copy(update={"metrics": families}))
        return cls.filled(
            config,
            dataset,
            evaluate=kept,
            class_values=None if data.classes is None else tuple(data.classes.values()),
            applied=bool(config.origins_for(dataset)),
            fingerprint="",
        )
