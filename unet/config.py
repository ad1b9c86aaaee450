"""The run's configuration: typed, frozen, validated once. Imports neither torch nor dask.

``load(...)`` is the only way in: it returns a :class:`Config` or raises
:class:`unet.errors.UserError` with one line per mistake. Each stage's *slice* (what Snakemake
tracks in ``params``) is made by :mod:`unet.slices` from this object, never from the raw mapping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from unet.errors import UserError
from unet.models.presets import Architecture, architecture_of

S = TypeVar("S", bound="Section")
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[float, Field(gt=0)]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Folder names that the pipeline itself uses beside the datasets, and beside a dataset's models.
RESERVED_NAMES = frozenset({"logs", "benchmarks", "checkpoints", "raw"})
IGNORE = 255


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values cannot change after the load."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SyntheticSection(Section):
    kind: Literal["membranes", "nuclei", "phase"]
    images: Annotated[int, Field(ge=3, le=10_000)] = 12
    size: Annotated[int, Field(ge=64, le=8192)] = 256
    pixel_size_um: Annotated[float, Field(gt=0)] = 0.5


class SplitSection(Section):
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    test: Share | None = None
    column: str | None = None
    group: str | None = None
    val: Share = 0.2
    run: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> SplitSection:
        given = [k for k in ("folds", "test", "column") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of folds, test, column (got {', '.join(given)})")
        if self.run is not None:
            bad = [k for k in self.run if k >= self.number]
            if bad or not self.run:
                raise ValueError(
                    f"run: got {list(self.run)}; allowed are folds 0 to {self.number - 1}"
                )
            if len(set(self.run)) != len(self.run):
                raise ValueError(f"run: got {list(self.run)}; name each fold once")
        return self

    @property
    def number(self) -> int:
        """How many folds the split has (1 for a single held-out set)."""
        return self.folds or 1

    @property
    def to_run(self) -> tuple[int, ...]:
        return tuple(range(self.number)) if self.run is None else tuple(sorted(self.run))


class NormalizeSection(Section):
    method: Literal["percentile", "zscore", "minmax", "none"] = "percentile"
    low: Annotated[float, Field(ge=0, le=100)] = 1.0
    high: Annotated[float, Field(ge=0, le=100)] = 99.8
    scope: Literal["image", "dataset"] = "image"

    @model_validator(mode="after")
    def _ordered(self) -> NormalizeSection:
        if self.low >= self.high:
            raise ValueError(f"low must be below high (got low {self.low}, high {self.high})")
        return self


class PrepareSection(Section):
    normalize: NormalizeSection = NormalizeSection()
    tile: Annotated[int, Field(ge=32, le=8192)] = 512
    shard: Annotated[int, Field(ge=1, le=64)] = 4


class AugmentSection(Section):
    flip: bool = True
    rotate90: bool = True
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 180.0
    scale: Annotated[float, Field(ge=0, lt=0.9)] = 0.2
    elastic_px: Annotated[float, Field(ge=0, le=100)] = 5.0
    elastic_grid: Annotated[int, Field(ge=2, le=32)] = 3
    geometric_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    gamma: Annotated[float, Field(ge=0, le=5)] = 0.3
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.25
    brightness: Annotated[float, Field(ge=0, le=5)] = 0.2
    noise: Annotated[float, Field(ge=0, le=5)] = 0.1
    blur_px: Annotated[float, Field(ge=0, le=20)] = 1.0
    intensity_probability: Annotated[float, Field(ge=0, le=1)] = 0.3


Loss = Literal["ce", "weighted-ce", "border-ce", "dice", "ce-dice"]
Precision = Literal["auto", "float32", "bfloat16"]


class TrainSection(Section):
    patch: Annotated[int, Field(ge=16, le=4096)] = 256
    batch: Positive = 8
    epochs: Positive = 50
    steps_per_epoch: Positive = 100
    loss: Loss = "ce-dice"
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] | Literal["auto"] | None = None
    w0: Annotated[float, Field(ge=0)] = 10.0
    sigma: Annotated[float, Field(gt=0)] = 5.0
    cells: str | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["constant", "poly", "cosine"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = 12.0
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.33
    augment: AugmentSection = AugmentSection()
    precision: Precision = "auto"
    validate_every: Positive = 1
    patience: Positive | None = None
    checkpoint_seconds: Annotated[float, Field(gt=0, le=60)] = 30.0
    cache_gb: Annotated[float, Field(ge=0)] = 4.0


class PredictSection(Section):
    tile: Annotated[int, Field(ge=32, le=16384)] = 1024
    batch: Positive | Literal["auto"] = "auto"
    precision: Precision = "auto"
    dtype: Literal["float16", "float32"] = "float16"
    tta: bool = False


class StitchSection(Section):
    threshold: Share | Literal["auto"] = 0.5
    method: Literal["components", "grow"] = "components"
    grow_px: Annotated[int, Field(ge=0, le=512)] = 8
    connectivity: Literal["face", "full"] = "face"
    min_size: Annotated[int, Field(ge=0)] = 16
    fill_holes: Annotated[int, Field(ge=0)] = 64
    tiff: bool = True
    pyramid: Annotated[int, Field(ge=1, le=10)] = 3


class EvaluateSection(Section):
    metrics: Annotated[
        tuple[Literal["pixel", "instance", "topology"], ...], Field(min_length=1)
    ] = ("pixel", "instance")
    topology_class: str | None = None
    boundary: Literal["thinned", "as-is"] = "thinned"


class ReportSection(Section):
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 2000
    overlays: Annotated[int, Field(ge=0, le=20)] = 3


class DatasetSection(Section):
    images: str | None = None
    labels: str | None = None
    synthetic: SyntheticSection | None = None
    layout: Literal["folders", "stack", "dsb2018", "ctc", "nnunet", "ome-zarr"] = "folders"
    task: Literal["semantic", "instances"] = "semantic"
    classes: dict[str, int] | None = None
    ignore: int | None = None
    axes: str | None = None
    pixel_size_um: Size | tuple[Size, ...] | None = None
    channels: Annotated[tuple[int | str, ...], Field(min_length=1)] | None = None
    split: SplitSection = SplitSection(test=0.25)
    models: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    prepare: dict[str, Any] = {}
    train: dict[str, Any] = {}
    predict: dict[str, Any] = {}
    stitch: dict[str, Any] = {}
    evaluate: dict[str, Any] = {}

    @field_validator("axes")
    @classmethod
    def _axes_known(cls, value: str | None) -> str | None:
        if value is None:
            return value
        letters = value.upper()
        if sorted(set(letters)) != sorted(letters) or set(letters) - set("SCZYX"):
            raise ValueError(
                f"got {value!r}; write each of Y, X and, where there, C (channel), Z (depth) or S "
                "(separate images) once, in the order of the file, such as CYX"
            )
        if not {"Y", "X"} <= set(letters):
            raise ValueError(f"got {value!r}; Y and X must be among the axes, such as YX")
        return letters

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSection:
        if (self.images is None) == (self.synthetic is None):
            raise ValueError("give either images (a path or glob) or synthetic (generated images)")
        if self.synthetic is not None and self.labels is not None:
            raise ValueError("labels: generated images bring their own labels; drop this key")
        if self.task == "semantic" and not self.classes:
            raise ValueError(
                "classes: needed for task semantic; name each class and its label value, such as "
                "{background: 0, cell: 255}"
            )
        if self.task == "instances" and self.classes is not None:
            raise ValueError(
                "classes: task instances reads instance ids (0 = background); drop this key or "
                "write task: semantic"
            )
        if self.classes is not None:
            if len(self.classes) < 2:
                raise ValueError(f"classes: got {len(self.classes)}; at least two are needed")
            if len(self.classes) > 200:
                raise ValueError(f"classes: got {len(self.classes)}; at most 200 are possible")
            if len(set(self.classes.values())) != len(self.classes):
                raise ValueError("classes: two classes have the same label value")
            if self.ignore in self.classes.values():
                raise ValueError(f"ignore: value {self.ignore} is also the value of a class")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the class index (the order in which the config gives them)."""
        return tuple(self.classes) if self.classes else ("background", "foreground")


class ModelSection(Section):
    preset: Literal["unet2015", "unet-bn"]
    width: Annotated[int, Field(ge=1, le=1024)] | None = None
    depth: Annotated[int, Field(ge=1, le=8)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    head: Literal["classes", "border"] = "classes"
    border_width: Annotated[int, Field(ge=1, le=32)] = 2
    train: dict[str, Any] = {}
    predict: dict[str, Any] = {}
    stitch: dict[str, Any] = {}


class Config(Section):
    output: Annotated[str, Field(min_length=1)] = "results"
    data_root: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    strict: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory_gb: Annotated[float, Field(gt=0)] = 4.0
    datasets: dict[str, DatasetSection]
    prepare: PrepareSection = PrepareSection()
    models: dict[str, ModelSection]
    train: TrainSection = TrainSection()
    predict: PredictSection = PredictSection()
    stitch: StitchSection = StitchSection()
    evaluate: EvaluateSection = EvaluateSection()
    report: ReportSection = ReportSection()

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

    # Sections with the overrides of a dataset and of a model laid over them (the model's win).
    def prepare_for(self, dataset: str) -> PrepareSection:
        return overlaid(self.prepare, self.datasets[dataset].prepare)

    def train_for(self, dataset: str, model: str) -> TrainSection:
        return overlaid(self.train, self.datasets[dataset].train, self.models[model].train)

    def predict_for(self, dataset: str, model: str) -> PredictSection:
        return overlaid(self.predict, self.datasets[dataset].predict, self.models[model].predict)

    def stitch_for(self, dataset: str, model: str) -> StitchSection:
        return overlaid(self.stitch, self.datasets[dataset].stitch, self.models[model].stitch)

    def evaluate_for(self, dataset: str) -> EvaluateSection:
        return overlaid(self.evaluate, self.datasets[dataset].evaluate)

    def models_for(self, dataset: str) -> tuple[str, ...]:
        chosen = self.datasets[dataset].models
        return tuple(sorted(self.models)) if chosen is None else chosen

    def head_for(self, dataset: str, model: str) -> tuple[str, ...]:
        """Names of the network's output classes, in the order of its channels."""
        if self.models[model].head == "border":
            return ("background", "inside", "border")
        return self.datasets[dataset].class_names

    def architecture_for(self, model: str) -> Architecture:
        section = self.models[model]
        return architecture_of(
            section.preset, width=section.width, depth=section.depth, dropout=section.dropout
        )


def overlaid(base: S, *overrides: Mapping[str, Any]) -> S:
    """The section with partial mappings laid over it, in their order; validated anew."""
    merged = base.model_dump()
    for override in overrides:
        merged = merge(merged, override)
    return type(base).model_validate(merged)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid over ``base``: mappings merge deeply, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def load(raw: Mapping[str, Any]) -> Config:
    """Validates a raw mapping.

    Raises:
        UserError: with one line per mistake: the key, what was found, what is allowed.
    """
    # Here, since the checks need this module's classes.
    from unet.checks import lines_of, mistakes

    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise UserError("\n".join(lines_of(error, dict(raw)))) from None
    lines = mistakes(config)
    if lines:
        raise UserError("\n".join(lines))
    return config


def load_file(path: Path) -> Config:
    """Reads and validates a YAML file (``yaml.safe_load``).

    Raises:
        UserError: the file is missing, is not YAML, or does not hold a valid config.
    """
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a YAML file") from None
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML: {where}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds no keys; see config/config.yaml for an example")
    return load(raw)
