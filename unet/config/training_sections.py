"""The ``train`` section of the config: patches, loss, optimizer, augmentation."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from unet.config.choices import OPTIMIZER_TABLE, SCHEDULE_TABLE, OneOf
from unet.config.loss_table import LOSS_TABLE
from unet.config.recipes import RECIPE_TABLE, expanded
from unet.config.section_base import (
    BelowOne,
    Count,
    Gpus,
    NotNegative,
    Positive,
    Probability,
    Section,
    Share,
    Shown,
    Size,
)
from unet.config.start_keys import StartKeys

Patch = Annotated[int, Field(ge=8, le=4096)]
PatchAxis = Annotated[int, Field(ge=1, le=4096)]
Precision = Literal["auto", "float32", "tf32", "bfloat16"]


class AugmentSection(Section):
    reruns: ClassVar[str] = "train"

    flip: bool = True
    """Mirror each axis, half of the time."""
    rotate90: bool = True
    """Rotate by multiples of 90 degrees. Switch it off if up and down differ."""
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 180.0
    """Rotate freely by up to this many degrees either way; volumes in the YX plane."""
    scale: Annotated[float, Field(ge=0, lt=0.9)] = 0.2
    """Magnify by 1 - scale to 1 + scale. Raise it if object sizes vary more than in the training
    images."""
    elastic_px: Annotated[float, Field(ge=0, le=100)] = 5.0
    """Standard deviation of the elastic displacements, in pixels (the paper: 10). In volumes in
    pixels of the finest axis, and less where a patch is thin: docs/training.md."""
    elastic_grid: Annotated[int, Field(ge=2, le=32)] = 3
    """Nodes per axis of the grid of elastic displacements."""
    geometric_probability: Probability = 0.5
    """Probability of rotate_deg, scale and elastic_px, each on its own, per patch."""
    gamma: Annotated[float, Field(ge=0, le=5)] = 0.3
    """Change the exponent from 1 / (1 + gamma) to 1 + gamma."""
    contrast: BelowOne = 0.25
    """Multiply the contrast by 1 - contrast to 1 + contrast."""
    brightness: Annotated[float, Field(ge=0, le=5)] = 0.2
    """Shift by up to this many standard deviations either way."""
    noise: Annotated[float, Field(ge=0, le=5)] = 0.1
    """Add Gaussian noise of up to this many standard deviations."""
    blur_px: Annotated[float, Field(ge=0, le=20)] = 1.0
    """Blur by a Gaussian whose sigma is up to this many pixels (of the finest axis)."""
    intensity_probability: Probability = 0.3
    """Probability of gamma, contrast, brightness, noise and blur_px, each on its own, per
    patch."""
    channel_dropout: Annotated[BelowOne, Shown(default="0 (off)")] = 0.0
    """Probability of each channel to be left out of a patch (0 everywhere), but never all of them.
    The network then copes with images that lack a channel."""


class TrainSection(StartKeys):
    reruns: ClassVar[str] = "train"

    recipe: Annotated[str, OneOf(RECIPE_TABLE)] | None = None
    """A published recipe: values for the keys below. Keys next to it override the recipe's.
    `train: ronneberger2015` is the short form: docs/training.md."""
    # It may be short along one axis: volumes can have few sections.
    patch: Annotated[
        Patch | Annotated[tuple[PatchAxis, ...], Field(min_length=2, max_length=3)],
        Shown(
            "integer, 8 to 4096, or a list with one per axis (each from 1)",
            "256 (preset auto chooses)",
        ),
    ] = 256
    """Size of a training patch (the network's input), in pixels. If the network does not accept it,
    the message names the nearest accepted sizes."""
    batch: Annotated[Positive, Shown(default="8 (preset auto chooses)")] = 8
    """Patches per step, over all GPUs together. Lower it when memory runs out."""
    accumulate: Positive = 1
    """Batches per step, whose gradients are averaged: for batches larger than fit in memory."""
    epochs: Count = 50
    """Number of epochs. An epoch is a number of steps, not a pass over the data. 0, with from: take
    no step."""
    steps_per_epoch: Positive = 100
    """Steps per epoch."""
    loss: Annotated[str, OneOf(LOSS_TABLE)] = "ce-dice"
    """The loss: docs/training.md."""
    loss_options: Annotated[dict[str, float], Shown("mapping")] = {}
    """Options of the loss, such as `{gamma: 2}` for focal."""
    class_weights: Annotated[
        tuple[NotNegative, ...] | Literal["auto"] | None,
        Shown("a number per class, auto, or null"),
    ] = None
    """A weight for each class, for losses that need or take them; other losses refuse them. auto:
    inverse to the number of each class's pixels in the training images."""
    w0: NotNegative = 10.0
    """For border-ce: height of the border weight."""
    sigma: Size = 5.0
    """For border-ce: width of the border weight, in pixels. About half the gap between objects."""
    cells: Annotated[str | None, Shown("name of a class", "all but the first")] = None
    """For border-ce with task semantic: the class whose connected components are the objects that
    the weight map keeps apart."""
    distance_px: Annotated[int, Field(ge=1, le=64)] = 8
    """For head distance and loss boundary: distances are cut off here, in pixels (of the finest
    axis). About the radius of small objects."""
    distance_weight: NotNegative = 1.0
    """For head distance: weight of the distance loss relative to the loss of the classes."""
    optimizer: Annotated[str, OneOf(OPTIMIZER_TABLE)] = "adamw"
    """The optimizer."""
    lr: Size = 1e-3
    """Largest learning rate. Lower it if the loss jumps or becomes NaN. sgd with momentum 0.99
    needs a much smaller one."""
    momentum: BelowOne = 0.99
    """Momentum of sgd and nesterov."""
    weight_decay: NotNegative = 1e-4
    """Weight decay of the optimizer."""
    schedule: Annotated[str, OneOf(SCHEDULE_TABLE)] = "cosine"
    """How the learning rate changes over the training."""
    plateau_patience: Positive = 5
    """For schedule plateau: validations without a lower loss before the rate falls."""
    plateau_factor: Share = 0.5
    """For schedule plateau: the rate is multiplied by this."""
    warmup_steps: Count = 50
    """Steps over which the learning rate first rises from near 0."""
    freeze_norm: Share | None = None
    """Share of the training after which normalisation uses its running averages, as prediction
    does. 0.7 is good for norm instance or group. null: never."""
    ema: Annotated[BelowOne, Shown(default="0 (off)")] = 0.0
    """Decay of a running average of the weights, which is then validated and kept instead of the
    weights. 0.98 to 0.999: the longer the training, the larger."""
    clip_norm: Size | None = 12.0
    """Gradients longer than this are cut to this length. null: no limit."""
    subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training images to train on (whole groups, if images have groups). A smaller
    share is contained in a larger one. `models.<name>.learning_curve` sets it."""
    foreground: Probability = 0.33
    """Share of the patches that are placed on a pixel of a class after the first, each class
    equally often. Raise it for rare classes."""
    augment: AugmentSection = AugmentSection()
    """Random changes to the patches."""
    precision: Precision = "auto"
    """auto: bfloat16 where the device is faster with it. tf32: float32 whose products are rounded
    to 10 bits, on GPUs from compute capability 8.0."""
    validate_every: Positive = 1
    """Epochs between validations. Raise it when validation takes long."""
    patience: Positive | None = None
    """Stop after this many validations without a better score. null: train to the end."""
    checkpoint_seconds: Annotated[float, Field(gt=0, le=60), Shown(reruns="-")] = 30.0
    """Seconds between checkpoints."""
    cache_gb: Annotated[NotNegative, Shown(reruns="-")] = 4.0
    """Memory for images and targets, in GB. Images that do not fit are read from the store when
    needed."""
    gpus: Annotated[Gpus, Shown(reruns="-")] = 1
    """GPUs that train one model together and share each batch. Without GPUs: processes."""
    compile: Annotated[bool, Shown(reruns="-")] = False
    """Whether steps run as compiled code (torch.compile): the same weights except for rounding.
    Compiling can take minutes and needs a C++ compiler, so it is for long trainings on a GPU. Not
    with several `gpus`."""

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, value: Any) -> Any:
        return expanded(value)
