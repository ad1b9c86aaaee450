"""Images on another pixel grid: against scikit-image, for any regions, there and back."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from unet.data import resample
from unet.data.blocks import Grid
from unet.data.resample import Axis, Resampling, peak_bytes, pixel_sizes, resampling
from unet.data.tiling import Slices

Array = npt.NDArray[np.float32]


def image(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((2, *shape)).astype(np.float32)


def read_all(found: Resampling, data: Array, region: Slices | None = None) -> Array:
    region = region or tuple(slice(0, n) for n in found.shape)
    return found.read(lambda window: data[(slice(None), *window)], region)


@pytest.mark.parametrize(
    ("source", "target"),
    [((40, 61), (20, 61)), ((40, 61), (13, 90)), ((33, 20), (100, 7)), ((9, 30, 31), (18, 11, 31))],
)
def test_as_scikit_image(source: tuple[int, ...], target: tuple[int, ...]) -> None:
    data = image(source)
    sigma = [max(0.0, (a / b - 1) / 2) for a, b in zip(source, target, strict=True)]
    expected = resize(
        data[0], target, order=1, mode="symmetric", anti_aliasing=True, anti_aliasing_sigma=sigma
    )
    found = read_all(Resampling(tuple(map(Axis, source, target))), data)
    assert found.shape == (2, *target)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, atol=2e-6)


def test_by_hand() -> None:
    """Twice as fine: a quarter and three quarters between neighbours; the ends stay."""
    data = np.array([[[0.0, 4.0, 8.0]]], np.float32)
    finer = read_all(Resampling((Axis(1, 1), Axis(3, 6))), data)
    np.testing.assert_allclose(finer[0, 0], [0, 1, 3, 5, 7, 8])
    # Back, without the Gaussian: the mean of two neighbours each.
    back = Resampling((Axis(1, 1), Axis(3, 6))).back
    assert back.axes == (Axis(1, 1, smooth=False), Axis(6, 3, smooth=False))
    np.testing.assert_allclose(read_all(back, finer)[0, 0], [0.5, 4, 7.5])


@st.composite
def grids(draw: st.DrawFn) -> tuple[Resampling, Slices]:
    """A resampling of two or three axes, and a region of its target."""
    dims = draw(st.integers(2, 3))
    size = st.integers(1, 24)
    axes = tuple(Axis(draw(size), draw(size), draw(st.booleans())) for _ in range(dims))
    region = []
    for axis in axes:
        start = draw(st.integers(0, axis.target - 1))
        region.append(slice(start, draw(st.integers(start + 1, axis.target))))
    return Resampling(axes), tuple(region)


@given(grids(), st.integers(1, 200))
@settings(max_examples=150)
def test_a_pixel_is_the_same_whatever_the_region(
    case: tuple[Resampling, Slices], piece: int
) -> None:
    found, region = case
    data = image(tuple(axis.source for axis in found.axes))
    whole = read_all(found, data)
    seen: list[int] = []

    def read(window: Slices) -> Array:
        seen.append(math.prod(s.stop - s.start for s in window))
        return data[(slice(None), *window)]

    before, resample.SOURCE_VALUES = resample.SOURCE_VALUES, piece
    try:
        part = found.read(read, region)
    finally:
        resample.SOURCE_VALUES = before
    # To the last bit.
    assert np.array_equal(part, whole[(slice(None), *region)])
    # No more is read at once than one pixel needs, or the piece.
    least = math.prod(min(a.source, a.step + len(a.kernel) + 1) for a in found.axes)
    assert max(seen) <= max(piece, least)


@given(grids())
@settings(max_examples=60)
def test_constants_stay_and_nothing_overshoots(case: tuple[Resampling, Slices]) -> None:
    found, region = case
    shape = tuple(axis.source for axis in found.axes)
    flat = np.full((1, *shape), 0.7, np.float32)
    np.testing.assert_allclose(read_all(found, flat, region), 0.7, rtol=1e-6)
    p = image(shape)[:1]
    both = read_all(found, np.concatenate([p, 1 - p]), region)
    assert both.min() >= -1e-6
    assert both.max() <= 1 + 1e-6
    # Probabilities still sum to 1.
    np.testing.assert_allclose(both.sum(axis=0), 1, rtol=1e-5)


@pytest.mark.parametrize("target", [(30, 35), (60, 70), (118, 141), (240, 300)])
def test_there_and_back_keeps_what_is_smooth(target: tuple[int, int]) -> None:
    y, x = np.mgrid[:60, :70] / 9.0
    data = (np.sin(y) * np.cos(x)).astype(np.float32)[None]
    there = Resampling((Axis(60, target[0]), Axis(70, target[1])))
    again = read_all(there.back, read_all(there, data))
    assert again.shape == data.shape
    assert np.abs(again - data)[:, 3:-3, 3:-3].max() < 0.03


def test_what_is_finer_than_the_target_does_not_alias() -> None:
    """A pattern of one pixel becomes its mean, not another pattern."""
    data = (np.arange(64) % 2).astype(np.float32)[None, None]
    found = read_all(Resampling((Axis(1, 1), Axis(64, 19))), data)
    assert np.abs(found[0, 0, 2:-2] - 0.5).max() < 0.05


def test_pixel_sizes_decide() -> None:
    assert resampling((100, 100), (0.5, 0.5), (0.5, 0.504)) is None
    found = resampling((100, 201), (0.25, 0.5), (0.5, 0.5))
    assert found is not None
    assert found.shape == (50, 201)
    assert pixel_sizes(found, (0.25, 0.5)) == [0.5, 0.5]
    # Each axis alone; never less than a pixel; the extent stays.
    found = resampling((3, 30, 30), (0.1, 0.5, 0.5), (1.0, 0.5, 0.3))
    assert found is not None
    assert found.shape == (1, 30, 50)
    sizes = pixel_sizes(found, (0.1, 0.5, 0.5))
    assert sizes == pytest.approx([0.3, 0.5, 0.3])
    extents = [n * s for n, s in zip(found.shape, sizes, strict=True)]
    assert extents == pytest.approx([0.3, 15, 15])


def test_memory_does_not_grow_with_the_image() -> None:
    sizes = [Resampling((Axis(n, n // 2),) * 2) for n in (1 << 14, 1 << 20)]
    small, large = (peak_bytes(found, (512, 512), 1) for found in sizes)
    assert small == large
    parts = list(Grid((8192, 8192), (8192, 8192)).regions())
    found = sizes[1]
    for part in found._parts(parts[0]):
        needed = [found._needed(a, s.stop - s.start) for a, s in zip(found.axes, part, strict=True)]
        assert math.prod(needed) <= resample.SOURCE_VALUES
