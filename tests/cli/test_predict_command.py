"""`unet predict`: one folder of images, no config; and the report on images without labels."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from tests.data.test_apply_prepare import blobs, model, write
from tests.zoo import system
from unet import provenance
from unet.api import trained
from unet.cli import main, predict_request
from unet.cli.predict_request import image_files
from unet.config.load import load
from unet.config.sections import ReportSection
from unet.config.stage_settings import Applied, DatasetTask, ReportSettings
from unet.data.appearance import TrainingAppearance, training_appearance
from unet.data.records import read_manifest
from unet.data.resample import Axis, Resampling
from unet.data.store import Prepared
from unet.data.synthetic import generate
from unet.errors import UserError
from unet.files import read_json, write_json
from unet.models.inference import Predictor
from unet.models.model_file import load_model, save_model
from unet.paths import ENSEMBLE, Paths
from unet.planning.jobs import Run
from unet.prediction.apply.chosen_settings import (
    Requested,
    TrainingChoices,
    stitch_settings,
    training_choices,
)
from unet.prediction.stitch import stitch
from unet.prediction.stitch.segmentation import Segmentation
from unet.report.dataset_page import report_dataset
from unet.report.overall_page import report_all


@pytest.fixture
def quiet() -> Any:
    """The command sets up logging for a process of its own."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def predict(*words: object) -> int:
    common = ["--threads", "1", "--device", "cpu", "--float32"]
    return main.main(["predict", *map(str, words), *common])


@pytest.fixture
def place(tmp_path: Path, quiet: Any) -> Path:
    """A results folder of two folds, and three images, one of them finer than the model."""
    for fold in (0, 1):
        save_model(tmp_path / "m" / f"fold-{fold}" / "model.pt", model(seed=fold))
    write(tmp_path / "images" / "a.ome.tif", blobs((70, 81)), 0.5)
    write(tmp_path / "images" / "b.ome.tif", blobs((90, 64), 1), 0.2)
    (tmp_path / "images" / "bad.tif").write_bytes(b"II*\0 no image")
    return tmp_path


def expected_probabilities(place: Path, name: str, grid: Resampling | None) -> np.ndarray:
    """Computed without the pipeline: normalise, resample, run the networks on the whole image."""
    data = tifffile.imread(place / "images" / f"{name}.ome.tif").astype(np.float32)
    image = ((data - data.min()) / (data.max() - data.min()))[None]
    if grid is not None:
        whole = tuple(slice(0, n) for n in grid.shape)
        image = grid.read(lambda r: image[(slice(None), *r)], whole)
    files = [load_model(place / "m" / f"fold-{k}" / "model.pt") for k in (0, 1)]
    each = []
    for file in files:
        predictor = Predictor(
            [file.network()], torch.device("cpu"), "float32", False, tuple(file.head)
        )
        each.append(predictor.whole(image))
    p = np.mean(each, axis=0)
    if grid is not None:
        p = grid.back.read(lambda r: p[(slice(None), *r)], tuple(slice(0, n) for n in data.shape))
    return np.asarray(p)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_a_folder_of_images(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "out"
    assert predict(place / "m", place / "images", "-o", out, "--threshold", "0.4") == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "index.html", "manifest.csv", "masks", "objects.csv", "objects.csv-metadata.json",
        "overview.png", "predict.json", "segmentation.zarr",
    ]  # fmt: skip
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["a.tif", "b.tif"]
    found = Segmentation(out / "segmentation.zarr")
    for name, grid in (("a", None), ("b", Resampling((Axis(90, 36), Axis(64, 26))))):
        p = expected_probabilities(place, name, grid)
        np.testing.assert_allclose(found.probabilities(name)[...], p, atol=1e-5)
        mask = tifffile.imread(out / "masks" / f"{name}.tif")
        assert mask.shape == p.shape[1:]
        ids = found.instances(name)
        assert ids is not None
        assert np.array_equal(mask, ids[...])
        # Only small objects are dropped and small holes filled.
        assert abs((mask > 0).sum() - (p[1] > 0.4).sum()) < 0.1 * mask.size
    assert found.attrs("b")["pixel_size_um"] == pytest.approx([0.2, 0.2])
    assert {row["image"] for row in table(out / "objects.csv")} <= {"a", "b"}
    bad = [r for r in read_manifest(out / "manifest.csv") if r.status != "ok"]
    assert [record.id for record in bad] == ["bad"]
    done = read_json(out / "predict.json")
    assert (done["images"], done["left_out"], done["threshold"]) == (2, 1, 0.4)
    assert len(done["models"]) == 2
    assert "1 left out" in capsys.readouterr().err

    # The same again: nothing to do. With another threshold it is another result.
    before = (out / "masks" / "a.tif").stat().st_mtime_ns
    assert predict(place / "m", place / "images", "-o", out, "--threshold", "0.4") == 0
    assert (out / "masks" / "a.tif").stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().err
    assert predict(place / "m", place / "images", "-o", out, "--threshold", "0.9") == 0
    assert read_json(out / "predict.json")["threshold"] == 0.9


def test_one_network_or_several_by_hand(place: Path) -> None:
    one, two = (place / "m" / f"fold-{k}" for k in (0, 1))
    image = place / "images" / "a.ome.tif"
    assert predict(one / "model.pt", image, "-o", place / "one") == 0
    assert predict(one, image, "--model", two / "model.pt", "-o", place / "both") == 0
    assert predict(place / "m", str(place / "images" / "a*.tif"), "-o", place / "all") == 0
    p = {n: Segmentation(place / n / "segmentation.zarr").probabilities("a")[...]
         for n in ("one", "both", "all")}  # fmt: skip
    assert np.array_equal(p["both"], p["all"])
    assert not np.allclose(p["one"], p["both"], atol=1e-3)
    assert len(read_json(place / "one" / "predict.json")["models"]) == 1


def test_a_stopped_run_continues(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = place / "whole", place / "out"
    assert predict(place / "m", place / "images", "-o", whole) == 0

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stitch, "_stitch_all", stopped)
        assert predict(place / "m", place / "images", "-o", out) == 143
    assert not (out / "predict.json").exists()
    stores = [out / "work" / name for name in ("tiles.zarr", "prepared.zarr")]
    chunks = [list(store.rglob("c.*")) for store in stores]
    assert all(chunks)
    times = {path: path.stat().st_mtime_ns for found in chunks for path in found}
    assert predict(place / "m", place / "images", "-o", out, "--keep") == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for name in ("a.tif", "b.tif"):
        first, second = ((at / "masks" / name).read_bytes() for at in (whole, out))
        assert first == second
    # A new image with --keep: the others are not predicted again.
    write(place / "images" / "c.ome.tif", blobs((50, 50), 5), 0.5)
    assert predict(place / "m", place / "images", "-o", out, "--keep") == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (out / "masks" / "c.tif").exists()
    # The kept folder stays if there is nothing to do, also without --keep.
    assert predict(place / "m", place / "images", "-o", out) == 0
    assert (out / "work").is_dir()


def test_other_channels_than_most_are_left_out_with_an_option_to_choose(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rgb = np.stack([blobs((40, 44), k) for k in range(3)], -1)
    tifffile.imwrite(place / "images" / "rgb.tif", rgb)
    assert predict(place / "m", place / "images", "-o", place / "out") == 0
    reasons = {row["id"]: row["reason"] for row in table(place / "out" / "manifest.csv")}
    assert reasons["rgb"].endswith("(mixed channels); choose the same ones with --channels")
    assert "choose the same ones with --channels" in capsys.readouterr().err


@pytest.mark.parametrize(("side", "tile", "warned"), [(20, (), False), (100, ("--tile", 44), True)])
def test_small_images_do_not_warn_of_halo(
    side: int,
    tile: tuple[object, ...],
    warned: bool,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A window of an unpadded network is mostly halo; only for cut images a remedy exists."""
    save_model(place / "deep.pt", system("unet2015"))
    write(place / "one.ome.tif", blobs((side, side)), 0.5)
    words = (*tile, "-o", place / "out", "--no-page")
    assert predict(place / "deep.pt", place / "one.ome.tif", *words) == 0
    assert ("are mostly halo" in capsys.readouterr().err) == warned


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere", "images"], "nowhere: no such file or folder; give a model.pt"),
        (["m", "none/*.tif"], "IMAGES: "),
        (["m", "images/bad.tif"], "its only image is not usable: bad.tif: "),
        (["m", "rgb.tif"], "rgb.tif: the images have 3 channels, the model wants 1; choose with "
         "--channels 0"),
        (["m", "volume.tif", "--axes", "ZYX"], "the images have 3 spatial axes, the model wants "
         "2; write --stack (each plane is an image), or use"),
        (["m", "images", "--method", "grow"],
         "--method: grow needs a model with head: border, but this one has head: classes; write "),
        (["m", "images", "--model", "other.pt"], "their channels differ (1, 3)"),
        (["m", "images", "--pixel-size", "1,1,1"], "3 numbers for the 2 spatial axes"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(
    place: Path,
    words: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    tifffile.imwrite("rgb.tif", np.stack([blobs((40, 44), k) for k in range(3)], -1))
    tifffile.imwrite("volume.tif", blobs((9, 40, 44)))
    save_model(Path("other.pt"), model(channels=3))
    assert predict(*words, "-o", "out") == 2
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(said) == 1
    assert line in said[0]
    # Before any image is read, nothing is kept to go on from.
    early = {"nowhere", "none/*.tif", "grow", "other.pt"} & set(words)
    assert not (early and Path("out").exists())


def test_foreign_results_are_not_overwritten(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = place / "out" / "masks" / "mine.tif"
    mine.parent.mkdir(parents=True)
    mine.write_text("drawn by hand")
    assert predict(place / "m", place / "images", "-o", place / "out") == 2
    assert "masks: already exists and was not made by this command" in capsys.readouterr().err
    assert mine.read_text() == "drawn by hand"


@pytest.mark.parametrize(
    "name", ["manifest.csv", "objects.csv-metadata.json", "predict.json", "overview.png"]
)
def test_no_foreign_file_is_overwritten(
    place: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Such as the manifest of a run, whose folder was given for the results."""
    (place / "out").mkdir()
    (place / "out" / name).write_text("{}")
    assert predict(place / "m", place / "images", "-o", place / "out") == 2
    assert f"{name}: already exists and was not made by this command" in capsys.readouterr().err
    assert [path.name for path in (place / "out").iterdir()] == [name]
    assert (place / "out" / name).read_text() == "{}"


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    "files",
    [{"thesis.txt": "mine"}, {"images.csv": "id,image,label\n"},
     {"images.csv": "id,image\n", "thesis.txt": "mine"}],
)  # fmt: skip
def test_a_folder_named_work_stays(
    place: Path, capsys: pytest.CaptureFixture[str], finished: bool, files: dict[str, str]
) -> None:
    words = (place / "m", place / "images" / "a.ome.tif", "-o", place / "out")
    if finished:
        assert predict(*words) == 0
    work = place / "out" / "work"
    work.mkdir(parents=True)
    for name, text in files.items():
        (work / name).write_text(text)
    capsys.readouterr()
    assert predict(*words, "--threshold", "0.4") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{work}: already exists and is not a work folder of this command" in line
    assert "choose another folder with -o" in line
    assert {path.name: path.read_text() for path in work.iterdir()} == files


def test_the_work_folder_of_a_killed_run_is_its_own(place: Path) -> None:
    """Killed before the sheet was written, or while its files were removed at the end; and all that
    a run writes there is known."""
    words = (place / "m", place / "images" / "a.ome.tif", "-o", place / "out")
    work = place / "out" / "work"
    work.mkdir(parents=True)
    (work / "lock").touch()
    assert predict(*words, "--keep") == 0
    assert (work / "images.csv").is_file()
    (work / "images.csv").unlink()
    assert predict(*words, "--threshold", "0.4") == 0
    assert not work.exists()


def test_a_stopped_run_leaves_no_page_of_earlier_results(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (place / "m", place / "images" / "a.ome.tif", "-o", place / "out")
    assert predict(*words) == 0

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stitch, "_stitch_all", stopped)
    assert predict(*words, "--threshold", "0.4") == 143
    assert not (place / "out" / "index.html").exists()


@pytest.mark.parametrize("words", [["--threshold", "2"], ["--tile", "x"], ["--axes", "QQ"],
                                   ["--min-size", "-1"], ["--pixel-size", "0"]])  # fmt: skip
def test_options_are_checked(place: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        predict(place / "m", place / "images", "-o", place / "out", *words)
    assert caught.value.code == 2
    assert not (place / "out").exists()


def test_heads_and_classes(place: Path) -> None:
    """Semantic: the label values of training; border: objects grow by border_width + 1."""
    image = place / "images" / "a.ome.tif"
    names, values = ("sky", "cell", "edge"), (7, 1, 300)
    save_model(place / "s.pt", model(task="semantic", head=names, class_names=names,
                                     class_values=values))  # fmt: skip
    assert predict(place / "s.pt", image, "-o", place / "s") == 0
    mask = tifffile.imread(place / "s" / "masks" / "a.tif")
    assert mask.dtype == np.uint16
    assert set(np.unique(mask)) <= set(values)
    assert [row["class"] for row in table(place / "s" / "objects.csv")] == list(names)
    border = model(head=("background", "inside", "border"))
    asked = Requested(min_size=5)
    section = stitch_settings(border, asked, TrainingChoices()).stitch
    assert (section.method, section.grow_px, section.min_size) == ("grow", 4, 5)
    known = TrainingChoices(stitch={"method": "components", "grow_px": 9, "threshold": 0.3})
    section = stitch_settings(border, asked, known).stitch
    assert (section.method, section.grow_px, section.threshold) == ("components", 9, 0.3)
    asked = replace(asked, grow_px=7, method="grow")
    section = stitch_settings(border, asked, known).stitch
    assert (section.method, section.grow_px) == ("grow", 7)
    asked = replace(asked, method=None)
    distance = model(head=("background", "foreground", "distance"))
    assert stitch_settings(distance, asked, TrainingChoices()).stitch.method == "watershed"


def test_a_model_in_results_brings_its_settings(place: Path) -> None:
    """The settings of the run's config, and the threshold that validation chose."""
    raw = {
        "output": str(place / "out"),
        "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances",
                           "split": {"folds": 2}}},
        "models": {"m": {"preset": "unet-bn", "depth": 1, "stitch": {"min_size": 2},
                         "predict": {"tta": True}}},
        "stitch": {"threshold": "auto", "tiff": False}, "train": {"patch": 64},
    }  # fmt: skip
    paths = Paths(place / "out")
    file = paths.model("d", "m", 0)
    assert training_choices(file) == TrainingChoices()
    Run(load(raw)).write_config()
    assert training_choices(file).stitch["threshold"] == 0.5
    for fold, threshold in ((0, 0.3), (1, 0.4)):
        write_json(paths.segmentation_done("d", "m", fold), {"threshold": threshold})
    found = training_choices(file)
    assert (found.stitch["threshold"], found.stitch["min_size"]) == (pytest.approx(0.35), 2)
    assert found.tta
    assert "tiff" not in found.stitch
    for other in (paths.model("other", "m", 0), Path("/model.pt")):
        assert training_choices(other) == TrainingChoices()


def test_folds_that_are_not_trained_are_named(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, image = Paths(place / "results"), place / "images" / "a.ome.tif"
    save_model(paths.model("d", "m", 1), model())
    raw = {
        "output": str(paths.output),
        "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances",
                           "split": {"folds": 3}}},
        "models": {"m": {"preset": "unet-bn", "depth": 1}}, "train": {"patch": 64},
    }  # fmt: skip
    folder = paths.model("d", "m", 1).parent.parent

    def said(given: Path, out: str) -> list[str]:
        assert predict(given, image, "-o", place / out) == 0
        lines = [line for line in read_json(place / out / "predict.json")["warnings"]
                 if "trained;" in line]  # fmt: skip
        err, page = capsys.readouterr().err, (place / out / "index.html").read_text("utf-8")
        for line in lines:
            assert f"warning: {line}" in err
            assert line in page
        return lines

    assert said(folder, "no-config") == []
    Run(load(raw)).write_config()
    (line,) = said(folder, "one")
    assert line.startswith(f"{folder}: 1 of 3 folds is trained; ")
    capsys.readouterr()
    trained.load_model(folder)
    assert f"warning: {line}" in capsys.readouterr().err
    # A fold's own folder, or its file, is a choice.
    assert said(paths.model("d", "m", 1).parent, "fold") == []
    assert said(paths.model("d", "m", 1), "file") == []
    save_model(paths.model("d", "m", 0), model(seed=1))
    assert said(folder, "two")[0].startswith(f"{folder}: 2 of 3 folds are trained; ")
    save_model(paths.model("d", "m", 2), model(seed=2))
    assert said(folder, "all") == []


def test_files_of_one_name_in_different_folders(place: Path) -> None:
    write(place / "images" / "x" / "f.tif", blobs((40, 44)))
    write(place / "images" / "y" / "f.tif", blobs((40, 44), 1))
    found = image_files([str(place / "images" / k) for k in "xy"], place / "out")
    names = [name for name, _ in found]
    assert len(set(names)) == 2
    assert all(name.startswith(("x", "y")) for name in names)
    assert image_files(
        [str(place / "images" / "x"), str(place / "images/x/f.tif")], place / "out"
    ) == [("f", place / "images" / "x" / "f.tif")]


# The page and the warnings


def nuclei(place: Path, count: int, kind: str = "nuclei", start: int = 0) -> Path:
    """A folder of generated images."""
    for k in range(start, start + count):
        image = generate(kind, 3, k, (96, 96))[0]
        write(place / kind / f"{kind}{k:02d}.ome.tif", image, 0.5)
    return place / kind


def test_the_page_shows_later_images_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "out"
    words = (place / "m", place / "images", "-o", out, "--keep")
    assert predict(*words) == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count('class="card"') == 2
    assert "bad.tif" in page
    assert f"look at {out / 'index.html'}" in capsys.readouterr().err
    with Image.open(out / "overview.png") as sheet:
        assert sheet.width <= 2000
    write(place / "images" / "c.ome.tif", blobs((50, 50), 5), 0.5)
    assert predict(*words) == 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count('class="card"') == 3
    # What was kept gives the page again; without it, the message says what to do.
    (out / "index.html").unlink()
    before = read_json(out / "predict.json")
    assert predict(*words) == 0
    assert (out / "index.html").read_text(encoding="utf-8") == page
    assert read_json(out / "predict.json") == before
    (out / "index.html").unlink()
    shutil.rmtree(out / "work")
    capsys.readouterr()
    assert predict(*words) == 0
    said = capsys.readouterr().err
    assert "there is no index.html" in said
    assert "another folder with -o" in said


def test_no_page_if_it_is_not_wanted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, image = place / "out", place / "images" / "a.ome.tif"
    assert predict(place / "m", image, "-o", out) == 0
    assert (out / "index.html").is_file()
    assert "1 image segmented" in capsys.readouterr().err
    # Another result makes the old page wrong.
    assert predict(place / "m", image, "-o", out, "--threshold", "0.7", "--no-page") == 0
    assert not (out / "index.html").exists()
    assert not (out / "overview.png").exists()
    assert "index.html" not in capsys.readouterr().err
    assert "warnings" in read_json(out / "predict.json")


def test_a_page_of_something_else_is_not_overwritten(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "site").mkdir()
    (place / "site" / "index.html").write_text("mine")
    assert predict(place / "m", place / "images", "-o", place / "site") == 2
    assert "index.html: already exists and was not made by this" in capsys.readouterr().err
    assert (place / "site" / "index.html").read_text() == "mine"


def trained_on(place: Path, folder: Path) -> Path:
    """A model whose file knows these training images."""
    out = place / "look"
    assert predict(place / "m", folder, "-o", out, "--keep", "--no-page") == 0
    store = Prepared(out / "work" / "prepared.zarr")
    known = training_appearance(store, store.ids())
    path = place / "known" / "model.pt"
    save_model(path, replace(model(), appearance=known.to_json()))
    return path


def test_images_unlike_those_of_the_training_are_named(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = trained_on(place, nuclei(place, 12))
    capsys.readouterr()
    same, other = place / "same", place / "other"
    fresh = nuclei(place / "fresh", 20, start=20)
    assert predict(known, fresh, "-o", same) == 0
    assert len(read_json(same / "predict.json")["unlike"]) <= 1
    capsys.readouterr()
    assert predict(known, nuclei(place, 6, "membranes"), "-o", other) == 0
    done = read_json(other / "predict.json")
    assert len(done["unlike"]) == 6
    assert done["warnings"][0].startswith("6 of 6 images are unlike the training images; ")
    assert f"warning: {done['warnings'][0]}" in capsys.readouterr().err
    page = (other / "index.html").read_text(encoding="utf-8")
    assert "6 of 6 images are unlike the training images" in page
    # Also if they are already segmented and only the page is read: the JSON has each reason.
    assert all(reasons and reasons[0] for reasons in done["unlike"].values())


def test_results_that_look_wrong_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This model was never trained: one object covers everything, or there is none."""
    out, image = place / "out", place / "images" / "a.ome.tif"
    assert predict(place / "m", image, "-o", out, "--threshold", "0.01") == 0
    assert "one object covers nearly all of it" in capsys.readouterr().err
    assert list(read_json(out / "predict.json")["odd"]) == ["a"]
    assert predict(place / "m", image, "-o", out, "--threshold", "0.999") == 0
    (line,) = [line for line in read_json(out / "predict.json")["warnings"] if "no object" in line]
    assert line.startswith("no object in 1 of 1 image; ")
    assert f"warning: {line}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sizes", "word"), [((5.0, 8.0, 40.0), "smaller"), ((0.1, 0.2, 0.3), "larger")]
)
def test_objects_of_another_size_than_those_of_the_training_are_named(
    place: Path, capsys: pytest.CaptureFixture[str], sizes: tuple[float, ...], word: str
) -> None:
    """This model was never trained, and finds single pixels in noise."""
    out, image, known = place / "out", place / "noise.ome.tif", place / "known.pt"
    write(image, np.random.default_rng(0).random((70, 81), dtype=np.float32), 0.5)
    save_model(known, replace(model(seed=4), appearance=TrainingAppearance((), sizes).to_json()))
    assert predict(known, image, "-o", out, "--threshold", "0.9", "--min-size", "0") == 0
    done = read_json(out / "predict.json")
    said = f"its objects are far {word} than those of the training (median 1 pixels, in training "
    assert done["odd"] == {"noise": f"{said}{sizes[1]:.2g})"}
    (line,) = done["warnings"]
    assert line.startswith(f"noise: {said}")
    assert f"warning: {line}" in capsys.readouterr().err
    assert line in (out / "index.html").read_text(encoding="utf-8")


def test_refused_images_leave_a_manifest_that_says_why(place: Path) -> None:
    out = place / "out"
    assert predict(place / "m", place / "images" / "bad.tif", "-o", out) == 2
    (record,) = read_manifest(out / "manifest.csv")
    assert (record.status, record.reason) == ("quarantined", "no image in the file")
    assert not (out / "index.html").exists()
    assert not (out / "predict.json").exists()


# The report


def test_report_without_labels(place: Path) -> None:
    """It shows images, objects, and overlays without ground truth."""
    out = place / "made"
    assert predict(place / "m", place / "images", "-o", out, "--keep") == 0
    paths, name = Paths(place / "results"), "m@src"
    where = ("new", name, ENSEMBLE)
    paths.fold(*where).mkdir(parents=True)
    (out / "manifest.csv").rename(paths.manifest("new"))
    for source, goal in (
        ("segmentation.zarr", paths.segmentation(*where)),
        ("objects.csv", paths.objects(*where)),
        ("work/segmentation.json", paths.segmentation_done(*where)),
        ("work/prepared.zarr", paths.prepared("new", name)),
        ("work/prepared.json", paths.prepared_done("new", name)),
    ):
        (out / source).rename(goal)
    settings = ReportSettings.made(
        report=ReportSection(bootstrap=100), task="instances", models=(name,), folds=(),
        class_names=("background", "foreground"), seed=0, tested=("ensemble",),
        applied=Applied(labelled=False, networks={name: (0, 1)}),
    )  # fmt: skip
    rows = report_dataset(paths, "new", settings)
    assert rows == []
    page = paths.dataset_report_html("new").read_text(encoding="utf-8")
    assert "What was predicted" in page
    # Two images of three panels each, and nothing of scores, training or split.
    assert page.count("<figure>") == 6
    for absent in ("Scores on the test images", 'id="training"', "<th>Train</th>", ">nan<"):
        assert absent not in page
    for shown in ("m@src", "<td>2</td><td>1</td>", "bad.tif", "Outlines, m@src of a"):
        assert shown in page
    report_all(paths, {"new": DatasetTask(task="instances", models=(name,), labelled=False)})
    overall = paths.report_html.read_text(encoding="utf-8")
    assert "Images without labels" in overall
    assert ">new</th>" in overall


def test_its_own_results_are_not_taken_as_images(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    p = place / "p"
    for name in ("a.tif", "masks/mine.tif", "seg/masks/a.tif", "other/masks/a.tif",
                 "killed/masks/a.tif", "killed/work/x.tif"):  # fmt: skip
        (p / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(p / name, blobs((16, 16)))
    write_json(p / "other" / "predict.json", {})
    (p / "killed" / "work" / "images.csv").write_text("id,image\n", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        found = [
            path.relative_to(p).as_posix() for _, path in image_files(["p/**/*.tif"], p / "seg")
        ]
    # A user's folder may be called masks.
    assert found == ["a.tif", "masks/mine.tif"]
    assert "skipped 4 files that are results of this command" in caplog.text
    with pytest.raises(UserError, match="IMAGES: all 1 files are results of this command"):
        image_files(["p/seg/masks"], Path("p/seg"))


def test_every_result_says_what_made_it(place: Path) -> None:
    out = place / "out"
    assert predict(place / "m", place / "images" / "a.ome.tif", "-o", out) == 0
    table = provenance.read_made_by(out / "objects.csv")
    assert table is not None
    group = zarr.open_group(str(out / "segmentation.zarr" / "a"), mode="r")
    with tifffile.TiffFile(out / "masks" / "a.tif") as file:
        lines = file.pages[0].description.splitlines()
    (line,) = (line for line in lines if line.startswith("made_by="))
    assert json.loads(line.removeprefix("made_by=")) == group.attrs["unet"]["made_by"] == table
    assert table["settings"]["stitch"]["threshold"] == 0.5
    files = sorted((place / "m").glob("fold-*/model.pt"))
    assert sorted(table["models"].values()) == sorted(map(provenance.content_id, files))
    assert str(place) not in line


def test_twice_over_a_folder_that_holds_the_output(place: Path) -> None:
    pattern, out = f"{place / 'images'}/**/*.tif", place / "images" / "seg"
    words = (place / "m", pattern, "-o", out, "--geojson", "--rois")
    assert predict(*words) == 0
    first = (out / "predict.json").read_bytes()
    names = sorted(path.stem for path in (out / "geojson").iterdir())
    assert names == ["a", "b"] == sorted(path.stem for path in (out / "rois").iterdir())
    assert predict(*words, "--keep") == 0
    assert (out / "predict.json").read_bytes() == first


def test_outline_options_override_the_config(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = TrainingChoices(stitch={"geojson": True, "rois": True})
    section = stitch_settings(model(), Requested(rois=False), known).stitch
    assert (section.geojson, section.rois) == (True, False)


def test_an_empty_well_is_a_result(place: Path) -> None:
    tifffile.imwrite(place / "images" / "empty.tif", np.full((40, 50), 7, np.uint16))
    out = place / "out"
    assert predict(place / "m", place / "images" / "empty.tif", "-o", out) == 0
    record = read_manifest(out / "manifest.csv")[0]
    assert (record.status, record.warnings) == ("ok", ("all pixels have the value 7",))
    assert tifffile.imread(out / "masks" / "empty.tif").shape == (40, 50)


def test_an_absurd_pixel_size_is_set_aside_with_what_to_write(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / "images" / "huge.ome.tif", blobs((64, 64)), 352.8)
    write(place / "images" / "fine.ome.tif", blobs((64, 64)), 0.1)
    out = place / "out"
    assert predict(place / "m", f"{place / 'images'}/*.ome.tif", "-o", out) == 0
    records = {record.id: record for record in read_manifest(out / "manifest.csv")}
    assert {name: r.status for name, r in records.items()} == {
        "a": "ok", "b": "ok", "fine": "ok", "huge": "quarantined",
    }  # fmt: skip
    assert records["huge"].reason == (
        "pixel size 352.8 x 352.8 um, the model's 0.5 x 0.5 um: a factor of 706 (45158 x 45158 px "
        "of 64 x 64); write the correct one as pixel_size_um (unet predict: --pixel-size)"
    )
    assert read_json(out / "predict.json")["left_out"] == 1
    said = capsys.readouterr().err
    assert "warning: fine.ome.tif: pixel size 0.1 x 0.1 um" in said
    assert "a factor of 5; is that correct?" in said
    assert "warning: huge.ome.tif: left out: pixel size 352.8" in said
    assert "2 of 3 images are resampled to the model's 0.5 x 0.5 um, by factors of up to 5" in said
    # None left: one line, nothing half-written.
    alone = place / "alone"
    assert predict(place / "m", place / "images" / "huge.ome.tif", "-o", alone) == 2
    assert "no usable image; the first: huge.ome.tif: pixel size" in capsys.readouterr().err
    # The user can override the pixel size.
    words = (place / "images" / "huge.ome.tif", "-o", alone, "--pixel-size", "0.5")
    assert predict(place / "m", *words) == 0


def test_results_among_many_images_are_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[int] = []

    class Counted(list[Path]):
        def __iter__(self) -> Iterator[Path]:
            times.append(1)
            return super().__iter__()

    monkeypatch.chdir(tmp_path)
    done = tmp_path / "old"
    (done / "masks").mkdir(parents=True)
    (done / "predict.json").write_text("{}")
    for k in range(30):
        (tmp_path / f"{k:02d}.tif").write_bytes(b"x")
        (done / "masks" / f"m{k}.tif").write_bytes(b"x")
    written = predict_request._written
    monkeypatch.setattr(predict_request, "_written", lambda *args: Counted(written(*args)))
    found = predict_request.image_files(["*.tif", "old/masks"], tmp_path / "out")
    assert [name for name, _ in found] == [f"{k:02d}" for k in range(30)]
    assert len(times) <= 2
