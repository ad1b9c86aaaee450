"""What images look like, as numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unet.data.appearance import (
    OCTAVES,
    SAMPLED,
    SIDE,
    TrainingAppearance,
    _windows,
    appearance,
    measured,
    sampled,
    training_appearance,
)
from unet.data.store import Prepared, add_image, add_labels, layout_of, new_image


def stored(
    store: Path, name: str, image: NDArray[np.float32], ids: NDArray[np.uint32] | None = None
) -> None:
    """A prepared image [C, (Z,) Y, X]."""
    layout = layout_of(image.shape[1:], 64, 2)
    with new_image(store, name) as group:
        add_image(group, image.shape[0], image.shape[1:], layout)[...] = image
        if ids is not None:
            add_labels(group, "instances", "uint32", ids.shape, layout)[...] = ids
        group.attrs.put({"pixel_size_um": [0.5] * (image.ndim - 1), "statistics": {"max": [255.0]}})


def store_at(path: Path) -> Path:
    import zarr

    zarr.open_group(path, mode="a", zarr_format=3)
    return path


def test_levels_polarity_and_texture_by_hand() -> None:
    dots = np.zeros((64, 64), np.float32)
    dots[::8, ::8] = 1  # 1 of 64 pixels
    dark = 1 - dots
    half = np.zeros((64, 64), np.float32)
    half[:, 32:] = 1
    board = np.indices((64, 64)).sum(axis=0).astype(np.float32) % 2
    found = measured([np.stack([dots, dark, half])], (0.5, 0.5), 7.0)
    assert found.levels[0] == (0, 0, 0, 0, 0)
    assert found.levels[1] == (1, 1, 1, 1, 1)
    assert found.levels[2][0] == 0
    assert found.levels[2][-1] == 1
    assert found.polarity[0] == pytest.approx(1)
    assert found.polarity[1] == pytest.approx(-1)
    assert (found.pixel_size_um, found.largest) == ((0.5, 0.5), 7.0)
    # A board's variance is all between neighbours; that of two halves is none of it.
    finest = measured([board[None]]).texture[0]
    assert finest[0] == pytest.approx(0)
    assert finest[1] == pytest.approx(-3)
    assert found.texture[2] == pytest.approx((-3,) * OCTAVES)
    # Independent pixels: 3/4 of the variance is lost with each octave.
    noise = np.random.default_rng(0).normal(size=(1, 256, 256)).astype(np.float32)
    shares = 10 ** np.array(measured([noise]).texture[0], float)
    assert shares[:3] == pytest.approx([3 / 4, 3 / 16, 3 / 64], rel=0.1)


def test_images_that_say_little() -> None:
    flat = measured([np.full((1, 40, 50), 3, np.float32)])
    assert flat.texture == ((None,) * OCTAVES,)
    assert flat.polarity == (0.0,)
    tiny = measured([np.arange(30, dtype=np.float32).reshape(1, 5, 6)])
    assert tiny.texture[0][0] is not None
    assert tiny.texture[0][-1] is None


@pytest.mark.parametrize("shape", [(5, 7), (300, 200), (3000, 2000), (1, 60, 70), (40, 600, 600)])
def test_windows_are_few_inside_and_spread(shape: tuple[int, ...]) -> None:
    found = list(_windows(shape))
    assert 1 <= len(found) <= 4
    for where in found:
        *depth, y, x = where
        for part, size in zip((y, x), shape[-2:], strict=True):
            assert isinstance(part, slice)
            assert part.start >= 0
            assert part.stop - part.start == SIDE
            assert part.start == 0 or part.stop <= size
        if depth:
            assert 0 <= depth[0] < shape[0]
    assert len(set(map(str, found))) == len(found)


def test_training_images_and_the_sizes_of_their_objects(tmp_path: Path) -> None:
    store, rng = store_at(tmp_path / "prepared.zarr"), np.random.default_rng(1)
    for k in range(3):
        ids = np.zeros((80, 90), np.uint32)
        ids[10:20, 10:20] = 1  # 100 pixels
        ids[40:44, 40:50] = 2  # 40 pixels
        ids[0:30, 60:90] = 3  # cut by the edge
        stored(store, f"i{k}", rng.random((1, 80, 90)).astype(np.float32), ids)
    found = training_appearance(Prepared(store), ["i0", "i1", "i2"])
    assert len(found.images) == 3
    assert found.sizes == (40, 70, 100)
    assert found.images[0] == appearance(Prepared(store), "i0")
    assert found.images[0].largest == 255
    # It travels as JSON, with 5 digits.
    text = json.dumps(found.to_json())
    again = TrainingAppearance.from_json(json.loads(text))
    assert again.sizes == found.sizes
    assert again.images[0].levels[0] == pytest.approx(found.images[0].levels[0], rel=1e-4)
    assert again.to_json() == found.to_json()
    with pytest.raises(ValueError, match="images"):
        TrainingAppearance.from_json({"sizes": None})


def test_a_volume_has_sections(tmp_path: Path) -> None:
    store = store_at(tmp_path / "prepared.zarr")
    image = np.random.default_rng(2).random((2, 9, 40, 50)).astype(np.float32)
    stored(store, "v", image)
    found = training_appearance(Prepared(store), ["v"])
    assert found.sizes is None
    assert len(found.images[0].levels) == 2


def test_a_sample_is_bounded_and_even() -> None:
    ids = [f"{k:04d}" for k in range(1000)]
    found = sampled(ids, SAMPLED)
    assert len(found) == SAMPLED == len(set(found))
    gaps = np.diff([int(name) for name in found])
    assert gaps.min() >= 15
    assert gaps.max() <= 16
    assert sampled(ids[:5], SAMPLED) == ids[:5]
