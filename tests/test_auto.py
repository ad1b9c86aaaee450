"""Preset auto: what is measured, what is chosen from it and why, what is written, and that it
trains."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.step_memory import estimate, measured
from scripts.train import main as train_script
from unet import slices
from unet.config import Config, load, load_file
from unet.data.store import Prepared, add_image, add_labels, layout_of, new_image
from unet.errors import UserError
from unet.files import canonical
from unet.models.anisotropy import anisotropic_layers
from unet.models.build import build
from unet.models.engines import autocast
from unet.models.geometry import footprint
from unet.models.modelfile import load_model
from unet.models.network import parameter_counts
from unet.models.presets import Architecture, architecture_of
from unet.plan import Run
from unet.sections import TrainSection
from unet.training import fingerprint as fingerprint_module
from unet.training.auto import (
    LEAST_BOTTOM,
    MOST_BATCH,
    Plan,
    choose_plan,
    fingerprint_of,
    keep_plan,
    kept_plan,
    layers_for,
    write_plan,
)  # fmt: skip
from unet.training.fingerprint import Fingerprint, Objects
from unet.training.memory import LOSS_TENSORS, Numerics, activation_bytes, parameters
from unet.training.run import train_fold

ROOT = Path(__file__).resolve().parent.parent
GPU = Numerics("cuda", "bfloat16")
SECTION = TrainSection()


# The fingerprint ---------------------------------------------------------------------------------


Image = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def store_of(
    folder: Path,
    images: Mapping[str, Image],
    spacing: Mapping[str, list[float]] | None = None,
    classes: tuple[str, ...] = ("background", "foreground"),
) -> tuple[Prepared, dict[str, Any]]:
    """A prepared store of image [C, *S], classes [*S] and instances, and its sentinel."""
    path = folder / "prepared.zarr"
    infos = {}
    for name, (image, labels, instances) in images.items():
        where = layout_of(labels.shape, tile=32, shard=2)
        with new_image(path, name) as group:
            add_image(group, image.shape[0], labels.shape, where)[...] = image
            add_labels(group, "classes", "uint8", labels.shape, where)[...] = labels
            if instances is not None:
                add_labels(group, "instances", "uint32", labels.shape, where)[...] = instances
        infos[name] = {
            "key": f"key of {name}", "shape": list(image.shape),
            "axes": "CYX" if labels.ndim == 2 else "CZYX",
            "pixel_size_um": (spacing or {}).get(name), "labelled": True, "group": "",
            "statistics": {},
        }  # fmt: skip
    zarr.open_group(path, mode="a", zarr_format=3)
    first = next(iter(images.values()))[0]
    sentinel = {
        "images": infos, "channels": first.shape[0], "class_names": list(classes),
        "class_values": None, "task": "instances", "normalize": {"method": "none"},
    }  # fmt: skip
    return Prepared(path), sentinel


def boxes(shape: tuple[int, ...], *places: tuple[slice, ...]) -> Image:
    """Numbered boxes: image (0 and 1), classes, instances (numbered from 7)."""
    instances = np.zeros(shape, dtype=np.uint32)
    for number, place in enumerate(places, start=7):
        instances[place] = number
    labels = (instances > 0).astype(np.uint8)
    return labels[None].astype(np.float32), labels, instances


def test_a_fingerprint_by_hand(tmp_path: Path) -> None:
    a = boxes((40, 50), np.s_[2:6, 3:13], np.s_[20:30, 20:26])
    b = boxes((60, 30), np.s_[0:9, 1:3], np.s_[30:31, 5:8])  # the last: 3 pixels, a speck
    c = boxes((40, 50))
    # Not to be looked at: it would change every number.
    test = boxes((90, 91), np.s_[0:80, 0:80])
    store, sentinel = store_of(
        tmp_path, {"a": a, "b": b, "c": c, "t": test}, {"a": [0.5, 0.25], "b": [0.7, 0.35]}
    )
    found = fingerprint_of(store, sentinel, ["a", "b", "c"])
    assert (found.images, found.channels, found.dims) == (3, 1, 2)
    assert (found.shape_min, found.shape_median, found.shape_max) == ((40, 30), (40, 50), (60, 50))
    assert found.pixels == 2000 + 1800 + 2000
    assert found.seen == 1
    # The median of those that are known.
    assert found.spacing == pytest.approx((0.6, 0.3))
    foreground = 40 + 60 + 18 + 3
    assert found.shares == pytest.approx((1 - foreground / 5800, foreground / 5800))
    # A 48th of the pixels is foreground: above the 97.9th percentile.
    assert found.intensities == ((0.0, 0.0, 1.0),)
    (objects,) = found.objects
    assert (objects.name, objects.number, objects.spanning) == ("instances", 3, 0)
    assert (objects.median, objects.common, objects.largest) == ((9, 6), (10, 10), (10, 10))


def test_no_pixel_size_and_no_objects(tmp_path: Path) -> None:
    store, sentinel = store_of(tmp_path, {"a": boxes((32, 32))})
    found = fingerprint_of(store, sentinel, ["a"])
    assert found.spacing is None
    assert found.shares == (1.0, 0.0)
    assert [(o.number, o.common) for o in found.objects] == [(0, (0, 0))]
    with pytest.raises(ValueError, match="no images"):
        fingerprint_of(store, sentinel, [])


def test_components_of_classes(tmp_path: Path) -> None:
    """A net and its meshes: the net spans the image, the ignored pixels are no class."""
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[1:19, 1:19] = labels[1:19, 20:39] = labels[20:39, 5:15] = 1
    labels[39, :] = 255
    names = ("membrane", "cell")
    store, sentinel = store_of(
        tmp_path, {"a": (np.zeros((1, 40, 40), np.float32), labels, None)}, classes=names
    )
    found = fingerprint_of(store, sentinel, ["a"])
    membrane, cell = found.objects
    assert (membrane.name, membrane.number, membrane.spanning) == ("membrane", 0, 1)
    assert (cell.name, cell.number, cell.spanning) == ("cell", 3, 0)
    assert (cell.common, cell.median) == ((19, 19), (18, 18))
    cells = 18 * 18 + 18 * 19 + 19 * 10
    assert found.shares == pytest.approx((1 - cells / 1560, cells / 1560))


def test_windows_bound_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects that a window cuts are left out, those at the image's own edge are not."""
    monkeypatch.setattr(fingerprint_module, "PIXELS_AT_ONCE", 32 * 32)
    image = boxes((32, 64), np.s_[0:4, 0:4], np.s_[10:20, 25:40], np.s_[10:15, 50:64])
    store, sentinel = store_of(tmp_path, {"a": image})
    found = fingerprint_of(store, sentinel, ["a"])
    assert found.seen == 1
    assert (found.objects[0].number, found.objects[0].largest) == (2, (5, 14))
    monkeypatch.setattr(fingerprint_module, "PIXELS_IN_ALL", 32 * 32)
    found = fingerprint_of(store, sentinel, ["a"])
    assert found.seen == 0.5
    assert found.pixels == 32 * 64


@settings(max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=3), st.integers(20, 500))
def test_windows_cover_an_image_once(shape: list[int], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint_module, "PIXELS_AT_ONCE", most)
        windows = fingerprint_module._windows(np.array(shape))
    seen = np.zeros(shape, dtype=int)
    for window in windows:
        assert seen[window].size <= most
        seen[window] += 1
    assert (seen == 1).all()


def test_large_instance_numbers_are_no_large_lists() -> None:
    labels = np.array([[0, 4_000_000_000], [4_000_000_000, 9]], dtype=np.uint32)
    assert fingerprint_module._compact(labels).tolist() == [[0, 2], [2, 1]]
    assert fingerprint_module._compact(labels[1:]).tolist() == [[2, 1]]


# Layers ------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.lists(st.floats(0.05, 5), min_size=3, max_size=3))
def test_layers_of_large_patches_are_those_of_the_spacing(depth: int, spacing: list[float]) -> None:
    assert layers_for(depth, (4096,) * 3, spacing) == anisotropic_layers(depth, spacing)


def test_short_axes_are_pooled_less() -> None:
    kernels, pools = layers_for(4, (8, 64, 64), (1.0, 1.0, 1.0))
    # 8 -> 4 sections, then no more; the others go on, though they become coarser than it.
    assert pools == ((2, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2))
    assert kernels == ((3, 3, 3),) * 5
    # 15 // 2 = 7, 7 // 2 = 3: one pooling, then there are no more levels.
    assert layers_for(4, (15, 15), (1.0, 1.0)) == (((3, 3),) * 2, ((2, 2),))
    # A single section is not convolved over.
    assert layers_for(1, (1, 32, 32), (2.0, 0.5, 0.5))[0] == ((1, 3, 3), (1, 3, 3))


# The plan ----------------------------------------------------------------------------------------


def dataset(
    shape: tuple[int, ...],
    images: int = 100,
    objects: tuple[int, ...] | None = None,
    spacing: tuple[float, ...] | None = None,
) -> Fingerprint:
    """Images of one shape with 50 objects of one size."""
    kinds = () if objects is None else (Objects("instances", 50, objects, objects, objects),)
    return Fingerprint(
        images, 1, ("background", "foreground"), shape, shape, shape, images * math.prod(shape),
        spacing, ((0.0, 0.3, 1.0),), (0.8, 0.2), kinds,
    )  # fmt: skip


def said(plan: Plan, start: str) -> str:
    """The one reason that begins so."""
    (line,) = [reason for reason in plan.reasons if reason.startswith(start)]
    return line


def test_a_plan_by_hand() -> None:
    plan = choose_plan(dataset((256, 256), 500, objects=(31, 31)), SECTION, 4e9)
    # 2^19 pixels a step on a CPU: 8 whole images; 4 GB hold them.
    assert (plan.preset, plan.patch, plan.batch) == ("unet-bn", (256, 256), 8)
    assert plan.architecture == architecture_of("unet-bn", width=32, max_width=512)
    assert said(plan, "depth") == (
        "depth 4: objects of 31 x 31 px (95th percentile) need a receptive field of >= 62 x 62 px; "
        "4 poolings give 204 x 204 px"
    )
    assert said(plan, "patch") == "patch 256 x 256: the whole image"
    assert "unknown pixel size" in said(plan, "images")
    assert "of 4 GB (memory_gb)" in said(plan, "memory")
    gpu = choose_plan(dataset((256, 256), 500, objects=(31, 31)), SECTION, 40e9, numerics=GPU)
    assert (gpu.patch, gpu.batch) == ((256, 256), 16)


def test_large_objects_need_deep_networks_and_large_patches() -> None:
    shape = (2048, 2048)
    small = choose_plan(dataset(shape, objects=(20, 20)), SECTION, 60e9, numerics=GPU)
    large = choose_plan(dataset(shape, objects=(200, 300)), SECTION, 60e9, numerics=GPU)
    assert (small.architecture.depth, large.architecture.depth) == (4, 6)
    for got, need in zip(footprint(large.architecture), (400, 600), strict=True):
        assert got.receptive_field >= need
    assert all(n >= need for n, need in zip(large.patch, (400, 600), strict=True))
    # Few objects say nothing; then half a patch is to be seen.
    few = replace(dataset(shape), objects=(Objects("a", 4, (300, 300), (300, 300), (300, 300)),))
    assert "no objects to go by" in said(choose_plan(few, SECTION, 4e9), "depth")
    # The larger of two kinds decides.
    kinds = tuple(Objects(n, 9, (s, s), (s, s), (s, s)) for n, s in (("a", 150), ("b", 5)))
    both = choose_plan(replace(dataset(shape), objects=kinds), SECTION, 4e9)
    assert "objects (a) of 150 x 150 px" in said(both, "depth")


def test_small_images_allow_few_poolings() -> None:
    plan = choose_plan(dataset((50, 50), 1000, objects=(10, 10)), SECTION, 4e9)
    # 50 -> 48 -> 24 -> 12 -> 6: a fourth would leave 3.
    assert (plan.architecture.depth, plan.patch) == (3, (48, 48))
    tiny = choose_plan(dataset((5, 6), 20), SECTION, 4e9)
    assert (tiny.architecture.depth, tiny.architecture.norm) == (1, "group")
    assert "1 pooling gives" in said(tiny, "depth")


def test_few_pixels_make_a_narrow_network_and_a_small_batch() -> None:
    widths = [
        choose_plan(dataset((64, 64), n), SECTION, 4e9).architecture.width for n in (10, 400, 2000)
    ]
    assert widths == [16, 24, 32]
    plan = choose_plan(dataset((128, 128), 10), SECTION, 4e9)
    # A twentieth of ten images is half an image; two patches are the least.
    assert (plan.batch, plan.preset, plan.architecture.norm) == (2, "unet-res", "instance")
    assert "batches of 2 are too small" in said(plan, "instance")


def test_little_memory_first_takes_the_width_then_the_patch() -> None:
    def plan(memory: float) -> Plan:
        return choose_plan(dataset((512, 512), objects=(60, 60)), SECTION, memory)

    plenty, less, least = plan(8e9), plan(3e8), plan(9e7)
    assert plenty.architecture.width == 32
    assert less.architecture.width < 32
    assert all(n >= 120 for n in less.patch)
    assert least.architecture.width == 8
    assert any(n < 120 for n in least.patch)
    hopeless = plan(1e6)
    assert "more than there is" in said(hopeless, "memory")
    assert hopeless.batch == 1


def test_volumes() -> None:
    volume = dataset((30, 400, 400), 20, objects=(8, 40, 40), spacing=(1.0, 0.25, 0.25))
    plan = choose_plan(volume, SECTION, 4e9)
    arch = plan.architecture
    assert (arch.dims, arch.max_width, arch.norm) == (3, 320, "instance")
    # Four times as coarse: Z waits for two poolings.
    assert arch.pools == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert arch.kernels == ((1, 3, 3),) * 2 + ((3, 3, 3),) * 3
    assert all(n >= 2 * o for n, o in zip(plan.patch, (8, 40, 40), strict=True))
    assert "voxels of 1 x 0.25 x 0.25 um" in said(plan, "kernels")
    same = choose_plan(volume, SECTION, 4e9, anisotropic=False)
    assert set(same.architecture.kernels or ()) == {(3, 3, 3)}
    # The poolings stop at 4 sections, whatever their distance.
    pools = same.architecture.pools or ()
    assert math.prod(p[0] for p in pools) * LEAST_BOTTOM <= 30


def test_what_the_user_gives_holds() -> None:
    data = dataset((512, 512), objects=(30, 30))
    section = TrainSection(patch=200, batch=3)
    plan = choose_plan(data, section, 4e9, given=("patch", "batch"))
    assert (plan.patch, plan.batch) == ((192, 192), 3)
    assert said(plan, "patch") == "patch 192 x 192: train.patch, fitted to the network's grid"
    assert said(plan, "batch") == "batch 3: train.batch"
    assert plan.preset == "unet-res"
    # Not given: the section's numbers are but defaults.
    assert choose_plan(data, section, 4e9) == choose_plan(data, SECTION, 4e9)
    with pytest.raises(UserError, match=r"train\.patch: got \[8, 64, 64\]; the images have 2"):
        choose_plan(data, TrainSection(patch=(8, 64, 64)), 4e9, given=["patch"])


def test_processes_share_the_batch() -> None:
    data = dataset((256, 256), 2000, objects=(30, 30))
    assert choose_plan(data, SECTION, 40e9, numerics=GPU, processes=3).batch == 15
    assert choose_plan(dataset((64, 64), 4), SECTION, 4e9, processes=4).batch == 4


def test_unsound_intensities_are_told() -> None:
    data = replace(dataset((64, 64)), intensities=((100.0, 900.0, 4000.0),))
    assert "prepare.normalize" in said(choose_plan(data, SECTION, 4e9), "intensities")
    assert "prepare.normalize" not in said(choose_plan(dataset((64, 64)), SECTION, 4e9), "inten")


@st.composite
def datasets(draw: st.DrawFn) -> Fingerprint:
    dims = draw(st.sampled_from((2, 3)))
    shape = tuple(draw(st.integers(1 if a == dims - 3 else 8, 1200)) for a in range(dims))
    size = tuple(draw(st.integers(1, n)) for n in shape)
    spacing = tuple(draw(st.floats(0.1, 2)) for _ in shape)
    known = draw(st.booleans())
    return dataset(
        shape, draw(st.integers(1, 3000)), size if draw(st.booleans()) else None,
        spacing if known else None,
    )  # fmt: skip


def config_of(models: dict[str, Any]) -> Config:
    source = {"synthetic": {"kind": "nuclei"}, "task": "instances"}
    return load({"datasets": {"d": source}, "models": models})


@settings(max_examples=25)
@given(datasets(), st.floats(2e8, 1e11), st.sampled_from((Numerics(), GPU)), st.integers(1, 4))
@example(dataset((6, 300, 300), 9, (4, 20, 20), (2.0, 0.2, 0.2)), 4e9, Numerics(), 1)
def test_every_plan_is_sound(
    data: Fingerprint, memory: float, numerics: Numerics, processes: int
) -> None:
    plan = choose_plan(data, SECTION, memory, numerics=numerics, processes=processes)
    arch = plan.architecture
    assert arch.dims == data.dims
    for size, image, fp in zip(plan.patch, data.shape_median, footprint(arch), strict=True):
        assert fp.accepts(size)
        assert size <= max(image, fp.grid)
        assert fp.grid <= 2 or size // fp.grid >= LEAST_BOTTOM
    assert plan.batch % processes == 0
    assert 1 <= plan.batch <= MOST_BATCH
    assert 8 <= arch.width <= 32
    assert len(plan.reasons) == len(set(plan.reasons)) >= 9
    assert all("\n" not in reason for reason in plan.reasons)
    again = choose_plan(data, SECTION, memory, numerics=numerics, processes=processes)
    assert again == plan
    # As a config it is the same network, patch and batch.
    config = config_of({"mine": plan.section})
    assert config.architecture_for("mine") == arch
    train = config.train_for("d", "mine")
    assert (train.patch, train.batch) == (plan.patch, plan.batch)


def test_the_planning_needs_no_torch() -> None:
    code = "import sys, unet.training.auto; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# What is written ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(300, 400), (5, 6), (20, 90, 120)])
def test_the_written_plan_is_a_config(tmp_path: Path, shape: tuple[int, ...]) -> None:
    plan = choose_plan(dataset(shape), SECTION, 4e9)
    path = tmp_path / "deep" / "plan.yaml"
    write_plan(path, plan)
    text = path.read_text(encoding="utf-8")
    assert all(f"# {reason}\n" in text for reason in plan.reasons)
    read = yaml.safe_load(text)
    config = config_of(read["models"])
    (name,) = read["models"]
    assert config.architecture_for(name) == plan.architecture
    train = config.train_for("d", name)
    assert (train.patch, train.batch) == (plan.patch, plan.batch)
    assert [p.name for p in path.parent.iterdir()] == ["plan.yaml"]


def test_a_kept_plan_comes_back(tmp_path: Path) -> None:
    plan = choose_plan(dataset((20, 90, 120)), SECTION, 4e9)
    assert kept_plan(tmp_path / "plan.json") is None
    keep_plan(tmp_path / "plan.json", plan)
    assert kept_plan(tmp_path / "plan.json") == plan


# Memory ------------------------------------------------------------------------------------------


NETWORKS = {
    "plain": architecture_of("unet2015", width=4, depth=2, dropout=0.0),
    "bn": architecture_of("unet-bn", width=4, depth=3, max_width=16),
    "bn-nearest": architecture_of("unet-bn", width=4, depth=1, up="nearest", order="norm-act"),
    "res": architecture_of("unet-res", width=4, depth=3),
    "res-act-norm": architecture_of("unet-res", width=4, depth=2, order="act-norm", convs=3),
    "res-group": architecture_of("unet-res", width=8, depth=2, norm="group", groups=2),
    "res-plain": architecture_of("unet-res", width=4, depth=1, norm="none"),
    "flat": architecture_of(
        "unet-res", width=4, depth=2, dims=3, norm="group", kernels=((1, 3, 3),) * 3,
        pools=((1, 2, 2), (2, 2, 2)),
    ),
}  # fmt: skip


def kept_bytes(arch: Architecture, size: tuple[int, ...], precision: str) -> float:
    """What autograd keeps of a forward pass, weights and statistics left out."""
    network = build(2, 3, arch).train()
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # Maps of the network, or of one sample; a bfloat16 copy of the weights is no map.
        if tensor.ndim == len(size) + 2 and tensor.shape[0] in (1, BATCH):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        autocast(precision, torch.device("cpu")),
    ):
        network(torch.randn(BATCH, 2, *size))
    return float(sum(storage.nbytes() for storage in kept.values()))


BATCH = 5  # no number of channels here


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_what_a_step_keeps_is_what_autograd_keeps(name: str, precision: str) -> None:
    arch = NETWORKS[name]
    assert isinstance(arch, Architecture)
    assert parameters(arch, 2, 3) == parameter_counts(build(2, 3, arch))[1]
    fps = footprint(arch)
    size = tuple(fp.fit(24) for fp in fps)
    guess = activation_bytes(arch, 2, 3, size, Numerics("cpu", precision))
    # Not the network's: the image before augmentation, the class indices, what the loss keeps.
    outside = math.prod(size) * (2 * (4 + 4) + 2 * 8)
    out = [n - 2 * fp.margin for n, fp in zip(size, fps, strict=True)]
    scored = [
        math.prod(
            n // math.prod(arch.pool(lv)[a] for lv in range(level)) for a, n in enumerate(out)
        )
        for level in arch.supervised
    ]
    outside += LOSS_TENSORS * 4 * 3 * sum(scored)
    real = kept_bytes(arch, size, precision)
    assert BATCH * (guess - outside) == pytest.approx(real, rel=0.01)


def test_the_estimate_is_on_the_safe_side_of_a_real_step() -> None:
    ratio = estimate("bn-8", "float32", "cpu") / measured("bn-8", "float32", "cpu")
    assert 0.95 < ratio < 1.6


def test_group_norm_keeps_float32_copies() -> None:
    kept = {}
    for norm in ("instance", "group"):
        arch = architecture_of("unet-res", width=16, norm=norm)
        assert isinstance(arch, Architecture)
        kept[norm] = activation_bytes(arch, 1, 2, (64, 64), Numerics("cuda", "bfloat16"))
    assert kept["group"] > 1.2 * kept["instance"]


# In a run ----------------------------------------------------------------------------------------


RAW: dict[str, Any] = {
    "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
    "models": {"m": {"preset": "auto"}, "bn": {"preset": "unet-bn"}},
    "device": "cpu",
}


def test_the_slice_says_what_was_given(tmp_path: Path) -> None:
    def sliced(raw: dict[str, Any]) -> dict[str, Any]:
        return slices.train(load({**RAW, **raw}), "d", "m")

    assert (sliced({})["given"], sliced({})["memory_gb"]) == ([], 4.0)
    assert sliced({"memory_gb": 2})["memory_gb"] == 2
    assert sliced({"train": {"patch": 64, "lr": 0.1}})["given"] == ["patch"]
    assert sliced({"train": {"recipe": "ronneberger2015"}})["given"] == ["batch"]
    own = {"m": {"preset": "auto", "train": {"patch": 64, "batch": 2}}}
    assert sliced({"models": own})["given"] == ["batch", "patch"]
    data = {"d": {**RAW["datasets"]["d"], "train": "ronneberger2015"}}
    assert sliced({"datasets": data})["given"] == ["batch"]
    assert slices.train(load(RAW), "d", "bn")["given"] is None
    # The config that a run writes means the same.
    for raw in (RAW, {**RAW, "train": {"batch": 8}}):
        config = load({**raw, "output": str(tmp_path)})
        Run(config).write_config()
        written = load_file(tmp_path / "config.yaml")
        for model in ("m", "bn"):
            assert canonical(slices.train(written, "d", model)) == canonical(
                slices.train(config, "d", model)
            )


@pytest.mark.parametrize("key", ["width", "depth", "norm", "kernels", "dims", "window"])
def test_layers_are_not_given_beside_auto(key: str) -> None:
    values = {"norm": "batch", "kernels": [[3, 3]], "window": 95}
    model = {"preset": "auto", key: values.get(key, 2)}
    with pytest.raises(UserError) as caught:
        load({**RAW, "models": {"m": model}})
    (line,) = str(caught.value).splitlines()
    assert key in line
    assert "preset auto chooses this" in line


QUICK: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 1, "precision": "float32"}


def test_the_script_trains_and_goes_on_with_its_plan(  # type: ignore[no-untyped-def]
    make_store: Callable[..., Any], tmp_path: Path, capsys
) -> None:
    paths, _ = make_store()
    config = tmp_path / "my.yaml"

    def run(**more: Any) -> Plan:
        raw = {**RAW, "train": QUICK, "models": {"m": {"preset": "auto"}}, **more}
        config.write_text(yaml.safe_dump(raw), encoding="utf-8")
        words = ["--output", str(paths.output), "--dataset", "d", "--model", "m", "--fold", "0"]
        assert train_script([*words, "--config", str(config), "--threads", "1"]) == 0
        (path,) = paths.checkpoints("d", "m", 0).glob("*/plan.json")
        plan = kept_plan(path)
        assert plan is not None
        return plan

    plan = run()
    model = load_model(paths.model("d", "m", 0))
    assert model.architecture == plan.architecture
    assert (plan.patch, plan.batch) == ((48, 56), 2)
    told = capsys.readouterr().err
    assert all(f"auto: {reason}" in told for reason in plan.reasons)
    assert "images: 2 to train on, 48 x 56 px" in told
    shown = paths.model("d", "m", 0).with_name("plan.yaml")
    assert yaml.safe_load(shown.read_text())["models"]["planned"] == plan.section
    # A second attempt takes the plan of the first, though now it might be another.
    kept = next(paths.checkpoints("d", "m", 0).glob("*/plan.json"))
    other = replace(plan, batch=3, reasons=("as before",))
    keep_plan(kept, other)
    shown.unlink()
    assert run() == other
    assert "# as before" in shown.read_text()


def test_volumes_are_trained(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {}
    for name in "abc":
        image, labels, instances = boxes((9, 20, 24), *(np.s_[1:4, n : n + 3, 2:9] for n in (1, 9)))
        images[name] = (image + rng.normal(0, 0.1, image.shape).astype("f4"), labels, instances)
    store, sentinel = store_of(tmp_path, images, {name: [0.5, 0.2, 0.2] for name in images})
    flat = {"rotate_deg": 0, "scale": 0, "elastic_px": 0, "blur_px": 0}
    raw = {**RAW, "models": {"m": {"preset": "auto"}}, "train": {**QUICK, "augment": flat}}
    model = tmp_path / "m" / "model.pt"
    train_fold(
        store.path, sentinel, ["a", "b"], ["c"], slices.train(load(raw), "d", "m"), 0,
        tmp_path / "checkpoints", model, tmp_path / "history.csv", threads=1,
    )  # fmt: skip
    found = load_model(model).architecture
    assert isinstance(found, Architecture)
    assert (found.dims, found.pools) == (3, ((1, 2, 2), (2, 2, 2)))
    read = yaml.safe_load(model.with_name("plan.yaml").read_text())
    assert config_of(read["models"]).architecture_for("planned") == found


@pytest.mark.workflow
def test_the_workflow_accepts_it(tmp_path: Path) -> None:
    config = tmp_path / "my.yaml"
    config.write_text(yaml.safe_dump({**RAW, "output": "out"}), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable, "-m", "snakemake", "--dry-run", "--directory", str(tmp_path),
            "--snakefile", str(ROOT / "workflow" / "Snakefile"), "--configfile", str(config),
        ],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "out/d/m/fold-0/model.pt" in done.stdout + done.stderr
