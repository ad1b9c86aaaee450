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
from unet.models.geometry import footprint
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
        return _overlaid(self.prepare, self.datasets[dataset].prepare)

    def train_for(self, dataset: str, model: str) -> TrainSection:
        return _overlaid(self.train, self.datasets[dataset].train, self.models[model].train)

    def predict_for(self, dataset: str, model: str) -> PredictSection:
        return _overlaid(self.predict, self.datasets[dataset].predict, self.models[model].predict)

    def stitch_for(self, dataset: str, model: str) -> StitchSection:
        return _overlaid(self.stitch, self.datasets[dataset].stitch, self.models[model].stitch)

    def evaluate_for(self, dataset: str) -> EvaluateSection:
        return _overlaid(self.evaluate, self.datasets[dataset].evaluate)

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


def _overlaid(base: S, *overrides: Mapping[str, Any]) -> S:
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


# Sections that a dataset or a model may override.
_OVERRIDES = ("prepare", "train", "predict", "stitch", "evaluate")


# pydantic's words where they speak of Python rather than of the file.
_WORDS = {
    "model_type": "must hold keys of its own",
    "dict_type": "must hold keys of its own",
    "tuple_type": "must be a list, such as [a, b]",
    "extra_forbidden": "unknown key; see config/README.md for the keys that there are",
    "missing": "this key is needed",
    "too_short": "must name at least one",
    "string_too_short": "must not be empty",
}


def _located(loc: tuple[int | str, ...], raw: Any) -> tuple[tuple[str, ...], Any]:
    """The key that a mistake belongs to and its value, without the names that pydantic gives to
    the alternatives of a key (a number or ``auto``)."""
    key: list[str] = []
    for depth, part in enumerate(loc):
        last = depth == len(loc) - 1
        if isinstance(raw, Mapping) and (part in raw or (last and raw is not None)):
            if part not in raw and str(part).startswith(("[", "tuple", "literal", "constrained")):
                break
            key.append(str(part))
            raw = raw.get(part)
        elif isinstance(raw, list | tuple) and isinstance(part, int) and part < len(raw):
            key.append(str(part))
            raw = raw[part]
        else:
            break
    return tuple(key), raw


def _lines(error: ValidationError, raw: Any, prefix: tuple[str, ...] = ()) -> list[str]:
    """One line per mistake: the key, what is wrong, the value that was found.

    Args:
        raw: the mapping that was validated.
        prefix: key of that mapping in the config.
    """
    found: dict[str, tuple[list[str], str]] = {}
    items = error.errors(include_url=False)
    for item in items:
        if item["type"] == "too_short" and len(items) > 1 and item["input"]:
            continue  # what is in the list is wrong, not that there is too little
        where, value = _located(item["loc"], raw)
        message = _WORDS.get(item["type"], item["msg"]).removeprefix("Value error, ")
        message = message.replace("Input should ", "must ").split(", unable to ")[0]
        plain = item["type"] in ("extra_forbidden", "missing", "value_error")
        key = ".".join([*prefix, *where]) or "config"
        messages, _ = found.setdefault(key, ([], "" if plain else f" (got {value!r})"))
        # A second message for the same key is of another alternative.
        messages.append(message.removeprefix("must be ") if messages else message)
    return [f"config: {key}: {' or '.join(texts)}{got}" for key, (texts, got) in found.items()]


def _override_mistakes(config: Config) -> list[str]:
    """Checks each override alone, so that its mistake carries its own key."""
    lines: list[str] = []
    for group, members in (("datasets", config.datasets), ("models", config.models)):
        for name, member in members.items():
            for key in _OVERRIDES:
                override = getattr(member, key, None)
                if not override:
                    continue
                base = getattr(config, key)
                try:
                    _overlaid(base, override)
                except ValidationError as error:
                    merged = merge(base.model_dump(), override)
                    lines += _lines(error, merged, (group, name, key))
    return lines


def _is_sheet(images: str | None) -> bool:
    """Whether ``images`` names a sheet, which has a column for the labels."""
    return images is not None and images.lower().endswith(".csv")


def _dataset_mistakes(config: Config) -> list[str]:
    lines: list[str] = []
    for name, data in config.datasets.items():
        key = f"config: datasets.{name}"
        if data.models is not None and len(set(data.models)) != len(data.models):
            lines.append(f"{key}.models: got {list(data.models)}; name each model once")
        for model in data.models or ():
            if model not in config.models:
                known = ", ".join(sorted(config.models))
                lines.append(f"{key}.models: no model {model!r}; there are: {known}")
        by_name = data.layout in ("folders", "stack") and not _is_sheet(data.images)
        if data.labels is None and data.synthetic is None and by_name:
            lines.append(f"{key}.labels: this key is needed to train (a path or glob)")
        if data.synthetic is not None:
            # In each fold at least one image trains, one validates and one tests.
            folds, images = data.split.folds, data.synthetic.images
            least = 3 if folds is None else max(folds, 4 if folds == 2 else 3)
            if images < least:
                lines.append(
                    f"{key}.split.folds: {folds} folds need at least {least} images, "
                    f"datasets.{name}.synthetic.images is {images}"
                )
        wanted = config.evaluate_for(name)
        if wanted.topology_class is not None and wanted.topology_class not in data.class_names:
            lines.append(
                f"{key}: evaluate.topology_class: no class {wanted.topology_class!r}; there are: "
                f"{', '.join(data.class_names)}"
            )
    return lines


def _pair_mistakes(config: Config, dataset: str, model: str) -> list[str]:
    """Checks that need a dataset and a model together: sizes against the network, heads."""
    lines: list[str] = []
    where = f"(dataset {dataset}, model {model})"
    data, section = config.datasets[dataset], config.models[model]
    fp = footprint(config.architecture_for(model))
    train, predict = config.train_for(dataset, model), config.predict_for(dataset, model)
    if not fp.accepts(train.patch):
        near = sorted({fp.fit_below(train.patch), fp.fit(train.patch)})
        lines.append(
            f"config: train.patch: {train.patch} does not fit the network {where}; the nearest "
            f"accepted sizes are {' and '.join(map(str, near))}"
        )
    least = fp.smallest + fp.grid if fp.margin else 2 * fp.halo + fp.grid
    if predict.tile < least:
        lines.append(
            f"config: predict.tile: {predict.tile} is too small for depth "
            f"{config.architecture_for(model).depth} with its halo of {fp.halo or fp.margin} px "
            f"{where}; at least {least} is needed"
        )
    if section.head == "border" and data.task != "instances":
        lines.append(
            f"config: models.{model}.head: border needs instance labels, but dataset {dataset} "
            "has task semantic; write head: classes"
        )
    if train.loss == "border-ce" and data.task != "instances" and train.w0 == 0:
        lines.append(f"config: train.w0: 0 makes border-ce plain ce {where}; write loss: ce")
    weights = train.class_weights
    if train.loss == "weighted-ce" and weights is None:
        lines.append(
            f"config: train.class_weights: loss weighted-ce needs them {where}; write auto, or a "
            f"weight for each of {', '.join(config.head_for(dataset, model))}"
        )
    if train.loss in ("ce", "dice", "border-ce") and weights is not None:
        lines.append(
            f"config: train.class_weights: loss {train.loss} takes none {where}; leave them out, "
            "or write loss: weighted-ce or ce-dice"
        )
    if isinstance(weights, tuple) and len(weights) != len(config.head_for(dataset, model)):
        lines.append(
            f"config: train.class_weights: got {len(weights)} weights {where}; the classes are "
            f"{', '.join(config.head_for(dataset, model))}"
        )
    stitch = config.stitch_for(dataset, model)
    if stitch.method == "grow" and section.head != "border":
        lines.append(
            f"config: stitch.method: grow needs a model with head: border {where}; write components"
        )
    return lines


def mistakes(config: Config) -> list[str]:
    """Every cross-field mistake, one line each; empty when the config is sound."""
    lines = _override_mistakes(config)
    if lines:
        return lines
    lines = _dataset_mistakes(config)
    if lines:
        return lines
    for dataset in config.datasets:
        for model in config.models_for(dataset):
            lines += _pair_mistakes(config, dataset, model)
    return list(dict.fromkeys(lines))


def load(raw: Mapping[str, Any]) -> Config:
    """Validates a raw mapping.

    Raises:
        UserError: with one line per mistake: the key, what was found, what is allowed.
    """
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise UserError("\n".join(_lines(error, dict(raw)))) from None
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
