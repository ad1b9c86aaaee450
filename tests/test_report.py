"""The report: tables by hand, tolerance of what is missing, self-contained and escaped pages."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.data.records import ImageRecord, SplitRecord, write_manifest, write_splits
from unet.errors import UserError
from unet.evaluation.rows import METRIC_COLUMNS, MetricRow
from unet.evaluation.statistics import bootstrap_interval
from unet.files import write_json
from unet.paths import Paths
from unet.report import collect, costs, figures, html, overlays, paired, pooling, show, tables
from unet.report.paired import Bootstrap
from unet.report.tables import Cell, ReportRow
from unet.sections import ReportSection

NAN = math.nan
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def metric(
    image: str,
    value: float,
    model: str = "a",
    name: str = "iou",
    class_: str = "foreground-mean",
    group: str = "",
    fold: int = 0,
) -> MetricRow:
    return MetricRow("d", model, fold, image, group, class_, name, value)


def row(model: str, name: str, mean: float, class_: str = "foreground-mean") -> ReportRow:
    return ReportRow("d", model, class_, name, mean, mean - 0.1, mean + 0.1, 4)


# Tables


def test_summary_is_the_mean_over_images_in_order_of_appearance() -> None:
    rows = tables.summarise(
        [
            metric("1", 0.2, name="iou"),
            metric("1", 0.5, name="dice"),
            metric("2", 0.6, name="iou"),
            metric("2", NAN, name="dice"),
            metric("1", 1.0, model="b"),
        ],
        Bootstrap(n=100),
    )
    assert [(r.model, r.metric, r.mean, r.n) for r in rows] == [
        ("a", "iou", pytest.approx(0.4), 2),
        ("a", "dice", 0.5, 1),
        ("b", "iou", 1.0, 1),
    ]
    assert rows[0].low == pytest.approx(0.2)
    assert rows[0].high == pytest.approx(0.6)
    assert math.isnan(rows[1].low)


def test_interval_resamples_groups_only_where_there_are_several() -> None:
    values = [0.1, 0.12, 0.1, 0.12, 0.9, 0.88, 0.9, 0.88]
    one = [metric(str(k), v, group="x") for k, v in enumerate(values)]
    two = [metric(str(k), v, group="xxxxyyyy"[k]) for k, v in enumerate(values)]
    boot = Bootstrap(n=500, seed=3)
    assert boot.interval(one) == bootstrap_interval(values, None, 0.95, 500, 3)
    assert boot.interval(two) == bootstrap_interval(values, list("xxxxyyyy"), 0.95, 500, 3)
    # Of two groups half of the draws hold one twice, hence the extremes.
    assert boot.interval(two).low == pytest.approx(0.11)
    assert boot.interval(one).low > 0.2


def test_image_without_a_group_stands_for_itself() -> None:
    rows = [metric("1", 0.1, group="x"), metric("2", 0.5, group="y"), metric("3", 0.9)]
    expected = bootstrap_interval([0.1, 0.5, 0.9], ["x", "y", "3"], 0.95, 2000, 0)
    assert Bootstrap().interval(rows) == expected


@given(st.permutations([metric(str(k), k / 7, group="ab"[k % 2]) for k in range(6)]))
@settings(max_examples=20, deadline=None)
def test_interval_does_not_depend_on_the_order_of_images(rows: list[MetricRow]) -> None:
    boot = Bootstrap(n=200)
    assert boot.interval(rows) == boot.interval(sorted(rows))


def test_report_csv_round_trip_and_digits(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    rows = [
        ReportRow(
            *("d", "m", "cell, inner", "iou", 0.123456789, 0.1, 0.2, 3),
            *(0.3, "o", 0.1, -0.1, 0.3, "no"),
        ),
        ReportRow("d", "m", "c", "dice", NAN, NAN, NAN, 0),
    ]
    tables.write_report(path, rows)
    assert path.read_text().splitlines() == [
        "dataset,model,class,metric,mean,low,high,n,pooled,best,difference,difference_low,"
        "difference_high,clear",
        'd,m,"cell, inner",iou,0.123457,0.1,0.2,3,0.3,o,0.1,-0.1,0.3,no',
        "d,m,c,dice,,,,0,,,,,,",
    ]
    back = tables.read_report(path)
    assert back[0] == rows[0]._replace(mean=0.123457)
    assert math.isnan(back[1].mean)
    assert back[1].n == 0


def test_metrics_file_that_is_missing_or_of_another_kind_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the evaluate stage"):
        tables.read_metrics(tmp_path / "none.csv")
    (tmp_path / "m.csv").write_text("dataset,model\n")
    with pytest.raises(UserError, match="no column fold, image"):
        tables.read_metrics(tmp_path / "m.csv")


def test_best_follows_the_direction_of_each_metric() -> None:
    rows = [
        row("a", "pixel_error", 0.1, "all"),
        row("b", "pixel_error", 0.2, "all"),
        row("a", "v_rand", 0.8),
        row("b", "v_rand", 0.9),
        row("a", "n_pred", 30),
        row("b", "n_pred", 20),
        row("a", "iou", NAN),
        row("b", "iou", 0.5),
        row("a", "dice", 0.5),
        row("b", "dice", 0.5),
    ]
    keys = [(r.class_, r.metric) for r in rows[::2]]
    cells = tables.comparison(rows, keys, ["a", "b", "c"])
    assert [c.best for c in cells["a"]] == [True, False, False, False, True]
    # Of iou one model alone has a value: nothing to compare.
    assert [c.best for c in cells["b"]] == [False, True, False, False, True]
    assert all(math.isnan(c.mean) and not c.best for c in cells["c"])


def test_columns_are_the_main_metrics_that_were_measured() -> None:
    rows = [
        row("a", "pixel_error", 0.1, "all"),
        row("a", "v_rand", 0.9, "cell"),
        row("a", "iou", 0.5, "cell"),
        row("a", "iou", 0.6),
        row("a", "ap_0.50", 0.6, "instances"),
    ]
    columns = tables.columns_for(rows, "semantic")
    assert [(s.metric, s.class_) for s in columns] == [
        ("iou", "foreground-mean"),
        ("v_rand", "cell"),
        ("pixel_error", "all"),
    ]
    assert [s.metric for s in tables.columns_for(rows, "instances")] == ["ap_0.50", "v_rand"]
    assert tables.columns_for([], "semantic") == []


def test_differences_are_paired_by_image() -> None:
    score = tables.HEADLINE["semantic"][0]
    # The images differ far more than the models: only the pairing sees that b is ahead.
    hard = [0.1, 0.5, 0.9]
    metrics = [metric(str(k), v) for k, v in enumerate(hard)]
    metrics += [metric(str(k), v + 0.05, model="b") for k, v in enumerate(hard)]
    metrics += [metric("only b", 0.99, model="b"), metric("0", NAN, model="c")]
    ((best, other, cell),) = tables.differences(metrics, score, ["a", "b", "c"], Bootstrap(n=200))
    assert (best, other, cell.n, cell.clear) == ("b", "a", 3, "few")
    assert (cell.difference, cell.low, cell.high) == pytest.approx((0.05, 0.05, 0.05))
    assert tables.differences(metrics, score, ["a"], Bootstrap()) == []


def test_difference_to_the_best_is_judged_by_independent_images() -> None:
    boot = Bootstrap(n=200)
    rng = np.random.default_rng(0)
    hard = rng.random(12)
    noise = rng.normal(0, 0.01, 12)
    groups = ["", "abcdef", "ab"]
    for group, clear in zip(groups, ("yes", "yes", "few"), strict=True):
        rows = {
            "a": [
                metric(str(k), v, group=group and group[k % len(group)]) for k, v in enumerate(hard)
            ]
        }
        rows["b"] = [r._replace(value=r.value - 0.05 + noise[k]) for k, r in enumerate(rows["a"])]
        rows["c"] = [r._replace(value=r.value + (-1) ** k * 0.2) for k, r in enumerate(rows["a"])]
        rows["c"][0] = rows["c"][0]._replace(value=rows["a"][0].value - 0.21)
        rows["d"] = []
        found = paired.versus_best(rows, 1, boot)
        assert found["a"].clear == "best"
        assert (found["b"].best, found["b"].clear) == ("a", clear)
        assert found["b"].difference == pytest.approx(0.05 - noise.mean())
        assert found["c"].clear in ("no", "few")
        assert found["d"] == paired.Versus("a")
    # Lower is better: the other way round.
    assert paired.versus_best(rows, -1, boot)["b"].clear == "best"
    assert paired.versus_best(rows, 0, boot)["b"] == paired.Versus()


def test_paired_bootstrap_by_hand() -> None:
    # Six differences, all 0.1 but for one of -0.5: resampled means reach from below to above 0.
    rows = {"a": [metric(str(k), 0.5) for k in range(6)]}
    rows["b"] = [metric(str(k), 0.4 if k else 1.0) for k in range(6)]
    found = paired.versus_best(rows, 1, Bootstrap(n=500))
    assert found["a"].clear == "best" or found["b"].clear == "best"
    other = found["a" if found["b"].clear == "best" else "b"]
    assert other.clear == "no"
    assert other.low <= 0 <= other.high


def test_report_rows_say_how_models_compare_and_pool() -> None:
    metrics = [
        metric(str(k), v, model, "iou")._replace(weight=w)
        for model, shift in (("a", 0.0), ("b", 0.1))
        for k, (v, w) in enumerate([(0.5 + shift, 30.0), (0.1 + shift, 10.0)] * 4)
    ]
    a, b = tables.summarise([m._replace(class_="cell") for m in metrics], Bootstrap(n=100))
    assert (a.mean, a.pooled) == pytest.approx((0.3, 0.4))
    assert (a.best, a.clear, b.best, b.clear) == ("b", "yes", "b", "best")
    assert (a.difference, a.difference_low) == pytest.approx((0.1, 0.1))
    assert math.isnan(b.difference)


def pooled(*rows: tuple[str, str, float, float]) -> dict[tuple[str, str], float]:
    table = pooling.pool(MetricRow("d", "m", 0, str(k), "", *row) for k, row in enumerate(rows))
    return {key: found.value for key, found in table.items()}


def test_ratios_pool_by_their_denominators() -> None:
    found = pooled(
        ("cell", "iou", 0.5, 10), ("cell", "iou", 0.9, 30), ("cell", "iou", NAN, 0),
        ("instances", "n_true", 3, NAN), ("instances", "n_true", 4, NAN),
        ("cell", "hd95_um", 3, NAN), ("wall", "iou", NAN, 0),
    )  # fmt: skip
    assert found["cell", "iou"] == pytest.approx(0.8)
    assert found["instances", "n_true"] == 7
    assert math.isnan(found["cell", "hd95_um"])
    assert math.isnan(found["wall", "iou"])


def test_pooled_means_of_classes_leave_the_first_out() -> None:
    found = pooled(
        ("ground", "precision", 1, 1), ("ground", "iou", 1, 5),
        ("cell", "iou", 0.5, 10), ("wall", "iou", 0.3, 10), ("wall", "iou", 0.5, 10),
        ("foreground-mean", "iou", 0.9, NAN),
        ("cell", "boundary_precision", 0.5, 4), ("cell", "boundary_recall", 1, 4),
        ("cell", "boundary_f1", 0, NAN), ("foreground-mean", "boundary_f1", 0, NAN),
        ("instances", "boundary_precision", 1, 4), ("instances", "boundary_recall", 1, 4),
        ("instances", "boundary_f1", 0, NAN),
    )  # fmt: skip
    assert found["foreground-mean", "iou"] == pytest.approx((0.5 + 0.4) / 2)
    assert found["cell", "boundary_f1"] == found["foreground-mean", "boundary_f1"] == 2 / 3
    assert found["instances", "boundary_f1"] == 1


def test_pooled_values_are_those_of_the_images_side_by_side() -> None:
    from unet.evaluation.contingency import contingency, merge
    from unet.evaluation.instance import instance_metrics
    from unet.evaluation.objects import object_metrics
    from unet.evaluation.pixel import confusion, pixel_metrics

    rng = np.random.default_rng(0)
    names = ("ground", "cell", "wall")
    images = []
    for size in (40, 80, 30):
        ids = np.repeat(rng.integers(0, 6, size), 3)
        pred = np.where(rng.random(3 * size) < 0.2, np.roll(ids, 1), ids)
        images.append((ids, pred))
    images.append((np.zeros(20, int), np.repeat([0, 5], 10)))

    def scores(truth: Any, pred: Any, offset: int = 0) -> list[Any]:
        table = contingency(truth + offset * (truth > 0), pred + offset * (pred > 0))
        maps = confusion(np.minimum(truth, 2), np.minimum(pred, 2), 3)
        return [*instance_metrics(table), *object_metrics(table), *pixel_metrics(maps, names)]

    found = pooling.pool(
        MetricRow("d", "m", 0, str(k), "", *score)
        for k, image in enumerate(images)
        for score in scores(*image)
    )
    table = merge(
        contingency(t + 10 * k * (t > 0), p + 10 * k * (p > 0)) for k, (t, p) in enumerate(images)
    )
    whole = [np.minimum(np.concatenate(part), 2) for part in zip(*images, strict=True)]
    expected = [
        *instance_metrics(table), *object_metrics(table),
        *pixel_metrics(confusion(*whole, 3), names),
    ]  # fmt: skip
    for score in expected:
        assert found[score.class_, score.metric].value == pytest.approx(score.value), score


def test_pooled_ece_lets_opposite_errors_cancel() -> None:
    found = pooled(
        ("cell", "ece", 0.2, NAN), ("cell", "reliability_08", 0.7, 10),
        ("cell", "confidence_08", 0.5, 10), ("cell", "ece", 0.2, NAN),
        ("cell", "reliability_08", 0.3, 10), ("cell", "confidence_08", 0.5, 10),
    )  # fmt: skip
    assert found["cell", "ece"] == pytest.approx(0)


def test_every_metric_has_a_direction() -> None:
    assert [tables.better(m) for m in ("iou", "ap_0.50", "v_rand", "det", "boundary_f1")] == [1] * 5
    lower = (
        "pixel_error", "isbi_rand_error", "isbi_warping_error", "warping_error", "voi", "voi_split",
        "adapted_rand_error", "hd95_um", "asd_px", "ece", "brier", "split_rate", "n_added",
    )  # fmt: skip
    assert {tables.better(m) for m in lower} == {-1}
    neither = (
        "n_true", "isbi_rand_threshold", "topology_threshold", "reliability_03", "seam_score",
    )  # fmt: skip
    assert {tables.better(m) for m in neither} == {0}
    assert tables.better("adapted_rand_split") == tables.better("v_info_merge") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (NAN, "–"),
        (0.0, "0.000"),
        (0.91234, "0.912"),
        (0.07219, "0.0722"),
        (0.0996, "0.100"),
        (0.02, "0.0200"),
        (-0.05, "-0.0500"),
        (32.44, "32.4"),
        (12345.6, "12,346"),
    ],
)
def test_number_for_people(value: float, text: str) -> None:
    assert show.number(value) == text


def test_interval_duration_memory_for_people() -> None:
    assert show.interval(Cell(0.5, 0.41, 0.6, 3)) == "[0.410, 0.600]"
    assert show.interval(Cell(0.5, NAN, NAN, 1)) == ""
    seconds = (0.41, 12.3, 59.7, 185, 7620, NAN)
    texts = ["0.4 s", "12 s", "1 min 00 s", "3 min 05 s", "2 h 07 min", "–"]
    assert [show.duration(s) for s in seconds] == texts
    assert [show.memory(m) for m in (300.2, 2048, NAN)] == ["300 MiB", "2.0 GiB", "–"]


def test_console_summary_has_a_table_per_task() -> None:
    from rich.console import Console

    rows = [row("a", "iou", 0.8), row("b[red]", "iou", 0.9)]
    rows.append(ReportRow("n", "a", "instances", "ap_0.50", 0.7, NAN, NAN, 1))
    found = show.summary_tables(rows, {"d": "semantic", "n": "instances", "empty": "instances"})
    console = Console(width=100)
    with console.capture() as capture:
        for table in found:
            console.print(table)
    text = capture.get()
    assert len(found) == 2
    # The name is shown as it is, not taken for markup.
    assert re.search(r"b\[red\].*0\.900 \[0\.800, 1\.000\]", text)
    assert re.search(r"n .*│ a .*0\.700 │", text)


# Costs


def test_benchmarks_are_added_up_and_may_be_missing(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    for fold, line in enumerate(
        ("10\t-\t300\t-\t-\t-\t-\t-\t-\t15", "5\t-\tNA\t-\t-\t-\t-\t-\t-\t-")
    ):
        path = paths.benchmark("train", "d", "m", str(fold))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BENCHMARK + line + "\n")
    paths.benchmark("prepare", "d").parent.mkdir()
    paths.benchmark("prepare", "d").write_text(BENCHMARK)
    found = costs.stage_costs(paths, "d", ["m", "other"], [0, 1, 2])
    assert found == [costs.Cost("train", "m", 2, 15.0, 15.0, 300.0)]
    total = costs.total_cost([*found, costs.Cost("x", "", 1, 1.0, NAN, 400.0)])
    assert total == costs.Cost("total", "", 3, 16.0, 15.0, 400.0)
    assert math.isnan(costs.total_cost([]).seconds)


# Picks and panels


def test_picks_are_best_median_worst_and_leave_out_nan() -> None:
    score = tables.HEADLINE["semantic"][0]
    rows = [metric(str(k), v) for k, v in enumerate([0.3, 0.9, NAN, 0.5, 0.7, 0.1])]
    found = collect.picks(rows, "a", score, 3)
    assert [(p.rank, p.image, p.score) for p in found] == [
        ("best", "1", 0.9),
        ("median", "3", 0.5),
        ("worst", "5", 0.1),
    ]
    assert [p.rank for p in collect.picks(rows[:1], "a", score, 3)] == ["only image"]
    assert [p.rank for p in collect.picks(rows[:2], "a", score, 3)] == ["best", "worst"]
    assert [p.image for p in collect.picks(rows, "a", score, 1)] == ["3"]
    assert [p.image for p in collect.picks(rows, "a", score, 20)] == ["1", "4", "3", "0", "5"]
    assert collect.picks(rows, "a", score, 0) == []
    assert collect.picks(rows, "b", score, 3) == []
    error = next(s for s in tables.HEADLINE["semantic"] if s.metric == "pixel_error")
    lower = [metric(str(k), v, name="pixel_error", class_="*") for k, v in enumerate([0.2, 0.1])]
    assert [p.image for p in collect.picks(lower, "a", error, 2)] == ["1", "0"]


@given(st.integers(0, 2**31), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_worst_window_against_brute_force(seed: int, size: int) -> None:
    wrong = np.random.default_rng(seed).random((7, 5)) < 0.3
    y, x = overlays.worst_window(wrong, size)
    found = wrong[y : y + size, x : x + size]
    assert found.shape == (min(size, 7), min(size, 5))
    sums = [wrong[b : b + size, a : a + size].sum() for b in range(7) for a in range(5)]
    assert found.sum() == max(sums)


def view_of(truth: Any, pred: Any, ignored: Any = None) -> overlays.View:
    truth, pred = np.array(truth, np.uint32), np.array(pred, np.uint32)
    ignored = np.zeros(truth.shape, bool) if ignored is None else np.array(ignored, bool)
    return overlays.View(np.zeros((1, *truth.shape), np.float32), truth, pred, ignored)


def test_semantic_error_panel_tells_missed_false_and_swapped_apart() -> None:
    view = view_of([[1, 0, 1, 1, 1]], [[0, 1, 2, 1, 0]], [[0, 0, 0, 0, 1]])
    _, error = overlays._semantic_panels(view, side=5)
    share = np.array(error[0, :, :], float)
    expected = [overlays.MISSED, overlays.FALSE, overlays.SWAPPED, (0, 0, 0)]
    np.testing.assert_allclose(share[:4], 0.85 * np.array(expected), atol=1)
    assert tuple(error[0, 4]) == overlays.IGNORED
    assert overlays.errors(view, "semantic").tolist() == [[True, True, True, False, False]]
    assert overlays.errors(view, "instances").tolist() == [[True, True, False, False, False]]


def test_instance_error_panel_marks_missed_and_false_objects() -> None:
    truth, pred = np.zeros((12, 30), np.uint32), np.zeros((12, 30), np.uint32)
    truth[2:10, 1:9] = 7
    pred[2:10, 1:9] = 900_000
    truth[2:10, 11:19] = 8
    pred[2:10, 21:29] = 3
    view = view_of(truth, pred)
    maps, error = overlays._instance_panels(view, side=30)
    assert tuple(error[2, 4]) == overlays.MATCHED
    assert tuple(error[2, 14]) == overlays.MISSED
    assert tuple(error[2, 24]) == overlays.FALSE
    assert tuple(error[0, 0]) == (0, 0, 0)
    # The found object has one colour in truth and prediction.
    shown = [np.array(decoded(uri)) for uri in maps]
    assert shown[0][5, 4] == shown[1][5, 4] != 0
    assert shown[0][5, 14] != 0
    assert shown[1][5, 14] == 0


def decoded(uri: str) -> Any:
    import base64
    import io

    from PIL import Image

    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


@pytest.mark.parametrize("task", ["semantic", "instances"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (64, 64)])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_panels_of_any_shape(task: str, shape: tuple[int, int], channels: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (2, *shape)).astype(np.uint32)
    image = rng.random((channels, *shape)).astype(np.float32)
    image[0, 0, 0] = NAN
    view = overlays.View(image, labels[0], labels[1], np.zeros(shape, bool))
    found = overlays.panels(view, task, side=100)
    assert [panel.title for panel in found] == ["Image", "Truth", "Prediction", "Error"]
    assert all(max(decoded(panel.uri).size) <= 100 for panel in found)


def test_everything_ignored_or_empty_makes_panels_still() -> None:
    everything = np.ones((4, 4), bool)
    for task in ("semantic", "instances"):
        for ignored in (everything, ~everything):
            assert len(overlays.panels(view_of(~everything, ~everything, ignored), task, 8)) == 4


# Figures


def test_curves_leave_out_what_was_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text(
        "epoch,step,lr,train_loss,val_loss,val_score\n1,5,.1,0.9,,\n2,10,.1,0.5,0.6,0.7\n"
        "3,15,.1,0.4,,\n4,20,.1,0.3,0.5,0.7\n"
    )
    rows = figures.read_history(path)
    train, val = (line.get_xdata() for line in figures.curves(rows).axes[0].lines[:2])
    assert list(train) == [1, 2, 3, 4]
    assert list(val) == [2, 4]
    best = figures.best_epoch(rows)
    assert best is not None
    assert best["epoch"] == 2
    assert figures.best_epoch(rows[:1]) is None


def test_curves_file_is_the_same_each_time_and_may_be_empty(tmp_path: Path) -> None:
    history = tmp_path / "history.csv"
    history.write_text("epoch,train_loss,val_loss,val_score\n1,0.9,0.8,0.1\n")
    for name in ("a.png", "b.png"):
        figures.save_curves(history, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    figures.save_curves(tmp_path / "none.csv", tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_reliability_plot_shows_the_bins_that_hold_pixels() -> None:
    bins = [pooling.Bin(0.1, 0.3, 20), pooling.Bin(0.9, 0.8, 5)]
    left, right = figures.reliability_plot({"cell": bins}).axes
    diagonal, line = left.lines
    assert list(diagonal.get_xdata()) == [0, 1]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0.1, 0.9], [0.3, 0.8])
    assert list(right.lines[0].get_ydata()) == [20, 5]


# Pages


def make_results(
    paths: Paths, dataset: str, models: Sequence[str], task: str, images: int = 4
) -> None:
    """A small but complete results folder: one fold, ``images`` test images of 40 x 48."""
    ids = [f"im{k}" for k in range(images)]
    truth = np.zeros((40, 48), np.uint32)
    truth[5:20, 5:20], truth[25:35, 25:40] = 1, 2
    image = (truth > 0).astype(np.float32)[None]
    zarr.open_group(paths.prepared(dataset), mode="w", zarr_format=3)
    for name in ids:
        group = zarr.open_group(paths.prepared(dataset) / name, mode="w", zarr_format=3)
        group.create_array("image", data=image)
        group.create_array("classes", data=(truth > 0).astype(np.uint8))
        if task == "instances":
            group.create_array("instances", data=truth)
    records = [ImageRecord(i, f"{i}.tif", f"{i}.tif", axes="CYX", shape=(1, 40, 48)) for i in ids]
    bad = ImageRecord("bad", "bad&.tif", status="quarantined", reason="<b>truncated</b>")
    write_manifest(paths.manifest(dataset), [*records, bad])
    write_splits(paths.splits(dataset), [SplitRecord(i, 0, "test") for i in ids])
    for m, model in enumerate(models):
        store = paths.segmentation(dataset, model, 0)
        zarr.open_group(store, mode="w", zarr_format=3)
        values = []
        for k, name in enumerate(ids):
            pred = np.roll(truth, k + m, axis=1)
            group = zarr.open_group(store / name, mode="w", zarr_format=3)
            group.create_array("labels/classes/0", data=(pred > 0).astype(np.uint8))
            if task == "instances":
                group.create_array("labels/instances/0", data=pred)
            iou = ["foreground-mean", "iou", 1 / (1 + k + m)]
            objects = ["instances", "ap_0.50", 0.9 - 0.1 * k]
            undefined = ["foreground", "recall", "nan"]
            values += [[*which] for which in (iou, objects, undefined)]
        with paths.metrics(dataset, model).open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(METRIC_COLUMNS)
            for k, which in enumerate(values):
                writer.writerow([dataset, model, 0, ids[k // 3], "", *which, 10])
        paths.history(dataset, model, 0).write_text(
            "epoch,train_loss,val_loss,val_score,images_per_s,data_share\n1,0.9,0.8,0.4,20,0.1\n"
        )
    paths.config.write_text("datasets: {x: <script>alert(1)</script>}\n")


def make_report(paths: Paths, dataset: str, models: Sequence[str], task: str) -> str:
    html.report_dataset(
        paths, dataset, ReportSection(bootstrap=100), task, models, [0], ["ground", "cell"], seed=0
    )
    return paths.dataset_report_html(dataset).read_text(encoding="utf-8")


def assert_self_contained(page: str) -> None:
    assert not re.search(r"https?:|url\(|@import|<script|<link|<iframe", page)
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    assert sources
    for source in sources:
        assert source.startswith(("data:image/", "#")) or source.endswith("/report.html"), source


@pytest.mark.parametrize("task", ["semantic", "instances"])
def test_dataset_report_has_all_its_parts(tmp_path: Path, task: str) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m1", "m2"], task)
    page = make_report(paths, "d", ["m1", "m2"], task)
    assert_self_contained(page)
    # Per model: three overlays of four panels, a figure of curves; and the plot of all images.
    assert page.count('src="data:image/') == 2 * (3 * 4 + 1) + 1
    assert "<code>im0</code>" in page
    assert "recall" in page
    assert ">–<" in page
    assert "nan" not in re.sub(r'"data:[^"]*"', "", page).lower()
    assert "&lt;b&gt;truncated&lt;/b&gt;" in page
    assert "bad&amp;.tif" in page
    assert "without Snakemake" in page
    lines = paths.dataset_report_csv("d").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3
    if task == "semantic":
        assert lines[1].startswith("d,m1,foreground-mean,iou,0.520833,")


def test_dataset_report_has_a_reliability_plot_per_model(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m1", "m2"], "semantic")
    with paths.metrics("d", "m2").open("a") as handle:
        for name, value in (("ece", 0.2), ("reliability_08", 0.7), ("confidence_08", 0.5)):
            handle.write(f"d,m2,0,im0,,cell,{name},{value},{'' if name == 'ece' else 10}\n")
    page = make_report(paths, "d", ["m1", "m2"], "semantic")
    assert_self_contained(page)
    assert "Reliability of m2" in page
    assert "Reliability of m1" not in page
    assert "cell 0.200" in page
    # The bins are in the CSV file and the plot, not in the table of all metrics.
    assert "<code>ece</code>" in page
    assert "<code>reliability_08</code>" not in page
    assert "d,m2,cell,reliability_08,0.7,," in paths.dataset_report_csv("d").read_text()


def test_seams_and_skipped_tiles_are_told(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["net", "other"], "instances")
    page = make_report(paths, "d", ["net", "other"], "instances")
    assert "Seam score" not in page
    assert "skipped as empty" not in page
    for model, skipped in (("net", (0, 3)), ("other", (0, 0))):
        images = {f"im{k}": {"tiles": 5, "skipped": n} for k, n in enumerate(skipped)}
        write_json(paths.tiles_done("d", model, 0), {"images": images})
    with paths.metrics("d", "net").open("a", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["d", "net", 0, "im0", "", "", "seam_score", 1.02, ""])
        writer.writerow(["d", "net", 0, "im1", "", "", "seam_score", 0.98, ""])
    page = make_report(paths, "d", ["net", "other"], "instances")
    assert "Seam score (1 = none)" in page
    assert "<strong>net</strong>: 3 of 10 tiles skipped as empty" in page
    assert "<strong>other</strong>: " not in page.split("skipped as empty")[0]
    rows = {(r.model, r.metric): r for r in tables.read_report(paths.dataset_report_csv("d"))}
    assert rows["net", "seam_score"].mean == pytest.approx(1)


def test_report_is_the_same_each_time(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "instances")
    first = make_report(paths, "d", ["m"], "instances")
    assert make_report(paths, "d", ["m"], "instances") == first


def test_names_are_escaped(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    name = "<script>x&y<"
    make_results(paths, name, ["<i>"], "semantic", images=1)
    page = make_report(paths, name, ["<i>"], "semantic")
    assert_self_contained(page)
    assert "&lt;script&gt;x&amp;y&lt;" in page
    assert "<i>" not in page
    html.report_all(paths, {name: html.DatasetTask("semantic", ("<i>",))})
    overall = paths.report_html.read_text(encoding="utf-8")
    assert_self_contained(overall)
    assert "<i>" not in overall
    assert 'href="%3Cscript%3Ex%26y%3C/report.html"' in overall


def test_single_image_has_no_interval(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "semantic", images=1)
    page = make_report(paths, "d", ["m"], "semantic")
    assert "only image" in page
    assert "1.000" in page
    assert 'class="range"' not in page
    assert "d,m,foreground-mean,iou,1,,,1" in paths.dataset_report_csv("d").read_text()


def test_nothing_measured_and_stores_missing_still_make_a_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = Paths(tmp_path)
    write_manifest(paths.manifest("d"), [])
    write_splits(paths.splits("d"), [])
    paths.fold("d", "m", 0).mkdir(parents=True)
    paths.metrics("d", "m").write_text(",".join(METRIC_COLUMNS) + "\n")
    page = make_report(paths, "d", ["m"], "semantic")
    assert "No test image of this dataset has been scored" in page
    assert "No training history" in page
    html.report_all(paths, {"d": html.DatasetTask("semantic", ("m",))})
    assert "report.html" in paths.report_html.read_text(encoding="utf-8")

    header = ",".join(METRIC_COLUMNS)
    paths.metrics("d", "m").write_text(f"{header}\nd,m,0,im,,foreground-mean,iou,0.5,\n")
    assert "None to show" in make_report(paths, "d", ["m"], "semantic")
    assert "no overlay of im by m" in caplog.text


def test_overall_report_has_a_row_per_dataset_and_model(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    tasks = {"cells": "semantic", "nuclei": "instances"}
    for name, task in tasks.items():
        make_results(paths, name, ["m1", "m2"], task)
        make_report(paths, name, ["m1", "m2"], task)
    benchmark = paths.benchmark("train", "cells", "m1", "0")
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text(BENCHMARK + "65\t-\t300\t-\t-\t-\t-\t-\t-\t70\n")
    rows = html.report_all(paths, {n: html.DatasetTask(t, ("m1", "m2")) for n, t in tasks.items()})
    assert len(rows) == 2 * 2 * 3
    assert tables.read_report(paths.report_csv)[0] == rows[0]
    page = paths.report_html.read_text(encoding="utf-8")
    assert_self_contained(page)
    assert page.count('href="cells/report.html"') == page.count('href="nuclei/report.html"') == 2
    assert page.count("1 min 05 s") == 2


def test_large_image_is_read_strided_and_has_a_detail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "semantic", images=1)
    monkeypatch.setattr(collect, "LIMIT", 16)
    pick = collect.Pick("only image", "im0", 0, 1.0)
    whole = collect.view(paths, "d", "m", "semantic", pick)
    assert whole is not None
    assert whole.stride == 3
    assert whole.truth.shape == (14, 16)
    part = collect.view(paths, "d", "m", "semantic", pick, window=(4, 4, 10))
    assert part is not None
    assert part.image.shape == (1, 10, 10)
    assert part.truth.sum() == 81
    monkeypatch.setattr(html, "DETAIL", 12)
    found = html._overlays_of(paths, "d", "semantic", "m", pick, side=20)
    assert ["whole image" in found[0].note, "detail" in found[1].note] == [True, True]


# Command line


def script() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "scripts" / "report.py"
    spec = importlib.util.spec_from_file_location("report_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_line_of_a_dataset_and_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "instances")
    main = script().main
    own = {
        "version": 1,
        "report": ReportSection(bootstrap=100).model_dump(mode="json"),
        "task": "instances",
        "models": ["m"],
        "folds": [0],
        "class_names": ["background", "foreground"],
        "seed": 0,
    }
    common = ["--output", str(tmp_path)]
    assert main([*common, "--all", "--settings", '{"datasets": {"d": {"task": "semantic"}}}']) == 2
    assert main([*common, "--dataset", "d", "--settings", json.dumps(own)]) == 0
    overall = {"version": 1, "datasets": {"d": {"task": "instances", "models": ["m"]}}}
    assert main([*common, "--all", "--settings", json.dumps(overall)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"d +│ m +│ 0\.750 \[", out)
    assert str(paths.report_html) in out
    with pytest.raises(SystemExit):
        main([*common, "--settings", "{}"])


def test_noise_can_be_shown() -> None:
    """Pure noise compresses worst: more than a byte per pixel."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 640, 3), dtype=np.uint8)
    assert overlays._photo(noise).startswith("data:image/jpeg;base64,")
