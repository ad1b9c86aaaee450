"""The page of ``unet evaluate``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from unet.data.mask_pairs import MaskPair
from unet.errors import UserError
from unet.evaluation.mask_folders import (
    MaskFiles,
    Method,
    doubts,
    grouping,
    opened_files,
    score_method,
)
from unet.evaluation.mask_scoring import MaskScoring
from unet.report import collect
from unet.report.evaluated_page import Evaluated, _pictures, write_evaluated_page
from unet.report.paired import Statistics
from unet.report.score_tables import summarise


def objects(k: int, shape: tuple[int, ...] = (30, 40)) -> Any:
    labels = np.zeros(shape, np.uint16)
    labels[..., 4:12, 4 + k : 12 + k], labels[..., 16:26, 20 : 30 - k] = 1, 2
    return labels


def method_of(folder: Path, name: str, by: int, shape: tuple[int, ...] = (30, 40)) -> Method:
    pairs = []
    for k in range(4):
        for side, labels in (("t", objects(k, shape)), (name, objects(k + by, shape))):
            (folder / side).mkdir(exist_ok=True)
            axes = {"axes": "ZYX"[-len(shape) :]}
            tifffile.imwrite(folder / side / f"{k}.tif", labels, imagej=True, metadata=axes)
        pairs.append(MaskPair(f"im{k}", folder / "t" / f"{k}.tif", folder / name / f"{k}.tif"))
    return Method(name, f"masks of {name}", tuple(pairs), extra=(Path("x<y>.tif"),))


def evaluated(methods: list[Method], **options: Any) -> Evaluated:
    scoring = options.pop("scoring", MaskScoring())
    metrics = [
        row for method in methods for row in score_method(method, scoring, MaskFiles(), {}, "t")[0]
    ]
    rows = summarise(metrics, Statistics())
    return Evaluated("truth", methods, scoring, MaskFiles(), metrics, rows, **options)


def page_of(found: Evaluated, path: Path) -> str:
    write_evaluated_page(path / "index.html", found)
    return (path / "index.html").read_text(encoding="utf-8")


def test_one_method(tmp_path: Path) -> None:
    found = evaluated([method_of(tmp_path, "cp", 2)], warnings=["look <here>"])
    page = page_of(found, tmp_path)
    assert "Is the difference" not in page
    assert "look &lt;here&gt;" in page
    assert "x&lt;y&gt;.tif" in page
    # Best, median and worst: truth, prediction and error each.
    assert page.count("<figure>") == 9
    assert re.findall(r'class="rank">(\w+)', page) == ["best", "median", "worst"]
    assert "--images FOLDER" in page
    # Nothing from elsewhere, a text for each picture, no undefined value.
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<img") == page.count(' alt="')
    assert ">nan<" not in page


def test_two_methods_on_images(tmp_path: Path) -> None:
    methods = [method_of(tmp_path, "cp", 2), method_of(tmp_path, "sd", 4)]
    images = {f"im{k}": tmp_path / f"i{k}.tif" for k in range(4)}
    for k, path in enumerate(images.values()):
        tifffile.imwrite(path, (objects(k) > 0).astype(np.uint16) * 100)
    page = page_of(evaluated(methods, images=images, missing_counts=True), tmp_path)
    assert "Is the difference between methods real?" in page
    assert "too few images to tell" in page
    assert "Too few images to tell which method is best" in page
    assert page.count("<figure>") == 2 * 3 * 4
    assert "--images FOLDER" not in page
    assert "count as if nothing had been predicted" in page


def test_an_image_that_does_not_fit_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    method = method_of(tmp_path, "cp", 1)
    tifffile.imwrite(tmp_path / "i.tif", np.zeros((5, 5), np.uint8))
    images = {"im0": tmp_path / "i.tif", "im3": tmp_path / "none.tif"}
    page = page_of(evaluated([method], images=images, shown=4), tmp_path)
    assert page.count("<figure>") == 4 * 3
    assert "(5, 5) pixels, but its masks have (30, 40)" in caplog.text
    assert "none.tif: no such file" in caplog.text


def test_volumes_show_planes(tmp_path: Path) -> None:
    page = page_of(evaluated([method_of(tmp_path, "cp", 1, (5, 30, 40))], shown=1), tmp_path)
    assert "section z = 2 of 5" in page
    assert "cut at y = " in page
    assert page.count("<figure>") == 6


def test_classes_have_a_legend_and_a_ground(tmp_path: Path) -> None:
    scoring = MaskScoring("semantic", {"sky": 0, "cell": 1, "edge": 2})
    found = evaluated([method_of(tmp_path, "cp", 1)], scoring=scoring)
    page = page_of(found, tmp_path)
    assert all(f"{name}</span>" in page for name in ("sky", "cell", "edge"))
    assert "one class instead of another" in page
    # Without the image, what is right shows in grey.
    pair = found.methods[0].pairs[0]
    with opened_files(pair, scoring, MaskFiles()) as maps:
        (shown,) = _pictures(maps, None, "semantic", collect.Pick("best", "im0", 0, 1.0), 60)
    assert [panel.title for panel in shown.panels] == ["Truth", "Prediction", "Error"]


def test_a_large_image_has_a_detail(tmp_path: Path) -> None:
    method = method_of(tmp_path, "cp", 1, (1700, 1800))
    page = page_of(evaluated([method], shown=1), tmp_path)
    assert "whole image, reduced" in page
    assert "detail with the most errors" in page


def test_groups_and_doubts(tmp_path: Path) -> None:
    assert grouping(None, ["a"]) == {}
    assert grouping(r"(m\d)", ["m1_a", "m2_a"]) == {"m1_a": "m1", "m2_a": "m2"}
    with pytest.raises(UserError, match="one group in brackets"):
        grouping("m", ["m"])
    # Two objects with ids 1 and 2 are two pieces: no doubt.
    assert doubts(method_of(tmp_path, "cp", 1), MaskScoring(), MaskFiles()) == []
