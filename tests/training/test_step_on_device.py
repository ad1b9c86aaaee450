"""What a training step asks of its device: one copy to it, no waiting for it, few operations.

A device without memory stands in for a GPU (torch's "meta"): it computes shapes only, and every
number that is read back from it is an error.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.trainings import TINY, augmentation, data_of, outputs_of, settings_of, trainer
from unet.config.presets import architecture_of
from unet.config.sections import TrainSection
from unet.errors import UserError
from unet.models.build import build
from unet.models.transfer import ALIGNMENT, Parcel, late_sum
from unet.training.augment import Augment
from unet.training.checkpoint import Checkpoints
from unet.training.device_images import DeviceImages
from unet.training.losses import make_loss
from unet.training.packed_batch import BatchSource
from unet.training.patch_targets import TargetSettings
from unet.training.sampling import PatchSampler, TrainingImage
from unet.training.schedule import RunningAverage
from unet.training.train import train_fold
from unet.training.trainer import Trainer
from unet.training.training_job import TrainingResources

META = torch.device("meta")
ALWAYS: dict[str, Any] = {
    "rotate_deg": 30.0, "scale": 0.3, "elastic_px": 3.0, "gamma": 1.0, "contrast": 0.5,
    "brightness": 1.0, "blur_px": 1.5, "geometric_probability": 1, "intensity_probability": 1,
    "channel_dropout": 0.5,
}  # fmt: skip
# Views cost nothing on a device.
VIEWS = ("view", "expand", "slice", "select", "detach", "squeeze", "transpose", "alias", "unbind",
         "split", "permute", "aten.t.")  # fmt: skip


class Recorded(TorchDispatchMode):
    """Counts the operations, and lists the copies from the processor to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.copies: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(view in str(func) for view in VIEWS):
            self.operations[str(func)] += 1
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        if len({t.device.type for t in tensors if t.ndim}) > 1:
            self.copies.append(str(func))
        return result


@pytest.fixture
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch knows no autocast for this device; there, all is float32 anyway."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())


def meta_trainer(folder: Path, channels: int = 2, resident: bool = False, **train: Any) -> Trainer:
    section = TrainSection(**{**TINY, "batch": 4, **train})
    rng = np.random.default_rng(0)
    image = rng.normal(size=(channels, 40, 40)).astype(np.float32)
    classes = (image[0] > 0).astype(np.uint8)
    instances = classes.astype(np.uint32)
    maps = ("border-weight",) if section.loss == "border-ce" else ()
    images = [TrainingImage("x", image, classes, instances, TargetSettings(maps=maps), cached=True)]
    sampler = PatchSampler(images, (section.patch,) * 2, (0, 0), section.batch, 0.3, seed=0)
    network = build(channels, 2, architecture_of("unet-bn", width=2, depth=2), 0)
    return Trainer(
        network, make_loss(section.loss, 2, None), sampler, Augment(augmentation(**ALWAYS)),
        lambda network: (1.0, 0.5), section, 0, META, "float32", Checkpoints(folder, "k" * 64),
        resident=DeviceImages(images, META) if resident else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "border-ce"},
        {"optimizer": "nesterov", "schedule": "cosine", "ema": 0.0},
        {"clip_norm": None},
        {"resident": True},
    ],
)
@pytest.mark.usefixtures("no_autocast")
def test_a_step_copies_once_and_never_waits(changes: dict[str, Any], tmp_path: Path) -> None:
    run = meta_trainer(tmp_path, **changes)
    with ThreadPoolExecutor(1) as loader:
        batches = run._batches(loader)
        for _ in range(3):
            with Recorded() as recorded:
                run._step(batches)
            run.progress.step += 1
            # Images, targets, maps and all parameters of the augmentation in one.
            assert recorded.copies == ["aten._to_copy.default"]


@pytest.mark.usefixtures("no_autocast")
def test_each_part_of_a_step_is_one_copy(tmp_path: Path) -> None:
    run = meta_trainer(tmp_path, accumulate=3)
    with ThreadPoolExecutor(1) as loader, Recorded() as recorded:
        run._step(run._batches(loader))
    assert len(recorded.copies) == 3


def test_the_stand_in_notices_waiting_and_copies() -> None:
    """Else the tests above could not fail."""
    x = torch.ones(3, device=META)
    with pytest.raises(RuntimeError):
        x.sum().item()
    with Recorded() as recorded:
        torch.ones(3).to(META)
        torch.ones(4, 4).to(META)
    assert len(recorded.copies) == 2


@pytest.mark.parametrize("n", [4, 16, 64])
def test_augmentation_is_few_operations(n: int) -> None:
    """With the default settings; the number does not grow with the batch, except for the noise: one
    operation per sample that gets some, 15 % of them."""
    augment = Augment(TrainSection().augment)
    images, labels = torch.randn(n, 1, 32, 32), torch.zeros(n, 1, 32, 32, dtype=torch.uint8)
    for seed in range(3):
        plan = augment.plan(images.shape, torch.Generator().manual_seed(seed))
        with Recorded() as recorded:
            augment.apply(images, labels, None, plan.tensors, plan.seeds)
        assert sum(recorded.operations.values()) - len(plan.seeds) <= 95


TYPES = (torch.uint8, torch.int16, torch.uint16, torch.float32, torch.int64, torch.bool)


@given(
    st.lists(st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 5), max_size=4)), max_size=6)
)
def test_a_parcel_keeps_its_tensors(parts: list[tuple[torch.dtype, list[int]]]) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        str(i): torch.randint(0, 2, shape, generator=generator).to(dtype)
        for i, (dtype, shape) in enumerate(parts)
    }
    parcel = Parcel(tensors, META)
    assert parcel._buffer is not None
    packed = parcel._places(parcel._buffer)
    for place, sent, tensor in zip(packed, parcel.opened().values(), tensors.values(), strict=True):
        assert torch.equal(place, tensor)
        assert place.data_ptr() % ALIGNMENT == 0 or not place.numel()
        assert (sent.device, sent.dtype, sent.shape) == (META, tensor.dtype, tensor.shape)
    assert list(parcel.opened()) == list(tensors)
    # On the processor nothing is copied.
    for name, tensor in Parcel(tensors, torch.device("cpu")).opened().items():
        assert tensor is tensors[name]


def test_a_parcel_takes_any_layout() -> None:
    tensor = torch.arange(24.0).view(2, 3, 4)
    for each in (tensor.transpose(0, 2), tensor[:, ::2], tensor[:0]):
        parcel = Parcel({"a": torch.zeros(1, dtype=torch.bool), "b": each}, META)
        assert parcel._buffer is not None
        assert torch.equal(parcel._places(parcel._buffer)[1], each)


def test_a_late_number_is_a_sum_in_double_precision() -> None:
    values = [torch.tensor(0.1, requires_grad=True), torch.tensor(1e8)]
    assert late_sum(values).number() == float(torch.tensor(0.1)) + 1e8
    assert math.isnan(late_sum([torch.tensor(math.nan), torch.tensor(1.0)]).number())


# The loss is read one step late; the error is that of the step that it belongs to.


def lose(run: Trainer, steps: set[int], value: float) -> None:
    """The loss of these steps, counted from 1, becomes this value, and so do the gradients."""
    whole = run.loss

    class Lost(torch.nn.Module):
        def forward(self, *args: Any) -> Tensor:
            found: Tensor = whole(*args)
            return found * value if run.progress.step + 1 in steps else found

    run.loss = Lost()  # type: ignore[assignment]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("step", "seconds"), [(1, 1e-6), (3, 1e-6), (3, 60.0), (4, 60.0), (8, 60.0)]
)
def test_a_loss_that_is_not_finite(value: float, step: int, seconds: float, tmp_path: Path) -> None:
    """Named with its step and rate, in an epoch, at its end and at the training's; what is saved is
    from before it."""
    sizes: dict[str, Any] = {"epochs": 2, "steps_per_epoch": 4, "checkpoint_seconds": 60.0}
    run = trainer(tmp_path, **{**sizes, "checkpoint_seconds": seconds})
    lose(run, {step}, value)
    with pytest.raises(UserError, match=rf"became (nan|inf) at step {step} with learning rate"):
        run.run()
    again = trainer(tmp_path, **sizes)
    again.run()
    assert all(bool(w.isfinite().all()) for w in again.network.parameters())
    reference = trainer(tmp_path / "other", **sizes)
    reference.run()
    for a, b in zip(again.network.parameters(), reference.network.parameters(), strict=True):
        assert torch.equal(a, b)
    losses = [[row["train_loss"] for row in run.progress.history] for run in (again, reference)]
    assert losses[0] == losses[1]


def test_the_running_average_by_hand() -> None:
    """Of step k: decay d = min(ema, (1 + k) / (10 + k)); average = d average + (1 - d) new."""
    arch = architecture_of("unet-bn", width=2, depth=1)
    networks = [build(1, 2, arch, seed) for seed in range(4)]
    network = networks[0]
    average = RunningAverage(network, 0.15)
    expected = {k: v.double() for k, v in network.state_dict().items()}
    for step, (other, decay) in enumerate(zip(networks[1:], (0.1, 0.15, 0.15), strict=True)):
        network.load_state_dict(other.state_dict())
        average.update(step)
        for name, value in network.state_dict().items():
            new = value.double()
            whole = not value.is_floating_point()
            expected[name] = new if whole else decay * expected[name] + (1 - decay) * new
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=1e-6)
    assert all(
        a.data_ptr() != b.data_ptr()
        for a, b in zip(average.network.parameters(), network.parameters(), strict=True)
    )


def test_several_readers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a stop, with another number of readers, and in steps of several batches."""
    sizes = {"epochs": 2, "steps_per_epoch": 3, "accumulate": 2}
    one, other = trainer(tmp_path / "1", **sizes), trainer(tmp_path / "4", **sizes)
    other.readers = 4
    threads: set[str] = set()
    one.run()
    packed = BatchSource.packed

    def noted(self: BatchSource, index: int) -> Any:
        threads.add(threading.current_thread().name)
        # Later batches are ready first.
        time.sleep(0.02 * (3 - index % 4))
        return packed(self, index)

    monkeypatch.setattr(BatchSource, "packed", noted)
    other.run()
    assert len(threads) == 4
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("cache_gb", "readers"), [(1.0, 1), (0.0, 3)])
def test_images_on_disk_have_several_readers(
    cache_gb: float,
    readers: int,
    make_store: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    run = Trainer.run

    def noted(self: Trainer) -> None:
        seen.append(self.readers)
        run(self)

    monkeypatch.setattr(Trainer, "run", noted)
    paths, sentinel = make_store()
    resources = TrainingResources(threads=3, cache_gb=cache_gb)
    settings = settings_of(epochs=1, steps_per_epoch=2)
    train_fold(data_of(paths, sentinel), settings, 0, outputs_of(paths), resources)
    assert seen == [readers]
