"""What the page over all datasets says about each of them."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.test_report import make_report, make_results
from unet.config.stage_settings import DatasetTask
from unet.data.dataset_warnings import write_warnings
from unet.data.records import read_manifest, write_manifest
from unet.export.mark_colours import BOTH, PREDICTION, TRUTH
from unet.paths import Paths
from unet.report import outlined
from unet.report.overall_page import report_all
from unet.report.overlays import OverlayView
from unet.report.overview import axis, interval_plots, summary
from unet.report.score_tables import HEADLINE, Cell


def entry(task: Any = "instances", models: tuple[str, ...] = ("m1", "m2")) -> DatasetTask:
    return DatasetTask(task=task, models=models)


def test_summary_counts_and_shows_the_images_of_the_best_model(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m1", "m2"], "instances")
    columns = [score for score in HEADLINE["instances"] if score.metric == "ap_0.50"]
    # A tool is better, but it predicted nothing in this run.
    cells = {"m1": [Cell(mean=0.4)], "m2": [Cell(mean=0.7)], "tool": [Cell(mean=0.9)]}
    found = summary(paths, "d", entry(), columns, cells, datasets=1)
    assert (found.model, found.link) == ("m2", "d/report.html")
    # The scores of the images fall from im0 on; the worst one comes first.
    scores = [shown.pick.score for shown in found.strip]
    assert scores == sorted(scores)
    assert [shown.pick.image for shown in found.strip][-1] == "im0"
    assert all(shown.uri.startswith("data:image/jpeg;base64,") for shown in found.strip)
    counts = found.counts
    assert (counts.models, counts.folds) == (2, 1)
    assert counts.images == len(paths.manifest("d").read_text().splitlines()) - 1 - counts.left_out
    # Many datasets have fewer thumbnails each.
    assert len(summary(paths, "d", entry(), columns, cells, datasets=60).strip) == 1


def test_images_without_labels_are_no_test_images(tmp_path: Path) -> None:
    """They were only predicted; of a dataset with labels, those with one were tested."""
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m@o"], "instances")
    paths.splits("d").unlink()
    records = read_manifest(paths.manifest("d"))
    good = [record for record in records if record.status == "ok"]
    assert len(good) > 1
    some = [replace(good[0], label=""), *(replace(one, label="l.tif") for one in good[1:])]
    write_manifest(paths.manifest("d"), some)
    plain = DatasetTask(task="instances", models=("m@o",), labelled=False)
    counts = summary(paths, "d", plain, [], {}, datasets=1).counts
    assert (counts.images, counts.tested) == (len(good), None)
    counts = summary(paths, "d", entry(models=("m@o",)), [], {}, datasets=1).counts
    assert (counts.images, counts.tested) == (len(good), len(good) - 1)


def test_overview_without_the_stores_says_so(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m1"], "semantic")
    make_report(paths, "d", ["m1"], "semantic")
    datasets = {"d": entry("semantic", ("m1",))}
    report_all(paths, datasets)
    assert "No thumbnails" not in paths.report_html.read_text(encoding="utf-8")
    shutil.rmtree(paths.prepared("d"))
    report_all(paths, datasets)
    page = paths.report_html.read_text(encoding="utf-8")
    assert "No thumbnails" in page
    assert "<img" not in page


def test_overview_begins_with_the_warnings_of_all_datasets(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    for name in ("a", "b", "c"):
        make_results(paths, name, ["m1"], "semantic")
        make_report(paths, name, ["m1"], "semantic")
    write_warnings(paths.warnings("a", "manifest"), ["odd <axes>"])
    write_warnings(paths.warnings("b", "manifest"), [f"warning {k}" for k in range(12)])
    write_warnings(paths.warnings("c", "compare-tool"), ["tool: no mask for 1 of 3 test images"])
    write_warnings(paths.warnings("c", "compare-left-out"), ["of a tool that is no longer named"])
    entries = {name: entry("semantic", ("m1",)) for name in ("a", "b")}
    entries["c"] = DatasetTask(task="semantic", models=("m1",), compared=("tool",))
    report_all(paths, entries)
    page = paths.report_html.read_text(encoding="utf-8")
    warned = page[page.index('id="warnings"') : page.index('id="datasets"')]
    assert "14 warnings: check these first" in warned
    assert "odd &lt;axes&gt;" in warned
    assert re.findall(r"<h3>(\w+)</h3>", warned) == ["a", "b", "c"]
    assert "and 2 more in the report of b" in warned


def test_outlines_tell_truth_prediction_and_both_apart() -> None:
    truth, pred = np.zeros((12, 12), np.uint32), np.zeros((12, 12), np.uint32)
    truth[1:5, 1:5] = 3
    pred[1:5, 1:5] = 1
    truth[7:10, 1:4] = 4
    pred[7:10, 7:10] = 2
    ignored = np.zeros((12, 12), bool)
    view = OverlayView(np.zeros((1, 12, 12), np.float32), truth, pred, ignored)
    rgb = outlined.outlined(view, 12)
    assert tuple(rgb[1, 1]) == BOTH
    assert tuple(rgb[7, 1]) == TRUTH
    assert tuple(rgb[7, 7]) == PREDICTION
    # Inside an object, and outside of all, the image.
    assert not rgb[2, 2].any()
    assert not rgb[0, 11].any()
    ignored[6:, :] = True
    assert not outlined.outlined(view, 12)[6:].any()


def test_intervals_of_each_score_share_an_axis() -> None:
    ap, iou = HEADLINE["instances"][0], HEADLINE["semantic"][0]
    plots = interval_plots(
        [
            ("a", [ap], {"m": [Cell(mean=0.5, low=0.42, high=0.6)], "n": [Cell()]}),
            ("b", [iou], {"m": [Cell(mean=0.9)]}),
            ("c", [ap], {"m": [Cell(mean=0.8, low=0.7, high=0.95)]}),
            ("d", [], {}),
        ]
    )
    assert [(plot.score, len(plot.rows)) for plot in plots] == [(ap, 3), (iou, 1)]
    first, missing, last = plots[0].rows
    # The axis is 0.4 to 1.
    assert (first.low, first.mean, last.high) == pytest.approx((0.02 / 0.6, 0.1 / 0.6, 0.55 / 0.6))
    assert math.isnan(missing.mean)
    assert plots[0].ticks[0] == (0.0, 0.4)
    assert plots[0].ticks[-1] == (1.0, 1.0)


@given(st.floats(0, 1), st.floats(0, 1e4))
def test_axis_shows_all_values_in_few_round_steps(low: float, span: float) -> None:
    start, end, step = axis(low, low + span)
    assert start <= low + 1e-8
    assert end >= low + span - 1e-8
    assert 1 < round((end - start) / step) <= 5
    assert start >= 0
