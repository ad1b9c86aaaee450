"""Images on the device: patches cut there are those that the processor cuts, to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.test_step_on_device import Recorded, meta_trainer, no_autocast
from tests.trainings import CPU, data_of, outputs_of, settings_of
from unet.config.presets import architecture_of
from unet.models.build import build
from unet.models.model_file import load_model
from unet.training import train as train_stage
from unet.training.auto.planned import spare_memory
from unet.training.device_images import DeviceImages, device_bytes
from unet.training.patch_targets import TargetSettings
from unet.training.sampling import PatchSampler, TrainingImage
from unet.training.train import train_fold

__all__ = ["no_autocast"]


def noise(
    shape: Sequence[int], channels: int, name: str, settings: TargetSettings, cached: bool = True
) -> TrainingImage:
    rng = np.random.default_rng([len(name), *shape])
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    instances = rng.integers(0, 3, shape).astype(np.uint32)
    classes = (instances > 0).astype(np.uint8)
    return TrainingImage(name, image, classes, instances, settings, cached)


SIZES = st.one_of(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=3),
    st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=1, max_size=3),
)


@given(
    sizes=SIZES,
    patch=st.integers(1, 12),
    margin=st.integers(0, 4),
    channels=st.integers(1, 3),
    maps=st.sampled_from([(), ("distance",), ("signed-distance", "distance")]),
    step=st.integers(0, 1000),
    rows=st.sampled_from([None, slice(1, 3)]),
)
def test_the_same_patches(
    sizes: list[tuple[int, ...]],
    patch: int,
    margin: int,
    channels: int,
    maps: tuple[str, ...],
    step: int,
    rows: slice | None,
) -> None:
    """Also beyond the edges of images smaller than the patch, where they are mirrored."""
    settings = TargetSettings(maps=maps)
    images = [noise(shape, channels, "x" * i, settings) for i, shape in enumerate(sizes)]
    dims = len(sizes[0])
    sampler = PatchSampler(
        images, (patch + 2 * margin,) * dims, (margin,) * dims, batch=4, foreground=0.5, seed=3
    )
    resident = DeviceImages(images, CPU)
    places = resident.places(sampler.drawn(step, rows))
    found, wanted = resident.cut(places), sampler.batch(step, rows)
    assert resident.shape(places) == list(wanted.images.shape)
    np.testing.assert_array_equal(found["images"], wanted.images)
    np.testing.assert_array_equal(found["targets"][:, 0], wanted.targets)
    assert found["targets"].dtype == torch.uint8
    assert list(resident.maps) == sorted(maps)
    if maps:
        expected = np.concatenate([wanted.maps[name] for name in sorted(maps)], axis=1)
        np.testing.assert_array_equal(found["maps"], expected)
        assert sum(resident.maps.values()) == expected.shape[1]


def test_images_on_disk_do_not_fit() -> None:
    settings = TargetSettings(maps=("distance",))
    cached, on_disk = (noise((8, 9), 2, name, settings, name == "a") for name in ("a", "ab"))
    # Two channels and a map of 4 bytes, a target of 1.
    assert device_bytes([cached]) == 8 * 9 * (3 * 4 + 1)
    assert device_bytes([cached, on_disk]) == math.inf
    with pytest.raises(ValueError, match="ab is not in memory"):
        DeviceImages([cached, on_disk], CPU)


@pytest.mark.usefixtures("no_autocast")
def test_only_places_go_to_the_device(tmp_path: Path) -> None:
    runs = [meta_trainer(tmp_path, loss="border-ce", resident=on) for on in (False, True)]
    sent = []
    for run in runs:
        with ThreadPoolExecutor(1) as loader, Recorded() as recorded:
            batch = next(run._batches(loader))
            batch.opened()
        assert recorded.copies == ["aten._to_copy.default"]
        assert sum(recorded.operations.values()) <= 8
        sent.append(batch.parcel.size)
    # Two images and a map in float32, a target; instead of a number per row and per column.
    plan = sent[0] - 4 * 32 * 32 * (3 * 4 + 1)
    assert sent[1] <= plan + 2 * 4 * 32 * 8 + 64


def test_room_is_left_for_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(1, 2, architecture_of("unet-bn", width=32), 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8e9, 9e9))
    cuda = torch.device("cuda")
    few, many = (spare_memory(network, (256, 256), n, cuda, "bfloat16") for n in (1, 16))
    assert 0 < many < few < 8e9
    assert spare_memory(network, (256, 256), 1, CPU, "float32") == 0
    window = build(1, 2, architecture_of("ciresan2012"), 0)
    assert spare_memory(window, (65, 65), 1, cuda, "float32") == 0


@pytest.mark.parametrize("head", ["classes", "distance"])
def test_the_same_weights(
    head: str,
    make_store: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths, sentinel = make_store()
    made: list[int] = []

    class Noted(DeviceImages):
        def __init__(self, *args: Any) -> None:
            made.append(1)
            super().__init__(*args)

    monkeypatch.setattr(train_stage, "DeviceImages", Noted)
    weights = []
    for name, spare in (("a", 0.0), ("b", math.inf)):
        monkeypatch.setattr(train_stage, "spare_memory", lambda *args, spare=spare: spare)
        outputs = outputs_of(paths, name)
        train_fold(data_of(paths, sentinel), settings_of(head=head), 0, outputs)
        weights.append(load_model(outputs.model).weights)
        assert len(made) == (name == "b")
    for name, values in weights[0].items():
        assert torch.equal(values, weights[1][name])
