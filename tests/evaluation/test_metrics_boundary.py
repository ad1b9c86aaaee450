"""Boundary F1, HD95 and average surface distance."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from unet.data.blocks import Grid
from unet.evaluation.metrics.boundary import (
    Distances,
    Outlines,
    Tolerance,
    boundary_metrics,
    outline,
)
from unet.evaluation.metrics.nearest import nearest
from unet.evaluation.metrics.surfaces import BlockOutlines, PointFiles, save_points

PX = Tolerance(2, "px")
POINTS = hnp.arrays(
    np.int32, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(0, 20)
)


def outlines(truth, pred):
    return Outlines(*(np.argwhere(outline(m) & m).astype(np.int32) for m in (truth, pred)))


def values(found, tolerance=PX, spacing=None):
    return {r.metric: r.value for r in boundary_metrics("cell", found, tolerance, spacing)}


def disc(centre, radius, shape=(48, 52)):
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) <= radius**2


# --- outlines


def test_outline_by_hand():
    labels = np.array([[1, 1, 1, 0, 0], [1, 1, 2, 0, 0], [1, 1, 2, 0, 0]])
    expected = np.array([[0, 0, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]], bool)
    # The border of the image is not an outline.
    np.testing.assert_array_equal(outline(labels), expected)


def test_ignored_pixels_make_no_outline():
    labels = np.array([[1, 1, 0, 0]])
    for k, expected in ((1, [0, 0, 0, 0]), (2, [0, 0, 0, 0]), (0, [0, 1, 1, 0])):
        valid = np.ones((1, 4), bool)
        valid[0, k] = False
        np.testing.assert_array_equal(outline(labels, valid), [expected])


def test_outline_is_the_region_without_its_erosion():
    from scipy.ndimage import binary_erosion

    for mask in (disc((20, 25), 11), disc((8, 9, 7), 5, (17, 18, 16))):
        np.testing.assert_array_equal(outline(mask) & mask, mask & ~binary_erosion(mask))


# --- by hand


def lines(gap):
    """Two outlines of ten points, ``gap`` pixels apart."""
    first = np.stack([np.zeros(10, np.int32), np.arange(10, dtype=np.int32)], axis=1)
    return Outlines(first, first + np.array([gap, 0], np.int32))


def test_parallel_lines():
    for gap, f1 in ((0, 1), (2, 1), (3, 0)):
        got = values(lines(gap))
        assert got == {
            "boundary_precision": f1,
            "boundary_recall": f1,
            "boundary_f1": f1,
            "hd95_px": gap,
            "asd_px": gap,
        }


def test_half_right():
    truth = lines(0).truth
    pred = np.concatenate([truth[:5], truth[:5] + np.array([100, 0], np.int32)]).astype(np.int32)
    got = values(Outlines(truth, pred), Tolerance(1, "px"))
    # Predicted: 5 of 10 lie on the truth; true: points 0 .. 5 have one within 1.
    assert got["boundary_precision"] == 0.5
    assert got["boundary_recall"] == 0.6
    assert got["boundary_f1"] == pytest.approx(2 * 0.5 * 0.6 / 1.1)
    assert got["asd_px"] == pytest.approx((5 * 100 + 1 + 2 + 3 + 4 + 5) / 20)


def test_micrometres_and_pixels():
    # Two pixels apart along y, which is 0.25 um long: 0.5 um.
    found = lines(2)
    rows = {r.metric: r for r in boundary_metrics("c", found, PX, (0.25, 0.1))}
    assert rows["hd95_um"].value == rows["asd_um"].value == pytest.approx(0.5)
    assert rows["boundary_f1"].value == 1
    assert rows["asd_um"].weight == 20
    assert values(found, Tolerance(0.5, "um"), (0.25, 0.1))["boundary_f1"] == 1
    assert values(found, Tolerance(0.4, "um"), (0.25, 0.1))["boundary_f1"] == 0
    # 0.1 * 3 is a little more than 0.3.
    assert values(lines(3), Tolerance(0.3, "um"), (0.1, 0.1))["boundary_f1"] == 1
    assert values(lines(3), Tolerance(3, "px"), (0.1, 0.1))["boundary_f1"] == 1
    with pytest.raises(ValueError, match="pixel size"):
        boundary_metrics("c", found, Tolerance(1, "um"))


def test_empty_outlines():
    some, none = lines(0).truth, np.empty((0, 2), np.int32)
    assert all(math.isnan(v) for v in values(Outlines(none, none)).values())
    added, missed = values(Outlines(none, some)), values(Outlines(some, none))
    assert added["boundary_f1"] == added["boundary_precision"] == 0
    assert missed["boundary_f1"] == missed["boundary_recall"] == 0
    for got, name in ((added, "boundary_recall"), (missed, "boundary_precision")):
        assert all(math.isnan(got[metric]) for metric in (name, "hd95_px", "asd_px"))


def test_tolerance_of_text():
    assert Tolerance.parse("2 px") == Tolerance(2, "px")
    assert Tolerance.parse("0.5 um") == Tolerance(0.5, "um")


# --- against other implementations


@settings(max_examples=200, deadline=None)
@given(
    dims=st.integers(2, 3), seed=st.integers(0, 999), number=st.integers(1, 300),
    side=st.one_of(st.integers(1, 12), st.integers(1, 150)),
    corner=st.integers(0, 3000), close=st.booleans(),
    scale=st.sampled_from([(1, 1, 1), (0.325,) * 3, (2, 0.7, 0.3), (0.01, 1.3, 2), (2, 0.3, 0.7)]),
)  # fmt: skip
def test_distances_are_those_of_a_tree(dims, seed, number, side, corner, close, scale):
    rng = np.random.default_rng(seed)
    points = rng.integers(corner, corner + side, (number, dims)).astype(np.int32)
    others = points + rng.integers(-2, 3, points.shape).astype(np.int32)
    if not close:
        others = rng.integers(corner, corner + side, (2 * number, dims)).astype(np.int32)
    scale = np.array(scale[:dims], np.float64)
    expected = cKDTree(others * scale).query(points * scale)[0]
    np.testing.assert_allclose(nearest(points, others, scale), expected, rtol=0, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(POINTS, POINTS, st.sampled_from([None, (1.0, 1.0), (0.5, 2.0), (0.3, 0.3)]))
def test_agrees_with_all_distances(truth, pred, spacing):
    scale = np.array(spacing or (1, 1))
    all_of = cdist(pred * scale, truth * scale)
    to_truth, to_pred = all_of.min(axis=1), all_of.min(axis=0)
    got = values(Outlines(truth, pred), PX, spacing)
    unit = "px" if spacing is None else "um"
    assert got[f"hd95_{unit}"] == pytest.approx(
        max(np.percentile(to_truth, 95), np.percentile(to_pred, 95))
    )
    assert got[f"asd_{unit}"] == pytest.approx(np.concatenate([to_truth, to_pred]).mean())
    near = cdist(pred, truth) <= 2
    assert got["boundary_precision"] == pytest.approx(near.any(axis=1).mean())
    assert got["boundary_recall"] == pytest.approx(near.any(axis=0).mean())


def test_hausdorff_distance_of_scikit_image_bounds_hd95():
    truth, pred = disc((20, 25), 11), disc((23, 27), 13)
    got = values(outlines(truth, pred))
    edges = [outline(m) & m for m in (truth, pred)]
    largest = hausdorff_distance(*edges)
    assert 0.8 * largest < got["hd95_px"] <= largest
    assert got["asd_px"] <= hausdorff_distance(*edges, method="modified") < got["hd95_px"]


@pytest.mark.filterwarnings("ignore:.*monai:FutureWarning")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("spacing", [None, (0.5, 0.2, 0.3)])
def test_agrees_with_monai(dims, spacing):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    shape = (48, 52) if dims == 2 else (14, 30, 32)
    truth = disc(np.array(shape) // 2, 6 if dims == 3 else 11, shape)
    pred = disc(np.array(shape) // 2 - 1, 5 if dims == 3 else 13, shape)
    spacing = None if spacing is None else spacing[:dims]
    got = values(outlines(truth, pred), PX, spacing)
    unit = "px" if spacing is None else "um"
    batch = [torch.as_tensor(m)[None, None] for m in (pred, truth)]
    options = {"include_background": True, "spacing": None if spacing is None else list(spacing)}
    theirs = metrics.compute_hausdorff_distance(*batch, percentile=95, **options)
    assert got[f"hd95_{unit}"] == pytest.approx(float(theirs), rel=1e-5)
    theirs = metrics.compute_average_surface_distance(*batch, symmetric=True, **options)
    assert got[f"asd_{unit}"] == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*monai:FutureWarning")
def test_the_edge_of_the_image_is_an_outline_for_monai_alone():
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    truth, pred = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    truth[:10], pred[:8] = True, True
    got = values(outlines(truth, pred), PX, None)
    # A straight edge across the image, shifted by two pixels.
    assert (got["hd95_px"], got["asd_px"]) == (2, 2)
    batch = [torch.as_tensor(m)[None, None] for m in (pred, truth)]
    options = {"include_background": True}
    theirs = metrics.compute_average_surface_distance(*batch, symmetric=True, **options)
    assert float(theirs) < 1
    theirs = metrics.compute_hausdorff_distance(*batch, percentile=95, **options)
    assert float(theirs) == 2


# --- in blocks


def in_files(folder, found, shape, block):
    """The points of the outlines, by blocks of the image."""
    grid, counts = Grid(shape, block), []
    folder.mkdir()
    for number, region in enumerate(grid.regions()):
        inside = [
            np.all(
                [(s.start <= p[:, a]) & (p[:, a] < s.stop) for a, s in enumerate(region)], axis=0
            )
            for p in found
        ]
        kinds = [p[keep] for p, keep in zip(found, inside, strict=True)]
        counts.append(save_points(folder, number, kinds))
    return PointFiles(folder, grid, np.array(counts, np.int64))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    truth=hnp.arrays(
        np.int32, st.tuples(st.integers(0, 6), st.just(2)), elements=st.integers(0, 29)
    ),
    pred=hnp.arrays(
        np.int32, st.tuples(st.integers(0, 30), st.just(2)), elements=st.integers(0, 29)
    ),
    block=st.tuples(st.integers(1, 31), st.integers(1, 31)),
    spacing=st.sampled_from([None, (0.5, 2.0), (0.3, 0.3), (3.0, 1.0)]),
)
def test_blocks_change_nothing(tmp_path, truth, pred, block, spacing):
    whole = Outlines(truth, pred)
    with TemporaryDirectory(dir=tmp_path) as folder:
        files = in_files(Path(folder, "points"), whole, (30, 30), block)
        got = values(BlockOutlines(files, 0, 1), PX, spacing)
    expected = values(whole, PX, spacing)
    assert got == pytest.approx(expected, nan_ok=True, rel=1e-9)


def test_blocks_of_a_volume(tmp_path):
    rng = np.random.default_rng(0)
    whole = Outlines(*(rng.integers(0, (12, 40, 40), (n, 3)).astype(np.int32) for n in (50, 400)))
    files = in_files(tmp_path / "points", whole, (12, 40, 40), (4, 8, 16))
    assert values(BlockOutlines(files, 0, 1, threads=2), PX, (2.0, 0.5, 0.5)) == pytest.approx(
        values(whole, PX, (2.0, 0.5, 0.5)), rel=1e-9
    )


@given(hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 9)), st.integers(0, 100))
def test_percentile_of_counted_distances(numbers, share):
    half = len(numbers) // 2
    found = Distances.merged(
        [Distances.of(np.sqrt(part)) for part in (numbers[:half], numbers[half:])]
    )
    assert found.number == len(numbers)
    assert found.percentile(share) == pytest.approx(
        np.percentile(np.sqrt(numbers), share), abs=1e-9
    )
    assert found.total == pytest.approx(np.sqrt(numbers).sum())
    assert found.within(2.0) == (numbers <= 4).sum()
