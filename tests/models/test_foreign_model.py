"""Models of other programs: what is known gives the right numbers, all else is refused by name."""

from __future__ import annotations

import copy
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from tests.foreign import HALO, KERNEL, axes, described, npy, onnx_of, state_dict, zipped
from unet.config.geometry import Footprint
from unet.errors import UserError
from unet.models.foreign_network import Layout
from unet.models.inference import Predictor
from unet.models.read_model import applied_model, read_model

onnx = pytest.importorskip("onnx", reason="onnx not installed (extra engines)")
pytest.importorskip("onnxruntime", reason="onnxruntime not installed (extra engines)")
CPU = torch.device("cpu")


def package(path: Path, example: np.ndarray | None = None, **changes: Any) -> Path:
    files = {"net.onnx": onnx_of()}
    if example is not None:
        files["test.npy"] = npy(example)
    return zipped(path / "p.zip", described(**changes), files)


def output(**changes: Any) -> list[dict[str, Any]]:
    return [{**copy.deepcopy(described()["outputs"][0]), **changes}]


def source(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**described()["inputs"][0], "preprocessing": list(steps)}]


def probabilities(path: Path, image: np.ndarray, tile: int = 512) -> np.ndarray:
    model = applied_model(path)
    predictor = Predictor([model.network()], CPU, "float32", head=model.head)
    return predictor.image(image[None].astype(np.float32), tile)


def smooth(image: np.ndarray) -> np.ndarray:
    return correlate(image.astype(np.float64), KERNEL.astype(np.float64), mode="mirror")


IMAGE = np.random.default_rng(0).normal(size=(45, 38)).astype(np.float32)


def test_what_it_is(tmp_path: Path) -> None:
    model = applied_model(package(tmp_path))
    assert model.normalize == {"method": "zscore", "scope": "image"}
    assert model.pixel_size_um == (0.5, 0.5)
    assert (model.head, model.task, model.in_channels) == (
        ("background", "foreground"), "instances", 1,
    )  # fmt: skip
    assert model.footprint == (Footprint(4, 0, HALO, 0, 8, 2 * HALO + 1),) * 2


@pytest.mark.parametrize("tile", [512, 20])
def test_a_sigmoid_after_it(tile: int, tmp_path: Path) -> None:
    found = probabilities(package(tmp_path), IMAGE, tile)
    want = 1 / (1 + np.exp(-smooth(IMAGE)))
    np.testing.assert_allclose(found[1], want, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)


def test_steps_of_pixels(tmp_path: Path) -> None:
    before = [
        {"id": "fixed_zero_mean_unit_variance",
         "kwargs": {"axis": "channel", "mean": [2.0], "std": [4.0]}},
        {"id": "scale_linear", "kwargs": {"gain": 3.0, "offset": -1.0}},
        {"id": "clip", "kwargs": {"min": -2.0, "max": 1.0}},
    ]  # fmt: skip
    path = package(tmp_path, inputs=source(*before))
    assert applied_model(path).normalize["method"] == "none"
    want = smooth(np.clip((IMAGE - 2.0) / 4.0 * 3.0 - 1.0, -2.0, 1.0))
    np.testing.assert_allclose(probabilities(path, IMAGE)[1], 1 / (1 + np.exp(-want)), atol=1e-6)


def test_a_threshold_after_it(tmp_path: Path) -> None:
    steps = [{"id": "sigmoid"}, {"id": "binarize", "kwargs": {"threshold": 0.6}}]
    outputs = output(postprocessing=steps, test_tensor={"source": "test.npy"})
    path = package(tmp_path, np.ones((1, 1, 8, 8), np.float32), outputs=outputs)
    want = smooth(IMAGE)
    certain = abs(want - np.log(0.6 / 0.4)) > 1e-5
    assert np.array_equal((probabilities(path, IMAGE)[1] > 0.5)[certain],
                          (want > np.log(0.6 / 0.4))[certain])  # fmt: skip


def test_probabilities_by_the_example(tmp_path: Path) -> None:
    outputs = output(postprocessing=[], test_tensor={"source": "test.npy"})
    path = package(tmp_path, np.full((1, 1, 8, 8), 0.25, np.float32), outputs=outputs)
    image = np.random.default_rng(1).uniform(size=(20, 24)).astype(np.float32)
    np.testing.assert_allclose(probabilities(path, image)[1], smooth(image), atol=1e-6)
    wrong = np.zeros((1, 1, 8, 8), np.float32)
    wrong[..., 4, 4] = 3
    path = package(tmp_path, wrong, outputs=outputs)
    with pytest.raises(UserError, match=r"an output from 0 to 3 \(not probabilities"):
        applied_model(path)


@pytest.mark.parametrize(
    ("step", "method"),
    [
        ({"id": "scale_range", "kwargs": {"axes": ["y", "x"]}}, {"method": "minmax"}),
        (
            {"id": "scale_range", "kwargs": {"axes": ["channel", "y", "x"], "min_percentile": 1,
                                             "max_percentile": 99.8, "eps": 1e-6}},
            {"method": "percentile", "low": 1.0, "high": 99.8},
        ),
        ({"id": "zero_mean_unit_variance"}, {"method": "zscore"}),
    ],
)  # fmt: skip
def test_statistics_of_the_image(step: Any, method: Any, tmp_path: Path) -> None:
    model = applied_model(package(tmp_path, inputs=source(step)))
    assert model.normalize == {"scope": "image", **method}


LINEAR = {"id": "scale_linear", "kwargs": {"gain": 2.0}}
RANGE = {"id": "scale_range", "kwargs": {"axes": ["y", "x"]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": source({"id": "cellpose_flow"})}, "cellpose_flow"),
        ({"inputs": source(LINEAR, RANGE)}, "scale_range after other steps"),
        ({"inputs": source({"id": "scale_range", "kwargs": {"axes": ["x"]}})}, "over the axes"),
        ({"inputs": source({"id": "clip", "kwargs": {"max_percentile": 9}})}, "max_percentile"),
        ({"inputs": source({"id": "scale_linear", "kwargs": {"gain": "2"}})}, "gain"),
        ({"inputs": source({"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}})}, "uint8"),
        ({"outputs": output(postprocessing=[RANGE])}, "scale_range after the network"),
        ({"outputs": output(postprocessing=[{"id": "softmax", "kwargs": {"axis": "x"}}])},
         "along axis"),
        ({"outputs": output(postprocessing=[])}, "names no file"),
        ({"outputs": output() + output()}, "2 outputs"),
        ({"outputs": []}, "0 outputs"),
        ({"outputs": output(axes=axes(-3))}, "an offset of -3"),
        ({"outputs": output(axes=axes(0, scale=1.0))}, "another size"),
        ({"outputs": output(axes=[*axes(0, halo=1), {"type": "time", "id": "t"}])}, "axis 't'"),
        ({"inputs": [{**described()["inputs"][0], "pad": {"mode": "edge"}}]}, "padding"),
        ({"weights": {"torchscript": {"source": "a.pt"}}}, "torchscript, but only onnx"),
        ({"weights": {"onnx": {"source": "net.onnx", "external_data": {"source": "a"}}}},
         "of their own"),
        ({"weights": {"onnx": {"source": "net.onnx", "sha256": "1"}}}, "sha256"),
        ({"inputs": [{"id": "raw"}]}, r"yaml is not valid \(inputs: 'axes' is missing\)"),
        ({"outputs": ["a"]}, r"bioimageio\.yaml is not valid \(outputs: "),
        ({"weights": {}}, "names no weights, but only onnx is applied"),
    ],
)  # fmt: skip
def test_what_is_not_known(changes: Any, message: str, tmp_path: Path) -> None:
    path = package(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        applied_model(path)
    assert "\n" not in str(error.value)


def clip(**values: Any) -> dict[str, Any]:
    return {"id": "clip", "kwargs": values}


def linear(**values: Any) -> dict[str, Any]:
    return {"id": "scale_linear", "kwargs": values}


def fixed(**values: Any) -> dict[str, Any]:
    return {"id": "fixed_zero_mean_unit_variance", "kwargs": values}


NAN, INF, HUGE = math.nan, math.inf, 10**400


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (clip(min=HUGE), "clip with min 1000"),
        (clip(min=NAN, max=1), "clip with min nan"),
        (clip(min=1, max=INF), "clip with max inf"),
        (clip(min=3, max=1), "clip with min 3 and max 1"),
        (linear(gain=NAN), "scale_linear with gain nan"),
        (linear(gain=0), "scale_linear with gain 0"),
        (linear(gain=1e-60), "scale_linear with gain 1e-60"),
        (linear(gain=-1, offset=1e39), "scale_linear with offset 1e"),
        (fixed(mean=1, std=NAN), "unit_variance with std nan"),
        (fixed(mean=1, std=INF), "unit_variance with std inf"),
        (fixed(mean=1, std=0), "unit_variance with std 0"),
        (fixed(mean=HUGE, std=1), "unit_variance with mean 1000"),
        ({"id": "scale_range", "kwargs": {"axes": ["y", "x"], "eps": NAN}}, "with eps nan"),
        ({"id": "zero_mean_unit_variance", "kwargs": {"eps": "a"}}, "with eps 'a'"),
    ],
)  # fmt: skip
def test_numbers_of_steps(step: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        applied_model(package(tmp_path, inputs=source(step)))
    assert "\n" not in str(error.value)


def test_numbers_that_cannot_be_written(tmp_path: Path) -> None:
    """YAML reads hexadecimal numbers of any length; Python does not write them."""
    path = package(tmp_path, inputs=source(clip(min="HERE")))
    with zipfile.ZipFile(path) as archive:
        text = archive.read("bioimageio.yaml").decode().replace("HERE", "0x" + "f" * 9000)
    with pytest.raises(UserError, match="clip with min a number of thousands of digits"):
        applied_model(zipped(path, text, {"net.onnx": onnx_of()}))


def both(**values: Any) -> dict[str, Any]:
    inputs, outputs = copy.deepcopy(described()["inputs"]), output(axes=axes(0, **values))
    inputs[0]["axes"] = axes(**values)
    return {"inputs": inputs, "outputs": outputs}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": output(axes=axes(0, halo=10**6))}, "windows of 2000004 x 2000004 px"),
        (both(scale=1e-30), "the scale 1e-30 of the axis y"),
        (both(scale=0), "the scale 0 of the axis y"),
        (both(scale=INF), "the scale inf of the axis y"),
        (both(scale="a"), "the scale 'a' of the axis y"),
        ({"tags": 5}, "is not valid"),
    ],
)
def test_numbers_of_axes(changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        applied_model(package(tmp_path, **changes))
    assert "\n" not in str(error.value)


def header(shape: str, dtype: str = "<f8") -> bytes:
    told = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00v\x00" + told.ljust(117).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(1, 1, 999999, 9999999)"), "claims .*, but 0 bytes follow"),
        (header("(-1, -1, 2, 2)") + bytes(32), "claims"),
        (npy(np.zeros((1, 1, 16, 16)))[:-1], "claims .*, but 2047 bytes follow"),
        (npy(np.full((1, 1, 9, 9), "x")), "values of the type <U1, not numbers"),
        (header("(1,)", "|O"), "not numbers"),
        (b"hello", r"test\.npy', the example of the output, is damaged"),
        (b"", "the example of the output, is damaged"),
    ],
)
def test_a_damaged_example(content: bytes, message: str, tmp_path: Path) -> None:
    about = described(outputs=output(postprocessing=[], test_tensor={"source": "test.npy"}))
    path = zipped(tmp_path / "p.zip", about, {"net.onnx": onnx_of(), "test.npy": content})
    with pytest.raises(UserError, match=message) as error:
        applied_model(path)
    assert "test.npy" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_fixed_size(tmp_path: Path) -> None:
    inputs = copy.deepcopy(described()["inputs"])
    inputs[0]["axes"][2]["size"] = 256
    with pytest.raises(UserError, match="the size 256 of the axis y"):
        applied_model(package(tmp_path, inputs=inputs))


def test_an_onnx_file_that_is_none(tmp_path: Path) -> None:
    model = applied_model(zipped(tmp_path / "p.zip", described(), {"net.onnx": b"nothing"}))
    with pytest.raises(UserError, match="ONNX Runtime does not read it"):
        model.network()


@pytest.mark.parametrize("order", ["bcyx", "byxc", "yx", "cxy", "bxy"])
def test_any_order_of_the_axes(order: str) -> None:
    layout, x = Layout(order), torch.arange(20.0).reshape(1, 1, 4, 5)
    array = layout.from_ours(x)
    assert list(array.shape) == [{"b": 1, "c": 1, "y": 4, "x": 5}[axis] for axis in order]
    assert torch.equal(layout.to_ours(array), x)


def test_tensors_to_start_from(tmp_path: Path) -> None:
    content = state_dict({"down.0.weight": torch.ones(2, 1, 3, 3), "epoch": 3})
    about = described(weights={"pytorch_state_dict": {"source": "w.pt"}})
    model = read_model(zipped(tmp_path / "p.zip", about, {"w.pt": content}))
    assert list(model.weights) == ["down.0.weight"]
    assert model.normalize["method"] == "zscore"
    with pytest.raises(UserError, match="pytorch_state_dict"):
        read_model(package(tmp_path))
