"""Packages of the BioImage Model Zoo: the zoo's own tools accept them and compute our numbers."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.zoo import CONVERTS, SYSTEMS, TESTS, TEXTS, WRITES, image_of, package, system
from unet.config.sections import NormalizeSection
from unet.data.normalize import ImageStatistics, apply, describe
from unet.errors import UserError
from unet.models import zoo_package
from unet.models.inference import Predictor
from unet.models.zoo_example import normalised, predicted
from unet.models.zoo_layers import sizes_of
from unet.models.zoo_steps import steps_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name of a system -> its package with all weights, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("packages"), dict[str, Path]()

    def package_of(name: str) -> Path:
        if name not in made:
            path = folder / f"{name}.bioimageio.zip"
            made[name] = package(path, system(name), ("torchscript", "onnx"))
        return made[name]

    return package_of


def described(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        found: dict[str, Any] = yaml.safe_load(archive.read(zoo_package.DESCRIPTION))
    return found


def content(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


@TESTS
@pytest.mark.parametrize("name", SYSTEMS)
def test_the_zoo_accepts_it(name: str, packages: Any, tmp_path: Path) -> None:
    """``bioimageio test``: the format, and the test output from each format of the weights, at
    several sizes."""
    command = [sys.executable, "-m", "bioimageio.core", "test", str(packages(name))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for weights in ("pytorch_state_dict", "torchscript", "onnx"):
        assert "Reproduce test outputs from test inputs" in done.stdout
        assert weights in done.stdout


@pytest.fixture(params=SYSTEMS)
def pipeline(request: Any, packages: Any) -> Iterator[tuple[str, Any]]:
    from bioimageio.core import create_prediction_pipeline
    from bioimageio.spec import ValidationContext, load_model_description

    with ValidationContext(perform_io_checks=False):
        model = load_model_description(packages(request.param))
        with create_prediction_pipeline(model, weight_format="pytorch_state_dict") as found:
            yield request.param, found


def zoo_result(pipeline: Any, image: np.ndarray, tile: dict[str, int] | None) -> np.ndarray:
    """The zoo's probabilities [K, *S] of an image [C, *S]."""
    from bioimageio.core import Sample, Tensor
    from bioimageio.core.axis import AxisId
    from bioimageio.core.common import MemberId

    dims = ("batch", "channel", *"zyx"[1 - image.ndim :])
    sample = Sample(
        members={MemberId("input"): Tensor(image[None], tuple(map(AxisId, dims)))}, stat={}, id="a"
    )
    if tile is None:
        found = pipeline.predict_sample_without_blocking(sample)
    else:
        shape = {"batch": 1, "channel": image.shape[0], **tile}
        blocks = {MemberId("input"): {AxisId(axis): size for axis, size in shape.items()}}
        found = pipeline.predict_sample_with_fixed_blocking(sample, blocks)
    result: np.ndarray = np.asarray(found.members[MemberId("output")].data)[0]
    return result


@TESTS
@pytest.mark.filterwarnings("ignore")
def test_tiles_of_the_zoo_equal_the_whole_and_ours(pipeline: tuple[str, Any]) -> None:
    name, runner = pipeline
    model, sizes = system(name), sizes_of(system(name))
    tile = {axis: s.least + (s.step if s.step > 1 else 20)
            for axis, s in zip("zyx"[-len(sizes) :], sizes, strict=True)}  # fmt: skip
    shape = tuple(2 * n for n in tile.values())
    image = image_of(shape)
    # With its statistics of the whole image, as blocks are computed.
    tiled = zoo_result(runner, image.copy(), tile)
    assert tiled.shape == (2, *shape)
    seen = normalised(model, image)
    predictor = Predictor([model.network()], CPU, "float32")
    if any(fp.margin for fp in predictor.footprint):
        expected = predictor.whole(seen)
    else:
        # The zoo mirrors the image by the halo; the mirrored part is cut off again.
        halo = [(size.halo, size.halo) for size in sizes]
        inner = tuple(slice(a, -b) for a, b in halo)
        mirrored = np.pad(seen, [(0, 0), *halo], mode="reflect")
        expected = predictor.whole(mirrored)[(slice(None), *inner)]
        # Further inside, it is what we predict for the image itself.
        whole = predictor.whole(seen)
        np.testing.assert_allclose(tiled[(slice(None), *inner)], whole[(slice(None), *inner)],
                                   atol=1e-4, rtol=0)  # fmt: skip
    np.testing.assert_allclose(tiled, expected, atol=1e-4, rtol=0)


@CONVERTS
@pytest.mark.parametrize("name", SYSTEMS)
def test_onnx_of_any_size_equals_ours(name: str, packages: Any) -> None:
    import onnx
    import onnxruntime

    model, file = system(name), content(packages(name), "weights.onnx")
    opsets = {each.domain: each.version for each in onnx.load_from_string(file).opset_import}
    assert described(packages(name))["weights"]["onnx"]["opset_version"] == opsets[""]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for steps in (0, 1, 3):
        # Another size along each axis.
        shape = [s.least + (steps + i) * s.step for i, s in enumerate(sizes_of(model))]
        image = random.normal(size=(1, *shape)).astype(np.float32)
        (found,) = session.run(["output"], {"input": image[None]})
        np.testing.assert_allclose(found[0], predicted(model, image), atol=1e-4, rtol=0)
    if model.architecture.dims == 2:
        shape = [s.least for s in sizes_of(model)]
        batch = random.normal(size=(3, 1, *shape)).astype(np.float32)
        (found,) = session.run(["output"], {"input": batch})
        for one, image in zip(found, batch, strict=True):
            np.testing.assert_allclose(one, predicted(model, image), atol=1e-4, rtol=0)


# PyTorch prefers torch.export, which the zoo's format does not have.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@CONVERTS
@pytest.mark.parametrize("name", SYSTEMS)
def test_torchscript_of_any_size_equals_ours(name: str, packages: Any) -> None:
    model = system(name)
    script = torch.jit.load(io.BytesIO(content(packages(name), "weights.torchscript.pt")))
    random = np.random.default_rng(0)
    for steps in (0, 1, 3):
        shape = [s.least + (steps + i) * s.step for i, s in enumerate(sizes_of(model))]
        image = random.normal(size=(1, *shape)).astype(np.float32)
        with torch.no_grad():
            found = script(torch.from_numpy(image[None]))[0].numpy()
        np.testing.assert_allclose(found, predicted(model, image), atol=1e-4, rtol=0)


@CONVERTS
def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    """In each new process, in any folder; and no folder of this machine is in a package."""
    code = (
        "import pathlib, tests.zoo as zoo; "
        "zoo.package(pathlib.Path('a.zip'), zoo.system('unet-bn'), ('torchscript', 'onnx'))"
    )
    root, made = Path(__file__).resolve().parents[2], list[Path]()
    for name in ("here", "there"):
        (folder := tmp_path / name).mkdir()
        env = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": str(len(made))}
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, check=True)
        made.append(folder / "a.zip")
    assert made[0].read_bytes() == made[1].read_bytes()
    with zipfile.ZipFile(made[0]) as archive:
        for name in archive.namelist():
            assert str(root).encode() not in archive.read(name), name
            assert str(tmp_path).encode() not in archive.read(name), name


@WRITES
def test_the_weights_are_tensors_alone(tmp_path: Path) -> None:
    path = package(tmp_path / "a.zip", system("unet-res"))
    state = torch.load(io.BytesIO(content(path, "weights.pt")), weights_only=True)
    assert {k: tuple(v.shape) for k, v in state.items()} == {
        k: tuple(v.shape) for k, v in system("unet-res").weights.items()
    }


METHODS: dict[str, dict[str, Any]] = {
    "percentile": {"method": "percentile", "low": 2.0, "high": 99.0, "scope": "image"},
    "zscore": {"method": "zscore", "scope": "image"},
    "minmax": {"method": "minmax", "scope": "image"},
    "none": {"method": "none", "scope": "image"},
    "dataset": {"method": "percentile", "scope": "dataset"},
    "faint": {"method": "zscore", "scope": "dataset"},
}


@TESTS
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", METHODS)
def test_normalisation_is_ours(case: str, tmp_path: Path) -> None:
    """The zoo's pre-processing of two channels of different intensities gives our values."""
    from bioimageio.core import create_prediction_pipeline
    from bioimageio.core.digest_spec import create_sample_for_model
    from bioimageio.spec import ValidationContext, load_model_description

    normalize, image = dict(METHODS[case]), image_of((80, 80), 2)
    image[1] = image[1] / (1e10 if case == "faint" else 10) + 7 * (case != "faint")
    if normalize["scope"] == "dataset":
        statistics = ImageStatistics(2, np.float32)
        statistics.update(image * np.float32(1.5))
        section = NormalizeSection(**normalize)
        statistics.select(section.low, section.high)
        statistics.refine(image * np.float32(1.5))
        normalize["statistics"] = describe(statistics, section)
    model = dataclasses.replace(system("unet-bn", channels=2), normalize=normalize)
    path = package(tmp_path / "a.zip", model)
    with ValidationContext(perform_io_checks=False):
        description = load_model_description(path)
        with create_prediction_pipeline(description) as runner:
            sample = create_sample_for_model(description, inputs={"input": image[None]})
            runner.apply_preprocessing(sample)
    (member,) = sample.members.values()
    np.testing.assert_allclose(np.asarray(member.data)[0], normalised(model, image), atol=1e-4,
                               rtol=1e-5)  # fmt: skip


def test_a_normalisation_that_the_format_lacks_is_an_error() -> None:
    with pytest.raises(UserError, match=r"prepare\.normalize: percentiles 0 and 0.5 cannot"):
        steps_of({"method": "percentile", "low": 0.0, "high": 0.5}, 2)


def test_a_very_sparse_image_is_said_to_differ() -> None:
    """Ours falls back to the whole range; other programs do not."""
    image = np.zeros((1, 60, 60), np.float32)
    image[0, 0, 0] = 1000
    section = NormalizeSection()
    statistics = ImageStatistics(1, np.float32)
    statistics.update(image)
    statistics.select(section.low, section.high)
    statistics.refine(image)
    assert apply(image, describe(statistics, section)).max() == 1
    assert any("very sparse" in n for n in steps_of(METHODS["percentile"], 2)[1])
    assert not any("very sparse" in n for n in steps_of(METHODS["minmax"], 2)[1])


@WRITES
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"license": "mine"}, r"^config: export\.license: not a licence of .* \(got 'mine'\)$"),
        ({"name": "Ä"}, r"^config: export\.name: "),
    ],
)
def test_texts_that_do_not_fit_are_one_line(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        package(tmp_path / "a.zip", system("unet-bn"), texts=dataclasses.replace(TEXTS, **change))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@given(size=st.floats(1e-3, 1e3), halo=st.integers(0, 2000))
def test_the_zoo_finds_the_halo_from_the_pixel_sizes(size: float, halo: int) -> None:
    found = zoo_package._scale(size, halo)
    assert halo * found / found == halo
    # With the next size, the product moves by halo / 2^k of its last digit, 2^k < 2 halo; after 2^k
    # sizes all remainders were seen, 0 among them.
    assert size <= found <= size * (1 + max(1, 2 * halo) * 2**-52)


@WRITES
def test_pixel_sizes_whose_products_are_rounded(tmp_path: Path) -> None:
    model = dataclasses.replace(system("unet-bn"), pixel_size_um=(0.8, 0.8))
    package(tmp_path / "a.zip", model, ())
    axes = described(tmp_path / "a.zip")["inputs"][0]["axes"]
    assert [axis["scale"] for axis in axes if axis["type"] == "space"] == pytest.approx([0.8, 0.8])


def test_missing_libraries_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        package(tmp_path / "a.zip", system("unet-bn"), ("onnx",))
    assert str(caught.value) == (
        "export needs bioimageio.spec, onnx, onnxscript, which is not installed; run "
        "pip install 'unet-pipeline[zoo]'"
    )
    assert not list(tmp_path.iterdir())
