"""Numbers of the report: means, intervals, differences, pooling and costs, by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.errors import UserError
from unet.evaluation.metrics.rows import MetricRow
from unet.evaluation.statistics import mean_interval
from unet.paths import Paths
from unet.report import console, costs, paired, pooling, score_tables
from unet.report.paired import Statistics
from unet.report.score_tables import Cell, ReportRow

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


def row(
    model: str, name: str, mean: float, class_: str = "foreground-mean", clear: str = ""
) -> ReportRow:
    found = ReportRow("d", model, class_, name, mean, mean - 0.1, mean + 0.1, 4)
    return found._replace(clear=clear, units=4)


def test_summary_is_the_mean_over_images_in_order_of_appearance() -> None:
    rows = score_tables.summarise(
        [
            metric("1", 0.2, name="iou"),
            metric("1", 0.5, name="dice"),
            metric("2", 0.6, name="iou"),
            metric("2", NAN, name="dice"),
            metric("1", 1.0, model="b"),
        ],
        Statistics(),
    )
    assert [(r.model, r.metric, r.mean, r.n) for r in rows] == [
        ("a", "iou", pytest.approx(0.4), 2),
        ("a", "dice", 0.5, 1),
        ("b", "iou", 1.0, 1),
    ]
    assert rows[0][5:7] == mean_interval([0.2, 0.6], bounds=(0, 1))[1:3]
    assert rows[0].low > 0
    assert math.isnan(rows[1].low)
    assert [(r.units, r.far) for r in rows] == [(2, 0), (1, 0), (1, 0)]


def test_groups_are_the_units_only_where_there_are_several() -> None:
    values = [0.1, 0.12, 0.1, 0.12, 0.9, 0.88, 0.9, 0.88]
    one = [metric(str(k), v, group="x") for k, v in enumerate(values)]
    two = [metric(str(k), v, group="xxxxyyyy"[k]) for k, v in enumerate(values)]
    assert Statistics().interval(one) == mean_interval(values)
    assert Statistics(0.9).interval(two) == mean_interval(values, list("xxxxyyyy"), 0.9)
    assert Statistics().interval(two).units == 2


def test_image_without_a_group_stands_for_itself() -> None:
    rows = [metric("1", 0.1, group="x"), metric("2", 0.5, group="y"), metric("3", 0.9)]
    assert Statistics().interval(rows) == mean_interval([0.1, 0.5, 0.9], ["x", "y", "3"])


@given(st.permutations([metric(str(k), k / 7, group="ab"[k % 2]) for k in range(6)]))
@settings(max_examples=20, deadline=None)
def test_interval_does_not_depend_on_the_order_of_images(rows: list[MetricRow]) -> None:
    assert Statistics().interval(rows) == Statistics().interval(sorted(rows))


def test_report_csv_round_trip_and_digits(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    rows = [
        ReportRow(
            *("d", "m", "cell, inner", "iou", 0.123456789, 0.1, 0.2, 3),
            *(0.3, "o", 0.1, -0.1, 0.3, "no", 0.25, 2, 1),
        ),
        ReportRow("d", "m", "c", "dice", NAN, NAN, NAN, 0),
    ]
    score_tables.write_report(path, rows)
    assert path.read_text().splitlines() == [
        "dataset,model,class,metric,mean,low,high,n,pooled,best,difference,difference_low,"
        "difference_high,clear,p,units,far",
        'd,m,"cell, inner",iou,0.123457,0.1,0.2,3,0.3,o,0.1,-0.1,0.3,no,0.25,2,1',
        "d,m,c,dice,,,,0,,,,,,,,0,0",
    ]
    back = score_tables.read_report(path)
    assert back[0] == rows[0]._replace(mean=0.123457)
    assert math.isnan(back[1].mean)
    assert back[1].n == 0


def test_metrics_file_that_is_missing_or_of_another_kind_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the evaluate stage"):
        score_tables.read_metrics(tmp_path / "none.csv")
    (tmp_path / "m.csv").write_text("dataset,model\n")
    with pytest.raises(UserError, match="no column fold, image"):
        score_tables.read_metrics(tmp_path / "m.csv")


def marks(*rows: ReportRow) -> dict[str, tuple[bool, bool]]:
    """Model -> (best, tied) of a table of one metric."""
    cells = score_tables.comparison(
        rows, [(rows[0].class_, rows[0].metric)], [r.model for r in rows]
    )
    return {model: (cell.best, cell.tied) for model, (cell,) in cells.items()}


def test_only_a_model_that_is_clearly_ahead_of_every_other_is_marked() -> None:
    best, ahead = row("b", "iou", 0.9, clear="best"), row("c", "iou", 0.7, clear="yes")
    assert marks(best, ahead) == {"b": (True, False), "c": (False, False)}
    for clear in ("no", "few"):
        found = marks(best, ahead, row("a", "iou", 0.5, clear=clear))
        assert found == {"b": (False, False), "c": (False, False), "a": (False, True)}
    # Not compared, or only one model.
    assert marks(best) == {"b": (False, False)}
    assert marks(row("a", "n_pred", 30), row("b", "n_pred", 20))["a"] == (False, False)
    # A model without values is not compared.
    assert marks(best, ahead, row("a", "iou", NAN))["b"] == (True, False)
    # A model that shares no image with the best one cannot be compared.
    lower = row("b", "pixel_error", 0.1, clear="best"), row("c", "pixel_error", 0.2, clear="yes")
    assert marks(*lower)["b"] == (True, False)
    assert score_tables.comparison([], [("c", "iou")], ["a"])["a"] == [Cell()]


def test_values_equal_as_printed_are_equal() -> None:
    found = marks(row("a", "iou", 0.99996, clear="best"), row("b", "iou", 0.99984, clear="yes"))
    assert found == {"a": (False, False), "b": (False, True)}
    assert console.number(0.99996) == console.number(0.99984) == "1.000"
    found = marks(row("a", "iou", 0.9996, clear="best"), row("b", "iou", 0.9984, clear="yes"))
    assert found["a"] == (True, False)


def test_verdict_says_no_more_than_the_test() -> None:
    def verdict(*rows: ReportRow, confidence: float = 0.95, grouped: bool = False) -> str:
        cells = score_tables.comparison(rows, [(rows[0].class_, "iou")], [r.model for r in rows])
        first = {model: found[0] for model, found in cells.items()}
        return console.verdict(first, "IoU", confidence, grouped)

    best, ahead = row("b", "iou", 0.9, clear="best"), row("c", "iou", 0.7, clear="yes")
    assert verdict(best, ahead) == (
        "b is best by IoU: 0.900 [0.800, 1.000]. It is clearly ahead of the other model."
    )
    assert verdict(best, ahead, row("a", "iou", 0.8, clear="no")) == (
        "No model is clearly best by IoU: b has the best mean, but its difference to a may be "
        "chance."
    )
    few = row("a", "iou", 0.8, clear="few")
    assert verdict(best, few) == (
        "Too few images to tell which model is best by IoU: the test needs at least 6."
    )
    assert "groups of images" in verdict(best, few, confidence=0.99, grouped=True)
    assert "at least 8" in verdict(best, few, confidence=0.99)
    assert verdict(best) == verdict(row("a", "iou", 0.5)) == ""
    # One with few images leaves the others their verdict.
    assert verdict(best, ahead, few) == (
        "b is best by IoU: 0.900 [0.800, 1.000]. It is clearly ahead of every other model that "
        "could be tested. Not tested: a, which shares too few images with b: the test needs at "
        "least 6."
    )
    none = row("d", "iou", 0.8)
    assert verdict(best, row("c", "iou", 0.8, clear="no"), few, none, grouped=True) == (
        "No model is clearly best by IoU: b has the best mean, but its difference to c may be "
        "chance. Not tested: a, d, which share too few groups of images with b: the test needs at "
        "least 6."
    )


def test_few_images_and_scores_far_apart_are_said() -> None:
    cell = Cell(0.5, 0.4, 0.6, 4, units=4)
    assert console.caution(cell) == "n = 4: few"
    assert console.caution(Cell(0.5, 0.4, 0.6, 24, units=3)) == "3 groups: few"
    assert console.caution(Cell(0.5, 0.4, 0.6, 9, units=9, far=1)) == "n = 9: few, far apart"
    assert console.caution(Cell(0.5, 0.4, 0.6, 24, units=10, far=2)) == "far apart"
    assert console.caution(Cell(0.5, 0.4, 0.6, 24, units=24)) == console.caution(Cell()) == ""
    failed = [metric(str(k), v) for k, v in enumerate([0.9, 0.91, 0.89, 0.9, 0.1])]
    objects = [
        m._replace(metric="n_true", value=v) for m, v in zip(failed, [9, 9, 8, 9, 90], strict=True)
    ]
    scores, counts = score_tables.summarise([*failed, *objects], Statistics())
    assert (scores.far, counts.far) == (1, 0)


def test_columns_are_the_main_metrics_that_were_measured() -> None:
    rows = [
        row("a", "pixel_error", 0.1, "all"),
        row("a", "v_rand", 0.9, "cell"),
        row("a", "iou", 0.5, "cell"),
        row("a", "iou", 0.6),
        row("a", "ap_0.50", 0.6, "instances"),
    ]
    columns = score_tables.columns_for(rows, "semantic")
    assert [(s.metric, s.class_) for s in columns] == [
        ("iou", "foreground-mean"),
        ("v_rand", "cell"),
        ("pixel_error", "all"),
    ]
    assert [s.metric for s in score_tables.columns_for(rows, "instances")] == ["ap_0.50", "v_rand"]
    assert score_tables.columns_for([], "semantic") == []


def test_differences_are_paired_by_image() -> None:
    score = score_tables.HEADLINE["semantic"][0]
    # The images differ far more than the models: only paired differences show that b is ahead.
    hard = [0.1, 0.5, 0.9]
    metrics = [metric(str(k), v) for k, v in enumerate(hard)]
    metrics += [metric(str(k), v + 0.05, model="b") for k, v in enumerate(hard)]
    metrics += [metric("only b", 0.99, model="b"), metric("0", NAN, model="c")]
    ((best, other, cell),) = score_tables.differences(metrics, score, ["a", "b", "c"], Statistics())
    assert (best, other, cell.n, cell.clear) == ("b", "a", 3, "few")
    assert cell.difference == pytest.approx(0.05)
    # Three equal differences do not tell how much a fourth may differ.
    assert math.isnan(cell.low)
    assert score_tables.differences(metrics, score, ["a"], Statistics()) == []


def test_difference_to_the_best_is_judged_by_independent_images() -> None:
    boot = Statistics(draws=200)
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


def test_one_failed_image_makes_no_clear_difference() -> None:
    # Eleven differences of 0.1 and one of -0.5: sums 0.6, reached by many flips.
    rows = {"a": [metric(str(k), 0.5) for k in range(12)]}
    rows["b"] = [metric(str(k), 0.4 if k else 1.0) for k in range(12)]
    found = paired.versus_best(rows, 1, Statistics(), (0, 1))
    other = found["b"]
    assert (found["a"].clear, other.clear) == ("best", "no")
    assert other.low < 0 < other.high
    assert other.p > 0.05
    rows["b"][0] = rows["b"][0]._replace(value=0.41)
    assert paired.versus_best(rows, 1, Statistics(), (0, 1))["b"].clear == "yes"


def test_more_models_need_more_evidence() -> None:
    """A difference that is clear between two models is not clear among ten, which have 45 pairs."""
    rng = np.random.default_rng(1)
    rows = {"a": [metric(str(k), v) for k, v in enumerate(rng.normal(0.03, 0.03, 8))]}
    for model in "bcdefghij":
        rows[model] = [metric(str(k), v) for k, v in enumerate(rng.normal(0, 0.03, 8))]
    two = paired.versus_best({m: rows[m] for m in "ab"}, 1, Statistics())["b"]
    ten = paired.versus_best(rows, 1, Statistics())["b"]
    assert (two.clear, ten.clear) == ("yes", "no")
    assert ten.p > two.p
    assert ten.difference == two.difference


@given(st.permutations("abcd"), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_the_order_of_models_changes_nothing(order: list[str], seed: int) -> None:
    values = np.random.default_rng(seed).random((4, 7))
    rows = {m: [metric(str(k), v) for k, v in enumerate(values["abcd".index(m)])] for m in order}
    found = paired.versus_best(rows, 1, Statistics(), (0, 1))
    expected = paired.versus_best({m: rows[m] for m in "abcd"}, 1, Statistics(), (0, 1))
    assert list(found) == order
    for model, versus in found.items():
        assert versus[1:5] == pytest.approx(expected[model][1:5], nan_ok=True)
        assert (versus.best, versus.clear) == (expected[model].best, expected[model].clear)
        assert versus.p == pytest.approx(expected[model].p, nan_ok=True)
        assert math.isnan(versus.p) or 0 < versus.p <= 1


@pytest.mark.parametrize("models", [2, 5, 10])
def test_equal_models_are_rarely_told_apart(models: int) -> None:
    # The test's level is 5 % per table; the paired bootstrap finds a false one in up to 86 %.
    rng = np.random.default_rng(models)
    found = 0
    for seed in range(300):
        values = rng.beta(12, 2, (models, 8))
        rows = {str(m): [metric(str(k), v) for k, v in enumerate(own)]
                for m, own in enumerate(values)}  # fmt: skip
        versus = paired.versus_best(rows, 1, Statistics(seed=seed), (0, 1))
        found += any(v.clear == "yes" for v in versus.values())
    assert found / 300 < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_groups_are_flipped_together() -> None:
    # 24 images, but only three groups: nothing can be clear.
    rows = {m: [metric(str(k), v + k / 100, model=m, group="xyz"[k % 3]) for k in range(24)]
            for m, v in (("a", 0.5), ("b", 0.6))}  # fmt: skip
    found = paired.versus_best(rows, 1, Statistics(), (0, 1))["a"]
    assert (found.clear, found.p) == ("few", pytest.approx(2 / 2**3))
    alone = {m: [r._replace(group="") for r in own] for m, own in rows.items()}
    assert paired.versus_best(alone, 1, Statistics(), (0, 1))["a"].clear == "yes"


def test_report_rows_say_how_models_compare_and_pool() -> None:
    metrics = [
        metric(str(k), v, model, "iou")._replace(weight=w)
        for model, shift in (("a", 0.0), ("b", 0.1))
        for k, (v, w) in enumerate([(0.5 + shift, 30.0), (0.1 + shift, 10.0)] * 4)
    ]
    a, b = score_tables.summarise([m._replace(class_="cell") for m in metrics], Statistics())
    assert (a.mean, a.pooled) == pytest.approx((0.3, 0.4))
    assert (a.best, a.clear, b.best, b.clear) == ("b", "yes", "b", "best")
    assert a.difference == pytest.approx(0.1)
    assert a.p == pytest.approx(2 / 2**8)
    assert math.isnan(b.difference)
    assert math.isnan(b.p)


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
    from unet.evaluation.metrics.contingency import contingency, summed
    from unet.evaluation.metrics.instance import instance_metrics
    from unet.evaluation.metrics.object_errors import object_metrics
    from unet.evaluation.metrics.pixel import confusion, pixel_metrics

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
    table = summed(
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
    assert [score_tables.better(m) for m in ("iou", "ap_0.50", "v_rand", "det", "boundary_f1")] == [
        1
    ] * 5
    lower = (
        "pixel_error", "isbi_rand_error", "isbi_warping_error", "warping_error", "voi", "voi_split",
        "adapted_rand_error", "hd95_um", "asd_px", "ece", "brier", "split_rate", "n_added",
    )  # fmt: skip
    assert {score_tables.better(m) for m in lower} == {-1}
    neither = (
        "n_true", "isbi_rand_threshold", "topology_threshold", "reliability_03", "seam_score",
    )  # fmt: skip
    assert {score_tables.better(m) for m in neither} == {0}
    assert score_tables.better("adapted_rand_split") == score_tables.better("v_info_merge") == 1
    assert {score_tables.bounds(m) for m in ("iou", "pixel_error", "split_rate", "ece")} == {(0, 1)}
    unbounded = ("n_true", "hd95_um", "asd_px", "voi", "seam_score", "det_missed", "brier")
    assert {score_tables.bounds(m) for m in unbounded} == {(0, math.inf)}


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
        (7.74e-08, "0.000"),
        (-1e-09, "0.000"),
        (6e-05, "6.00e-05"),
        (32.44, "32.4"),
        (12345.6, "12,346"),
    ],
)
def test_number_for_people(value: float, text: str) -> None:
    assert console.number(value) == text


def test_interval_duration_memory_for_people() -> None:
    assert console.interval(Cell(0.5, 0.41, 0.6, 3)) == "[0.410, 0.600]"
    assert console.interval(Cell(0.5, NAN, NAN, 1)) == ""
    seconds = (0.41, 12.3, 59.7, 185, 7620, NAN)
    texts = ["0.4 s", "12 s", "1 min 00 s", "3 min 05 s", "2 h 07 min", "–"]
    assert [console.duration(s) for s in seconds] == texts
    assert [console.memory(m) for m in (300.2, 2048, NAN)] == ["300 MiB", "2.0 GiB", "–"]


def test_console_summary_has_a_table_per_task() -> None:
    from rich.console import Console

    rows = [row("a", "iou", 0.8), row("b[red]", "iou", 0.9)]
    rows.append(ReportRow("n", "a", "instances", "ap_0.50", 0.7, NAN, NAN, 1, units=1))
    found = console.summary_tables(rows, {"d": "semantic", "n": "instances", "empty": "instances"})
    terminal = Console(width=100)
    with terminal.capture() as capture:
        for table in found:
            terminal.print(table)
    text = capture.get()
    assert len(found) == 2
    # The name is shown unchanged, not read as markup.
    assert re.search(r"b\[red\].*0\.900 \[0\.800, 1\.000\] │ 4: few", text)
    assert re.search(r"n .*│ a .*0\.700 │ +1: few │", text)


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


def test_gpus_are_added_up_where_a_job_had_one(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    records = ('{"seconds": 10, "busy_seconds": 5, "memory_mib": 2048}', None, "[broken",
               '{"seconds": 30, "busy_seconds": 27, "memory_mib": 512}')  # fmt: skip
    for fold, record in enumerate(records):
        path = paths.benchmark("train", "d", "m", str(fold))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BENCHMARK + "5\t-\t300\t-\t-\t-\t-\t-\t-\t5\n")
        if record:
            paths.gpu_use("train", "d", "m", str(fold)).write_text(record)
    (found,) = costs.stage_costs(paths, "d", ["m"], range(4))
    assert found.gpu == costs.GpuCost(40, 32, 2048)
    assert found.gpu.busy == 0.8
    assert found.jobs == 4
    cpu = costs.Cost("prepare", "", 1, 1.0, 1.0, 1.0)
    assert costs.total_cost([cpu, found]).gpu == found.gpu
    assert costs.total_cost([cpu]).gpu is None


def test_a_method_with_few_images_is_best_only_on_those_that_others_share() -> None:
    def rows(model: str, scores: dict[str, float]) -> list[MetricRow]:
        return [MetricRow("d", model, 0, i, "", "all", "iou", v) for i, v in scores.items()]

    whole = {f"im{k}": 0.5 for k in range(8)} | {"easy": 0.95}
    table = {"net": rows("net", whole), "tool": rows("tool", {"easy": 0.9})}
    # 0.9 is more than the mean of net, but less than what net has on that image.
    assert paired.versus_best(table, 1, Statistics())["tool"].best == "net"
    table["tool"] = rows("tool", {"easy": 0.96})
    assert paired.versus_best(table, 1, Statistics())["net"].best == "tool"
    table["tool"] = rows("tool", {"other": 0.2})
    assert paired.versus_best(table, 1, Statistics())["tool"].best == "net"


def test_a_tool_with_masks_for_few_images_leaves_the_models_their_verdict() -> None:
    def rows(model: str, number: int, mean: float) -> list[MetricRow]:
        return [metric(f"i{k}", mean + k / 1000, model) for k in range(number)]

    own = {"net": rows("net", 14, 0.8), "wide": rows("wide", 14, 0.6)}
    found = paired.versus_best({**own, "manual": rows("manual", 1, 0.99)}, 1, Statistics())
    assert {model: versus.clear for model, versus in found.items()} == {
        "net": "best", "wide": "yes", "manual": "few",
    }  # fmt: skip
    # Its mean over enough shared images counts.
    found = paired.versus_best({**own, "manual": rows("manual", 6, 0.99)}, 1, Statistics())
    assert found["net"].best == "manual"
