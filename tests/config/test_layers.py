"""Compares the list of a network's layers with the network built from it: an option that changes
only one of them fails here."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.architectures import BATCH, architectures, saved_bytes
from unet.config.geometry import footprint
from unet.config.layers import Layers, flop, layers_of, map_shapes, parameters, window_layers
from unet.config.presets import PRESETS, AnyArchitecture, Architecture, WindowArchitecture
from unet.models.build import build
from unet.models.network import Network, parameter_counts
from unet.training.auto.memory import Numerics, kept_bytes

WINDOWS = [
    WindowArchitecture(window=15, stages=((4, 4), (5, 5)), hidden=(6,), dropout=0.5),
    WindowArchitecture(window=9, stages=((3, 2),), hidden=()),
    WindowArchitecture(window=29, stages=((4, 3), (3, 4)), pool=3, hidden=(4, 3)),
]


def calls(network: Network, x: Tensor) -> Counter[tuple[str, tuple[int, ...]]]:
    """Counts (name, shape of the output) for each call of one of the network's layers."""
    seen: Counter[tuple[str, tuple[int, ...]]] = Counter()
    handles = []
    for name, module in network.named_modules():
        idle = isinstance(module, nn.Identity) or getattr(module, "p", None) == 0
        if not idle and not list(module.children()):

            def hook(_: Any, __: Any, y: Tensor, name: str = name) -> None:
                seen[name, tuple(y.shape[1:])] += 1

            handles.append(module.register_forward_hook(hook))
    network(x)
    for handle in handles:
        handle.remove()
    return seen


def compare(arch: AnyArchitecture, layers: Layers, shape: list[int], saved: bool = True) -> None:
    """Compares everything that is computed from the list with the network."""
    channels, classes = layers[0].outputs, layers[-1].outputs
    network = build(channels, classes, arch).train()
    # Parameters: all, and each layer's in the module of its name.
    assert parameters(layers) == parameter_counts(network)[1]
    for layer in layers:
        if layer.parameters:
            assert parameter_counts(network.get_submodule(layer.name))[1] == layer.parameters
    x = torch.randn(BATCH, channels, *shape)
    if isinstance(arch, Architecture):
        # Joins, sums and products have no module.
        expected = Counter(
            (layer.name, (layer.outputs, *size))
            for layer, size in zip(layers, map_shapes(layers, shape), strict=True)
            if layer.kind not in ("image", "join", "add", "multiply")
        )
        assert calls(network, x) == expected
    for training in (True, False):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.train(training)(x)
        assert counter.get_total_flops() == BATCH * flop(layers, shape, training)
    for precision in ("float32", "bfloat16") if saved else ():
        estimate = kept_bytes(layers, shape, Numerics("cpu", precision))
        assert saved_bytes(network.train(), x, precision) == BATCH * estimate, precision


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(architectures(), st.integers(1, 3), st.integers(1, 3))
def test_any_combination_matches_its_list(arch: Architecture, channels: int, classes: int) -> None:
    # Batch statistics of one pixel are refused.
    shape = [fp.smallest + fp.grid for fp in footprint(arch)]
    compare(arch, layers_of(arch, channels, classes), shape)


@pytest.mark.parametrize("arch", WINDOWS, ids=lambda arch: f"{arch.window}px")
def test_window_classifiers_match_their_lists(arch: WindowArchitecture) -> None:
    compare(arch, layers_of(arch, 2, 3), [arch.window + 2, arch.window + 5])
    compare(arch, window_layers(arch, 2, 3, dense=False), [arch.window] * 2)


def test_every_option_is_tried() -> None:
    """Options that tests/architectures.py does not draw are in no property test."""
    plain = asdict(Architecture(padding="same", norm="none"))
    quick = settings(phases=[Phase.generate], max_examples=300, database=None)
    for name in set(plain) - {"kind"}:
        # Raises NoSuchExample for an option that is left at its default.
        find(
            architectures(),
            lambda arch, name=name: getattr(arch, name) != plain[name],
            settings=quick,
        )


@pytest.mark.parametrize("name", PRESETS)
def test_presets_match_their_lists(name: str) -> None:
    arch = PRESETS[name]
    if isinstance(arch, Architecture):
        arch = replace(arch, width=2)
    shape = [fp.smallest + fp.grid for fp in footprint(arch)]
    compare(arch, layers_of(arch, 1, 2), shape, saved=False)
