"""A model of the config: its network, and its changes to other sections."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from unet.config.choices import OneOf
from unet.config.heads import HEADS
from unet.config.presets import (
    ARCHITECTURES,
    PRESET_TABLE,
    Activation,
    Norm,
    Order,
    Padding,
    PerLevel,
    Up,
    architecture_of,
)
from unet.config.resnet import EncoderName, ResNetArchitecture
from unet.config.section_base import BelowOne, Changes, Positive, Section, Shown
from unet.config.value_lists import share_mistake, sweep_mistake

Levels = Annotated[PerLevel, Field(min_length=1)]


class ModelSection(Section):
    reruns: ClassVar[str] = "train"

    preset: Annotated[str, OneOf(PRESET_TABLE)]
    """The layers: docs/models.md. auto chooses them from the images and writes its plan next to the
    model: docs/auto.md."""
    dims: Literal[2, 3] | None = None
    """Spatial axes: 3 for volumes (Z Y X)."""
    width: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Channels of the first level, doubled at each level below. Time and parameters grow with its
    square. Write 16 to 32 for small data or without a GPU."""
    max_width: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Largest number of channels of a level; null: no limit."""
    depth: Annotated[int, Field(ge=1, le=8)] | None = None
    """Number of poolings. Each doubles the context that a pixel sees, and the grid that sizes must
    fit."""
    dropout: BelowOne | None = None
    """Probability of dropout at the end of the contracting path (its last two levels)."""
    convs: Annotated[int, Field(ge=1, le=4)] | None = None
    """Convolutions per level and path; with `blocks`, of each block."""
    blocks: Annotated[
        Annotated[tuple[Annotated[int, Field(ge=1, le=12)], ...], Field(min_length=1, max_length=9)]
        | None,
        Shown("for each level and the bridge, a number; the last one also for the others", "1"),
    ] = None
    """Blocks of convolutions per level of the contracting path: `[1, 3, 4, 6]`."""
    decoder_convs: Annotated[int, Field(ge=1, le=4)] | None = None
    """Convolutions per level of the expanding path, without shortcuts. Without this key: as
    `convs` and `residual` say."""
    padding: Padding | None = None
    """valid: unpadded convolutions as in the paper; the output is smaller than the input."""
    norm: Norm | None = None
    """Normalisation. batch needs about 4 patches per step or more; instance and group work with
    any batch."""
    groups: Annotated[int, Field(ge=1, le=256)] | None = None
    """Number of groups of norm group."""
    order: Order | None = None
    """Whether the activation comes before the normalisation or after it."""
    activation: Activation | None = None
    """Activation after every convolution."""
    residual: bool | None = None
    """Add a shortcut around the convolutions of each level."""
    up: Up | None = None
    """How the expanding path goes up: transposed convolution, or 1x1 convolution and nearest
    neighbour."""
    attention: bool | None = None
    """Weight each skip connection pixel by pixel with an attention gate."""
    deep_supervision: bool | None = None
    """Train the coarser levels too. Prediction does not change."""
    kernels: Annotated[
        Levels | None, Shown("for each level and the bridge, a number per axis", "3 everywhere")
    ] = None
    """Sizes of the convolutions, odd: `[[1, 3, 3], [3, 3, 3], ...]`."""
    pools: Annotated[
        Levels | None, Shown("for each pooling, a number per axis", "2 everywhere")
    ] = None
    """Factors of the poolings, 1 or 2: `[[1, 2, 2], ...]`."""
    anisotropic: bool = True
    """For volumes: kernels and poolings leave out an axis while it is at least twice as coarse as
    the finest one (by the pixel size). Has no effect if `kernels` or `pools` are given."""
    window: Annotated[
        Annotated[int, Field(ge=9, le=511)] | None,
        Shown("odd integer, 9 to 511"),
    ] = None
    """Side of the window that is classified, in pixels. Every pooling must divide its input."""
    stages: Annotated[
        Annotated[PerLevel, Field(min_length=1, max_length=6)] | None,
        Shown("for each stage, maps and size of the kernel"),
    ] = None
    """Convolutions, each followed by a pooling."""
    encoder: EncoderName | None = None
    """The ResNet that is the contracting path."""
    decoder: Annotated[
        Annotated[
            tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=5, max_length=5)
        ]
        | None,
        Shown("for each of 5 levels, a number, the coarsest first"),
    ] = None
    """Channels of the expanding path of a network with an encoder."""
    encoder_weights: Annotated[
        Annotated[str, Field(min_length=1)] | None,
        Shown("file", "none", "train (the file is compared by content)"),
    ] = None
    """Trained weights that the encoder starts from: a state dict of torchvision's model, saved as a
    file. Relative to `data_root` or absolute. Nothing is downloaded: docs/models.md."""
    hidden: Annotated[
        Annotated[tuple[Positive, ...], Field(max_length=4)] | None,
        Shown("a number per layer"),
    ] = None
    """Neurons of the fully connected layers before the last."""
    head: Annotated[str, OneOf(HEADS)] = "classes"
    """What the network learns."""
    border_width: Annotated[int, Field(ge=1, le=32)] = 2
    """Thickness of the inner border in pixels, for head border. About the width of the gaps between
    objects."""
    train: Annotated[str | dict[str, Any], Changes("train"), Shown("mapping, or a recipe")] = {}
    """Changes to `train` for this model."""
    predict: Annotated[dict[str, Any], Changes("predict"), Shown("mapping", reruns="predict")] = {}
    """Changes to `predict` for this model."""
    stitch: Annotated[dict[str, Any], Changes("stitch"), Shown("mapping", reruns="stitch")] = {}
    """Changes to `stitch` for this model."""
    export: Annotated[dict[str, Any], Changes("export"), Shown("mapping", reruns="export")] = {}
    """Changes to `export` for this model."""
    learning_curve: Annotated[
        Annotated[tuple[Annotated[float, Field(ge=0.01, lt=1)], ...], Field(max_length=20)],
        Shown("list of shares, 0.01 to below 1", "none", "train of the added models"),
    ] = ()
    """Also train this model on these shares of the training images, such as `[0.125, 0.25, 0.5]`.
    The report then estimates what more images would bring: docs/learning_curve.md. Each share is a
    model of its own, such as `<name>-25pct`."""
    sweep: Annotated[
        dict[str, tuple[Any, ...]],
        Shown("lists of values by key", "none", "train of the added models, choose"),
    ] = {}
    """Train a model for each combination of values, such as `{width: [16, 32], train.lr: [0.001,
    0.0003]}`, and use the one with the best validation score as this model: docs/sweep.md."""

    @field_validator("learning_curve", "sweep", mode="before")
    @classmethod
    def _listed(cls, value: Any, info: ValidationInfo) -> Any:
        found = sweep_mistake(value) if info.field_name == "sweep" else share_mistake(value)
        if found:
            raise ValueError(found)
        return value

    @field_validator("decoder", mode="before")
    @classmethod
    def _decoder_levels(cls, value: Any) -> Any:
        needed = ResNetArchitecture.depth
        if isinstance(value, list | tuple) and len(value) != needed:
            raise ValueError(
                f"must name {needed} numbers, the coarsest level first (got {list(value)})"
            )
        return value

    @model_validator(mode="after")
    def _fits(self) -> ModelSection:
        made = PRESET_TABLE[self.preset].architecture
        if self.encoder_weights is not None and not isinstance(made, ResNetArchitecture):
            raise ValueError(
                f"encoder_weights: the preset {self.preset} has no encoder; write preset: "
                "unet-resnet34, or drop this key"
            )
        if self.preset != "auto":
            architecture_of(self.preset, **self.layers)
        elif self.layers:
            raise ValueError(
                f"{', '.join(self.layers)}: preset auto chooses this; to change it, copy and edit "
                "the plan that it wrote next to a model"
            )
        return self

    @property
    def layers(self) -> dict[str, Any]:
        """The values of the network that are given: the keys of the same name as one of them."""
        known = {field.name for kind in ARCHITECTURES.values() for field in fields(kind)}
        given = {name: getattr(self, name) for name in type(self).model_fields if name in known}
        return {name: value for name, value in given.items() if value is not None}
