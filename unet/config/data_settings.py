"""Settings of the stages that prepare a dataset's images; see
:mod:`unet.config.stage_settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from unet.config import inactive
from unet.config.run import Config
from unet.config.sections import (
    DatasetSection,
    NormalizeSection,
    PrepareSection,
    SplitSection,
    SyntheticSection,
)
from unet.config.tracked import Settings
from unet.paths import origin_of

Task = Literal["semantic", "instances"]


class SynthesizeSettings(Settings):
    """Settings of a generated dataset; written as one flat mapping, with the section's keys."""

    stage = "synthesize"
    synthetic: SyntheticSection
    seed: int

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        if config.datasets[dataset].synthetic is None:
            raise ValueError(f"{dataset} is not a generated dataset")
        return cls.filled(config, dataset)

    def to_json(self) -> dict[str, Any]:
        found = super().to_json()
        return {**found.pop("synthetic"), **found}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        own = {name: values[name] for name in ("version", "seed") if name in values}
        section = {name: value for name, value in values.items() if name not in own}
        return super().from_json({**own, "synthetic": section})


class DownloadSettings(Settings):
    """Settings of a public dataset; where it is fetched from changes nothing."""

    stage = "download"
    name: str

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        if (name := config.datasets[dataset].download) is None:
            raise ValueError(f"{dataset} has no download")
        return cls.made(name=name)


class DataSettings(Settings):
    """Keys of a dataset that are also settings of several stages."""

    task: Task
    label_kind: Literal["instances", "binary"] = "instances"
    ignore: int | None
    unlabelled: Literal["background", "ignore"] = "background"
    background: int | None = None
    axes: str | None
    channels: tuple[int | str, ...] | None

    @property
    def sparse(self) -> bool:
        """Whether pixels without a label are unknown."""
        return self.unlabelled == "ignore"


class ManifestSettings(DataSettings):
    """Settings of the manifest.

    Attributes:
        group, column: from the dataset's split.
        strict: stop at the first unusable image.
        labelled, required: whether labels are searched for, and whether they are required.
        only_marked: whether only pixels marked as background say what background is.
        fingerprint: identifies the content of the raw files; "" for generated files, whose
            sentinel does this.
    """

    stage = "manifest"
    layout: str
    classes: dict[str, int] | None
    pixel_size_um: float | tuple[float, ...] | None
    group: str | None
    column: str | None
    strict: bool
    labelled: bool
    required: bool = True
    only_marked: bool = False
    fingerprint: str

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        data = config.datasets[dataset]
        # If models of other datasets predict, labels are optional.
        required = not config.origins_for(dataset)
        own = {
            "labelled": data.labelled or required,
            "required": required,
            "only_marked": data.background is not None and data.background_px is None,
            "fingerprint": "",
        }
        split = data.split
        return cls.filled(config, dataset, group=split.group, column=split.column, **own)


class SplitsSettings(Settings):
    """Settings of the splits."""

    stage = "splits"
    split: SplitSection
    seed: int

    @property
    def untracked(self) -> frozenset[str]:
        # Which folds are run does not change which images are in them.
        return frozenset({"run"})

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        split = inactive.reset_split(config.datasets[dataset].split)
        return cls.filled(config, dataset, split=split)


class PrepareSettings(DataSettings):
    """Settings of the prepared images.

    Attributes:
        classes: pairs of name and label value. Not a mapping, because canonical JSON sorts
            mappings, and the order of the classes is their index.
        background_px: see :class:`unet.config.dataset_sections.DatasetSection`.
    """

    stage = "prepare"
    prepare: PrepareSection
    classes: tuple[tuple[str, int], ...] | None
    background_px: float | None = None

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        named = config.datasets[dataset].classes
        classes = None if named is None else tuple(named.items())
        return cls.filled(config, dataset, prepare=config.prepare_for(dataset), classes=classes)


class PrepareAppliedSettings(PrepareSettings):
    """Settings of images that are prepared for a model of another dataset. The normalisation and
    the pixel size are in the model files, which are inputs of the stage.

    Attributes:
        networks: the folds whose networks predict; None after their normalisation was filled in.
    """

    stage = "prepare_applied"
    networks: tuple[int, ...] | None = None

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        settings = super().of(config, dataset).normalized_by(NormalizeSection())
        return settings.model_copy(update={"networks": networks_of(config, dataset, model)})

    @property
    def untracked(self) -> frozenset[str]:
        return frozenset() if self.networks is None else frozenset({"normalize"})

    def normalized_by(self, normalize: NormalizeSection) -> Self:
        """With the normalisation of the networks."""
        prepare = self.prepare.model_copy(update={"normalize": normalize})
        return self.model_copy(update={"prepare": prepare, "networks": None})


# stage -> keys of a dataset that are also keys of the stage's settings.
DATA_KEYS = {
    # prepare is merged from the sections of the run and the dataset.
    kind.stage: sorted(kind.model_fields.keys() & DatasetSection.model_fields.keys() - {"prepare"})
    for kind in (ManifestSettings, PrepareSettings)
}


def networks_of(config: Config, dataset: str, model: str) -> tuple[int, ...]:
    """The folds whose networks form an ensemble; none if there is no ensemble."""
    origin = origin_of(model)
    if origin is not None:
        return config.folds_for(origin.dataset)
    split = config.datasets[dataset].split
    return split.to_run if split.ensemble else ()
