"""Overlapping windows under a Gaussian: where they lie, their weights, and their mean as it is read
back from a store, against the definition and against MONAI's sliding window."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.architectures import architectures
from unet.config.geometry import Footprint, Footprints, footprint
from unet.config.presets import Architecture, architecture_of
from unet.data.blending import blended_plan, blended_tile, importance
from unet.data.tiling import WindowPlan, read_window
from unet.prediction.tiles.tile_store import Tiles, create_tiles

# A network that accepts every size, and one that loses 2 px on each side.
FREE = Footprint(grid=1, halo=0, margin=0, remainder=0, smallest=1, receptive_field=1)
VALID = Footprint(grid=2, halo=0, margin=2, remainder=0, smallest=6, receptive_field=5)
OVERLAPS = st.sampled_from([0.0, 0.25, 0.5, 0.75])

# What a network makes of a window [C, *S]: [K, *S - margins].
Apply = Callable[[np.ndarray], np.ndarray]


def everything(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


def stored(folder: Path, layout: WindowPlan, image: np.ndarray, apply: Apply) -> Tiles:
    """The tiles of an image as the predict stage stores them."""
    target = None
    for tile in layout.tiles:
        part = apply(read_window(image, tile.window))[(slice(None), *tile.inner)]
        if target is None:
            target = create_tiles(
                folder / "image", layout, len(part), "float32", {"blend": "gaussian"}
            )
        corner = tuple(slice(0, n) for n in part.shape[1:])
        target[(tile.index, slice(None), *corner)] = part
    return Tiles(folder)


def by_definition(layout: WindowPlan, image: np.ndarray, apply: Apply) -> np.ndarray:
    """Pixel by pixel over whole outputs: the weighted mean of all that hold the pixel."""
    total = weights = None
    for tile in layout.tiles:
        p = apply(read_window(image, tile.window))
        if total is None or weights is None:
            total = np.zeros((len(p), *layout.shape))
            weights = np.zeros(layout.shape)
        first = [s.core_start - s.offset for s in tile.spans]
        for at in np.ndindex(p.shape[1:]):
            where = tuple(a + f for a, f in zip(at, first, strict=True))
            if all(0 <= w < n for w, n in zip(where, layout.shape, strict=True)):
                distance = [(a - n // 2) / (n / 8) for a, n in zip(at, p.shape[1:], strict=True)]
                weight = np.exp(-sum(d * d for d in distance) / 2)
                total[(slice(None), *where)] += weight * p[(slice(None), *at)]
                weights[where] += weight
    assert total is not None
    assert weights is not None
    assert weights.min() > 0
    return total / weights


def test_windows_by_hand() -> None:
    def starts(size: int, tile: int, overlap: float) -> list[tuple[int, int]]:
        layout = blended_plan((size,), tile, (FREE,), overlap)
        return [tile.window[0] for tile in layout.tiles]

    assert starts(100, 40, 0.5) == [(0, 40), (20, 60), (40, 80), (60, 100)]
    # As in nnU-Net: spread evenly, instead of shifting only the last one inwards.
    assert starts(101, 40, 0.5) == [(0, 40), (15, 55), (30, 70), (46, 86), (61, 101)]
    assert starts(100, 40, 0.0) == [(0, 40), (30, 70), (60, 100)]
    assert starts(41, 40, 0.5) == [(0, 40), (1, 41)]
    # 10 * (1 - 0.9) is a little less than 1.
    assert len(starts(12, 10, 0.9)) == 3
    # A smaller image is centred in the window.
    assert starts(7, 10, 0.5) == [(-1, 9)]
    (tile,) = blended_plan((7, 20), 20, (VALID, FREE), 0.5).tiles
    assert tile.window == ((-6, 14), (0, 20))
    assert tile.inner == (slice(4, 11), slice(0, 20))


@given(st.integers(1, 600), st.integers(1, 300), st.floats(0, 0.95), st.integers(0, 3))
def test_windows_cover_the_image_evenly(size: int, tile: int, overlap: float, kind: int) -> None:
    fp = [FREE, VALID, *(footprint(architecture_of(p))[0] for p in ("unet-bn", "unet2015"))][kind]
    layout = blended_plan((size,), tile, (fp,), overlap)
    window = layout.window[0]
    assert fp.accepts(window)
    assert window <= max(tile, fp.smallest)
    output = window - 2 * fp.margin
    spans = [t.spans[0] for t in layout.tiles]
    assert {s.stop - s.start for s in spans} == {window}
    assert (spans[0].core_start, spans[-1].core_stop) == (0, size)
    for span in spans:
        assert span.offset == span.core_start - span.start - fp.margin
        assert span.offset + span.core_stop - span.core_start <= output
    if len(spans) == 1:
        assert output >= size
        return
    # All of the output is kept, and no two windows are further apart than the overlap allows.
    assert {s.core_stop - s.core_start for s in spans} == {output}
    steps = [b.core_start - a.core_start for a, b in pairwise(spans)]
    assert max(steps) - min(steps) <= 1
    assert min(steps) >= 1
    assert max(steps) <= max(1, output * (1 - overlap)) + 1


def test_invalid_overlaps() -> None:
    for overlap in (-0.1, 1.0):
        with pytest.raises(ValueError, match="below 1"):
            blended_plan((9,), 4, (FREE,), overlap)
    with pytest.raises(ValueError, match="no pixels"):
        blended_plan((0,), 4, (FREE,), 0.5)


def test_default_tile() -> None:
    bn, volume = (
        footprint(Architecture(padding="same", norm="none", dims=dims, depth=3)) for dims in (2, 3)
    )
    assert blended_tile((5000, 300), bn) == (256, 256)
    assert blended_tile((5000, 101), bn) == (256, 104)
    assert blended_tile((90, 500, 500), volume) == (96, 96, 96)
    assert blended_tile((17, 500, 500), volume) == (24, 96, 96)
    # Halved until it fits into memory, but never below the network's minimum.
    assert blended_tile((5000, 300), bn, 20_000) == (128, 128)
    assert blended_tile((5000, 3), bn, 1) == (8, 8)
    valid = footprint(architecture_of("unet2015"))
    tile = blended_tile((5000, 300), valid)
    assert all(fp.accepts(n) and n <= 256 for n, fp in zip(tile, valid, strict=True))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 31, 64])
def test_weights_are_those_of_nnunet(size: int) -> None:
    """Its `compute_gaussian`: a point, filtered by scipy, divided by its maximum."""
    for shape in [(size,), (size, 12), (9, size, 4)][: 3 if size < 20 else 2]:
        point = np.zeros(shape)
        point[tuple(n // 2 for n in shape)] = 1
        expected = ndimage.gaussian_filter(point, [n / 8 for n in shape], 0, mode="constant")
        expected /= expected.max()
        found = importance(shape[0])
        for n in shape[1:]:
            found = np.multiply.outer(found, importance(n))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert found.astype(np.float32).min() > 0


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], int, float, Footprints]:
    dims = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, 26 if dims == 2 else 9)) for _ in range(dims))
    fps = tuple(draw(st.sampled_from([FREE, VALID])) for _ in range(dims))
    return shape, draw(st.integers(6, 14)), draw(OVERLAPS), fps


def strip(fps: Footprints) -> Apply:
    """Nothing but the loss of the margin."""
    return lambda window: window[
        (slice(None), *(slice(f.margin, n - f.margin) for n, f in zip(window.shape[1:], fps)))  # noqa: B905
    ]


def marked(fps: Footprints) -> Apply:
    """A stand-in for a network: what it says of a pixel depends on where in the window it lies."""

    def apply(window: np.ndarray) -> np.ndarray:
        inner = strip(fps)(window)
        place = np.indices(inner.shape[1:]).sum(axis=0)
        return np.concatenate([inner, np.sin(0.7 * place)[None] * inner]).astype(np.float32)

    return apply


@given(cases())
@settings(max_examples=15)
def test_constant_and_identity_stay_as_they_are(
    case: tuple[tuple[int, ...], int, float, Footprints],
) -> None:
    shape, tile, overlap, fps = case
    layout = blended_plan(shape, tile, fps, overlap)
    rng = np.random.default_rng(shape)
    image = np.stack([np.full(shape, 0.3), rng.random(shape)]).astype(np.float32)
    with TemporaryDirectory() as folder:
        found = stored(Path(folder), layout, image, strip(fps)).read("image", everything(shape))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], image[0])
    np.testing.assert_allclose(found[1], image[1], rtol=2e-7)


@given(cases(), st.data())
@settings(max_examples=20)
def test_any_region_is_the_weighted_mean_of_the_definition(
    case: tuple[tuple[int, ...], int, float, Footprints], data: st.DataObject
) -> None:
    shape, tile, overlap, fps = case
    layout = blended_plan(shape, tile, fps, overlap)
    image = np.random.default_rng(tile).random((1, *shape), dtype=np.float32)

    apply = marked(fps)
    region = []
    for n in shape:
        a = data.draw(st.integers(0, n - 1))
        region.append(slice(a, data.draw(st.integers(a + 1, n))))
    with TemporaryDirectory() as folder:
        tiles = stored(Path(folder), layout, image, apply)
        whole = tiles.read("image", everything(shape))
        part = tiles.read("image", tuple(region))
    np.testing.assert_allclose(whole, by_definition(layout, image, apply), atol=1e-6, rtol=0)
    # To the bit: what is read does not depend on the region.
    np.testing.assert_array_equal(part, whole[(slice(None), *region)])


@pytest.mark.parametrize(
    ("shape", "tile", "overlap"),
    [((40, 56), 16, 0.5), ((28, 40), 16, 0.25), ((16, 20, 24), 8, 0.5)],
)
def test_the_same_as_monai(
    tmp_path: Path, shape: tuple[int, ...], tile: int, overlap: float
) -> None:
    """At sizes at which both lay the same windows, under the same weights."""
    from monai.inferers import sliding_window_inference

    fps = (FREE,) * len(shape)
    apply = marked(fps)
    image = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    weights = importance(tile)
    for _ in shape[1:]:
        weights = np.multiply.outer(weights, importance(tile))
    expected = sliding_window_inference(
        torch.from_numpy(image)[None],
        roi_size=(tile,) * len(shape),
        sw_batch_size=1,
        predictor=lambda x: torch.from_numpy(apply(x[0].numpy()))[None],
        overlap=overlap,
        roi_weight_map=torch.from_numpy(weights).float(),
    )
    layout = blended_plan(shape, tile, fps, overlap)
    assert len(layout.tiles) > 4
    found = stored(tmp_path, layout, image, apply).read("image", everything(shape))
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-5, rtol=0)


@given(architectures(), OVERLAPS, st.integers(1, 60), st.data())
@settings(max_examples=25)
def test_windows_fit_every_network(
    arch: Architecture, overlap: float, tile: int, data: st.DataObject
) -> None:
    fps = footprint(arch)
    shape = [data.draw(st.integers(1, 90)) for _ in fps]
    layout = blended_plan(shape, tile, fps, overlap)
    assert all(fp.accepts(n) for n, fp in zip(layout.window, fps, strict=True))
    seen = np.zeros(shape, bool)
    for item in layout.tiles:
        seen[item.core] = True
        sizes = [o.stop - o.start for o in item.inner]
        assert sizes == [c.stop - c.start for c in item.core]
    assert seen.all()
