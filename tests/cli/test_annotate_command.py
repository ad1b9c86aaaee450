"""`unet annotate`: the folder that it writes, and its messages."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from roifile import ImagejRoi
from skimage.draw import polygon2mask

from tests.cli.test_predict_command import quiet, table  # noqa: F401
from tests.data.test_apply_prepare import model
from tests.unlabelled import MODEL, Made, squares, write_images, write_results, write_store
from unet.cli import main
from unet.config.data_settings import ManifestSettings
from unet.data.manifest import manifest_stage
from unet.data.raw_files import RawSource
from unet.data.records import read_manifest, write_manifest
from unet.errors import UserError
from unet.files import read_json, remove, write_json
from unet.io.images import open_image, open_label
from unet.models.model_file import save_model
from unet.paths import ENSEMBLE, Paths
from unet.prediction.annotation.unlabelled_images import find_unlabelled

# Each test calls the command, which sets up logging for a process of its own.
pytestmark = pytest.mark.usefixtures("quiet")


def annotate(*words: object) -> int:
    return main.main(["annotate", *map(str, words)])


def place_of(row: dict[str, str]) -> tuple[slice, ...]:
    sizes = {"z": "depth", "y": "height", "x": "width"}
    axes = [axis for axis in "zyx" if axis in row]
    starts = [int(row[axis]) for axis in axes]
    return tuple(slice(a, a + int(row[sizes[axis]])) for axis, a in zip(axes, starts, strict=True))


@pytest.fixture
def results(tmp_path: Path) -> tuple[Paths, dict[str, Made]]:
    """Three images of two channels with 12 objects each, and their pixel size."""
    made = {}
    for k, name in enumerate("abc"):
        one = squares(k, (80, 100), 12, channels=2)
        made[name] = Made(one.pixels, one.labels, one.sure, about={"pixel_size_um": (0.5, 0.25)})
    return write_results(tmp_path, made), made


def test_the_folder_has_the_same_pixels_and_objects(
    results: tuple[Paths, dict[str, Made]], tmp_path: Path
) -> None:
    paths, made = results
    out = tmp_path / "out"
    assert annotate(paths.output, "new", "-n", 8, "--crops", 32, "-o", out) == 0
    rows = table(out / "annotate.csv")
    assert [row["rank"] for row in rows] == [str(k) for k in range(1, 9)]
    assert {path.stem for path in (out / "images").iterdir()} == {row["crop"] for row in rows}
    for row in rows:
        place, one = place_of(row), made[row["image"]]
        image = open_image(out / "images" / f"{row['crop']}.tif")
        assert image.dtype == np.uint16
        assert image.pixel_size_um == (0.5, 0.25)
        np.testing.assert_array_equal(np.asarray(image.array), one.pixels[(slice(None), *place)])
        label = tifffile.imread(out / "labels" / f"{row['crop']}.tif")
        assert label.dtype == np.uint16
        np.testing.assert_array_equal(label, one.labels[place])
        assert int(row["objects"]) == len(np.unique(label[label > 0]))
        assert float(row["foreground"]) == pytest.approx((label > 0).mean(), rel=1e-4)
        assert float(row["doubt"]) > 0
        assert row["method"] == "doubt"
    assert rows[0]["diversity"] == ""
    assert all(float(row["diversity"]) > 0 for row in rows[1:])


def test_the_outlines_are_those_of_the_crop(
    results: tuple[Paths, dict[str, Made]], tmp_path: Path
) -> None:
    paths, made = results
    out = tmp_path / "out"
    assert annotate(paths.output, "new", "-n", 3, "--crops", 40, "-o", out) == 0
    for row in table(out / "annotate.csv"):
        label = made[row["image"]].labels[place_of(row)]
        found = json.loads((out / "geojson" / f"{row['crop']}.geojson").read_text())["features"]
        rois = ImagejRoi.fromfile(out / "rois" / f"{row['crop']}.zip")
        ids = set(np.unique(label[label > 0]).tolist())
        names = {roi.name for roi in ([rois] if isinstance(rois, ImagejRoi) else rois)}
        assert ids == {int(f["properties"]["name"]) for f in found} == set(map(int, names))
        for one in found:
            shape = one["geometry"]
            outer = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
            mask = np.zeros(label.shape, bool)
            for rings in outer:
                # Vertices are corners of pixels, and pixels have their centres at half of one.
                corners = [np.array(ring)[:, ::-1] - 0.5 for ring in rings]
                mask |= polygon2mask(label.shape, corners[0])
                for hole in corners[1:]:
                    mask &= ~polygon2mask(label.shape, hole)
            np.testing.assert_array_equal(mask, label == int(one["properties"]["name"]))
            assert one["properties"]["measurements"] == {"area_px": float(mask.sum())}


def test_the_folder_is_a_dataset(
    results: tuple[Paths, dict[str, Made]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths, made = results
    out = tmp_path / "out"
    assert annotate(paths.output, "new", "-n", 12, "--crops", 40, "-o", out) == 0
    said = capsys.readouterr().err
    snippet = re.search(r"^  datasets:\n(?:  .*\n)+", said, re.M)
    assert snippet is not None
    config = yaml.safe_load(snippet[0])
    assert config == yaml.safe_load(
        "\n".join(
            line for line in (out / "README.txt").read_text().splitlines() if line[:4] == "    "
        )
    )
    assert config["datasets"]["new-annotated"] == {
        "images": str(out / "sheet.csv"), "task": "instances",
    }  # fmt: skip
    config["models"] = {"m": {"preset": "unet-bn", "width": 4, "depth": 2}}
    config["datasets"]["new-annotated"]["split"] = {"folds": 3}
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    assert main.main(["check", str(file), "--output", str(tmp_path / "check"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["new-annotated"]["survey"]
    assert (facts["labelled"], facts["groups"], facts["labels_alone"]) == (12, 3, [])
    assert not [one for one in facts["findings"] if one["level"] == "stop"]
    # As the stages read it: image by image the same labels, and crops of an image in one group.
    settings = ManifestSettings.made(
        task="instances", ignore=None, axes=None, channels=None, layout="folders", classes=None,
        pixel_size_um=None, group=None, column=None, strict=True, labelled=True, fingerprint="",
    )  # fmt: skip
    source = RawSource.below(tmp_path, str(out / "sheet.csv"))
    manifest = tmp_path / "manifest.csv"
    manifest_stage(source, settings, manifest, tmp_path / "i.json", 1, tmp_path / "w.json")
    rows = {row["crop"]: row for row in table(out / "annotate.csv")}
    records = read_manifest(manifest)
    assert len(records) == 12
    for record in records:
        row = rows[record.id]
        assert (record.status, record.group) == ("ok", row["image"])
        label = open_label(source.root / record.label)
        assert label.pixel_size_um == (0.5, 0.25)
        one = made[row["image"]].labels[place_of(row)]
        np.testing.assert_array_equal(np.asarray(label.array), one)
        assert record.objects == len(np.unique(one[one > 0]))


def test_the_same_seed_gives_the_same_files(
    results: tuple[Paths, dict[str, Made]], tmp_path: Path
) -> None:
    paths, _ = results
    texts = []
    for k, seed in enumerate((3, 3, 4)):
        out = tmp_path / f"out{k}"
        words = ("-n", 5, "--crops", 32, "--method", "random", "--seed", seed, "-o", out)
        assert annotate(paths.output, "new", *words) == 0
        texts.append((out / "annotate.csv").read_text())
        page = (out / "index.html").read_text(encoding="utf-8")
        assert "drawn at random among" in page
        assert "hard or unusual" not in page
    assert texts[0] == texts[1] != texts[2]


def test_whole_images_and_the_page(
    results: tuple[Paths, dict[str, Made]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths, made = results
    out = tmp_path / "out"
    out.mkdir()
    assert annotate(paths.output, "new", "--crops", 0, "-o", out) == 0
    assert sorted(path.name for path in (out / "images").iterdir()) == ["a.tif", "b.tif", "c.tif"]
    np.testing.assert_array_equal(tifffile.imread(out / "labels" / "b.tif"), made["b"].labels)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "-n 20: there are only 3 crops" in page
    assert page.count("<figure") == 3
    assert page.count('src="data:') == 6
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "hard or unusual" in page
    for link in re.findall(r'href="([^#"]+)"', page):
        assert (out / link).is_file()
    assert all("alt=" in image for image in re.findall(r"<img[^>]*>", page))


def test_it_says_where_the_masks_are_no_help_and_which_doubt_it_used(
    results: tuple[Paths, dict[str, Made]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, _ = results
    quality = paths.fold("new", MODEL, ENSEMBLE).parent / "quality.csv"
    head = "image,doubt,drift,drift_reasons,flagged,why\n"
    quality.write_text(head + "a,0.9,5.7,far <darker>,yes,x\nb,0.4,0.5,,no,\n", encoding="utf-8")
    out = tmp_path / "out"
    assert annotate(paths.output, "new", "--crops", 0, "-o", out) == 0
    said = capsys.readouterr().err
    line = "1 crop of 3 from images unlike the training images (a): the masks are no help here"
    assert f"warning: {line}" in said
    assert "Doubt of 2 of 3 images: that of the whole image in quality.csv" in said
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.index(line) < page.index('id="how"')
    # On the card and in the table.
    assert page.count("unlike the training images (far &lt;darker&gt;); draw new ones") == 2
    assert "Doubt of 2 of 3 images" in page
    rows = {row["image"]: row for row in table(out / "annotate.csv")}
    assert {k: row["doubt_from"] for k, row in rows.items()} == {
        "a": "quality.csv", "b": "quality.csv", "c": "probabilities",
    }  # fmt: skip
    assert "the masks are no help here" in rows["a"]["caution"]
    assert rows["b"]["caution"] == rows["c"]["caution"] == ""
    assert "Some masks are no help" in (out / "README.txt").read_text(encoding="utf-8")
    # Without the table, neither is known.
    quality.unlink()
    assert annotate(paths.output, "new", "--crops", 0, "-o", tmp_path / "plain") == 0
    said = capsys.readouterr().err
    assert "Not known: whether images are unlike the training images" in said
    assert "Doubt: the model's mean uncertainty" in said
    assert "(There is no quality.csv with a doubt for each whole image.)" in said
    page = (tmp_path / "plain" / "index.html").read_text(encoding="utf-8")
    assert "Not known: whether images are unlike" in page
    assert "no help" not in page
    assert "no help" not in (tmp_path / "plain" / "README.txt").read_text(encoding="utf-8")


def test_classes_keep_their_values(tmp_path: Path) -> None:
    labels = np.zeros((64, 64), np.uint32)
    labels[10:30, 10:40], labels[40:50, :] = 1, 2
    rgb = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    classes = {"ground": 0, "cell": 128, "on: off": 255}
    paths = write_results(tmp_path, {"a": Made(rgb, labels)}, classes)
    tifffile.imwrite(tmp_path / "new" / "a.tif", np.moveaxis(rgb, 0, -1), photometric="rgb")
    out = tmp_path / "out"
    assert annotate(paths.output, "new", "-n", 4, "--crops", 32, "-o", out) == 0
    for row in table(out / "annotate.csv"):
        place = place_of(row)
        found = tifffile.imread(out / "labels" / f"{row['crop']}.tif")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, np.array([0, 128, 255])[labels[place]])
        image = open_image(out / "images" / f"{row['crop']}.tif")
        assert image.channel_names == ("red", "green", "blue")
        np.testing.assert_array_equal(np.asarray(image.array), rgb[(slice(None), *place)])
    assert not (out / "geojson").exists()
    config = yaml.safe_load((out / "README.txt").read_text().partition("datasets:")[2].partition(
        "3.")[0])  # fmt: skip
    assert config["new-annotated"]["classes"] == classes
    assert "on: off" in (out / "index.html").read_text(encoding="utf-8")


def test_volumes(tmp_path: Path) -> None:
    made = {"v": squares(2, (12, 48, 64), 30)}
    paths = write_results(tmp_path, made)
    out = tmp_path / "out"
    assert annotate(paths.output, "new", "-n", 3, "--crops", "8,24,32", "-o", out) == 0
    rows = table(out / "annotate.csv")
    assert len(rows) == 3
    for row in rows:
        place = place_of(row)
        image = open_image(out / "images" / f"{row['crop']}.tif")
        assert image.axes == "CZYX"
        np.testing.assert_array_equal(
            np.asarray(image.array), made["v"].pixels[(slice(None), *place)]
        )
        label = open_label(out / "labels" / f"{row['crop']}.tif")
        assert label.axes == "ZYX"
        np.testing.assert_array_equal(np.asarray(label.array), made["v"].labels[place])
    assert not (out / "rois").exists()
    assert "section" in (out / "index.html").read_text(encoding="utf-8")


def test_results_of_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {name: squares(k, (50, 60), 8) for k, name in enumerate("ab")}
    done, photos, out = tmp_path / "segmented", tmp_path / "photos", tmp_path / "out"
    done.mkdir()
    write_manifest(done / "manifest.csv", write_images(photos, made))
    write_store(done / "segmentation.zarr", made, ("background", "inside", "border"), ids=True)
    write_json(done / "predict.json", {"key": "k", "models": {"runs/d/m/fold-0/model.pt": "x"}})
    assert annotate(done, photos, "-n", 2, "--crops", 32, "-o", out) == 0
    row = table(out / "annotate.csv")[0]
    np.testing.assert_array_equal(
        tifffile.imread(out / "images" / f"{row['crop']}.tif"),
        made[row["image"]].pixels[0][place_of(row)],
    )
    assert "segmented-annotated:" in capsys.readouterr().err
    assert annotate(done, tmp_path / "nowhere", "-o", tmp_path / "other") == 2
    assert "give the folder of the images" in capsys.readouterr().err
    assert annotate(done, tmp_path, "-o", tmp_path / "other") == 2
    said = capsys.readouterr().err
    assert f"a.tif: no such image; {tmp_path} is not the folder that unet predict read" in said
    assert "--images" not in said
    assert not (tmp_path / "other").exists()


def test_classes_of_predict_have_the_values_of_the_training(tmp_path: Path) -> None:
    done, photos, trained = tmp_path / "segmented", tmp_path / "photos", tmp_path / "model.pt"
    done.mkdir()
    labels = np.zeros((40, 40), np.uint32)
    labels[5:20, 5:30] = 1
    made = {"a": Made(np.arange(1600, dtype=np.uint16).reshape(1, 40, 40), labels)}
    write_manifest(done / "manifest.csv", write_images(photos, made))
    names = ("background", "cell")
    write_store(done / "segmentation.zarr", made, names, ids=False)
    write_json(done / "predict.json", {"key": "k", "models": {str(trained): "x"}})
    assert find_unlabelled(done, str(photos)).classes == {"background": 0, "cell": 1}
    kept = replace(model(), task="semantic", class_names=names, class_values=(255, 7))
    save_model(trained, kept)
    found = find_unlabelled(done, str(photos))
    assert found.classes == {"background": 255, "cell": 7}
    out = tmp_path / "out"
    assert annotate(done, photos, "-n", 1, "--crops", 0, "-o", out) == 0
    expected = np.where(labels == 1, 7, 255)
    np.testing.assert_array_equal(tifffile.imread(out / "labels" / "a.tif"), expected)


def test_images_with_labels_are_left_alone(
    results: tuple[Paths, dict[str, Made]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, _ = results
    records = read_manifest(paths.manifest("new"))
    some = [replace(r, label="x.tif") if r.id == "a" else r for r in records]
    write_manifest(paths.manifest("new"), some)
    assert set(find_unlabelled(paths.output, "new").records) == {"b", "c"}
    write_manifest(paths.manifest("new"), [replace(r, label="x.tif") for r in records])
    assert annotate(paths.output, "new", "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "new: all 3 images have labels; unet annotate chooses among images without" in said
    assert said.count("\n") == 1


def test_mistakes(
    results: tuple[Paths, dict[str, Made]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, _ = results
    out = tmp_path / "out"

    def said(*words: object) -> str:
        assert annotate(*words, "-o", out) == 2
        found = capsys.readouterr().err
        assert found.count("\n") == 1
        assert not out.exists()
        return found

    assert "no dataset 'nev'; there are: old, new; did you mean new?" in said(paths.output, "nev")
    assert "old: models are trained on its labels" in said(paths.output, "old")
    assert "no model 'n' predicted new; there are: m@old" in said(
        paths.output, "new", "--model", "n"
    )
    assert "no such folder; give the results" in said(tmp_path / "x", "new")
    assert "no results here (neither config.yaml nor predict.json)" in said(tmp_path, "new")
    assert "got 3 numbers, but the images have 2 axes" in said(
        paths.output, "new", "--crops", "16,16,16"
    )
    assert "a.tif: no such image; give the folder" in said(
        paths.output, "new", "--images", tmp_path
    )
    assert annotate(paths.output, "new", "-o", paths.output / "new" / "to") == 2
    assert "lies in the results" in capsys.readouterr().err
    remove(paths.segmentation("new", MODEL, ENSEMBLE))
    assert "segmentation is missing; finish the run first" in said(paths.output, "new")
    out.mkdir()
    (out / "x").touch()
    assert annotate(paths.output, "new", "-o", out) == 2
    assert f"{out}: is not empty; choose another folder with -o" in capsys.readouterr().err
    for words in (("-n", "0"), ("--crops", "4"), ("--crops", "a"), ("--seed", "-1")):
        with pytest.raises(SystemExit, match="2"):
            annotate(paths.output, "new", *words)
        assert "write" in capsys.readouterr().err


def test_a_changed_image_leaves_nothing_behind(
    results: tuple[Paths, dict[str, Made]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, _ = results
    tifffile.imwrite(tmp_path / "new" / "b.tif", np.zeros((2, 7, 7), np.uint16), ome=True)
    before = sorted(tmp_path.iterdir())
    words = ("-n", 12, "--method", "random", "--crops", 32, "-o", tmp_path / "out")
    assert annotate(paths.output, "new", *words) == 2
    assert "b.tif: has (7, 7) pixels, but had (80, 100) when it was" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_one_of_several_models_is_named(results: tuple[Paths, dict[str, Made]]) -> None:
    paths, _ = results
    config = yaml.safe_load(paths.config.read_text())
    config["models"]["n"] = config["models"]["m"]
    config["datasets"]["new"]["predict_with"] = ["old/m", "old/n"]
    paths.config.write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(UserError, match="2 models predicted it; choose one with --model: m@old"):
        find_unlabelled(paths.output, "new")
    assert find_unlabelled(paths.output, "new", "m").model == MODEL
    assert read_json(paths.inputs("new"))["root"] == str(find_unlabelled(
        paths.output, "new", MODEL).root)  # fmt: skip
