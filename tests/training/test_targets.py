"""Border weights, border classes and distances against the formulas written out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from unet.config.heads import IGNORE
from unet.training.targets import (
    BORDER_TOLERANCE,
    balanced_class_weights,
    border_class_margin,
    border_classes,
    border_weight_map,
    border_weight_margin,
    distance_margin,
    object_distance,
    signed_distances,
)

Array = NDArray[Any]

few_objects = hnp.arrays(
    np.uint32,
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9),
    elements=st.sampled_from([0, 0, 0, 1, 2, 3, 2**32 - 1]),
)


def brute_weights(
    instances: Array, w0: float, sigma: float, spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """Eq. 2 with wc = 1: every background pixel against every border pixel of every cell."""
    scale = np.array(spacing)
    points = np.argwhere(instances == 0) * scale
    distances = []
    for cell in np.unique(instances[instances > 0]):
        inside = np.pad(instances == cell, 1)
        core = inside.copy()
        for axis, shift in itertools.product(range(instances.ndim), (-1, 1)):
            core &= np.roll(inside, shift, axis)
        border = (np.argwhere(inside & ~core) - 1) * scale
        squares = ((points[:, None] - border[None]) ** 2).sum(-1)
        distances.append(np.sqrt(squares).min(1))
    weights = np.ones(instances.shape)
    if len(distances) >= 2:
        nearest = np.sort(distances, axis=0)[:2].sum(0)
        weights[instances == 0] += w0 * np.exp(-(nearest**2) / (2 * sigma**2))
    return weights


def brute_classes(instances: Array, width: int, ignore: Array) -> Array:
    classes = np.zeros(instances.shape, np.uint8)
    pixels = list(np.ndindex(instances.shape))
    for pixel in pixels:
        if ignore[pixel]:
            classes[pixel] = 255
        elif instances[pixel]:
            classes[pixel] = 1 + any(
                instances[other] != instances[pixel]
                and not ignore[other]
                and math.dist(pixel, other) <= width
                for other in pixels
            )
    return classes


def discs(size: int, number: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    instances = np.zeros((size, size), np.uint32)
    for cell in range(1, number + 1):
        centre_y, centre_x, radius = *rng.integers(0, size, 2), rng.integers(3, 8)
        disc = (y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2
        instances[disc & (instances == 0)] = cell
    return instances


# border_weight_map


def test_weight_by_hand() -> None:
    # One row: cells at 0 and 4. Between them d1 + d2 = 4, beyond the second 1 + 5, 2 + 6, ...
    row = np.array([[7, 0, 0, 0, 9, 0, 0]], np.uint16)
    sums = np.array([np.inf, 4, 4, 4, np.inf, 6, 8])
    expected = 1 + 10 * np.exp(-(sums**2) / 50)
    weights = border_weight_map(row)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights[0], expected, atol=3e-6)


def test_class_weights_are_wc() -> None:
    row = np.array([[1, 0, 2, 0]], np.uint8)
    weights = border_weight_map(row, class_weights=(0.5, 3.0))
    border = 10 * np.exp(-(np.array([2.0, 4.0]) ** 2) / 50)
    np.testing.assert_allclose(weights[0], [3, 0.5 + border[0], 3, 0.5 + border[1]], rtol=1e-6)


@pytest.mark.parametrize("ids", [[0, 0, 0], [5, 5, 5], [0, 5, 0]])
def test_fewer_than_two_cells_have_no_border_term(ids: list[int]) -> None:
    assert (border_weight_map(np.array([ids], np.int64)) == 1).all()


def test_empty_image() -> None:
    assert border_weight_map(np.zeros((0, 4), np.uint32)).shape == (0, 4)
    assert border_classes(np.zeros((0, 4), np.uint32)).shape == (0, 4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.7), (0.5, 1.5)])
def test_weight_map_equals_formula_on_discs(spacing: tuple[float, float]) -> None:
    # Sigma 2: the reach of 11 is far smaller than the image, so the cut-off is tested too.
    instances = discs(56, 18)
    expected = brute_weights(instances, 10.0, 2.0, spacing)
    weights = border_weight_map(instances, 10.0, 2.0, spacing=spacing)
    np.testing.assert_allclose(weights, expected, atol=BORDER_TOLERANCE + 2e-6)
    assert weights.max() > 4


@given(few_objects, st.sampled_from([(10.0, 5.0), (3.0, 0.8), (0.0, 1.0)]), st.data())
@settings(deadline=None, max_examples=60)
def test_weight_map_equals_formula(
    instances: Array, shape_of_term: tuple[float, float], data: st.DataObject
) -> None:
    spacing = tuple(data.draw(st.sampled_from([1.0, 0.5, 3.0])) for _ in range(instances.ndim))
    expected = brute_weights(instances, *shape_of_term, spacing)
    weights = border_weight_map(instances, *shape_of_term, spacing=spacing)
    np.testing.assert_allclose(weights, expected, atol=BORDER_TOLERANCE + 3e-6)


def test_weight_map_does_not_depend_on_the_size_of_ids() -> None:
    instances = discs(40, 9)
    large = instances.astype(np.uint64) * 10**15
    np.testing.assert_array_equal(border_weight_map(instances), border_weight_map(large))


def test_large_ids_without_background() -> None:
    instances = np.full((4, 4), 2**40, np.uint64)
    assert (border_weight_map(instances, class_weights=(1, 2)) == 2).all()


def test_patch_with_margin_equals_whole_image() -> None:
    instances = discs(80, 30)
    (margin,) = border_weight_margin(10.0, 2.0)
    inner = slice(margin + 5, -margin - 9)
    patch = instances[5:-9, 5:-9]
    # Class weights of 0 leave the border term alone.
    whole = border_weight_map(instances, 10.0, 2.0, (0, 0))[inner, inner]
    cut = border_weight_map(patch, 10.0, 2.0, (0, 0))[margin:-margin, margin:-margin]
    np.testing.assert_array_equal(cut, whole)
    assert whole.size > 1000
    assert whole.max() > 4
    assert whole[whole > 0].min() >= 0.999 * BORDER_TOLERANCE


def test_margin_is_where_the_term_vanishes() -> None:
    (margin,) = border_weight_margin(10.0, 5.0)
    assert margin == 27
    # The closest sum of distances beyond the margin: 1 to the nearest, margin + 1 to the second.
    assert 10 * math.exp(-((1 + margin + 1) ** 2) / 50) < BORDER_TOLERANCE
    assert 10 * math.exp(-((1 + margin) ** 2) / 50) >= BORDER_TOLERANCE
    assert border_weight_margin(10.0, 5.0, (1.0, 0.5)) == (27, 55)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma > 0"),
        ({"w0": -1.0}, "w0 >= 0"),
        ({"spacing": 0.0}, "positive"),
        ({"spacing": (1.0, 1.0, 1.0)}, "3 numbers for 2 axes"),
        ({"class_weights": (1.0,)}, "two numbers"),
        ({"class_weights": (1.0, -1.0)}, "two numbers"),
        ({"instances": np.zeros((2, 2), np.float32)}, "integer"),
        ({"instances": np.full((2, 2), -1)}, "negative"),
    ],
)
def test_weight_map_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        border_weight_map(**{"instances": np.zeros((2, 2), np.uint8), **change})


def test_balanced_class_weights() -> None:
    weights = balanced_class_weights([60, 30, 10, 0])
    np.testing.assert_allclose(weights, [100 / 180, 100 / 90, 100 / 30, 0])
    assert np.dot(weights, [60, 30, 10, 0]) == pytest.approx(100)
    for counts in ([], [0, 0], [1, -1]):
        with pytest.raises(ValueError, match="counts"):
            balanced_class_weights(counts)


# border_classes


def test_classes_by_hand() -> None:
    instances = np.zeros((9, 9), np.uint32)
    instances[1:8, 1:8] = 4
    expected = np.zeros((9, 9), np.uint8)
    expected[1:8, 1:8] = 2
    expected[3:6, 3:6] = 1
    np.testing.assert_array_equal(border_classes(instances, width=2), expected)


def test_touching_objects_and_image_edge() -> None:
    instances = np.array([[1, 1, 1, 2, 2, 2]], np.uint8)
    np.testing.assert_array_equal(border_classes(instances, 1), [[1, 1, 2, 2, 1, 1]])
    np.testing.assert_array_equal(border_classes(instances, 0), [[1] * 6])


def test_distance_is_euclidean() -> None:
    instances = np.ones((9, 9), np.uint8)
    instances[4, 4] = 0
    y, x = np.mgrid[-4:5, -4:5]
    expected = np.where(y**2 + x**2 <= 9, 2, 1)
    expected[4, 4] = 0
    np.testing.assert_array_equal(border_classes(instances, 3), expected)


def test_ignored_pixels_make_no_border() -> None:
    instances = np.array([[0, 1, 1, 1, 0, 0]], np.uint32)
    ignore = np.array([[False, False, False, False, True, False]])
    expected = [[0, 2, 1, 1, IGNORE, 0]]
    np.testing.assert_array_equal(border_classes(instances, 1, ignore), expected)


@given(few_objects, st.integers(0, 4), st.data())
@settings(deadline=None, max_examples=60)
def test_classes_equal_definition(instances: Array, width: int, data: st.DataObject) -> None:
    flat = instances.reshape(-1)[:120].reshape(1, -1) if instances.size > 120 else instances
    ignore = data.draw(hnp.arrays(np.bool_, flat.shape))
    before = flat.copy()
    classes = border_classes(flat, width, ignore)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, brute_classes(flat, width, ignore))
    np.testing.assert_array_equal(flat, before)


def test_classes_of_patch_with_margin() -> None:
    instances = discs(50, 12)
    margin = border_class_margin(3)
    cut = border_classes(instances[4:40, 4:40], 3)[margin:-margin, margin:-margin]
    whole = border_classes(instances, 3)[4 + margin : 40 - margin, 4 + margin : 40 - margin]
    np.testing.assert_array_equal(cut, whole)


def test_classes_refuse() -> None:
    ids = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="width"):
        border_classes(ids, -1)
    with pytest.raises(ValueError, match="integer"):
        border_classes(ids.astype(float))
    with pytest.raises(ValueError, match="shape"):
        border_classes(ids, 1, np.zeros((3, 2), bool))


# signed_distances and object_distance

few_classes = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=5),
    elements=st.sampled_from([0, 0, 1, 2, IGNORE]),
)
steps = st.sampled_from([1.0, 0.5, 3.0])


def brute_nearest(here: Array, there: Array, spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance of each pixel to the nearest pixel of `there`, inf where `here` is False."""
    result = np.full(here.shape, np.inf)
    targets = np.argwhere(there) * np.array(spacing)
    for pixel in np.argwhere(here):
        if len(targets):
            squares = ((targets - pixel * np.array(spacing)) ** 2).sum(1)
            result[tuple(pixel)] = np.sqrt(squares.min())
    return result


def test_signed_distances_by_hand() -> None:
    row = np.array([[0, 0, 0, 1, 1, IGNORE, 2]], np.uint8)
    phi = signed_distances(row, 4, limit=2.5)
    assert phi.dtype == np.float32
    expected = [
        [-2.5, -2, -1, 1, 2, 0, 2.5],
        [2.5, 2, 1, -1, -2, 0, 2],
        [2.5, 2.5, 2.5, 2.5, 2, 0, -2],
        [2.5, 2.5, 2.5, 2.5, 2.5, 0, 2.5],
    ]
    np.testing.assert_array_equal(phi[:, 0], expected)


@pytest.mark.parametrize(("value", "expected"), [(0, [-9, 9]), (1, [9, -9]), (IGNORE, [0, 0])])
def test_signed_distances_of_one_class(value: int, expected: list[float]) -> None:
    phi = signed_distances(np.full((3, 4), value, np.uint8), 2, limit=9.0)
    np.testing.assert_array_equal(phi[:, 0, 0], expected)
    assert (phi == phi[:, :1, :1]).all()


@given(few_classes, st.sampled_from([0.8, 2.0, 50.0]), st.data())
@settings(deadline=None, max_examples=60)
def test_signed_distances_equal_definition(
    classes: Array, limit: float, data: st.DataObject
) -> None:
    spacing = tuple(data.draw(steps) for _ in range(classes.ndim))
    phi = signed_distances(classes, 3, limit, spacing)
    known = classes != IGNORE
    for number in range(3):
        inside = classes == number
        outside = known & ~inside
        expected = np.minimum(brute_nearest(outside, inside, spacing), limit) * outside
        expected -= np.minimum(brute_nearest(inside, outside, spacing), limit) * inside
        np.testing.assert_allclose(phi[number], expected, rtol=1e-6)


def test_object_distance_by_hand() -> None:
    # Two objects that touch, the first cut by the image's edge; the last pixel is unknown.
    row = np.array([[1, 1, 1, 1, 2, 2, 0, 3, 3, 3]], np.uint16)
    ignore = np.zeros(row.shape, bool)
    ignore[0, -1] = True
    distance = object_distance(row, limit=4.0, ignore=ignore)
    assert distance.dtype == np.float32
    np.testing.assert_array_equal(distance, [[1, 0.75, 0.5, 0.25, 0.25, 0.25, 0, 0.25, 0.5, 0]])


def test_an_object_that_fills_the_image_is_far_from_any_edge() -> None:
    ids = np.full((4, 5), 2**40, np.uint64)
    assert (object_distance(ids) == 1).all()
    assert (object_distance(ids * 0) == 0).all()
    assert (object_distance(ids, ignore=np.ones((4, 5), bool)) == 0).all()


def test_distances_of_an_empty_image() -> None:
    assert object_distance(np.zeros((0, 4), np.uint32)).shape == (0, 4)
    assert signed_distances(np.zeros((0, 4), np.uint8), 2).shape == (2, 0, 4)


@given(few_objects, st.sampled_from([0.8, 2.0, 50.0]), st.booleans(), st.data())
@settings(deadline=None, max_examples=60)
def test_object_distance_equals_definition(
    instances: Array, limit: float, some: bool, data: st.DataObject
) -> None:
    instances = instances[tuple(slice(5) for _ in instances.shape)]
    spacing = tuple(data.draw(steps) for _ in range(instances.ndim))
    ignore = data.draw(hnp.arrays(np.bool_, instances.shape)) if some else None
    before = instances.copy()
    distance = object_distance(instances, limit, ignore, spacing)
    known = np.ones(instances.shape, bool) if ignore is None else ~ignore
    expected = np.zeros(instances.shape)
    for cell in np.unique(instances[instances > 0]):
        inside = known & (instances == cell)
        nearest = brute_nearest(inside, known & (instances != cell), spacing)
        expected[inside] = np.minimum(nearest, limit)[inside] / limit
    np.testing.assert_allclose(distance, expected, rtol=1e-6)
    np.testing.assert_array_equal(instances, before)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.7)])
def test_distances_of_patch_with_margin(spacing: tuple[float, float]) -> None:
    instances = discs(64, 14)
    rng = np.random.default_rng(0)
    ignore = rng.random(instances.shape) < 0.1
    classes = np.where(ignore, IGNORE, np.minimum(instances, 2)).astype(np.uint8)
    margins = distance_margin(6.0, spacing)
    patch = (slice(5, 55), slice(3, 60))
    inner = tuple(slice(m, -m) for m in margins)
    for cut, whole in (
        (
            object_distance(instances[patch], 6.0, ignore[patch], spacing)[inner],
            object_distance(instances, 6.0, ignore, spacing)[patch][inner],
        ),
        (
            signed_distances(classes[patch], 3, 6.0, spacing)[:, *inner],
            signed_distances(classes, 3, 6.0, spacing)[:, *patch][:, *inner],
        ),
    ):
        np.testing.assert_array_equal(cut, whole)
        assert len(np.unique(whole)) > 10


def test_distance_margin() -> None:
    assert distance_margin(10.0) == (10,)
    assert distance_margin(6.0, (2.0, 0.7)) == (3, 8)


def test_distances_refuse() -> None:
    ids = np.zeros((2, 2), np.uint8)
    for limit in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="limit"):
            object_distance(ids, limit)
        with pytest.raises(ValueError, match="limit"):
            signed_distances(ids, 2, limit)
    with pytest.raises(ValueError, match="needs 0 to 1"):
        signed_distances(ids + 2, 2)
    with pytest.raises(ValueError, match="integer"):
        object_distance(ids.astype(float))
    with pytest.raises(ValueError, match="shape"):
        object_distance(ids, ignore=np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="positive"):
        object_distance(ids, spacing=(1.0, 0.0))
