"""Facts about the pixels of an image, and fingerprints of images that look alike."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.data.survey.surveyed import scene
from unet.data.records import ImageRecord, SplitRecord
from unet.data.survey.alike import alike_images, correlations, follow_each_other
from unet.data.survey.facts import SurveyedImage
from unet.data.survey.fingerprints import Thumbnail, borders_of, perceptual_hash
from unet.data.survey.image_facts import (
    bits_of,
    middle,
    pixel_facts,
    saturated_share,
    sharpness_of,
)
from unet.data.survey.judge_facts import BLUR_FACTOR, blurred_among
from unet.data.survey.measure import Measured, spread
from unet.data.synthetic import generate
from unet.io.axes import LazyImage
from unet.io.raw import lazily


def opened(image: np.ndarray, chunks: tuple[int, ...] | None = None) -> LazyImage:
    """An image [C, (Z,) Y, X] in chunks."""
    array: Any = lazily(image, image.shape).rechunk(chunks or image.shape)
    axes = "CYX" if image.ndim == 3 else "CZYX"
    return LazyImage(axes, image.shape, image.dtype, None, ("",) * len(image), array)


def field(seed: int, shape: tuple[int, int] = (128, 160)) -> np.ndarray:
    """A smooth random image uint16, with details of a few pixels."""
    noise = np.random.default_rng(seed).normal(0, 1, shape)
    smooth = ndimage.gaussian_filter(noise, 3)
    return (20_000 + 5_000 * smooth / smooth.std()).clip(0, 65535).astype(np.uint16)


def measured(name: str, image: np.ndarray) -> Measured:
    facts = pixel_facts(opened(image[None]))
    record = ImageRecord(id=name, image=f"{name}.tif", shape=(1, *image.shape))
    return Measured(record, facts, borders_of(image), None, {})


def test_percentiles_and_limits() -> None:
    image = np.arange(10_000, dtype=np.uint16).reshape(1, 100, 100) % 4096
    image[0, :10] = 4095
    facts = pixel_facts(opened(image))
    assert facts.largest == 4095
    assert facts.median == (float(np.median(image)),)
    assert facts.at_limit[4095] == np.mean(image == 4095)
    assert facts.at_limit[65535] == 0
    assert saturated_share(facts.at_limit, facts.largest) == facts.at_limit[4095]
    # 4095 is not the limit of a camera that also gives 5000.
    assert saturated_share(facts.at_limit, 5000) == 0
    assert saturated_share(pixel_facts(opened(image / 4095)).at_limit, 1.0) is None


@pytest.mark.parametrize(
    ("largest", "dtype", "bits"),
    [
        (4095, "uint16", 12),
        (255, "uint16", 8),
        (375, "uint16", 9),
        (65535, "uint16", None),
        (255, "uint8", None),
        (17, "uint8", None),
        (0, "uint16", 1),
        (1.0, "float32", None),
    ],
)
def test_bits(largest: float, dtype: str, bits: int | None) -> None:
    assert bits_of(largest, dtype) == bits


@settings(max_examples=20)
@given(st.integers(11, 70), st.integers(11, 70), st.integers(1, 2))
def test_facts_do_not_depend_on_blocks(y: int, x: int, c: int) -> None:
    image = np.stack([field(0, (70, 90)), field(1, (70, 90))])
    whole, blocks = pixel_facts(opened(image)), pixel_facts(opened(image, (c, y, x)))
    for name in ("low", "median", "high", "largest", "at_limit", "sharpness", "digest", "region"):
        assert getattr(whole, name) == getattr(blocks, name)
    assert np.array_equal(whole.thumbnail, blocks.thumbnail)
    assert np.array_equal(whole.pixels, blocks.pixels)


def test_a_thumbnail_is_the_mean_of_its_cells() -> None:
    image = field(3, (128, 192))
    thumbnail = Thumbnail(image.shape)
    thumbnail.add((0, 0), image)
    cells = image.reshape(64, 2, 64, 3).mean(axis=(1, 3))
    assert np.allclose(thumbnail.pixels, cells)
    volume = Thumbnail((2, 128, 192))
    volume.add((0, 0, 0), np.stack([image, image]))
    assert np.allclose(volume.pixels, cells)


def test_only_a_region_of_a_large_image_is_kept() -> None:
    image = field(0, (100, 200))
    facts = pixel_facts(opened(image[None]), region_pixels=5000)
    assert facts.region == (slice(25, 75), slice(50, 150))
    assert np.array_equal(facts.pixels, image[facts.region])
    assert middle((3, 10, 10), 100) == (slice(0, 3), slice(2, 7), slice(2, 7))


@given(st.floats(0.01, 100), st.floats(-1000, 1000), st.integers(0, 20))
def test_the_hash_ignores_brightness(scale: float, offset: float, seed: int) -> None:
    thumbnail = np.random.default_rng(seed).normal(0, 100, (64, 64)).astype(np.float32)
    other = (thumbnail.astype(np.float64) * scale + offset).astype(np.float32)
    apart = int(perceptual_hash(thumbnail), 16) ^ int(perceptual_hash(other), 16)
    # Rounding may turn the bits next to the median.
    assert apart.bit_count() <= 2


def test_hashes_of_other_images_differ() -> None:
    hashes = [
        int(perceptual_hash(pixel_facts(opened(field(k)[None])).thumbnail), 16) for k in (1, 2)
    ]
    assert (hashes[0] ^ hashes[1]).bit_count() > 10


def test_sharpness_falls_with_blur_not_with_brightness() -> None:
    image = scene(0, 128, 10)[0].astype(np.float64)
    sharp, blurred = sharpness_of(image), sharpness_of(ndimage.gaussian_filter(image, 4))
    assert sharp is not None
    assert blurred is not None
    assert blurred < sharp / 4
    assert sharpness_of(3 * image + 100) == pytest.approx(sharp, rel=1e-3)
    assert sharpness_of(np.ones((64, 64))) is None
    assert sharpness_of(np.ones((4, 64))) is None


def test_one_blurred_image_among_sharp_ones() -> None:
    images = [
        SurveyedImage(str(k), f"{k}.tif", sharpness=value)
        for k, value in enumerate([0.1, 0.11, 0.09, 0.12, 0.1, 0.08, 0.13, 0.01])
    ]
    assert [image.id for image in blurred_among(images)] == ["7"]
    assert blurred_among(images[1:]) == []  # too few to know what is usual


@pytest.mark.parametrize(("sharpness", "found"), [(0.034, True), (0.037, False)])
def test_sharp_images_of_one_kind_need_a_clear_difference(sharpness: float, found: bool) -> None:
    # Hardly any spread, so that the factor of 2.8 decides.
    images = [
        SurveyedImage(str(k), f"{k}.tif", sharpness=value)
        for k, value in enumerate([*np.linspace(0.099, 0.101, 9), sharpness])
    ]
    assert [image.id for image in blurred_among(images)] == ["9"] * found


@pytest.mark.parametrize(("defocus", "far"), [(1.0, False), (1.5, True)])
def test_only_a_defocus_wider_than_the_own_blur_reaches_the_factor(
    defocus: float, far: bool
) -> None:
    y, x = np.mgrid[:512, :512]
    discs = ((y % 128 - 64) ** 2 + (x % 128 - 64) ** 2 < 40**2).astype(np.float64)
    for width in (1.5, 4):
        own = ndimage.gaussian_filter(discs, width, mode="wrap")
        sharp = sharpness_of(own)
        blurred = sharpness_of(ndimage.gaussian_filter(own, defocus * width, mode="wrap"))
        assert sharp is not None
        assert blurred is not None
        assert (sharp / blurred > BLUR_FACTOR) == far


def test_generated_nuclei_out_of_focus_are_found() -> None:
    images = [generate("nuclei", 0, k, (256, 256))[0].astype(np.float64) for k in range(10)]
    images[9] = ndimage.gaussian_filter(images[9], 2.5)  # as of the last slide of demo-full
    found = [
        SurveyedImage(str(k), f"{k}.tif", sharpness=sharpness_of(image))
        for k, image in enumerate(images)
    ]
    assert [image.id for image in blurred_among(found)] == ["9"]


def test_near_duplicates_in_any_orientation() -> None:
    image = field(0, (128, 128))
    noisy = image + np.random.default_rng(1).normal(0, 300, image.shape)
    turned = np.rot90(0.5 * noisy + 1000)[:, ::-1]
    found = [measured("a", image), measured("b", turned), measured("c", field(5, (128, 128)))]
    splits = [SplitRecord(n, 0, p) for n, p in (("a", "train"), ("b", "test"), ("c", "test"))]  # type: ignore[arg-type]
    (pair,) = alike_images(found, [m.record for m in found], splits)
    assert (pair.one, pair.other, pair.kind, pair.leak) == ("a", "b", "near", True)
    whole, fine = correlations(np.stack([m.pixels.thumbnail for m in found]))
    assert np.allclose(np.diag(whole), 1)
    assert fine[0, 2] < 0.5


def test_same_pixels_in_other_files_and_same_files() -> None:
    image = field(0)
    blank = np.zeros_like(image)
    found = [
        measured(n, a) for n, a in zip("abcd", (image, image.copy(), blank, blank), strict=True)
    ]
    assert [(p.one, p.other, p.kind) for p in alike_images(found, [], [])] == [("a", "b", "same")]
    files = [ImageRecord(n, f"{n}.tif", sha256="7") for n in "xyz"]
    pairs = alike_images([], files, [SplitRecord("x", 0, "train"), SplitRecord("y", 0, "train")])
    assert [(p.one, p.other, p.leak) for p in pairs] == [("x", "y", False), ("x", "z", False)]


def test_neighbouring_crops() -> None:
    whole = field(0, (200, 240))
    crops = {
        "a": whole[:100, :120],
        "b": whole[:100, 120:],
        "c": whole[100:, :120],
        "z": field(7, (100, 120)),
    }
    found = [measured(name, crop) for name, crop in crops.items()]
    pairs = alike_images(found, [m.record for m in found], [])
    assert {(p.one, p.other, p.kind) for p in pairs} == {
        ("a", "b", "neighbours"),
        ("a", "c", "neighbours"),
    }


def test_images_that_have_nothing_in_common() -> None:
    found = [measured(f"{k:02}", field(k, (100, 100))) for k in range(30)]
    assert alike_images(found, [m.record for m in found], []) == ()
    # Empty wells: noise on the same brightness continues nowhere.
    rng = np.random.default_rng(0)
    empty = [measured(f"e{k}", rng.normal(100, 5, (100, 100))) for k in range(20)]
    assert alike_images(empty, [m.record for m in empty], []) == ()


def test_sections_of_a_stack_follow_each_other() -> None:
    volume = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, (12, 96, 96)), (1, 3, 3))
    found = [measured(f"{k:02}", plane) for k, plane in enumerate(volume)]
    following, usual = follow_each_other(found)
    assert following > usual + 0.2
    others = [measured(f"{k:02}", field(k, (96, 96))) for k in range(12)]
    assert abs(follow_each_other(others)[0]) < 0.2
    assert follow_each_other(found[:4]) == (0.0, 0.0)


def test_a_sample_is_spread_over_the_ids() -> None:
    records = [ImageRecord(f"{k:03}", f"{k}.tif") for k in range(250)]
    picked = [int(record.id) for record in spread(records[::-1], 100)]
    assert (len(picked), picked[0], picked[-1]) == (100, 0, 247)
    assert {b - a for a, b in pairwise(picked)} == {2, 3}
    assert len(spread(records, 300)) == 250
