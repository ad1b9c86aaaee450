"""A U-Net whose contracting path is a ResNet, for which trained weights exist. Torch-free.

The encoder is that of He et al. 2016 (arXiv:1512.03385) with the names and strides of torchvision's
models (in bottleneck blocks the 3x3 convolution has the stride), so that their weights fit as they
are. The decoder enlarges each map, joins it with the encoder's map of that size, and convolves
twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from unet.config.layer_list import LayerList, Layers
from unet.config.stage_keys import written_keys

EncoderName = Literal["resnet18", "resnet34", "resnet50"]
# Added to the variance in all norms, as in PyTorch.
EPS = 1e-5


@dataclass(frozen=True)
class Encoder:
    """A ResNet: blocks per stage, and whether they are bottlenecks (1x1, 3x3, 1x1)."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool = False


ENCODERS: dict[str, Encoder] = {
    "resnet18": Encoder((2, 2, 2, 2)),
    "resnet34": Encoder((3, 4, 6, 3)),
    "resnet50": Encoder((3, 4, 6, 3), bottleneck=True),
}


@dataclass(frozen=True)
class ResNetArchitecture:
    """A U-Net with a ResNet as its contracting path.

    Attributes:
        encoder: the ResNet.
        decoder: channels of each level of the expanding path, the coarsest first.
        dims: spatial axes; 2.
    """

    encoder: EncoderName = "resnet34"
    decoder: tuple[int, ...] = (256, 128, 64, 32, 16)
    dims: int = 2
    kind: Literal["resnet"] = "resnet"

    depth: ClassVar[int] = 5
    """Halvings: the first convolution, the pooling, and stages 2 to 4."""
    norm: ClassVar[str] = "batch"
    sized_by: ClassVar[str] = "encoder and decoder set its layers and their widths"
    strides: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 1),)
    """One output, at the image's resolution."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", tuple(int(n) for n in self.decoder))
        if self.encoder not in ENCODERS:
            names = ", ".join(get_args(EncoderName))
            raise ValueError(f"encoder: got {self.encoder!r}, there are: {names}")
        if len(self.decoder) != self.depth or min(self.decoder) < 1:
            raise ValueError(
                f"decoder: got {list(self.decoder)}, needs {self.depth} numbers from 1"
            )
        if self.dims != 2:
            raise ValueError(f"dims: got {self.dims}; a ResNet encoder has 2")

    @property
    def width(self) -> int:
        """Channels of the largest maps, for memory estimates: those of the first convolution, at
        half the image's size, are as many numbers as these at its full size."""
        return max(64, *self.decoder[-2:])

    @property
    def most_layers(self) -> int:
        """A number of layers that no path exceeds."""
        return 3 * sum(ENCODERS[self.encoder].blocks) + 2 * self.depth

    def endless(self) -> ResNetArchitecture:
        """The network without lost borders: itself."""
        return self

    def to_json(self) -> dict[str, Any]:
        """The values as a plain mapping, which ``architecture_from`` reads back."""
        return {"kind": self.kind, **written_keys("train", self)}


def _normed(net: LayerList, x: int, name: str, norm: str, outputs: int, **values: Any) -> int:
    """A convolution without bias, and its norm."""
    x = net.add("conv", name, x, outputs=outputs, bias=False, **values)
    return net.add("norm", norm, x, value=EPS)


def _wide(stride: int = 1) -> dict[str, Any]:
    """Values of a padded 3x3 convolution."""
    return {"kernel": (3, 3), "padding": (1, 1), "stride": (stride, stride)}


def _shortcut(net: LayerList, x: int, name: str, width: int, stride: int) -> int:
    if stride == 1 and net.layers[x].outputs == width:
        return x
    part = f"{name}.downsample"
    return _normed(net, x, f"{part}.0", f"{part}.1", width, stride=(stride, stride))


def _basic(net: LayerList, x: int, name: str, width: int, stride: int) -> int:
    y = _normed(net, x, f"{name}.conv1", f"{name}.bn1", width, **_wide(stride))
    y = net.add("activation", f"{name}.relu", y)
    y = _normed(net, y, f"{name}.conv2", f"{name}.bn2", width, **_wide())
    y = net.add("add", f"{name}.sum", y, _shortcut(net, x, name, width, stride))
    return net.add("activation", f"{name}.relu", y)


def _bottleneck(net: LayerList, x: int, name: str, width: int, stride: int) -> int:
    y = _normed(net, x, f"{name}.conv1", f"{name}.bn1", width)
    y = net.add("activation", f"{name}.relu", y)
    y = _normed(net, y, f"{name}.conv2", f"{name}.bn2", width, **_wide(stride))
    y = net.add("activation", f"{name}.relu", y)
    y = _normed(net, y, f"{name}.conv3", f"{name}.bn3", 4 * width)
    y = net.add("add", f"{name}.sum", y, _shortcut(net, x, name, 4 * width, stride))
    return net.add("activation", f"{name}.relu", y)


def _encoder(net: LayerList, found: Encoder) -> list[int]:
    """The encoder's maps at 1/2, 1/4, .. 1/32 of the image's size."""
    block: Callable[[LayerList, int, str, int, int], int]
    block = _bottleneck if found.bottleneck else _basic
    stem = {"kernel": (7, 7), "padding": (3, 3), "stride": (2, 2)}
    x = _normed(net, 0, "encoder.conv1", "encoder.bn1", 64, **stem)
    x = net.add("activation", "encoder.relu", x)
    maps = [x]
    x = net.add("pool", "encoder.maxpool", x, kernel=(3, 3), padding=(1, 1), stride=(2, 2))
    for stage, number in enumerate(found.blocks, 1):
        for i in range(number):
            stride = 2 if stage > 1 and i == 0 else 1
            x = block(net, x, f"encoder.layer{stage}.{i}", 32 * 2**stage, stride)
        maps.append(x)
    return maps


def resnet_layers(arch: ResNetArchitecture, channels: int, classes: int) -> Layers:
    """All layers of the network, from the image to the class scores."""
    net = LayerList(arch.dims, channels)
    *skips, x = _encoder(net, ENCODERS[arch.encoder])
    for n, width in enumerate(arch.decoder):
        x = net.add("enlarge", f"decoder.{n}.enlarge", x, scale=(2, 2))
        if skips:
            x = net.add("join", f"decoder.{n}.join", x, skips.pop())
        for i in range(2):
            names = f"decoder.{n}.convs.{i}", f"decoder.{n}.norms.{i}"
            x = _normed(net, x, *names, width, **_wide())
            x = net.add("activation", f"decoder.{n}.activation", x)
    net.add("head", "head", x, outputs=classes, **_wide())
    return tuple(net.layers)
