"""All sections of the config, which :mod:`unet.config.run` combines."""

from unet.config.choices import CHOOSING
from unet.config.dataset_sections import DatasetSection, SyntheticSection
from unet.config.export_section import ExportSection
from unet.config.model_section import ModelSection
from unet.config.prediction_sections import (
    ClusterSection,
    PredictPrecision,
    PredictSection,
    SkipSection,
)
from unet.config.section_base import Section, sections_of
from unet.config.split_section import SplitSection
from unet.config.stage_sections import (
    EvaluateSection,
    NormalizeSection,
    PrepareSection,
    ReportSection,
    StitchSection,
)
from unet.config.training_sections import AugmentSection, Precision, TrainSection

__all__ = [
    "CHOOSING",
    "AugmentSection",
    "ClusterSection",
    "DatasetSection",
    "EvaluateSection",
    "ExportSection",
    "ModelSection",
    "NormalizeSection",
    "Precision",
    "PredictPrecision",
    "PredictSection",
    "PrepareSection",
    "ReportSection",
    "Section",
    "SkipSection",
    "SplitSection",
    "StitchSection",
    "SyntheticSection",
    "TrainSection",
    "sections_of",
]
