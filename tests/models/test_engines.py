"""Engines agree with PyTorch in float32; a missing or too coarse engine is reported."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from unet.config.engine_table import ENGINE_TABLE
from unet.config.presets import architecture_of
from unet.errors import UserError
from unet.models import engines
from unet.models.build import build
from unet.models.inference import Predictor
from unet.prediction.tiles import engine_accuracy

CPU = torch.device("cpu")
OTHERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            any(importlib.util.find_spec(package) is None for package in engine.packages),
            reason=f"{', '.join(engine.packages)} not installed (extra engines)",
        ),
    )
    for name, engine in ENGINE_TABLE.items()
    if name != "torch"
]
NETWORKS: dict[str, dict[str, Any]] = {
    "unet-bn": {"width": 4, "depth": 2},
    "unet2015": {"width": 4, "depth": 1},
    "unet-res": {"width": 4, "depth": 1},
    "volumes": {"width": 2, "depth": 1, "dims": 3},
    "ciresan2012": {"window": 17, "stages": [[4, 4], [4, 4]], "hidden": [8]},
}


def network(name: str) -> Any:
    arch = architecture_of("unet-res" if name == "volumes" else name, **NETWORKS[name])
    made = build(1, 2, arch, 0)
    # Statistics as after a training: with those of a new network, some layers do nothing.
    generator = torch.Generator().manual_seed(0)
    for key, value in made.state_dict().items():
        if "running_var" in key or key.endswith("variance"):
            value.uniform_(0.5, 2.0, generator=generator)
    return made


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_engines_agree(engine: Any, name: str) -> None:
    made = network(name)
    exact = Predictor([made], CPU, "float32")
    other = Predictor([made], CPU, "float32", engine=engine)
    shape = (20, 24, 28) if name == "volumes" else (61, 46)
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    np.testing.assert_allclose(other.whole(image), exact.whole(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", OTHERS)
def test_batches_symmetries_and_several_networks(engine: Any) -> None:
    made = [network("unet-bn"), build(1, 2, architecture_of("unet-bn", **NETWORKS["unet-bn"]), 1)]
    windows = np.random.default_rng(0).normal(size=(3, 1, 32, 32)).astype(np.float32)
    exact = Predictor(made, CPU, "float32", tta=True)(windows)
    other = Predictor(made, CPU, "float32", tta=True, engine=engine)
    np.testing.assert_allclose(other(windows), exact, atol=1e-5, rtol=0)
    assert other(windows).tobytes() == other(windows).tobytes()


@pytest.mark.parametrize("engine", OTHERS)
def test_tiled_equals_whole_to_the_bit(engine: Any) -> None:
    predictor = Predictor([network("unet-bn")], CPU, "float32", engine=engine)
    image = np.random.default_rng(0).normal(size=(1, 150, 64)).astype(np.float32)
    assert np.abs(predictor.image(image, 64) - predictor.whole(image)).max() <= 1e-6


def test_a_missing_engine_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"openvino needs openvino, which is not installed; run"):
        engines.check_engine("openvino", CPU)
    engines.check_engine("torch", CPU)


@pytest.mark.parametrize("engine", OTHERS)
def test_unsupported_devices_and_precisions_are_errors(engine: Any) -> None:
    with pytest.raises(UserError, match="runs on the CPU only, the device is cuda"):
        engines.check_engine(engine, torch.device("cuda"))


@pytest.mark.skipif(
    any(
        importlib.util.find_spec(package) is None
        for package in ENGINE_TABLE["onnxruntime"].packages
    ),
    reason="onnx, onnxscript, onnxruntime not installed (extra engines)",
)
def test_precisions_of_onnxruntime() -> None:
    with pytest.raises(UserError, match="onnxruntime does not compute in bfloat16; write float32"):
        Predictor([network("unet-bn")], CPU, "bfloat16", engine="onnxruntime")
    auto = Predictor([network("unet-bn")], CPU, "auto", engine="onnxruntime")
    assert auto.precision == "float32"


class Coarse(Predictor):
    """A predictor with an error of this size."""

    error = 0.0

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        p = super().__call__(batch)
        p[:, 0] += self.error
        return p


@pytest.mark.parametrize("preset", ["unet-bn", "unet2015"])
@pytest.mark.parametrize("shape", [(40, 50), (400, 300)])
def test_coarse_arithmetic_is_found_out(preset: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    predictor = Coarse([network(preset)], CPU, "float32", tta=True)
    assert engine_accuracy.engine_differences(predictor, image) == (0.0, 0.0)
    assert engine_accuracy.agrees_with_float32(predictor, image)
    predictor.error = 0.02  # of two channels: a mean of 0.01
    assert engine_accuracy.engine_differences(predictor, image)[1] == pytest.approx(0.01, abs=1e-6)
    assert not engine_accuracy.agrees_with_float32(predictor, image)
    other: Any = network(preset)
    torch.nn.init.constant_(other.heads[0].bias[1:], 1000.0)  # class 1 everywhere, by far
    predictor = Coarse([other], CPU, "float32", tta=True)
    predictor.error = 10.0
    assert engine_accuracy.engine_differences(predictor, image)[0] == 1.0
