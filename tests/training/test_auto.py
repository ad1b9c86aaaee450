"""Preset auto: what is chosen and why, what is written, and that it trains."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scripts.train import main as train_script
from tests.planner import jobs_in
from tests.training.test_measure import boxes, store_of
from unet.config.anisotropy import anisotropic_layers
from unet.config.geometry import footprint
from unet.config.load import load, load_file
from unet.config.presets import Architecture, architecture_of
from unet.config.run import Config
from unet.config.sections import TrainSection
from unet.config.stage_settings import TrainSettings
from unet.errors import UserError
from unet.files import canonical, remove
from unet.models.model_file import load_model
from unet.planning.jobs import Run
from unet.training.auto.choose import (
    MAX_BATCH,
    MIN_BOTTOM,
    TrainingPlan,
    choose_plan,
    keep_plan,
    kept_plan,
    layers_for,
    write_plan,
)  # fmt: skip
from unet.training.auto.measure import Fingerprint, Objects
from unet.training.auto.memory import Numerics
from unet.training.train import train_fold
from unet.training.training_job import TrainingData, TrainingOutputs, TrainingResources

ROOT = Path(__file__).resolve().parents[2]
GPU = Numerics("cuda", "bfloat16")
SECTION = TrainSection()


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


def said(plan: TrainingPlan, start: str) -> str:
    """The only reason that starts with this text."""
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
    # Too few objects are ignored; then the receptive field is half a patch.
    few = replace(dataset(shape), objects=(Objects("a", 4, (300, 300), (300, 300), (300, 300)),))
    assert "no objects measured" in said(choose_plan(few, SECTION, 4e9), "depth")
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
    assert "2 patches are too few" in said(plan, "instance")


def test_little_memory_first_takes_the_width_then_the_patch() -> None:
    def plan(memory: float) -> TrainingPlan:
        return choose_plan(dataset((512, 512), objects=(60, 60)), SECTION, memory)

    plenty, less, least = plan(8e9), plan(3e8), plan(9e7)
    assert plenty.architecture.width == 32
    assert less.architecture.width < 32
    assert all(n >= 120 for n in less.patch)
    assert least.architecture.width == 8
    assert any(n < 120 for n in least.patch)
    hopeless = plan(1e6)
    assert "this may be too much" in said(hopeless, "memory")
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
    assert math.prod(p[0] for p in pools) * MIN_BOTTOM <= 30


def test_what_the_user_gives_holds() -> None:
    data = dataset((512, 512), objects=(30, 30))
    section = TrainSection(patch=200, batch=3)
    plan = choose_plan(data, section, 4e9, given=("patch", "batch"))
    assert (plan.patch, plan.batch) == ((192, 192), 3)
    assert said(plan, "patch") == "patch 192 x 192: train.patch, fitted to the network's grid"
    assert said(plan, "batch") == "batch 3: train.batch"
    assert plan.preset == "unet-res"
    # Not given: the section's numbers are only defaults.
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
        assert fp.grid <= 2 or size // fp.grid >= MIN_BOTTOM
    assert plan.batch % processes == 0
    assert 1 <= plan.batch <= MAX_BATCH
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
    code = "import sys, unet.training.auto.choose; sys.exit('torch' in sys.modules)"
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


# In a run ----------------------------------------------------------------------------------------


RAW: dict[str, Any] = {
    "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
    "models": {"m": {"preset": "auto"}, "bn": {"preset": "unet-bn"}},
    "device": "cpu",
}


def test_the_slice_says_what_was_given(tmp_path: Path) -> None:
    def sliced(raw: dict[str, Any]) -> dict[str, Any]:
        return TrainSettings.of(load({**RAW, **raw}), "d", "m").to_json()

    assert (sliced({})["given"], sliced({})["memory_gb"]) == ([], 4.0)
    assert sliced({"memory_gb": 2})["memory_gb"] == 2
    assert sliced({"train": {"patch": 64, "lr": 0.1}})["given"] == ["patch"]
    assert sliced({"train": {"recipe": "ronneberger2015"}})["given"] == ["batch"]
    own = {"m": {"preset": "auto", "train": {"patch": 64, "batch": 2}}}
    assert sliced({"models": own})["given"] == ["batch", "patch"]
    data = {"d": {**RAW["datasets"]["d"], "train": "ronneberger2015"}}
    assert sliced({"datasets": data})["given"] == ["batch"]
    assert TrainSettings.of(load(RAW), "d", "bn").given is None
    # The config that a run writes means the same.
    for raw in (RAW, {**RAW, "train": {"batch": 8}}):
        config = load({**raw, "output": str(tmp_path)})
        Run(config).write_config()
        written = load_file(tmp_path / "config.yaml")
        for model in ("m", "bn"):
            assert canonical(TrainSettings.of(written, "d", model).to_json()) == canonical(
                TrainSettings.of(config, "d", model).to_json()
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

    def run(**more: Any) -> TrainingPlan:
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
    # A second attempt uses the plan of the first, even if another would be chosen now.
    kept = next(paths.checkpoints("d", "m", 0).glob("*/plan.json"))
    other = replace(plan, batch=3, reasons=("as before",))
    keep_plan(kept, other)
    shown.unlink()
    # A finished training would be restored.
    remove(shown.with_name(".trained"))
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
        TrainingData(store.path, sentinel, ["a", "b"], ["c"]),
        TrainSettings.of(load(raw), "d", "m"),
        0,
        TrainingOutputs(tmp_path / "checkpoints", model, tmp_path / "history.csv"),
        TrainingResources(threads=1),
    )
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
    assert "train d m 0" in jobs_in(done.stdout + done.stderr)
