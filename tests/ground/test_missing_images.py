"""Images that were removed from a finished store are named, never left out of the scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from unet.errors import UserError
from unet.files import write_sentinel
from unet.prediction.stitch.segmentation import Segmentation
from unet.prediction.tiles.tile_store import Tiles


def segmentation(folder: Path) -> Path:
    store = folder / "segmentation.zarr"
    for name in ("a", "b", "c"):
        (store / name / "0").mkdir(parents=True)
    (store / "zarr.json").touch()
    return store


def tiles(folder: Path) -> Path:
    store = folder / "tiles.zarr"
    for name in ("a", "b", "c"):
        (store / name).mkdir(parents=True)
        (store / name / "zarr.json").touch()
    return store


@pytest.mark.parametrize(
    ("make", "read", "remedy"),
    [(segmentation, Segmentation, "stitch"), (tiles, Tiles, "predict")],
)
def test_missing_images(
    make: Callable[[Path], Path], read: type[Segmentation | Tiles], remedy: str, tmp_path: Path
) -> None:
    store = make(tmp_path)
    shutil.rmtree(store / "b")
    # It is being made.
    assert read(store).ids() == ["a", "c"]
    done = store.with_suffix(".json")
    write_sentinel(done, 1, {"a": {}, "c": {}})
    assert read(store).ids() == ["a", "c"]
    write_sentinel(done, 1, {"a": {}, "b": {}, "c": {}})
    with pytest.raises(UserError) as error:
        read(store).ids()
    expected = f"{store / 'b'}: missing; remove {done} and run again to {remedy} the images again"
    assert str(error.value) == expected
    shutil.rmtree(store / "c")
    with pytest.raises(UserError, match="b: missing and 1 more; remove"):
        read(store).ids()
