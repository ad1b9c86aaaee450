"""The run's configuration: typed, frozen, validated once. Loads neither torch nor dask.

Always make it with :func:`unet.config.load.load`, which returns a :class:`Config` or raises
:class:`unet.errors.UserError` with one line per mistake. :mod:`unet.config.stage_settings` makes
each stage's settings (which Snakemake tracks in ``params``) from this object, never from the raw
mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator

from unet.config.heads import HEADS
from unet.config.presets import AnyArchitecture, architecture_of
from unet.config.recipes import RECIPES, expanded
from unet.config.section_base import Shown, Size
from unet.config.sections import (
    DatasetSection,
    EvaluateSection,
    ExportSection,
    ModelSection,
    PredictSection,
    PrepareSection,
    ReportSection,
    Section,
    StitchSection,
    TrainSection,
)
from unet.config.start_keys import START_LR
from unet.config.swept_names import members
from unet.paths import COMPARED, ENSEMBLE, NAME, Origin, origin_of

S = TypeVar("S", bound=Section)
# Folder names that the pipeline itself uses next to the datasets, or next to a dataset's models.
RESERVED_NAMES = frozenset({"logs", "benchmarks", "checkpoints", "raw", COMPARED})
# Ends the name of a model that shows the start of another one (unet.config.start_models).
START_SUFFIX = "-start"


class Config(Section):
    """A run: which datasets, which models, and what each stage does with them."""

    output: Annotated[
        Annotated[str, Field(min_length=1)], Shown("folder", reruns="all, in the new folder")
    ] = "results"
    """Folder for all results. It must not contain braces or start with `-`. Another folder is
    another run: nothing is shared."""
    data_root: Annotated[
        str,
        Shown("folder", "empty (the working directory)", "- (files are compared by content)"),
    ] = ""
    """Folder that relative paths of datasets start from. `~` and `$VARIABLES` are expanded."""
    seed: Annotated[
        Annotated[int, Field(ge=0, lt=2**31)],
        Shown(reruns="splits (generated data: synthesize)"),
    ] = 0
    """Seed of generated images, splits, weights, patches, augmentation and the random sign flips of
    tests. Change it to see how much depends on chance."""
    strict: Annotated[bool, Shown(reruns="manifest")] = False
    """true: the first unusable file stops the run. false: such a file is left out and listed with
    its reason."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Shown(reruns="train")] = "auto"
    """Where networks run. auto uses a GPU if there is one. Leave it at auto when machines
    differ."""
    memory_gb: Annotated[Size, Shown(reruns="- (models of preset auto: train)")] = 4.0
    """Memory for pixels that a job may use, in GB (10^9 bytes). Lower it on a small machine. On a
    CPU, preset auto chooses what fits in it."""
    datasets: dict[str, DatasetSection]
    """The datasets, by name. A name is a folder."""
    prepare: PrepareSection = PrepareSection()
    """How images are stored for training and prediction."""
    models: dict[str, ModelSection]
    """The models, by name. A name is a folder."""
    train: TrainSection = TrainSection()
    """How models are trained."""
    predict: PredictSection = PredictSection()
    """How trained models are applied."""
    stitch: StitchSection = StitchSection()
    """How tiles become whole images and objects."""
    evaluate: EvaluateSection = EvaluateSection()
    """How results are compared with the labels."""
    report: ReportSection = ReportSection()
    """How the results of all models are shown."""
    export: ExportSection = ExportSection()
    """How models are written as packages for other programs: docs/export.md."""

    @field_validator("output")
    @classmethod
    def _folder(cls, value: str) -> str:
        # Braces are wildcards for Snakemake, and a path with a leading dash looks like an option.
        if value.startswith("-") or set(value) & set("{}") or not value.isprintable():
            raise ValueError(
                f"got {value!r}; write a folder without braces that does not start with '-'"
            )
        return value

    @field_validator("datasets", "models")
    @classmethod
    def _names(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise ValueError("at least one is needed")
        for name in value:
            if not NAME.fullmatch(name) or name in RESERVED_NAMES:
                raise ValueError(
                    f"name {name!r} is not usable as a folder: write letters, digits, '_' and '-' "
                    f"(at most 64, not {', '.join(sorted(RESERVED_NAMES))})"
                )
        return value

    @property
    def joining(self) -> tuple[str, ...]:
        """The datasets that join others, sorted."""
        return tuple(d for d in sorted(self.datasets) if self.datasets[d].join is not None)

    @property
    def with_files(self) -> tuple[str, ...]:
        """All other datasets, which have files of their own, sorted."""
        return tuple(d for d in sorted(self.datasets) if self.datasets[d].join is None)

    # Sections merged with the overrides of a dataset and of a model (the model's win).
    def prepare_for(self, dataset: str) -> PrepareSection:
        return overlaid(self.prepare, self.datasets[dataset].prepare)

    def train_for(self, dataset: str, model: str) -> TrainSection:
        over = (self.datasets[dataset].train, self.models[model].train)
        merged = overlaid(self.train, *(expanded(o) for o in over))
        if merged.start is None or self.lr_is_written(dataset, model):
            return merged
        # Rounded: 0.1 * 0.001 is not 0.0001.
        return merged.model_copy(update={"lr": float(f"{START_LR * merged.lr:.12g}")})

    def train_value(self, dataset: str, model: str, key: str) -> Any:
        """A key of train, also in a config whose overrides are not checked yet."""
        for over in (self.models[model].train, self.datasets[dataset].train):
            values = expanded(over)
            if isinstance(values, Mapping) and key in values:
                return values[key]
        return getattr(self.train, key)

    def start_for(self, dataset: str, model: str) -> str | None:
        """What a training starts from (``train.from``); None: random weights."""
        value = self.train_value(dataset, model, "from")
        return value if isinstance(value, str) else None

    def shown_model(self, name: str) -> str | None:
        """The model whose start the model of this name shows (:mod:`unet.config.start_models`);
        None for other models."""
        base, section = name.removesuffix(START_SUFFIX), self.models.get(name)
        if section is None or base == name or base not in self.models:
            return None
        train = section.train
        return base if isinstance(train, Mapping) and train.get("epochs") == 0 else None

    def lr_is_written(self, dataset: str, model: str) -> bool:
        """Whether the learning rate is the user's own, not the default or that of a recipe."""
        for over in (self.models[model].train, self.datasets[dataset].train):
            if isinstance(over, Mapping) and "lr" in over:
                return True
            if isinstance(over, str) or over.get("recipe") is not None:
                return False
        # A section that was read contains the recipe's values.
        of_recipe = RECIPES[self.train.recipe].get("lr") if self.train.recipe else None
        return "lr" in self.train.model_fields_set and self.train.lr != of_recipe

    def train_given(self, dataset: str, model: str) -> set[str]:
        """Keys of train that are set anywhere, by the user or by a recipe."""
        over = (self.datasets[dataset].train, self.models[model].train)
        return set(self.train.model_fields_set).union(*(expanded(o) for o in over))

    def predict_for(self, dataset: str, model: str) -> PredictSection:
        return overlaid(self.predict, *self._overrides("predict", dataset, model))

    def stitch_for(self, dataset: str, model: str) -> StitchSection:
        over = self._overrides("stitch", dataset, model)
        if origin_of(model) is not None:
            # What is written into the files of one dataset says nothing about those of another.
            over[0] = {name: value for name, value in over[0].items() if name != "write_back"}
        return overlaid(self.stitch, *over)

    def _overrides(self, section: str, dataset: str, model: str) -> list[dict[str, Any]]:
        """The overrides of a section, in the order in which they are applied. For a model of
        another dataset, those of the dataset that it was trained on come first."""
        origin = origin_of(model)
        datasets = [dataset] if origin is None else [origin.dataset, dataset]
        over = [self.datasets[name] for name in datasets]
        return [getattr(member, section) for member in (*over, self.model_section(model))]

    def model_section(self, model: str) -> ModelSection:
        """The section of a model; also takes names such as ``<model>@<dataset>``."""
        origin = origin_of(model)
        return self.models[model if origin is None else origin.model]

    def evaluate_for(self, dataset: str) -> EvaluateSection:
        return overlaid(self.evaluate, self.datasets[dataset].evaluate)

    def export_for(self, dataset: str, model: str) -> ExportSection:
        return overlaid(self.export, *self._overrides("export", dataset, model))

    def models_for(self, dataset: str) -> tuple[str, ...]:
        """The models that predict a dataset: those trained on it, or those applied to it."""
        applied = self.origins_for(dataset)
        if applied:
            return tuple(origin.name for origin in applied)
        chosen = self.datasets[dataset].models
        named = self._models_with(dataset) if chosen is None else chosen
        tried = {member for model in named for member in self.members_of(model)}
        return tuple(model for model in named if model not in tried) if tried else named

    def _models_with(self, dataset: str) -> tuple[str, ...]:
        """All models of the config, without those that show a start which isn't one here."""
        return tuple(
            name
            for name in sorted(self.models)
            if self.shown_model(name) is None or self.start_for(dataset, name) is not None
        )

    def scored_for(self, dataset: str) -> tuple[str, ...]:
        """The models of a dataset, then the tools whose masks are compared with them."""
        return (*self.models_for(dataset), *self.datasets[dataset].compare)

    def members_of(self, model: str) -> dict[str, dict[str, Any]]:
        """The models that a model is chosen from, with their values; none without a sweep."""
        section = self.models.get(model)
        return members(model, section.sweep) if section is not None and section.sweep else {}

    def trained_for(self, dataset: str) -> tuple[str, ...]:
        """The models that are trained on a dataset: in place of one with a sweep, those that it is
        chosen from. None for a dataset that models of others predict."""
        if self.origins_for(dataset):
            return ()
        named = self.models_for(dataset)
        return tuple(each for model in named for each in self.members_of(model) or (model,))

    def origins_for(self, dataset: str) -> tuple[Origin, ...]:
        """The models of other datasets that predict a dataset; none if it trains its own."""
        named = self.datasets[dataset].predict_with or ()
        return tuple(Origin(text.partition("/")[2], text.partition("/")[0]) for text in named)

    def folds_for(self, dataset: str) -> tuple[int, ...]:
        """The folds that are trained; none for a dataset that models of others predict."""
        return () if self.origins_for(dataset) else self.datasets[dataset].split.to_run

    def tested_for(self, dataset: str) -> tuple[int, ...]:
        """The folds that are predicted and evaluated: the trained ones, or an ensemble."""
        if self.origins_for(dataset):
            return (ENSEMBLE,)
        return self.datasets[dataset].split.tested

    def head_for(self, dataset: str, model: str) -> tuple[str, ...]:
        """Names of the network's output classes, in the order of its channels."""
        origin = origin_of(model)
        trained = dataset if origin is None else origin.dataset
        return HEADS[self.model_section(model).head].names(self.datasets[trained].class_names)

    def architecture_for(self, model: str) -> AnyArchitecture | None:
        """The network's layers; None if training chooses them (preset auto)."""
        section = self.models[model]
        return (
            None if section.preset == "auto" else architecture_of(section.preset, **section.layers)
        )

    def architectures_for(self, model: str) -> list[AnyArchitecture | None]:
        """The networks that a model may have: with a sweep, those that it is chosen from. Also
        takes names such as ``<model>@<dataset>``."""
        name = model.partition("@")[0]
        return [self.architecture_for(each) for each in self.members_of(name) or (name,)]


def overlaid(base: S, *overrides: Mapping[str, Any]) -> S:
    """The section merged with partial mappings, one after the other, and validated again."""
    if not any(overrides):
        return base  # fast, because planning calls this for each of thousands of jobs
    merged = base.model_dump()
    for override in overrides:
        merged = merge(merged, override)
    return type(base).model_validate(merged)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merges ``over`` into ``base``: mappings are merged deeply, other values are replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged
