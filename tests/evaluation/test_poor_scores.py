"""What must never read as "no sign against it", and intervals that must not be given."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.test_quality_images import held_out, seen
from tests.report.test_gallery import applied_results
from unet.data.dataset_warnings import read_warnings
from unet.evaluation.metrics.rows import NAN
from unet.evaluation.quality.doubt import Judge
from unet.evaluation.quality.evidence import Evidence
from unet.evaluation.quality.held_out import HeldOut, Seen
from unet.evaluation.quality.poor_scores import POOR, below, never_quiet, order_note, poor_model
from unet.evaluation.quality.quality import warn
from unet.evaluation.quality.quality_table import QualityRow, write_quality
from unet.evaluation.quality.score_model import rank_correlation
from unet.paths import Paths
from unet.provenance import write_sidecar
from unet.report.dataset_page import report_dataset

QUIET = QualityRow("a", 0.0009, 0.0, 0.1, 375, 360, 390, 0.8, doubt=0.999)


def failed(number: int = 14) -> list[HeldOut]:
    """Held-out images of a model that learnt nothing: scores near 0, whatever they look like."""
    rng = np.random.default_rng(3)
    return [replace(one, score=float(rng.uniform(0, 0.002))) for one in held_out(number)]


def test_a_very_low_predicted_score_is_flagged_with_words() -> None:
    row = never_quiet(QUIET, "instances")
    assert row.flagged
    assert row.why == "its predicted AP@0.5 of 0.00 is very low: more is wrong than right"
    # The interval and the rest are as they were.
    assert row._replace(flagged=False, why="") == QUIET
    assert "predicted IoU of" in never_quiet(QUIET, "semantic").why
    for score in (POOR, 0.9, NAN):
        quiet = QUIET._replace(predicted_score=score)
        assert never_quiet(quiet, "instances")[6:] == quiet[6:]


def test_an_image_unlike_the_training_images_has_no_interval_for_its_count() -> None:
    row = QUIET._replace(predicted_score=0.9, drift=5.7, flagged=True, why="unlike")
    found = never_quiet(row, "instances")
    assert math.isnan(found.count_low)
    assert math.isnan(found.count_high)
    assert (found.count_, found.drift, found.flagged) == (375, 5.7, True)
    assert found.why.startswith("unlike; its count has no interval")
    # Without a drift, the words say that it is unlike them.
    words = row._replace(drift=NAN, drift_reasons="far darker")
    assert math.isnan(never_quiet(words, "instances").count_low)
    # Where there was no interval, nothing is said about it.
    none = row._replace(count_low=NAN, count_high=NAN)
    assert never_quiet(none, "instances").why == "unlike"
    assert never_quiet(row._replace(drift=1.0), "instances").count_low == 360


@given(st.one_of(st.just(NAN), st.floats(0, 1)), st.one_of(st.just(NAN), st.floats(0, 9)))
def test_a_second_call_changes_nothing_and_nothing_is_unflagged(score: float, drift: float) -> None:
    for flagged in (False, True):
        row = QUIET._replace(predicted_score=score, drift=drift, flagged=flagged)
        once = never_quiet(row, "instances")
        assert repr(never_quiet(once, "instances")) == repr(once)
        assert once.flagged >= flagged
        assert once.flagged >= (score < POOR)


def test_a_judge_never_gives_an_interval_of_counts_beyond_the_limit_of_drift() -> None:
    judge = Judge.of(held_out(24), "instances", 0.95, True)
    usual, unlike = judge.row(seen("a", 0.8)), judge.row(seen("a", 0.8, drift=5.7))
    assert usual.count_low <= 20 <= usual.count_high
    assert unlike.count_ == 20
    assert math.isnan(unlike.count_low)
    assert "its count has no interval" in unlike.why
    nothing = Seen("a", Evidence(0, NAN, NAN, missed=0.4), drift=3.0)
    assert math.isnan(judge.row(nothing).count_high)


def test_no_image_of_a_model_that_learnt_nothing_passes() -> None:
    judge = Judge.of(failed(), "instances", 0.95, False)
    assert judge.mean < 0.002
    rows = [judge.row(seen(f"n{k}", 0.5 + 0.04 * k)) for k in range(10)]
    empty = judge.row(Seen("e", Evidence(0, NAN, NAN, missed=0.4), drift=0.3))
    for row in (*rows, empty):
        assert row.flagged
        assert "the model is poor on its own 14 held-out images: mean AP@0.5 of 0.00" in row.why
    assert empty.doubt == 1
    assert all("is very low" in row.why for row in rows)
    # Too few of them to predict scores, or no object found in any of them: it counts all the same.
    few = Judge.of(failed(3), "instances", 0.95, True)
    assert few.model is None
    assert few.row(seen("a", 0.9)).flagged
    none = Seen("i", Evidence(0, 0.0, NAN, missed=0.0), drift=0.3)
    blind = Judge.of([HeldOut(none, 0.0, None, f"g{k}") for k in range(9)], "instances", 0.95, True)
    assert (blind.model, blind.mean) == (None, 0.0)
    assert "9 held-out images" in blind.row(seen("a", 0.9)).why
    # A good one is not accused.
    assert Judge.of(held_out(24), "instances", 0.95, True).poor == ""


def test_a_poor_model_by_hand() -> None:
    assert poor_model(NAN, "IoU", 0, 0) == poor_model(POOR, "IoU", 9, 9) == ""
    assert poor_model(0.2, "IoU", 10, 10) == (
        "the model is poor on its own 10 held-out images: mean IoU of 0.20, more is wrong than "
        "right"
    )


def test_few_held_out_images_are_said() -> None:
    assert poor_model(0.2, "IoU", 1, 1) == (
        "the model is poor on its own 1 held-out image: mean IoU of 0.20 (1 image: few, so the "
        "mean is uncertain), more is wrong than right"
    )
    assert "of 0.20 (3 groups: few, so" in poor_model(0.2, "IoU", 40, 3)
    few, many = (Judge.of(failed(n), "instances", 0.95, True).poor for n in (3, 14))
    assert "(3 images: few, so the mean is uncertain)" in few
    assert "few" not in many


def test_a_score_below_a_limit_never_reads_as_the_limit() -> None:
    row = never_quiet(QUIET._replace(predicted_score=0.3296), "instances")
    assert "its predicted AP@0.5 of 0.3296 is very low" in row.why
    assert "mean IoU of 0.3296," in poor_model(0.3296, "IoU", 20, 20)
    assert [below(score, 0.1) for score in (0.0, 0.05, 0.0951, 0.0999)] == [
        "0.00", "0.05", "0.095", "0.0999"
    ]  # fmt: skip


@given(st.floats(0, POOR, exclude_max=True))
def test_every_score_below_the_limit_is_written_below_it(score: float) -> None:
    assert float(below(score, POOR).removeprefix("just below ")) <= POOR
    assert below(score, POOR) != f"{POOR}"


def test_a_useless_order_is_said() -> None:
    assert order_note(NAN, 24) == order_note(0.9, 24) == ""
    assert "The rank correlation of -0.70 is negative" in order_note(-0.7, 14)
    # 1.645 / sqrt(13) = 0.456; with many images 0.3.
    assert "of 0.45 is not clearly above 0 (it takes 0.46)" in order_note(0.45, 14)
    assert order_note(0.46, 14) == ""
    assert "it takes 0.30" in order_note(0.29, 400)
    assert order_note(0.31, 400) == ""
    assert order_note(0.9, 1) != ""


def test_chance_passes_for_an_order_in_about_one_of_twenty_cases() -> None:
    rng = np.random.default_rng(0)
    passed = [
        order_note(rank_correlation(rng.random(12).tolist(), rng.random(12).tolist()), 12) == ""
        for _ in range(2000)
    ]
    assert 0.035 < np.mean(passed) < 0.07


def test_a_poor_model_is_the_first_warning(tmp_path: Path) -> None:
    judge = Judge.of(failed(), "instances", 0.95, True)
    rows = [judge.row(seen(f"n{k}", 0.9)) for k in range(6)]
    paths = Paths(tmp_path)
    warn(paths.warnings("d", "quality-m@o"), "m@o", rows, judge.poor)
    first, second = read_warnings(paths.dataset("d"), ["m@o"])
    assert first.startswith("m@o: the model is poor on its own 14 held-out images: mean AP@0.5 of")
    assert "no result here can be believed without a look" in first
    assert "images that need a look, 6 of 6" in second


@pytest.fixture
def page(tmp_path: Path) -> str:
    """Of results of an earlier version: rows without these rules, a basis without these keys."""
    paths = Paths(tmp_path)
    settings = applied_results(paths)
    (model,) = settings.models
    rows = [
        QUIET._replace(image="im0"),
        QUIET._replace(image="im1", predicted_score=0.8, drift=5.7, doubt=0.2, flagged=True,
                       why="unlike the training images"),
        QUIET._replace(image="im2", predicted_score=0.8, doubt=0.2),
    ]  # fmt: skip
    write_quality(paths.quality("d", model), rows)
    basis = {"images": 14, "correlation": -0.7, "notes": ["A note."], "confidence": 0.95}
    write_sidecar(paths.quality("d", model), {}, basis=basis)
    report_dataset(paths, "d", settings)
    return paths.dataset_report_html("d").read_text(encoding="utf-8")


def test_the_page_reads_old_tables_by_these_rules(page: str) -> None:
    assert "2 of 3 images need a look." in page
    assert "A note. The rank correlation of -0.70 is negative" in page
    assert "of 0.00 is very low: more is wrong than right" in page
    assert page.count("[360, 390]") == 2
    assert page.count('<span class="range">no interval</span>') == 1
