"""`unet predict` on plates: files named by a pattern, OME-Zarr, and labels written back."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.cli.test_predict_command import predict, quiet
from tests.data.test_apply_prepare import blobs, model
from tests.data.test_places import image, plate
from unet.io.images import open_label
from unet.models.model_file import save_model

__all__ = ["quiet"]


@pytest.fixture
def place(tmp_path: Path, quiet: None) -> Path:
    save_model(tmp_path / "m" / "model.pt", model(seed=0))
    return tmp_path


def test_files_named_by_a_pattern(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "p").mkdir()
    for number, well in enumerate(("A01", "B03", "C02")):
        for channel in (1, 2):
            pixels = blobs((60, 70), number) if channel == 2 else np.arange(4200, dtype=np.uint16)
            tifffile.imwrite(place / f"p/{well}_c{channel}.tif", pixels.reshape(60, 70))
    (place / "p/C02_c2.tif").unlink()
    words = (place / "m", place / "p/{row}{col}_c{channel}.tif", "-o", place / "out")
    assert predict(*words, "--channels", "1", "--pixel-size", "0.5") == 0
    with (place / "out/objects.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {(r["image"], r["well"], r["row"], r["column"]) for r in rows} <= {
        ("A1", "A1", "A", "1"), ("B3", "B3", "B", "3"),
    }  # fmt: skip
    with (place / "out/wells.csv").open(newline="") as handle:
        wells = list(csv.DictReader(handle))
    assert [w["well"] for w in wells] == ["A1", "B3"]
    assert sum(int(w["objects"]) for w in wells) == len(rows)
    page = (place / "out/index.html").read_text(encoding="utf-8")
    assert '<section id="plate">' in page
    assert "Heat map of a plate with 8 rows and 12 columns: objects." in page
    assert "no file C02_c2.tif; an image needs the files of all its channels" in page
    assert predict(*words, "--write-back", "labels/x", "--channels", "1") == 2
    assert "--write-back: A01_c{1,2}.tif is no OME-Zarr image" in capsys.readouterr().err


def test_results_go_into_a_plate(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = plate(place / "p.zarr", "0.5")
    for well in ("A/1", "B/2"):
        for number in "01":
            (path / well / number / "0").rename(place / f"old-{well[0]}{number}")
            image(path / well / number, blobs((60, 70), int(number)), "0.5")
    words = (place / "m", path, "-o", place / "out", "--write-back")
    assert predict(*words, "labels/nuclei") == 2
    assert "labels/nuclei exists, and this pipeline did not write it" in capsys.readouterr().err
    assert not (place / "out/objects.csv").exists()
    assert predict(*words, "labels/cells") == 0
    for well in ("A/1", "B/2"):
        found = open_label(path / well / "1/labels/cells")
        mask = tifffile.imread(place / f"out/masks/{well.replace('/', '')}-f1.tif")
        np.testing.assert_array_equal(np.asarray(found.array), mask)
    # The plate counts as unchanged.
    assert predict(*words, "labels/cells") == 0
    assert "all results exist; nothing to do" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict(*words, "cells")
