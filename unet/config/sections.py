"""The sections of the config: each key with its type, range and default. Torch- and dask-free.

:mod:`unet.config.run` puts them together, and holds them against each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from unet.config.loss_table import LOSS_NAMES
from unet.config.presets import PerLevel, architecture_of
from unet.config.recipes import RECIPES, expanded
from unet.errors import meant
from unet.files import is_sheet
from unet.paths import ENSEMBLE

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[float, Field(gt=0)]


def sections_of(annotation: Any) -> list[type[Section]]:
    """The sections that a key may hold, also in a mapping of them."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in sections_of(part)]


def _named_type(annotation: Any) -> Any:
    """The type of the values of a key that holds names; None of another key."""
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is dict:
            return get_args(kind)[1]
    return None


def _takes_null(annotation: Any) -> bool:
    return annotation is Any or type(None) in get_args(annotation)


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values cannot change after the load."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        """``null`` unsets a key, and a dataset, model or class that has the name; but not where it
        is one of the key's values (``clip_norm: null``)."""
        if not isinstance(value, Mapping):
            return value
        kept = dict(value)
        for key, field in cls.model_fields.items():
            inner, given = _named_type(field.annotation), kept.get(key)
            if key in kept and given is None and not _takes_null(field.annotation):
                del kept[key]
            elif isinstance(given, Mapping) and inner is not None and not _takes_null(inner):
                kept[key] = {name: part for name, part in given.items() if part is not None}
        return kept


class SyntheticSection(Section):
    kind: Literal["membranes", "nuclei", "nuclei3d", "phase"]
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
    redraw: Annotated[int, Field(ge=0)] = 0

    @field_validator("group")
    @classmethod
    def _group_readable(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression ({error})") from None
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> SplitSection:
        given = [k for k in ("folds", "test", "column") if getattr(self, k) is not None]
        if len(given) > 1 and given != ["folds", "test"]:
            raise ValueError(
                f"give one of folds, test, column, or folds and test (got {', '.join(given)})"
            )
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
    def ensemble(self) -> bool:
        """Whether the folds share their test images, which all their networks predict together."""
        return self.folds is not None and self.test is not None

    @property
    def to_run(self) -> tuple[int, ...]:
        """The folds that are trained."""
        return tuple(range(self.number)) if self.run is None else tuple(sorted(self.run))

    @property
    def tested(self) -> tuple[int, ...]:
        """The folds that are predicted and evaluated."""
        return (ENSEMBLE,) if self.ensemble else self.to_run


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


Patch = Annotated[int, Field(ge=8, le=4096)]
PatchAxis = Annotated[int, Field(ge=1, le=4096)]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]


class TrainSection(Section):
    recipe: str | None = None
    # Along one axis it may be short: volumes can have few sections.
    patch: Patch | Annotated[tuple[PatchAxis, ...], Field(min_length=2, max_length=3)] = 256
    batch: Positive = 8
    accumulate: Positive = 1
    epochs: Positive = 50
    steps_per_epoch: Positive = 100
    loss: str = "ce-dice"
    loss_options: dict[str, float] = {}
    class_weights: tuple[Annotated[float, Field(ge=0)], ...] | Literal["auto"] | None = None
    w0: Annotated[float, Field(ge=0)] = 10.0
    sigma: Annotated[float, Field(gt=0)] = 5.0
    cells: str | None = None
    distance_px: Annotated[int, Field(ge=1, le=64)] = 8
    distance_weight: Annotated[float, Field(ge=0)] = 1.0
    optimizer: Literal["adamw", "sgd", "nesterov"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["constant", "poly", "cosine", "plateau"] = "cosine"
    plateau_patience: Positive = 5
    plateau_factor: Share = 0.5
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    freeze_norm: Share | None = None
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = 12.0
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.33
    augment: AugmentSection = AugmentSection()
    precision: Precision = "auto"
    validate_every: Positive = 1
    patience: Positive | None = None
    checkpoint_seconds: Annotated[float, Field(gt=0, le=60)] = 30.0
    cache_gb: Annotated[float, Field(ge=0)] = 4.0
    gpus: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, value: Any) -> Any:
        return expanded(value)

    @field_validator("recipe")
    @classmethod
    def _recipe_known(cls, value: str | None) -> str | None:
        if value is not None and value not in RECIPES:
            near = meant(value, RECIPES)
            raise ValueError(f"no recipe {value!r}; there are: {', '.join(RECIPES)}{near}")
        return value

    @field_validator("loss")
    @classmethod
    def _loss_known(cls, value: str) -> str:
        if value not in LOSS_NAMES:
            near = meant(value, LOSS_NAMES)
            raise ValueError(f"got {value!r}; write one of {', '.join(LOSS_NAMES)}{near}")
        return value


class SkipSection(Section):
    channel: Annotated[int, Field(ge=0)] = 0
    darker_than: float | None = None
    brighter_than: float | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.999
    fill: str | None = None

    @model_validator(mode="after")
    def _one_side(self) -> SkipSection:
        if (self.darker_than is None) == (self.brighter_than is None):
            raise ValueError(
                "give either darker_than or brighter_than, an intensity of the image files, such "
                "as {brighter_than: 230}"
            )
        return self


class ClusterSection(Section):
    address: str | None = None
    queue: Literal["slurm"] | None = None
    workers: Annotated[int, Field(ge=1, le=1000)] = 2
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    memory_gb: Annotated[float, Field(gt=0)] = 8.0
    hours: Annotated[float, Field(gt=0, le=1000)] = 4.0
    interface: str | None = None
    options: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_place(self) -> ClusterSection:
        if self.address is not None and self.queue is not None:
            raise ValueError("give either address (a scheduler that runs) or queue (starts jobs)")
        return self


class PredictSection(Section):
    tile: (
        Literal["auto"]
        | Annotated[int, Field(ge=8, le=16384)]
        | Annotated[
            tuple[Annotated[int, Field(ge=8, le=16384)], ...], Field(min_length=2, max_length=3)
        ]
    ) = "auto"
    batch: Positive | Literal["auto"] = "auto"
    precision: Precision = "auto"
    engine: Literal["torch", "openvino", "onnxruntime"] = "torch"
    dtype: Literal["float16", "float32"] = "float16"
    tta: bool = False
    gpus: Annotated[int, Field(ge=1, le=64)] = 1
    shards: Annotated[int, Field(ge=1, le=1000)] = 1
    cluster: ClusterSection | None = None
    blend: Literal["none", "gaussian"] = "none"
    overlap: Annotated[float, Field(ge=0, le=0.95)] = 0.5
    skip: SkipSection | None = None


class StitchSection(Section):
    threshold: Share | Literal["auto"] = 0.5
    method: Literal["components", "grow", "watershed"] = "components"
    grow_px: Annotated[int, Field(ge=0, le=512)] = 8
    watershed_h: Annotated[float, Field(gt=0, lt=1)] = 0.1
    connectivity: Literal["face", "full"] = "face"
    min_size: Annotated[int, Field(ge=0)] = 16
    fill_holes: Annotated[int, Field(ge=0)] = 64
    tiff: bool = True
    ome_zarr: Literal["0.5", "0.4"] = "0.5"
    pyramid: Annotated[int, Field(ge=1, le=10)] = 3
    label_pyramid: Literal["nearest", "mode"] = "nearest"
    geojson: bool = False
    rois: bool = False

    @field_validator("ome_zarr", mode="before")
    @classmethod
    def _version_as_text(cls, value: Any) -> Any:
        # In YAML 0.4 without quotes is a number.
        return str(value) if isinstance(value, float) else value


MetricFamily = Literal[
    "pixel", "instance", "objects", "rand", "boundary", "calibration", "topology", "isbi2012"
]


# Families whose threshold validation images choose.
CHOOSING = frozenset({"topology", "isbi2012"})


class EvaluateSection(Section):
    metrics: Annotated[tuple[MetricFamily, ...], Field(min_length=1)] = (
        "pixel", "instance", "objects", "rand", "boundary", "calibration",
    )  # fmt: skip
    topology_class: str | None = None
    boundary: Literal["thinned", "as-is"] = "thinned"
    boundary_tolerance: str = "2 px"

    @field_validator("boundary_tolerance")
    @classmethod
    def _distance_known(cls, value: str) -> str:
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(px|um)\s*", value)
        if match is None or not float(match[1]) > 0:
            raise ValueError(f"got {value!r}; write a distance above 0, such as 2 px or 0.5 um")
        return f"{float(match[1]):g} {match[2]}"


# Random sign flips of a test between models: up to so many.
MOST_FLIPS = 100_000


class ReportSection(Section):
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    bootstrap: Annotated[int, Field(ge=100, le=MOST_FLIPS)] = 2000
    overlays: Annotated[int, Field(ge=0, le=20)] = 3

    @model_validator(mode="after")
    def _can_be_clear(self) -> ReportSection:
        # The smallest p of so many random flips is 1 / (bootstrap + 1).
        least = math.ceil(1 / (1 - self.confidence) - 1e-6) - 1
        if self.bootstrap < least:
            lower = f"a confidence of at most {1 - 1 / MOST_FLIPS:g}"
            advice = f"bootstrap: {least}" if least <= MOST_FLIPS else lower
            raise ValueError(
                f"got bootstrap {self.bootstrap} beside confidence {self.confidence:g}: no "
                f"difference could be clear; write {advice}"
            )
        return self


class DatasetSection(Section):
    images: str | None = None
    labels: str | None = None
    synthetic: SyntheticSection | None = None
    layout: Literal["folders", "stack", "dsb2018", "ctc", "nnunet", "ome-zarr", "plate"] = "folders"
    task: Literal["semantic", "instances"] = "semantic"
    classes: dict[str, int] | None = None
    ignore: int | None = None
    label_kind: Literal["instances", "binary"] = "instances"
    axes: str | None = None
    pixel_size_um: Size | tuple[Size, ...] | None = None
    channels: Annotated[tuple[int | str, ...], Field(min_length=1)] | None = None
    split: SplitSection = SplitSection(test=0.25)
    models: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    predict_with: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    prepare: dict[str, Any] = {}
    train: str | dict[str, Any] = {}
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

    @field_validator("predict_with")
    @classmethod
    def _origins_named(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in value or ():
            if not all(text.partition("/")) or text.count("/") > 1 or "@" in text:
                raise ValueError(f"got {text!r}; write <dataset>/<model>")
        if value is not None and len(set(value)) != len(value):
            raise ValueError(f"got {list(value)}; name each model once")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSection:
        if (self.images is None) == (self.synthetic is None):
            raise ValueError("give either images (a path or glob) or synthetic (generated images)")
        if self.synthetic is not None and self.labels is not None:
            raise ValueError("labels: generated images bring their own labels; drop this key")
        # Where other datasets' models predict, theirs are taken (unet.config.predict_with).
        taken = self.predict_with is not None and self.classes is None
        if self.task == "semantic" and not self.classes and not taken:
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
    def labelled(self) -> bool:
        """Whether labels are looked for: where they are given, or the layout brings them."""
        by_name = self.layout in ("folders", "stack")
        return self.labels is not None or self.synthetic is not None or self.sheet or not by_name

    @property
    def sheet(self) -> bool:
        """Whether ``images`` names a sheet, which has a column for the labels."""
        return self.images is not None and is_sheet(self.images)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the class index (the order in which the config gives them)."""
        return tuple(self.classes) if self.classes else ("background", "foreground")


Levels = Annotated[PerLevel, Field(min_length=1)]


class ModelSection(Section):
    preset: Literal["unet2015", "unet-bn", "unet-res", "ciresan2012", "auto"]
    dims: Literal[2, 3] | None = None
    width: Annotated[int, Field(ge=1, le=1024)] | None = None
    max_width: Annotated[int, Field(ge=1, le=4096)] | None = None
    depth: Annotated[int, Field(ge=1, le=8)] | None = None
    convs: Annotated[int, Field(ge=1, le=4)] | None = None
    padding: Literal["valid", "same"] | None = None
    norm: Literal["none", "batch", "instance", "group"] | None = None
    groups: Annotated[int, Field(ge=1, le=256)] | None = None
    order: Literal["act-norm", "norm-act"] | None = None
    activation: Literal["relu", "leaky_relu"] | None = None
    residual: bool | None = None
    up: Literal["transposed", "nearest"] | None = None
    deep_supervision: bool | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    kernels: Levels | None = None
    pools: Levels | None = None
    anisotropic: bool = True
    window: Annotated[int, Field(ge=9, le=511)] | None = None
    stages: Annotated[PerLevel, Field(min_length=1, max_length=6)] | None = None
    hidden: Annotated[tuple[Positive, ...], Field(max_length=4)] | None = None
    head: Literal["classes", "border", "distance"] = "classes"
    border_width: Annotated[int, Field(ge=1, le=32)] = 2
    train: str | dict[str, Any] = {}
    predict: dict[str, Any] = {}
    stitch: dict[str, Any] = {}

    @model_validator(mode="after")
    def _fits(self) -> ModelSection:
        if self.preset != "auto":
            architecture_of(self.preset, **self.layers)
        elif self.layers:
            raise ValueError(
                f"{', '.join(self.layers)}: preset auto chooses this; copy the plan that it wrote "
                "beside a model and edit that"
            )
        return self

    @property
    def layers(self) -> dict[str, Any]:
        """The values of the network that are given, by the name they have there."""
        names = (
            "dims", "width", "max_width", "depth", "convs", "padding", "norm", "groups", "order",
            "activation", "residual", "up", "deep_supervision", "dropout", "kernels", "pools",
            "window", "stages", "hidden",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
