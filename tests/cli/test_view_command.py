"""`unet view`: the layers of results, and napari itself where it is installed (make view-test)."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.conftest import StoreMaker
from unet.cli import main
from unet.cli.view_command import add_layers
from unet.data.records import ImageRecord, write_manifest
from unet.data.store import OwnGrid
from unet.errors import UserError
from unet.export.ome_zarr_collection import create_collection, list_images
from unet.export.ome_zarr_writer import Pyramid, create_image, create_labels
from unet.paths import Paths
from unet.report.view_layers import LayerData, find_result, layers_of

HEAD = ("background", "foreground")
SHAPE = (140, 160)


def write_segmentation(store: Path, shapes: dict[str, tuple[int, ...]], size: Any) -> None:
    """A segmentation.zarr with the probabilities and labels of images of these shapes."""
    create_collection(store, "0.5")
    for number, (image, shape) in enumerate(shapes.items()):
        coarse = (*shape[:-2], -(-shape[-2] // 2), -(-shape[-1] // 2))
        pyramid = Pyramid((shape, coarse), None if size is None else tuple(size))
        axes = "CYX" if len(shape) == 2 else "CZYX"
        about = {"head": list(HEAD), "part": "test", "axes": axes, "pixel_size_um": size}
        levels = create_image(store / image, pyramid, "float16", HEAD, {"unet": about})
        dtypes: dict[str, Any] = {"classes": "uint8", "instances": "uint32"}
        labels = create_labels(store / image, pyramid, dtypes, HEAD, 2)
        for level in levels:
            level[...] = np.zeros(level.shape, np.float16)
            level[1] = np.full(level.shape[1:], 0.25 + number / 4, np.float16)
        for level in labels["classes"]:
            level[...] = np.ones(level.shape, np.uint8)
        for level in labels["instances"]:
            level[...] = np.full(level.shape, number + 3, np.uint32)
    list_images(store, {name: (2, *shape) for name, shape in shapes.items()}, "0.5")


def named(layers: list[LayerData]) -> dict[str, LayerData]:
    found = {layer[1]["name"]: layer for layer in layers}
    assert len(found) == len(layers)
    return found


def finest(layer: LayerData) -> Any:
    return layer[0][0] if layer[1]["multiscale"] else layer[0]


@pytest.fixture
def results(make_store: StoreMaker) -> Paths:
    """Dataset d with images c and d, predicted by two models."""
    paths, _ = make_store(shapes=(SHAPE,) * 4, channels=2)
    for model in ("m", "n"):
        store = paths.segmentation("d", model, 0)
        write_segmentation(store, {"c": SHAPE, "d": SHAPE}, [0.5, 0.5])
    return paths


def test_the_layers_of_a_fold(results: Paths) -> None:
    result = find_result(results.fold("d", "m", 0))
    assert result.images == ["c", "d"]
    layers = named(layers_of(result, "d"))
    assert list(layers) == [
        "image: channel 0", "image: channel 1", "probability of background",
        "probability of foreground", "instances", "truth",
    ]  # fmt: skip
    for data, options, kind in layers.values():
        assert options["scale"] == (0.5, 0.5)
        assert options["units"] == ("um", "um")
        array = finest((data, options, kind))
        assert hasattr(array, "dask"), "it must be lazy"
        assert array.shape == SHAPE
    assert [kind for _, _, kind in layers.values()] == ["image"] * 4 + ["labels"] * 2
    prepared = OwnGrid(results.prepared("d"))
    shown = np.asarray(finest(layers["image: channel 1"]))
    np.testing.assert_array_equal(shown, prepared.image("d")[1])
    np.testing.assert_array_equal(np.asarray(finest(layers["truth"])), prepared.instances("d"))
    assert (np.asarray(finest(layers["instances"])) == 4).all()
    assert (np.asarray(finest(layers["probability of foreground"])) == 0.5).all()
    assert layers["instances"][1]["multiscale"]
    assert [a.shape for a in layers["instances"][0]] == [(140, 160), (70, 80)]
    low, high = layers["image: channel 0"][1]["contrast_limits"]
    assert low < high
    # Without a name the first image, and the store itself stands for its fold.
    first = named(layers_of(find_result(results.segmentation("d", "m", 0))))
    assert (np.asarray(finest(first["instances"])) == 3).all()


def test_the_layers_of_a_dataset(results: Paths) -> None:
    layers = named(layers_of(find_result(results.dataset("d"))))
    assert {"m/fold-0: instances", "n/fold-0: instances", "truth"} <= set(layers)
    visible = [name for name, layer in layers.items() if layer[1].get("visible", True)]
    assert visible == ["image: channel 0", "image: channel 1", "m/fold-0: instances"]
    model = find_result(results.fold("d", "m", 0).parent)
    assert [one.name for one in model.predictions] == [""]


def test_the_output_of_predict(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, photos = tmp_path / "out", tmp_path / "photos"
    out.mkdir()
    photos.mkdir()
    write_segmentation(out / "segmentation.zarr", {"v": (4, 20, 24)}, None)
    pixels = np.arange(4 * 20 * 24, dtype=np.uint16).reshape(4, 20, 24)
    tifffile.imwrite(photos / "v.tif", pixels, metadata={"axes": "ZYX"}, ome=True)
    write_manifest(out / "manifest.csv", [ImageRecord("v", "v.tif", axes="CZYX")])
    layers = named(layers_of(find_result(out)))
    assert "image" not in layers
    assert "give its folder with --images" in caplog.text
    layers = named(layers_of(find_result(out, photos)))
    np.testing.assert_array_equal(np.asarray(finest(layers["image"])), pixels)
    # Without a pixel size: pixels, no units.
    assert layers["image"][1]["scale"] == (1.0, 1.0, 1.0)
    assert "units" not in layers["image"][1]
    with pytest.raises(UserError, match=r"--images: .*v.tif is missing"):
        find_result(out, tmp_path)


def test_a_large_image_is_lazy_and_has_levels(make_store: StoreMaker) -> None:
    paths, _ = make_store(shapes=((4200, 60),))
    write_segmentation(paths.segmentation("d", "m", 0), {"a": (4200, 60)}, [0.5, 0.5])
    layers = named(layers_of(find_result(paths.fold("d", "m", 0))))
    assert [a.shape for a in layers["image"][0]] == [(4200, 60), (2100, 30), (1050, 15)]
    assert [a.shape for a in layers["truth"][0]] == [(4200, 60), (2100, 30), (1050, 15)]


def test_the_command_line(
    results: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    fold = str(results.fold("d", "m", 0))
    assert main.main(["view", fold, "--list"]) == 0
    assert capsys.readouterr().out == "c\nd\n"
    assert main.main(["view", str(tmp_path), "--list"]) == 2
    assert "no segmentation.zarr here; give the folder of a fold" in capsys.readouterr().err
    monkeypatch.setattr("unet.cli.view_command.find_spec", lambda name: None)
    assert main.main(["view", fold]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert 'pip install "unet-pipeline[view]"' in err
    monkeypatch.setattr("unet.cli.view_command.find_spec", lambda name: True)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert main.main(["view", fold]) == 2
    assert "needs a display" in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":7")
    assert main.main(["view", fold, "--image", "cc"]) == 2
    assert "--image: no 'cc'; there are: c, d; did you mean c?" in capsys.readouterr().err
    opened: list[list[LayerData]] = []
    monkeypatch.setattr(
        "unet.cli.view_command.open_viewer", lambda layers, title: opened.append(layers)
    )
    assert main.main(["view", fold]) == 0
    assert "c of 2 images; --image shows another: d" in capsys.readouterr().err
    assert len(opened) == 1


napari_needed = pytest.mark.skipif(
    find_spec("napari") is None, reason="napari is not installed (make view-test)"
)


@napari_needed
def test_napari_takes_the_layers(results: Paths) -> None:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # napari's own
        from napari.components import ViewerModel

        viewer = ViewerModel()
        add_layers(viewer, layers_of(find_result(results.dataset("d"))))
        names = [layer.name for layer in viewer.layers]
        assert "truth" in names
        assert "m/fold-0: instances" in names
        layer = viewer.layers["m/fold-0: instances"]
        assert tuple(layer.scale) == (0.5, 0.5)
        assert layer.multiscale
        assert {str(unit) for unit in layer.units} == {"micrometer"}


@napari_needed
@pytest.mark.skipif(
    not os.environ.get("DISPLAY"), reason="no display: run with xvfb-run -a to test the window"
)
def test_the_window(results: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import napari

        viewer = napari.Viewer(show=True)
        try:
            add_layers(viewer, layers_of(find_result(results.dataset("d"))))
            picture = viewer.screenshot(flash=False)
        finally:
            viewer.close()
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 10
