"""The section about learning curves: points, answer, and that their models are no rivals."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.report.test_report import assert_self_contained, make_results
from tests.report.test_report_tables import BENCHMARK
from unet.config.sections import ReportSection
from unet.config.stage_settings import ReportSettings
from unet.data.records import ImageRecord, SplitRecord, write_manifest, write_splits
from unet.data.subsets import subset_of
from unet.evaluation.metrics.rows import METRIC_COLUMNS
from unet.evaluation.power_law import Outlook, PowerLaw, Range, outlook
from unet.paths import Paths
from unet.report.dataset_page import report_dataset
from unet.report.score_tables import HEADLINE
from unet.report.sections.curve_section import FittedImages, rounded, sentence

CURVE = {"net-12pct": 0.125, "net-25pct": 0.25, "net-50pct": 0.5, "net": 1.0}
TRAIN = [f"t{k:02d}" for k in range(80)]
FOLDS = (0, 1)


def rising(n: float) -> float:
    return 0.92 - 1.2 * n**-0.5


def made(
    folder: Path,
    mean: Callable[[float], float],
    tested: int = 30,
    curve: Mapping[str, float] = CURVE,
    models: tuple[str, ...] = ("net", "other"),
) -> tuple[str, Paths]:
    """The page of a dataset with a learning curve whose scores follow ``mean``."""
    paths = Paths(folder)
    curve_results(paths, "d", mean, tested, curve, (*curve, *(m for m in models if m not in curve)))
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=400), task="instances", models=models, folds=FOLDS,
        class_names=("ground", "cell"), seed=0, curves={"net": dict(curve)} if curve else {},
    )  # fmt: skip
    report_dataset(paths, "d", settings)
    return paths.dataset_report_html("d").read_text(encoding="utf-8"), paths


def curve_results(
    paths: Paths,
    dataset: str,
    mean: Callable[[float], float],
    tested: int = 30,
    curve: Mapping[str, float] = CURVE,
    models: tuple[str, ...] = tuple(CURVE),
) -> list[tuple[str, str]]:
    """Results whose scores follow ``mean``; returns the test images and their groups."""
    make_results(paths, dataset, models, "instances")
    ids = [f"im{k}" for k in range(tested)]
    write_manifest(
        paths.manifest(dataset),
        [ImageRecord(i, f"{i}.tif", axes="CYX", shape=(1, 40, 48)) for i in [*ids, *TRAIN]],
    )
    parts = [SplitRecord(i, fold, "train") for i in TRAIN for fold in FOLDS]
    parts += [SplitRecord(i, k % 2, "test") for k, i in enumerate(ids)]
    write_splits(paths.splits(dataset), parts)
    rng = np.random.default_rng(0)
    easy = rng.normal(0, 0.05, tested)
    for model, share in curve.items():
        with paths.metrics(dataset, model).open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(METRIC_COLUMNS)
            for k, name in enumerate(ids):
                score = mean(80 * share) + easy[k] + rng.normal(0, 0.01)
                writer.writerow(
                    [dataset, model, k % 2, name, "", "instances", "ap_0.50", min(1, score), 10]
                )
    return [(name, "") for name in ids]


def part(page: str) -> str:
    """The section's HTML, without its pictures."""
    found = re.search(r'<section id="curve">.*?</section>', page, re.DOTALL)
    assert found is not None
    return re.sub(r'"data:[^"]*"', "", found[0])


def again(paths: Paths, tested: tuple[str, ...] = ()) -> str:
    """The section of a new report, after a test has changed the results."""
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=400), task="instances", models=("net", "other"),
        folds=FOLDS, tested=tested, class_names=("ground", "cell"), seed=0, curves={"net": CURVE},
    )  # fmt: skip
    report_dataset(paths, "d", settings)
    return part(paths.dataset_report_html("d").read_text())


def test_the_section(tmp_path: Path) -> None:
    page, _ = made(tmp_path, rising)
    assert_self_contained(page)
    assert '<a href="#curve">More images?</a>' in page
    text = part(page)
    found = re.search(r"About (\d+) more training images for \+0.02 AP@0.5", text)
    assert found is not None
    truth = (1.2 / (1.2 * 80**-0.5 - 0.02)) ** 2 - 80
    assert truth / 1.5 < int(found[1]) < 1.5 * truth
    assert "Today there are 80." in text
    rows = re.findall(r'scope="row">([\w-]+)</th><td>([\d.]+) %</td><td>([\d.]+)</td>', text)
    assert rows == [
        ("net-12pct", "12.5", "10"),
        ("net-25pct", "25", "20"),
        ("net-50pct", "50", "40"),
        ("net", "100", "80"),
    ]
    assert "nan" not in text.lower()


def test_the_numbers_of_images_are_those_of_training(tmp_path: Path) -> None:
    page, _ = made(tmp_path, rising, curve={"net-3pct": 0.03, "net-5pct": 0.05, "net": 1.0})
    sizes = [len(subset_of(TRAIN, {}, share, 0, 0)) for share in (0.03, 0.05, 1)]
    assert re.findall(r"%</td><td>([\d.]+)</td>", part(page)) == [str(size) for size in sizes]


def test_models_of_a_curve_are_no_rivals(tmp_path: Path) -> None:
    page, paths = made(tmp_path, rising)
    others = page.replace(re.search(r'<section id="curve">.*?</section>', page, re.DOTALL)[0], "")  # type: ignore[index]
    assert "net-25pct" not in others
    assert "other" in others
    table = paths.dataset_report_csv("d").read_text()
    assert "pct" not in table
    # The same numbers as without the curve: one model more would change the corrected tests.
    without = Paths(tmp_path / "plain")
    _, without = made(tmp_path / "plain", rising, curve={})
    for name in ("net", "other"):
        source = paths.metrics("d", name)
        without.metrics("d", name).parent.mkdir(parents=True, exist_ok=True)
        without.metrics("d", name).write_text(source.read_text())
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=400), task="instances", models=("net", "other"),
        folds=FOLDS, class_names=("ground", "cell"), seed=0,
    )  # fmt: skip
    report_dataset(without, "d", settings)
    assert without.dataset_report_csv("d").read_text() == table
    assert 'id="curve"' not in without.dataset_report_html("d").read_text()


def test_answers(tmp_path: Path) -> None:
    flat, _ = made(tmp_path / "flat", lambda n: 0.8)
    assert "More images of this kind hardly help: 4 times as many" in part(flat)
    nothing, _ = made(tmp_path / "nothing", lambda n: 0.0)
    assert "so the model has not learned the task" in part(nothing)
    few, _ = made(tmp_path / "few", rising, tested=4)
    assert "the score rests on 4 test images, and at least 6 are needed" in part(few)
    two, _ = made(tmp_path / "two", rising, curve={"net-50pct": 0.5, "net": 1.0})
    assert "Can&#39;t tell" in part(two)
    assert "three models with different numbers" in part(two)
    falls, _ = made(tmp_path / "falls", lambda n: 0.8 - 0.001 * n)
    assert "gets worse with more images" in part(falls)


def test_a_share_that_was_not_scored_is_left_out(tmp_path: Path) -> None:
    _, paths = made(tmp_path, rising)
    paths.metrics("d", "net-25pct").unlink()
    text = again(paths)
    assert "net-25pct" not in text
    assert "net-12pct" in text


def test_the_cost_of_the_curve_is_said(tmp_path: Path) -> None:
    _, paths = made(tmp_path, rising)
    assert "took" not in part(paths.dataset_report_html("d").read_text())
    for model in ("net", "net-12pct"):
        path = paths.benchmark("train", "d", model, "0")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(BENCHMARK + "90\t0:01:30\t500\t1\t1\t1\t0\t0\t100\t80\n")
    page, _ = made(tmp_path, rising)
    # That of the model itself is in the table of costs.
    assert re.search(r"took 1 min 30 s in 1 job\.", part(page))


@pytest.mark.parametrize(
    ("images", "text"), [(0.2, "1"), (29.01, "30"), (100, "100"), (101, "110"), (1234, "1,300")]
)
def test_rounded(images: float, text: str) -> None:
    assert rounded(images) == text


def test_an_error_is_said_as_an_error() -> None:
    error = next(score for score in HEADLINE["semantic"] if score.metric == "pixel_error")
    found = Outlook(80, 0.02, "hardly", gain=Range(0.001, 0.0, 0.004))
    assert "would take at most 0.004 off Pixel error" in sentence(
        found, FittedImages(9, "images"), error, -1, 0.95
    )
    found = Outlook(80, 0.02, "more", needed=Range(50.0, 20.0, 200.0))
    assert sentence(found, FittedImages(9, "images"), error, -1, 0.95) == (
        "About 50 more training images for −0.02 Pixel error (between 20 and 200). Today there are "
        "80."
    )


def uneven(means: tuple[float, float, float]) -> Outlook:
    """Of models with these means at 20, 40 and 80 images: 12 test images, one training each."""
    easy = np.random.default_rng(0).normal(0, 0.05, (12, 1))
    scores = np.array(means) + easy - easy.mean()
    return outlook((20, 40, 80), scores, range(12), [0] * 12, top=1.0)


def said(found: Outlook) -> str:
    return sentence(found, FittedImages(12, "images"), HEADLINE["instances"][0], 1, 0.95)


def test_what_cannot_be_told_agrees_with_the_fit() -> None:
    flat = uneven((0.77, 0.73, 0.768))
    assert flat.law is not None
    assert (flat.verdict, flat.law.b) == ("unknown", 0)
    assert np.isfinite(flat.needed.low)  # what the sentence gave as the number
    assert "fit is flat, but the points are too uneven to rule a gain out: 4 times" in said(flat)
    assert "may take" not in said(flat)
    slow = uneven((0.74, 0.765, 0.757))
    assert slow.law is not None
    gain = float(slow.law.at(320.0) - slow.law.at(80.0))
    assert slow.law.b > 0
    assert gain < 0.02
    assert slow.verdict == "unknown"
    assert f"would add only {gain:.3f} to AP@0.5, but the points allow for 0.0" in said(slow)
    assert "may take" not in said(slow)


def test_a_number_is_said_only_with_a_fit_that_reaches_the_goal() -> None:
    open_ended = Outlook(
        80, 0.02, "unknown", "wide", PowerLaw(0.9, 1.0, 0.5), gain=Range(0.056, 0.0, 0.09),
        needed=Range(41.0, 24.1, float("inf")),
    )  # fmt: skip
    assert "+0.02 AP@0.5 may take 25 more images, or far more: 4 times" in said(open_ended)


def test_images_without_a_score_are_counted(tmp_path: Path) -> None:
    page, paths = made(tmp_path, rising)
    assert "test image" not in part(page).partition("<h3>")[2].partition("Each model is")[0]
    table = paths.metrics("d", "net-25pct")
    lines = table.read_text().splitlines()
    for k, image in ((1, "im0"), (2, "im1")):
        assert f",{image}," in lines[k]
        cells = lines[k].split(",")
        cells[-2] = "nan" if k == 1 else ""
        lines[k] = ",".join(cells)
    table.write_text("\n".join(lines[:2] + lines[3:]) + "\n")
    text = again(paths)
    assert "2 test images have no AP@0.5 with at least one of these models" in text


def test_an_ensemble_is_one_training_per_point(tmp_path: Path) -> None:
    page, paths = made(tmp_path, rising)
    assert "from how the folds differ" in part(page)
    for model in CURVE:
        table = paths.metrics("d", model)
        lines = [line.split(",") for line in table.read_text().splitlines()]
        fold = lines[0].index("fold")
        rows = [[*row[:fold], "ensemble", *row[fold + 1 :]] for row in lines[1:]]
        table.write_text("\n".join(map(",".join, [lines[0], *rows])) + "\n")
    text = again(paths, tested=("ensemble",))
    assert "from how the folds differ" not in text
    assert "each point is one ensemble" in text
