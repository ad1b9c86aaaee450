"""Statistics against numpy on the whole image; every method by hand; degenerate images."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unet.config.sections import NormalizeSection
from unet.data import normalize
from unet.data.normalize import NORMALIZE_METHODS, ImageStatistics, describe, statistics_to_params

Array = npt.NDArray[Any]
PERCENTS = (0.0, 1.0, 37.5, 50.0, 99.8, 100.0)
SECTION = NormalizeSection()
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "bool"]


def statistics_of(image: Array, percents: tuple[float, ...] = PERCENTS, parts: int = 1) -> Any:
    """Fed in ``parts`` blocks along the last axis, both passes."""
    found = ImageStatistics(image.shape[0], image.dtype)
    blocks = np.array_split(image, parts, axis=-1)
    for block in blocks:
        found.update(block)
    found.select(*percents)
    for block in blocks:
        found.refine(block)
    return found


def images(dtype: str, **elements: Any) -> st.SearchStrategy[Array]:
    shape = hnp.array_shapes(min_dims=2, max_dims=4, max_side=9)
    if dtype.startswith("float"):
        elements = {"allow_nan": False, "allow_infinity": False, **elements}
    kind = hnp.from_dtype(np.dtype(dtype), **elements)
    return hnp.arrays(dtype, shape, elements=kind)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_agrees_with_numpy_on_the_whole_image_for_any_cut(dtype: str, data: Any) -> None:
    image = data.draw(images(dtype))
    if dtype.startswith("float"):
        image = np.clip(image, -1e6, 1e6)
    found = statistics_of(image, parts=data.draw(st.integers(1, 4)))
    flat = image.reshape(image.shape[0], -1).astype(np.float64)
    # 64-bit values are known to 2**-20 of themselves, everything else exactly; interpolation
    # between two ranks has numpy's own formula.
    rtol = 2.0**-20 if dtype == "float64" else 0.0
    for percent in PERCENTS:
        expected = np.percentile(flat, percent, axis=1)
        slack = rtol * np.abs(flat).max(axis=1) + (1e-307 if rtol else 0)
        assert (np.abs(found.percentile(percent) - expected) <= slack).all()
    summary = found.summary(1, 99.8)
    np.testing.assert_array_equal(summary["min"], flat.min(axis=1))
    np.testing.assert_array_equal(summary["max"], flat.max(axis=1))
    size = np.abs(flat).max(axis=1) + 1e-300
    assert (np.abs(summary["mean"] - flat.mean(axis=1)) <= 1e-12 * size).all()
    # Squares of values below 1e-160 are lost, numpy's too.
    assert (np.abs(summary["sd"] - flat.std(axis=1)) <= 1e-7 * size + 1e-160).all()


def test_percentiles_of_unsigned_integers_are_numpys_to_the_last_bit(
    rng: np.random.Generator,
) -> None:
    image = rng.integers(0, 65536, (2, 61, 53)).astype(np.uint16)
    found = statistics_of(image)
    for percent in np.linspace(0, 100, 201):
        expected = np.percentile(image.reshape(2, -1), percent, axis=1)
        np.testing.assert_array_equal(found.percentile(float(percent)), expected)


def test_outliers_do_not_blur_the_percentiles_of_floats(rng: np.random.Generator) -> None:
    image = rng.normal(size=(1, 100, 100)).astype(np.float32)
    image[0, 0, 0] = 1e30
    found = statistics_of(image)
    expected = np.percentile(image.astype(np.float64), 50)
    assert found.percentile(50)[0] == expected


def test_stable_far_from_zero() -> None:
    image = (1e8 + np.arange(4, dtype=np.float64)).reshape(1, 2, 2)
    assert statistics_of(image, parts=2).summary(1, 99.8)["sd"][0] == pytest.approx(1.25**0.5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "uint32"])
def test_merged_images_are_one_image(dtype: str, rng: np.random.Generator) -> None:
    whole = (rng.random((2, 6, 40)) * 100).astype(dtype)
    total = ImageStatistics(2, dtype)
    for part in (whole[..., :7], whole[..., 7:30], whole[..., 30:]):
        one = total.blank()
        one.update(part)
        total.merge(one)
    total.select(1, 99)
    for part in (whole[..., :20], whole[..., 20:]):
        one = total.blank()
        one.refine(part)
        total.merge(one)
    expected = statistics_of(whole, (1, 99)).summary(1, 99)
    for name, value in total.summary(1, 99).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-14, err_msg=name)


def test_common_type_of_a_dataset_takes_narrower_blocks() -> None:
    found = ImageStatistics(1, np.result_type("uint8", "uint16"))
    found.update(np.array([[0, 255]], np.uint8))
    found.update(np.array([[65535]], np.uint16))
    assert found.percentile(50)[0] == 255
    with pytest.raises(ValueError, match="float32 does not fit statistics of uint16"):
        found.update(np.ones((1, 2), np.float32))


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="complex64"):
        ImageStatistics(1, np.complex64)
    with pytest.raises(ValueError, match="2 channels, not 1"):
        ImageStatistics(1, np.uint8).update(np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="cannot be merged"):
        ImageStatistics(1, np.uint8).merge(ImageStatistics(2, np.uint8))
    unrefined = ImageStatistics(1, np.float32)
    unrefined.update(np.ones((1, 3), np.float32))
    with pytest.raises(ValueError, match="second pass"):
        unrefined.percentile(50)


# One channel, values 0 10 20 30 40: 1 % -> 0.4, 99.8 % -> 39.92, mean 20, sd sqrt(200).
HAND = {
    "percentile": (0.4, 39.52),
    "minmax": (0.0, 40.0),
    "zscore": (20.0, 200.0**0.5),
    "none": (0.0, 1.0),
}


@pytest.mark.parametrize("method", NORMALIZE_METHODS)
def test_methods_by_hand(method: str) -> None:
    image = np.array([[[0, 10, 20, 30, 40]]], np.uint8)
    section = NormalizeSection(method=method)  # type: ignore[arg-type]
    stored = describe(statistics_of(image), section)
    shift, scale = HAND[method]
    assert stored["shift"] == pytest.approx([shift])
    assert stored["scale"] == pytest.approx([scale])
    assert (stored["method"], stored["min"], stored["max"]) == (method, [0], [40])
    assert stored["mean"] == [20]
    assert json.loads(json.dumps(stored, allow_nan=False)) == stored
    result = normalize.apply(image, stored)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (image - shift) / scale, rtol=1e-6, atol=1e-6)


def test_channels_are_independent() -> None:
    image = np.array([[[0, 10]], [[100, 300]]], np.uint16)
    stored = describe(statistics_of(image), NormalizeSection(method="minmax"))
    np.testing.assert_array_equal(normalize.apply(image, stored), [[[0, 1]], [[0, 1]]])
    with pytest.raises(ValueError, match="2 channels in params, 1 in block"):
        normalize.apply(image[:1], stored)


def test_uint16_full_range() -> None:
    image = np.array([[[0, 65535]]], np.uint16)
    stored = describe(statistics_of(image), NormalizeSection(method="minmax"))
    np.testing.assert_array_equal(normalize.apply(image, stored), [[[0, 1]]])


def test_large_32_bit_values_keep_their_differences() -> None:
    image = (np.uint32(4_000_000_000) + np.arange(3, dtype=np.uint32)).reshape(1, 1, 3)
    stored = describe(statistics_of(image), NormalizeSection(method="minmax"))
    np.testing.assert_array_equal(normalize.apply(image, stored), [[[0, 0.5, 1]]])


@pytest.mark.parametrize("method", ["percentile", "zscore", "minmax"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_constant_image_becomes_zero(method: str, dtype: str) -> None:
    image = np.full((1, 7, 5), 0.1 if dtype.startswith("float") else 77, dtype)
    stored = describe(statistics_of(image, parts=3), NormalizeSection(method=method))  # type: ignore[arg-type]
    assert stored["scale"] == [1]
    np.testing.assert_array_equal(normalize.apply(image, stored), np.zeros((1, 7, 5)))


def test_sparse_signal_takes_the_whole_range_as_scale() -> None:
    image = np.zeros((1, 100, 100), np.uint16)
    image[0, 0, :5] = 5000  # 0.05 %: both percentiles are background
    stored = describe(statistics_of(image), SECTION)
    assert (stored["shift"], stored["scale"]) == ([0], [5000])


def test_not_finite_values_are_left_out_and_become_zero() -> None:
    image = np.array([[[np.nan, 0, 4, np.inf, -np.inf]]], np.float32)
    found = statistics_of(image)
    assert found.non_finite == 3
    stored = describe(found, NormalizeSection(method="minmax"))
    np.testing.assert_array_equal(normalize.apply(image, stored), [[[0, 0, 1, 0, 0]]])


def test_nothing_but_nan_is_zero() -> None:
    image = np.full((1, 2, 2), np.nan, np.float32)
    stored = describe(statistics_of(image), SECTION)
    assert json.dumps(stored, allow_nan=False)
    np.testing.assert_array_equal(normalize.apply(image, stored), np.zeros((1, 2, 2)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", NORMALIZE_METHODS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
@example(data=None)
def test_result_is_always_finite(dtype: str, method: str, data: Any) -> None:
    """Whatever the floats: NaN, infinities, subnormals, the whole exponent range."""
    kind = images(dtype, allow_nan=True, allow_infinity=True)
    image = widest(dtype) if data is None else data.draw(kind)
    found = statistics_of(image, (SECTION.low, SECTION.high))
    params = statistics_to_params(method, found.summary(SECTION.low, SECTION.high))
    assert np.isfinite(params["shift"]).all()
    assert (np.isfinite(params["scale"]) & (np.array(params["scale"]) > 0)).all()
    assert np.isfinite(normalize.apply(image, params)).all()


@pytest.mark.parametrize(
    ("method", "expected"),
    [("minmax", [0, 1, 1]), ("zscore", [-(2**0.5), 0.5**0.5, 0.5**0.5]), ("percentile", [0, 1, 1])],
)
def test_the_widest_range_is_normalised_like_any_other(method: str, expected: list[float]) -> None:
    image = widest("float64")
    stored = describe(statistics_of(image), NormalizeSection(method=method))  # type: ignore[arg-type]
    np.testing.assert_allclose(normalize.apply(image, stored)[0], expected, atol=0.05)


def widest(dtype: str) -> Array:
    """An image [1, 3] of the two ends of a type, whose difference the type cannot hold."""
    ends = np.finfo(dtype)
    return np.array([[ends.min, ends.max, ends.max]], dtype)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
