"""The sections of a dataset's page that explain a score: their numbers by hand, their sentences,
and pages with and without the tables behind them."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix

from unet.config.load import load
from unet.config.stage_settings import ReportSettings
from unet.data.records import ImageRecord, SplitRecord, write_manifest, write_splits
from unet.errors import UserError
from unet.evaluation.details import CONFUSION_COLUMNS, MATCH_COLUMNS, THRESHOLD_COLUMNS
from unet.evaluation.evaluate import write_metrics
from unet.evaluation.metrics.rows import MetricRow
from unet.evaluation.object_pairs import FALSE, MATCHED, MISSED
from unet.paths import Paths, compared_model
from unet.report import class_numbers, group_numbers, object_numbers
from unet.report.console import percent
from unet.report.dataset_page import report_dataset
from unet.report.detail_tables import (
    Details,
    ObjectTable,
    ThresholdTable,
    read_details,
    summed,
    summed_confusion,
    summed_thresholds,
)
from unet.report.explained_plot import in_parts
from unet.report.object_numbers import Sizes, SizeUnit
from unet.report.score_tables import MeanScore
from unet.tables import table_chunks, write_table

NAN = float("nan")
PX = SizeUnit("px", False)
AP = MeanScore("ap_0.50", "instances", "AP@0.5", "")


Match = tuple[str, str, float, float, float]


def matches_of(rows: Sequence[Match], pixel: float = NAN) -> pd.DataFrame:
    """Matches of (image, kind, IoU, true size, predicted size)."""
    names = ["image", "kind", "iou", "true_px", "pred_px"]
    return pd.DataFrame(list(rows), columns=names).assign(pixel_um=pixel)


def table(*rows: Match, pixel: float = NAN) -> ObjectTable:
    return summed([matches_of(rows, pixel)])


def sizes(values: Any) -> Sizes:
    return Sizes(*np.unique(np.asarray(values, float), return_counts=True))


def details(matches: ObjectTable, images: Sequence[str]) -> Details:
    confusion = pd.DataFrame(
        [(image, "a", "a", 1.0) for image in images],
        columns=["image", "true_class", "pred_class", "pixels"],
    )
    empty = pd.DataFrame(columns=["image", "class", "threshold", "positives", "negatives"])
    return Details(matches, summed_confusion([confusion]), summed_thresholds([empty]))


# --- objects


def test_counts_by_hand_with_an_image_without_objects() -> None:
    matches = table(
        ("a", MATCHED, 0.9, 10, 11), ("a", MISSED, 0.2, 5, 9), ("b", FALSE, 0, NAN, 4),
        ("b", FALSE, 0, NAN, 4),
    )  # fmt: skip
    counts = object_numbers.image_counts(details(matches, ["a", "b", "c"]))
    assert [(c.image, c.true, c.pred) for c in counts] == [("a", 2, 1), ("b", 0, 2), ("c", 0, 0)]
    assert object_numbers.found_number(matches) == 1
    assert object_numbers.count_finding("m", counts, 1) == (
        "m: 3 objects predicted, 2 in the labels (+50 %), of which 1 is found (IoU at least 0.5); "
        "too many predicted in 1 and too few in 1 of 3 images."
    )
    none = object_numbers.image_counts(details(table(), ["c"]))
    assert object_numbers.count_finding("m", none, 0) == (
        "m: 0 objects predicted, 0 in the labels, of which 0 are found (IoU at least 0.5); too "
        "many predicted in 0 and too few in 0 of 1 image."
    )


def test_a_number_near_the_true_one_is_no_success_if_the_objects_are_others() -> None:
    counts = [object_numbers.ImageCount("a", 116, 119)]
    wrong = object_numbers.count_finding("m", counts, 1)
    assert "119 objects predicted, 116 in the labels (+3 %), of which 1 is found" in wrong
    assert wrong.endswith("Most true objects are not found, so a number near the true one means "
                          "nothing.")  # fmt: skip
    assert "means nothing" not in object_numbers.count_finding("m", counts, 58)
    assert object_numbers.found_number(table()) == 0


def test_sizes_in_micrometres_only_if_all_are_known() -> None:
    known = table(("a", MATCHED, 0.9, 10, 12), ("a", FALSE, 0, NAN, 4), pixel=0.25)
    unit = object_numbers.size_unit([known], volumes=False)
    assert unit == SizeUnit("µm²", True)
    assert object_numbers.true_sizes(known, unit).values.tolist() == [2.5]
    assert object_numbers.pred_sizes(known, unit).values.tolist() == [1, 3]
    mixed = summed(
        [
            matches_of([("a", MATCHED, 0.9, 10, 12)], 0.25),
            matches_of([("b", MISSED, 0, 7, NAN)]),
        ]
    )
    assert object_numbers.size_unit([known, mixed], volumes=False).name == "px"
    assert object_numbers.size_unit([mixed], volumes=True).name == "voxels"
    assert object_numbers.size_unit([known], volumes=True).name == "µm³"


def by_size(*found: tuple[float, bool]) -> ObjectTable:
    """True objects of these sizes, found (IoU 0.8) or not."""
    rows = [("a", MATCHED if hit else MISSED, 0.8 if hit else 0.3, s, s) for s, hit in found]
    return table(*rows)


def test_found_by_size_by_hand() -> None:
    # 8 small objects, of which 2 are found, and 24 large ones, of which 18 are.
    small = [(5, k < 2) for k in range(8)]
    large = [(100 + k, k < 18) for k in range(24)]
    matches = by_size(*small, *large)
    assert object_numbers.found_finding("m", matches, PX) == (
        "m: objects below 76.2 px are found in 25 % of cases, larger ones in 75 % (n = 8 and 24)."
    )
    bins = object_numbers.size_bins(matches, np.array([5.0, 50.0, 200.0]), PX)
    assert [(b.low, b.high, b.n, b.found) for b in bins] == [(5, 5, 8, 0.25), (100, 123, 24, 0.75)]
    assert [b.iou for b in bins] == pytest.approx([0.8, 0.8])


def test_silent_where_there_are_too_few_objects() -> None:
    few = by_size(*[(k + 1, True) for k in range(19)])
    assert object_numbers.found_finding("m", few, PX) == ("m: too few objects to tell (n = 19).")
    assert "too few objects to tell (n = 19 predicted and 30 true)" in (
        object_numbers.size_finding("m", sizes(range(1, 31)), sizes(range(1, 20)), PX)
    )
    same = by_size(*[(5, k % 2 == 0) for k in range(40)])
    assert object_numbers.found_finding("m", same, PX) == (
        "m: 50 % of the objects are found; most have one size (n = 40)."
    )
    nothing = object_numbers.size_bins(by_size((5, False)), np.array([5.0]), PX)
    assert [(b.n, b.found) for b in nothing] == [(1, 0)]
    assert np.isnan(nothing[0].iou)
    assert object_numbers.size_edges(sizes([])).size == 0


def test_sizes_by_hand() -> None:
    finding = object_numbers.size_finding("m", sizes([200] * 30), sizes([150] * 25), PX)
    assert finding == (
        "m: the median predicted object has 150 px, the median true one 200 px (-25 %; n = 25 "
        "predicted and 30 true)."
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=150))
def test_bins_hold_every_object_once(found: list[tuple[int, bool]]) -> None:
    matches = by_size(*found)
    edges = object_numbers.size_edges(object_numbers.true_sizes(matches, PX))
    bins = object_numbers.size_bins(matches, edges, PX)
    assert sum(b.n for b in bins) == len(found)
    assert sum(b.n * b.found for b in bins) == pytest.approx(sum(hit for _, hit in found))
    assert all(a.high < b.low for a, b in pairwise(bins))
    assert len(bins) <= object_numbers.MOST_BINS


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

NAMES = ("sky", "wall", "cell")


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


# --- many objects


def write_matches(path: Path, number: int) -> pd.DataFrame:
    """A table of random objects with sizes of 5 to 60 px in 9 images."""
    rng = np.random.default_rng(number)
    kind = rng.choice([MATCHED, MISSED, FALSE], number, p=[0.7, 0.2, 0.1])
    small = rng.integers(5, 61, number)
    columns = [np.sort(rng.integers(0, 9, number)), kind, rng.random(number).round(6), small,
               small + rng.integers(0, 9, number)]  # fmt: skip
    frame = matches_of(list(zip(*columns, strict=True)), 0.11).assign(fold=0, group="'=1")
    frame["image"] = [f"i{k}" for k in frame["image"]]
    frame.loc[frame["kind"] == MISSED, "pred_px"] = NAN
    frame.loc[frame["kind"] == FALSE, "true_px"] = NAN
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return frame


def read(path: Path, rows: int) -> ObjectTable:
    numbers = ("iou", "true_px", "pred_px", "pixel_um")
    return summed(table_chunks(path, "details", ("image", "kind", *numbers), numbers, rows))


@pytest.mark.parametrize("unit", [PX, SizeUnit("µm²", True)])
def test_summed_objects_have_the_numbers_of_the_single_ones(tmp_path: Path, unit: SizeUnit) -> None:
    path = tmp_path / "matches.csv"
    rows = write_matches(path, 3001)
    found = read(path, 100)
    true = rows[rows["kind"] != FALSE]
    shares, scale = (0, 0.05, 0.25, 0.5, 0.77, 1), 0.11 if unit.physical else 1
    for side, own in (("true", true), ("pred", rows[rows["kind"] != MISSED])):
        every = own[f"{side}_px"] * scale
        got = getattr(object_numbers, f"{side}_sizes")(found, unit)
        assert len(got) == len(own)
        np.testing.assert_array_equal(got.quantiles(shares), np.quantile(every, shares))
        assert [tuple(each) for each in found.counts[side].items()] == [
            tuple(each) for each in own.groupby("image").size().items()
        ]
    size, hit = true["true_px"] * scale, true["kind"] == MATCHED
    edges = object_numbers.size_edges(object_numbers.true_sizes(found, unit))
    np.testing.assert_array_equal(edges, np.quantile(size, np.linspace(0, 1, 9)))
    at = np.clip(np.searchsorted(edges, size, side="right") - 1, 0, 7)
    bins = object_numbers.size_bins(found, edges, unit)
    for b, each in enumerate(bins):
        own = at == b
        assert (each.low, each.high, each.n) == (size[own].min(), size[own].max(), own.sum())
        assert each.found == pytest.approx(hit[own].mean())
        assert each.iou == pytest.approx(true["iou"][own & hit].mean())
    small = size < np.quantile(size, 0.25)
    shown = f"{percent(hit[small].mean())} of cases, larger ones in {percent(hit[~small].mean())}"
    assert shown in object_numbers.found_finding("m", found, unit)


def test_memory_does_not_grow_with_the_objects(tmp_path: Path) -> None:
    peaks = []
    for number in (4_000, 32_000):
        path = tmp_path / f"{number}.csv"
        write_matches(path, number)
        read(path, 1000)
        tracemalloc.start()
        found = read(path, 1000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found.sizes) <= 64
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("name", ["confusion", "thresholds"])
def test_memory_does_not_grow_with_the_rows_of_the_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("unet.report.detail_tables.table_chunks", partial(table_chunks, rows=1000))
    paths, peaks = Paths(tmp_path), []
    for number in (1, 200, 1600):
        write_details(paths, "d", "m", "instances", NAMES, [("a", "")])
        own = getattr(paths, name)("d", "m")
        head, *rows = own.read_text().splitlines()
        # As if the image had that many folds.
        own.write_text("\n".join([head, *(rows * number)]) + "\n")
        tracemalloc.start()
        found = read_details(paths, "d", ["m"])["m"]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert found.confusion.images == {"a"}
    # The first reading loads modules.
    assert peaks[2] < 1.5 * peaks[1]


# --- pages


def write_details(
    paths: Paths,
    dataset: str,
    model: str,
    task: str,
    classes: Sequence[str],
    images: Sequence[tuple[str, str]],
) -> None:
    """The tables behind the scores, made by hand; ``images``: ids and groups."""
    matches: list[tuple[Any, ...]] = []
    for i, g in images if task == "instances" else ():
        matches += [
            (i, 0, g, MATCHED if k % 3 else MISSED, k, k, 0.8, 20 + k, 22 + k, 0, 0.25)
            for k in range(1, 7)
        ]
    confusion = [(i, 0, g, a, b, 5) for i, g in images for a in classes for b in classes]
    bins = [(i, 0, g, name, k / 4, 2 * k, 6 - 2 * k) for i, g in images
            for name in classes[1:] for k in range(4)]  # fmt: skip
    columns = (MATCH_COLUMNS, CONFUSION_COLUMNS, THRESHOLD_COLUMNS)
    rows = (matches, confusion, bins)
    for path, names, own in zip(paths.details(dataset, model), columns, rows, strict=True):
        write_table(path, names, own)


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


def test_counts_of_scores_by_hand() -> None:
    def row(model: str, image: str, metric: str, value: float, fold: int = 0) -> MetricRow:
        return MetricRow("d", model, fold, image, "", "instances", metric, value)

    rows = [row("t", "b", "n_true", 3.0), row("t", "b", "n_pred", 5.0), row("t", "a", "n_pred", 1),
            row("t", "a", "n_true", 0), row("m", "c", "n_true", 4), row("t", "a", "ap_0.50", 1),
            row("t", "b", "n_true", 2.0, 1), row("t", "b", "n_pred", 2.0, 1)]  # fmt: skip
    counts, found = object_numbers.scored_counts(rows, "t")
    assert [(c.image, c.true, c.pred) for c in counts] == [("a", 0, 1), ("b", 5, 7)]
    assert found is None  # no recall was scored
    assert object_numbers.scored_counts(rows, "u") == ([], 0)


def test_found_objects_of_a_tool_by_its_recall() -> None:
    values = {"n_true": (10, 0), "n_pred": (9, 2), "recall_0.50": (0.7, NAN)}
    rows = [
        MetricRow("d", "tool", 0, "ab"[k], "", "instances", metric, value)
        for metric, own in values.items()
        for k, value in enumerate(own)
    ]
    counts, found = object_numbers.scored_counts(rows, "tool")
    assert [(c.image, c.true, c.pred) for c in counts] == [("a", 10, 9), ("b", 0, 2)]
    assert found == 7  # an image without true objects has none to find
    assert object_numbers.scored_counts(rows[:-2], "tool") == (counts, None)
    assert object_numbers.scored_counts(rows, "other") == ([], 0)
    assert "found" not in object_numbers.count_finding("tool", counts, None)


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
