"""The section about what the stages cost."""

from __future__ import annotations

import re
from pathlib import Path

from tests.report.test_report import make_results
from tests.report.test_report_tables import BENCHMARK
from unet.config.sections import ReportSection
from unet.config.stage_settings import DatasetTask, ReportSettings
from unet.data.records import SplitRecord, write_splits
from unet.paths import Paths
from unet.provenance import made_by, write_sidecar
from unet.report.dataset_page import report_dataset
from unet.report.overall_page import report_all


def spent(paths: Paths, stage: str, *names: str) -> None:
    path = paths.benchmark(stage, "d", *names)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(BENCHMARK + "60\t0:01:00\t500\t1\t1\t1\t0\t0\t100\t80\n")


def section_of(page: str) -> str:
    found = re.search(r'<section id="cost">.*?</section>', page, re.DOTALL)
    assert found is not None
    return found[0]


def test_members_of_sweeps_and_curves_and_tools_are_counted(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["net"], "instances")
    parts = ("test", "test", "train", "val")
    splits = [SplitRecord(f"im{k}", 0, part) for k, part in enumerate(parts)]
    write_splits(paths.splits("d"), splits)
    masks = paths.metrics("d", "compared/manual")
    masks.parent.mkdir(parents=True)
    own = paths.metrics("d", "net").read_text(encoding="utf-8")
    masks.write_text(own.replace("d,net,", "d,manual,"))
    for name in ("net-a", "net-b", "net-25pct"):
        spent(paths, "train", name, "0")
    spent(paths, "choose", "net", "0")
    spent(paths, "compare", "manual")
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=("net",), folds=(0,),
        class_names=("ground", "cell"), seed=0, compared=("manual",),
        sweeps={"net": ("net-a", "net-b")}, curves={"net": {"net-25pct": 0.25, "net": 1.0}},
    )  # fmt: skip
    report_dataset(paths, "d", settings)
    part = section_of(paths.dataset_report_html("d").read_text(encoding="utf-8"))
    rows = re.findall(r'scope="row">(\w+)</th><td class="text">([^<]+)</td>', part)
    assert [row for row in rows if row[0] in ("train", "choose", "compare")] == [
        ("train", "net: sweep of 2 models"), ("train", "net: learning curve"), ("choose", "net"),
        ("compare", "manual"),
    ]  # fmt: skip
    assert "<td>2</td><td>2 min 00 s</td>" in part
    assert "net has no training of its own: the sweep trains the models to choose from." in part
    assert "Masks from elsewhere (manual) have only the stage compare" in part
    # As the report stage does.
    write_sidecar(paths.dataset_report_csv("d"), made_by("report", settings.to_json(), {}))
    report_all(paths, {"d": DatasetTask(task="instances", models=("net",), compared=("manual",))})
    over = section_of(paths.report_html.read_text(encoding="utf-8"))
    assert "<td>5</td><td>5 min 00 s</td>" in over
