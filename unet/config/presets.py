"""The presets: named sets of values for a network class. Torch-free.

Adding a preset is one entry in ``PRESET_TABLE``; the networks are built by
:func:`unet.models.build.build`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, get_args

from unet.config.choices import Entry
from unet.config.resnet import ResNetArchitecture
from unet.config.stage_keys import written_keys

Padding = Literal["valid", "same"]
Norm = Literal["none", "batch", "instance", "group"]
Order = Literal["act-norm", "norm-act"]
Activation = Literal["relu", "leaky_relu"]
Up = Literal["transposed", "nearest"]
# Per level, a number per spatial axis ((Z) Y X).
PerLevel = tuple[tuple[int, ...], ...]


def _frozen(levels: Any) -> PerLevel | None:
    """Converts lists (from JSON) to tuples."""
    return None if levels is None else tuple(tuple(int(n) for n in level) for level in levels)


@dataclass(frozen=True)
class Architecture:
    """All values that define a U-Net's layers, except its input and output channels.

    They can be combined freely, in 2D and 3D.

    Attributes:
        padding: ``valid`` loses a pixel on each side per 3x3 convolution and crops the skips;
            ``same`` keeps the size by zero padding.
        norm: normalisation in each convolution block, if any. ``instance`` and ``group`` use the
            statistics of a sample in training; all norms use running averages in prediction, so
            that a pixel's prediction does not depend on what else is in its window.
        norm_eps: constant added to the variance (Keras: 1e-3, PyTorch: 1e-5).
        groups: number of groups for ``group``: the largest that divides the channels, at most this.
        order: ``act-norm`` is conv - activation - norm (Keras code), ``norm-act`` conv - norm -
            activation (nnU-Net).
        activation: the activation after every convolution.
        residual: a shortcut around the convolutions of a level (1x1 convolution if the channels
            differ), as in ResUNet and nnU-Net's ResEnc.
        convs: convolutions of a block.
        blocks: blocks of each level of the contracting path, the last entry also for the levels
            below, the bridge's too.
        decoder_convs: convolutions per level of the expanding path, without a shortcut, as in
            nnU-Net's ResEnc. None: the expanding path has blocks like the contracting path, one
            per level.
        up: ``transposed`` convolution as in the paper, or ``nearest`` neighbour after a 1x1
            convolution.
        attention: an additive attention gate on each skip connection (Oktay et al. 2018).
        deep_supervision: the coarser levels output class scores too, in training (Lee et al. 2015;
            all levels except the two coarsest, as in nnU-Net).
        width: channels of the first level; doubled at each level below.
        max_width: largest number of channels of a level (None = no limit).
        depth: number of poolings.
        dropout: probability at the end of the contracting path (its last two levels), as in the
            published Caffe network.
        dims: spatial axes, 2 (Y X) or 3 (Z Y X).
        kernels: size of the convolutions per level (``depth + 1`` entries) and axis; odd. None = 3.
        pools: factor of each pooling (``depth`` entries) per axis, 1 or 2. None = 2.
    """

    padding: Padding
    norm: Norm
    norm_eps: float = 1e-3
    groups: int = 8
    order: Order = "act-norm"
    activation: Activation = "relu"
    residual: bool = False
    convs: int = 2
    blocks: tuple[int, ...] = (1,)
    decoder_convs: int | None = None
    up: Up = "transposed"
    attention: bool = False
    deep_supervision: bool = False
    width: int = 64
    max_width: int | None = None
    depth: int = 4
    dropout: float = 0.0
    dims: int = 2
    kernels: PerLevel | None = None
    pools: PerLevel | None = None
    kind: Literal["unet"] = "unet"

    sized_by: ClassVar[str] = "width, depth and the other keys of U-Nets set its layers"

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(int(n) for n in self.blocks))
        if not self.blocks or min(self.blocks) < 1:
            raise ValueError(f"blocks: got {list(self.blocks)}, needs a number from 1 per level")
        for name, count in (("kernels", self.depth + 1), ("pools", self.depth)):
            levels = _frozen(getattr(self, name))
            object.__setattr__(self, name, levels)
            if levels is None:
                continue
            if len(levels) != count or any(len(level) != self.dims for level in levels):
                raise ValueError(
                    f"{name}: got {[list(n) for n in levels]}, needs {count} entries of "
                    f"{self.dims} numbers each"
                )
        if any(k < 1 or k % 2 == 0 for level in self.kernels or () for k in level):
            raise ValueError(f"kernels: got {self.kernels}, needs odd numbers")
        if any(p not in (1, 2) for level in self.pools or () for p in level):
            raise ValueError(f"pools: got {self.pools}, needs 1 or 2")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level; the last entry is the bridge."""
        limit = self.max_width or self.width * 2**self.depth
        return tuple(min(self.width * 2**level, limit) for level in range(self.depth + 1))

    def blocks_of(self, level: int) -> int:
        """Number of blocks of a level of the contracting path; level ``depth`` is the bridge."""
        return self.blocks[min(level, len(self.blocks) - 1)]

    @property
    def most_layers(self) -> int:
        """A number of convolutions that no path exceeds, found without listing them."""
        return (self.depth + 1) * max(max(self.blocks) * self.convs, self.decoder_convs or 1)

    def groups_of(self, channels: int) -> int:
        """Number of channel groups for the statistics of norm ``instance`` or ``group``."""
        if self.norm != "group":
            return channels
        most = min(self.groups, channels)
        return next(n for n in range(most, 0, -1) if channels % n == 0)

    def kernel(self, level: int) -> tuple[int, ...]:
        """Size of the convolutions of a level, per axis."""
        return (3,) * self.dims if self.kernels is None else self.kernels[level]

    def pool(self, level: int) -> tuple[int, ...]:
        """Factor of the pooling below a level, per axis."""
        return (2,) * self.dims if self.pools is None else self.pools[level]

    @property
    def supervised(self) -> tuple[int, ...]:
        """Levels that output class scores in training, the finest (0) first."""
        return tuple(range(max(1, self.depth - 1))) if self.deep_supervision else (0,)

    @property
    def strides(self) -> PerLevel:
        """Pixels of the image per pixel of each supervised level, per axis."""
        found = [(1,) * self.dims]
        for level in self.supervised[1:]:
            steps = zip(found[-1], self.pool(level - 1), strict=True)
            found.append(tuple(a * b for a, b in steps))
        return tuple(found)

    def endless(self) -> Architecture:
        """The network without lost borders, as if its convolutions were padded."""
        return replace(self, padding="same")

    def to_json(self) -> dict[str, Any]:
        """The values as a plain mapping, which :func:`architecture_from` reads back."""
        return written_keys("train", self)


@dataclass(frozen=True)
class WindowArchitecture:
    """A sliding-window classifier: the class of a window's centre pixel (Ciresan et al. 2012).

    Stages of convolution, activation and max pooling, then fully connected layers; see
    :class:`unet.models.sliding_window.WindowClassifier`.

    Attributes:
        window: its side in pixels; every pooling must divide its input.
        stages: (maps, size of the kernel) of each convolution; a pooling follows each.
        pool: factor of the poolings.
        hidden: neurons of each fully connected layer before the last.
        dropout: probability before the last layer.
        dims: spatial axes; 2.
    """

    window: int = 95
    stages: tuple[tuple[int, int], ...] = ((48, 4), (48, 5), (48, 4), (48, 4))
    pool: int = 2
    hidden: tuple[int, ...] = (200,)
    dropout: float = 0.0
    dims: int = 2
    kind: Literal["window"] = "window"

    sized_by: ClassVar[str] = "window, stages and hidden set its layers"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple((int(m), int(k)) for m, k in self.stages))
        object.__setattr__(self, "hidden", tuple(int(n) for n in self.hidden))
        if self.dims != 2:
            raise ValueError(f"dims: got {self.dims}; a sliding-window classifier has 2")
        if self.window % 2 == 0:
            raise ValueError(f"window: got {self.window}; it needs a centre pixel, so be odd")
        _ = self.sizes

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of each stage's output maps; the last is the input of the fully connected layers.

        Raises:
            ValueError: a pooling does not divide its input, or the window is too small.
        """
        size, sizes = self.window, []
        for _, kernel in self.stages:
            size -= kernel - 1
            if size < self.pool or size % self.pool:
                raise ValueError(
                    f"window: {self.window} does not fit the stages {self.stages}: "
                    f"{size} pixels come to a pooling of {self.pool}"
                )
            size //= self.pool
            sizes.append(size)
        return tuple(sizes)

    @property
    def strides(self) -> PerLevel:
        """As :attr:`Architecture.strides`, for a single output at the image's resolution."""
        return ((1,) * self.dims,)

    @property
    def width(self) -> int:
        """Largest number of maps of a stage, for memory estimates."""
        return max(maps for maps, _ in self.stages)

    @property
    def depth(self) -> int:
        """Number of poolings."""
        return len(self.stages)

    @property
    def most_layers(self) -> int:
        """As :attr:`Architecture.most_layers`."""
        return self.depth + len(self.hidden) + 1

    def to_json(self) -> dict[str, Any]:
        """The values as a plain mapping, which :func:`architecture_from` reads back."""
        return written_keys("train", self)


AnyUNet = Architecture | ResNetArchitecture
AnyArchitecture = AnyUNet | WindowArchitecture
# The values of each kind of network. To add one, add a line.
ARCHITECTURES: dict[str, type[AnyArchitecture]] = {
    "unet": Architecture,
    "window": WindowArchitecture,
    "resnet": ResNetArchitecture,
}


@dataclass(frozen=True, kw_only=True)
class Preset(Entry):
    """A named set of values of a network class."""

    architecture: AnyArchitecture | None
    """None: training chooses it."""


_RESIDUAL = Architecture(
    padding="same",
    norm="instance",
    norm_eps=1e-5,
    order="norm-act",
    activation="leaky_relu",
    residual=True,
    deep_supervision=True,
    width=32,
    max_width=512,
)
PRESET_TABLE = {
    # Figure 1 and section 3.
    "unet2015": Preset(
        text="Ronneberger, Fischer, Brox 2015 (arXiv:1505.04597): unpadded convolutions",
        architecture=Architecture(padding="valid", norm="none", dropout=0.5),
    ),
    "unet-bn": Preset(
        text="padded and batch-normalised, as in widespread Keras code",
        architecture=Architecture(padding="same", norm="batch"),
    ),
    "unet-res": Preset(
        text="residual blocks, instance norm and deep supervision, as in nnU-Net (Isensee et al. "
        "2021)",
        architecture=_RESIDUAL,
    ),
    # Class nnUNetPlannerResEncL: 1, 3, 4, 6, 6, 6 blocks, and 1 convolution per level up.
    "unet-res-l": Preset(
        text="a larger unet-res: more blocks on the way down, one convolution per level on the way "
        "up, as nnU-Net's ResEnc L (Isensee et al. 2024)",
        architecture=replace(_RESIDUAL, blocks=(1, 3, 4, 6), decoder_convs=1, depth=5),
    ),
    "unet-resnet34": Preset(
        text="a ResNet (He et al. 2016) as the contracting path, which can start from trained "
        "weights: `encoder_weights`",
        architecture=ResNetArchitecture(),
    ),
    # Network N4.
    "ciresan2012": Preset(
        text="a sliding-window classifier (Ciresan, Giusti, Gambardella, Schmidhuber 2012, NIPS)",
        architecture=WindowArchitecture(),
    ),
    "auto": Preset(text="training chooses a U-Net for the images", architecture=None),
}
PRESETS: dict[str, AnyArchitecture] = {
    name: preset.architecture for name, preset in PRESET_TABLE.items() if preset.architecture
}


# Key -> the values that a file can have. Some cost time or memory before a network's weights can
# show that they are wrong: the grid, for example, is 2^depth pixels.
_WHOLE: dict[str, tuple[int, int]] = {
    "dims": (2, 3), "depth": (1, 10), "width": (1, 1 << 16), "max_width": (1, 1 << 16),
    "convs": (1, 100), "decoder_convs": (1, 100), "groups": (1, 1 << 12), "window": (1, 1 << 12),
    "pool": (1, 16),
}  # fmt: skip
_CHOICES = {
    "padding": Padding, "norm": Norm, "order": Order, "activation": Activation, "up": Up,
}  # fmt: skip
_OPTIONAL = ("max_width", "decoder_convs")
_SHARES = ("norm_eps", "dropout")
_SWITCHES = ("residual", "attention", "deep_supervision")


def _mistake(key: str, value: Any) -> str:
    """What the value of a file must be, or "" if it is so."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if key in _WHOLE and not (value is None and key in _OPTIONAL):
        low, high = _WHOLE[key]
        right = plain and isinstance(value, int) and low <= value <= high
        return "" if right else f"a whole number from {low} to {high}"
    if key in _CHOICES:
        known = get_args(_CHOICES[key])
        return "" if value in known else f"one of {', '.join(known)}"
    if key in _SHARES:
        return "" if plain and 0 <= value < 1 else "a number from 0 to below 1"
    if key in _SWITCHES:
        return "" if isinstance(value, bool) else "true or false"
    return ""


def architecture_from(values: Mapping[str, Any]) -> AnyArchitecture:
    """The architecture that ``to_json`` wrote.

    Raises:
        TypeError, ValueError: the kind is unknown, or the values do not fit.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"got {reprlib.repr(values)}, needs values by name")
    kind = values.get("kind", "unet")
    known = ARCHITECTURES.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise ValueError(f"kind: got {reprlib.repr(kind)}, there are: {', '.join(ARCHITECTURES)}")
    for key, value in values.items():
        if needed := _mistake(key, value):
            raise ValueError(f"{key}: got {reprlib.repr(value)}, needs {needed}")
    return known(**values)


def architecture_of(preset: str, **given: Any) -> AnyArchitecture:
    """The preset's values, replaced by the given ones that are not None.

    Raises:
        ValueError: the preset's network has no such value, or a value does not fit.
    """
    base = PRESETS[preset]
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    foreign = sorted(set(changes) - set(asdict(base)))
    if foreign:
        drop = f"drop {'this key' if len(foreign) == 1 else 'these keys'}"
        raise ValueError(
            f"{', '.join(foreign)}: the preset {preset} has no such value; {drop} ({base.sized_by})"
        )
    return replace(base, **changes)
