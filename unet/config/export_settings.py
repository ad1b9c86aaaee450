"""Settings of the stage export; see :mod:`unet.config.stage_settings`."""

from __future__ import annotations

from typing import Self

from unet.config.export_section import ExportSection
from unet.config.run import Config
from unet.config.stage_sections import StitchSection
from unet.config.tracked import Settings
from unet.errors import UserError


class ExportSettings(Settings):
    """Settings of a model's package.

    Attributes:
        fold: whose network is in the package.
        confidence: level of the intervals of the scores in it (``report.confidence``).
        stitch, tta: how the run makes objects, which is also in the package.
        tested: the folds whose chosen thresholds are in it (stitch.threshold: auto).
    """

    stage = "export"
    export: ExportSection
    fold: int
    confidence: float
    stitch: StitchSection
    tta: bool
    tested: tuple[int, ...]

    @property
    def untracked(self) -> frozenset[str]:
        # The fold is written with its number; a package that is not wanted has no job. The other
        # keys are about files that the run writes.
        files = {"tiff", "ome_zarr", "zip_images", "pyramid", "label_pyramid", "write_back"}
        return frozenset({"write", "fold", *files})

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        section, folds = config.export_for(dataset, model), config.folds_for(dataset)
        if not folds:
            raise UserError(
                f"config: datasets.{dataset}: has predict_with, so no model is trained on it; "
                "export the model where it was trained"
            )
        fold = folds[0] if section.fold is None else section.fold
        if fold not in folds:
            there = ", ".join(map(str, folds))
            raise UserError(f"config: export.fold: no fold {fold} in {dataset}; there are: {there}")
        stitch = config.stitch_for(dataset, model)
        return cls.filled(
            config,
            dataset,
            export=section,
            fold=fold,
            confidence=config.report.confidence,
            stitch=stitch,
            tta=config.predict_for(dataset, model).tta,
            tested=config.tested_for(dataset) if stitch.threshold == "auto" else (),
        )
