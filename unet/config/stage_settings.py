"""The settings of each stage: one frozen, typed model per stage, made from the config.

An edit of the config reruns exactly the jobs whose settings it changes, and the jobs that depend on
them. Keys that have no effect given the other settings are set to their defaults
(:mod:`unet.config.inactive`). :mod:`unet.config.tracked` writes and reads settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator

from unet.config import inactive
from unet.config.audit_settings import AuditSettings
from unet.config.check_settings import CheckSettings
from unet.config.choose_settings import ChooseSettings
from unet.config.compare_settings import CompareSettings
from unet.config.data_settings import (
    ManifestSettings,
    PrepareAppliedSettings,
    PrepareSettings,
    SplitsSettings,
    SynthesizeSettings,
    Task,
    networks_of,
)
from unet.config.details_settings import DetailsSettings
from unet.config.join_settings import JoinSettings
from unet.config.learning_curve import compared, curves_of
from unet.config.presets import AnyArchitecture, architecture_from
from unet.config.quality_settings import QualitySettings
from unet.config.run import Config
from unet.config.sections import (
    EvaluateSection,
    PredictSection,
    ReportSection,
    StitchSection,
    TrainSection,
)
from unet.config.stage_keys import written_keys
from unet.config.sweep import sweeps_of
from unet.config.tracked import Settings, Tracked
from unet.errors import UserError
from unet.paths import ENSEMBLE, fold_name, origin_of

Device = Literal["auto", "cpu", "cuda"]


def _architecture(value: Any) -> Any:
    try:
        return architecture_from(value) if isinstance(value, Mapping) else value
    except (KeyError, TypeError) as error:
        raise ValueError(f"unknown network ({error})") from None


class TrainSettings(Settings):
    """Settings of a training.

    Attributes:
        architecture: None: training chooses it (preset auto).
        memory_gb: memory that preset auto may use; None for other presets.
        given: keys of ``train`` that preset auto must not change; None for other presets.
        anisotropic: whether kernels and poolings follow from the pixel size.
        head, border_width: kind of the head.
        head_names: names of the network's outputs.
        balance: for a dataset that joins others: pairs of dataset and weight.
    """

    stage = "train"
    architecture: Annotated[
        AnyArchitecture | None,
        PlainValidator(_architecture),
        PlainSerializer(lambda layers: layers and layers.to_json()),
    ]
    memory_gb: float | None
    given: tuple[str, ...] | None
    anisotropic: bool
    head: str
    border_width: int
    head_names: tuple[str, ...]
    train: TrainSection
    device: Device
    seed: int
    balance: tuple[tuple[str, float], ...] = ()

    @property
    def untracked(self) -> frozenset[str]:
        # Checkpoint interval, cache and GPUs change no weights; the recipe's values are in the
        # other keys.
        return frozenset({"checkpoint_seconds", "cache_gb", "gpus", "recipe"})

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        section, arch = config.models[model], config.architecture_for(model)
        if section.sweep:
            raise UserError(
                f"config: models.{model}: has a sweep, so it is chosen (scripts/choose.py) among "
                f"the models {', '.join(config.members_of(model))}; train one of these"
            )
        given = sorted(config.train_given(dataset, model) & {"patch", "batch"})
        return cls.filled(
            config,
            dataset,
            architecture=None if arch is None else inactive.reset_architecture(arch),
            memory_gb=config.memory_gb if arch is None else None,
            given=given if arch is None else None,
            anisotropic=section.anisotropic and section.kernels is None and section.pools is None,
            head=section.head,
            border_width=inactive.border_width(section),
            head_names=config.head_for(dataset, model),
            train=inactive.reset_train(config.train_for(dataset, model), section.head),
            balance=tuple(config.datasets[dataset].weights.items()),
        )


class PredictSettings(Settings):
    """Settings of a prediction.

    Attributes:
        members: the folds whose networks predict together; () if there is no ensemble.
    """

    stage = "predict"
    predict: PredictSection
    device: Device
    members: tuple[int, ...] = ()

    # Keys that change only speed, memory, or where the work is done.
    execution_keys: ClassVar = frozenset({"batch", "gpus", "shards", "cluster"})

    @property
    def untracked(self) -> frozenset[str]:
        overlap = {"overlap"} if self.predict.blend == "none" else frozenset()
        return self.execution_keys | overlap

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        members, section = networks_of(config, dataset, model), config.predict_for(dataset, model)
        return cls.filled(config, dataset, predict=section, members=members)

    def keyed(self) -> dict[str, Any]:
        """The settings that determine the tiles of an image."""
        # Without members: each image's own key contains the networks that predict it.
        plain = self.model_copy(update={"members": ()}).to_json()
        section = written_keys(self.stage, self.predict, without=self.execution_keys)
        return {**plain, "predict": section}


class StitchSettings(Settings):
    """Settings of the stitched segmentations.

    Attributes:
        class_names: in the order of the class index.
        class_values: the value of each class in the user's labels, and so in the masks; None = the
            class index. Only for task semantic.
        head: names of the network's outputs.
        thresholds_of: for a model of another dataset: names of the folds there whose threshold is
            used, because this dataset has no validation images to choose one.
    """

    stage = "stitch"
    stitch: StitchSection
    task: Task
    class_names: tuple[str, ...]
    class_values: tuple[int, ...] | None
    head: tuple[str, ...]
    thresholds_of: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        data, section = config.datasets[dataset], config.stitch_for(dataset, model)
        origin, chosen = origin_of(model), tuple[str, ...]()
        if origin is not None and section.threshold == "auto":
            chosen = tuple(fold_name(fold) for fold in config.tested_for(origin.dataset))
        return cls.filled(
            config,
            dataset,
            stitch=inactive.reset_stitch(section, data.task),
            class_values=None if data.classes is None else tuple(data.classes.values()),
            head=config.head_for(dataset, model),
            thresholds_of=chosen,
        )


class EvaluateSettings(Settings):
    """Settings of the scores.

    Attributes:
        applied: whether images without labels are allowed; they are predicted but not scored.
    """

    stage = "evaluate"
    evaluate: EvaluateSection
    task: Task
    class_names: tuple[str, ...]
    applied: bool = False

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        section = inactive.reset_evaluate(config.evaluate_for(dataset))
        applied = bool(config.origins_for(dataset))
        return cls.filled(config, dataset, evaluate=section, applied=applied)


class Applied(Tracked):
    """The models of other datasets that predict a dataset.

    Attributes:
        labelled: whether labels are searched for.
        networks: name of the model -> the folds whose networks predict together.
    """

    labelled: bool
    networks: dict[str, tuple[int, ...]]


class ReportSettings(Settings):
    """Settings of a dataset's report.

    Attributes:
        folds: the trained folds.
        tested: names of the tested folds, if they differ from the trained ones (the ensemble).
        applied: None for a dataset that trains its own models.
        compared: names of the tools whose masks are compared with those of the models.
        models: those to compare.
        curves: learning curves: model -> its models, with their shares of the training images.
            Of these, only the model itself is in ``models``.
        sweeps: model -> the models that it was chosen from, which are only trained.
        joined: for a dataset that joins others: each of them -> those of ``models`` that were also
            trained on it alone, on the same folds.
    """

    stage = "report"
    report: ReportSection
    task: Task
    class_names: tuple[str, ...]
    models: tuple[str, ...]
    folds: tuple[int, ...]
    tested: tuple[str, ...] = ()
    applied: Applied | None = None
    compared: tuple[str, ...] = ()
    curves: dict[str, dict[str, float]] = Field(default_factory=dict)
    sweeps: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    joined: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    seed: int

    @property
    def of_curves(self) -> tuple[str, ...]:
        """The models that are trained only for learning curves."""
        members = (member for curve in self.curves.values() for member in curve)
        return tuple(member for member in members if member not in self.models)

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        models, tested, applied = compared(config, dataset), config.tested_for(dataset), None
        if config.origins_for(dataset):
            networks = {name: networks_of(config, dataset, name) for name in models}
            applied = Applied(labelled=config.datasets[dataset].labelled, networks=networks)
        others = tuple(fold_name(k) for k in tested) if ENSEMBLE in tested else ()
        own = {"folds": config.folds_for(dataset), "tested": others, "applied": applied}
        own["compared"] = tuple(config.datasets[dataset].compare)
        curves = curves_of(config, dataset)
        sweeps = {name: tuple(made) for name, made in sweeps_of(config, dataset).items()}
        joined = {
            name: tuple(model for model in compared(config, name) if model in models)
            for name in config.datasets[dataset].weights
        }
        made = {"curves": curves, "sweeps": sweeps, "joined": joined}
        return cls.filled(config, dataset, models=models, **made, **own)


class DatasetTask(Tracked):
    """What the report over all datasets needs to know about a dataset."""

    task: Task
    models: tuple[str, ...]
    labelled: bool = True
    compared: tuple[str, ...] = ()

    @property
    def scored(self) -> tuple[str, ...]:
        """The models, then the tools whose masks are compared with them."""
        return (*self.models, *self.compared)


class ReportAllSettings(Settings):
    """Settings of the report over all datasets."""

    stage = "report"
    datasets: dict[str, DatasetTask]

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        datasets = {
            name: DatasetTask(
                task=d.task,
                models=compared(config, name),
                labelled=d.labelled,
                compared=tuple(d.compare),
            )
            for name, d in config.datasets.items()
        }
        return cls.made(datasets=datasets)


# By the stage that is named in an output's record.
SETTINGS: dict[str, type[Settings]] = {
    kind.stage: kind
    for kind in (
        SynthesizeSettings, ManifestSettings, SplitsSettings, CheckSettings, PrepareSettings,
        JoinSettings, PrepareAppliedSettings, TrainSettings, ChooseSettings, PredictSettings,
        StitchSettings, EvaluateSettings, DetailsSettings, CompareSettings, AuditSettings,
        QualitySettings, ReportSettings,
    )
}  # fmt: skip
