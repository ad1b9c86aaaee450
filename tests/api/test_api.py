"""`import unet`: the same numbers as `unet predict`, and one line for a wrong argument."""

from __future__ import annotations

import doctest
import gc
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import zarr

import unet
from tests.cli.test_predict_command import predict, quiet
from tests.data.test_apply_prepare import blobs, model, write
from unet.api import reading, trained
from unet.config.load import load
from unet.errors import UserError
from unet.models.model_file import save_model
from unet.paths import Paths
from unet.planning.jobs import Run
from unet.prediction.stitch import stitch
from unet.prediction.stitch.segmentation import Segmentation as Stored
from unet.report.tidy_tables import read_objects

__all__ = ["quiet"]

SAME: dict[str, Any] = {"threads": 1, "device": "cpu", "float32": True}


def of_the_command(
    folder: Path, model_path: Path, image: Path, *words: object
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Mask, probabilities and objects of `unet predict` on a file."""
    assert predict(model_path, image, "-o", folder, *words) == 0
    name = image.name.split(".")[0]
    mask = tifffile.imread(folder / "masks" / f"{name}.tif")
    p = Stored(folder / "segmentation.zarr").probabilities(name)[...]
    return mask, np.asarray(p), read_objects(folder / "objects.csv").drop(columns="image")


def check_same(found: unet.Segmentation, wanted: tuple[np.ndarray, np.ndarray, Any]) -> None:
    mask, p, objects = wanted
    assert np.array_equal(np.asarray(found.labels), mask)
    assert np.asarray(found.probabilities).tobytes() == p.tobytes()
    pd.testing.assert_frame_equal(found.objects.drop(columns="image"), objects, check_exact=True)


def between(p: np.ndarray) -> float:
    """A threshold that some pixels exceed and some do not."""
    return float(np.median(p[(p > 0) & (p < 1)]))


CLASSES = ("sky", "cell", "edge")
# case -> model, image, axes of its file, pixel size of the file, axes of the array.
CASES: dict[str, tuple[dict[str, Any], np.ndarray, str, float | None, str]] = {
    "2D objects": ({}, blobs((70, 81)), "YX", 0.5, "YX"),
    "floats": ({}, blobs((50, 61)) / np.float32(7), "YX", None, "YX"),
    "zscore": ({"normalize": {"method": "zscore", "scope": "image"}},
               blobs((90, 61)).astype(np.uint16) * 201, "YX", None, "YX"),
    "border": ({"head": ("background", "inside", "border")}, blobs((64, 71), 3), "YX", 0.5, "YX"),
    "classes": ({"task": "semantic", "head": CLASSES, "class_names": CLASSES,
                 "class_values": (7, 1, 300), "seed": 5}, blobs((70, 81)), "YX", 0.5, "YX"),
    "RGB": ({"channels": 3}, np.stack([blobs((60, 44), k) for k in range(3)]), "CYX", 0.5, "CYX"),
    "3D": ({"dims": 3, "pixel_size_um": (1.0, 0.5, 0.5)}, blobs((12, 40, 44)), "ZYX", 0.5, "ZYX"),
    "resampled": ({}, blobs((90, 64), 1), "YX", 0.2, "YX"),
    "resampled 3D": ({"dims": 3, "pixel_size_um": (2.0, 0.5, 0.5)}, blobs((12, 40, 44)),
                     "ZYX", 0.3, "ZYX"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_same_numbers_as_the_command(tmp_path: Path, quiet: Any, case: str) -> None:
    values, pixels, axes, size, given = CASES[case]
    save_model(tmp_path / "m.pt", model(**values))
    file = write(tmp_path / "a.ome.tif", pixels, size, axes)
    own, image = unet.load_model(tmp_path / "m.pt"), unet.read_image(file)
    # A threshold that gives several objects.
    p = np.asarray(own.predict(image, **SAME).probabilities)
    options = {**SAME, "threshold": between(p[1])}
    if own.task == "semantic":
        del options["threshold"]
    words = ("--threshold", options["threshold"]) if "threshold" in options else ()
    wanted = of_the_command(tmp_path / "out", tmp_path / "m.pt", file, *words)
    assert len(np.unique(wanted[0])) > 1
    check_same(own.predict(image, **options), wanted)
    sizes = image.pixel_size_um
    check_same(own.predict(pixels, given, sizes, **options), wanted)
    # Another order of the axes, another layout in memory and byte order.
    letters = given[::-1].lower()
    turned = pixels.transpose().astype(pixels.dtype.newbyteorder(">"))
    check_same(own.predict(turned, letters, sizes, **options), wanted)
    lazy = own.predict(da.from_array(pixels, chunks=17), given, sizes, **options)
    assert isinstance(lazy.labels, da.Array)
    check_same(lazy, wanted)


def test_an_ensemble_of_a_run_and_its_settings(tmp_path: Path, quiet: Any) -> None:
    """All folds of a model, with threshold, method and tta of the run, and what overrides them."""
    raw = {
        "output": str(tmp_path / "out"),
        "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances",
                           "split": {"folds": 2}}},
        "models": {"m": {"preset": "unet-bn", "depth": 1, "predict": {"tta": True},
                         "stitch": {"min_size": 3, "threshold": 0.42}}},
        "train": {"patch": 64},
    }  # fmt: skip
    paths = Paths(tmp_path / "out")
    Run(load(raw)).write_config()
    for fold in (0, 1):
        save_model(paths.model("d", "m", fold), model(seed=fold))
    folder, pixels = paths.fold("d", "m", 0).parent, blobs((70, 81))
    file = write(tmp_path / "a.ome.tif", pixels, 0.5)
    both = unet.load_model(folder)
    assert len(both.files) == 2
    assert "2 networks, averaged" in repr(both)
    found = both.predict(pixels, pixel_size_um=0.5, **SAME)
    assert found.threshold == 0.42
    check_same(found, of_the_command(tmp_path / "p", folder, file))
    words = ("--no-tta", "--threshold", "0.3", "--min-size", "40")
    changed = both.predict(
        pixels, pixel_size_um=0.5, tta=False, threshold=0.3, min_size=40, tile=64, **SAME
    )
    check_same(changed, of_the_command(tmp_path / "q", folder, file, *words, "--tile", "64"))
    assert not np.array_equal(found.probabilities, changed.probabilities)
    # One by one, as a fold's folder and a file.
    listed = unet.load_model([folder / "fold-0", str(folder / "fold-1" / "model.pt")])
    assert listed.files == both.files
    assert unet.load_model(folder / "fold-1").files == both.files[1:]


@pytest.fixture
def own(tmp_path: Path) -> unet.Model:
    save_model(tmp_path / "m.pt", model())
    return unet.load_model(tmp_path / "m.pt")


def test_what_a_model_says(tmp_path: Path, own: unet.Model) -> None:
    assert (own.task, own.channels, own.dims) == ("instances", 1, 2)
    assert (own.classes, own.head) == (("background", "foreground"),) * 2
    assert own.pixel_size_um == (0.5, 0.5)
    (y, x) = own.receptive_field
    assert y == x > 8
    assert repr(own) == (
        "<Model unet, 1 network: task instances, classes background, foreground; images of 1 "
        f"channel, 2D, 0.5 x 0.5 um per pixel; receptive field {y} x {y} px>"
    )
    with pytest.raises(UserError, match=r"no such file or folder; give a model\.pt"):
        unet.load_model(tmp_path / "nowhere")
    save_model(tmp_path / "rgb.pt", model(channels=3))
    with pytest.raises(UserError, match=r"their channels differ \(1, 3\)"):
        unet.load_model([tmp_path / "m.pt", tmp_path / "rgb.pt"])
    with pytest.raises(ValueError, match="path: got no model"):
        unet.load_model([])


GOOD = blobs((40, 44))


@pytest.mark.parametrize(
    ("array", "options", "line"),
    [
        (GOOD, {"axes": "XYZ"}, "axes: got 'XYZ', but the array has 2 axes (40 x 44)"),
        (GOOD, {"axes": "YXS"}, "axes: got 'YXS'; write Y, X and, if present, C and Z once each"),
        (GOOD, {"axes": "CX"}, "axes: got 'CX'; write Y, X"),
        (GOOD, {"axes": "YY"}, "axes: got 'YY'; write Y, X"),
        (GOOD, {"axes": 2}, "axes: got 2; write letters, such as 'CYX'"),
        (GOOD[None], {}, "axes: the array has 3 axes (1 x 40 x 44); say what they are, such as"),
        (np.stack([GOOD] * 2), {"axes": "ZYX"}, "axes: got ZYX (2 x 40 x 44), but the model is"),
        (np.stack([GOOD] * 3), {"axes": "CYX"},
         "array: 3 channels, but the model needs 1; choose with channels, such as channels=[0]"),
        (GOOD, {"channels": [1]}, "channels: got 1; write 0 to 0"),
        (GOOD, {"channels": ["red"]}, "channels: no channel 'red'; there are: none has a name"),
        (GOOD, {"channels": [True]}, "channels: got [True]; write numbers from 0 or names"),
        (np.where(GOOD > 99, np.nan, 1.0), {}, "array: NaN or infinite values; replace them"),
        (GOOD.astype(complex), {}, "array: values of type complex128; give whole numbers or"),
        (GOOD.astype(str), {}, "array: values of type <U"),
        (GOOD[:0], {}, "array: got 0 x 44 values; no axis may be empty"),
        (GOOD, {"pixel_size_um": 0}, "pixel_size_um: got 0; write micrometres above 0"),
        (GOOD, {"pixel_size_um": (1, 1, 1)}, "pixel_size_um: got (1, 1, 1); write micrometres"),
        (GOOD, {"pixel_size_um": 500.0}, "array: pixel size 500 x 500 um, the model's 0.5 x 0.5"),
        (GOOD, {"threshold": 1}, "threshold: got 1; write a number above 0 and below 1"),
        (GOOD, {"threshold": "high"}, "threshold: got 'high'; write"),
        (GOOD, {"min_size": -1}, "min_size: got -1; write a whole number from 0"),
        (GOOD, {"min_size": 2.5}, "min_size: got 2.5; write a whole number from 0"),
        (GOOD, {"tta": 1}, "tta: got 1; write True or False"),
        (GOOD, {"tile": 3}, "tile: got 3; write 8 to 16384 pixels, one number or one for each of"),
        (GOOD, {"tile": (64, 64, 64)}, "tile: got (64, 64, 64); write"),
        (GOOD, {"device": "gpu"}, "device: got 'gpu'; write one of auto, cpu, cuda"),
        (GOOD, {"threads": 0}, "threads: got 0; write a whole number from 1"),
        (GOOD, {"memory_gb": -1}, "memory_gb: got -1; write a number above 0"),
        (GOOD, {"tile": np.array(3)}, "tile: got 3; write 8 to 16384 pixels"),
        (GOOD, {"tile": np.zeros((9, 9))}, "tile: got array([[0., 0., 0."),
        (GOOD, {"pixel_size_um": np.array(0.0)}, "pixel_size_um: got 0.0; write micrometres"),
        (GOOD, {"method": np.array(["grow", "x"])}, "method: got array(['grow', 'x']"),
        (GOOD, {"name": 5}, "name: got 5; write a text, such as 'image'"),
        (GOOD, {"name": ""}, "name: got ''; write a text"),
        (GOOD, {"out": ""}, "out: got ''; write a folder, such as 'segmented'"),
        (GOOD, {"out": 5}, "out: got 5; write a folder"),
        (GOOD, {"overwrite": "yes"}, "overwrite: got 'yes'; write True or False"),
        (GOOD, {"method": "growing"}, "method: got 'growing'; write one of components, grow"),
        (GOOD, {"method": "grow"}, "method: grow needs a model with head: border, but this one"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line(
    tmp_path: Path, own: unet.Model, array: Any, options: dict[str, Any], line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with pytest.raises(UserError) as caught:
        own.predict(array, **options)
    text = str(caught.value)
    assert text.startswith(line)
    assert "\n" not in text
    assert "--" not in text
    assert isinstance(caught.value, ValueError)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_volumes_want_volumes(tmp_path: Path) -> None:
    save_model(tmp_path / "v.pt", model(dims=3))
    with pytest.raises(ValueError, match=r"axes: got YX \(40 x 44\), but the model is for volumes"):
        unet.load_model(tmp_path / "v.pt").predict(GOOD)


def test_a_volume_of_one_plane_is_an_image(own: unet.Model) -> None:
    flat, plane = own.predict(GOOD[None], "ZYX", **SAME), own.predict(GOOD, **SAME)
    assert np.array_equal(flat.labels, plane.labels)
    assert flat.axes == "YX"


def test_a_blank_image_has_no_objects(own: unet.Model) -> None:
    """Its stored chunks contain only zeros; bool is 0 and 1 as in a bilevel file."""
    found = own.predict(np.zeros((40, 50), bool), **SAME)
    assert found.labels.shape == (40, 50)
    assert found.labels.dtype == np.uint32


def test_channels_by_name(tmp_path: Path, own: unet.Model) -> None:
    pixels = np.stack([blobs((40, 44), k) for k in range(2)])
    path = tmp_path / "two.ome.tif"
    names = {"axes": "CYX", "Channel": {"Name": ["dapi", "gfp"]}}
    tifffile.imwrite(path, pixels, metadata=names, photometric="minisblack")
    image = unet.read_image(path)
    assert image.channel_names == ("dapi", "gfp")
    named = np.asarray(own.predict(image, channels=["gfp"], **SAME).labels)
    assert np.array_equal(named, own.predict(pixels[1], **SAME).labels)
    assert np.array_equal(own.predict(pixels, "CYX", channels=1, **SAME).labels, named)


def folders() -> set[Path]:
    import tempfile

    return set(Path(tempfile.gettempdir()).glob("unet-*"))


def test_lazy_arrays_live_in_a_folder(
    tmp_path: Path, own: unet.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dask and zarr in, dask over zarr out; the temporary folder lives as long as its arrays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pixels = blobs((150, 130))
    whole = own.predict(pixels, **SAME)
    assert folders() == set()
    assert isinstance(whole.labels, np.ndarray)
    stored = zarr.create_array(str(tmp_path / "big.zarr"), data=pixels, chunks=(50, 40))
    found = own.predict(stored, **SAME)
    assert isinstance(found.labels, da.Array)
    assert isinstance(found.probabilities, da.Array)
    labels, again = found.labels, pickle.loads(pickle.dumps(found.labels))
    del found
    gc.collect()
    assert len(folders()) == 1
    assert np.array_equal(labels.compute(), whole.labels)
    assert np.array_equal(again.compute(), whole.labels)
    del labels
    gc.collect()
    assert folders() == set()
    pd.testing.assert_frame_equal(whole.objects, own.predict(stored, **SAME).objects)


BIG = """
import resource, sys
import dask.array as da, numpy as np
import unet

def block(block_id):
    return np.add.outer(np.arange(1024), 7 * np.arange(1024)).astype(np.uint16) % 251

n = int(sys.argv[1])
array = da.map_blocks(block, chunks=((1024,) * n, (1024,) * 2), dtype=np.uint16,
                      meta=np.empty((0, 0), np.uint16))
found = unet.load_model("m.pt").predict(array, memory_gb=0.2, threads=1, device="cpu")
assert found.labels.shape == array.shape
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_image(tmp_path: Path, own: unet.Model) -> None:
    """A lazy array of 16 and of 64 million pixels, which with its results takes 480 MB more
    (10 bytes a pixel: 2 of the image, 4 of the probabilities, 4 of the labels).

    A smaller one does not fill the buffers whose sizes `memory_gb` and the tiles set.
    """
    megabytes = []
    for blocks in (8, 32):
        words = [sys.executable, "-c", BIG, str(blocks)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        megabytes.append(float(done.stdout))
    assert megabytes[1] < megabytes[0] + 60, megabytes


def test_results_to_keep(tmp_path: Path, own: unet.Model) -> None:
    """With `out` the files of `unet predict` are there, also for other tools."""
    out = tmp_path / "kept"
    found = own.predict(GOOD, out=out, name="my cell/1", **SAME)
    (name,) = set(found.objects["image"])
    assert found.folder == out
    assert np.array_equal(tifffile.imread(out / "masks" / f"{name}.tif"), found.labels)
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.csv", "masks", "objects.csv", "objects.csv-metadata.json", "predict.json",
        "segmentation.zarr",
    ]  # fmt: skip
    # Results of something else stay.
    (tmp_path / "mine" / "masks").mkdir(parents=True)
    with pytest.raises(UserError, match="was not made by this command; give another folder as out"):
        own.predict(GOOD, out=tmp_path / "mine")


def test_results_are_replaced_only_on_request(
    tmp_path: Path, own: unet.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lazy result reads its files later: another prediction must not change them."""
    monkeypatch.chdir(tmp_path)
    pixels = blobs((70, 81))
    p = own.predict(pixels, **SAME).probabilities
    options = {**SAME, "threshold": between(p[1]), "out": "kept"}
    lazy = da.from_array(pixels, chunks=50)
    first = own.predict(lazy, **options)
    assert first.folder == tmp_path / "kept"
    labels = first.labels.compute()
    for other, changed in ((lazy[::-1], {}), (lazy, {"threshold": 0.01}), (lazy, {"name": "b"})):
        with pytest.raises(unet.ArgumentError) as caught:
            own.predict(other, **{**options, **changed})
        assert str(caught.value) == (
            f"out: {tmp_path / 'kept'} has the results of another image or other settings; give "
            "another folder, or overwrite=True to replace them"
        )
        assert not (tmp_path / "kept" / "work").exists()
    assert np.array_equal(first.labels.compute(), labels)
    # The same prediction again, as a notebook does, reads the files.
    before = (tmp_path / "kept" / "objects.csv").stat().st_mtime_ns
    again = own.predict(lazy, **options)
    assert (tmp_path / "kept" / "objects.csv").stat().st_mtime_ns == before
    assert np.array_equal(again.labels.compute(), labels)
    assert again.threshold == first.threshold
    pd.testing.assert_frame_equal(again.objects, first.objects)
    # What replaces results removes the page of the earlier ones.
    (tmp_path / "kept" / "index.html").write_text("of the earlier results")
    turned = own.predict(lazy[::-1], **options, name="b", overwrite=True)
    assert np.array_equal(turned.labels.compute(), own.predict(pixels[::-1], **{
        **options, "out": None}).labels)  # fmt: skip
    assert [path.name for path in (tmp_path / "kept" / "masks").iterdir()] == ["b.tif"]
    assert not (tmp_path / "kept" / "index.html").exists()


def test_a_stopped_prediction_does_not_block_its_folder(
    tmp_path: Path, own: unet.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stitch, "_stitch_all", stopped)
        with pytest.raises(KeyboardInterrupt):
            own.predict(GOOD, out=tmp_path / "out", **SAME)
    with pytest.raises(UserError, match="NaN or infinite"):
        own.predict(np.full((40, 44), np.nan), out=tmp_path / "out", **SAME)
    found = own.predict(GOOD, out=tmp_path / "out", **SAME)
    assert np.array_equal(found.labels, own.predict(GOOD, **SAME).labels)


def test_a_folder_named_work_stays(tmp_path: Path, own: unet.Model) -> None:
    mine = tmp_path / "out" / "work" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="work: already exists and is not a work folder of this"):
        own.predict(GOOD, out=tmp_path / "out", **SAME)
    assert mine.read_text() == "mine"


def test_a_file_is_no_folder_for_results(tmp_path: Path, own: unet.Model) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(unet.ArgumentError, match=r"^out: .*file is a file; give a folder$"):
        own.predict(GOOD, out=tmp_path / "file", **SAME)
    with pytest.raises(unet.ArgumentError, match=r"^out: .* cannot be created \(Not a directory\)"):
        own.predict(GOOD, out=tmp_path / "file" / "below", **SAME)


def test_arrays_without_axes_are_numbers(own: unet.Model) -> None:
    given = {"tile": 64, "pixel_size_um": 0.4, "threshold": 0.3, "min_size": 2, "channels": 0}
    arrays: dict[str, Any] = {name: np.array(value) for name, value in given.items()}
    found, wanted = (own.predict(GOOD, **SAME, **options) for options in (arrays, given))
    assert np.array_equal(found.labels, wanted.labels)


@pytest.mark.parametrize("path", [5, None, "", b"m.pt", [5], [None]])
def test_a_model_is_given_by_path(path: Any) -> None:
    with pytest.raises(unet.ArgumentError, match=r"^path: got .*; write a model\.pt or a folder$"):
        unet.load_model(path)


def test_the_process_stays_as_it_was(own: unet.Model) -> None:
    torch.set_num_threads(2)
    own.predict(GOOD, threads=1, device="cpu")
    assert torch.get_num_threads() == 2


def test_an_overlay(tmp_path: Path, own: unet.Model) -> None:
    pixels = blobs((70, 81))
    p = own.predict(pixels, **SAME).probabilities
    found = own.predict(pixels, threshold=between(p[1]), **SAME)
    picture = found.overlay()
    assert (picture.shape, picture.dtype) == ((70, 81, 3), np.uint8)
    coloured = (picture != picture[..., :1]).any(axis=-1)
    assert coloured.any()
    assert not coloured[found.labels == 0].any()
    assert max(found.overlay(side=30).shape) <= 30
    html = found._repr_html_()
    assert html.count("data:image/png;base64,") == 1
    assert f"{len(found.objects)} objects at threshold {found.threshold:g}" in html
    assert 'alt="' in html
    with pytest.raises(ValueError, match="side: got 0"):
        found.overlay(side=0)
    with pytest.raises(ValueError, match="z: got 3, but the image has no planes; leave z out"):
        found.overlay(z=3)


def test_an_overlay_of_a_volume_and_of_classes(tmp_path: Path) -> None:
    save_model(tmp_path / "v.pt", model(dims=3, pixel_size_um=None))
    volume = unet.load_model(tmp_path / "v.pt").predict(blobs((12, 40, 44)), "ZYX", **SAME)
    fullest = int((volume.labels > 0).sum(axis=(1, 2)).argmax())
    assert np.array_equal(volume.overlay(), volume.overlay(z=fullest))
    with pytest.raises(ValueError, match="z: got 12; write 0 to 11"):
        volume.overlay(z=12)
    for wrong in (1.5, -1, "1", True):
        with pytest.raises(unet.ArgumentError, match=r"z: got .*; write a whole number from 0"):
            volume.overlay(z=wrong)  # type: ignore[arg-type]
    save_model(tmp_path / "s.pt", model(task="semantic", head=CLASSES, class_names=CLASSES,
                                        class_values=(7, 1, 300), seed=5))  # fmt: skip
    for pixels in (GOOD, da.from_array(GOOD, chunks=20)):
        found = unet.load_model(tmp_path / "s.pt").predict(pixels, **SAME)
        assert found.classes == {"sky": 7, "cell": 1, "edge": 300}
        picture, labels = found.overlay(), np.asarray(found.labels)
        grey = (picture == picture[..., :1]).all(axis=-1)
        assert grey[labels == 7].all()
        assert not grey[labels != 7].all()


# Importing


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_it_is_quick() -> None:
    done = python(
        "import sys, unet; print(*sys.modules); dir(unet); unet.load_model; "
        "assert 'load_model' in vars(unet); print(unet.evaluate.__module__)"
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert {"torch", "numpy", "pandas", "dask", "zarr"} & set(first.split()) == set()
    assert second == "unet.evaluation.arrays"


def test_every_name_is_there() -> None:
    assert set(unet.__all__) <= set(dir(unet))
    for name in unet.__all__:
        assert getattr(unet, name) is not None
        if name != "__version__":
            assert getattr(unet, name).__doc__
    with pytest.raises(AttributeError, match="module 'unet' has no attribute 'predict'"):
        _ = unet.predict  # type: ignore[attr-defined]


def test_a_prediction_scores_itself(own: unet.Model) -> None:
    found = own.predict(GOOD, **SAME)
    scores = unet.evaluate(found.labels, found.labels).set_index("metric")["value"]
    assert scores["pq"] == 1.0


@pytest.mark.parametrize("module", [reading, trained], ids=["reading", "trained"])
def test_the_examples(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: unet.Model
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(Path("model.pt"), model())
    save_model(Path("other.pt"), model(seed=1))
    write(Path("cells.ome.tif"), blobs((96, 128)).astype(np.uint16), 0.5).rename("cells.tif")
    metrics = Path("results/d/m/metrics.csv")
    metrics.parent.mkdir(parents=True)
    metrics.write_text(
        "dataset,model,fold,image,group,class,metric,value,weight\n", encoding="utf-8"
    )
    Path("results/report.csv").write_text(REPORT, encoding="utf-8")
    found = doctest.testmod(
        module,
        extraglobs={"model": own, "pixels": GOOD, "np": np},
        optionflags=doctest.ELLIPSIS,
    )
    assert found.attempted >= 4
    assert found.failed == 0


# Images and tables


def test_an_image_of_a_file(tmp_path: Path) -> None:
    pixels = blobs((30, 36)).astype(np.uint16)
    file = write(tmp_path / "a.ome.tif", pixels, 0.25)
    image = unet.read_image(str(file))
    assert (image.axes, image.shape, image.dtype) == ("CYX", (1, 30, 36), np.dtype(np.uint16))
    assert image.pixel_size_um == (0.25, 0.25)
    assert np.array_equal(np.asarray(image)[0], pixels)
    assert repr(image) == "<Image a.ome.tif: CYX 1 x 30 x 36, uint16, 0.25 x 0.25 um per pixel>"
    with pytest.raises(UserError, match="no such file"):
        unet.read_image(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([pixels] * 5), metadata=None)
    with pytest.raises(UserError, match="5 pages of 30 x 36 without declared axes"):
        unet.read_image(tmp_path / "stack.tif")
    assert unet.read_image(tmp_path / "stack.tif", "ZYX").axes == "CZYX"


REPORT = """\
dataset,model,class,metric,mean,low,high,n,pooled,best,difference,difference_low,difference_high,clear,p,units,far
d,m,all,ap_0.50,0.5,,0.75,3,0.625,m,,,,,,3,0
"""


def test_the_tables_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "report.csv").write_text(REPORT, encoding="utf-8")
    for model_name in ("m", "n"):
        path = tmp_path / "d" / model_name / "metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_text(
            "dataset,model,fold,image,group,class,metric,value,weight\n"
            f"d,{model_name},0,a,,all,ap_0.50,0.5,4\nd,{model_name},ensemble,b,,all,ap50,,\n"
        )
    (tmp_path / "d" / "report.csv").write_text(REPORT, encoding="utf-8")
    for where in (tmp_path, tmp_path / "report.csv", str(tmp_path / "d")):
        report = unet.read_report(where)
        assert report.loc[0, ["mean", "n", "pooled"]].tolist() == [0.5, 3, 0.625]
        assert np.isnan(report.loc[0, "low"])
        assert report["n"].dtype == np.int64
    each = unet.read_report(tmp_path, "images")
    assert each["model"].tolist() == ["m", "m", "n", "n"]
    assert each["value"].tolist()[0] == 0.5
    assert each["value"].isna().tolist() == [False, True] * 2
    assert len(unet.read_report(tmp_path / "d" / "n", "images")) == 2
    assert len(unet.read_report(tmp_path / "d" / "n" / "metrics.csv", "images")) == 2
    with pytest.raises(UserError, match=r"no report.csv here; give the results folder"):
        unet.read_report(tmp_path / "d" / "m")
    with pytest.raises(ValueError, match="scores: got 'all'; write 'means' or 'images'"):
        unet.read_report(tmp_path, "all")
