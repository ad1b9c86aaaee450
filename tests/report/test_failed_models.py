"""Models that find hardly anything right are named at the top of the pages and on the console."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.report.test_report import make_report, make_results
from unet.config.stage_settings import DatasetTask
from unet.data.dataset_warnings import read_warnings, warning_lines, write_warnings
from unet.evaluation.metrics.rows import NAN
from unet.evaluation.quality.poor_scores import NEAR_ZERO, POOR
from unet.evaluation.quality.quality_table import MAIN_SCORES
from unet.paths import Paths
from unet.report.failed_models import failed_lines
from unet.report.overall_page import report_all
from unet.report.score_tables import ReportRow


def row(
    model: str, mean: float, n: int = 14, task: str = "instances", units: int | None = None
) -> ReportRow:
    where = (model, *MAIN_SCORES[task])
    return ReportRow("d", *where, mean, NAN, NAN, n, units=n if units is None else units)


def test_the_limits_are_what_they_say() -> None:
    """F1 (Dice) = 2 a / (1 + a): below one half is right, and below one fifth."""
    poor, near_zero = (2 * a / (1 + a) for a in (POOR, NEAR_ZERO))
    assert 0.49 < poor < 0.5
    assert 0.18 < near_zero < 0.2


def test_a_model_near_zero_is_named_with_what_to_do() -> None:
    rows = [row("net", 0.0004), row("fine", NEAR_ZERO), row("none", NAN, 0), row("tool", 0.0)]
    (line,) = failed_lines(rows, "instances", ["net", "fine", "none"])
    assert line.startswith("net: hardly anything that it predicts is right: mean AP@0.5 of 0.00 ")
    assert "over 14 test images. Do not use its masks, and do not trust numbers of objects" in line
    assert "train longer (train.epochs" in line
    (line,) = failed_lines([row("net@other", 0.05, 1)], "instances", ["net@other"])
    assert "over 1 test image (1 image: few, so the mean is uncertain)." in line
    assert "train.epochs" not in line
    assert "train a model on images like these" in line


def test_few_images_or_groups_are_said() -> None:
    (line,) = failed_lines([row("net", 0.0996, 30, units=3)], "instances", ["net"])
    assert "mean AP@0.5 of 0.0996 over 30 test images (3 groups: few, so the mean is" in line
    (line,) = failed_lines([row("net", 0.02, 10, "semantic")], "semantic", ["net"])
    assert "few" not in line
    assert "Do not use its masks, and do not trust what is compared with it;" in line


def test_right_pixels_in_merged_objects_are_no_failed_training() -> None:
    rows = [row("net", 0.001), row("net", 0.84, task="semantic")]
    (line,) = failed_lines(rows, "instances", ["net"])
    assert line.startswith(
        "net: its pixels are right (mean IoU of 0.84), but hardly any object is: mean AP@0.5 of "
        "0.00 over 14 test images. Most likely objects that touch are one in its masks"
    )
    assert "hardly anything" not in line
    assert "train longer" not in line
    (line,) = failed_lines([rows[0], row("net", 0.4, task="semantic")], "instances", ["net"])
    assert "hardly anything that it predicts is right" in line


def test_pixels_tell_where_no_objects_were_measured() -> None:
    (line,) = failed_lines([row("net", 0.02, task="semantic")], "instances", ["net"])
    assert "mean IoU of 0.02" in line
    both = [row("net", 0.02, task="semantic"), row("net", 0.5)]
    assert failed_lines(both, "instances", ["net"]) == []
    # Classes have no numbers of objects.
    assert failed_lines(both, "semantic", ["net"]) == [line.replace("numbers of objects, or ", "")]
    assert failed_lines([], "instances", ["net"]) == []


def test_the_pages_and_the_console_say_it_until_it_is_no_longer_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "instances")
    table = paths.metrics("d", "m")
    good = table.read_text(encoding="utf-8")
    rows = [
        ",".join([*line.split(",")[:7], "0.001", "10"]) if "ap_0.50" in line else line
        for line in good.splitlines()
    ]
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    what = "mean AP@0.5 of 0.00 over 4 test images (4 images: few, so the mean is uncertain)"
    with caplog.at_level(logging.WARNING):
        page = make_report(paths, "d", ["m"], "instances")
    assert any(m.startswith("warning: m: ") and what in m for m in caplog.messages)
    assert page.index(what) < page.index("Scores on the test images")
    # Also beside more warnings of other stages than the console and the overview show.
    odd = [f"image {k} is odd" for k in range(12)]
    write_warnings(paths.warnings("d", "manifest"), odd)
    line, *_ = warning_lines(paths, {"d": ["m"]})
    assert line.startswith("warning: d: m: ")
    assert what in line
    report_all(paths, {"d": DatasetTask(task="instances", models=("m",))})
    overview = paths.report_html.read_text(encoding="utf-8")
    assert overview.index(what) < overview.index(odd[0]) < overview.index('id="datasets"')
    assert odd[-1] not in overview
    table.write_text(good, encoding="utf-8")
    assert what not in make_report(paths, "d", ["m"], "instances")
    assert read_warnings(paths.dataset("d")) == odd
