"""The generated datasets: reproducible, exactly labelled, and degraded as a camera degrades."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import medial_axis

from unet.data.synthetic import KINDS, generate, write_dataset
from unet.data.synthetic.nuclei import BRIGHTEST, Nucleus, _fluorescence
from unet.data.synthetic.nuclei3d import Z_STEP, sections
from unet.data.synthetic.optics import (
    camera,
    clean_instances,
    illumination,
    signed_distance,
    smooth_noise,
)
from unet.data.synthetic.phase import phase_contrast
from unet.errors import UserError

INSTANCE_KINDS = ("nuclei", "nuclei3d", "phase")
DTYPES = {"membranes": ("uint8",) * 2} | dict.fromkeys(INSTANCE_KINDS, ("uint16",) * 2)


def shape_of(kind: str, size: tuple[int, int]) -> tuple[int, ...]:
    """Of the arrays: volumes have about a third as many sections as pixels a side."""
    return (sections(size), *size) if kind == "nuclei3d" else size


def touching_pairs(ids: NDArray[np.uint16]) -> set[tuple[int, int]]:
    """Pairs of different ids in 4-connected neighbours."""
    pairs = set()
    for one, other in ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])):
        contact = (one > 0) & (other > 0) & (one != other)
        pairs |= {(min(a, b), max(a, b)) for a, b in zip(one[contact], other[contact], strict=True)}
    return pairs


def check_pair(kind: str, image: NDArray[np.generic], label: NDArray[np.generic]) -> None:
    assert (str(image.dtype), str(label.dtype)) == DTYPES[kind]
    assert np.unique(image).size > 30
    if kind == "membranes":
        assert set(np.unique(label)) == {0, 255}
        return
    values = np.unique(label)
    assert list(values) == list(range(len(values)))  # consecutive ids, background present
    assert len(values) > 1
    for instance in values[1:]:
        assert ndimage.label(label == instance)[1] == 1, f"instance {instance} is in pieces"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(size=st.tuples(st.integers(64, 110), st.integers(64, 150)), seed=st.integers(0, 2**32))
def test_any_size_and_seed_gives_a_valid_pair(kind: str, size: tuple[int, int], seed: int) -> None:
    image, label = generate(kind, seed, 3, size)
    assert image.shape == label.shape == shape_of(kind, size)
    check_pair(kind, image, label)


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_size_allowed_works(kind: str) -> None:
    for index in range(5):
        image, label = generate(kind, 0, index, (32, 33))
        assert image.shape == label.shape == shape_of(kind, (32, 33))
        check_pair(kind, image, label)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_image_and_other_seeds_other_images(kind: str) -> None:
    size = (72, 64)
    image, label = generate(kind, 7, 2, size)
    again, label_again = generate(kind, 7, 2, size)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    for seed, index in ((7, 3), (8, 2), (2, 7)):
        assert not np.array_equal(label, generate(kind, seed, index, size)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_generation_leaves_the_global_random_state_alone(kind: str) -> None:
    before = str(np.random.get_state())  # noqa: NPY002
    generate(kind, 0, 0, (64, 64))
    assert str(np.random.get_state()) == before  # noqa: NPY002


def test_files_do_not_depend_on_how_many_are_written(tmp_path: Path) -> None:
    def digests(folder: Path, stem: str) -> list[str]:
        parts = (folder / part / f"{stem}.tif" for part in ("images", "labels"))
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in parts]

    for kind in KINDS:
        few, many = tmp_path / kind / "few", tmp_path / kind / "many"
        assert write_dataset(few, kind, 4, 1, (64, 72), 0.5) == [f"{kind}_000"]
        stems = write_dataset(many, kind, 4, 3, (64, 72), 0.5)
        assert stems == [f"{kind}_{i:03d}" for i in range(3)]
        assert digests(few, f"{kind}_000") == digests(many, f"{kind}_000")
        assert digests(many, f"{kind}_000") != digests(many, f"{kind}_001")


def test_files_carry_axes_pixel_size_and_the_pixels(tmp_path: Path) -> None:
    (stem,) = write_dataset(tmp_path, "nuclei", 1, 1, (64, 80), 0.325)
    for part, pixels in zip(("images", "labels"), generate("nuclei", 1, 0, (64, 80)), strict=True):
        with tifffile.TiffFile(tmp_path / part / f"{stem}.tif") as file:
            np.testing.assert_array_equal(file.asarray(), pixels)
            assert file.is_ome
            assert file.series[0].axes == "YX"
            assert file.pages.first.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            attributes = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
            for axis in "XY":
                assert attributes[f"PhysicalSize{axis}"] == 0.325
                assert attributes[f"PhysicalSize{axis}Unit"] == "µm"
            numerator, denominator = file.pages.first.tags["XResolution"].value
            assert 1e4 / (numerator / denominator) == pytest.approx(0.325, rel=1e-6)
            assert "DateTime" not in file.pages.first.tags
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".tif"]


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_a_file(path: Path, *_: object, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tifffile, "imwrite", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        write_dataset(tmp_path, "nuclei", 0, 1, (64, 64), 1.0)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cells", 0, 1, (64, 64), 1.0), "write one of membranes, nuclei, nuclei3d, phase"),
        (("nuclei", 0, 1, (64, 16), 1.0), "write at least 32"),
        (("nuclei", 0, 0, (64, 64), 1.0), "count: 0"),
        (("nuclei", 0, 1, (64, 64), 0.0), "pixel_size_um: 0.0"),
        (("nuclei", 0, 1, (64, 64), float("nan")), "pixel_size_um: nan"),
    ],
)
def test_wrong_requests_are_refused_before_writing(
    tmp_path: Path, arguments: tuple[str, int, int, tuple[int, int], float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        write_dataset(tmp_path, *arguments)
    assert not list(tmp_path.rglob("*.tif"))


def test_membranes_are_thin_dark_and_close_off_cells() -> None:
    image, label = generate("membranes", 0, 0, (256, 256))
    membrane = label == 0
    assert 0.12 < membrane.mean() < 0.35
    assert ndimage.label(label == 255)[1] > 15  # cells, each closed off from the others
    axis, depth = medial_axis(membrane, return_distance=True)
    assert 4.5 < np.median(2 * depth[axis] - 0.5) < 8  # pixels across
    assert image[membrane].mean() < 0.75 * image[~membrane].mean()
    # Distractors: inside cells, well away from membranes, some pixels are as dark as membranes.
    deep = ndimage.distance_transform_edt(~membrane) > 4
    assert (image[deep] < np.median(image[membrane]) + 10).mean() > 0.005


def test_many_nuclei_touch_without_a_gap() -> None:
    for index in range(3):
        _, ids = generate("nuclei", 0, index, (256, 256))
        touching = {i for pair in touching_pairs(ids) for i in pair}
        assert len(touching) > 0.3 * ids.max()
        assert ids.max() > 25


def test_nuclei_differ_in_brightness_at_least_fourfold() -> None:
    image, ids = generate("nuclei", 0, 0, (256, 256))
    background = np.median(image[ids == 0])
    means = ndimage.mean(image - background, ids, np.arange(1, ids.max() + 1))
    assert np.percentile(means, 97) > 4 * np.percentile(means, 3) > 0


def test_nuclei_are_lit_only_where_labelled() -> None:
    # One nucleus: light far from it is the background alone, light within is several times that.
    ids = np.zeros((80, 80), dtype=np.int64)
    level = np.full((80, 80), np.inf)
    y, x = np.mgrid[:80, :80]
    ids[20:32, 20:32] = 1
    level[20:32, 20:32] = np.hypot(y - 25.5, x - 25.5)[20:32, 20:32] / 9
    lit = _fluorescence(np.random.default_rng(0), ids, level)
    dark = _fluorescence(np.random.default_rng(0), ids * 0, level * np.inf)
    assert lit[24:28, 24:28].mean() > 3 * lit[60:, 60:].mean()
    assert lit[60:, 60:].max() < 1.0 < BRIGHTEST
    assert dark.max() < 1.5


def test_volumes_have_blurred_and_dimming_sections() -> None:
    image, ids = generate("nuclei3d", 0, 0, (96, 96))
    grey = image.astype(float)
    pairs = set()
    for one, other in ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])):
        contact = (one > 0) & (other > 0) & (one != other)
        pairs |= set(zip(one[contact].tolist(), other[contact].tolist(), strict=True))
    assert len({i for pair in pairs for i in pair}) > 0.6 * ids.max() > 40
    assert 0.2 < (ids > 0).mean() < 0.3
    inside = grey[ids > 0].mean()
    # As many pixels away along Z (in steps of 3) as in the plane: light reaches farther along Z.
    deep = ndimage.binary_dilation(ids > 0, np.ones((3, 1, 1))) & (ids == 0)
    wide = ndimage.binary_dilation(ids > 0, np.ones((1, 7, 7))) & (ids == 0) & ~deep
    away = ndimage.distance_transform_edt(ids == 0, sampling=(Z_STEP, 1, 1)) > 8
    assert inside > grey[deep].mean() > 1.1 * grey[wide].mean() > grey[away].mean()
    means = np.array([s[i > 0].mean() for s, i in zip(grey, ids, strict=True)])
    assert means[: len(means) // 3].mean() > means[-(len(means) // 3) :].mean()


def test_files_of_volumes_carry_the_distance_of_sections(tmp_path: Path) -> None:
    (stem,) = write_dataset(tmp_path, "nuclei3d", 1, 1, (40, 48), 0.2)
    with tifffile.TiffFile(tmp_path / "images" / f"{stem}.tif") as file:
        assert file.series[0].axes == "ZYX"
        assert file.series[0].shape == (13, 40, 48)
        pixels = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
        sizes = [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"]
        assert sizes == pytest.approx([0.2 * Z_STEP, 0.2, 0.2])


def test_outline_of_a_plain_nucleus_is_its_ellipse() -> None:
    nucleus = Nucleus((0.0, 0.0), major=12.0, minor=8.0, angle=0.5, waves=np.zeros((4, 2)))
    radii = nucleus.radius(np.array([0.5, 0.5 + np.pi / 2, 0.5 + np.pi]))
    np.testing.assert_allclose(radii, [12, 8, 12])


def test_phase_has_dark_spread_cells_halos_and_bright_rounded_ones() -> None:
    darker, brighter = 0, 0
    for index in range(3):
        image, ids = generate("phase", 0, index, (256, 256))
        gap = ndimage.distance_transform_edt(ids == 0)
        background = np.median(image[gap > 12])
        assert image[(gap > 0.5) & (gap < 4)].mean() > 1.05 * background  # halo
        means = ndimage.mean(image, ids, np.arange(1, ids.max() + 1))
        darker += int((means < background).sum())
        brighter += int((means > background).sum())
    assert darker > 30
    assert brighter >= 3


def test_phase_contrast_of_nothing_is_even_and_of_little_is_linear() -> None:
    assert np.allclose(phase_contrast(np.full((40, 40), 0.7), 0.6, (3.0,)), 1.0)
    shift = np.zeros((81, 81))
    shift[30:51, 30:51] = 1e-4
    low = ndimage.gaussian_filter(shift, 3.0, mode="nearest")
    expected = 1 - 2 * (shift - low) / 0.6
    np.testing.assert_allclose(phase_contrast(shift, 0.6, (3.0,)), expected, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "nuclei3d"])
def test_noise_grows_with_the_signal(kind: str) -> None:
    image, label = generate(kind, 0, 1, (256, 256))
    grey = image.astype(float)
    # Second differences cancel structure that is smooth over three pixels; noise remains.
    noise = (grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2]) / np.sqrt(6)
    flat = ndimage.gaussian_filter(grey, 2.0)[:, 1:-1]
    if kind == "phase":  # the even background under uneven light, cells and their texture left out
        away = ndimage.distance_transform_edt(label == 0)[:, 1:-1] > 6
        noise, flat = noise[away], flat[away]
    dim, bright = np.percentile(flat, [25, 75])
    low, high = noise[flat < dim], noise[flat > bright]
    assert high.var() > 1.15 * low.var() > 0


def test_camera_has_the_stated_mean_and_variance() -> None:
    rng = np.random.default_rng(0)
    for photons in (5.0, 400.0):
        image = camera(rng, np.full((400, 400), photons), 2.5, 100, 2.0)
        assert image.mean() == pytest.approx(100 + 2.5 * photons, rel=0.005)
        assert image.var() == pytest.approx(2.5**2 * (photons + 4) + 1 / 12, rel=0.03)


def test_camera_clips_to_its_range() -> None:
    rng = np.random.default_rng(0)
    assert (camera(rng, np.full((8, 8), 1e4), 1.0, 0, 1.0, bits=8) == 255).all()
    assert (camera(rng, np.full((8, 8), -5.0), 1.0, -50, 1.0, bits=8) == 0).all()


@pytest.mark.parametrize("scale", [0.8, 3.0, 20.0])
def test_random_fields_have_unit_variance_and_the_requested_correlation(scale: float) -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_noise(rng, (64, 96), scale) for _ in range(150)])
    assert fields.shape == (150, 64, 96)
    assert fields.std() == pytest.approx(1, rel=0.1)
    lag = max(1, round(scale))
    # White noise under a Gaussian filter: correlation exp(-lag^2 / (4 sigma^2)).
    measured = np.mean(fields[:, :, lag:] * fields[:, :, :-lag]) / fields.var()
    assert measured == pytest.approx(np.exp(-(lag**2) / (4 * scale**2)), abs=0.06)
    edges = np.mean(fields[:, 0] * fields[:, -1])
    assert abs(edges) < 0.25  # opposite edges are independent


def test_illumination_is_uneven_positive_and_keeps_the_mean() -> None:
    for seed in range(20):
        light = illumination(np.random.default_rng(seed), (64, 90), 0.4)
        assert light.mean() == pytest.approx(1)
        assert light.min() > 0.2
        assert light.max() - light.min() > 0.1


def test_signed_distance_by_hand() -> None:
    mask = np.array([[0, 0, 1, 1, 1, 0]], dtype=bool)
    np.testing.assert_allclose(signed_distance(mask), [[-1.5, -0.5, 0.5, 1.5, 0.5, -0.5]])
    assert (signed_distance(np.ones((3, 3), dtype=bool)) > 0).all()
    assert (signed_distance(np.zeros((3, 3), dtype=bool)) < 0).all()


def test_cleaning_keeps_the_largest_part_and_closes_up_ids() -> None:
    ids = np.array([[1, 0, 1, 1], [0, 2, 0, 0], [5, 5, 0, 5], [5, 5, 0, 0]])
    expected = [[0, 0, 1, 1], [0, 0, 0, 0], [2, 2, 0, 0], [2, 2, 0, 0]]
    np.testing.assert_array_equal(clean_instances(ids, min_pixels=2), expected)
    assert not clean_instances(np.zeros((3, 3), dtype=np.int64), min_pixels=1).any()
