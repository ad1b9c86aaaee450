"""Labelling in blocks of any size must give the same result as labelling the whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels

from unet.config.sections import StitchSection
from unet.data.blocks import Grid, grid_of, ordered, within
from unet.prediction.objects.components import LabelArray, components
from unet.prediction.objects.grow import nearest_seed
from unet.prediction.objects.merge_labels import roots
from unet.prediction.objects.methods import segment
from unet.prediction.objects.temporary_arrays import Scratch, scratch


class Memory(Scratch):
    """Temporary arrays in memory, however many blocks there are."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(Path(), grid)

    def array(self, dtype: object = np.uint32) -> NDArray:
        return np.zeros(self._grid.shape, dtype)


def whole(labels: LabelArray) -> NDArray:
    return labels.read(tuple(slice(0, n) for n in labels.grid.shape))


def structure(connectivity: str, dims: int) -> NDArray:
    return ndimage.generate_binary_structure(dims, 1 if connectivity == "face" else dims)


def in_raster_order(labels: NDArray) -> NDArray:
    """Renumbers ids to 1..n in the order of each object's first pixel."""
    ids, first = np.unique(labels, return_index=True)
    ids = ids[np.argsort(first)]
    lookup = np.zeros(int(labels.max()) + 1, np.uint32)
    lookup[ids[ids > 0]] = np.arange(1, (ids > 0).sum() + 1)
    return lookup[labels]


def dropped(labels: NDArray, min_size: int) -> NDArray:
    small = np.bincount(labels.ravel()) < min_size
    return np.where(small[labels], 0, labels)


def reference(mask: NDArray, connectivity: str, min_size: int, fill_holes: int) -> NDArray:
    """The definition, on the whole image, with SciPy."""
    dual = "full" if connectivity == "face" else "face"
    back, count = ndimage.label(~mask, structure(dual, mask.ndim))
    filled = mask.copy()
    for i in range(1, count + 1):
        where = np.nonzero(back == i)
        ends = zip(where, mask.shape, strict=True)
        at_border = any((w == 0).any() or (w == n - 1).any() for w, n in ends)
        if not at_border and len(where[0]) <= fill_holes:
            filled[where] = True
    labels, _ = ndimage.label(filled, structure(connectivity, mask.ndim))
    return in_raster_order(dropped(labels, min_size))


def in_blocks(mask: NDArray, block: tuple[int, ...], threads: int = 1, **options) -> LabelArray:
    grid = Grid(mask.shape, block)
    return components(lambda r: mask[r], grid, Memory(grid), threads=threads, **options)


def spiral(n: int) -> NDArray:
    """A one pixel wide spiral with one pixel between its turns."""
    mask = np.zeros((n, n), bool)
    y = x = 0
    top, left, bottom, right = 0, 0, n - 1, n - 1
    while top <= bottom and left <= right:
        mask[y, x : right + 1] = True
        x = right
        mask[y : bottom + 1, x] = True
        y = bottom
        mask[y, left : x + 1] = True
        x = left
        top, right, bottom = top + 2, right - 2, bottom - 2
        mask[top : y + 1, x] = True
        y = top
        left += 2
        mask[y, x : left + 1] = True
        x = left
    return mask


def rings(n: int) -> NDArray:
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    return np.hypot(y, x).astype(int) % 4 < 2


sizes = st.integers(1, 17)
connectivities = st.sampled_from(["face", "full"])
masks2 = st.tuples(sizes, sizes).flatmap(lambda s: arrays(bool, s))
masks3 = st.tuples(*[st.integers(1, 9)] * 3).flatmap(lambda s: arrays(bool, s))


@settings(max_examples=100, deadline=None)
@given(st.one_of(masks2, masks3), st.data(), connectivities, st.integers(0, 6), st.integers(0, 9))
def test_components_of_random_masks(mask, data, connectivity, min_size, fill_holes):
    block = tuple(data.draw(st.integers(5, 18)) for _ in mask.shape)
    found = in_blocks(
        mask, block, connectivity=connectivity, min_size=min_size, fill_holes=fill_holes
    )
    expected = reference(mask, connectivity, min_size, fill_holes)
    assert whole(found).dtype == np.uint32
    np.testing.assert_array_equal(whole(found), expected)
    assert found.count == expected.max()


@pytest.mark.parametrize("connectivity", ["face", "full"])
@pytest.mark.parametrize("block", [(3, 2), (5, 5), (5, 64), (7, 6), (64, 64)])
@pytest.mark.parametrize(
    "mask", [spiral(25), rings(28), ~rings(31), np.indices((16, 16)).sum(0) % 2 == 0]
)
def test_components_of_shapes_that_cross_many_blocks(mask, block, connectivity):
    for fill_holes in (0, 1, 30):
        found = in_blocks(mask, block, connectivity=connectivity, fill_holes=fill_holes)
        np.testing.assert_array_equal(whole(found), reference(mask, connectivity, 0, fill_holes))


def comb(*shape: int) -> NDArray:
    """Teeth in every other row, connected only in the last column."""
    mask = np.zeros(shape, bool)
    mask[..., ::2, :] = True
    mask[..., -1] = True
    return mask


def diagonal(n: int, dims: int) -> NDArray:
    """Two chains of pixels that touch only at corners, in opposite directions."""
    at = np.indices((n,) * dims)
    along = (at == at[0]).all(axis=0)
    against = (at[1:] == n - 1 - at[0]).all(axis=0)
    return along | against


def helix(n: int) -> NDArray:
    """A strand that winds upwards, joined by faces, and its axis apart from it."""
    mask = np.zeros((n, 9, 9), bool)
    way = [(1, x) for x in range(1, 8)] + [(y, 7) for y in range(2, 8)]
    way += [(7, x) for x in range(6, 0, -1)] + [(y, 1) for y in range(6, 1, -1)]
    for z in range(n):
        for step in range(6):
            mask[(z, *way[(5 * z + step) % len(way)])] = True
    mask[:, 4, 4] = True
    return mask


def shells(n: int) -> NDArray:
    """Nested balls that do not touch."""
    return np.linalg.norm(np.indices((n,) * 3) - (n - 1) / 2, axis=0).astype(int) % 3 == 0


def links(n: int) -> NDArray:
    """Two rings in planes at right angles, one through the other, that do not touch."""
    mask = np.zeros((n, n, n), bool)
    middle, end = n // 2, n - 2
    for low, high, axis in ((1, middle + 2, 0), (middle - 2, end, 1)):
        ring = np.zeros((n, n), bool)
        ring[2:end, low : high + 1] = True
        ring[3 : end - 1, low + 1 : high] = False
        np.moveaxis(mask, axis, 0)[middle] |= ring
    return mask


SHAPES = {
    "comb": comb(23, 17),
    "comb turned": comb(17, 22).T.copy(),
    "diagonal": diagonal(21, 2),
    "combs of a volume": comb(5, 9, 7),
    "diagonal of a volume": diagonal(12, 3),
    "helix": helix(9),
    "shells": shells(11),
    "links": links(11),
    "solid but for shells": ~shells(10),
    "spirals upon one another": np.stack([spiral(15), np.zeros((15, 15), bool), spiral(15).T]),
}


@settings(max_examples=50)
@given(
    st.sampled_from(sorted(SHAPES)),
    connectivities,
    st.sampled_from([0, 1, 40]),
    st.sampled_from([0, 5]),
    st.data(),
)
def test_objects_over_many_blocks_are_those_of_the_whole(
    name: str, connectivity: str, fill_holes: int, min_size: int, data: st.DataObject
) -> None:
    """Ids too: 1, 2, .. in the order of first pixels, with any blocks and any number of threads."""
    mask = SHAPES[name]
    block = tuple(data.draw(st.integers(3, 14)) for _ in mask.shape)
    found = in_blocks(
        mask, block, data.draw(st.integers(1, 3)),
        connectivity=connectivity, min_size=min_size, fill_holes=fill_holes,
    )  # fmt: skip
    expected = reference(mask, connectivity, min_size, fill_holes)
    np.testing.assert_array_equal(whole(found), expected)
    assert found.count == expected.max()


def test_what_the_shapes_are() -> None:
    """Checks that each shape has the property in its name."""

    def count(name: str, connectivity: str) -> int:
        return in_blocks(SHAPES[name], (3,) * SHAPES[name].ndim, connectivity=connectivity).count

    assert count("comb", "face") == count("comb turned", "face") == 1
    assert count("combs of a volume", "face") == 1
    assert count("diagonal", "full") == 1
    assert count("diagonal", "face") == 2 * 21 - 1
    assert count("diagonal of a volume", "face") == 2 * 12 - 2  # they meet in the middle
    assert count("diagonal of a volume", "full") == 1
    assert count("helix", "face") == count("helix", "full") == 2
    assert count("shells", "face") > 1
    assert count("links", "full") == 2
    assert count("spirals upon one another", "full") == 2


def test_spiral_is_one_object_and_checkerboard_depends_on_connectivity():
    assert in_blocks(spiral(25), (5, 5), connectivity="face").count == 1
    board = np.indices((12, 12)).sum(0) % 2 == 0
    assert in_blocks(board, (5, 5), connectivity="face").count == 72
    assert in_blocks(board, (5, 5), connectivity="full").count == 1


def test_contact_over_the_corner_of_four_blocks():
    mask = np.zeros((10, 10), bool)
    mask[4, 4] = mask[5, 5] = True
    assert in_blocks(mask, (5, 5), connectivity="full").count == 1
    assert in_blocks(mask, (5, 5), connectivity="face").count == 2
    assert in_blocks(mask[:, ::-1], (5, 5), connectivity="full").count == 1


def test_contact_over_the_corner_of_eight_blocks():
    mask = np.zeros((10, 10, 10), bool)
    mask[4, 5, 4] = mask[5, 4, 5] = True
    assert in_blocks(mask, (5, 5, 5), connectivity="full").count == 1
    assert in_blocks(mask, (5, 5, 5), connectivity="face").count == 2


def test_a_hole_that_touches_the_outside_by_a_corner_is_none():
    """Where objects connect by sides, the background connects by corners as well; scipy's
    binary_fill_holes takes sides for both."""
    mask = np.ones((7, 7), bool)
    mask[3, 3] = mask[2, 2] = mask[1, 1] = mask[0, 0] = False
    kept = whole(in_blocks(mask, (4, 4), connectivity="face", fill_holes=9))
    np.testing.assert_array_equal(kept > 0, mask)
    assert ndimage.binary_fill_holes(mask)[3, 3]
    # Objects that connect by corners: the background connects by sides.
    full = whole(in_blocks(mask, (4, 4), connectivity="full", fill_holes=9))
    np.testing.assert_array_equal(full > 0, ndimage.binary_fill_holes(mask))


def test_a_hole_is_filled_by_its_whole_area_not_by_its_part_in_a_block():
    mask = np.ones((11, 11), bool)
    mask[3:8, 3:8] = False
    assert whole(in_blocks(mask, (5, 5), connectivity="face", fill_holes=25)).all()
    kept = whole(in_blocks(mask, (5, 5), connectivity="face", fill_holes=24))
    np.testing.assert_array_equal(kept > 0, mask)
    open_to_border = mask.copy()
    open_to_border[5, :] = False
    found = in_blocks(open_to_border, (5, 5), connectivity="face", fill_holes=1000)
    np.testing.assert_array_equal(whole(found) > 0, open_to_border)


def test_min_size_counts_the_whole_object():
    mask = np.zeros((6, 12), bool)
    mask[2, 1:11] = True
    assert in_blocks(mask, (5, 5), connectivity="face", min_size=10).count == 1
    assert in_blocks(mask, (5, 5), connectivity="face", min_size=11).count == 0


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (3, 4, 5)])
def test_empty_and_full_masks(shape):
    block = (5,) * len(shape)
    empty = in_blocks(np.zeros(shape, bool), block, connectivity="face", fill_holes=100)
    assert empty.count == 0
    assert not whole(empty).any()
    assert (whole(in_blocks(np.ones(shape, bool), block, connectivity="full")) == 1).all()


def test_any_region_reads_as_the_whole(tmp_path):
    mask = np.random.default_rng(0).random((23, 31)) > 0.5
    grid = Grid(mask.shape, (5, 7))
    with scratch(tmp_path, grid) as temporary:
        found = components(
            lambda r: mask[r], grid, temporary, connectivity="face", fill_holes=3, threads=2
        )
        expected = reference(mask, "face", 0, 3)
        for region in [np.s_[0:23, 0:31], np.s_[4:6, 6:8], np.s_[22:23, 0:31], np.s_[9:20, 3:4]]:
            np.testing.assert_array_equal(found.read(region), expected[region])
    assert list(tmp_path.iterdir()) == []


def test_temporary_arrays_are_removed_after_a_failure(tmp_path):
    grid = Grid((10, 15), (5, 5))

    def work() -> None:
        with scratch(tmp_path, grid) as temporary:
            temporary.array()[0:5, 0:5] = np.ones((5, 5), np.uint32)
            assert len(list(tmp_path.iterdir())) == 1
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        work()
    assert list(tmp_path.iterdir()) == []


# --- growth


def by_definition(seeds: NDArray, reach: int) -> NDArray:
    """The nearest seed of each pixel within reach, the lowest id in a tie, by brute force."""
    out = np.zeros_like(seeds)
    places = np.argwhere(seeds > 0)
    for p in np.ndindex(seeds.shape):
        found = sorted((int(((q - p) ** 2).sum()), int(seeds[tuple(q)])) for q in places)
        if found and found[0][0] <= reach * reach:
            out[p] = found[0][1]
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        arrays(np.uint32, (9, 7), elements=st.sampled_from([0] * 9 + [1, 2, 3])),
        arrays(np.uint32, (4, 5, 3), elements=st.sampled_from([0] * 9 + [1, 2, 3])),
    ),
    st.integers(0, 6),
    st.data(),
)
def test_nearest_seed_is_the_definition(seeds, reach, data):
    starts = [data.draw(st.integers(0, n - 1)) for n in seeds.shape]
    stops = [data.draw(st.integers(a + 1, n)) for a, n in zip(starts, seeds.shape, strict=True)]
    inner = tuple(map(slice, starts, stops))
    wanted = data.draw(arrays(np.bool_, tuple(s.stop - s.start for s in inner)))
    expected = by_definition(seeds, reach)[inner][wanted]
    np.testing.assert_array_equal(nearest_seed(seeds, wanted, reach, inner), expected)


def test_nearest_seed_agrees_with_skimage_where_there_are_no_ties():
    seeds = np.zeros((40, 40), np.uint32)
    seeds[5:9, 6:12], seeds[20, 30], seeds[33:36, 3] = 1, 2, 3
    everything = (slice(0, 40), slice(0, 40))
    ours = nearest_seed(seeds, np.ones((40, 40), np.bool_), 7, everything).reshape(40, 40)
    distances = np.stack([ndimage.distance_transform_edt(seeds != i) for i in (1, 2, 3)])
    ties = (distances == distances.min(axis=0)).sum(axis=0) > 1
    np.testing.assert_array_equal(ours[~ties], expand_labels(seeds, 7)[~ties])


def probabilities_of(inside: NDArray, fore: NDArray) -> NDArray:
    """[3, ...] of background, inside, border with the given inside and foreground."""
    fore = np.maximum(fore, inside)
    return np.stack([1 - fore, inside, fore - inside]).astype(np.float32)


HEAD = ("background", "inside", "border")


def segmented(p: NDArray, block: tuple[int, ...], section: StitchSection) -> NDArray:
    grid = Grid(p.shape[1:], block)
    return whole(segment(lambda c, r: p[(c, *r)], grid, Memory(grid), HEAD, section, 0.5))


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(st.tuples(sizes, sizes), st.tuples(*[st.integers(1, 8)] * 3)).flatmap(
        lambda s: st.tuples(arrays(np.int8, s, elements=st.integers(0, 3)), st.just(s))
    ),
    st.data(),
    connectivities,
    st.integers(0, 5),
    st.integers(0, 12),
    st.integers(0, 4),
)
def test_growth_is_the_same_for_any_blocks(drawn, data, connectivity, reach, min_size, holes):
    kinds, shape = drawn
    p = probabilities_of((kinds == 3) * 0.9, (kinds > 0) * 0.8)
    section = StitchSection(
        method="grow",
        grow_px=reach,
        min_size=min_size,
        fill_holes=holes,
        connectivity=connectivity,
    )
    seeds = reference(kinds == 3, connectivity, 0, holes)
    grown = by_definition(seeds, reach)
    expected = np.where((seeds > 0) | (kinds > 0), grown, 0)
    expected = in_raster_order(dropped(expected, min_size))
    block = tuple(data.draw(st.integers(5, 18)) for _ in shape)
    np.testing.assert_array_equal(segmented(p, block, section), expected)


def test_grow_splits_touching_objects_where_components_does_not():
    inside = np.zeros((12, 20))
    inside[4:8, 3:8] = inside[4:8, 12:17] = 0.9
    fore = np.zeros((12, 20))
    fore[3:9, 2:18] = 0.9
    p = probabilities_of(inside, fore)
    grown = segmented(p, (5, 5), StitchSection(method="grow", grow_px=4, min_size=0))
    assert grown.max() == 2
    np.testing.assert_array_equal(grown > 0, fore > 0)
    # The seeds end in column 7 and start in column 12.
    assert (grown[5, 2:10] == 1).all()
    assert (grown[5, 10:18] == 2).all()
    together = segmented(p, (5, 5), StitchSection(method="components", min_size=0))
    assert together.max() == 1


# --- helpers


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), st.data())
def test_roots_are_the_smallest_members(number, data):
    member = st.integers(0, number - 1)
    pairs = data.draw(st.lists(st.tuples(member, member), max_size=60))
    expected = np.arange(number)
    for _ in range(number):
        for a, b in pairs:
            expected[[a, b]] = min(expected[a], expected[b])
    found = roots(number, np.array(pairs, np.int64).reshape(-1, 2))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_ordered_keeps_the_order_and_passes_errors_on(threads):
    assert list(ordered(lambda x: x * x, range(50), threads)) == [x * x for x in range(50)]
    with pytest.raises(ZeroDivisionError):
        list(ordered(lambda x: 1 // x, [2, 1, 0, 3], threads))


def test_grid_covers_the_image_once():
    grid = Grid((11, 6), (5, 5))
    seen = np.zeros((11, 6), int)
    for index in grid:
        seen[grid.region(index)] += 1
    assert (seen == 1).all()
    assert len(grid) == 6
    assert list(grid.touching(np.s_[4:6, 0:5])) == [(0, 0), (1, 0)]
    assert within(np.s_[5:10, 0:5], np.s_[3:8, 2:6]) == np.s_[2:5, 0:3]
    assert grid_of((100, 100), 1000).block == (1000, 1000)
    assert grid_of((100, 100, 100), 1000).block == (100, 100, 100)
    with pytest.raises(ValueError, match="do not fit"):
        Grid((0, 5), (5, 5))
