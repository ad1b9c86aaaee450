"""What is measured on a segmentation without labels, and which images need a look."""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.evaluated import Stores
from tests.prediction.test_drift import look, training
from unet.config.quality_settings import QualitySettings
from unet.data.store import Prepared
from unet.errors import UserError
from unet.evaluation.families import FAMILIES
from unet.evaluation.metrics.rows import MetricRow
from unet.evaluation.quality.doubt import Judge
from unet.evaluation.quality.evidence import (
    Evidence,
    object_evidence,
    odd_sizes,
    semantic_evidence,
    size_drift,
)
from unet.evaluation.quality.held_out import HeldOut, Seen
from unet.evaluation.quality.held_out import look as held_out_look
from unet.evaluation.quality.quality import missing_scores, notes_of
from unet.evaluation.quality.quality_table import (
    COUNTS,
    MAIN_FAMILIES,
    MAIN_SCORES,
    SCORE_NAMES,
    QualityRow,
    read_quality,
    write_quality,
)
from unet.prediction.drift import drift, unlike
from unet.prediction.stitch.segmentation import Segmentation
from unet.report.judged import compared
from unet.report.score_tables import HEADLINE


def test_the_score_is_the_first_one_of_the_report() -> None:
    for task, (class_, metric) in MAIN_SCORES.items():
        first = HEADLINE[task][0]
        assert (first.class_, first.metric, first.label) == (class_, metric, SCORE_NAMES[task])


# Evidence.


def test_objects_by_hand() -> None:
    labels = np.zeros((6, 8), np.uint32)
    labels[1:3, 1:3] = 1  # 2 x 2, touches object 2 along two faces
    labels[1:3, 3:7] = 2  # 2 x 4
    p = np.zeros((6, 8), np.float32)
    p[labels == 1] = 1.0
    p[labels == 2] = 0.75
    p[5, 0] = 0.5
    found = object_evidence(np.stack([1 - p, p]), labels, 0)
    assert found.count == 2
    # (4 + 6) / (12 + 0.5)
    assert found.expected_iou == pytest.approx(10 / 12.5)
    assert found.sureness == pytest.approx((1 + 0.5) / 2)
    assert found.missed == pytest.approx(0.5)
    # 8 and 12 faces, two of each along the other.
    assert found.touching == pytest.approx(4 / 20)
    assert found.ragged == pytest.approx((8 / 8 + 12 / (4 * math.sqrt(8))) / 2 - 1)
    assert found.sizes.tolist() == [4, 8]
    assert found.covered == pytest.approx(8 / 48)


@given(arrays(np.uint32, (7, 9), elements=st.integers(0, 3)), st.integers(2, 9))
def test_blocks_change_nothing(labels: np.ndarray, block: int) -> None:
    p = np.random.default_rng(0).random((1, 7, 9)).astype(np.float32)
    one, other = (object_evidence(p, labels, 0, size) for size in (64, block))
    for name in ("count", "expected_iou", "sureness", "missed", "touching", "ragged", "covered"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), nan_ok=True), name
    assert one.sizes.tolist() == other.sizes.tolist()
    classes = (labels > 1).astype(np.uint8)
    both = np.concatenate([1 - p, p])
    first, second = (semantic_evidence(both, classes, size) for size in (64, block))
    assert first.expected_iou == pytest.approx(second.expected_iou, nan_ok=True)
    assert first.sureness == pytest.approx(second.sureness)


def test_no_object() -> None:
    nothing = object_evidence(np.ones((2, 5, 5), np.float32), np.zeros((5, 5), np.uint32), 0)
    assert nothing.count == 0
    assert math.isnan(nothing.expected_iou)
    assert math.isnan(nothing.sureness)
    assert len(nothing.sizes) == 0
    missed = object_evidence(np.full((1, 5, 5), 0.6, np.float32), np.zeros((5, 5), np.uint32), 0)
    assert missed.expected_iou == 0
    assert missed.missed == pytest.approx(10)


@pytest.mark.parametrize("side", [512, 2048])
def test_sure_background_promises_no_object_however_large_the_image(side: int) -> None:
    """float16 has steps of 0.0005 near 1, so plain background adds up to any number of pixels."""
    p = np.full((1, side, side), 0.9995, np.float16)
    labels = np.zeros((side, side), np.uint8)
    nothing = Seen("a", object_evidence(p, labels, 0), drift=0.3)
    assert nothing.evidence.missed == 0
    row = judge().row(nothing)
    assert (row.flagged, row.why) == (False, "no object was found")
    # An object below the threshold is still missed, in an image of any size.
    p[0, 100:109, 100:109] = 0.4
    there = Seen("a", object_evidence(p, labels, 0), drift=0.3)
    assert there.evidence.missed == pytest.approx(81 * 0.6, rel=1e-3)
    assert judge().row(there).flagged


def test_volumes() -> None:
    labels = np.zeros((4, 4, 4), np.uint32)
    labels[1:3, 1:3, 1:3] = 1
    found = object_evidence(np.zeros((1, 4, 4, 4), np.float32), labels, 0, block=8)
    assert found.ragged == pytest.approx(0)
    assert found.sizes.tolist() == [8]


def test_classes_by_hand() -> None:
    classes = np.array([[0, 1], [1, 2]], np.uint8)
    p = np.zeros((3, 2, 2), np.float32)
    p[0, 0, 0] = p[1, 0, 1] = p[2, 1, 1] = 1
    p[:, 1, 0] = (0.25, 0.5, 0.25)
    found = semantic_evidence(p, classes)
    # Class 1: 1.5 / 2; class 2: 1 / 1.25.
    assert found.expected_iou == pytest.approx((1.5 / 2 + 1 / 1.25) / 2)
    assert found.sureness == pytest.approx((3 + 0.25) / 4)
    assert found.count is None
    assert found.covered == 0.5
    empty = semantic_evidence(
        np.stack([np.ones((4, 4)), np.zeros((4, 4))]), np.zeros((4, 4), np.uint8)
    )
    assert math.isnan(empty.expected_iou)
    assert Seen("a", empty).empty


def test_sizes_by_hand() -> None:
    usual = (50.0, 100.0, 400.0)
    assert odd_sizes(np.array([20, 100, 500, 50]), usual) == 0.5
    assert size_drift(np.array([200]), usual) == pytest.approx(0.5)
    assert size_drift(np.array([25]), usual) == pytest.approx(2)
    assert size_drift(np.array([100]), usual) == 0
    # A training set of equal objects: a factor of 1.5 is still usual.
    assert size_drift(np.array([150]), (100.0, 100.0, 100.0)) == pytest.approx(1)
    none = np.empty(0)
    assert math.isnan(odd_sizes(none, usual))
    assert math.isnan(size_drift(none, usual))


# Drift.


@pytest.mark.parametrize("kind", ["nuclei", "phase"])
def test_the_number_and_the_words_agree(kind: str) -> None:
    known = training("nuclei", 12)
    for index in range(20, 30):
        number, words = drift(look(kind, index), known)
        assert (number > 1) == bool(words)
        assert words == unlike(look(kind, index), known)
    assert drift(known.images[0], known)[0] == 0
    assert math.isnan(drift(look("nuclei", 1), replace(known, images=()))[0])


# Judging.


def seen(image: str, quality: float, **more: float) -> Seen:
    """An image that looks as good as ``quality``."""
    evidence = Evidence(20, quality, quality, missed=1.0, touching=0.1, ragged=0.1)
    return Seen(image, evidence, **{"drift": 0.5, "size_drift": 0.2, "odd_sizes": 0.1, **more})


def held_out(number: int) -> list[HeldOut]:
    rng = np.random.default_rng(0)
    found = []
    for k in range(number):
        quality = 0.5 + 0.5 * k / max(1, number - 1)
        score = float(np.clip(quality + rng.normal(0, 0.02), 0, 1))
        counts = (20.0, float(rng.integers(18, 24)))
        found.append(HeldOut(seen(f"i{k}", quality), score, counts, f"i{k}"))
    return found


def in_groups(images: list[HeldOut], groups: int) -> list[HeldOut]:
    return [replace(one, group=f"g{k % groups}") for k, one in enumerate(images)]


def judge(number: int = 24, same_networks: bool = True) -> Judge:
    return Judge.of(held_out(number), "instances", 0.95, same_networks)


def test_a_usual_image() -> None:
    row = judge().row(seen("a", 0.8))
    assert row.predicted_score == pytest.approx(0.8, abs=0.05)
    assert row.predicted_low < row.predicted_score < row.predicted_high
    assert row.doubt == pytest.approx(1 - row.predicted_score)
    assert (row.flagged, row.why, row.drift_reasons) == (False, "", "")
    assert row.count_low <= row.count_ == 20 <= row.count_high


def test_nuclei_applied_to_phase_contrast_are_flagged_with_words() -> None:
    known = training("nuclei", 12)
    for index in range(6):
        number, words = drift(look("phase", index), known)
        row = judge().row(replace(seen("p", 0.99, drift=number), reasons=tuple(words)))
        assert row.flagged
        assert "unlike the training images" in row.why
        assert row.drift > 1
        assert row.drift_reasons
        # However sure the network is.
        assert row.predicted_score < judge().row(seen("a", 0.99)).predicted_score / 1.2
        assert row.predicted_low == 0
        assert row.doubt > 0.2


def test_beyond_what_was_seen() -> None:
    row = judge().row(seen("a", 0.8, odd_sizes=0.9))
    assert row.flagged
    assert "beyond what was seen: more objects of unusual size" in row.why
    assert row.predicted_score < 0.3
    # Better than everything that was seen: no better score than the best.
    best = max(one.score for one in held_out(24))
    assert judge().row(seen("a", 1.0, odd_sizes=0.0)).predicted_score <= best


def test_low_scores() -> None:
    row = judge().row(seen("a", 0.5))
    assert row.flagged
    assert "AP@0.5 of" in row.why
    assert "is low" in row.why


def test_images_without_objects() -> None:
    nothing = Seen("a", Evidence(0, math.nan, math.nan, missed=0.4), drift=0.3)
    row = judge().row(nothing)
    assert (row.flagged, row.why, row.doubt) == (False, "no object was found", 0.5)
    assert math.isnan(row.predicted_score)
    assert row.count_low == row.count_ == 0
    missed = replace(nothing, evidence=Evidence(0, 0.0, math.nan, missed=300.0))
    row = judge().row(missed)
    assert row.flagged
    assert "no object was found, but 300 pixels" in row.why
    assert row.doubt == 1
    unlike_them = replace(nothing, drift=3.0, reasons=("darker",))
    assert judge().row(unlike_them).flagged


def test_one_object_that_covers_everything() -> None:
    evidence = replace(seen("a", 0.8).evidence, covered=0.97)
    assert (
        "one object covers nearly all"
        in judge().row(replace(seen("a", 0.8), evidence=evidence)).why
    )


def test_few_held_out_images() -> None:
    few = judge(7)
    row = few.row(seen("a", 0.8))
    assert few.model is None
    assert few.half is None
    assert math.isnan(row.predicted_score)
    assert math.isnan(row.count_low)
    assert row.count_ == 20
    # What it expects itself is all that there is.
    assert row.doubt == pytest.approx(0.2)
    none = Judge.of([], "semantic", 0.95, True)
    assert none.row(Seen("a", Evidence(None, 0.7, 0.9, covered=0.4))).doubt == pytest.approx(0.3)


def test_networks_that_predict_together_are_not_judged_by_probabilities_of_one() -> None:
    alone, together = judge(), judge(same_networks=False)
    assert {f.name for f in alone.features} - {f.name for f in together.features} == {
        "expected_iou", "sureness",
    }  # fmt: skip
    one, other = (together.row(seen("a", quality)) for quality in (0.6, 0.9))
    assert one.predicted_score == other.predicted_score


def test_intervals_count_groups() -> None:
    """40 images are enough for 95 %, 10 groups are not."""
    many, few = (Judge.of(in_groups(held_out(40), n), "instances", 0.95, True) for n in (20, 10))
    assert (many.counted, many.counted_groups, many.scored) == (40, 20, 20)
    row = many.row(seen("a", 0.8))
    assert row.count_low < row.predicted_score + 20 < row.count_high
    assert row.predicted_low < row.predicted_high
    assert (few.counted, few.counted_groups, few.half) == (40, 10, None)
    row = few.row(seen("a", 0.8))
    assert row.predicted_score == pytest.approx(0.8, abs=0.05)
    assert math.isnan(row.count_low)
    assert math.isnan(row.predicted_low)


# What could not be said.


def notes(
    known: list[HeldOut], missing: str = "", networks: int = 1, held_out: str = "fold-0"
) -> str:
    settings = QualitySettings.made(
        task="instances", confidence=0.95, networks=tuple(range(networks)), held_out=(held_out,)
    )
    judge = Judge.of(known, "instances", 0.95, settings.same_networks)
    return " ".join(notes_of(judge, known, settings, missing))


def test_notes_count_what_is_needed() -> None:
    assert notes(held_out(24)) == ""
    assert notes(held_out(7)) == (
        "No score is predicted: 8 held-out images with objects and a score are needed, there are "
        "7. The counts have no interval: 19 held-out images with labels are needed for 95 %, there "
        "are 7."
    )
    assert notes(in_groups(held_out(24), 4)) == (
        "No score is predicted: 8 groups of held-out images with objects and a score are needed, "
        "there are 4. The counts have no interval: 19 groups of held-out images with labels are "
        "needed for 95 %, there are 4."
    )
    assert notes(in_groups(held_out(24), 9)).startswith(
        "The predicted scores have no interval: 19 groups of held-out images with labels are "
        "needed for 95 %, there are 9."
    )


def test_a_note_names_the_metric_that_is_missing() -> None:
    row = MetricRow("d", "m", 0, "i", "", "foreground-mean", "iou", 0.5)
    found = missing_scores([row], "instances", "d")
    assert found == (
        "No score is predicted, and the counts have no interval: the test images of d have no "
        "AP@0.5. Add instance to evaluate.metrics."
    )
    none = [replace(one, score=math.nan, counts=None) for one in held_out(24)]
    assert notes(none, found) == found
    assert missing_scores([row], "semantic", "d") == ""
    assert "no IoU. Add pixel to" in missing_scores([], "semantic", "d")
    # The family does measure it, and the count, too.
    for task, family in MAIN_FAMILIES.items():
        assert family in FAMILIES
        assert MAIN_SCORES[task] in measured(family, task)
    assert set(COUNTS) <= measured("instance", "instances")


def measured(family: str, task: str) -> set[tuple[str, str]]:
    """Class and name of the metrics of a family, of two images with one object."""
    with tempfile.TemporaryDirectory() as folder:
        stores, mask = Stores(Path(folder)), np.eye(4, dtype=np.uint8)
        stores.truth("a", mask, mask)
        stores.prediction("a", mask, mask, np.stack([1.0 - mask, 1.0 * mask]))
        rows = stores.evaluate(family, task=task)
    return {(row.class_, row.metric) for row in rows}


def test_nothing_is_promised_for_networks_that_predict_together_only_here() -> None:
    found = notes(held_out(24), networks=5)
    assert "5 networks predict these images together, but one alone" in found
    assert "intervals are those of single networks" in found
    assert "nothing promises that these intervals hold the truth as often as they say" in found
    assert notes(held_out(24), networks=5, held_out="ensemble") == ""


def test_sizes_of_objects_are_not_kept(tmp_path: Path) -> None:
    """All held-out images are in memory at once, so what each keeps must not grow with objects."""
    stores, labels = Stores(tmp_path), np.zeros((32, 32), np.uint32)
    labels[::2, ::2] = np.arange(1, 257).reshape(16, 16)
    mask = (labels > 0).astype(np.uint8)
    stores.truth("a", mask, labels)
    zarr.open_array(stores.prepared / "a" / "image", mode="r+")[:] = 1 + mask[None]
    stores.prediction("a", mask, labels, np.stack([1.0 - mask, 1.0 * mask]))
    segmentation = Segmentation(stores.segmentation(0))
    found = held_out_look("a", segmentation, Prepared(stores.prepared), [], "instances")
    assert found.evidence.count == 256
    assert len(found.evidence.sizes) == 0


def test_model_files_without_appearance() -> None:
    """Drift is then unknown, which is no reason to flag an image or to fail."""
    found = [
        replace(
            one, seen=replace(one.seen, drift=math.nan, size_drift=math.nan, odd_sizes=math.nan)
        )
        for one in held_out(24)
    ]
    old = Judge.of(found, "instances", 0.95, True)
    row = old.row(found[20].seen)
    assert math.isnan(row.drift)
    assert not row.flagged
    assert row.predicted_score > 0.8
    # Unless the statistics alone speak against it.
    odd = replace(found[20].seen, reasons=("far darker than the training images",))
    assert old.row(odd).flagged


def test_the_limit_of_drift_follows_the_held_out_images() -> None:
    drifts = np.linspace(0.5, 1.5, 40)
    found = [replace(one, seen=replace(one.seen, drift=float(d)))
             for one, d in zip(held_out(40), drifts, strict=True)]  # fmt: skip
    limit = Judge.of(found, "instances", 0.95, True).limit
    assert 1.4 < limit < 1.5
    assert sum(drift / limit > 1 for drift in drifts) <= 0.05 * 40 + 1
    assert judge().limit == 1


# The table, and its comparison with labels.


def test_the_table_reads_back(tmp_path: Path) -> None:
    rows = [
        QualityRow("a", 0.5, 0.25, 0.75, 4, 2, 6, 1.5, "=1+1, darker", 0.5, True, "x; y"),
        QualityRow("b"),
    ]
    path = tmp_path / "quality.csv"
    write_quality(path, rows)
    text = path.read_text().splitlines()
    assert text[0].split(",")[:5] == [
        "image", "predicted_score", "predicted_low", "predicted_high", "count",
    ]  # fmt: skip
    assert text[2] == "b,,,,,,,,,,no,"
    back = read_quality(path)
    assert back[0] == rows[0]
    assert (back[1].image, back[1].flagged) == ("b", False)
    with pytest.raises(UserError, match="run the quality stage first"):
        read_quality(tmp_path / "none.csv")


def test_rows_against_labels_by_hand() -> None:
    rows = [
        QualityRow("a", 0.9, 0.8, 1.0, 10, 9, 12),
        QualityRow("b", 0.5, 0.4, 0.6, 10, 9, 12),
        QualityRow("c", 0.2, 0.1, 0.3, 10, 9, 12),
        QualityRow("d"),
    ]
    found = compared(rows, {"a": 0.85, "b": 0.7, "c": 0.1, "d": 0.3}, {"a": 12, "b": 13, "d": 1})
    assert (found.images, found.correlation) == (3, pytest.approx(1))
    assert found.within == pytest.approx(2 / 3)
    assert (found.counted, found.covered) == (2, 0.5)
    nothing = compared(rows, {}, {})
    assert (nothing.images, nothing.counted) == (0, 0)
    assert math.isnan(nothing.within)
