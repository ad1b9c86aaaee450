"""Which images are unlike those of the training."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_appearance import store_at, stored
from tests.data.test_apply_prepare import STATISTICS, model
from unet.data.appearance import (
    Appearance,
    TrainingAppearance,
    _windows,
    measured,
    training_appearance,
)
from unet.data.records import SplitRecord, write_splits
from unet.data.store import Prepared
from unet.data.synthetic import generate
from unet.paths import Paths
from unet.prediction.drift import (
    Comparison,
    known_training,
    unlike,
    unlike_statistics,
    unlike_warnings,
)


@cache
def look(kind: str, index: int, invert: bool = False) -> Appearance:
    """A generated image as a network sees it, with the default normalisation."""
    image = generate(kind, 5, index, (192, 192))[0].astype(np.float32)[None]
    if invert:
        image = image.max() - image
    low, high = np.percentile(image, [1, 99.8])
    image = (image - low) / (high - low)
    return measured([image[(slice(None), *where)] for where in _windows(image.shape[1:])])


def training(kind: str, count: int) -> TrainingAppearance:
    return TrainingAppearance(tuple(look(kind, k) for k in range(count)))


@pytest.mark.parametrize("kind", ["nuclei", "phase", "membranes"])
@pytest.mark.parametrize("count", [6, 20])
def test_other_images_of_the_same_kind_are_like_those_of_the_training(
    kind: str, count: int
) -> None:
    known = training(kind, count)
    others = [look(kind, k) for k in range(20, 60)]
    named = sum(bool(unlike(image, known)) for image in others)
    assert named <= 0.05 * len(others)


@pytest.mark.parametrize("other", ["phase", "membranes"])
def test_all_images_of_another_kind_are_unlike(other: str) -> None:
    known = training("nuclei", 20)
    assert all(unlike(look(other, k), known) for k in range(20))


def test_reasons_are_those_that_people_see() -> None:
    known = training("nuclei", 20)
    assert "dark structures on bright ground, but the training images have bright" in " ".join(
        unlike(look("nuclei", 1, invert=True), known)
    )
    usual = look("nuclei", 30)
    noisy = replace(usual, texture=((-0.1, -0.7, -1.3, -1.9, -2.5),))
    assert "finer structures or more noise (79 % of its variance" in unlike(noisy, known)[0]
    blurred = replace(usual, texture=((-3.0, -3.0, -2.5, -1.0, -0.1),))
    assert any(
        "blurred" in reason or "less structure" in reason for reason in unlike(blurred, known)
    )
    bright = replace(usual, levels=((0.6, 0.65, 0.7, 0.8, 0.95),), polarity=(0.3,))
    assert "normalised median 0.70, of the training images" in unlike(bright, known)[0]
    # Another number of channels cannot be compared (and is refused earlier).
    assert unlike(replace(usual, levels=usual.levels * 2), known) == []
    assert unlike(usual, TrainingAppearance(())) == []


def test_each_channel_is_compared() -> None:
    def two(first: Appearance, second: Appearance) -> Appearance:
        return Appearance(
            first.levels + second.levels,
            first.polarity + second.polarity,
            first.texture + second.texture,
        )

    known = TrainingAppearance(tuple(two(look("nuclei", k), look("phase", k)) for k in range(20)))
    assert unlike(two(look("nuclei", 30), look("phase", 30)), known) == []
    swapped = unlike(two(look("phase", 30), look("nuclei", 30)), known)
    assert {reason.split(":")[0] for reason in swapped} == {"channel 0", "channel 1"}


def test_with_nothing_but_the_statistics_of_the_training_images() -> None:
    usual = look("nuclei", 0)
    values = {**STATISTICS, "low": [0.0], "high": [100.0], "shift": [0.0], "scale": [100.0]}
    normalize = {"method": "percentile", "scope": "dataset", "statistics": values}
    assert unlike_statistics(usual, normalize) == []
    assert unlike_statistics(usual, {"method": "percentile"}) == []
    far = replace(usual, levels=((40.0, 41.0, 42.0, 50.0, 60.0),))
    assert "lie outside" in unlike_statistics(far, normalize)[0]
    dark = replace(usual, levels=((0.0, 0.0, 0.0, 0.001, 0.004),))
    assert "far darker" in unlike_statistics(dark, normalize)[0]
    wide = replace(usual, levels=((0.0, 1.0, 2.0, 3.0, 60.0),))
    assert "far more contrast" in unlike_statistics(wide, normalize)[0]
    flat = replace(usual, levels=((0.5, 0.50002, 0.50005, 0.50007, 0.5001),))
    assert "far less contrast" in unlike_statistics(flat, normalize)[0]
    compared = Comparison(None, normalize, None)
    assert compared.unlike(dark)
    assert compared.sizes is None


@pytest.mark.parametrize("kind", ["nuclei", "phase", "membranes"])
def test_statistics_do_not_name_images_of_the_same_kind(kind: str) -> None:
    assert not any(unlike_statistics(look(kind, k), WHOLE) for k in range(40))


# Values from 0 to 1.
WHOLE = {"statistics": {**STATISTICS, "low": [0.0], "high": [1.0], "shift": [0.0], "scale": [1.0]}}


def test_few_objects_are_not_low_contrast() -> None:
    """Objects on 2 % of an image are above its percentile 95."""
    image = np.random.default_rng(0).normal(0.02, 0.01, (1, 192, 192)).astype(np.float32)
    image[:, 20:40, 20:60] = 0.8
    for pixels in (image, 1 - image):
        found = measured([pixels[(slice(None), *where)] for where in _windows(pixels.shape[1:])])
        assert found.levels[0][-1] - found.levels[0][0] < 0.05
        assert unlike_statistics(found, WHOLE) == []


def test_facts_from_the_model_file_or_from_its_run(tmp_path: Path) -> None:
    known = training("nuclei", 4)
    new = replace(model(), appearance=known.to_json())
    found = known_training({Path("a.pt"): new, Path("b.pt"): new})
    assert found is not None
    assert len(found.images) == 4  # both folds know the same images
    assert known_training({Path("a.pt"): model()}) is None
    assert known_training({Path("a.pt"): replace(new, appearance={"images": 3})}) is None
    # A model of an older version: from the prepared images of its run.
    paths = Paths(tmp_path)
    store = store_at(paths.prepared("d"))
    rng = np.random.default_rng(0)
    for name in "abc":
        stored(store, name, rng.random((1, 70, 80)).astype(np.float32))
    paths.splits("d").parent.mkdir(exist_ok=True)
    rows = [SplitRecord("a", 0, "train"), SplitRecord("b", 0, "train"), SplitRecord("c", 0, "test")]
    write_splits(paths.splits("d"), rows)
    found = known_training({paths.model("d", "m", 0): model()})
    assert found == training_appearance(Prepared(store), ["a", "b"])
    assert Comparison.of({paths.model("d", "m", 0): model()}).pixel_size_um == (0.5, 0.5)


def test_damaged_facts_of_a_run_stop_nothing(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    store_at(paths.prepared("d"))
    write_splits(paths.splits("d"), [SplitRecord("gone", 0, "train")])
    assert known_training({paths.model("d", "m", 0): model()}) is None


def test_images_of_a_store(tmp_path: Path) -> None:
    store = store_at(tmp_path / "prepared.zarr")
    rng = np.random.default_rng(0)
    for name in ("noise", "more"):
        stored(store, name, rng.random((1, 200, 200)).astype(np.float32))
    compared = Comparison(training("nuclei", 20), {}, None)
    found = compared.unlike_images(Prepared(store), ["noise", "more"])
    assert set(found) == {"noise", "more"}


def test_warnings_name_how_many_and_what_to_try() -> None:
    assert unlike_warnings({}, 5) == []
    first, *lines = unlike_warnings({"a": ["x 3 %"], "b": ["x 4 %"], "c": ["y"]}, 5)
    assert first.startswith("3 of 5 images are unlike the training images; ")
    assert "--pixel-size" in first
    assert lines == [
        "unlike the training images: a and 1 more image: x 3 %",
        "unlike the training images: c: y",
    ]
    assert unlike_warnings({"a": ["x"]}, 5)[0].startswith("1 of 5 images is unlike")
    assert unlike_warnings({"a": ["x"]}, 1)[0].startswith("the image is unlike")
