"""Builds networks from architectures. To add a kind of network, add a line to ``NETWORKS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from unet.config.presets import AnyArchitecture
from unet.models.network import Network
from unet.models.resnet_unet import ResNetUNet
from unet.models.sliding_window import WindowClassifier
from unet.models.unet import UNet

NETWORKS: dict[str, Callable[[int, int, Any], Network]] = {
    "unet": UNet,
    "window": WindowClassifier,
    "resnet": ResNetUNet,
}


def build(in_channels: int, num_classes: int, arch: AnyArchitecture, seed: int = 0) -> Network:
    """A network whose initial weights depend on ``seed`` only; the global random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[arch.kind](in_channels, num_classes, arch)
