"""The network that packages carry computes what ours computes, for every architecture; it needs
nothing of this pipeline."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.architectures import architectures
from tests.zoo import SYSTEMS, image_of, model_of, system
from unet.config.layers import LayerKind
from unet.config.presets import Architecture, architecture_of
from unet.models import zoo_network
from unet.models.exact import activate
from unet.models.inference import Predictor
from unet.models.model_file import ModelFile
from unet.models.zoo_example import example_of, normalised
from unet.models.zoo_layers import listed_network, sizes_of

CPU = torch.device("cpu")


@torch.no_grad()
def outputs(model: ModelFile, image: np.ndarray) -> np.ndarray:
    found: np.ndarray = listed_network(model)(torch.from_numpy(image[None]))[0].numpy()
    return found


@torch.no_grad()
def in_double(model: ModelFile, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The listed network's output, and ours at the place where it is in it."""
    sizes, network = sizes_of(model), model.network().double()
    found = listed_network(model).double()(torch.from_numpy(image[None]).double())[0].numpy()
    seen = image[(slice(None), *(slice(each.skip, None) for each in sizes))]
    scores: Any = network(torch.from_numpy(seen[None].copy()).double())
    ours = activate(scores, len(model.head))[0].numpy()
    if any(fp.margin for fp in network.footprint):
        inner = tuple(slice(each.halo, -each.halo or None) for each in sizes)
        found = found[(slice(None), *inner)]
        ours = ours[tuple(slice(0, n) for n in found.shape)]
    return found, ours


@given(architectures(), st.integers(1, 3), st.integers(0, 2))
@settings(max_examples=40)
def test_it_equals_ours(arch: Architecture, channels: int, steps: int) -> None:
    """In double precision: single precision rounds large scores by more than a mistake may be."""
    model = model_of(arch, channels, ("a", "b", "c"))
    shape = tuple(size.least + steps * size.step for size in sizes_of(model))
    if np.prod(shape) > 100_000:
        return
    image = np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)
    np.testing.assert_allclose(*in_double(model, image), atol=1e-9, rtol=0)


@torch.no_grad()
def test_a_network_with_a_resnet_encoder_equals_ours() -> None:
    """At a size far below its halo, which needs images of more than 1,000 pixels."""
    arch = architecture_of("unet-resnet34", encoder="resnet18", decoder=(8, 8, 8, 4, 4))
    model = model_of(arch, 2, ("a", "b"))
    image = torch.randn(1, 2, 64, 96, generator=torch.Generator().manual_seed(0))
    scores = model.network()(image)
    assert isinstance(scores, torch.Tensor)
    found = listed_network(model)(image)
    torch.testing.assert_close(found, scores.softmax(dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", [("background", "inside", "border"),
                                  ("background", "foreground", "distance")])  # fmt: skip
@pytest.mark.parametrize("name", SYSTEMS)
def test_heads(name: str, head: tuple[str, ...]) -> None:
    model = system(name, head=head)
    example = example_of(model, None)
    found = outputs(model, normalised(model, example.image))
    np.testing.assert_allclose(found, example.output, atol=1e-4, rtol=0)
    sums = found[: 3 if head[-1] == "border" else 2].sum(axis=0)
    assert np.ptp(found, axis=tuple(range(1, found.ndim))).min() > 1e-3
    inner = tuple(slice(size.halo, -size.halo) for size in sizes_of(model))
    np.testing.assert_allclose(sums[inner], 1, atol=1e-5)


@pytest.mark.parametrize("name", ["unet2015", "ciresan2012"])
def test_tiles_of_an_unpadded_network_equal_the_whole(name: str) -> None:
    """Cut as other programs do: at steps of the tile without its halo, mirrored at the border."""
    model = system(name)
    size = sizes_of(model)[0]
    assert size.halo % size.step == 0
    inner = 2 * size.step if size.step > 1 else 20
    tile, side = inner + 2 * size.halo, 3 * inner
    image = normalised(model, image_of((side, side)))
    mirrored = np.pad(image, [(0, 0), *[(size.halo,) * 2] * 2], mode="reflect")
    found = np.zeros((2, side, side), np.float32)
    for y in range(0, side, inner):
        for x in range(0, side, inner):
            out = outputs(model, mirrored[:, y : y + tile, x : x + tile].copy())
            core = slice(size.halo, size.halo + inner)
            found[:, y : y + inner, x : x + inner] = out[:, core, core]
    whole = Predictor([model.network()], CPU, "float32").whole(image)
    np.testing.assert_allclose(found, whole, atol=1e-5, rtol=0)


def test_every_kind_of_layer_can_be_exported() -> None:
    known = {"image", *zoo_network.MODULES, *zoo_network.MERGES}
    assert known == set(get_args(LayerKind))


def test_the_file_needs_pytorch_alone(tmp_path: Path) -> None:
    source = Path(zoo_network.__file__)
    tree = ast.parse(source.read_text(encoding="utf-8"))
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert modules == {"__future__", "collections.abc", "typing", "torch", "torch.nn.functional"}
    copy = tmp_path / "unet_network.py"
    copy.write_bytes(source.read_bytes())
    code = "import sys, unet_network; assert 'unet' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; "
                    + code], check=True, cwd=tmp_path)  # fmt: skip


def test_sizes_are_those_that_the_network_accepts() -> None:
    for name in SYSTEMS:
        model = system(name)
        network: Any = model.network()
        for size, fp in zip(sizes_of(model), network.footprint, strict=True):
            for n in range(3):
                assert fp.accepts(size.least + n * size.step - size.skip)
            assert size.least > 2 * size.halo
            assert (size.least - 2 * size.halo) % fp.grid == 0
