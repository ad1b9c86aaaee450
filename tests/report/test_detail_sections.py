"""The sections of a dataset's page that explain a score: their numbers by hand, their sentences,
and pages with and without the tables behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix

from tests.report.detail_cases import AP, NAMES, NAN, write_details
from unet.config.load import load
from unet.config.stage_settings import ReportSettings
from unet.data.records import ImageRecord, SplitRecord, write_manifest, write_splits
from unet.errors import UserError
from unet.evaluation.details import MATCH_COLUMNS, THRESHOLD_COLUMNS
from unet.evaluation.evaluate import write_metrics
from unet.evaluation.metrics.rows import MetricRow
from unet.paths import Paths, compared_model
from unet.report import class_numbers, group_numbers
from unet.report.dataset_page import report_dataset
from unet.report.detail_tables import (
    ThresholdTable,
    summed_confusion,
    summed_thresholds,
)
from unet.report.explained_plot import in_parts
from unet.report.score_tables import MeanScore
from unet.tables import write_table

# --- groups


def scores(model: str, **groups: Sequence[float]) -> list[MetricRow]:
    return [
        MetricRow("d", model, 0, f"{group}{k}", group, "instances", "ap_0.50", value)
        for group, values in groups.items()
        for k, value in enumerate(values)
    ]


def test_groups_by_hand() -> None:
    rows = scores("m", a=[0.5, 0.7, 0.6], b=[0.1, 0.2, 0.3, NAN], c=[0.0])
    found = group_numbers.group_scores([*rows, *scores("other", a=[1])], AP, ["m"])
    assert [(g.group, len(g.scores)) for g in found["m"]] == [("a", 3), ("b", 3), ("c", 1)]
    assert group_numbers.worst_first(found, AP) == ["c", "b", "a"]
    # c has one image, so it may be chance.
    assert group_numbers.group_finding("m", found["m"], AP) == (
        "m: AP@0.5 is worst in group b, 0.200 (n = 3 images), against 0.450 in the others (n = 4)."
    )
    assert "too few images per group" in group_numbers.group_finding("m", found["m"][1:], AP)
    assert group_numbers.group_scores(scores("m", **{"": [0.5]}), AP, ["m"]) == {}


def test_the_worst_group_of_an_error_has_the_highest_mean() -> None:
    error = MeanScore("pixel_error", "all", "Pixel error", "")
    rows = [
        row._replace(class_="all", metric="pixel_error")
        for row in scores("m", a=[0.1] * 3, b=[0.4] * 3)
    ]
    found = group_numbers.group_scores(rows, error, ["m"])
    assert group_numbers.worst_first(found, error) == ["b", "a"]
    assert "worst in group b" in group_numbers.group_finding("m", found["m"], error)


# --- classes


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60))
def test_confusion_against_scikit_learn(pixels: list[tuple[int, int]]) -> None:
    rows = [(f"i{k % 2}", NAMES[t], NAMES[p], 1.0) for k, (t, p) in enumerate(pixels)]
    frame = pd.DataFrame(rows, columns=["image", "true_class", "pred_class", "pixels"])
    # In one piece or in several, the sums are the same.
    halves = summed_confusion([frame[: len(frame) // 2], frame[len(frame) // 2 :]])
    found = class_numbers.class_confusion(halves, NAMES)
    assert found.images == frame["image"].nunique()
    true, pred = zip(*pixels, strict=True)
    np.testing.assert_array_equal(found.pixels, confusion_matrix(true, pred, labels=[0, 1, 2]))
    wanted = confusion_matrix(true, pred, labels=[0, 1, 2], normalize="true")
    occurs = np.isin([0, 1, 2], true)
    np.testing.assert_allclose(found.shares[occurs], wanted[occurs])
    assert np.isnan(found.shares[~occurs]).all()


def test_the_most_frequent_confusion_by_hand() -> None:
    pixels = np.array([[900, 100, 0], [3, 47, 0], [0, 0, 0]])
    found = class_numbers.ClassConfusion(NAMES, pixels, 2)
    assert class_numbers.confusion_finding("m", found) == (
        "m: the most frequent confusion is sky predicted as wall, 10 % of the true pixels of sky "
        "(n = 1,000 pixels in 2 images)."
    )
    for right in (np.diag([4, 5, 0]), np.zeros((3, 3), int)):
        perfect = class_numbers.ClassConfusion(NAMES, right, 1)
        assert class_numbers.confusion_finding("m", perfect) == "m: no pixel has the wrong class."


def bins_of(rows: Sequence[tuple[Any, ...]], each: int = 99) -> ThresholdTable:
    """Rows of ``thresholds.csv``, read ``each`` at a time."""
    names = ["image", "class", "threshold", "positives", "negatives"]
    frame = pd.DataFrame(list(rows), columns=names)
    return summed_thresholds(frame[k : k + each] for k in range(0, len(frame), each))


def test_images_of_a_class_are_those_with_its_pixels() -> None:
    rows = [("a", "cell", 0.5, 1.0, 0.0), ("a", "cell", 0.75, 2.0, 4.0), ("b", "cell", 0.5, 0, 3.0),
            ("c", "wall", 0.5, 0.0, 1.0), ("d", "cell", 0.5, 5.0, 0.0)]  # fmt: skip
    table = bins_of(rows, 2)
    assert (table.images["cell"], table.images["wall"]) == (2, 0)
    assert table.bins.to_numpy().tolist() == [
        ["cell", 0.5, 6.0, 3.0], ["cell", 0.75, 2.0, 4.0], ["wall", 0.5, 0.0, 1.0],
    ]  # fmt: skip


def test_curve_of_all_images_against_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    rows, truth, at = [], [], []
    for image in "ab":
        for b in range(0, 64, 4):
            positives, negatives = rng.integers(0, 9, 2)
            rows.append((image, "cell", b / 64, float(positives), float(negatives)))
            truth += [1] * positives + [0] * negatives
            at += [b] * (positives + negatives)
    table = bins_of(rows, 5)
    curve = class_numbers.class_curve(table, "cell")
    assert curve is not None
    assert curve.average_precision == pytest.approx(average_precision_score(truth, at))
    assert class_numbers.class_curve(table, "wall") is None


def test_curve_in_words() -> None:
    rows = [("a", "cell", 0.75, 6.0, 0.0), ("a", "cell", 0.25, 2.0, 2.0), ("a", "cell", 0, 0, 10.0)]
    curve = class_numbers.class_curve(bins_of(rows), "cell")
    assert curve is not None
    said = class_numbers.curve_finding("m", "cell", curve, [0.5], 1)
    assert said == (
        "m: average precision of cell 0.950; at the chosen threshold of 0.50 precision 1.000, "
        "recall 0.750, F1 0.857; the highest F1 of any threshold is 0.889 at 0.25 (n = 8 pixels "
        "in 1 image)."
    )
    folds = class_numbers.curve_finding("m", "cell", curve, [0.75, 0.5, 0.5], 1)
    assert folds == said.replace(
        "the chosen threshold of 0.50",
        "0.50, the median of the thresholds of the folds (0.75, 0.50, 0.50),",
    )
    assert class_numbers.curve_finding("m", "cell", curve, [0.5, 0.5], 1) == said
    assert class_numbers.curve_finding("m", "cell", curve, [], 1) == (
        "m: average precision of cell 0.950 (n = 8 pixels in 1 image)."
    )


@given(st.integers(0, 40), st.integers(1, 8))
def test_parts_are_even_and_in_order(number: int, most: int) -> None:
    parts = [list(part) for part in in_parts(list(range(number)), most)]
    assert [each for part in parts for each in part] == list(range(number))
    sizes = [len(part) for part in parts]
    assert not sizes or max(sizes) <= most
    assert not sizes or max(sizes) - min(sizes) <= 1


# --- pages


class Site:
    """The results of a dataset that the report reads: hand-made tables of two models."""

    def __init__(self, folder: Path, task: str, names: Sequence[str], groups: int = 2) -> None:
        self.paths, self.task, self.names = Paths(folder / "out"), task, names
        self.models = ("one", "two")
        images = [(f"i{k}", f"plate {k % groups}" if groups else "") for k in range(8)]
        records = [
            ImageRecord(i, f"{i}.tif", f"{i}.tif", axes="CYX", shape=(1, 9, 9), dtype="uint8",
                        sha256="1", label_sha256="1", group=group)
            for i, group in images
        ]  # fmt: skip
        write_manifest(self.paths.manifest("d"), records)
        write_splits(self.paths.splits("d"), [SplitRecord(i, 0, "test") for i, _ in images])
        rng = np.random.default_rng(0)
        for model in self.models:
            self._model(model, images, rng)

    def _model(self, model: str, images: Sequence[tuple[str, str]], rng: Any) -> None:
        metric = (
            ("instances", "ap_0.50") if self.task == "instances" else ("foreground-mean", "iou")
        )
        write_metrics(
            self.paths.metrics("d", model),
            [MetricRow("d", model, 0, i, g, *metric, float(rng.random()), 5) for i, g in images],
        )
        write_details(self.paths, "d", model, self.task, self.names, images)

    def page(self, compare: Mapping[str, str] | None = None) -> str:
        data: dict[str, Any] = {"images": "x", "labels": "y", "task": self.task}
        if compare:
            data["compare"] = dict(compare)
        if self.task == "semantic":
            data["classes"] = {name: k for k, name in enumerate(self.names)}
        raw = {
            "output": str(self.paths.output), "datasets": {"d": data},
            "models": {m: {"preset": "unet-bn"} for m in self.models}, "report": {"bootstrap": 100},
        }  # fmt: skip
        report_dataset(self.paths, "d", ReportSettings.of(load(raw), "d"))
        return self.paths.dataset_report_html("d").read_text(encoding="utf-8")


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page)


NEW = {"groups", "objects", "confusion", "thresholds"}


def test_page_of_objects(tmp_path: Path) -> None:
    page = Site(tmp_path, "instances", ("background", "foreground")).page()
    assert sections(page)[:4] == ["scores", "groups", "objects", "thresholds"]
    # 8 images with 6 objects each, of which 4 are found.
    assert "one: 32 objects predicted, 48 in the labels (-33 %), of which 32 are found" in page
    assert "two: too few" not in page
    for alt in re.findall(r'<img src="[^"]*" alt="([^"]*)"', page):
        assert alt.strip()
    alts = " ".join(re.findall(r'alt="([^"]*)"', page))
    assert "32 objects predicted" in alts
    assert "average precision of foreground" in alts
    assert "size of the object" not in page  # it is in the picture
    assert "Size (µm²)" in page


def test_objects_of_a_tool_are_counted_from_its_scores(tmp_path: Path) -> None:
    site = Site(tmp_path, "instances", ("background", "foreground"))
    rows = [
        MetricRow("d", "tool", 0, f"i{k}", "", "instances", metric, value)
        for k in range(8)
        for metric, value in (("ap_0.50", 0.5), ("n_true", 6.0), ("n_pred", 7.0 if k else NAN))
    ]
    write_metrics(site.paths.metrics("d", compared_model("tool")), rows)
    before, page = site.page(), site.page({"tool": "masks"})
    # The image without a number of predicted objects is left out.
    assert "tool: 49 objects predicted, 42 in the labels (+17 %); too many predicted in 7" in page
    assert "tool: 49 objects" in " ".join(re.findall(r'alt="(Predicted against[^"]*)"', page))
    assert "The objects of tool (masks from elsewhere) are only counted" in page
    assert "only counted" not in before
    assert "were not measured" not in page
    cells = re.search(
        r'scope="row">i0</th>(.*?)</tr>.*?scope="row">i1</th>(.*?)</tr>', page, re.DOTALL
    )
    assert [re.findall("<td>(.*?)</td>", row) for row in cells.groups()] == [  # type: ignore[union-attr]
        ["6", "4", "4", "–"], ["6", "4", "4", "7"],
    ]  # fmt: skip
    # Without the metrics of objects there is nothing to count.
    write_metrics(site.paths.metrics("d", compared_model("tool")), rows[:1])
    page = site.page({"tool": "masks"})
    assert "only counted" not in page
    assert "The objects of tool (masks from elsewhere) are not in these plots" in page


def test_page_of_classes(tmp_path: Path) -> None:
    page = Site(tmp_path, "semantic", NAMES, groups=0).page()
    assert set(sections(page)) & NEW == {"confusion", "thresholds"}
    # Every class is predicted as each class equally often.
    assert page.count("33.3 %") == 2 * 9
    assert "Pixels of class wall" in page
    assert "Pixels of class cell" in page
    assert "Pixels of class sky" not in page
    # With more than two classes there is no threshold.
    assert "the chosen threshold" not in page


def test_plots_are_small(tmp_path: Path) -> None:
    page = Site(tmp_path, "instances", ("background", "foreground")).page()
    sizes = [len(uri) for uri in re.findall(r'src="(data:image/png[^"]*)"', page)]
    assert len(sizes) >= 6
    assert max(sizes) < 60_000 * 4 / 3


def test_results_of_an_earlier_version_have_no_such_sections(tmp_path: Path) -> None:
    site = Site(tmp_path, "instances", ("background", "foreground"), groups=0)
    for model in site.models:
        for path in site.paths.details("d", model):
            path.unlink()
    assert not NEW & set(sections(site.page()))


def test_models_without_tables_are_left_out(tmp_path: Path) -> None:
    site = Site(tmp_path, "instances", ("background", "foreground"))
    for path in site.paths.details("d", "one"):
        path.unlink()
    page = site.page()
    assert "two: 32 objects predicted" in page
    assert "one: 32 objects predicted" not in page


def test_images_without_any_object(tmp_path: Path) -> None:
    site = Site(tmp_path, "instances", ("background", "foreground"))
    for model in site.models:
        write_table(site.paths.matches("d", model), MATCH_COLUMNS, [])
        write_table(site.paths.thresholds("d", model), THRESHOLD_COLUMNS, [])
    page = site.page()
    assert "one: 0 objects predicted, 0 in the labels" in page
    assert "Sizes of objects" not in page
    assert "thresholds" not in sections(page)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, "instances", ("background", "foreground"))
    site.paths.matches("d", "one").write_text("image,kind\na,matched\n")
    with pytest.raises(UserError, match=r"matches\.csv: has no column .*iou"):
        site.page()


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    page = Site(tmp_path, "semantic", ("sky", "<b>$x$", "cell")).page()
    assert "<b>$x$" not in page
    assert "&lt;b&gt;$x$" in page
