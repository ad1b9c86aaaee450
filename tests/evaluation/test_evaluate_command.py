"""The evaluate stage's file and command line, and the mistakes that it reports."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.evaluate import main
from tests.evaluated import NAMES, PIXEL, Stores, add_cells, cells, values
from unet.config.sections import EvaluateSection
from unet.errors import UserError
from unet.evaluation.evaluate import write_metrics
from unet.evaluation.metrics.rows import MetricRow
from unet.report import score_tables


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path)


# --- mistakes


def test_unknown_topology_class(stores: Stores) -> None:
    add_cells(stores, "a", 0, 1)
    with pytest.raises(UserError, match="no class 'membrane'; there are: background, foreground"):
        stores.evaluate("topology", topology_class="membrane")


def test_labels_that_are_missing_or_do_not_fit(stores: Stores) -> None:
    stores.prediction("a", cells())
    with pytest.raises(UserError, match="no prepared store"):
        stores.evaluate("pixel")
    stores.truth("b", cells())
    with pytest.raises(UserError, match="has no image 'a'"):
        stores.evaluate("pixel")
    stores.truth("a", None, shape=(5, 11))
    with pytest.raises(UserError, match="has no labels"):
        stores.evaluate("pixel")
    stores.truth("c", np.zeros((5, 12)))
    stores.prediction("c", cells(), fold=1)
    stores.made = {1}
    with pytest.raises(UserError, match=r"shape \(5, 12\), but the segmentation has \(5, 11\)"):
        stores.evaluate("pixel")


def test_segmentations_of_another_task_or_other_classes(stores: Stores) -> None:
    stores.truth("a", cells())
    stores.prediction("a", cells())
    with pytest.raises(UserError, match="the prepare stage made no instances"):
        stores.evaluate("instance", task="instances")
    stores.truth("b", cells(), cells())
    stores.prediction("b", cells(), fold=1)
    stores.made = {1}
    with pytest.raises(UserError, match="the stitch stage made no instances"):
        stores.evaluate("pixel", task="instances")
    with pytest.raises(UserError, match="but they are now background, cell"):
        stores.evaluate("pixel", names=("background", "cell"))


def test_fold_without_test_images(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    add_cells(stores, "v", 0, 1, part="val")
    with caplog.at_level(logging.WARNING):
        assert stores.evaluate("pixel", "topology") == []
    assert "no test images" in caplog.text


# --- file and command line

ROW = MetricRow("d", "m", 0, "a", "x, y", "all", "iou", 1 / 3, 9)


def test_file_by_hand_and_as_the_report_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.csv"
    undefined, unweighted = {"value": math.nan, "weight": 0}, {"value": 12.0, "weight": math.nan}
    write_metrics(path, [ROW, ROW._replace(**undefined), ROW._replace(**unweighted)])
    assert path.read_text().splitlines() == [
        "dataset,model,fold,image,group,class,metric,value,weight",
        'd,m,0,a,"x, y",all,iou,0.33333333,9',
        'd,m,0,a,"x, y",all,iou,,0',
        'd,m,0,a,"x, y",all,iou,12,',
    ]
    read = score_tables.read_metrics(path)
    assert read[0][:-2] == ROW[:-2]
    assert [row.weight for row in read] == pytest.approx([9, 0, math.nan], nan_ok=True)
    assert [row.value for row in read] == pytest.approx([1 / 3, math.nan, 12], nan_ok=True)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_metrics(path, [ROW])
    before = path.read_text()

    def failing() -> Any:
        yield ROW
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_metrics(path, failing())
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]


def arguments(stores: Stores, *folds: int) -> list[str]:
    fixed = ["--output", str(stores.root), "--dataset", stores.dataset, "--model", stores.model]
    return [*fixed, "--folds", *map(str, folds)]


def test_command_line(stores: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    for fold, image in enumerate("ab"):
        stores.truth(image, cells(), group="g1")
        stores.prediction(image, cells(slice(5, 7)), fold=fold)
    section = EvaluateSection(metrics=("pixel",)).model_dump(mode="json")
    told = {"version": 1, "evaluate": section, "task": "semantic", "class_names": list(NAMES)}
    assert main([*arguments(stores, 1, 0), "--settings", json.dumps(told)]) == 0
    rows = score_tables.read_metrics(stores.metrics)
    assert [(r.fold, r.image, r.group) for r in rows[:: len(PIXEL)]] == [
        (0, "a", "g1"),
        (1, "b", "g1"),
    ]
    assert values(rows, class_="foreground-mean")["iou"] == pytest.approx(45 / 50)
    assert "IoU          0.9000  (mean of 2 images)" in capsys.readouterr().err
    config = stores.root / "config.yaml"
    config.write_text(
        "datasets: {cells: {images: i, labels: l, classes: {background: 0, foreground: 1}}}\n"
        "models: {net: {preset: unet-bn}}\n"
        "evaluate: {metrics: [pixel]}\n"
    )
    before = stores.metrics.read_bytes()
    stores.metrics.unlink()
    assert main([*arguments(stores, 0, 1), "--config", str(config)]) == 0
    assert stores.metrics.read_bytes() == before


def test_command_line_without_segmentation(
    stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.truth("a", cells())
    stores.prediction("a", cells())
    section = EvaluateSection().model_dump(mode="json")
    told = {"version": 1, "evaluate": section, "task": "semantic", "class_names": list(NAMES)}
    assert main([*arguments(stores, 0, 1), "--settings", json.dumps(told)]) == 2
    assert (
        "fold-1/segmentation.json: missing; run the stitch stage first" in capsys.readouterr().err
    )
    assert not stores.metrics.exists()
