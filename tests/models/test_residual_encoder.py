"""unet-res-l: its parameters against the count of nnU-Net's ResEnc L, and its blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from unet.config.layers import layers_of, parameters
from unet.config.presets import Architecture, architecture_of
from unet.models.build import build
from unet.models.unet import ConvBlock

WIDTHS, BLOCKS = (32, 64, 128, 256, 512, 512), (1, 3, 4, 6, 6, 6)


def conv(inputs: int, outputs: int, size: int, bias: bool = True) -> int:
    return inputs * outputs * size + outputs * bias


def published(channels: int, classes: int, kernel: int, pool: int) -> int:
    """Parameters of ResidualEncoderUNet (package dynamic_network_architectures) for 6 stages of
    nnUNetPlannerResEncL, from its code: a stem, blocks of two convolutions with instance norm, a
    1x1 convolution with norm where the channels change; on the way up a transposed convolution, one
    convolution with norm, class scores at every level."""
    total = conv(channels, WIDTHS[0], kernel) + 2 * WIDTHS[0]
    before = WIDTHS[0]
    for width, blocks in zip(WIDTHS, BLOCKS, strict=True):
        for _ in range(blocks):
            total += conv(before, width, kernel) + conv(width, width, kernel) + 4 * width
            total += conv(before, width, 1, bias=False) + 2 * width if before != width else 0
            before = width
    for below, width in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True):
        total += conv(below, width, pool)
        total += conv(2 * width, width, kernel) + 2 * width + conv(width, classes, 1)
    return total


@pytest.mark.parametrize(("dims", "kernel", "pool"), [(2, 9, 4), (3, 27, 8)])
def test_parameters_of_the_published_network(dims: int, kernel: int, pool: int) -> None:
    """Two differences: no stem (the first block widens the image itself, with a shortcut), and no
    class scores at the second-coarsest level, as in all presets here."""
    found = parameters(layers_of(architecture_of("unet-res-l", dims=dims), 1, 2))
    stem = conv(32, 32, kernel) + 2 * 32
    shortcut = conv(1, 32, 1, bias=False) + 2 * 32
    assert found == published(1, 2, kernel, pool) - stem + shortcut - conv(512, 2, 1)


def test_blocks_per_level() -> None:
    with torch.device("meta"):
        network: Any = build(1, 2, architecture_of("unet-res-l"))
    levels = [*network.down, network.bridge]
    assert [len(level) if isinstance(level, nn.Sequential) else 1 for level in levels] == [
        1, 3, 4, 6, 6, 6,
    ]  # fmt: skip
    encoder = [
        block for level in levels for block in level.modules() if isinstance(block, ConvBlock)
    ]
    assert all(block.residual and len(block.convs) == 2 for block in encoder)
    # A 1x1 convolution only where the channels change: at the start of a level, but not the last.
    assert sum(isinstance(block.shortcut, nn.Sequential) for block in encoder) == 5
    assert all(not block.residual and len(block.convs) == 1 for block in network.expand)


def test_the_last_number_holds_below() -> None:
    arch = architecture_of("unet-res-l", depth=7)
    assert isinstance(arch, Architecture)
    assert [arch.blocks_of(level) for level in range(8)] == [1, 3, 4, 6, 6, 6, 6, 6]
    with pytest.raises(ValueError, match="blocks: got"):
        architecture_of("unet-res-l", blocks=(1, 0))
