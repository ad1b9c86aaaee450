"""``unet predict package.zip``: the same masks as with the model that the package was made of."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.data.test_apply_prepare import blobs, model, write
from tests.foreign import KERNEL, described, onnx_of, zipped
from tests.models.test_zoo_reading import by_hand
from unet.cli import main
from unet.files import canonical
from unet.models.model_file import save_model
from unet.prediction.apply.applied_images import short_names


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The command sets up logging for a process of its own."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    logging.captureWarnings(False)


def masks(network: Path, images: Path, out: Path, *more: str) -> dict[str, np.ndarray]:
    words = ["--threads", "1", "--device", "cpu", "--float32", "--no-page", *more]
    assert main.main(["predict", str(network), str(images), "-o", str(out), *words]) == 0
    return {path.name: tifffile.imread(path) for path in (out / "masks").iterdir()}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    write(folder / "a.ome.tif", blobs((70, 81)), 0.5)
    write(folder / "b.ome.tif", blobs((90, 64), 1), 0.2)
    return folder


def test_the_masks_are_the_same(tmp_path: Path, images: Path) -> None:
    made = model()
    save_model(tmp_path / "model.pt", made)
    path = by_hand(tmp_path / "p.bioimageio.zip", made)
    before = masks(tmp_path / "model.pt", images, tmp_path / "before")
    after = masks(path, images, tmp_path / "after")
    assert before.keys() == after.keys() == {"a.tif", "b.tif"}
    for name, mask in before.items():
        assert np.array_equal(mask, after[name])
        assert mask.max() > 0


def test_the_settings_of_the_run_are_in_the_package(tmp_path: Path, images: Path) -> None:
    made = model()
    save_model(tmp_path / "model.pt", made)
    stitch = {"threshold": 0.42, "method": "components", "min_size": 7}
    path = by_hand(tmp_path / "p.zip", made, applied=canonical({"tta": True, "stitch": stitch}))
    options = ["--threshold", "0.42", "--min-size", "7", "--tta"]
    before = masks(tmp_path / "model.pt", images, tmp_path / "before", *options)
    for name, mask in masks(path, images, tmp_path / "after").items():
        assert np.array_equal(mask, before[name])


def test_masks_do_not_say_where_the_package_lies(tmp_path: Path, images: Path) -> None:
    made, results = by_hand(tmp_path / "p.zip", model()), []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        path = Path(shutil.copy(made, tmp_path / place))
        out = tmp_path / place / "out"
        masks(path, images, out)
        results.append({mask.name: mask.read_bytes() for mask in (out / "masks").iterdir()})
        stored = [p for p in (out / "segmentation.zarr").rglob("*") if p.is_file()]
        assert stored
        assert not [p for p in stored if str(tmp_path).encode() in p.read_bytes()]
    assert results[0] == results[1]
    assert b'"models": {"p.zip": ' in results[0]["a.tif"]


def test_names_of_models_in_results() -> None:
    known = {
        "/home/ada/res/cells/unet/fold-0/model.pt": "cells/unet/fold-0/model.pt",
        "/res/cells/unet/fold-1/model.pt": "cells/unet/fold-1/model.pt",
        "/other/cells/unet/fold-1/model.pt": "cells/unet/fold-1/model.pt (2)",
        "/cells/unet/fold-2/model.pt": "cells/unet/fold-2/model.pt",
        "/home/ada/x/model.pt": "model.pt",
        "/home/ada/fold-0/p.zip": "p.zip",
        "/p.zip": "p.zip (2)",
    }
    assert short_names(list(map(Path, known))) == {Path(p): n for p, n in known.items()}


def test_a_package_of_another_program(tmp_path: Path, images: Path) -> None:
    pytest.importorskip("onnx", reason="onnx not installed (extra engines)")
    pytest.importorskip("onnxruntime", reason="onnxruntime not installed (extra engines)")
    kernel = KERNEL * 50  # steep: the mask is where the smoothed image is above its mean
    path = zipped(tmp_path / "p.zip", described(), {"net.onnx": onnx_of(kernel)})
    found = masks(path, images, tmp_path / "out", "--min-size", "0")["a.tif"]
    image = blobs((70, 81)).astype(np.float64)
    assert ((found > 0) == (image > image.mean())).mean() > 0.9


def test_a_method_of_the_package_that_does_not_fit(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody gave --method; the folder of results, which was there, stays as it was."""
    path = by_hand(tmp_path / "p.zip", model(),
                   applied=canonical({"tta": False, "stitch": {"method": "grow"}}))  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    assert main.main(["predict", str(path), str(images), "-o", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the run that trained the model makes objects by method grow" in line
    assert line.endswith("give --method components")
    assert not [*out.iterdir()]


def test_one_line_for_what_is_not_known(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zipped(tmp_path / "p.zip", described(weights={"tensorflow_js": {}}), {})
    assert main.main(["predict", str(path), str(images), "-o", str(tmp_path / "out")]) == 2
    assert "only onnx is applied" in capsys.readouterr().err
