"""Small models to export, and images for them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.architectures import settle
from unet.config.presets import AnyArchitecture, architecture_of
from unet.models.build import build
from unet.models.model_file import ModelFile
from unet.models.zoo_example import example_of
from unet.models.zoo_package import Texts, write_package


def _missing(*names: str) -> list[str]:
    found = []
    for name in names:
        try:
            there = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:
            there = False
        found += [] if there else [name]
    return found


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips a test where a library of the extra zoo is not installed."""
    missing = _missing(*names)
    reason = f"{', '.join(missing)} not installed (extra zoo; bioimageio.core is only for tests)"
    return pytest.mark.skipif(bool(missing), reason=reason)


WRITES = needs("bioimageio.spec")
CONVERTS = needs("bioimageio.spec", "onnx", "onnxscript", "onnxruntime")
TESTS = needs("bioimageio.spec", "bioimageio.core", "onnx", "onnxscript", "onnxruntime")

# Name -> preset, changes to it.
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet-bn": ("unet-bn", {"width": 4, "depth": 2}),
    # Two levels of the grid more: its windows do not start on it by themselves.
    "unet2015": ("unet2015", {"width": 2, "depth": 3}),
    "unet-res": ("unet-res", {"width": 4, "depth": 3}),
    "attention": ("unet-bn", {"width": 4, "depth": 2, "attention": True}),
    "volumes": ("unet-bn", {"width": 2, "depth": 1, "dims": 3}),
    "ciresan2012": ("ciresan2012", {"window": 17, "stages": [[4, 4], [4, 4]], "hidden": [8]}),
}
PERCENTILE = {"method": "percentile", "low": 1.0, "high": 99.8, "scope": "image"}
TEXTS = Texts(
    name="Model of a test",
    description="Finds nothing.",
    license="MIT",
    authors=[{"name": "Ada Example"}],
    cite=[{"text": "A paper", "doi": "10.1007/978-3-319-24574-4_28"}],
    tags=["unet"],
    readme="# Model of a test\n\n## Validation\n\nNone.\n",
)


def model_of(
    arch: AnyArchitecture,
    channels: int = 1,
    head: tuple[str, ...] = ("ground", "cell"),
    normalize: dict[str, Any] | None = None,
) -> ModelFile:
    """A model with random weights and statistics, whose probabilities are neither 0 nor 1."""
    network = build(channels, len(head), arch, 1)
    settle(network)
    with torch.no_grad():
        convs = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))]
        last: Any = network.heads[0] if hasattr(network, "heads") else convs[-1]
        last.weight.mul_(0.2)
    return ModelFile(
        arch, channels, head, head, None, "semantic", normalize or dict(PERCENTILE), None,
        {}, {}, 0.5, 1, {k: v.clone() for k, v in network.state_dict().items()},
    )  # fmt: skip


def system(name: str, **more: Any) -> ModelFile:
    preset, changes = SYSTEMS[name]
    return model_of(architecture_of(preset, **changes), **more)


def image_of(shape: tuple[int, ...], channels: int = 1, seed: int = 0) -> np.ndarray:
    """Intensities as of a camera, [C, *S] float32."""
    random = np.random.default_rng(seed)
    return random.integers(100, 4000, (channels, *shape)).astype(np.float32)


def package(
    path: Path, model: ModelFile, weights: tuple[str, ...] = (), texts: Texts = TEXTS
) -> Path:
    image = image_of((80,) * model.architecture.dims, model.in_channels)
    write_package(path, model, example_of(model, image), texts, weights)
    return path
