"""Watershed in blocks equals the definition for any blocks, and scikit-image without ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed as flooded

from unet.config.choices import METHOD_TABLE
from unet.config.heads import HEADS
from unet.config.sections import StitchSection
from unet.data.blocks import Grid
from unet.errors import UserError
from unet.prediction.objects.components import LabelArray
from unet.prediction.objects.methods import METHODS, segment
from unet.prediction.objects.temporary_arrays import Scratch, scratch
from unet.prediction.objects.watershed import watershed
from unet.prediction.objects.watershed_merge import Saddles, end_of_path, merge_basins
from unet.prediction.objects.watershed_order import heights, highest_neighbour, positions, ranks_of

HEAD = ("background", "foreground", "distance")


class Memory(Scratch):
    """Temporary arrays in memory, however many blocks there are."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(Path(), grid)

    def array(self, dtype: object = np.uint32) -> NDArray:
        return np.zeros(self._grid.shape, dtype)


def whole(labels: LabelArray) -> NDArray:
    return labels.read(tuple(slice(0, n) for n in labels.grid.shape))


def split(
    mask: NDArray,
    land: NDArray,
    block: tuple[int, ...] | None = None,
    *,
    h: float,
    connectivity: str = "face",
    min_size: int = 0,
    threads: int = 1,
) -> NDArray:
    grid = Grid(mask.shape, block or mask.shape)
    found = watershed(
        lambda r: mask[r],
        lambda r: land[r].astype(np.float32),
        grid,
        Memory(grid),
        connectivity=connectivity,
        h=h,
        min_size=min_size,
        threads=threads,
    )
    assert found.count == whole(found).max()
    return whole(found)


def structure(connectivity: str, dims: int) -> NDArray:
    return ndimage.generate_binary_structure(dims, 1 if connectivity == "face" else dims)


def in_raster_order(labels: NDArray, min_size: int = 0) -> NDArray:
    """Drops small objects and renumbers the rest to 1..n in the order of their first pixels."""
    ids, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    kept = (ids > 0) & (sizes >= min_size)
    ids = ids[kept][np.argsort(first[kept])]
    out = np.zeros(labels.shape, np.uint32)
    for new, old in enumerate(ids, 1):
        out[labels == old] = new
    return out


def by_definition(
    mask: NDArray, land: NDArray, connectivity: str, h: float, min_size: int = 0
) -> NDArray:
    """The definition, pixel by pixel and contact by contact, over the whole image."""
    rank = {p: (float(land[p]), -i) for i, p in enumerate(np.ndindex(mask.shape)) if mask[p]}
    around = np.argwhere(structure(connectivity, mask.ndim)) - 1
    near = {p: [q for q in (tuple(a) for a in around + p) if q in rank] for p in rank}
    up = {p: max(near[p], key=lambda q: rank[q]) for p in rank}

    def top(p: tuple[int, ...]) -> tuple[int, ...]:
        while up[p] != p:
            p = up[p]
        return p

    basin = {p: top(p) for p in rank}
    joined = {p: p for p in basin.values()}

    def find(p: tuple[int, ...]) -> tuple[int, ...]:
        while joined[p] != p:
            p = joined[p]
        return p

    contacts = [tuple(sorted((p, q), key=lambda x: rank[x])) for p in rank for q in near[p]]
    for p, q in sorted(set(contacts), key=lambda c: (rank[c[0]], rank[c[1]]), reverse=True):
        a, b = sorted((find(basin[p]), find(basin[q])), key=lambda x: rank[x])
        if a != b and rank[a][0] - rank[p][0] < h:
            joined[a] = b
    labels = np.zeros(mask.shape, int)
    numbers = {p: i for i, p in enumerate(joined, 1)}
    for p in rank:
        labels[p] = numbers[find(basin[p])]
    return in_raster_order(labels, min_size)


def peaks_of(mask: NDArray, land: NDArray, connectivity: str, h: float) -> NDArray:
    """Peaks with a dynamics of at least h, by scikit-image; all of ``land`` must be above h."""
    around = structure(connectivity, mask.ndim)
    # A frame, because h_maxima finds no peak in a constant image.
    framed = np.pad(np.where(mask, land, 0), 1)
    found = h_maxima(framed, h, around)[(slice(1, -1),) * mask.ndim]
    return ndimage.label((found > 0) & mask, around)[0]


def by_flooding(mask: NDArray, land: NDArray, connectivity: str, h: float) -> NDArray:
    peaks = peaks_of(mask, land, connectivity, h)
    around = structure(connectivity, mask.ndim)
    return in_raster_order(flooded(-land, peaks, connectivity=around, mask=mask))


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> NDArray:
    y, x = np.indices(shape)
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def depth(mask: NDArray, reach: float = 8.0) -> NDArray:
    """The target of the head: distance to the edge over ``reach``, at most 1."""
    return np.minimum(ndimage.distance_transform_edt(mask) / reach, 1).astype(np.float32)


sides2 = st.tuples(*[st.integers(1, 13)] * 2)
sides3 = st.tuples(*[st.integers(1, 6)] * 3)
connectivities = st.sampled_from(["face", "full"])
# Few levels make plateaus; 0 is outside the mask.
levels = st.one_of(sides2, sides3).flatmap(
    lambda s: arrays(np.int8, s, elements=st.integers(0, 5), fill=st.nothing())
)


@settings(max_examples=150, deadline=None)
@given(levels, st.data(), connectivities, st.sampled_from([1e-6, 1, 2, 3.5]), st.integers(0, 4))
def test_any_blocks_and_threads_give_the_definition(found, data, connectivity, h, min_size):
    mask, land = found > 0, found.astype(np.float32)
    expected = by_definition(mask, land, connectivity, h, min_size)
    block = tuple(data.draw(st.integers(1, n + 1)) for n in mask.shape)
    threads = data.draw(st.sampled_from([1, 3]))
    ours = split(
        mask, land, block, h=h, connectivity=connectivity, min_size=min_size, threads=threads
    )
    np.testing.assert_array_equal(ours, expected)


@settings(max_examples=60, deadline=None)
@given(st.one_of(sides2, sides3), st.integers(0, 2**32 - 1), connectivities, st.data())
def test_without_ties_it_is_the_flooding_of_scikit_image(shape, seed, connectivity, data):
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    # Far above the outside of the mask, so that each part of the mask has a peak that counts.
    land = rng.permutation(size).reshape(shape) + 10 * size
    mask = rng.random(shape) < 0.8
    block = tuple(data.draw(st.integers(1, n + 1)) for n in shape)
    every_peak = split(mask, land, block, h=1, connectivity=connectivity)
    np.testing.assert_array_equal(every_peak, by_flooding(mask, land, connectivity, 1))
    # A pixel between a shallow basin and another one may belong to either, because it is the saddle
    # of both. But the remaining peaks are the same, each in its own object.
    h = data.draw(st.integers(1, size))
    ours = split(mask, land, block, h=h, connectivity=connectivity)
    peaks = peaks_of(mask, land, connectivity, h)
    np.testing.assert_array_equal(np.sort(ours[peaks > 0]), np.arange(1, ours.max() + 1))
    np.testing.assert_array_equal(ours > 0, mask)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), connectivities, st.integers(4, 40))
def test_smooth_landscapes_with_noise_over_many_blocks(seed, connectivity, side):
    rng = np.random.default_rng(seed)
    land = ndimage.gaussian_filter(rng.random((40, 37)), 2) * 4
    land = (land - land.min() + rng.random(land.shape) * 0.05).astype(np.float16)
    mask = land > np.quantile(land, 0.3)
    one = split(mask, land, h=0.1, connectivity=connectivity)
    assert one.max() > 1
    many = split(mask, land, (side, side + 3), h=0.1, connectivity=connectivity, threads=2)
    np.testing.assert_array_equal(many, one)


def test_touching_discs_are_split_where_they_touch():
    shape, left, right = (40, 70), (20.0, 20.0), (19.0, 47.0)
    mask = disc(shape, left, 15) | disc(shape, right, 14)
    land = depth(mask, 15)
    ours = split(mask, land, (9, 11), h=0.1)
    assert ours.max() == 2
    np.testing.assert_array_equal(ours > 0, mask)
    expected = by_flooding(mask, land + 1, "face", 0.1)
    # Flooding decides ties differently, by the order in which it reaches the pixels.
    assert (ours != expected).sum() <= 0.005 * mask.sum()
    nearer = (
        np.where(np.indices(shape)[1] < 34.5, ours[20, 20], np.where(mask, ours[19, 47], 0)) * mask
    )
    assert (ours != nearer).sum() <= 0.02 * mask.sum()


@pytest.mark.parametrize("connectivity", ["face", "full"])
def test_one_noisy_disc_is_one_object_when_h_is_above_the_noise(connectivity):
    mask = disc((60, 60), (30, 29), 25)
    noise = np.random.default_rng(0).random(mask.shape) * 0.08
    land = depth(mask) + noise
    one = split(mask, land, (16, 16), h=0.1, connectivity=connectivity)
    np.testing.assert_array_equal(one, mask)
    assert split(mask, land, (16, 16), h=0.01, connectivity=connectivity).max() > 5


def test_h_is_the_height_of_the_lower_peak_above_the_saddle():
    land = np.array([[1, 5, 2, 4, 1]], np.float32)
    mask = np.ones_like(land, bool)
    assert split(mask, land, h=2.5).tolist() == [[1, 1, 1, 1, 1]]
    # The dynamics must be below h: at 2 the peaks stay apart. The saddle goes to the higher side.
    assert split(mask, land, h=2.0).tolist() == [[1, 1, 1, 2, 2]]
    # Not the height above the next saddle but above the highest: 4 joins 5 over 3, never 6.
    land = np.array([[6, 1, 4, 3, 5]], np.float32)
    assert split(mask, land, h=1.5).tolist() == [[1, 1, 2, 2, 2]]


def test_a_shallow_peak_between_two_high_ones_joins_over_its_highest_saddle():
    land = np.array([[9, 3, 4, 2, 8]], np.float32)
    mask = np.ones_like(land, bool)
    assert split(mask, land, (1, 2), h=1.5).tolist() == [[1, 1, 1, 2, 2]]
    assert split(mask, land[:, ::-1], (1, 2), h=1.5).tolist() == [[1, 1, 2, 2, 2]]


@pytest.mark.parametrize("block", [(61, 61), (7, 5), (1, 61)])
def test_rings_are_one_object_each(block):
    y, x = np.indices((61, 61)) - 30
    radius = np.hypot(y, x)
    mask = (abs(radius - 26) < 3) | (abs(radius - 16) < 3) | (radius < 4)
    ours = split(mask, depth(mask), block, h=0.15)
    np.testing.assert_array_equal(ours, in_raster_order(ndimage.label(mask)[0]))
    assert ours.max() == 3


@pytest.mark.parametrize("connectivity", ["face", "full"])
@pytest.mark.parametrize("value", [0.0, -0.0, 1.0])
def test_a_constant_landscape_gives_the_components(connectivity, value):
    mask = np.random.default_rng(1).random((33, 29)) < 0.6
    ours = split(mask, np.full(mask.shape, value), (6, 7), h=1e-9, connectivity=connectivity)
    expected, _ = ndimage.label(mask, structure(connectivity, 2))
    np.testing.assert_array_equal(ours, in_raster_order(expected))


def test_an_object_over_many_blocks_keeps_one_id():
    mask = np.zeros((50, 400), bool)
    mask[10:40, 5:395] = True
    # Rises all the way to the right: only the last block has a peak.
    land = np.broadcast_to(np.linspace(0.1, 0.9, 400), mask.shape)
    np.testing.assert_array_equal(split(mask, land, (8, 8), h=0.05), mask)


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (3, 4, 5)])
def test_empty_masks(shape):
    for block in (shape, tuple(max(1, n // 2) for n in shape)):
        empty = split(np.zeros(shape, bool), np.ones(shape), block, h=0.1)
        assert empty.dtype == np.uint32
        assert not empty.any()


@pytest.mark.parametrize("connectivity", ["face", "full"])
def test_touching_balls(connectivity):
    z, y, x = np.indices((17, 20, 32))
    a = np.sqrt((z - 8) ** 2 + (y - 9) ** 2 + (x - 9) ** 2) <= 7.5
    b = np.sqrt((z - 8) ** 2 + (y - 10) ** 2 + (x - 22) ** 2) <= 7.5
    land = depth(a | b, 7.5)
    ours = split(a | b, land, (6, 7, 9), h=0.1, connectivity=connectivity, threads=2)
    assert ours.max() == 2
    np.testing.assert_array_equal(ours > 0, a | b)
    for ball in (a, b):
        assert np.bincount(ours[ball]).max() >= 0.97 * ball.sum()
    np.testing.assert_array_equal(ours, split(a | b, land, h=0.1, connectivity=connectivity))


def test_what_is_no_number_or_below_0_counts_as_0():
    land = np.array([[0.5, np.nan, 0.7, -1.0, 0.6]], np.float32)
    expected = split(np.ones((1, 5), bool), np.array([[0.5, 0, 0.7, 0, 0.6]]), h=0.1)
    np.testing.assert_array_equal(split(np.ones((1, 5), bool), land, h=0.1), expected)


# --- through the registry


def probabilities(mask: NDArray, land: NDArray) -> NDArray:
    fore = np.where(mask, 0.9, 0.1)
    return np.stack([1 - fore, fore, land]).astype(np.float32)


def test_segment_fills_holes_drops_small_objects_and_keeps_discs_apart(tmp_path):
    shape = (48, 90)
    mask = disc(shape, (24, 22), 16) | disc(shape, (24, 52), 16)
    land = depth(mask)
    holed = mask.copy()
    holed[20:23, 18:22] = False
    holed[2, 80:85] = True
    p = probabilities(holed, land)
    section = StitchSection(method="watershed", watershed_h=0.1, min_size=6, fill_holes=12)
    seen = []
    for block, threads in [(shape, 1), ((10, 13), 2), ((31, 9), 1)]:
        grid = Grid(shape, block)
        with scratch(tmp_path, grid) as temporary:
            found = segment(lambda c, r: p[(c, *r)], grid, temporary, HEAD, section, 0.5, threads)
            seen.append(whole(found))
    assert seen[0].max() == 2
    np.testing.assert_array_equal(seen[0] > 0, mask)
    assert all(np.array_equal(one, seen[0]) for one in seen)
    small = section.model_copy(update={"min_size": 5, "fill_holes": 11})
    grid = Grid(shape, (10, 13))
    kept = segment(lambda c, r: p[(c, *r)], grid, Memory(grid), HEAD, small, 0.5)
    assert kept.count == 3
    np.testing.assert_array_equal(whole(kept) > 0, holed)
    assert list(tmp_path.iterdir()) == []


def test_methods_their_needs_and_the_config_are_in_step():
    needed = {method.head for method in METHOD_TABLE.values()}
    assert set(METHODS) == set(METHOD_TABLE)
    assert needed - {None} <= set(HEADS)
    assert HEADS[METHOD_TABLE["watershed"].head].channels == HEAD


def test_a_head_without_the_channel_is_told_in_one_line():
    grid = Grid((4, 4), (4, 4))
    section = StitchSection(method="watershed")
    with pytest.raises(UserError, match=r"watershed needs distance, but .*head: distance, or"):
        segment(lambda c, r: np.zeros((4, 4)), grid, Memory(grid), HEAD[:2], section, 0.5)


# --- helpers


@settings(max_examples=60, deadline=None)
@given(levels, connectivities)
def test_ranks_order_pixels_by_value_then_place(found, connectivity):
    mask, land = found > 0, found.astype(np.float32) / 7
    ranks = ranks_of(mask, land)
    assert not ranks[~mask].any()
    flat = np.flatnonzero(mask)
    np.testing.assert_array_equal(positions(ranks[mask], mask.size), flat)
    np.testing.assert_array_equal(heights(ranks[mask]), land[mask])
    np.testing.assert_array_equal(
        np.argsort(ranks[mask]), np.lexsort((-flat, land.reshape(-1)[flat]))
    )
    expected = ndimage.maximum_filter(
        ranks.astype(np.float64), footprint=structure(connectivity, mask.ndim), mode="nearest"
    )
    # Ranks of these values differ by more than the rounding of float64.
    np.testing.assert_array_equal(
        highest_neighbour(ranks, connectivity).astype(np.float64), expected
    )


def test_shallow_chain_joins_at_once():
    # Peaks 5, 4, 3, 2 in a row, each 0.5 above the saddle to the one before.
    saddles = Saddles(
        np.array([[0, 1], [1, 2], [2, 3]]),
        np.array([3.5, 2.5, 1.5], np.float32),
        np.array([4, 3, 2], np.float32),
        np.array([1, 3, 5]),
        np.array([2, 4, 6]),
    )
    peaks = np.array([5, 4, 3, 2], np.float32)
    assert len(set(merge_basins(peaks, saddles, 0.6).tolist())) == 1
    assert merge_basins(peaks, saddles, 0.5).tolist() == [0, 1, 2, 3]
    assert (
        merge_basins(peaks[:0], saddles.highest_between(np.zeros(4, np.int64)), 1.0).tolist() == []
    )


def test_ends_of_a_chain():
    assert end_of_path(np.array([0, 0, 1, 2, 4, 4])).tolist() == [0, 0, 0, 0, 4, 4]
