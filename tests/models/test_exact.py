"""Tiles equal the whole image, bit for bit: probabilities, and the labels made from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.architectures import settle
from unet.config.presets import Architecture, architecture_of
from unet.config.sections import StitchSection
from unet.data.blocks import Grid
from unet.data.tiling import read_window
from unet.models.build import build
from unet.models.exact import SMALL, activate, never_alone, sigmoid, softmax
from unet.models.inference import Predictor
from unet.prediction.objects.methods import segment
from unet.prediction.objects.temporary_arrays import scratch
from unet.prediction.tiles.tile_store import Tiles, create_tiles

CPU = torch.device("cpu")
DISTANCE = ("background", "foreground", "distance")


def predictor(
    arch: Architecture, channels: int = 1, head: Sequence[str] = ("background", "cell")
) -> Predictor:
    """Random weights; scores of about 1 and several classes, as in a trained network."""
    network = build(channels, len(head), arch, 0).eval()
    settle(network)
    last: Any = network.heads[0]
    size = 64 if arch.dims == 2 else 24
    random = torch.Generator().manual_seed(0)
    shape = [fp.fit(size) for fp in network.footprint]
    with torch.no_grad():
        probe = network(torch.randn(1, channels, *shape, generator=random))
        axes = (0, *range(2, probe.ndim))
        last.bias -= probe.mean(dim=axes)
        for values in (last.weight, last.bias):
            values /= probe.std(dim=axes).mean().clamp_min(1e-3)
    return Predictor([network], CPU, "float32", head=head)


def picture(shape: Sequence[int], channels: int = 1) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal((channels, *shape), dtype=np.float32)


def check(apply: Predictor, image: np.ndarray, tile: int | Sequence[int]) -> int:
    """Tiled prediction is bit-equal; returns the number of tiles."""
    layout = apply.plan(image.shape[1:], tile)
    np.testing.assert_array_equal(apply.image(image, tile), apply.whole(image))
    return len(layout.tiles)


PRESETS = st.sampled_from(["unet-bn", "unet-res", "unet2015"])


@given(PRESETS, st.integers(1, 3), st.sampled_from([2, 4, 8]), st.integers(1, 3), st.data())
@settings(max_examples=30)
def test_tiled_equals_whole_to_the_bit(
    preset: str, depth: int, width: int, channels: int, data: st.DataObject
) -> None:
    """Sizes from one pixel on; tiles slightly larger than the smallest, whose deepest level may be
    a single pixel, for which oneDNN has special kernels (difference 6e-8)."""
    up = data.draw(st.sampled_from(["transposed", "nearest"]), "up")
    head = tuple("abcde"[: data.draw(st.integers(2, 5), "classes")])
    apply = predictor(architecture_of(preset, width=width, depth=depth, up=up), channels, head)
    shape = [data.draw(st.integers(1, 130), "size") for _ in range(2)]
    tile = [fp.least_tile + data.draw(st.integers(16, 40), "more") for fp in apply.footprint]
    if len(apply.plan(shape, tile).tiles) <= 30:  # more of the same would only take time
        check(apply, picture(shape, channels), tile)


@pytest.mark.parametrize("preset", ["unet-bn", "unet-res", "unet2015"])
@pytest.mark.parametrize(
    ("width", "depth", "shape", "tile"),
    [
        # Primes, odd, narrower than a tile; windows below and above the size at which the CPU's
        # convolutions change; at depth 4 the paper's halo.
        (8, 1, (101, 83), 40),
        (4, 2, (211, 61), 72),
        (8, 2, (7, 263), 90),
        (4, 3, (331, 29), 220),
        (2, 4, (419, 17), 400),
        (16, 1, (151, 149), 150),
    ],
)
def test_difficult_sizes(
    preset: str, width: int, depth: int, shape: tuple[int, int], tile: int
) -> None:
    apply = predictor(architecture_of(preset, width=width, depth=depth))
    assert check(apply, picture(shape), tile) > 1


@pytest.mark.parametrize("pools", [((1, 1), (1, 1)), ((1, 1), (2, 2)), ((2, 1), (1, 2))])
def test_levels_without_pooling(pools: tuple[tuple[int, int], ...]) -> None:
    """Transposed convolutions of size 1 are computed as convolutions."""
    arch = architecture_of("unet2015", width=3, depth=2, pools=pools)
    apply = predictor(arch)
    for size in range(1, 40, 3):
        least = [fp.least_tile for fp in apply.footprint]
        assert check(apply, picture((1, size)), [n + size % 4 for n in least]) >= 1
    for up in apply.networks[0].up:  # type: ignore[union-attr]
        layer: Any = up[0][0]  # type: ignore[index]
        x = torch.randn(2, layer.in_channels, 3, 5)
        expected = torch.conv_transpose2d(x, layer.weight, layer.bias, layer.stride)
        torch.testing.assert_close(layer(x), expected)


def test_batches_that_are_equal(threads: Callable[[int], None]) -> None:
    """A window has the same values in every batch."""
    apply = predictor(architecture_of("unet-bn", width=4, depth=2))
    windows = np.stack([picture((64, 48)), picture((64, 48)) + 1, picture((64, 48)) * 2])
    together = apply(windows)
    for i in range(3):
        np.testing.assert_array_equal(apply(windows[i : i + 1])[0], together[i])
    threads(2)
    assert check(apply, picture((131, 97)), 60) > 1


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("preset", "layers"),
    [
        ("unet2015", {}),
        ("unet-bn", {}),
        ("unet-bn", {"norm": "group", "up": "nearest"}),
        ("unet-res", {}),
        ("unet-bn", {"pools": ((1, 1), (1, 1))}),
        ("unet-bn", {"dims": 3}),
    ],
)
def test_any_number_of_threads(
    preset: str, layers: dict[str, Any], threads: Callable[[int], None]
) -> None:
    """A job, its shards and a cluster's workers compute with different numbers of threads."""
    apply = predictor(architecture_of(preset, width=8, depth=2, **layers))
    for number, size in ((1, 40), (3, 40), (1, 150)):
        if len(apply.footprint) == 3 and size > 40:
            continue
        shape = [fp.fit(size) for fp in apply.footprint]
        windows = np.stack([picture(shape) + i for i in range(number)])
        found = []
        for count in (1, 2, 3):
            threads(count)
            found.append(apply(windows))
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])


def test_averages_over_symmetries_and_networks() -> None:
    arch = architecture_of("unet-bn", width=2, depth=1)
    for tta in (False, True):
        one, two = predictor(arch), predictor(replace(arch, norm="none"))
        apply = Predictor([*one.networks, *two.networks], CPU, "float32", tta)
        assert check(apply, picture((61, 47)), 36) > 1


@given(st.integers(1, 400), st.integers(1, 5), st.integers(0, 3))
def test_each_value_is_computed_alike(size: int, classes: int, others: int) -> None:
    """One pixel has the same value as among many, and PyTorch's value except for the last bit."""
    random = torch.Generator().manual_seed(size)
    scores = 5 * torch.randn(1, classes + others, 1, size, generator=random)
    for layout in (scores, scores.contiguous(memory_format=torch.channels_last)):
        p = activate(layout, classes)
        for i in {0, size // 2, size - 1}:
            assert torch.equal(activate(scores[..., i : i + 1], classes), p[..., i : i + 1])
        torch.testing.assert_close(p[:, :classes], torch.softmax(scores[:, :classes], 1))
        torch.testing.assert_close(p[:, classes:], torch.sigmoid(scores[:, classes:]))


def test_large_scores_do_not_overflow() -> None:
    scores = torch.tensor([-1e4, 0.0, 1e4]).view(1, 3, 1)
    assert softmax(scores).flatten().tolist() == [0, 0, 1]
    assert sigmoid(scores).flatten().tolist() == [0, 0.5, 1]


def test_small_windows_are_never_alone() -> None:
    small, large = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 1, SMALL + 1)
    assert never_alone(small).shape == (2, 1, 4, 4)
    for batch in (large, torch.zeros(2, 1, 4, 4)):
        assert never_alone(batch) is batch


def in_a_gap(values: np.ndarray, share: float) -> float:
    """A threshold above about this share of the values, and not within rounding of any value."""
    ordered = np.sort(values, axis=None)
    at = int(share * len(ordered))
    near = ordered[max(0, at - 300) : at + 300].astype(np.float64)
    widest = int(np.argmax(np.diff(near)))
    return float(near[widest : widest + 2].mean())


COMPONENTS = ("background", "cell")
BORDER = ("background", "inside", "border")


@pytest.mark.parametrize(
    ("method", "head", "shape"),
    [
        ("components", COMPONENTS, (103, 89)),
        ("grow", BORDER, (103, 89)),
        ("watershed", DISTANCE, (103, 89)),
        ("components", COMPONENTS, (19, 37, 41)),
    ],
)
def test_labels_of_tiles_are_those_of_the_whole(
    method: str, head: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    """From the image to the objects: in stored windows and blocks, and as a whole."""
    dims = len(shape)
    arch = architecture_of("unet-bn", width=4, depth=1, dims=dims, up="nearest")
    apply = predictor(arch, head=head)
    image = picture(shape)
    whole = apply.whole(image)
    threshold = in_a_gap(whole[1] if method == "grow" else 1 - whole[0], 0.85)
    section = StitchSection(method=method, min_size=4, fill_holes=9, connectivity="full")  # type: ignore[arg-type]
    found = []
    for tile, block, threads in ((40 if dims == 2 else 24, 17, 2), (4096, 4096, 1)):
        layout = apply.plan(shape, tile)
        with TemporaryDirectory() as folder:
            target = create_tiles(Path(folder) / "a", layout, len(head), "float32", {})
            for item in layout.tiles:
                p = apply(read_window(image, item.window)[None])[0][(slice(None), *item.inner)]
                corner = tuple(slice(0, n) for n in p.shape[1:])
                target[(item.index, slice(None), *corner)] = p
            tiles, grid = Tiles(Path(folder)), Grid(shape, (block,) * dims)
            with scratch(Path(folder), grid) as temporary:
                labels = segment(
                    lambda channel, region, tiles=tiles: tiles.read("a", region)[channel],
                    grid, temporary, head, section, threshold, threads,
                )  # fmt: skip
                found.append(labels.read(tuple(slice(0, n) for n in shape)))
    assert found[0].max() > 3
    np.testing.assert_array_equal(found[0], found[1])
