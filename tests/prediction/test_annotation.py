"""Which crops are chosen to be annotated: places, doubts, features, and the choice itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from tests.unlabelled import Made, squares, write_results
from unet.errors import UserError
from unet.files import write_json
from unet.prediction.annotation.choose_crops import METHODS, Candidate, choose, with_enough
from unet.prediction.annotation.crop_facts import RING, CropFacts, facts_of, pixel_doubts
from unet.prediction.annotation.crop_features import comparable, crop_features
from unet.prediction.annotation.crop_places import crop_places
from unet.prediction.annotation.mask_cautions import (
    MaskCautions,
    cautions_of_predict,
    cautions_of_quality,
)
from unet.prediction.annotation.ranked_crops import candidates_of, rank_crops, shared_out, sides
from unet.prediction.annotation.unlabelled_images import find_unlabelled

# Places ------------------------------------------------------------------------------------------


def test_crops_are_spread_over_the_image() -> None:
    found = crop_places((520, 696), (256, 256))
    assert [(p[0].start, p[1].start) for p in found] == [(0, 0), (0, 440), (264, 0), (264, 440)]
    assert crop_places((360, 100), (256, 256)) == [(slice(52, 308), slice(0, 100))]
    assert crop_places((5, 40, 60), (0, 0, 0)) == [(slice(0, 5), slice(0, 40), slice(0, 60))]


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 40)), min_size=2, max_size=3))
def test_crops_lie_inside_and_do_not_overlap(axes: list[tuple[int, int]]) -> None:
    shape, side = zip(*axes, strict=True)
    covered = np.zeros(shape, np.int64)
    places = crop_places(shape, side)
    for place in places:
        sizes = tuple(s.stop - s.start for s in place)
        assert sizes == tuple(min(w or n, n) for n, w in zip(shape, side, strict=True))
        assert all(s.start >= 0 and s.stop <= n for s, n in zip(place, shape, strict=True))
        covered[place] += 1
    assert covered.max() == 1
    assert len(places) == np.prod([n // min(w or n, n) for n, w in zip(shape, side, strict=True)])


def test_the_size_of_a_crop() -> None:
    assert sides((64,), 3) == (64, 64, 64)
    assert sides((8, 64, 64), 3) == (8, 64, 64)
    with pytest.raises(UserError, match=r"--crops: got 3 numbers, but the images have 2 axes"):
        sides((8, 64, 64), 2)


# Doubts ------------------------------------------------------------------------------------------


def test_the_doubt_of_a_pixel() -> None:
    p = np.array([[0.5, 1.0, 0.25], [0.5, 0.0, 0.75]], np.float32)
    # -(0.25 log2 0.25 + 0.75 log2 0.75) = 0.5 + 0.311
    assert pixel_doubts(p) == pytest.approx([1.0, 0.0, 0.811278], abs=2e-5)


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_the_doubt_is_scipys_entropy(classes: int, seed: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(classes), 20).T.astype(np.float32)
    assert pixel_doubts(p) == pytest.approx(entropy(p, axis=0, base=classes), abs=1e-4)


def facts(p: np.ndarray, labels: np.ndarray, place: Any, ids: bool = True) -> CropFacts:
    return facts_of(
        lambda r: (p[(slice(None), *r)], labels[r] > 0, labels[r] if ids else None), place
    )


def test_only_the_neighbourhood_of_the_foreground_counts() -> None:
    labels = np.zeros((60, 60), np.uint32)
    labels[20:30, 20:30], labels[20:22, 50:54] = 3, 9
    p1 = np.where(labels > 0, 0.5, 0.0).astype(np.float32)
    p = np.stack([1 - p1, p1])
    found = facts(p, labels, (slice(0, 60), slice(0, 40)))
    # The second object is outside of the crop; all 100 pixels of the first one are in doubt.
    assert (found.foreground, found.objects, found.median_size) == (100, 1, 100)
    assert found.doubt == pytest.approx(100 / (10 + 2 * RING) ** 2, abs=1e-4)
    # Doubt far from any object changes nothing; a nearly found object counts.
    p[:, 50:, :] = [[[0.9]], [[0.1]]]
    same = facts(p, labels, (slice(0, 60), slice(0, 40)))
    assert same.doubt == pytest.approx(found.doubt, abs=1e-4)
    p[:, 55:, :10] = 0.5
    assert facts(p, labels, (slice(0, 60), slice(0, 40))).doubt > found.doubt


def test_a_crop_without_foreground_has_no_doubt() -> None:
    p = np.full((2, 40, 40), 0.5, np.float32)
    found = facts(p, np.zeros((40, 40), np.uint32), (slice(0, 40), slice(0, 40)))
    assert found == CropFacts(1600, 0, 0.0, 0, 0.0, 0.0)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), (50, 70)).transpose(2, 0, 1).astype(np.float32)
    p[0] = np.where(rng.random((50, 70)) < 0.97, 0.99, p[0])
    labels = (rng.random((50, 70)) < 0.005) * rng.integers(1, 9, (50, 70))
    place = (slice(3, 49), slice(1, 66))
    whole = facts(p, labels.astype(np.uint32), place)
    monkeypatch.setattr("unet.prediction.annotation.crop_facts.BLOCK", 13)
    parts = facts(p, labels.astype(np.uint32), place)
    assert parts.doubt == pytest.approx(whole.doubt, rel=1e-5)
    assert parts.objects == whole.objects
    assert (parts.foreground, parts.size_spread) == (whole.foreground, whole.size_spread)


# Features ----------------------------------------------------------------------------------------


def test_each_family_of_features_counts_the_same() -> None:
    rng = np.random.default_rng(1)
    place = (slice(0, 64), slice(0, 64))
    crops = []
    for k in range(30):
        image = rng.normal(k, 1 + k % 3, (2, 64, 64))
        about = CropFacts(4096, 100 * k, 0.5, k, 30.0 + k, 0.1 * k)
        crops.append(crop_features(image, place, about))
    vectors = comparable(crops)
    assert vectors.shape == (30, 2 * 5 + 2 + 2 * 5 + 4)
    assert np.isfinite(vectors).all()
    assert comparable([]).shape == (0, 0)
    # Crops that are alike have no distance, whatever their unit.
    assert np.ptp(comparable([crops[0]] * 5)) == 0
    assert comparable([crops[3], crops[3], crops[9]])[0] == pytest.approx(
        comparable([crops[3], crops[3], crops[9]])[1]
    )


def test_the_features_of_a_volume() -> None:
    image = np.random.default_rng(0).normal(size=(1, 9, 40, 40))
    found = crop_features(image, (slice(2, 8), slice(0, 40), slice(0, 40)), CropFacts(1, 1, 0.1))
    assert [len(family) for family in found] == [5, 1, 5, 4]


# The choice --------------------------------------------------------------------------------------


def candidate(image: str, doubt: float, foreground: int = 100, group: str = "") -> Candidate:
    place = (slice(0, 8), slice(0, 8))
    return Candidate(image, group, place, CropFacts(10_000, foreground, doubt), doubt)


MANY = st.lists(
    st.tuples(st.sampled_from("abcde"), st.floats(0, 1), st.integers(0, 500)), max_size=25
)


@given(MANY, st.integers(1, 30), st.sampled_from(METHODS), st.integers(0, 5))
def test_a_choice_is_complete_and_repeatable(
    rows: list[tuple[str, float, int]], number: int, method: Any, seed: int
) -> None:
    every = [candidate(*row) for row in rows]
    enough = set(with_enough(every).tolist())
    features = np.random.default_rng(seed).normal(size=(len(enough), 3))
    found = choose(every, number, method, seed, features)
    chosen = [one.number for one in found]
    again = choose(every, number, method, seed, features)
    assert [(one.number, one.why) for one in again] == [(one.number, one.why) for one in found]
    assert len(set(chosen)) == len(chosen) == min(number, len(every))
    # Crops with enough foreground come first; the others only if nothing else is left.
    first = [k in enough for k in chosen]
    assert first == sorted(first, reverse=True) == [one.enough for one in found]
    assert sum(first) == min(number, len(enough))


def test_the_seed_decides_what_is_random() -> None:
    every = [candidate(str(k), 0.5) for k in range(40)]
    draws = {tuple(c.number for c in choose(every, 5, "random", seed)) for seed in range(8)}
    assert len(draws) == 8


def test_random_is_uniform() -> None:
    every = [candidate(str(k), k / 10) for k in range(10)]
    first = [choose(every, 1, "random", seed)[0].number for seed in range(2000)]
    assert np.bincount(first, minlength=10) == pytest.approx(np.full(10, 200), abs=60)


def test_doubt_alone_takes_the_most_doubtful() -> None:
    every = [candidate(str(k), doubt) for k, doubt in enumerate((0.1, 0.9, 0.4, 0.7))]
    assert [c.number for c in choose(every, 3, "doubt-alone", 0)] == [1, 3, 2]
    assert choose(every, 1, "doubt-alone", 0)[0].why == "doubt 0.900 (number 1 of 4 by doubt)"


def test_doubt_and_diversity_visit_each_kind() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(4), 10)
    features = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])[kinds] + rng.normal(0, 0.3, (40, 2))
    doubts = np.where(kinds == 2, 0.9, 0.5) + rng.uniform(0, 0.01, 40)
    every = [candidate(str(k), float(d)) for k, d in enumerate(doubts)]
    found = choose(every, 4, "doubt", 0, features)
    assert found[0].number == int(np.argmax(doubts))
    assert sorted(kinds[c.number] for c in found) == [0, 1, 2, 3]
    # Alone, doubt stays with one kind.
    assert {int(kinds[c.number]) for c in choose(every, 4, "doubt-alone", 0)} == {2}
    # Without any doubt it is the farthest-first traversal.
    calm = [candidate(str(k), 0.0) for k in range(40)]
    order = [c.number for c in choose(calm, 6, "doubt", 3, features)]
    for step in range(1, 6):
        gaps = np.linalg.norm(features[:, None] - features[order[:step]], axis=2).min(axis=1)
        assert gaps[order[step]] == pytest.approx(gaps.max())


def test_groups_take_turns_and_no_image_gives_most() -> None:
    every = [candidate("a", 0.9 - k / 100, group="g") for k in range(8)]
    every += [candidate(name, 0.1, group="h") for name in "bcde"]
    found = choose(every, 6, "doubt-alone", 0)
    assert [every[c.number].group for c in found] == ["g", "h"] * 3
    plain = [candidate("a", 0.9) for _ in range(8)] + [candidate(name, 0.1) for name in "bcd"]
    # 4 images, so none gives more than 2 of 4; if there is nothing else, it gives all.
    assert sum(plain[c.number].image == "a" for c in choose(plain, 4, "doubt-alone", 0)) == 2
    assert len(choose(plain[:8], 8, "doubt-alone", 0)) == 8


def test_little_foreground_is_not_enough() -> None:
    every = [candidate("a", 0.1, n) for n in (0, 5, 100, 120, 80)]
    assert with_enough(every).tolist() == [2, 3, 4]
    found = choose(every, 5, "random", 0)
    assert [c.number for c in found[3:]] == [1, 0]
    assert found[3].why == "little predicted foreground: nothing else was left"
    assert found[4].why == "no predicted foreground: nothing else was left"
    assert with_enough([candidate("a", 0.9, 0)]).tolist() == []


def test_features_must_fit() -> None:
    with pytest.raises(ValueError, match="features of 1 candidates"):
        choose([candidate("a", 0.5)], 1, "doubt", 0, np.zeros((2, 3)))


def test_the_doubt_of_an_image_is_shared_out() -> None:
    crops = [candidate("a", 0.4), candidate("a", 0.2), candidate("a", 0.0)]
    assert [c.doubt for c in shared_out(crops, {"a": 0.9})] == pytest.approx([0.9, 0.45, 0.0])
    assert [c.doubt for c in shared_out(crops, {"b": 0.9})] == [0.4, 0.2, 0.0]
    assert [c.doubt for c in shared_out([candidate("a", 0.0)], {"a": 0.9})] == [0.0]


# Results on disk ---------------------------------------------------------------------------------


def test_ranked_crops(tmp_path: Path) -> None:
    made = {name: squares(k, (64, 96), 9) for k, name in enumerate("abc")}
    made["empty"] = Made(made["a"].pixels, np.zeros((64, 96), np.uint32))
    paths = write_results(tmp_path, made)
    images = find_unlabelled(paths.output, "new")
    found = rank_crops(images, 7, (32,), "doubt", 0)
    assert found.possible == 4 * 2 * 3
    assert [one.rank for one in found.crops] == list(range(1, 8))
    assert {one.crop.image for one in found.crops} == set("abc")
    assert found.warnings == []
    every = rank_crops(images, 30, (32,), "random", 0)
    assert len(every.crops) == 24
    assert every.warnings[0].startswith("-n 30: there are only 24 crops")
    assert "crops of 24 with little or no predicted foreground" in every.warnings[1]
    assert {one.crop.image for one in every.crops[-6:]} == {"empty"}


def test_quality_decides_about_images(tmp_path: Path) -> None:
    made = {name: squares(5, (48, 48), 6) for name in "abc"}
    paths = write_results(tmp_path, made)
    table = paths.fold("new", "m@old", "ensemble").parent / "quality.csv"
    table.write_text("image,doubt,flagged\na,0.2,\nb,0.8,yes\nc,0.5,\n", encoding="utf-8")
    found = candidates_of(find_unlabelled(paths.output, "new"), (0,))
    assert {one.image: one.doubt for one in found} == pytest.approx({"a": 0.2, "b": 0.8, "c": 0.5})


def test_too_many_crops_are_not_all_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: squares(k, (64, 64), 9) for k, name in enumerate("abc")}
    images = find_unlabelled(write_results(tmp_path, made).output, "new")
    monkeypatch.setattr("unet.prediction.annotation.ranked_crops.COMPARED", 4)
    found = rank_crops(images, 2, (32,), "doubt", 0)
    doubts = sorted((one.doubt for one in candidates_of(images, (32,))), reverse=True)
    assert found.possible == 12
    assert all(one.crop.doubt >= doubts[3] for one in found.crops)


QUALITY = """image,doubt,drift,drift_reasons,flagged,why
a,0.9,5.7,far darker,yes,unlike the training images
b,0.8,0.4,,yes,its predicted AP@0.5 of 0.00 is very low
c,0.2,0.3,,no,
d,0.9,1.26,,yes,unlike the training images
"""


def test_quality_says_where_masks_are_no_help(tmp_path: Path) -> None:
    path = tmp_path / "quality.csv"
    path.write_text(QUALITY, encoding="utf-8")
    found = cautions_of_quality(path)
    assert found.source == "quality.csv"
    assert found.of("a") == (
        "the masks are no help here: unlike the training images (far darker); draw new ones or "
        "leave the image out"
    )
    assert found.of("b") == "the masks may be poor here: its predicted AP@0.5 of 0.00 is very low"
    assert (found.of("c"), found.of("nowhere")) == ("", "")
    assert "unlike the training images (drift 1.3)" in found.of("d")
    unlike, others = found.warnings(["a", "b", "a", "c", "d"])
    assert unlike.startswith("3 crops of 5 from images unlike the training images (a, d): the ")
    assert "draw new ones or leave such images out" in unlike
    assert others.startswith("1 crop of 5 from other images whose masks may be poor (b): quality")
    assert found.warnings(["c"]) == []
    # Without the columns, or without a known drift, nothing is known.
    path.write_text("image,doubt\na,0.9\n", encoding="utf-8")
    assert cautions_of_quality(path) == MaskCautions()
    path.write_text("image,drift,drift_reasons,flagged,why\na,,,no,\n", encoding="utf-8")
    assert cautions_of_quality(path).source == ""


def test_unet_predict_says_where_masks_are_no_help(tmp_path: Path) -> None:
    path = tmp_path / "predict.json"
    about = {"unlike": {"a": ["far darker", "blurred"]}, "odd": {"a": "x", "b": "all specks"}}
    write_json(path, about)
    found = cautions_of_predict(path)
    assert "unlike the training images (far darker; blurred)" in found.of("a")
    assert found.of("b") == "the masks may be poor here: all specks"
    write_json(path, {})
    assert cautions_of_predict(path) == MaskCautions()
