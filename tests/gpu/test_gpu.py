"""What only a device can tell: its numbers, that it is never waited for, and what happens when its
memory runs out.

``make gpu`` runs them. UNET_TEST_DEVICE names the device (cuda); with cpu, the tests that have a
meaning there try themselves out.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.models.test_exact import picture
from tests.models.test_exact import predictor as scaled
from tests.trainings import augmentation
from unet.config.presets import architecture_of
from unet.config.sections import PredictPrecision, TrainSection
from unet.errors import UserError
from unet.models.build import build
from unet.models.inference import Predictor
from unet.prediction.tiles.worker import Batching, begin, joined
from unet.training.augment import Augment
from unet.training.checkpoint import Checkpoints
from unet.training.device_images import DeviceImages
from unet.training.losses import make_loss
from unet.training.patch_targets import TargetSettings
from unet.training.ranks import Ranks
from unet.training.sampling import PatchSampler, TrainingImage
from unet.training.trainer import Trainer

CPU = torch.device("cpu")
DEVICE = torch.device(os.environ.get("UNET_TEST_DEVICE", "cuda"))
HERE = DEVICE.type == "cpu" or torch.cuda.is_available()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HERE, reason="there is no GPU; UNET_TEST_DEVICE=cpu tries some of them"),
]
on_gpu = pytest.mark.skipif(DEVICE.type != "cuda", reason="has a meaning on a GPU only")
# docs/prediction.md: between engines and devices, and of tiles where they are not exact.
BOUND = 1e-5
PRESETS = ("unet-bn", "unet2015", "unet-res")
STEPS = 12


def network_of(preset: str = "unet-bn", width: int = 16, **layers: Any) -> Any:
    """Random weights; scores of about 1."""
    return scaled(architecture_of(preset, width=width, **layers), 1, "abc").networks[0]


def predictor(network: Any, device: torch.device = DEVICE, precision: str = "float32") -> Predictor:
    wanted: PredictPrecision = precision  # type: ignore[assignment]
    return Predictor([deepcopy(network)], device, wanted)


# Numbers.


@pytest.mark.parametrize("preset", PRESETS)
def test_the_device_computes_what_the_processor_computes(preset: str) -> None:
    network, image = network_of(preset), picture((300, 340))
    expected = predictor(network, CPU).whole(image)
    assert np.abs(predictor(network).whole(image) - expected).max() <= BOUND


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("precision", "mean"), [("tf32", 0.002), ("bfloat16", 0.02)])
def test_fast_numbers_are_near(preset: str, precision: str, mean: float) -> None:
    """The networks are random, and so more sensitive to rounding than trained ones."""
    if DEVICE.type == "cpu" and precision == "tf32":
        pytest.skip("has a meaning on a GPU only")
    network, image = network_of(preset), picture((300, 340))
    expected = predictor(network, CPU).whole(image)
    found = predictor(network, precision=precision).whole(image)
    assert 0 < np.abs(found - expected).mean() <= mean


@pytest.mark.parametrize("preset", PRESETS)
def test_tiles_give_the_whole_image(preset: str) -> None:
    apply, image = predictor(network_of(preset, depth=3)), picture((431, 517))
    whole = apply.whole(image)
    for tile in (260, 340):
        assert np.abs(apply.image(image, tile) - whole).max() <= BOUND


def test_a_window_is_the_same_in_any_batch() -> None:
    apply = predictor(network_of())
    windows = np.stack([picture((160, 144)) + i for i in range(5)])
    together = apply(windows)
    for i in range(5):
        assert np.abs(apply(windows[i : i + 1])[0] - together[i]).max() <= BOUND
    np.testing.assert_array_equal(apply(windows), together)


def test_results_do_not_overwrite_each_other() -> None:
    """Several batches are on the device before the first is read."""
    apply = predictor(network_of())
    windows = [picture((160, 144))[None] * (i + 1) for i in range(6)]
    begun = [apply.begin(w) for w in windows]
    for late, w in zip(begun, windows, strict=True):
        np.testing.assert_array_equal(late.result().numpy(), apply(w))


# Training.


VALUES = {
    "batch": 4, "patch": 96, "epochs": 1, "steps_per_epoch": STEPS, "precision": "float32",
    "ema": 0.9, "checkpoint_seconds": 60,
}  # fmt: skip


def trainer(
    folder: Path,
    device: torch.device = DEVICE,
    ranks: Ranks | None = None,
    preset: str = "unet-bn",
    width: int = 8,
    resident: bool = False,
    **train: Any,
) -> Trainer:
    arch = architecture_of(preset, width=width, depth=3, dropout=0.2)
    section = TrainSection(**{**VALUES, **train})
    rng = np.random.default_rng(0)
    images = []
    for k in range(3):
        y = (np.add.outer(np.sin(np.arange(200) / 9 + k), np.cos(np.arange(180) / 7)) > 0) * 1
        x = rng.normal(size=(1, 200, 180)) + 2 * y
        images.append(
            TrainingImage(str(k), x.astype(np.float32), y.astype(np.uint8), None, TargetSettings(),
                          cached=True)
        )  # fmt: skip
    network = build(1, 2, arch, 0)
    sampler = PatchSampler(images, (section.patch,) * 2, [f.margin for f in network.footprint],
                           section.batch, 0.3, 0)  # fmt: skip
    augment = Augment(augmentation(rotate_deg=30.0, elastic_px=3.0, noise=0.1, blur_px=1.0))
    return Trainer(
        network, make_loss(section.loss, 2), sampler, augment, lambda network: (0.0, 0.0), section,
        0, device, section.precision, Checkpoints(folder, "k" * 64), ranks,
        resident=DeviceImages(images, device) if resident else None,
    )  # fmt: skip


def weights_after(run: Trainer, steps: int | None = None) -> dict[str, Tensor]:
    """The weights after the training, or after so many steps, with the state saved."""
    if steps is not None:
        done = run._done
        run._done = lambda: run.progress.step >= steps or done()  # type: ignore[method-assign]
    run.run()
    return {k: v.detach().cpu().clone() for k, v in run.network.state_dict().items()}


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Some operations of the augmentation have no deterministic version, and none that needs one.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    yield
    torch.use_deterministic_algorithms(before)
    torch.backends.cudnn.deterministic = False


@pytest.mark.filterwarnings("ignore:.*deterministic")
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("preset", ["unet-bn", "unet-res"])
def test_a_resumed_training_is_the_unbroken_one_to_the_bit(preset: str, tmp_path: Path) -> None:
    whole = weights_after(trainer(tmp_path / "whole", preset=preset))
    assert difference(whole, weights_after(trainer(tmp_path / "again", preset=preset))) == 0
    weights_after(trainer(tmp_path / "cut", preset=preset), STEPS // 2)
    assert difference(whole, weights_after(trainer(tmp_path / "cut", preset=preset))) == 0


@pytest.mark.filterwarnings("ignore:.*deterministic")
@pytest.mark.usefixtures("deterministic")
def test_images_on_the_device_change_nothing(tmp_path: Path) -> None:
    here, there = (trainer(tmp_path / str(on), resident=on) for on in (False, True))
    assert difference(weights_after(here), weights_after(there)) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*deterministic")
@pytest.mark.usefixtures("deterministic")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_a_compiled_training_is_the_plain_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = weights_after(trainer(tmp_path / "plain"), 3)
    compiled = weights_after(trainer(tmp_path / "compiled", compile=True), 3)
    assert not [r for r in caplog.records if r.levelname == "WARNING" and r.name[:5] == "unet."]
    assert difference(plain, compiled) < 1e-3


def test_resuming_differs_no_more_than_a_second_training(tmp_path: Path) -> None:
    whole = weights_after(trainer(tmp_path / "whole"))
    twice = max(
        difference(whole, weights_after(trainer(tmp_path / f"again {i}"))) for i in range(3)
    )
    weights_after(trainer(tmp_path / "cut"), STEPS // 2)
    assert difference(whole, weights_after(trainer(tmp_path / "cut"))) <= 3 * twice + 1e-7


@on_gpu
@pytest.mark.parametrize(("first", "then"), [(DEVICE, CPU), (CPU, DEVICE)])
def test_a_training_moves_to_another_device(
    first: torch.device, then: torch.device, tmp_path: Path
) -> None:
    weights_after(trainer(tmp_path, first), STEPS // 2)
    run = trainer(tmp_path, then)
    weights = weights_after(run)
    assert run.progress.step == STEPS
    assert all(bool(w.isfinite().all()) for w in weights.values())
    whole = weights_after(trainer(tmp_path / "whole", first))
    # Rounding grows with the steps.
    assert difference(whole, weights) < 0.05


@on_gpu
@pytest.mark.parametrize(
    "changes", [{"optimizer": "adamw"}, {"optimizer": "nesterov"}, {"resident": True}]
)
def test_a_step_never_waits(changes: dict[str, Any], tmp_path: Path) -> None:
    run = trainer(tmp_path, **changes)
    with ThreadPoolExecutor(1) as loader:
        batches = run._batches(loader)
        for step in range(4):
            # The first steps set up libraries.
            torch.cuda.set_sync_debug_mode("error" if step > 1 else "default")
            try:
                run._unread.append(run._step(batches))
            finally:
                torch.cuda.set_sync_debug_mode("default")
            run.progress.step += 1
    run._read_losses(0)


@on_gpu
def test_one_operation_for_all_weights_is_the_same_update(tmp_path: Path) -> None:
    fused, plain = trainer(tmp_path / "1"), trainer(tmp_path / "2")
    for group in plain.optimizer.param_groups:
        group["fused"] = None
    found = [weights_after(run, 3) for run in (fused, plain)]
    assert difference(*found) < 1e-4


@on_gpu
def test_one_rank_by_nccl(tmp_path: Path) -> None:
    alone = weights_after(trainer(tmp_path / "alone"))
    torch.cuda.set_device(0)
    dist.init_process_group("cpu:gloo,cuda:nccl", init_method=f"file://{tmp_path}/group", rank=0,
                            world_size=1)  # fmt: skip
    try:
        run = trainer(tmp_path / "nccl", ranks=Ranks(0, 1, 0))
        run.forward = torch.nn.parallel.DistributedDataParallel(
            run.network, broadcast_buffers=False
        )
        assert difference(alone, weights_after(run)) < 0.05
    finally:
        dist.destroy_process_group()


# Memory.


@pytest.fixture
def capped() -> Iterator[Any]:
    """Limits this process to so many bytes of the GPU's memory."""

    def limit(size: float) -> None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, size / torch.cuda.get_device_properties(0).total_memory)
        )

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@on_gpu
def test_a_training_without_room_computes_activations_twice(
    capped: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: dict[str, Any] = {"batch": 8, "patch": 256, "width": 32}
    torch.cuda.reset_peak_memory_stats()
    free = weights_after(trainer(tmp_path / "free", **sizes), 4)
    peak = torch.cuda.max_memory_reserved()
    capped(0.6 * peak)
    run = trainer(tmp_path / "capped", **sizes)
    with caplog.at_level(logging.WARNING):
        found = weights_after(run, 4)
    assert run.network.recompute
    assert "out of memory on the device" in caplog.text
    assert difference(free, found) < 0.05
    capped(0.02 * peak)
    with pytest.raises(UserError, match=r"train\.batch: the device has no memory"):
        weights_after(trainer(tmp_path / "none", **sizes), 4)


@on_gpu
def test_a_prediction_without_room_halves_its_batch(capped: Any) -> None:
    apply = predictor(network_of(width=32))
    windows = np.stack([picture((768, 768))] * 8)
    torch.cuda.reset_peak_memory_stats()
    expected = joined(begin(apply, windows[:1], Batching(8)))
    one = torch.cuda.max_memory_reserved()
    capped(2.5 * one)
    batching = Batching(8)
    found = joined(begin(apply, windows, batching))
    assert batching.size < 8
    assert np.abs(found - expected).max() <= BOUND
