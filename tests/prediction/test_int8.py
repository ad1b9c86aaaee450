"""int8 networks: as exact as promised, the same for any way to share or continue the work, and a
key that contains the images that they were calibrated on. PyTorch takes over where they are too
coarse; without NNCF there is one line."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zarr
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.conftest import discs
from tests.models.test_engines import network as network_of
from tests.prediction.test_predict import (
    CPU,
    content,
    counted,
    data_of,
    killed_after,
    model,
    whole,
)
from unet.config.engine_table import ENGINE_TABLE
from unet.config.geometry import footprint
from unet.config.presets import architecture_of
from unet.config.sections import PredictSection
from unet.config.stage_settings import PredictSettings
from unet.errors import UserError
from unet.models import engines
from unet.models.build import build
from unet.models.inference import Predictor
from unet.models.model_file import ModelFile, save_model
from unet.prediction.tiles.calibration import Calibration, windows_of
from unet.prediction.tiles.engine_accuracy import engine_differences, middle_piece
from unet.prediction.tiles.ensemble import Member
from unet.prediction.tiles.predict import gather, predict_fold
from unet.prediction.tiles.prediction_job import PredictionResources, Share
from unet.prediction.tiles.tile_store import Tiles

MISSING = [name for name in ("openvino", "nncf") if importlib.util.find_spec(name) is None]
needs_nncf = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} not installed (extra engines)"
)
ROOT = Path(__file__).resolve().parents[2]
SHAPES = ((48, 56), (96, 80), (61, 33), (97, 64))
PARTS: dict[str, Any] = {"b": "test", "c": "val", "d": "test"}


@pytest.fixture(scope="module")
def trained() -> ModelFile:
    """A small network that finds the discs of the test images."""
    arch = architecture_of("unet-bn", width=4, depth=1, dropout=0.0)
    network = build(1, 2, arch, 0).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    pairs = [discs(100 + i, (64, 64))[:2] for i in range(8)]
    images = torch.from_numpy(np.stack([image for image, _ in pairs]))
    classes = torch.from_numpy(np.stack([c for _, c in pairs]).astype(np.int64))
    for _ in range(40):
        loss = F.cross_entropy(network(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = {name: value.detach().clone() for name, value in network.eval().state_dict().items()}
    return replace(model(width=4), architecture=arch, weights=weights)


def job(
    store: Any,
    network: ModelFile,
    *,
    batch: Any = 2,
    threads: int = 1,
    share: Share | None = None,
    parts: Any = None,
    **section: Any,
) -> dict[str, Any]:
    values = {"tile": 40, "dtype": "float32", "engine": "openvino", "precision": "int8", **section}
    return predict_fold(
        data_of(store, [Member(Path("0.pt"), network, "key 0")], parts or PARTS),
        PredictSettings.made(predict=PredictSection(**values), device="cpu"),
        PredictionResources(batch, 1e9, threads=threads),
        share,
    )


def used(store: Any, name: str = "d") -> tuple[str, str]:
    attrs = Tiles(store[0].tiles("d", "m", 0)).attrs(name)
    return attrs["engine"], attrs["precision"]


def pixels(store: Any, name: str) -> np.ndarray:
    return whole(Tiles(store[0].tiles("d", "m", 0)), name)


# What is calibrated on, and the key (NNCF is not needed)


@given(
    st.lists(st.text("abcde", min_size=1, max_size=3), min_size=1, max_size=9, unique=True),
    st.randoms(),
)
def test_the_first_images_calibrate_and_the_next_one_checks(names: list[str], rng: Any) -> None:
    mixed = list(names)
    rng.shuffle(mixed)
    found = Calibration.of(Path("s"), mixed)
    assert list(found.images) == sorted(names)[: len(found.images)]
    assert 1 <= len(found.images) <= 4
    checked = found.checked(names)
    assert (checked in found.images) == (len(names) == 1)
    assert checked == sorted(names)[min(len(found.images), len(names) - 1)]
    assert found == Calibration.of(Path("s"), names)


@given(
    st.sampled_from([("unet-bn", 2), ("unet2015", 2), ("unet-bn", 4)]),
    st.lists(st.integers(8, 700), min_size=2, max_size=2),
)
def test_windows_fit_the_network_and_cover_the_borders(net: Any, shape: list[int]) -> None:
    fps = footprint(architecture_of(net[0], depth=net[1]))
    places = windows_of(tuple(shape), fps)
    assert 1 <= len(places) <= 16
    assert len(set(places)) == len(places)
    for axis, (size, fp) in enumerate(zip(shape, fps, strict=True)):
        spans = [place[axis] for place in places]
        assert all(fp.accepts(stop - start) for start, stop in spans)
        assert all((start + fp.margin) % fp.grid == 0 for start, _ in spans)
        assert min(start for start, _ in spans) == -fp.margin
        assert max(stop - fp.margin for _, stop in spans) > size - fp.grid


def test_the_only_image_is_checked_on_another_part(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(((700, 400),))
    fps = footprint(architecture_of("unet-bn", depth=1))
    image: Any = zarr.open_group(store[0].prepared("d") / "a", mode="r+")["image"]
    (y0, y1), (x0, x1) = middle_piece(image.shape[1:], fps)
    image[:, y0:y1, x0:x1] = 1e6
    known = Calibration.of(store[0].prepared("d"), ["a"])
    windows = known.windows(fps)
    assert windows
    assert all(w.shape == (1, 1, 128, 128) and w.max() < 1e6 for w in windows)
    # Nothing else is left of a small image.
    small = make_store(((40, 40),))
    assert len(Calibration.of(small[0].prepared("d"), ["a"]).windows(fps)) == 1


def test_only_int8_has_the_calibrated_images_in_its_key(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    data = data_of(store, [], PARTS)
    for engine, entry in ENGINE_TABLE.items():
        for precision in ("auto", *entry.precisions):
            section = PredictSection(engine=engine, precision=precision)  # type: ignore[arg-type]
            settings = PredictSettings.made(predict=section, device="cpu")
            more = {k: v for k, v in data.keyed(settings).items() if k not in settings.keyed()}
            images = [store[1]["images"][name]["key"] for name in "bc"]
            assert more == ({"calibration": images} if precision == "int8" else {})


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_other_engines_have_no_int8(engine: str) -> None:
    with pytest.raises(ValidationError, match=f"{engine} does not compute in int8; write") as error:
        PredictSection(engine=engine, precision="int8")
    assert "or engine: openvino" in str(error.value)
    with pytest.raises(UserError, match="runs on the CPU only, the device is cuda"):
        engines.check_engine("openvino", torch.device("cuda"))


def test_without_nncf_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else name)
    line = r"predict.precision: int8 needs nncf, which is not installed; run pip install"
    with pytest.raises(UserError, match=line) as error:
        engines.check_engine("openvino", CPU, "int8")
    assert "\n" not in str(error.value)
    engines.check_engine("openvino", CPU, "bfloat16")


# The result


@needs_nncf
@pytest.mark.parametrize("shape", [(48, 56), (150, 170)])
def test_it_agrees_within_the_bounds(trained: ModelFile, shape: tuple[int, int]) -> None:
    def calibrate(fps: Any) -> list[np.ndarray]:
        return [discs(i, (64, 64))[0][None] for i in range(4)]

    network = trained.network()
    int8 = Predictor([network], CPU, "int8", engine="openvino", calibrate=calibrate)
    image = discs(50, shape)[0]
    flips, mean = engine_differences(int8, image)
    assert flips <= 0.005
    assert mean <= 0.005
    # It is not the same arithmetic in disguise.
    exact = Predictor([network], CPU, "float32").whole(image)
    assert np.abs(int8.whole(image) - exact).max() > 1e-4
    np.testing.assert_allclose(int8.image(image, 40), int8.whole(image), atol=1e-5, rtol=0)


@needs_nncf
def test_volumes_and_networks_that_depend_on_the_size() -> None:
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(1, 20, 24, 28)).astype(np.float32)
    made, windows = network_of("volumes"), [volume[None, ..., :24]]
    int8 = Predictor([made], CPU, "int8", engine="openvino", calibrate=lambda fps: windows)
    exact = Predictor([made], CPU, "float32")
    # Nobody trained this network, so the bounds of a useful one do not hold.
    assert 1e-5 < np.abs(int8.whole(volume) - exact.whole(volume)).mean() < 0.02
    other = Predictor([network_of("ciresan2012")], CPU, "int8", engine="openvino",
                      calibrate=lambda fps: windows)  # fmt: skip
    with pytest.raises(UserError, match="no int8 version of this network, whose layers depend"):
        other.whole(volume[:, 0])


@needs_nncf
def test_the_same_bytes_for_any_way_to_work(  # type: ignore[no-untyped-def]
    make_store, trained: ModelFile, tmp_path: Path, monkeypatch: Any
) -> None:
    def store(name: str) -> Any:
        return make_store(SHAPES, output=tmp_path / name)

    one, batches, shards, resumed = (store(n) for n in ("one", "batches", "shards", "resumed"))
    job(one, trained)
    assert used(one) == ("openvino", "int8")
    wanted = content(one[0].tiles("d", "m", 0))

    # The number of windows per batch is recorded with the tiles, so only these are compared.
    job(batches, trained, batch=5, threads=2)
    for name in PARTS:
        assert pixels(batches, name).tobytes() == pixels(one, name).tobytes()

    folder = shards[0].tiles("d", "m", 0)
    gather(folder, [job(shards, trained, share=Share(i, 2)) for i in range(2)])
    assert content(folder) == wanted

    with killed_after(3, monkeypatch):
        job(resumed, trained)
    job(resumed, trained)
    assert content(resumed[0].tiles("d", "m", 0)) == wanted


@needs_nncf
def test_another_first_image_predicts_all_again(  # type: ignore[no-untyped-def]
    make_store, trained: ModelFile, monkeypatch: Any
) -> None:
    store, seen = make_store(SHAPES), counted(monkeypatch)
    for parts, again in ((PARTS, "bcd"), (PARTS, ""), ({"a": "test", **PARTS}, "abcd")):
        seen.clear()
        job(store, trained, parts=parts)
        assert sorted({name for batch in seen for name, _ in batch}) == list(again)


@needs_nncf
def test_too_coarse_networks_fall_back(  # type: ignore[no-untyped-def]
    make_store, trained: ModelFile, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Half of a layer's channels are a thousand times the others, which get no level."""
    store = make_store(SHAPES)
    coarse = replace(trained, weights=spread(trained))
    with caplog.at_level(logging.INFO):
        job(store, coarse)
    lines = [r.getMessage() for r in caplog.records if "against float32" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("openvino in int8 against float32: ")
    assert lines[0].endswith("; that is too much, so PyTorch in float32 is used")
    assert used(store) == ("torch", "float32")
    plain = make_store(SHAPES, output=tmp_path / "plain")
    job(plain, coarse, engine="torch", precision="float32")
    # To the byte those of a job that asked for float32, keys included.
    assert content(store[0].tiles("d", "m", 0)) == content(plain[0].tiles("d", "m", 0))


def spread(trained: ModelFile) -> dict[str, torch.Tensor]:
    """The weights of the same function with channels of very different ranges: half of the first
    normalisation's channels are scaled up, and the layer that reads them scales them down."""
    weights = {name: value.clone() for name, value in trained.weights.items()}
    for block in ("down.0", "bridge", "expand.0"):
        half = len(weights[f"{block}.norms.0.weight"]) // 2
        for name in ("weight", "bias"):
            weights[f"{block}.norms.0.{name}"][:half] *= 1000
        weights[f"{block}.convs.1.weight"][:, :half] /= 1000
    return weights


@needs_nncf
def test_nothing_is_printed_or_sent(trained: ModelFile, tmp_path: Path) -> None:
    """In a process of its own: the test runner is known to the libraries, which then send nothing,
    and they are imported here already."""
    save_model(tmp_path / "model.pt", trained)
    code = """
import socket, sys
from pathlib import Path
def refuse(*args, **more):
    raise SystemExit("a connection was opened")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy, torch
from unet.models.inference import Predictor
from unet.models.model_file import load_model
network = load_model(Path(sys.argv[1])).network()
windows = [numpy.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype("float32")]
p = Predictor([network], torch.device("cpu"), "int8", engine="openvino",
              calibrate=lambda fps: windows)
p(windows[0])

assert sys.modules["openvino_telemetry"] is None
assert "nncf" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pt")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
