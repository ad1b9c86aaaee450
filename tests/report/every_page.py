"""All pages that the software writes, with every part that they can have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.report.detail_cases import write_details
from tests.report.test_audit_section import DOUBT, audited
from tests.report.test_check_page import FINDINGS, config, survey, write_files
from tests.report.test_curve_section import CURVE, FOLDS, curve_results
from tests.report.test_evaluated_page import evaluated, method_of
from tests.report.test_gallery import applied_results
from tests.report.test_predicted_page import made as predicted
from tests.report.test_predicted_page import objects, record
from tests.report.test_report import make_results
from tests.report.test_report_tables import BENCHMARK
from tests.unlabelled import Made, squares, write_results
from unet.cli import main
from unet.config.sections import ReportSection
from unet.config.stage_settings import DatasetTask, ReportSettings
from unet.data.dataset_warnings import write_warnings
from unet.data.survey.facts import Alike, SurveyedClass, SurveyedObjects
from unet.evaluation.quality.quality_table import QualityRow, write_quality
from unet.files import write_json
from unet.paths import Paths
from unet.planning.estimates import Estimate
from unet.provenance import write_sidecar
from unet.report.check_page import check_page
from unet.report.checked import Checked, suggestions
from unet.report.dataset_page import report_dataset
from unet.report.overall_page import report_all
from unet.report.page_file import write_page
from unet.report.predicted_page import PredictedImages, write_predicted
from unet.report.single_page import SINGLE, write_single

MODELS = ("net", "other")


def every_page(folder: Path) -> dict[str, Path]:
    """The pages by what they are about."""
    return {
        **run_pages(Paths(folder / "results")),
        "check": _check(folder / "check"),
        "evaluate": _evaluate(folder / "evaluate"),
        "predict": _predict(folder / "predict"),
        "annotate": _annotate(folder / "annotate"),
    }


def run_pages(paths: Paths) -> dict[str, Path]:
    """The pages of a run: objects with every section, classes, images without labels; the page
    over all of them, and all in one."""
    tasks: dict[str, DatasetTask] = {}
    for name, of_dataset in (("objects", _objects), ("classes", _classes)):
        settings = of_dataset(paths, name)
        write_warnings(paths.warnings(name, "manifest"), ["a warning about <an image>", "another"])
        report_dataset(paths, name, settings)
        tasks[name] = DatasetTask(task=settings.task, models=MODELS, compared=settings.compared)
    settings = _applied(paths)
    report_dataset(paths, "d", settings)
    tasks["d"] = DatasetTask(task="instances", models=settings.models, labelled=False)
    report_all(paths, tasks)
    write_single(paths.output, paths.output / SINGLE)
    pages = {name: paths.dataset_report_html(name) for name in tasks}
    return {**pages, "overall": paths.report_html, "single": paths.output / SINGLE}


def _objects(paths: Paths, name: str) -> ReportSettings:
    """Details, audit, learning curve, another tool, costs with a GPU."""
    models = (*CURVE, "other", "compared/tool")
    images = curve_results(paths, name, lambda n: 0.92 - 1.2 * n**-0.5, models=models)
    table = paths.metrics(name, "compared/tool")
    table.write_text(table.read_text("utf-8").replace("compared/tool", "tool"), "utf-8")
    for model in MODELS:
        write_details(paths, name, model, "instances", ("ground", "cell"), images)
        benchmark = paths.benchmark("train", name, model, "0")
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text(BENCHMARK + "65\t-\t300\t-\t-\t-\t-\t-\t-\t70\n", "utf-8")
    write_json(
        paths.gpu_use("train", name, "net", "0"),
        {"seconds": 60, "busy_seconds": 50, "memory_mib": 5222},
    )
    audited(paths, "net", DOUBT, replace(DOUBT, image="im2", kind="denied"), dataset=name)
    return ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=MODELS, folds=FOLDS,
        class_names=("ground", "cell"), seed=0, curves={"net": dict(CURVE)}, compared=("tool",),
    )  # fmt: skip


def _classes(paths: Paths, name: str) -> ReportSettings:
    """Details with the confusion of three classes."""
    make_results(paths, name, MODELS, "semantic")
    names = ("ground", "cell", "wall")
    images = [(f"im{k}", f"plate {k % 2}") for k in range(4)]
    for model in MODELS:
        write_details(paths, name, model, "semantic", names, images)
        for bin_, share in (("02", 0.3), ("08", 0.7)):
            values = f"reliability_{bin_},{share}", f"confidence_{bin_},0.5", "ece,0.1"
            with paths.metrics(name, model).open("a", encoding="utf-8") as handle:
                handle.writelines(f"{name},{model},0,im0,,cell,{v},10\n" for v in values)
    return ReportSettings.made(
        report=ReportSection(bootstrap=100), task="semantic", models=MODELS, folds=(0,),
        class_names=names, seed=0,
    )  # fmt: skip


def _applied(paths: Paths) -> ReportSettings:
    """Images without labels, and whether their results can be believed."""
    settings = applied_results(paths)
    (model,) = settings.models
    rows = [
        QualityRow(f"im{k}", 0.9 - 0.2 * k, 0.5 - 0.1 * k, 0.95, 10 + k, 5, 20, 0.4 * k, "darker",
                   0.2 * k, k > 2, "unlike the training images" if k > 2 else "")
        for k in range(4)
    ]  # fmt: skip
    write_quality(paths.quality("d", model), rows)
    basis = {
        "images": 12,
        "groups": 4,
        "correlation": 0.8,
        "notes": ["A note."],
        "confidence": 0.95,
    }
    write_sidecar(paths.quality("d", model), {}, basis=basis)
    return settings


def _check(folder: Path) -> Path:
    write_files(folder, 14)
    found = survey(
        14, bits=12, images_alone=("x.tif",), unread={".czi": 3}, groups=2, findings=FINDINGS,
        classes=(SurveyedClass("background", 0, 0.9, 12.5, 3),
                 SurveyedClass("foreground", None, 0.1, 80.0, 3)),
        objects=SurveyedObjects(3, (1, 1.0, 1), (100, 200, 300), (11, 16, 20), 0.25, 0.5, 2, 1,
                                ("i02",)),
        splits={0: {"train": 1, "val": 1, "test": 1}},
        alike=(Alike("i00", "i01", "near", leak=True),),
    )  # fmt: skip
    why = "a long reason for what these images suggest, so long that it needs several lines. " * 3
    proposed = suggestions(config(), "d", [("stitch.min_size", 4, "r"), ("train.patch", 96, why)])
    cost = (Estimate("train", "a", 1, 3600, 2e9, 5e6), Estimate("train", "c", 1, None, 4e9, None))
    page = check_page(Checked(found, proposed, cost), config().datasets["d"], folder)
    write_page(folder / "check.html", page)
    return folder / "check.html"


def _evaluate(folder: Path) -> Path:
    from unet.report.evaluated_page import write_evaluated_page

    folder.mkdir()
    methods = [method_of(folder, "cp", 2), method_of(folder, "sd", 4)]
    write_evaluated_page(folder / "index.html", evaluated(methods, warnings=["look <here>"]))
    return folder / "index.html"


def _predict(folder: Path) -> Path:
    names = ["a <b>", *(f"image-with-a-long-name-{k:02d}" for k in range(13))]
    out, prepared = predicted(folder, names)
    bad = record("bad", status="quarantined", reason="no image in the file")
    write_predicted(out, prepared, PredictedImages(
        task="instances", class_names=("background", "cell"),
        records=[*(record(name, pixel_size_um=(0.5, 0.5)) for name in names), bad],
        counted={name: objects(0.5) for name in names}, unlike={names[1]: ["too dark"]},
        odd={names[2]: "all specks"}, warnings=["of a stage"], new_warnings=["of the result"],
        threshold=0.4, models={"m/fold-0/model.pt": "abcdef" * 8}, settings={"min_size": 16},
    ))  # fmt: skip
    return out.pages[0]


def _annotate(folder: Path) -> Path:
    made: dict[str, Made] = {f"image{k}": squares(k, (80, 100), 12) for k in range(4)}
    paths = write_results(folder, made)
    words: list[Any] = [paths.output, "new", "--crops", 40, "-n", 20, "-o", folder / "out"]
    assert main.main(["annotate", *map(str, words)]) == 0
    return folder / "out" / "index.html"
