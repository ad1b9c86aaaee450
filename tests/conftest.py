"""Shared by all tests: OMP_NUM_THREADS threads for torch (1 if unset), so that results and times do
not depend on other processes; hypothesis without a deadline (a busy machine is not a failure); a
tiny prepared store."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Set before torch is imported; jobs that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings

from unet.data.records import SplitRecord, write_splits
from unet.data.store import add_image, add_labels, layout_of, new_image
from unet.files import write_sentinel
from unet.paths import Paths

settings.register_profile("unet", deadline=None)
settings.load_profile("unet")


THREADS = int(os.environ["OMP_NUM_THREADS"])


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Resets the number of threads: stages change it for the process that all tests share."""
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(THREADS)


def discs(
    seed: int, shape: tuple[int, int], channels: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bright discs on a noisy background: image [C, Y, X], classes [Y, X], instances [Y, X]."""
    rng = np.random.default_rng(seed)
    instances = np.zeros(shape, dtype=np.uint32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for number in range(1, 6):
        middle, radius = rng.uniform(0, shape), rng.uniform(4, 9)
        instances[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 < radius**2] = number
    classes = (instances > 0).astype(np.uint8)
    noise = rng.normal(0, 0.2, (channels, *shape))
    return (classes + noise).astype(np.float32), classes, instances


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the workflow, made once for all tests. Tests must not change
    it, only a copy. With several processes (pytest-xdist) the first one makes it, and each gets a
    copy, because dry runs write their config and locks into the folder."""
    from tests.workflow.test_workflow import finish

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return finish(base / "finished").folder
    made, done = base.parent / "finished", base.parent / "finished.done"
    with (base.parent / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            # Remove a failed run, so that the next process also reports why it fails.
            shutil.rmtree(made, ignore_errors=True)
            finish(made)
            done.touch()
    return Path(shutil.copytree(made, base / "finished", symlinks=True))


StoreMaker = Callable[..., tuple[Paths, dict[str, Any]]]


@pytest.fixture
def make_store(tmp_path: Path) -> StoreMaker:
    """Makes the prepared store, its sentinel and the splits of a dataset ``d`` with discs.

    The images are a, b (train), c (val), d (test). Returns the run's paths and the sentinel.
    """

    def make(
        shapes: Sequence[tuple[int, int]] = ((48, 56),) * 4,
        task: str = "instances",
        channels: int = 1,
        output: Path | None = None,
    ) -> tuple[Paths, dict[str, Any]]:
        paths = Paths(output or tmp_path / "results")
        images: dict[str, Any] = {}
        for index, (name, shape) in enumerate(zip("abcd", shapes, strict=False)):
            image, classes, instances = discs(index, shape, channels)
            where = layout_of(shape, tile=32, shard=2)
            with new_image(paths.prepared("d"), name) as group:
                add_image(group, channels, shape, where)[...] = image
                add_labels(group, "classes", "uint8", shape, where)[...] = classes
                if task == "instances":
                    add_labels(group, "instances", "uint32", shape, where)[...] = instances
                attrs = {
                    "key": f"key of {name} {shape}", "axes": "CYX", "pixel_size_um": [0.5, 0.5],
                    "statistics": {}, "channels": [""] * channels, "group": "",
                }  # fmt: skip
                group.attrs.update(attrs)
            images[name] = {
                "key": attrs["key"], "shape": list(image.shape), "axes": "CYX",
                "pixel_size_um": [0.5, 0.5], "labelled": True, "group": "", "statistics": {},
            }  # fmt: skip
        import zarr

        zarr.open_group(paths.prepared("d"), mode="a", zarr_format=3)
        more = {
            "task": task,
            "class_names": ["background", "foreground"],
            "class_values": None,
            "channels": channels,
            "normalize": {"method": "none"},
        }
        write_sentinel(paths.prepared_done("d"), 1, images, **more)
        parts = zip("abcd", ("train", "train", "val", "test"), strict=True)
        write_splits(paths.splits("d"), [SplitRecord(n, 0, p) for n, p in parts if n in images])  # type: ignore[arg-type]
        return paths, {"images": images, **more}

    return make
