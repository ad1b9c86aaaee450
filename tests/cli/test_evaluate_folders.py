"""``unet evaluate``: two folders of masks of any tool in, tables and a page out."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.cli.test_predict_command import model, save_model
from tests.evaluated import Stores
from unet.cli.main import main
from unet.evaluation.arrays import evaluate
from unet.evaluation.statistics import mean_interval
from unet.report.score_tables import read_metrics, read_report


def blobs(seed: int, shape: tuple[int, ...] = (40, 50)) -> Any:
    """Objects of 6 x 6 pixels at random places: uint16."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    for k in range(1, 13):
        y, x = (int(rng.integers(0, n - 6)) for n in shape[-2:])
        labels[..., y : y + 6, x : x + 6] = k
    return labels


def shifted(labels: Any, by: int) -> Any:
    return np.roll(labels, by, axis=-1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven images, the true masks and those of two methods, with names as tools give them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "truth", "cellpose", "stardist"):
        (tmp_path / folder).mkdir()
    for k in range(7):
        truth = blobs(k)
        name = f"mouse{k // 2}_{k}"
        tifffile.imwrite(f"images/{name}.tif", (truth > 0).astype(np.uint16) * 500 + k)
        tifffile.imwrite(f"truth/{name}_mask.tif", truth)
        Image.fromarray(shifted(truth, 1 + k % 2)).save(f"cellpose/{name}_cp_masks.png")
        tifffile.imwrite(f"stardist/{name}.tif", shifted(truth, 3))
    return tmp_path


def run(*words: str) -> int:
    return main(["evaluate", *words])


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_two_folders(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cellpose", "truth", "-o", "out", "--images", "images", "--threads", "2") == 0
    said = capsys.readouterr()
    assert "cellpose" in said.out
    assert "7: few" in said.out
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "evaluate.json", "index.html", "metrics.csv", "report.csv",
    ]  # fmt: skip
    found = read_metrics(Path("out/metrics.csv"))
    expected = []
    for k in range(7):
        truth = blobs(k)
        frame = evaluate(shifted(truth, 1 + k % 2), truth, image=f"mouse{k // 2}_{k}")
        expected += list(frame.itertuples(index=False, name=None))
    assert [(r.image, r.class_, r.metric) for r in found] == [row[:3] for row in expected]
    values = [row[3] for row in expected]
    assert [r.value for r in found] == pytest.approx(values, rel=1e-7, nan_ok=True)
    (ap,) = (r for r in read_report(Path("out/report.csv")) if r.metric == "ap_0.50")
    ours = [r.value for r in found if r.metric == "ap_0.50"]
    expected_ap = mean_interval(ours, bounds=(0, 1))
    assert (ap.mean, ap.low, ap.n) == (
        pytest.approx(expected_ap.mean, rel=1e-5), pytest.approx(expected_ap.low, rel=1e-5), 7,
    )  # fmt: skip


def test_without_output_nothing_is_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(place.rglob("*"))
    assert run("cellpose", "truth") == 0
    assert sorted(place.rglob("*")) == before
    assert "AP@0.5" in capsys.readouterr().out


def test_two_methods_are_compared_image_by_image(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cellpose", "truth", "--also", "sd=stardist", "-o", "out") == 0
    assert "cellpose is best by AP@0.5" in capsys.readouterr().out
    found = {r.model: r for r in read_report(Path("out/report.csv")) if r.metric == "ap_0.50"}
    assert found["cellpose"].best == found["sd"].best == "cellpose"
    assert found["sd"].clear == "yes"
    assert found["sd"].p == pytest.approx(2 / 2**7)
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert "Is the difference between methods real?" in page
    # Groups: two mice and a half are too few to tell.
    assert run("cellpose", "truth", "--also", "stardist", "-o", "g", "--group", r"(mouse\d)") == 0
    grouped = {r.model: r for r in read_report(Path("g/report.csv")) if r.metric == "ap_0.50"}
    assert (grouped["stardist"].clear, grouped["stardist"].units) == ("few", 4)
    assert "Too few groups of images to tell which method" in capsys.readouterr().out


def test_missing_partners_are_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cellpose/mouse1_3_cp_masks.png").unlink()
    Path("truth/mouse0_0_mask.tif").unlink()
    assert run("cellpose", "truth", "--json") == 0
    said = capsys.readouterr()
    assert "no predicted mask for 1 image (mouse1_3): not scored" in said.err
    assert "no true mask for 1 predicted mask (mouse0_0_cp_masks.png)" in said.err
    table = json.loads(said.out)
    (method,) = table["methods"]
    assert (method["scored"], method["missing"], method["extra"]) == (
        5, ["mouse1_3"], ["cellpose/mouse0_0_cp_masks.png"],
    )  # fmt: skip
    ap = {r["metric"]: r for r in table["scores"]}["ap_0.50"]
    assert run("cellpose", "truth", "--json", "--missing", "zero", "-o", "out") == 0
    said = capsys.readouterr()
    assert "(mouse1_3): counted as if nothing had been predicted" in said.err
    zero = {r["metric"]: r for r in json.loads(said.out)["scores"]}["ap_0.50"]
    assert (ap["n"], zero["n"]) == (5, 6)
    assert zero["mean"] == pytest.approx(ap["mean"] * 5 / 6)
    assert json.loads(Path("out/evaluate.json").read_text("utf-8")) == json.loads(said.out)


def test_a_bad_pair_is_left_out_and_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite("stardist/mouse0_0.tif", blobs(0, (40, 51)))
    Path("stardist/mouse0_1.tif").write_bytes(b"no picture")
    assert run("stardist", "truth", "-o", "out") == 0
    said = capsys.readouterr().err
    line = next(line for line in said.splitlines() if "mouse0_0" in line)
    assert "mouse0_0.tif is 40 x 51 (YX), but " in line
    assert "mouse0_0_mask.tif is 40 x 50 (YX)" in line
    assert "stardist: left out: mouse0_1: " in said
    assert {r["image"] for r in rows("out/metrics.csv")} == {
        f"mouse{k // 2}_{k}" for k in range(2, 7)
    }
    assert "no picture" not in said
    assert "left out (2)" in Path("out/index.html").read_text(encoding="utf-8")


def test_classes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, by in (("t", 0), ("p", 1)):
        Path(folder).mkdir()
        for k in range(2):
            labels = shifted(blobs(k), by)
            values = np.array([0, 128, 255], np.uint8)[np.where(labels > 0, 1 + labels % 2, 0)]
            tifffile.imwrite(f"{folder}/{k}.tif", values)
    # As ids of objects this makes no sense, which is said.
    assert run("p", "t") == 0
    assert "the true masks and the masks of p hold only the values 128, 255 besides 0" in (
        said := capsys.readouterr().err
    )
    assert "--binary both" in said
    assert "--classes background=0,class1=128,class2=255" in said
    assert run("p", "t", "--classes", "background=0,a=128,b=255", "-o", "out") == 0
    assert "besides 0" not in capsys.readouterr().err
    found = {r["class"] for r in rows("out/report.csv")}
    assert found == {"all", "background", "a", "b", "foreground-mean"}
    assert run("p", "t", "--classes", "background=0,a=128") == 2
    assert "label value 255 is not declared" in capsys.readouterr().err


def test_photographs_are_no_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for k in range(2):
        photo = np.random.default_rng(k).integers(1, 4000, (60, 60), dtype=np.uint16)
        for folder, pixels in (("photos", photo), ("truth", blobs(k, (60, 60)))):
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(f"{folder}/{k}.tif", pixels)
    assert run("photos", "truth") == 0
    assert "the masks of photos look like images" in capsys.readouterr().err
    assert run("truth", "photos") == 0
    said = capsys.readouterr().err
    assert "the true masks look like images" in said
    assert "the masks of truth" not in said


def test_binary_masks(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from skimage.measure import label

    for folder in ("ids", "mask"):
        Path(folder).mkdir()
    for k in range(2):
        ids = label(blobs(k) > 0, connectivity=2)
        tifffile.imwrite(f"ids/{k}.tif", ids.astype(np.uint16))
        tifffile.imwrite(f"mask/{k}.tif", ((ids > 0) * 255).astype(np.uint8))
    assert run("mask", "ids") == 0
    assert "write --binary predicted" in capsys.readouterr().err
    assert run("mask", "ids", "--binary", "predicted", "--json") == 0
    said = capsys.readouterr()
    assert "--binary" not in said.err
    found = {(r["class"], r["metric"]): r["mean"] for r in json.loads(said.out)["scores"]}
    assert found["instances", "ap_0.95"] == 1


def test_volumes_and_a_store_of_unet_predict(place: Path) -> None:
    """Labels of OME-Zarr images by their own names."""
    truth = np.stack([blobs(k) for k in (1, 1, 2)])
    Path("t").mkdir()
    tifffile.imwrite("t/v.tif", truth, photometric="minisblack")
    stores, size = Stores(place), [2.0, 0.5, 0.5]
    moved = shifted(truth, 1)
    stores.prediction("v", moved > 0, moved, size=size)
    zarr.open_group(stores.segmentation(0), mode="a").attrs["bioformats2raw.layout"] = 3
    (stores.segmentation(0) / "OME").mkdir()
    (stores.segmentation(0) / "OME" / "zarr.json").write_text(
        json.dumps({"zarr_format": 3, "node_type": "group",
                    "attributes": {"ome": {"version": "0.5", "series": ["v"]}}}), "utf-8",
    )  # fmt: skip
    words = ("--axes", "ZYX", "-o", "out", "--pixel-size", "2,0.5,0.5")
    assert run(str(stores.segmentation(0)), "t", *words) == 0
    frame = evaluate(moved, truth, pixel_size_um=size, image="v")
    found = read_metrics(Path("out/metrics.csv"))
    assert {r.model for r in found} == {"net"}
    assert [(r.class_, r.metric) for r in found] == list(
        zip(frame["class"], frame["metric"], strict=True)
    )
    assert [r.value for r in found] == pytest.approx(list(frame["value"]), rel=1e-7, nan_ok=True)
    assert "section z = " in Path("out/index.html").read_text(encoding="utf-8")


def test_options_reach_the_scores(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--metrics", "boundary", "--pixel-size", "0.5", "--boundary-tolerance", "1 um")
    assert run("cellpose", "truth", *words, "--ignore", "3", "--name", "cp", "-o", "out") == 0
    found = read_metrics(Path("out/metrics.csv"))
    assert {r.model for r in found} == {"cp"}
    assert {r.dataset for r in found} == {"truth"}
    frame = evaluate(
        shifted(blobs(0), 1), blobs(0), metrics=["boundary"], pixel_size_um=0.5, ignore=3,
        boundary_tolerance="1 um",
    )  # fmt: skip
    ours = [r for r in found if r.image == "mouse0_0"]
    assert [r.metric for r in ours] == list(frame["metric"])
    assert [r.value for r in ours] == pytest.approx(list(frame["value"]), rel=1e-7, nan_ok=True)
    assert "hd95_um" in set(frame["metric"])


def test_files_that_are_not_ours_stay(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/metrics.csv").write_text("mine", "utf-8")
    assert run("cellpose", "truth", "-o", "out") == 2
    assert "already exists and was not made by this command" in capsys.readouterr().err
    assert Path("out/metrics.csv").read_text("utf-8") == "mine"
    Path("out/metrics.csv").unlink()
    assert run("cellpose", "truth", "-o", "out") == run("cellpose", "truth", "-o", "out") == 0


def test_an_error_while_writing_leaves_nothing_and_locks_nobody_out(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from unet.report import evaluated_page

    def broken(template: str, **values: Any) -> str:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluated_page, "render", broken)
        assert run("cellpose", "truth", "-o", "deep/out") != 0
        assert not Path("deep/out").exists()
        Path("mine").mkdir()
        Path("mine/notes.txt").write_text("mine", "utf-8")
        assert run("cellpose", "truth", "-o", "mine") != 0
        assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]
    for folder in ("deep/out", "mine"):
        capsys.readouterr()
        assert run("cellpose", "truth", "-o", folder) == 0
        assert f"wrote {folder}/index.html" in capsys.readouterr().err
        assert Path(folder, "index.html").is_file()
    assert Path("mine/notes.txt").read_text("utf-8") == "mine"
    # A second call that fails leaves the results of the first.
    before = {path: path.read_bytes() for path in Path("mine").iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluated_page, "render", broken)
        assert run("stardist", "truth", "-o", "mine") != 0
    assert {path: path.read_bytes() for path in Path("mine").iterdir()} == before


def test_masks_scored_against_themselves_are_said(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("truth", "truth", "--json") == 0
    said = capsys.readouterr()
    assert "truth: the same file is the predicted and the true mask in 7 of 7 pairs" in said.err
    assert any("the same file" in line for line in json.loads(said.out)["warnings"])
    shutil.copytree("truth", "copied")
    assert run("copied", "truth") == 0
    assert "7 predicted masks, all with exactly the content of the true ones" in (
        capsys.readouterr().err
    )
    tifffile.imwrite("copied/mouse0_1_mask.tif", shifted(blobs(1), 1))
    assert run("copied", "truth") == 0
    assert "content of the true" not in capsys.readouterr().err
    # One link among others is said, too.
    Path("copied/mouse0_0_mask.tif").unlink()
    Path("copied/mouse0_0_mask.tif").symlink_to(Path("truth/mouse0_0_mask.tif").absolute())
    assert run("copied", "truth") == 0
    assert "the predicted and the true mask in 1 of 7 pairs" in capsys.readouterr().err


def test_a_missing_mask_in_folders_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    true, predicted = ("m1/s1", "m1/s2", "m2/s3"), ("m1/s2", "m2/s3", "m2/s1")
    for top, names in (("tt", true), ("pp", predicted)):
        for k, name in enumerate(names):
            Path(top, name).parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(f"{top}/{name}.tif", blobs(k))
    assert run("pp/**/*.tif", "tt/**/*.tif", "--json") == 0
    (method,) = (table := json.loads(capsys.readouterr().out))["methods"]
    assert (method["scored"], method["missing"], method["extra"]) == (
        2, ["m1/s1"], ["pp/m2/s1.tif"],
    )  # fmt: skip
    assert "no predicted mask for 1 image (m1/s1)" in table["warnings"][0]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere", "truth"], "PREDICTED: no folder or file"),
        (["cellpose", "nowhere"], "TRUTH: no folder or file"),
        (["cellpose", "other"], "none of the 7 predicted masks is named like one of the 1 true"),
        (["cellpose", "truth", "--also", "cellpose"], "the name 'cellpose' is taken"),
        (["cellpose", "truth", "--also", "x="], "write a name and a folder"),
        (["cellpose", "truth", "--metrics", "calibration"], "needs probabilities"),
        (["cellpose", "truth", "--classes", "a=0,b=1", "--binary", "both"], "with task semantic"),
        (["cellpose", "truth", "--group", "mouse"], "must have one group in brackets"),
        (["cellpose", "truth", "--group", "(rat)"], "is not found in the name mouse0_0"),
        (["cellpose", "truth", "--group", "("], "is not a regular expression"),
        (["cellpose", "truth", "--images", "other"], "none of 1 images is named like a mask"),
        (["cellpose", "truth", "--boundary-tolerance", "1 um"], "the pixel size is unknown"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, words: Sequence[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other").mkdir()
    tifffile.imwrite("other/z.tif", blobs(1))
    assert run(*words, "-o", "out") == 2
    said = [t for t in capsys.readouterr().err.splitlines() if t.startswith("error: ")]
    assert len(said) == 1
    assert line in said[0]
    assert not Path("out").exists()


@pytest.mark.parametrize("text", ["background", "a=0", "a=0,a=1", "a=0,b=0", "a=x,b=1"])
def test_classes_are_checked(place: Path, text: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run("cellpose", "truth", "--classes", text)
    assert caught.value.code == 2


def test_progress_is_shown(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unet.data import blocks

    monkeypatch.setattr(blocks, "LOG_SECONDS", 0)
    assert run("cellpose", "truth", "--threads", "1") == 0
    assert "cellpose: images scored: 3 of 7" in capsys.readouterr().err


def test_results_of_unet_predict_need_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever ids it made of the names of the images."""
    monkeypatch.chdir(tmp_path)
    save_model(Path("model.pt"), model())
    for folder in ("images", "truth"):
        Path(folder).mkdir()
    for k, name in enumerate(("a", "well 2", "\u00e4_3")):
        tifffile.imwrite(f"images/{name}.tif", (blobs(k) > 0).astype(np.uint16) * 300 + k)
        tifffile.imwrite(f"truth/{name}_mask.tif", blobs(k))
    assert main(["predict", "model.pt", "images", "-o", "out"]) == 0
    for source in ("out", "out/masks", "out/segmentation.zarr"):
        capsys.readouterr()
        assert run(source, "truth", "--json") == 0
        said = capsys.readouterr()
        (method,) = json.loads(said.out)["methods"]
        assert (method["name"], method["scored"]) == ("out", 3)
        assert not method["missing"]
        assert not method["extra"]
        assert not method["left_out"]
