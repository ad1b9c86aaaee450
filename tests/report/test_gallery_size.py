"""The size of the gallery: pictures that compress badly, and more images than fit."""

from __future__ import annotations

import csv
import functools
import re
from pathlib import Path

import numpy as np
import pytest

from tests.report.test_report import make_report, make_results
from unet.evaluation.metrics.rows import METRIC_COLUMNS
from unet.paths import Paths
from unet.report.gallery import gallery_cards, picture_budget
from unet.report.gallery.gallery_reader import SeenPlane
from unet.report.gallery.label_layers import PlaneDrawing


def test_noise_of_100_images_and_5_models_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise compresses worst, in the images and in the labels."""
    rng = np.random.default_rng(0)
    models = tuple(f"model-{k}" for k in range(5))
    labels = rng.integers(0, 200, (6, 400, 400)).astype(np.uint32)
    plane = SeenPlane(
        "", rng.random((3, 400, 400), np.float32), labels[0], np.zeros((400, 400), bool),
        dict(zip(models, labels[1:], strict=True)),
    )  # fmt: skip
    monkeypatch.setattr(gallery_cards, "read_planes", lambda *_: [plane])
    drawing = PlaneDrawing(plane, "instances")
    monkeypatch.setattr(drawing, "draw", functools.cache(drawing.draw))
    monkeypatch.setattr(gallery_cards, "PlaneDrawing", lambda *_: drawing)
    paths = Paths(tmp_path)
    make_results(paths, "d", models, "instances", images=1)
    for model in models:
        with paths.metrics("d", model).open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(METRIC_COLUMNS)
            for k in range(100):
                for name in ("ap_0.50", "f1_0.50", "pq", "seg"):
                    writer.writerow(["d", model, 0, f"im{k}", "", "instances", name, k / 100, 10])
    page = make_report(paths, "d", models, "instances")
    assert page.count("<article") == 100
    assert "are left out: " not in page
    pictures = sum(len(uri) for uri in re.findall(r"url\((data:[^)]*)\)", page))
    assert picture_budget.BUDGET / 2 < pictures <= picture_budget.BUDGET
    assert len(page) < 15e6
    assert "Some pictures are reduced" in page


def test_what_does_not_fit_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_budget, "MOST_IMAGES", 12)
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "semantic", images=20)
    page = make_report(paths, "d", ["m"], "semantic")
    assert page.count("<article") == 12
    assert "12 of 20 test images, the worst first" in page
    assert "8 are left out" in page
    # make_results: im0 is the best, im19 the worst.
    found = re.findall(r'<article class="card[^"]*" id="image-(\w+)"', page)
    assert found[:6] == [f"im{k}" for k in range(19, 13, -1)]
    assert found[-3:] == ["im2", "im1", "im0"]


def test_overlays_chooses_what_is_large(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    make_results(paths, "d", ["m"], "semantic", images=7)
    page = make_report(paths, "d", ["m"], "semantic")
    assert re.findall(r'class="card large" id="image-(\w+)"', page) == ["im6", "im3", "im0"]
    assert re.findall(r'<a href="#image-(\w+)">(?:worst|median|best)<', page) == [
        "im6", "im3", "im0",
    ]  # fmt: skip
