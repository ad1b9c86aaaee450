"""The gallery: its order, pictures, size, links; the viewer in a browser."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tests.report.test_report import make_report, make_results
from tests.report.test_report_pictures import decoded
from unet.config.sections import ReportSection
from unet.config.stage_settings import Applied, ReportSettings
from unet.data.records import ImageRecord, write_manifest
from unet.evaluation.metrics.rows import MetricRow
from unet.export.mark_colours import BOTH, FALSE, IGNORED, MISSED, PREDICTION, SWAPPED
from unet.files import write_json
from unet.paths import ENSEMBLE, Paths
from unet.report import overlays, score_tables
from unet.report.dataset_page import report_dataset
from unet.report.dataset_results import DatasetResults
from unet.report.gallery import gallery_reader, picture_budget, tested_images
from unet.report.gallery.card_files import CardFiles
from unet.report.gallery.gallery_cards import card_anchor, gallery
from unet.report.gallery.gallery_reader import SeenPlane, read_planes
from unet.report.gallery.label_layers import TRUTH, LayerPictures, PlaneDrawing
from unet.report.paired import Statistics

NAN = math.nan
STATISTICS = Statistics(0.95, 100, 0)


def results_of(
    paths: Paths, metrics: list[MetricRow], models: tuple[str, ...], task: str = "semantic"
) -> DatasetResults:
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task=task, models=models, folds=(0,),
        class_names=("ground", "cell"), seed=0,
    )  # fmt: skip
    if not paths.manifest("d").exists():
        paths.dataset("d").mkdir(parents=True, exist_ok=True)
        write_manifest(paths.manifest("d"), [])
    rows = score_tables.summarise(metrics, STATISTICS)
    return DatasetResults(paths, "d", settings, metrics, rows, STATISTICS)


def scored(model: str, image: str, value: float, fold: int = 0) -> MetricRow:
    return MetricRow("d", model, fold, image, "", "foreground-mean", "iou", value)


def test_order_is_by_the_mean_over_the_models(tmp_path: Path) -> None:
    metrics = [
        scored("a", "x", 0.9), scored("b", "x", 0.1),  # mean 0.5
        scored("a", "y", 0.4), scored("b", "y", 0.4),  # mean 0.4
        scored("a", "z", NAN), scored("b", "z", 0.6),  # mean 0.6
        scored("a", "u", NAN),
        scored("a", "w", 0.5),  # as x; ties are by id
    ]  # fmt: skip
    found = tested_images.tested_images(results_of(Paths(tmp_path), metrics, ("a", "b")))
    assert [image.id for image in found] == ["y", "w", "x", "z", "u"]
    assert found[2].scores == {"a": [0.9], "b": [0.1]}
    assert found[2].mean_of(0) == pytest.approx(0.5)
    assert math.isnan(found[-1].mean_of(0))
    assert tested_images.tested_images(results_of(Paths(tmp_path), [], ("a",))) == []


def test_an_image_that_several_folds_tested_has_a_card_for_each(tmp_path: Path) -> None:
    metrics = [scored("a", "x", 0.2, 0), scored("a", "x", 0.4, 1), scored("tool", "x", 0.3, 7)]
    data = results_of(Paths(tmp_path), metrics, ("a", "tool"))
    assert [image.folds for image in tested_images.tested_images(data)] == [
        {"a": 0, "tool": 7},
        {"a": 1, "tool": 7},
    ]
    assert [card.anchor for card in gallery(data).cards] == ["image-x", "image-x-fold-1"]


@given(st.integers(0, 900), st.integers(10, 300))
def test_worst_best_and_spaced_ranks(count: int, most: int) -> None:
    found = picture_budget.shown_ranks(count, most)
    assert found == sorted(set(found))
    assert len(found) == min(count, most)
    if count > most:
        assert found[: most // 2] == list(range(most // 2))
        assert found[-(most // 4) :] == list(range(count - most // 4, count))
    else:
        assert found == list(range(count))


@given(st.floats(0.01, 5), st.integers(2000, 100_000))
def test_pictures_are_reduced_until_they_fit(per_pixel: float, share: int) -> None:
    def draw(side: int) -> int:
        return int(600 + per_pixel * side * side)

    size, side = picture_budget.drawn_within(draw, int, 640, share)
    assert size == draw(side)
    assert size <= share or side == picture_budget.SMALLEST


# Pictures


def plane_of(truth: Any, pred: Any, ignored: Any = None) -> SeenPlane:
    shape = np.shape(pred)
    none = np.zeros(shape, bool) if ignored is None else np.array(ignored, bool)
    known = None if truth is None else np.array(truth, np.uint32)
    pixels = np.zeros((1, *shape), np.float32)
    return SeenPlane("", pixels, known, none, {"m": np.array(pred, np.uint32)})


def draw_layers(plane: SeenPlane, task: str, side: int) -> LayerPictures:
    return PlaneDrawing(plane, task).draw(side)


def rgba(uri: str) -> Any:
    return np.array(decoded(uri).convert("RGBA"))


def test_error_layer_of_objects() -> None:
    truth, pred = np.zeros((12, 40), np.uint32), np.zeros((12, 40), np.uint32)
    truth[2:10, 1:9] = 7
    pred[3:10, 1:9] = 900_000
    truth[2:10, 11:19] = 8
    pred[2:10, 21:29] = 3
    ignored = np.zeros((12, 40), bool)
    ignored[:, 38:] = True
    found = draw_layers(plane_of(truth, pred, ignored), "instances", 40)
    prediction, error = (rgba(uri) for uri in found.models["m"])
    assert tuple(error[2, 4]) == (*TRUTH, 255)
    assert tuple(error[3, 4]) == (*PREDICTION, 255)
    # Where both outlines of a found object are the same.
    assert tuple(error[6, 1]) == tuple(error[9, 4]) == (*BOTH, 255)
    assert error[6, 4, 3] == 0
    assert tuple(error[2, 14]) == (*MISSED, 255)
    assert tuple(error[6, 14, :3]) == MISSED
    assert 0 < error[6, 14, 3] < 255
    assert tuple(error[2, 24]) == (*FALSE, 255)
    assert tuple(error[0, 39, :3]) == IGNORED
    assert error[0, 0, 3] == 0
    # The found object has one colour in truth and prediction; the image shows through.
    true = rgba(found.truth)
    assert tuple(true[6, 4]) == tuple(prediction[6, 4])
    assert 0 < true[6, 4, 3] < 255
    assert tuple(true[6, 14]) != tuple(prediction[6, 24])
    assert prediction[6, 14, 3] == 0


@given(st.lists(st.integers(0, 9) | st.sampled_from([10**6, 2**32 - 1]), max_size=12))
def test_numbers_of_objects(labels: list[int]) -> None:
    """By a table or, for large ids, by sorting."""
    array = np.array(labels, np.uint32).reshape(1, -1)
    ids, dense = overlays.dense_ids(array)
    assert ids.tolist() == sorted({label for label in labels if label})
    expected = [1 + ids.tolist().index(label) if label else 0 for label in labels]
    assert dense.tolist() == [expected]


def test_layers_of_classes() -> None:
    plane = plane_of([[1, 0, 1, 1, 1]], [[0, 1, 2, 1, 0]], [[0, 0, 0, 0, 1]])
    found = draw_layers(plane, "semantic", 5)
    prediction, error = (rgba(uri)[0] for uri in found.models["m"])
    colours = [MISSED, FALSE, SWAPPED, (0, 0, 0), IGNORED]
    assert [tuple(pixel[:3]) for pixel in error] == colours
    assert [pixel[3] > 0 for pixel in error] == [True, True, True, False, True]
    classes = [overlays.class_colour(k) for k in (0, 1, 2, 1)]
    assert [tuple(pixel) for pixel in prediction[:4]] == [(*colour, 255) for colour in classes]


def test_without_labels_there_are_outlines_and_no_errors() -> None:
    pred = np.zeros((8, 8), np.uint32)
    pred[2:6, 2:6] = 1
    found = draw_layers(plane_of(None, pred), "instances", 8)
    assert found.truth == ""
    outline = rgba(found.models["m"][1])
    assert tuple(outline[2, 2]) == (*PREDICTION, 255)
    assert outline[3, 3, 3] == 0
    assert draw_layers(plane_of(None, pred), "semantic", 8).models["m"][1] == ""
    assert decoded(draw_layers(plane_of(None, pred * 0), "instances", 8).base).size == (8, 8)


@pytest.mark.parametrize("task", ["semantic", "instances"])
def test_the_image_is_embedded_once(tmp_path: Path, task: str) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m1", "m2", "m3"], task)
    page = make_report(paths, "d", ["m1", "m2", "m3"], task)
    assert len(re.findall(r"--base: url\(data:image/jpeg", page)) == 4
    assert len(re.findall(r"--truth: url\(data:image/png", page)) == 4
    assert len(re.findall(r"--prediction: url\(data:image/png", page)) == 4 * 3


def test_large_images_are_reduced_and_have_a_detail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m", "n"], "instances", images=2)
    monkeypatch.setattr(gallery_reader, "LIMIT", 16)
    monkeypatch.setattr(gallery_reader, "DETAIL", 12)
    folds = {"m": 0, "n": 0}
    whole, detail = read_planes(paths, "d", "instances", "im1", folds, detail_from=20)
    assert (whole.stride, whole.note) == (3, "reduced")
    assert whole.image.shape == (1, 14, 16)
    assert whole.truth is not None
    stored = zarr.open_array(paths.prepared("d") / "im1" / "instances", mode="r")
    np.testing.assert_array_equal(whole.truth, np.asarray(stored)[::3, ::3])
    assert detail.image.shape == (1, 12, 12)
    assert "detail with the most errors, 12 px" in detail.note
    assert len(read_planes(paths, "d", "instances", "im1", folds, detail_from=48)) == 1
    assert len(read_planes(paths, "d", "instances", "im1", folds, detail_from=0)) == 1


def test_a_volume_has_a_section_and_a_side_view(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    labels = np.zeros((5, 12, 16), np.uint32)
    labels[3, 4:8, 4:10] = 1
    prepared = zarr.open_group(paths.prepared("d"), mode="w", zarr_format=3).create_group("v")
    prepared.create_array("image", data=np.ones((1, 5, 12, 16), np.float32))
    prepared.create_array("classes", data=(labels > 0).astype(np.uint8))
    prepared.create_array("instances", data=labels)
    prepared.attrs["pixel_size_um"] = [2.0, 1.0, 1.0]
    zarr.open_group(paths.segmentation("d", "m", 0), mode="w", zarr_format=3)
    store = zarr.open_group(paths.segmentation("d", "m", 0) / "v", mode="w", zarr_format=3)
    store.create_array("labels/classes/0", data=(labels > 0).astype(np.uint8))
    store.create_array("labels/instances/0", data=labels)
    section, side = read_planes(paths, "d", "instances", "v", {"m": 0}, 0)
    assert section.truth is not None
    assert "z = 3" in section.note
    np.testing.assert_array_equal(section.truth, labels[3])
    assert "cut at y" in side.note
    # Pixels are made square: 5 sections of 2 um.
    assert side.predictions["m"].shape == side.image.shape[1:] == (10, 16)


# Cards


def test_links_name_the_lines_of_the_tables(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "semantic", images=2)
    masks = paths.masks("d", "m", 0)
    masks.mkdir()
    (masks / "im1.tif").write_bytes(b"")
    paths.objects("d", "m", 0).write_text("image,label\nim0,1\nim1,1\nim1,2\n")
    metrics = score_tables.read_metrics(paths.metrics("d", "m"))
    data = results_of(paths, metrics, ("m",))
    first, second = sorted(tested_images.tested_images(data), key=lambda image: image.id)
    files = CardFiles(data, [first, second])
    assert [(link.text, link.href) for link in files.links(second, "m")] == [
        ("mask", "m/fold-0/masks/im1.tif"),
        ("metrics.csv, lines 5–7", "m/metrics.csv"),
        ("objects.csv, lines 3–4", "m/fold-0/objects.csv"),
    ]
    assert [link.text for link in files.links(first, "m")] == [
        "metrics.csv, lines 2–4",
        "objects.csv, line 2",
    ]
    lines = paths.metrics("d", "m").read_text().splitlines()
    assert all(",im1," in line for line in lines[4:7])


def test_anchors_hold_any_name() -> None:
    assert card_anchor("a b&c/ü") == "image-a%20b%26c%2F%C3%BC"
    assert card_anchor("x", "2") == "image-x-fold-2"


def applied_results(paths: Paths) -> ReportSettings:
    """Two images without labels, predicted by a model of another dataset: 1 and 2 objects."""
    model, labels = "net@other", np.zeros((20, 24), np.uint32)
    labels[2:8, 2:8] = 1
    zarr.open_group(paths.prepared("d", model), mode="w", zarr_format=3)
    zarr.open_group(paths.segmentation("d", model, ENSEMBLE), mode="w", zarr_format=3)
    images = {}
    for k, name in enumerate(("one", "two")):
        if k:
            labels[12:18, 12:20] = 2
        group = zarr.open_group(paths.prepared("d", model) / name, mode="w", zarr_format=3)
        group.create_array("image", data=(labels > 0).astype(np.float32)[None])
        store = paths.segmentation("d", model, ENSEMBLE) / name
        found = zarr.open_group(store, mode="w", zarr_format=3)
        found.create_array("labels/classes/0", data=(labels > 0).astype(np.uint8))
        found.create_array("labels/instances/0", data=labels)
        images[name] = {"objects": k + 1}
    write_manifest(paths.manifest("d"), [ImageRecord(i, f"{i}.tif") for i in images])
    write_json(paths.segmentation_done("d", model, ENSEMBLE), {"images": images})
    write_json(paths.prepared_done("d", model), {"images": images})
    return ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=(model,), folds=(),
        class_names=("background", "foreground"), seed=0, tested=("ensemble",),
        applied=Applied(labelled=False, networks={model: (0,)}),
    )  # fmt: skip


def test_images_without_labels_are_sorted_by_objects(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    report_dataset(paths, "d", applied_results(paths))
    page = paths.dataset_report_html("d").read_text(encoding="utf-8")
    found = re.findall(r'<article class="card[^"]*" id="image-(\w+)"', page)
    assert found == ["two", "one"]
    kinds = re.findall(r'class="picture (\w+)"', page)
    assert kinds == ["base", "prediction", "outlines"] * 2
    assert page.count(">no labels</span>") == 2
    assert "most objects" in page


def test_masks_of_other_tools_stand_beside_the_models(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["net", "compared/tool"], "instances", images=3)
    table = paths.metrics("d", "compared/tool")
    table.write_text(
        "".join(
            line.replace("compared/tool", "tool")
            for line in table.read_text(encoding="utf-8").splitlines(keepends=True)
            if ",im2," not in line  # without a mask
        )
        + "d,tool,0,im0,,instances,n_pred,7,10\n"
    )
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=("net",), folds=(0,),
        class_names=("ground", "cell"), seed=0, compared=("tool",),
    )  # fmt: skip
    report_dataset(paths, "d", settings)
    page = paths.dataset_report_html("d").read_text(encoding="utf-8")
    about = json.loads(html.unescape(re.findall(r"data-about='(.*?)'", page)[0]))
    assert (about["models"], about["own"]) == (["net", "tool"], 1)
    cards = {
        found["image"]: found
        for found in map(json.loads, map(html.unescape, re.findall(r"data-card='(.*?)'", page)))
    }
    assert [set(cards[f"im{k}"]["scores"]) for k in range(3)] == [{"net", "tool"}] * 2 + [{"net"}]
    assert cards["im0"]["counts"]["tool"] == 7
    assert page.count('data-model="tool" style="--prediction: url(data:image') == 2
    assert page.count("Masks, tool") >= 2
    assert page.count("Prediction, net") >= 3
    assert "Prediction, tool" not in page
    assert 'href="compared/tool/metrics.csv"' in page


def test_the_rank_is_by_the_models_alone(tmp_path: Path) -> None:
    metrics = [
        scored("a", "x", 0.5), scored("tool", "x", 0.9),
        scored("a", "y", 0.6), scored("tool", "y", 0.0),
    ]  # fmt: skip
    data = results_of(Paths(tmp_path), metrics, ("a",))
    data = replace(data, settings=data.settings.model_copy(update={"compared": ("tool",)}))
    found = tested_images.tested_images(data)
    assert [image.id for image in found] == ["x", "y"]
    assert found[0].scores == {"a": [0.5], "tool": [0.9]}
    assert found[0].mean_of(0) == 0.5
