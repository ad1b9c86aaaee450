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
    DownloadSettings,
    ManifestSettings,
    PrepareAppliedSettings,
    PrepareSettings,
    SplitsSettings,
    SynthesizeSettings,
    Task,
    networks_of,
)
from unet.config.details_settings import DetailsSettings
from unet.config.export_settings import ExportSettings
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
from unet.config.start_keys import START_FILE, is_start_file
from unet.config.start_models import starts_of
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
        encoder_weights: sha256 of the file with the encoder's weights; "" without such a file.
        fingerprint: identifies the content of the file that the training starts from; "" if it
            starts from none, or from a model of the run.
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
    encoder_weights: str = ""
    fingerprint: str = ""
    balance: tuple[tuple[str, float], ...] = ()

    @property
    def untracked(self) -> frozenset[str]:
        # Checkpoint interval, cache, GPUs and compiling change no weights; the recipe's values are
        # in the other keys.
        return frozenset(
            {"checkpoint_seconds", "cache_gb", "gpus", "compile", "recipe", "show_start"}
        )

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        section, arch = config.models[model], config.architecture_for(model)
        if section.sweep:
            raise UserError(
                f"config: models.{model}: has a sweep, so it is chosen (scripts/choose.py) among "
                f"the models {', '.join(config.members_of(model))}; train one of these"
            )
        given = sorted(config.train_given(dataset, model) & {"patch", "batch"})
        train = inactive.reset_train(config.train_for(dataset, model), section.head)
        # With a start, preset auto takes the start's network and chooses nothing.
        auto = arch is None and train.start is None
        if is_start_file(train.start):
            train = train.model_copy(update={"from": START_FILE})
        return cls.filled(
            config,
            dataset,
            architecture=None if arch is None else inactive.reset_architecture(arch),
            memory_gb=config.memory_gb if auto else None,
            given=given if auto else None,
            anisotropic=section.anisotropic and section.kernels is None and section.pools is None,
            head=section.head,
            border_width=inactive.border_width(section),
            head_names=config.head_for(dataset, model),
            train=train,
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
        starts: model -> the model that shows its start; both are in ``models``.
        validated_by: of the split, if there are sweeps.
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
    starts: dict[str, str] = Field(default_factory=dict)
    validated_by: Literal["", "val", "folds", "sheet"] = ""
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
        own: dict[str, Any] = {
            "folds": config.folds_for(dataset),
            "tested": others,
            "applied": applied,
        }
        own["compared"] = tuple(config.datasets[dataset].compare)
        curves, starts = curves_of(config, dataset), starts_of(config, dataset)
        sweeps = {name: tuple(made) for name, made in sweeps_of(config, dataset).items()}
        own["validated_by"] = config.datasets[dataset].split.validated_by if sweeps else ""
        joined = {
            name: tuple(model for model in compared(config, name) if model in models)
            for name in config.datasets[dataset].weights
        }
        made = {"curves": curves, "sweeps": sweeps, "starts": starts, "joined": joined}
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
                models=_without_starts(config, name),
                labelled=d.labelled,
                compared=tuple(d.compare),
            )
            for name, d in config.datasets.items()
        }
        return cls.made(datasets=datasets)


def _without_starts(config: Config, dataset: str) -> tuple[str, ...]:
    """The models to compare over all datasets: a start is compared only with its own result."""
    starts = starts_of(config, dataset).values()
    return tuple(model for model in compared(config, dataset) if model not in starts)


# By the stage that is named in an output's record.
SETTINGS: dict[str, type[Settings]] = {
    kind.stage: kind
    for kind in (
        SynthesizeSettings, DownloadSettings, ManifestSettings, SplitsSettings, CheckSettings,
        PrepareSettings,
        JoinSettings, PrepareAppliedSettings, TrainSettings, ChooseSettings, PredictSettings,
        StitchSettings, EvaluateSettings, DetailsSettings, CompareSettings, AuditSettings,
        QualitySettings, ReportSettings, ExportSettings,
    )
}  # fmt: skip
