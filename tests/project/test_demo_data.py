"""The data of the long demo, and its config."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

from benchmarks import demo_data
from unet.config.load import load_file
from unet.io.mask_files import open_mask
from unet.planning.jobs import Run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    assert demo_data.main([str(folder), "--size", "96", "--per-slide", "1"]) == 0
    return folder


def test_the_config_fits_the_data(data: Path) -> None:
    config = load_file(ROOT / "config" / "demo-full.yaml")
    Run(config.model_copy(update={"data_root": str(data)})).sources.check()
    # As in the Makefile.
    assert (config.output, config.data_root) == ("results-full", "results-full-data")
    assert "unet-border-25pct" in config.models_for("nuclei")


def test_every_image_has_a_label_and_masks_of_both_methods(data: Path) -> None:
    for dataset, count in (("nuclei", 8), ("membranes", 12), ("new-nuclei", 8), ("phase", 6)):
        names = {path.name for path in (data / dataset / "images").iterdir()}
        assert len(names) == count
        assert {path.name for path in (data / dataset / "labels").iterdir()} == names
    stems = sorted(path.stem for path in (data / "nuclei" / "images").iterdir())
    watershed = sorted(path.name for path in (data / "nuclei" / "otsu-watershed").iterdir())
    assert watershed == [f"{stem}_cp_masks.tif" for stem in stems]
    pieces = sorted(path.stem for path in (data / "nuclei" / "otsu-pieces").iterdir())
    assert pieces == stems[:-1]


def test_the_outlines_are_the_pieces_of_the_threshold(data: Path) -> None:
    image = tifffile.imread(data / "nuclei" / "images" / "slide2_1.tif")
    found = demo_data.otsu_pieces(image)
    drawn = open_mask(data / "nuclei" / "otsu-pieces" / "slide2_1.geojson", image.shape).array
    assert len(np.unique(found)) > 2
    np.testing.assert_array_equal(np.asarray(drawn), found)


def test_touching_discs_are_one_piece_and_two_objects() -> None:
    y, x = np.mgrid[:60, :60]
    discs = [(y - 30) ** 2 + (x - middle) ** 2 < 100 for middle in (21, 39)]
    image = (500 * (discs[0] | discs[1])).astype(np.uint16)
    assert demo_data.otsu_pieces(image).max() == 1
    found = demo_data.otsu_watershed(image)
    assert found.max() == 2
    assert len({int(found[30, 21]), int(found[30, 39])}) == 2
    assert (found > 0).sum() == pytest.approx((image > 0).sum(), rel=0.1)


def test_the_mistakes_are_in_the_labels(data: Path) -> None:
    with (data / "nuclei" / "mistakes.csv").open(newline="") as handle:
        mistakes = list(csv.DictReader(handle))
    generated, true = demo_data._nuclei(96, 1)
    changed = {
        name for name, label in true.items()
        if not np.array_equal(label, tifffile.imread(data / "nuclei" / "labels" / f"{name}.tif"))
    }  # fmt: skip
    assert changed == {row["image"] for row in mistakes}
    one, other = (row["image"] for row in mistakes if row["kind"] == "exchanged")
    np.testing.assert_array_equal(
        tifffile.imread(data / "nuclei" / "labels" / f"{one}.tif"), true[other]
    )
    assert {row["kind"] for row in mistakes} >= {"dropped", "added", "exchanged"}
    assert sorted(generated)[0] == "slide1_1"


def test_data_that_are_there_stay(data: Path) -> None:
    path = data / "nuclei" / "labels" / "slide1_1.tif"
    before = path.read_bytes()
    path.write_bytes(b"corrected")
    assert demo_data.main([str(data)]) == 0
    assert path.read_bytes() == b"corrected"
    path.write_bytes(before)
