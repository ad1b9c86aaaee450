"""An image keeps the windows that its tiles were started with, in resumed runs and in jobs that
share a fold, even if the memory changes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.prediction.test_predict import content, counted, data_of, model, whole
from unet.config.sections import PredictSection
from unet.config.stage_settings import PredictSettings
from unet.errors import UserError
from unet.files import remove
from unet.prediction.tiles import predict as predict_module
from unet.prediction.tiles.ensemble import Member
from unet.prediction.tiles.finished_tiles import UnfinishedTiles, unfinished_name
from unet.prediction.tiles.predict import gather, predict_fold
from unet.prediction.tiles.prediction_job import PredictionResources, Share
from unet.prediction.tiles.tile_store import Tiles
from unet.prediction.tiles.window_plans import MemoryBudget
from unet.prediction.tiles.worker import TileWorker

SHAPES = ((150, 170), (61, 33), (150, 170))
PARTS: dict[str, Any] = {"a": "test", "b": "val", "c": "test"}
# Megabytes for which the large images need 28, 10 and 3 windows, and one.
LITTLE, SOME, MORE, MUCH = 0.4, 0.8, 2.0, 1000.0


def predicted(
    store: Any, megabytes: float, share: Share | None = None, **options: Any
) -> dict[str, Any]:
    section = PredictSection(dtype="float32", precision="float32", **options)
    return predict_fold(
        data_of(store, [Member(Path("0.pt"), model(), "key")], PARTS),
        PredictSettings.made(predict=section, device="cpu"),
        PredictionResources(memory_bytes=megabytes * 1e6, threads=1),
        share,
    )


def images(store: Any) -> dict[str, np.ndarray]:
    tiles = Tiles(store[0].tiles("d", "m", 0))
    return {name: whole(tiles, name) for name in PARTS}


def numbers(store: Any) -> dict[str, int]:
    """Tiles of each finished image."""
    tiles = Tiles(store[0].tiles("d", "m", 0))
    return {name: len(tiles.cores(name)) for name in tiles.ids()}


def killed(
    store: Any, megabytes: float, after: int, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> None:
    """A run that dies after a number of batches."""
    compute, seen = TileWorker.compute, []  # type: ignore[var-annotated]

    def dying(self: TileWorker, batch: Any) -> Any:
        if len(seen) == after:
            raise KeyboardInterrupt
        seen.append(batch)
        return compute(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TileWorker, "compute", dying)
        patch.setattr(TileWorker, "feeders", 1)
        with pytest.raises(KeyboardInterrupt):
            predicted(store, megabytes, **options)


@pytest.fixture
def stores(make_store: Any, tmp_path: Path) -> list[Any]:
    """Stores for an undisturbed run and for an interrupted one."""
    return [make_store(SHAPES, output=tmp_path / name) for name in ("unbroken", "broken")]


@pytest.mark.parametrize("options", [{}, {"blend": "gaussian"}], ids=["exact", "blended"])
@pytest.mark.parametrize(("before", "after"), [(SOME, MORE), (MORE, SOME), (SOME, MUCH)])
def test_other_memory_after_a_kill(
    stores: Any, before: float, after: float, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken, broken = stores
    predicted(unbroken, before, **options)
    killed(broken, before, 2, monkeypatch, **options)
    again = counted(monkeypatch)
    entries = predicted(broken, after, **options)
    assert entries == {**entries, "a": predicted(unbroken, before, **options)["a"]}
    # The started image keeps its windows, and no finished tile is computed again.
    assert numbers(broken)["a"] == numbers(unbroken)["a"] == entries["a"]["tiles"]
    assert sum(name == "a" for batch in again for name, _ in batch) < entries["a"]["tiles"]
    if not options:  # blended, the result does depend on the windows
        for name, expected in images(unbroken).items():
            np.testing.assert_array_equal(images(broken)[name], expected)


def test_started_windows_no_longer_fit(
    stores: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unbroken, broken = stores
    predicted(unbroken, LITTLE)
    killed(broken, 5, 0, monkeypatch)
    folder = broken[0].tiles("d", "m", 0)
    (begun,) = folder.glob(".*.partial")
    (begun / ".done" / "0").write_text("0\n")  # as if a tile had been done
    with caplog.at_level(logging.WARNING):
        predicted(broken, LITTLE)
    assert "image a: started with windows of" in caplog.text
    assert "no longer fit in memory; starts again with" in caplog.text
    assert numbers(broken) == numbers(unbroken)
    for name, expected in images(unbroken).items():
        np.testing.assert_array_equal(images(broken)[name], expected)


def test_finished_images_keep_their_windows(stores: Any) -> None:
    store = stores[0]
    first = predicted(store, SOME)
    before = content(store[0].tiles("d", "m", 0))
    # The sentinel describes the existing tiles, not what would be planned now.
    assert predicted(store, MUCH) == first
    assert content(store[0].tiles("d", "m", 0)) == before


@pytest.mark.parametrize("memory", [(SOME, MORE, LITTLE), (MUCH, LITTLE, SOME)])
def test_shards_with_different_memory(
    stores: Any, memory: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    one, shared = stores
    predicted(one, memory[0])
    entries = [predicted(shared, m, Share(i, 3)) for i, m in enumerate(memory)]
    folder = shared[0].tiles("d", "m", 0)
    gather(folder, entries)
    assert content(folder) == content(one[0].tiles("d", "m", 0))
    if memory[0] == MUCH:
        assert "planned by the first job, may not fit in memory here" in caplog.text


def test_a_shard_that_continues_with_other_memory(
    stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, shared = stores
    predicted(one, SOME)
    killed(shared, SOME, 1, monkeypatch, share=Share(0, 2))
    entries = [predicted(shared, MORE, Share(i, 2)) for i in (1, 0)]
    folder = shared[0].tiles("d", "m", 0)
    gather(folder, entries)
    assert content(folder) == content(one[0].tiles("d", "m", 0))


def test_memory_of_a_device_that_changes_from_call_to_call(
    stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the windows depend on the memory that is free at the moment."""
    free = iter([8e5, 2e6, 4e5, 3e6, 5e5, 1e6, 7e5])
    monkeypatch.setattr(
        MemoryBudget,
        "here",
        classmethod(lambda cls, device, memory, batch: cls("cuda", next(free), batch)),
    )
    one, broken = stores
    predicted(one, 0)
    killed(broken, 0, 3, monkeypatch)
    predicted(broken, 0)
    for name, expected in images(one).items():
        np.testing.assert_array_equal(images(broken)[name], expected)
    folder = broken[0].tiles("d", "m", 0)
    for image in PARTS:
        (folder / image).rename(folder / f"old-{image}")
    gather(folder, [predicted(broken, 0, Share(i, 3)) for i in range(3)])
    for name, expected in images(one).items():
        np.testing.assert_array_equal(images(broken)[name], expected)


def test_the_memory_of_a_gpu_is_its_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (123, 456))
    assert MemoryBudget.here(torch.device("cuda"), 1e9, "auto") == MemoryBudget(
        "cuda", 123.0, "auto"
    )
    assert MemoryBudget.here(torch.device("cpu"), 1e9, 4) == MemoryBudget("cpu", 1e9, 4)


def test_tiles_of_the_previous_version_continue(
    stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their attributes have no batch."""
    import json

    unbroken, broken = stores
    predicted(unbroken, SOME)
    killed(broken, SOME, 2, monkeypatch)
    (begun,) = broken[0].tiles("d", "m", 0).glob(".*.partial")
    about = json.loads((begun / "zarr.json").read_text())
    del about["attributes"]["batch"]
    (begun / "zarr.json").write_text(json.dumps(about))
    predicted(broken, MUCH)
    assert numbers(broken)["a"] == numbers(unbroken)["a"]
    for name, expected in images(unbroken).items():
        np.testing.assert_array_equal(images(broken)[name], expected)


def test_an_image_that_changes_its_part_half_way(
    stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores[0]
    killed(store, SOME, 2, monkeypatch)
    monkeypatch.setitem(PARTS, "a", "val")
    predicted(store, SOME)
    assert Tiles(store[0].tiles("d", "m", 0)).attrs("a")["part"] == "val"


def test_other_windows_are_not_mixed(stores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with another tile size refuses to continue."""
    store = stores[0]
    killed(store, SOME, 2, monkeypatch)
    folder = store[0].tiles("d", "m", 0)
    (begun,) = folder.glob(".*.partial")
    import json

    key = json.loads((begun / "zarr.json").read_text())["attributes"]["key"]
    assert begun.name == unfinished_name("a", key)
    with pytest.raises(
        UserError, match=r"started with tiles of \[.*\] px, but this process uses \[8"
    ):
        UnfinishedTiles(folder, "a", key, "1").create(None, 2, "float32", {"tile": [8, 8]})  # type: ignore[arg-type]


def test_a_new_image_does_not_change_the_precision_of_the_others(
    make_store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The precision is checked on the first image, and that may be a new one."""
    store = make_store(SHAPES)
    paths, _ = store
    settings = PredictSettings.made(predict=PredictSection(precision="bfloat16"), device="cpu")
    asked: list[bool] = []

    def run(names: str, good: bool) -> dict[str, str]:
        def agrees(*_: Any) -> bool:
            asked.append(good)
            return good

        monkeypatch.setattr(predict_module, "agrees_with_float32", agrees)
        predict_fold(
            data_of(store, [Member(Path("0.pt"), model(), "key")], dict.fromkeys(names, "test")),
            settings,
            PredictionResources(threads=1),
        )
        tiles = Tiles(paths.tiles("d", "m", 0))
        return {name: tiles.attrs(name)["precision"] for name in tiles.ids()}

    assert run("bc", good=True) == {"b": "bfloat16", "c": "bfloat16"}
    before = (paths.tiles("d", "m", 0) / "b" / "zarr.json").stat().st_mtime_ns
    assert run("abc", good=False) == dict.fromkeys("abc", "bfloat16")
    assert (paths.tiles("d", "m", 0) / "b" / "zarr.json").stat().st_mtime_ns == before
    assert asked == [True]
    # Without tiles it is checked again; a precision that is too coarse stays rejected.
    remove(paths.tiles("d", "m", 0))
    assert run("bc", good=False) == {"b": "float32", "c": "float32"}
    assert run("abc", good=True) == dict.fromkeys("abc", "float32")
    assert asked == [True, False]
