"""Wells of a plate: their numbers, and the heat maps of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from unet.data.records import ImageRecord
from unet.evaluation.metrics.rows import MetricRow
from unet.report.plate_figures import colour_ends, heat_map, plate_plot, result_plots
from unet.report.score_tables import MeanScore
from unet.report.well_numbers import (
    Well,
    place,
    plate_shape,
    wells_of,
    with_objects,
    with_scores,
    write_wells,
)


def record(image: str, well: str, plate: str = "") -> ImageRecord:
    named = {"plate": plate} if plate else {}
    return ImageRecord(
        image, f"{image}.tif",
        well={**named, "well": well, "row": well[0], "column": well[1:], "field": "0"},
    )  # fmt: skip


def test_wells_in_the_order_of_the_plate() -> None:
    records = [record("a", "B1"), record("b", "A12"), record("c", "A2"), record("d", "A2"),
               ImageRecord("e", "e.tif")]  # fmt: skip
    wells = wells_of(records, "abcde")
    assert [(w.well, w.images) for w in wells] == [
        ("A2", ("c", "d")),
        ("A12", ("b",)),
        ("B1", ("a",)),
    ]
    assert [w.well for w in wells_of(records, "a")] == ["B1"]
    assert [place(text)[0] for text in ("A", "h", "AA", "3", "03")] == [1, 8, 27, 3, 3]


@pytest.mark.parametrize(
    ("wells", "shape"),
    [(("A1",), (8, 12)), (("H12",), (8, 12)), (("I1",), (16, 24)), (("A13",), (16, 24)),
     (("P24", "A1"), (16, 24)), (("Q1",), (32, 48))],
)  # fmt: skip
def test_the_smallest_usual_plate(wells: tuple[str, ...], shape: tuple[int, int]) -> None:
    assert plate_shape(Well("", w, w[0], w[1:], ()) for w in wells) == shape


def test_objects_of_a_well(tmp_path: Path) -> None:
    path = tmp_path / "objects.csv"
    path.write_text(
        "image,label,class,well,row,column,field,area_px,area_um2,mean_intensity_c0\n"
        "a,1,cell,A1,A,1,0,10,,5\na,2,cell,A1,A,1,0,20,,7\nb,1,cell,A1,A,1,1,60,,9\n"
        "x,1,cell,A2,A,2,0,99,,1\n"
    )
    records = [record("a", "A1"), record("b", "A1"), record("c", "B1"), record("x", "A2")]
    one, two = with_objects(wells_of(records, "abc"), {path: ["a", "b", "c"]}, "instances")
    assert one.values["objects"] == 3
    assert one.values["objects_per_image"] == 1.5
    assert (one.values["area_px_mean"], one.values["mean_intensity_c0_mean"]) == (30, 7)
    assert math.isnan(one.values["area_um2_mean"])
    # A well without an object has none; it is not unknown.
    assert two.values["objects"] == 0
    # Each image counts in one table: here x only in the other fold's.
    (again,) = with_objects(wells_of(records, "x"), {path: []}, "instances")
    assert again.values["objects"] == 0
    write_wells(tmp_path / "wells.csv", {"m": [one, two]})
    assert (tmp_path / "wells.csv").read_text().splitlines() == [
        "model,well,row,column,images,objects,objects_per_image,area_px_mean,area_um2_mean,"
        "mean_intensity_c0_mean",
        "m,A1,A,1,2,3,1.5,30,,7",
        "m,B1,B,1,1,0,0,,,",
    ]


def test_shares_of_classes_and_scores(tmp_path: Path) -> None:
    path = tmp_path / "objects.csv"
    path.write_text(
        "image,label,class,area_px\na,0,back,30\na,1,cell,10\nb,0,back,10\nb,1,cell,50\n"
    )
    wells = wells_of([record("a", "A1", "P"), record("b", "A1", "Q")], "ab")
    assert [w.plate for w in wells] == ["P", "Q"]
    wells = with_objects(wells, {path: ["a", "b"]}, "semantic")
    assert wells[0].values == {"share_back": 0.75, "share_cell": 0.25}
    score = MeanScore("iou", "foreground-mean", "IoU", "")
    metrics = [MetricRow("d", "m", 0, "a", "", "foreground-mean", "iou", 0.5),
               MetricRow("d", "m", 0, "b", "", "foreground-mean", "iou", math.nan),
               MetricRow("d", "n", 0, "a", "", "foreground-mean", "iou", 0.9)]  # fmt: skip
    first, second = with_scores(wells, metrics, "m", [score])
    assert first.values["IoU"] == 0.5
    assert math.isnan(second.values["IoU"])
    (plot,) = result_plots({"m": [first, second]}, "semantic", ["back", "cell"])
    assert [alt.split(". ")[1].split(":")[0] for _, alt in plot.pictures] == [
        "m, plate P", "m, plate Q",
    ]  # fmt: skip
    assert plot.rows == (("P A1", "0.250"), ("Q A1", "0.833"))


def test_a_map_shows_each_well_in_its_place() -> None:
    wells = [Well("", "B3", "B", "3", ("a",), {"objects": 7.0}),
             Well("", "H12", "H", "12", ("b",), {"objects": math.nan})]  # fmt: skip
    figure = heat_map(wells, "objects", (8, 12), (0, 9), "objects")
    filled, empty = figure.axes[0].collections
    assert list(filled.get_array()) == [7]
    (square,) = filled.get_paths()
    assert tuple(square.get_extents().bounds) == pytest.approx((2 - 0.43, 1 - 0.43, 0.86, 0.86))
    assert len(empty.get_paths()) == 95
    plot = plate_plot({"m": wells}, "objects", "Objects", "objects", whole=True)
    assert plot is not None
    assert plot.findings == ("m: objects in 1 well: from 7 (B3) to 7 (B3), median 7.",)
    assert plot.rows == (("B3", "7"), ("H12", "–"))
    assert plate_plot({"m": wells[1:]}, "objects", "Objects", "objects") is None


@pytest.mark.parametrize(
    ("values", "ends"),
    [([3, 13, 7], (3, 13)), ([0.0, 0.0], (0, 1)), ([0.25], (0, 1)), ([32.5, 32.5], (0, 32.5))],
)
def test_the_colour_bar_never_shows_negative_scores(
    values: list[float], ends: tuple[float, float]
) -> None:
    assert colour_ends(values) == ends
