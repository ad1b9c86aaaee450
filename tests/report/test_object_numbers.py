"""Numbers and sizes of objects: by hand, and of tables that are read in pieces."""

from __future__ import annotations

import tracemalloc
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.detail_cases import (
    NAMES,
    NAN,
    PX,
    details,
    matches_of,
    sizes,
    table,
    write_details,
)
from unet.evaluation.metrics.rows import MetricRow
from unet.evaluation.object_pairs import FALSE, MATCHED, MISSED
from unet.paths import Paths
from unet.report import object_numbers
from unet.report.console import percent
from unet.report.detail_tables import (
    ObjectTable,
    read_details,
    summed,
)
from unet.report.object_numbers import SizeUnit
from unet.tables import table_chunks


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
