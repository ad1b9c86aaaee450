"""How many images are stitched at once, and with how many threads each."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unet.prediction.stitch import stitch
from unet.prediction.stitch.stitch_image import StitchJob


@pytest.mark.parametrize(
    ("shape", "channels", "images", "threads", "at_once", "each"),
    [
        ((128, 128), 3, 20, 8, 8, 1),
        ((128, 128), 3, 2, 8, 2, 4),
        # 5 of 3 x 2,048 x 2,048 values fit into 2^26, and one of 13.
        ((2048, 2048), 3, 20, 8, 5, 1),
        ((2048, 2048), 13, 20, 8, 1, 8),
        # More than a few blocks.
        ((5000, 5000), 2, 20, 8, 1, 8),
        ((16, 64, 64), 2, 3, 8, 3, 2),
    ],
)
def test_images_of_one_size(
    shape: tuple[int, ...],
    channels: int,
    images: int,
    threads: int,
    at_once: int,
    each: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock, running, most, given = threading.Lock(), [0], [0], set[int]()

    def stitched(job: StitchJob, image: str) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        given.add(job.threads)
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return image

    monkeypatch.setattr(stitch, "stitch_image", stitched)
    tiles: Any = SimpleNamespace(attrs=lambda image: {"shape": shape})
    settings: Any = SimpleNamespace(head=("x",) * channels)
    job = StitchJob(
        tiles, tiles, Path(), Path(), None, None, settings, 0.5, stitch.STITCH_BLOCK, threads, None
    )
    ids = [f"i{k}" for k in range(images)]
    assert list(stitch._stitch_all(job, ids)) == ids
    assert (most[0], given) == (at_once, {each})
