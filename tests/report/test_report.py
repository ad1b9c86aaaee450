"""Pages of the report: self-contained, escaped, tolerant of missing results; the command line."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import zarr

from tests.report.page_policy import assert_scripts_allowed
from tests.report.test_report_tables import BENCHMARK
from unet.config.sections import ReportSection
from unet.config.stage_settings import DatasetTask, ReportSettings
from unet.data.records import ImageRecord, SplitRecord, write_manifest, write_splits
from unet.evaluation.audit.doubts import write_doubts
from unet.evaluation.metrics.rows import METRIC_COLUMNS
from unet.files import write_json
from unet.paths import Paths
from unet.provenance import write_sidecar
from unet.report import collect, score_tables
from unet.report.dataset_page import report_dataset
from unet.report.overall_page import report_all


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
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task=task, models=models, folds=(0,),
        class_names=("ground", "cell"), seed=0,
    )  # fmt: skip
    report_dataset(paths, dataset, settings)
    return paths.dataset_report_html(dataset).read_text(encoding="utf-8")


def assert_self_contained(page: str, links: Sequence[str] = ("../report.html",)) -> None:
    """The page needs nothing else, and links to these files alone: a dataset's to the overview."""
    assert_scripts_allowed(page)
    page = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"https?:|url\((?!data:image/)|@import|<script|<link|<iframe", page)
    # The gallery links to the results of an image: files below the dataset's folder.
    page = re.sub(r'<a class="file" href="[\w.%-]+(/[\w.%-]+)*" title="[^"]*">', "<a>", page)
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    outside = [s for s in sources if not s.startswith(("data:image/", "#"))]
    assert outside == list(links)


@pytest.mark.parametrize("task", ["semantic", "instances"])
def test_dataset_report_has_all_its_parts(tmp_path: Path, task: str) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m1", "m2"], task)
    page = make_report(paths, "d", ["m1", "m2"], task)
    assert_self_contained(page)
    # The curves of all models, and the plot of all images.
    assert page.count('src="data:image/') == 1 + 1
    # Per image: the image, its truth, and the prediction and the errors of each model.
    assert page.count('class="picture ') == 4 * (2 + 2 * 2)
    assert "<code>im0</code>" in page
    assert "recall" in page
    assert ">–<" in page
    shown = re.sub(
        r'"data:[^"]*"|url\(data:[^)]*\)|<script>.*?</script>', "", page, flags=re.DOTALL
    )
    assert "nan" not in shown.lower()
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


def test_seams_and_skipped_tiles_are_reported(tmp_path: Path) -> None:
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
    rows = {(r.model, r.metric): r for r in score_tables.read_report(paths.dataset_report_csv("d"))}
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
    report_all(paths, {name: DatasetTask(task="semantic", models=("<i>",))})
    overall = paths.report_html.read_text(encoding="utf-8")
    assert_self_contained(overall, ["%3Cscript%3Ex%26y%3C/report.html"])
    assert "<i>" not in overall
    assert "&lt;script&gt;x&amp;y&lt;" in overall


def test_single_image_has_no_interval(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "semantic", images=1)
    page = make_report(paths, "d", ["m"], "semantic")
    assert "only image" in page
    assert "1.000" in page
    assert 'class="range">[' not in page
    assert "n = 1: few" in page
    assert "d,m,foreground-mean,iou,1,,,1" in paths.dataset_report_csv("d").read_text()


@pytest.mark.parametrize(
    ("images", "gap", "said", "marked"),
    [
        (4, 0.1, "Too few images to tell which model is best by IoU", False),
        (8, 0.1, "a is best by IoU: 0.7", True),
        (8, 0.00001, "No model is clearly best by IoU: a has the best mean", False),
        (12, 0.0, "No model is clearly best by IoU: a has the best mean", False),
    ],
)
def test_pages_name_a_winner_only_where_the_test_does(
    tmp_path: Path, images: int, gap: float, said: str, marked: bool
) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["a", "b"], "semantic", images=images)
    for model, shift in (("a", 0.0), ("b", gap)):
        with paths.metrics("d", model).open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(METRIC_COLUMNS)
            for k in range(images):
                value = 0.6 + 0.02 * k + 0.03 * (images == 8) - shift * (1 + 0.01 * k)
                row = ["foreground-mean", "iou", f"{value:.8f}", ""]
                writer.writerow(["d", model, 0, f"im{k}", "", *row])
    page = make_report(paths, "d", ["a", "b"], "semantic")
    report_all(paths, {"d": DatasetTask(task="semantic", models=("a", "b"))})
    overall = paths.report_html.read_text(encoding="utf-8")
    assert said in page
    assert ("a is best" in page) == marked
    for text in (page, overall):
        assert ('class="number best"' in text) == marked
        assert (f"n = {images}: few" in text) == (images < 10)
        assert ("fewer than 10 images" in text) == (images < 10)


def test_nothing_measured_and_stores_missing_still_make_a_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = Paths(tmp_path)
    write_manifest(paths.manifest("d"), [])
    write_splits(paths.splits("d"), [])
    paths.fold("d", "m", 0).mkdir(parents=True)
    paths.metrics("d", "m").write_text(",".join(METRIC_COLUMNS) + "\n")
    page = make_report(paths, "d", ["m"], "semantic")
    assert "No test image of this dataset was scored" in page
    assert "No training history" in page
    report_all(paths, {"d": DatasetTask(task="semantic", models=("m",))})
    assert "report.html" in paths.report_html.read_text(encoding="utf-8")

    header = ",".join(METRIC_COLUMNS)
    paths.metrics("d", "m").write_text(f"{header}\nd,m,0,im,,foreground-mean,iou,0.5,\n")
    page = make_report(paths, "d", ["m"], "semantic")
    assert "<code>im</code>" in page
    assert "No pictures" in page
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
    rows = report_all(
        paths, {n: DatasetTask(task=t, models=("m1", "m2")) for n, t in tasks.items()}
    )
    assert len(rows) == 2 * 2 * 3
    assert score_tables.read_report(paths.report_csv)[0] == pytest.approx(rows[0], nan_ok=True)
    page = paths.report_html.read_text(encoding="utf-8")
    assert_self_contained(page, ["cells/report.html", "nuclei/report.html"])
    assert (tmp_path / "cells/report.html").is_file()
    # A row of scores per model and a row of the plot, and one of costs.
    assert page.count(">cells</th>") == page.count(">nuclei</th>") + 1 == 5
    assert "report.html in the folder with its name" in page
    assert page.count("<li><img") == 2 * 4
    assert page.count("1 min 05 s") == 2
    assert "GPU" not in page


def test_the_use_of_gpus_is_shown_where_a_job_had_one(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "semantic")
    for stage, where in (("prepare", ("d",)), ("train", ("d", "m", "0"))):
        paths.benchmark(stage, *where).parent.mkdir(parents=True)
        paths.benchmark(stage, *where).write_text(BENCHMARK + "65\t-\t300\t-\t-\t-\t-\t-\t-\t70\n")
    assert "GPU" not in make_report(paths, "d", ["m"], "semantic")
    write_json(
        paths.gpu_use("train", "d", "m", "0"),
        {"seconds": 60, "busy_seconds": 49.8, "memory_mib": 5222.4},
    )
    page = make_report(paths, "d", ["m"], "semantic")
    assert "<th>GPU busy</th><th>GPU memory</th>" in page
    cells = re.findall(r"<td>300 MiB</td>(.*?)</tr>", page)
    assert cells == ["<td>–</td><td>–</td>", *["<td>83 %</td><td>5.1 GiB</td>"] * 2]
    report_all(paths, {"d": DatasetTask(task="semantic", models=("m",))})
    assert paths.report_html.read_text(encoding="utf-8").count("<td>83 %</td>") == 2


def test_large_image_is_read_strided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# Command line


def script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "report.py"
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
    write_doubts(paths.audit("d", "m"), [])
    about = {"labelled": 4, "images": 4, "validation": 0, "objects": 8, "agreement": 0.9,
             "usual": None, "doubts": 0}  # fmt: skip
    write_sidecar(paths.audit("d", "m"), {}, audit=about)
    assert main([*common, "--all", "--settings", '{"datasets": {"d": {"task": "semantic"}}}']) == 2
    assert main([*common, "--dataset", "d", "--settings", json.dumps(own)]) == 0
    overall = {"version": 1, "datasets": {"d": {"task": "instances", "models": ["m"]}}}
    assert main([*common, "--all", "--settings", json.dumps(overall)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"d +│ m +│ 0\.750 \[", out)
    assert str(paths.report_html) in out
    with pytest.raises(SystemExit):
        main([*common, "--settings", "{}"])


def test_masks_of_other_tools_stand_beside_the_models(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["net", "compared/tool"], "instances")
    table = paths.metrics("d", "compared/tool")
    lines = table.read_text(encoding="utf-8").replace("compared/tool", "tool").splitlines()
    # The first image has no mask.
    kept = [line for line in lines if ",im0," not in line]
    table.write_text("\n".join(kept) + "\n", encoding="utf-8")
    write_json(tmp_path / "d" / "warnings.compare-tool.json", {"warnings": ["tool: 1 is missing"]})
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=("net",), folds=(0,),
        class_names=("ground", "cell"), seed=0, compared=("tool",),
    )  # fmt: skip
    rows = report_dataset(paths, "d", settings)
    assert {row.model for row in rows} == {"net", "tool"}
    page = paths.dataset_report_html("d").read_text(encoding="utf-8")
    # In the table of scores, its note, and beside each image that has a mask.
    assert page.count("masks from elsewhere") == 2 + 3
    assert "for 3 of 4 test images" in page
    assert "tool: 1 is missing" in page
    assert_self_contained(page)
    about = DatasetTask(task="instances", models=("net",), compared=("tool",))
    report_all(paths, {"d": about})
    overall = paths.report_html.read_text(encoding="utf-8")
    # In the plot of intervals and in the table.
    assert overall.count("masks from elsewhere") == 2
    assert {row.model for row in score_tables.read_report(paths.report_csv)} == {"net", "tool"}


def test_channels_are_listed_in_their_order() -> None:
    image = ImageRecord(
        "a", "a.tif", axes="CYX", shape=(3, 9, 9), channels=("red", "green", "blue")
    )
    other = ImageRecord("b", "b.tif", axes="CYX", shape=(3, 9, 9), channels=("", "green", "extra"))
    assert dict(collect.facts([image, other]))["Channels"] == "red, green, blue, extra"
