"""Two runs at once, a device without memory, and lost workers."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import random
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.contents import FOLD, different, tables
from tests.faults.stages import SEED, STAGES, Lab
from tests.faults.tallies import Tally
from tests.faults.test_kill import RUN, Whole
from unet.config.stage_settings import PredictSettings
from unet.files import lock_of

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_runs_twice_at_once(lab: Lab, tmp_path: Path, tally: Tally, stage: str) -> None:
    output = lab.before(stage, tmp_path / "results")
    both = [lab.start(stage, output) for _ in range(2)]
    ended = [running.end() for running in both]
    codes = sorted(done.code for done in ended)
    assert codes in ([0, 0], [0, 2]), [done.said for done in ended]
    for done in ended:
        assert "Traceback" not in done.said
        assert len(done.errors) == (done.code != 0)
        assert done.code == 0 or "another process is" in done.errors[0]
    assert lab.is_sound(stage, output)
    lab.finish(stage, output)
    tally(
        "a stage runs twice at once",
        "two processes of the same stage started together",
        "one does the work, the other one stops with one line or does the same; final tables "
        "identical to those of a single run",
    )


def _lock(output: Path, stage: str) -> Path:
    if stage == "train":
        return next((output / "checkpoints/d/m/fold-0").iterdir()) / "lock"
    stores = {
        "prepare": "d/prepared.zarr",
        "predict": f"{FOLD}/tiles.zarr",
        "stitch": f"{FOLD}/segmentation.zarr",
    }
    return lock_of(output / stores[stage])


@pytest.mark.parametrize("stage", ["prepare", "train", "predict", "stitch"])
def test_a_job_outlived_its_run(lab: Lab, tmp_path: Path, tally: Tally, stage: str) -> None:
    output = lab.before(stage, tmp_path / "results")
    if stage == "train":
        shutil.copytree(lab.unbroken / "checkpoints", output / "checkpoints")
    with _lock(output, stage).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = lab.run(stage, output)
    assert done.code == 2, done.said
    assert len(done.errors) == 1, done.said
    assert "another process is" in done.errors[0]
    lab.finish(stage, output)
    tally(
        "a job outlived its run",
        "a stage is started while the lock of its store is held",
        "one line; runs once the other job has ended",
    )


def test_two_runs_in_one_folder(lab: Lab, tmp_path: Path, tally: Tally) -> None:
    """The second from the same working folder, the third from another one."""
    first, other = tmp_path / "first", tmp_path / "other"
    for folder in (first, other):
        folder.mkdir()
        (folder / "raw").symlink_to(lab.raw)
    output = ("--config", f"output={first / 'results'}")
    run = (*RUN, *output)
    running = Whole.start(first, lab.config, *run)
    try:
        running.wait_for(first / "results" / "logs")
        others = [Whole.start(folder, lab.config, *run) for folder in (first, other)]
        codes = [other.process.wait(120) for other in others]
        said = [other.said for other in others]
        assert codes == [1, 1], said
        assert "Directory cannot be locked" in said[0]
        assert f"{first / 'results'}: another process is running here" in said[1]
        assert len([line for line in said[1].splitlines() if "another process" in line]) == 1
        for text in said:
            assert "Traceback" not in text
        assert running.process.wait(400) == 0, running.said
    finally:
        if running.process.poll() is None:
            running.kill()
    assert different(tables(first / "results"), lab.of_one_dataset) == []
    tally(
        "two runs at once",
        "Snakemake started a second time in the same folder, and from another one with the same "
        "output",
        "the second one says so and stops; the first one is not disturbed",
        2,
    )


# A device without memory.


def no_room_for_two() -> None:
    """Patches a stage's process: the device has memory for only one window at once."""
    import torch

    from unet.models.inference import Predictor

    whole = Predictor.begin

    def limited(self: Predictor, batch: Any) -> Any:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(self, batch)

    Predictor.begin = limited  # type: ignore[method-assign]


def no_room_at_all() -> None:
    import torch

    from unet.models.inference import Predictor

    def limited(self: Predictor, batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    Predictor.begin = limited  # type: ignore[method-assign]


def no_room_to_keep() -> None:
    import torch

    from unet.training.trainer import Trainer

    whole = Trainer._backward

    def limited(self: Trainer, batch: Any, index: int) -> torch.Tensor:
        value = whole(self, batch, index)
        if index >= 5 and not self.network.recompute:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return value

    Trainer._backward = limited  # type: ignore[method-assign]


def no_room_to_learn() -> None:
    import torch

    from unet.training.trainer import Trainer

    def limited(self: Trainer, batch: Any, index: int) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    Trainer._backward = limited  # type: ignore[method-assign]


def test_the_device_has_too_little_memory(lab: Lab, tmp_path: Path, tally: Tally) -> None:
    output = lab.before("predict", tmp_path / "results")
    done = lab.run("predict", output, ["--batch", "4"], patch=no_room_for_two)
    assert done.code == 0, done.said
    log = (output / "logs" / "predict.log").read_text()
    for batch in (2, 1):
        assert f"out of memory on the device: continuing with batches of {batch} tiles" in log
    assert "batches of 0" not in log
    lab.finish("stitch", output)
    tally(
        "the device runs out of memory in prediction",
        "the network's call fails for more than one window at once",
        "the batch is halved until it fits, and this is logged; final tables identical to those "
        "of an undisturbed run",
    )


def test_the_device_has_too_little_memory_to_train(lab: Lab, tmp_path: Path, tally: Tally) -> None:
    output = lab.before("train", tmp_path / "results")
    done = lab.run("train", output, patch=no_room_to_keep)
    assert done.code == 0, done.said
    log = (output / "logs" / "train.log").read_text()
    assert log.count("out of memory on the device: continuing with activations computed twice") == 1
    lab.finish("predict", output)
    tally(
        "the device runs out of memory in training",
        "a step fails in the second epoch, as long as activations are kept for the gradient",
        "they are computed twice instead, and this is logged; weights and final tables identical "
        "to those of an undisturbed run",
    )


def test_the_device_has_no_memory(lab: Lab, tmp_path: Path, tally: Tally) -> None:
    output = lab.before("train", tmp_path / "results")
    done = lab.run("train", output, patch=no_room_to_learn)
    assert (done.code, len(done.errors)) == (2, 1), done.said
    assert "train.batch: the device has no memory for 2 patches" in done.errors[0]
    assert lab.is_sound("train", output)
    lab.before("predict", output)
    done = lab.run("predict", output, patch=no_room_at_all)
    assert (done.code, len(done.errors)) == (2, 1), done.said
    # If bfloat16 is checked against float32, that check fails first.
    assert re.search("no memory for a single tile|out of memory", done.errors[0])
    assert lab.is_sound("predict", output)
    lab.finish("predict", output)
    tally(
        "the device has no memory for a step",
        "`train`, and `predict` with a single window, run out of memory",
        "one line; in training it says which key to lower, and to which value",
        2,
    )


# Workers of a cluster.

needs_distributed = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None,
    reason="distributed is not installed (extra cluster)",
)


def _alive(pid: Any) -> bool:
    return isinstance(pid, int) and Path(f"/proc/{pid}").exists()


@needs_distributed
def test_workers_are_lost(lab: Lab, tmp_path: Path, tally: Tally) -> None:
    """Killed one after the other while they predict; the scheduler starts new ones."""
    from unet.config.sections import ClusterSection, PredictSection
    from unet.data.records import ids_of, read_splits
    from unet.files import read_json
    from unet.paths import Paths
    from unet.prediction.tiles.cluster import on_cluster
    from unet.prediction.tiles.ensemble import Member
    from unet.prediction.tiles.predict import predict_fold
    from unet.prediction.tiles.prediction_job import PredictionData, PredictionResources
    from unet.prediction.tiles.tile_store import Tiles

    dice = random.Random(f"{SEED} workers")
    paths = Paths(lab.unbroken)
    rows = read_splits(paths.splits("d"))
    parts = {name: part for part in ("test", "val") for name in ids_of(rows, 0, part)}
    section = PredictSection(tile=48, precision="float32")
    settings = PredictSettings.made(predict=section, device="cpu")
    model, prepared = paths.model("d", "m", 0), paths.prepared("d")

    def predicted(folder: Path, run: Any = None) -> dict[str, bytes]:
        sentinel = read_json(paths.prepared_done("d"))
        data = PredictionData([Member.load(model)], prepared, sentinel, parts, folder)
        predict_fold(data, settings, PredictionResources(1, 1e9, threads=1), run=run)
        tiles = Tiles(folder)
        assert tiles.ids() == sorted(parts)
        return {
            name: tiles.read(name, tuple(slice(0, n) for n in tiles.attrs(name)["shape"])).tobytes()
            for name in tiles.ids()
        }

    expected = predicted(tmp_path / "here")
    moments, killed = sorted(dice.sample(range(2, 40), 3)), []
    with on_cluster(
        ClusterSection(workers=2), models=[model], alone={}, prepared=prepared, device="cpu",
        folder=tmp_path / "dask",
    ) as run:  # fmt: skip

        def breaking(worker: Any, todo: Any) -> Iterator[Any]:
            run.client.wait_for_workers(2, timeout=600)
            for number, batch in enumerate(run(worker, todo)):
                if number in moments:
                    # The scheduler may still list a worker that was killed before.
                    alive = run.client.run(os.getpid, on_error="ignore").values()
                    killed.append(dice.choice(sorted(pid for pid in alive if _alive(pid))))
                    os.kill(killed[-1], signal.SIGKILL)
                yield batch

        assert predicted(tmp_path / "there", breaking) == expected
    assert len(killed) == 3
    tally(
        "a worker of a cluster is lost",
        "SIGKILL of workers, one after the other, while they predict",
        "other workers get their tiles; values identical to those of a single process",
        3,
    )
