"""What jobs request: image sizes are read from the tables, network costs agree with counted ones,
and more is requested for more work and with each attempt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.config.load import load
from unet.config.presets import architecture_of
from unet.data.records import ImageRecord, write_manifest
from unet.files import write_sentinel
from unet.planning import resources
from unet.planning.image_sizes import HEAD, Images, images_of, raw_images
from unet.planning.resources import PlannedJob, flop_per_pixel, memory_mb, minutes

ROOT = Path(__file__).resolve().parents[2]
LARGE = Images(count=100, channels=1, pixels=100 * 4e6, largest=4_000_000, slice=4_000_000)

MEDIUM = Images(count=20, channels=1, pixels=2e6, largest=100_000, slice=100_000)


def config(**over: Any) -> dict[str, Any]:
    return {
        "datasets": {"d": {"images": "images", "labels": "labels", "task": "instances"}},
        "models": {"m": {"preset": "unet-bn", "width": 32}},
        "device": "cpu",
        **over,
    }


def job(images: Images = LARGE, threads: int = 4, **over: Any) -> PlannedJob:
    return PlannedJob(load(config(**over)), "d", images, threads, "m")


# Sizes.


def records(number: int) -> list[ImageRecord]:
    return [
        ImageRecord(id=f"image{i:06d}", image=f"images/{i}.tif", shape=(2, 30, 40), axes="CYX",
                    pixel_size_um=(1.0, 1.0))
        for i in range(number)
    ]  # fmt: skip


def test_sizes_from_a_manifest(tmp_path: Path) -> None:
    bad = ImageRecord(id="bad", image='images/"shape, [9, 9].tif', status="quarantined")
    rows = [*records(3), ImageRecord(id="z", image="z.tif", shape=(2, 5, 30, 80), axes="CZYX"), bad]
    write_manifest(tmp_path / "manifest.csv", rows)
    found = images_of(tmp_path / "manifest.csv")
    assert found == Images(4, 2, 3 * 1200 + 12000, 12000, 2400)


def test_sizes_from_a_sentinel(tmp_path: Path) -> None:
    images = {f"i{n}": {"shape": [3, 10 * n, 20], "key": "k"} for n in (1, 2)}
    write_sentinel(tmp_path / "prepared.json", 1, images, channels=3)
    assert images_of(tmp_path / "prepared.json") == Images(2, 3, 600, 400, 400)


def test_no_usable_image_and_a_missing_table(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.csv", [])
    assert images_of(tmp_path / "manifest.csv") == Images()
    with pytest.raises(FileNotFoundError) as error:
        images_of(str(tmp_path / "none.csv"))
    # Snakemake looks for this name among the job's inputs.
    assert error.value.filename == str(tmp_path / "none.csv")


@pytest.mark.parametrize("kind", ["manifest.csv", "prepared.json"])
def test_of_a_long_table_only_the_beginning_is_read(tmp_path: Path, kind: str) -> None:
    number, path = 20_000, tmp_path / kind
    if kind == "manifest.csv":
        write_manifest(path, records(number))
    else:
        write_sentinel(
            path, 1, {r.id: {"shape": list(r.shape), "key": "k"} for r in records(number)}
        )
    assert path.stat().st_size > 2 * HEAD
    kept = path.read_text()
    # Later parts are not read: replace them by nonsense of the same length.
    path.write_text(kept[:HEAD] + "x" * (len(kept) - HEAD))
    found = images_of(path)
    assert found.count == pytest.approx(number, rel=0.03)
    assert found.pixels == pytest.approx(number * 1200, rel=0.03)
    assert (found.channels, found.largest) == (2, 1200)


def test_a_table_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    write_manifest(path, records(1))
    assert images_of(path).count == 1
    write_manifest(path, records(2))
    assert images_of(path).count == 2


def test_raw_files(tmp_path: Path) -> None:
    files = [tmp_path / f"{i:03d}.tif" for i in range(100)]
    for path in files:
        path.write_bytes(b"x" * 500)
    found = raw_images(files)
    assert (found.count, found.pixels, found.largest) == (100, 50_000, 500)
    assert raw_images([]) == Images()
    assert raw_images([tmp_path / "gone.tif"]).pixels == 0


# Costs.


def test_flop_are_those_that_torch_counted() -> None:
    """``benchmarks/train.py`` counts the FLOP of a step of this network with torch."""
    measured = json.loads((ROOT / "benchmarks" / "results" / "train.json").read_text())
    arch = architecture_of("unet-bn", width=measured["settings"]["width"])
    pixels = measured["settings"]["patch"] ** 2
    counted = measured["cases"]["ours, default"]["gigaflop per image"] * 1e9
    assert 3 * pixels * flop_per_pixel(arch, 1, 2) == pytest.approx(counted, rel=0.02)


def test_every_stage_has_estimates() -> None:
    from unet.versions import STAGES

    assert list(resources.NEEDS) == list(STAGES), "unet/planning/resources.py: NEEDS"


@pytest.mark.parametrize("stage", sorted(resources.NEEDS))
def test_each_attempt_requests_more(stage: str) -> None:
    asked = [(memory_mb(stage, job(), n), minutes(stage, job(), n)) for n in (1, 2, 3)]
    (memory, time), *later = asked
    assert memory % 100 == 0
    assert memory >= 700
    assert time >= 20
    assert [m for m, _ in later] == [2 * memory, 3 * memory]
    assert [t for _, t in later] == [min(2 * time, 1440), min(3 * time, 1440)]


def test_what_training_memory_follows_from() -> None:
    def asked(train: dict[str, Any] | None = None, **over: Any) -> int:
        return memory_mb("train", job(train={"cache_gb": 0, **(train or {})}, **over))

    base = asked()
    assert asked(models={"m": {"preset": "unet-bn", "width": 64}}) > 1.5 * base
    assert asked(train={"patch": 512}) > 1.5 * base
    assert asked(train={"batch": 32}) > 1.5 * base
    assert asked(device="auto") > base  # the driver's own
    # The cache, of training and validation images; no more than there are.
    assert asked(train={"cache_gb": 1}) - base == 2000
    few = job(Images(4, 1, 4e4, 10_000, 10_000), train={"cache_gb": 1})
    assert memory_mb("train", few) <= base
    # Layers that training chooses: within its memory.
    auto = {"models": {"m": {"preset": "auto"}}}
    assert asked(**auto, memory_gb=16) - asked(**auto, memory_gb=8) == 8000


def test_what_prediction_memory_follows_from() -> None:
    def asked(**over: Any) -> int:
        return memory_mb("predict", job(**over))

    assert asked(memory_gb=16) - asked(memory_gb=8) == 8000
    assert asked(predict={"tile": 4096}) > asked() + 4000
    assert asked(predict={"cluster": {"workers": 2}}) < asked() - 3000
    small = Images(4, 1, 4e4, 10_000, 10_000)
    assert memory_mb("predict", job(small)) < 2000
    many = PlannedJob(load(config()), "d", LARGE, 4, "m", networks=20)
    assert memory_mb("predict", many) > asked() + 500
    gathers = PlannedJob(load(config()), "d", LARGE, 4, "m", gather=True)
    assert memory_mb("predict", gathers) < 1500
    assert minutes("predict", gathers) < minutes("predict", job())


def test_scores_of_whole_slices_take_memory_by_their_size() -> None:
    topology = {"evaluate": {"metrics": ["pixel", "topology"]}}
    large = Images(8, 1, 8e8, 100_000_000, 100_000_000)
    more = memory_mb("evaluate", job(large, **topology)) - memory_mb("evaluate", job(large))
    assert more == pytest.approx(4 * 1e8 * 48 / 1e6, rel=0.01)


def test_masks_of_another_tool_are_scored_without_what_needs_probabilities() -> None:
    topology = {"evaluate": {"metrics": ["pixel", "topology"]}}
    huge = Images(8, 1, 8e9, 1_000_000_000, 100_000_000)
    assert memory_mb("compare", job(huge, **topology)) == memory_mb("evaluate", job(huge))
    # One more pass, which stores the masks, instead of the family that needs probabilities.
    assert minutes("compare", job(huge, **topology)) == minutes("evaluate", job(huge, **topology))
    pixel = {"evaluate": {"metrics": ["pixel"]}}
    assert minutes("compare", job(huge, **pixel)) > minutes("evaluate", job(huge, **pixel))


def test_a_model_of_another_dataset() -> None:
    value = config()
    value["datasets"]["new"] = {"images": "new", "predict_with": ["d/m"]}
    applied = PlannedJob(load(value), "new", LARGE, 4, "m@d", networks=1)
    assert memory_mb("predict", applied) == memory_mb("predict", job())
    assert minutes("predict", applied) == minutes("predict", job())


def test_what_time_follows_from() -> None:
    def trained(**over: Any) -> int:
        return minutes("train", job(MEDIUM, **over))

    base = trained()
    assert trained(train={"epochs": 100}) > base
    assert trained(models={"m": {"preset": "unet-bn", "width": 48}}) > base
    # By hand: 16 patches of 64 x 64, two levels of width 1 and 2, two classes,
    # and nothing validated.
    tiny = job(
        Images(), threads=1, models={"m": {"preset": "unet-bn", "width": 1, "depth": 1}},
        train={"epochs": 2, "steps_per_epoch": 4, "batch": 2, "patch": 64},
    )  # fmt: skip
    per_pixel = 2 * (9 * (1 + 1) + (2 * 1 + 9 * (2 + 1)) + 9 * (2 + 4) / 4 + 1 * 2)
    assert resources.NEEDS["train"][1](tiny) == pytest.approx(
        3 * 16 * 64**2 * per_pixel / resources.CORE
    )
    assert trained(models={"m": {"preset": "auto"}}) == resources.LONGEST
    shared = minutes("predict", job(predict={"shards": 8}))
    assert shared < minutes("predict", job())


@given(
    st.integers(1, 64),
    st.integers(1, 10**6),
    st.integers(0, 10**8),
    st.sampled_from(sorted(resources.NEEDS)),
)
def test_more_pixels_never_request_less(threads: int, count: int, pixels: int, stage: str) -> None:
    def asked(factor: int) -> tuple[int, int]:
        images = Images(count, 1, float(factor * count * pixels), pixels, pixels)
        one = job(images, threads)
        return memory_mb(stage, one), minutes(stage, one)

    less, more = asked(1), asked(2)
    assert less[0] <= more[0]
    assert less[1] <= more[1] <= resources.LONGEST
