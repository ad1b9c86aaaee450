"""The predict stage: tiles equal the whole image for any batch, memory that runs out, and what is
kept from one run to the next."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unet.config.geometry import footprint
from unet.config.presets import Architecture, architecture_of
from unet.config.sections import PredictSection
from unet.config.stage_settings import PredictSettings
from unet.data.store import Prepared, add_image, layout_of, new_image
from unet.data.tiling import plan, read_window
from unet.errors import UserError
from unet.models.build import build
from unet.models.inference import Predictor
from unet.models.model_file import ModelFile
from unet.models.network import Network
from unet.models.transfer import Late
from unet.paths import Paths
from unet.prediction.tiles import worker
from unet.prediction.tiles.batches import Batch
from unet.prediction.tiles.ensemble import Member
from unet.prediction.tiles.finished_tiles import UnfinishedTiles
from unet.prediction.tiles.predict import gather, predict_fold
from unet.prediction.tiles.prediction_job import (
    PredictionData,
    PredictionResources,
    Share,
    image_key,
)
from unet.prediction.tiles.tile_store import Tiles
from unet.prediction.tiles.windows import (
    BYTES_PER_PIXEL_AND_WIDTH,
    LARGEST_WINDOW,
    auto_tile,
    choose_batch,
)
from unet.prediction.tiles.worker import Batching, Lane, TileWorker, begin, joined

CPU = torch.device("cpu")
PARTS: dict[str, Any] = {"c": "val", "d": "test"}
SHAPES = ((48, 56), (48, 56), (61, 33), (97, 64))


def model(preset: str = "unet-bn", seed: int = 0, channels: int = 1, **layers: Any) -> ModelFile:
    arch = architecture_of(preset, **{"width": 2, "depth": 1, "dropout": 0.0, **layers})
    return ModelFile(
        architecture=arch, in_channels=channels, head=("background", "foreground"),
        class_names=("background", "foreground"), class_values=None, task="instances",
        normalize={}, pixel_size_um=None, settings={}, versions={}, score=0.0, step=0,
        weights=build(channels, 2, arch, seed).state_dict(),
    )  # fmt: skip


def data_of(store: Any, members: list[Member], parts: Any, alone: Any = None) -> PredictionData:
    paths, sentinel = store
    tiles = paths.tiles("d", "m", 0)
    return PredictionData(members, paths.prepared("d"), sentinel, parts, tiles, alone or {})


def predicted(
    store: tuple[Paths, dict[str, Any]], *models: ModelFile, key: str = "key", **options: Any
) -> Tiles:
    paths, _ = store
    section = {"tile": 40, "dtype": "float32", "precision": "float32", **options}
    batch = section.pop("batch", "auto")
    parts, alone = section.pop("parts", PARTS), section.pop("alone", None)
    members = [Member(Path(f"{i}.pt"), m, f"{key} {i}") for i, m in enumerate(models)]
    entries = predict_fold(
        data_of(store, members, parts, alone or {}),
        PredictSettings.made(predict=PredictSection(**section), device="cpu"),
        PredictionResources(batch, 1e9, threads=1),
    )
    tiles = Tiles(paths.tiles("d", "m", 0))
    assert sorted(entries) == tiles.ids() == sorted(parts)
    for name, entry in entries.items():
        assert entry["part"] == tiles.attrs(name)["part"] == parts[name]
        assert entry["tiles"] == len(tiles.cores(name))
        assert entry["shape"] == tiles.attrs(name)["shape"]
    return tiles


def whole(tiles: Tiles, name: str) -> np.ndarray:
    return tiles.read(name, tuple(slice(0, n) for n in tiles.attrs(name)["shape"]))


@pytest.mark.parametrize("preset", ["unet2015", "unet-bn"])
def test_tiles_equal_the_whole_image(make_store, preset: str) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    made = model(preset)
    reference = Predictor([made.network()], CPU, "float32")
    prepared = Prepared(store[0].prepared("d"))
    for tile in (36, 52, (36, 60), 1024, "auto"):
        tiles = predicted(store, made, tile=tile, key=str(tile))
        for name in "cd":
            expected = reference.whole(prepared.image(name)[...])
            np.testing.assert_allclose(whole(tiles, name), expected, atol=1e-5, rtol=0)


def add_volume(store: tuple[Paths, dict[str, Any]], name: str, shape: tuple[int, ...]) -> None:
    paths, sentinel = store
    values = np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)
    about = {"key": f"volume {shape}", "axes": "CZYX", "pixel_size_um": [2.0, 0.5, 0.5]}
    with new_image(paths.prepared("d"), name) as group:
        add_image(group, 1, shape, layout_of(shape, tile=16, shard=2))[...] = values
        group.attrs.update({**about, "statistics": {}, "channels": [""], "group": ""})
    sentinel["images"][name] = {**about, "shape": [1, *shape]}


@pytest.mark.parametrize("preset", ["unet2015", "unet-bn"])
def test_tiles_of_a_volume_equal_the_whole_volume(make_store, preset: str) -> None:  # type: ignore[no-untyped-def]
    store = make_store()
    add_volume(store, "v", (13, 45, 38))
    layers: dict[str, Any] = {"dims": 3, "kernels": [[1, 3, 3], [3, 3, 3]], "pools": [[1, 2, 2]]}
    made = model(preset, **layers)
    reference = Predictor([made.network()], CPU, "float32")
    expected = reference.whole(Prepared(store[0].prepared("d")).image("v")[...])
    parts: dict[str, Any] = {"v": "test"}
    seen = set()
    for tile in (36, (10, 32, 40), "auto"):
        tiles = predicted(store, made, tile=tile, key=str(tile), parts=parts)
        assert tiles.attrs("v")["axes"] == "CZYX"
        np.testing.assert_allclose(whole(tiles, "v"), expected, atol=1e-5, rtol=0)
        seen.add(len(tiles.cores("v")))
    assert max(seen) > 1
    with pytest.raises(UserError, match="image v has 3 spatial axes, the model 2; write dims: 3"):
        predicted(store, model(), parts=parts)


def test_auto_tile() -> None:
    fps = footprint(Architecture(padding="same", norm="none"))
    # One window if it fits.
    assert auto_tile((500, 300), fps, 64, 1e12) == (512, 304)
    # Otherwise windows that fit in a third of the memory and compute few pixels twice.
    for memory in (1e9, 1e10, 1e12):
        tile = auto_tile((5000, 3000), fps, 64, memory)
        room = min(memory / 3 / (64 * BYTES_PER_PIXEL_AND_WIDTH), LARGEST_WINDOW[2])
        assert 0.4 * room < np.prod(tile) <= room
        assert plan((5000, 3000), tile, fps).window == tile
    # Never too small for a core: 96 px of halo on both sides, plus 16.
    assert auto_tile((5000, 3000), fps, 64, 1.0) == (208, 208)


def test_batches_change_nothing(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    made = model("unet2015")
    results = [whole(predicted(store, made, batch=n, key=str(n)), "d") for n in (1, 3, 16, "auto")]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-5, rtol=0)


def test_half_precision_is_the_rounded_one(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    exact = whole(predicted(store, model(), key="1"), "d")
    rounded = predicted(store, model(), key="2", dtype="float16")
    np.testing.assert_array_equal(whole(rounded, "d"), exact.astype(np.float16).astype(np.float32))


def test_models_are_averaged_and_tta_is_used(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    models = [model(seed=seed) for seed in range(2)]
    each = [whole(predicted(store, m, key=f"{i}"), "d") for i, m in enumerate(models)]
    both = whole(predicted(store, *models, key="both"), "d")
    np.testing.assert_allclose(both, np.mean(each, axis=0), atol=1e-6, rtol=0)
    turned = whole(predicted(store, models[0], key="tta", tta=True), "d")
    image = Prepared(store[0].prepared("d")).image("d")[...]
    expected = Predictor([models[0].network()], CPU, "float32", tta=True).whole(image)
    np.testing.assert_allclose(turned, expected, atol=1e-5, rtol=0)


def test_one_network_of_an_ensemble_predicts_a_validation_image(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    models = [model(seed=seed) for seed in range(3)]
    parts: dict[str, Any] = {"a": "val", "b": "val", "c": "val", "d": "test"}
    ensemble = predicted(store, *models, parts=parts, alone={"a": 2, "b": 0, "c": 1}, key="all")
    found = {name: whole(ensemble, name) for name in parts}
    prepared = Prepared(store[0].prepared("d"))
    alone = [
        {n: Predictor([m.network()], CPU, "float32").whole(prepared.image(n)[...]) for n in parts}
        for m in models
    ]
    for name, index in (("a", 2), ("b", 0), ("c", 1)):
        np.testing.assert_allclose(found[name], alone[index][name], atol=1e-5, rtol=0)
        others = [alone[k][name] for k in range(3) if k != index]
        assert all(np.abs(found[name] - other).max() > 1e-3 for other in others)
    mean = np.mean([of["d"] for of in alone], axis=0)
    np.testing.assert_allclose(found["d"], mean, atol=1e-5, rtol=0)


def test_an_ensemble_keeps_what_its_networks_did_not_change(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    models = [model(seed=seed) for seed in range(2)]
    parts: dict[str, Any] = {"b": "val", "c": "val", "d": "test"}
    first = predicted(store, *models, parts=parts, alone={"b": 0, "c": 1})
    before = {name: stamps(first, name) for name in parts}
    # With a third network, the images that the first two predict alone stay valid.
    parts["a"] = "val"
    more = predicted(store, *models, model(seed=2), parts=parts, alone={"b": 0, "c": 1, "a": 2})
    assert {name for name in "bcd" if stamps(more, name) == before[name]} == {"b", "c"}


def stamps(tiles: Tiles, name: str) -> list[int]:
    return sorted(p.stat().st_mtime_ns for p in (tiles.path / name).rglob("*") if p.is_file())


def test_finished_tiles_are_kept(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    first = stamps(predicted(store, model()), "d")
    assert stamps(predicted(store, model(), batch=2), "d") == first  # a matter of speed
    assert stamps(predicted(store, model(), tile=60), "d") != first
    second = stamps(predicted(store, model(), key="other model"), "d")
    store[1]["images"]["c"]["key"] = "edited"
    tiles = predicted(store, model(), key="other model")
    assert stamps(tiles, "d") == second
    # An image that moves from one part to the other is not used under its old part.
    swapped: dict[str, Any] = {"c": "test", "d": "val"}
    assert predicted(store, model(), key="other model", parts=swapped).attrs("d")["part"] == "val"


def test_stale_and_unfinished_images_are_removed(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    tiles = predicted(store, model())
    (tiles.path / ".d.abc.tmp").mkdir()
    (tiles.path / "gone").mkdir()
    only: dict[str, Any] = {"d": "test"}
    assert predicted(store, model(), parts=only).ids() == ["d"]
    assert {p.name for p in tiles.path.iterdir()} == {"d", "zarr.json"}


def test_channels_must_fit(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES, channels=2)
    with pytest.raises(UserError, match=r"the images have 2 channels, the model needs 1; choose"):
        predicted(store, model())
    predicted(store, model(channels=2))


class SmallDevice(Network):
    """A network whose device has memory for only a few windows; predicts two equal classes."""

    def __init__(self, room: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.arch = Architecture(padding="same", norm="none", depth=1)
        self.in_channels, self.num_classes = 1, 2
        self.footprint = footprint(self.arch)
        self.room, self.seen = room, []  # type: ignore[var-annotated]
        self.error = error or torch.OutOfMemoryError("out of memory")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.room:
            raise self.error
        self.seen.append(len(x))
        return torch.cat([x, torch.zeros_like(x)], dim=1)


def run_on(network: SmallDevice, batch: int) -> tuple[np.ndarray, Batching]:
    # Exact, although a small window on its own would be predicted twice.
    predictor = Predictor([network], CPU, "float32", exact=False)
    image = np.random.default_rng(0).normal(size=(1, 150, 20)).astype(np.float32)
    plan = predictor.plan(image.shape[1:], 32)
    batching = Batching(batch)
    windows = np.stack([read_window(image, tile.window) for tile in plan.tiles])
    out = np.empty((2, 150, 20), dtype=np.float32)
    found = joined(begin(predictor, windows, batching))
    for tile, values in zip(plan.tiles, found, strict=True):
        out[(slice(None), *tile.core)] = values[(slice(None), *tile.inner)]
    expected = 1 / (1 + np.exp(-image[0]))
    np.testing.assert_allclose(out[0], expected, atol=1e-6)
    return out, batching


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("x"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "python", "cpu"],
)
@pytest.mark.parametrize(("batch", "room", "left"), [(8, 3, 2), (7, 1, 1), (4, 4, 4)])
def test_batches_are_halved_when_memory_runs_out(
    batch: int, room: int, left: int, error: BaseException
) -> None:
    network = SmallDevice(room, error)
    _, batching = run_on(network, batch)
    assert batching.size == left
    assert max(network.seen) <= room


def test_a_single_tile_that_does_not_fit_is_reported() -> None:
    with pytest.raises(UserError, match=r"predict\.tile: .*single tile; write a smaller tile") as e:
        run_on(SmallDevice(0), 4)
    assert "\n" not in str(e.value)


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_on(SmallDevice(0, RuntimeError("shape mismatch")), 4)


def test_choice_of_the_batch() -> None:
    assert choose_batch(5, (64, 64), 8, "cpu", 1e9) == 5
    # Windows so large that a larger batch is no faster, or would not fit.
    assert choose_batch("auto", (4096, 4096), 64, "cpu", 1e9) == 1
    assert choose_batch("auto", (64, 64), 8, "cpu", 1e9) == 16
    assert choose_batch("auto", (64, 64), 8, "cpu", 1e4) == 1
    few = choose_batch("auto", (256, 256), 32, "cpu", 1e9)
    assert 1 < few < 16


def test_the_key_of_an_image() -> None:
    key = image_key("model", "image", {"a": 1})
    assert image_key("model", "image", {"a": 1}) == key
    others = [("m", "image", {"a": 1}), ("model", "i", {"a": 1}), ("model", "image", {"a": 2})]
    assert key not in [image_key(*other) for other in others]


def content(folder: Path) -> dict[str, bytes]:
    """All files of a tile store by their names."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def counted(monkeypatch: Any) -> list[Batch]:
    """Records the batches that are computed from now on."""
    seen: list[Batch] = []
    compute = TileWorker.compute

    def counting(self: TileWorker, batch: Batch) -> Batch:
        seen.append(batch)
        return compute(self, batch)

    monkeypatch.setattr(TileWorker, "compute", counting)
    return seen


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_a_killed_run_continues(make_store, monkeypatch: Any, after: int, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    unbroken, store = (
        make_store(SHAPES, output=tmp_path / "unbroken"),
        make_store(SHAPES, output=tmp_path / "killed"),
    )
    predicted(unbroken, model(), batch=2)
    compute, seen = TileWorker.compute, []  # type: ignore[var-annotated]

    def dying(self: TileWorker, batch: Batch) -> Batch:
        if len(seen) == after:
            raise KeyboardInterrupt
        seen.append(batch)
        return compute(self, batch)

    folder = store[0].tiles("d", "m", 0)
    with monkeypatch.context() as patch:
        patch.setattr(TileWorker, "compute", dying)
        patch.setattr(TileWorker, "feeders", 1)
        with pytest.raises(KeyboardInterrupt):
            predicted(store, model(), batch=2)
    finished = {image for image in PARTS if (folder / image).exists()}
    assert finished < set(PARTS)
    again = counted(monkeypatch)
    predicted(store, model(), batch=2)
    tiles = [tile for batch in (*seen, *again) for tile in batch]
    assert len(tiles) == len(set(tiles))  # none twice
    assert content(folder) == content(unbroken[0].tiles("d", "m", 0))


@contextmanager
def killed_after(batches: int, monkeypatch: Any) -> Iterator[list[Batch]]:
    """Kills the prediction in this block after so many batches, which it gives."""
    seen, compute = list[Batch](), TileWorker.compute

    def dying(self: TileWorker, batch: Batch) -> Batch:
        if len(seen) == batches:
            raise KeyboardInterrupt
        seen.append(batch)
        return compute(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TileWorker, "compute", dying)
        patch.setattr(TileWorker, "feeders", 1)
        with pytest.raises(KeyboardInterrupt):
            yield seen


def test_what_is_left_of_a_resumed_run(  # type: ignore[no-untyped-def]
    make_store, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Tiles that an earlier run finished do not count."""
    store = make_store(SHAPES)
    with killed_after(3, monkeypatch) as seen:
        predicted(store, model(), batch=1)
    # Some tiles of an image are done, and others are not.
    partly = {image for image, _ in sum(seen, ())}
    assert any(not (store[0].tiles("d", "m", 0) / image).exists() for image in partly)
    monkeypatch.setattr("unet.prediction.tiles.predict_loop.LOG_SECONDS", -1.0)
    with caplog.at_level(logging.INFO):
        predicted(store, model(), batch=1)
    told = [record.args for record in caplog.records if record.msg.startswith("%.1f of %.1f Mpx")]
    computed, total, _, left = told[-1]  # type: ignore[misc]
    assert computed == pytest.approx(total)
    assert left == "0 s"


def test_a_run_that_died_right_before_the_end(make_store, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)

    def dying(self: UnfinishedTiles, part: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedTiles, "finish", dying)
        patch.setattr(TileWorker, "feeders", 1)
        with pytest.raises(KeyboardInterrupt):
            predicted(store, model(), batch=100, parts={"a": "test"})
    assert not (store[0].tiles("d", "m", 0) / "a").exists()
    again = counted(monkeypatch)
    predicted(store, model(), batch=100, parts={"a": "test"})
    assert again == []


def test_an_incomplete_line_does_not_count(tmp_path: Path) -> None:
    partial = UnfinishedTiles(tmp_path, "a", "key", "0")
    partial.create(
        plan((8, 8), 8, footprint(architecture_of("unet-bn", depth=1))),
        2,
        "float32",
        {"tile": [8, 8]},
    )
    partial.mark([(3, False), (12, True)])
    with (partial.path / ".done" / "0").open("a") as handle:
        handle.write("1")  # of 17, say
    UnfinishedTiles(tmp_path, "a", "key", "1").mark([(4, False)])
    assert partial.done() == {3: False, 12: True, 4: False}


def test_another_model_starts_again(make_store, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    folder = store[0].tiles("d", "m", 0)
    with monkeypatch.context() as patch:
        patch.setattr(UnfinishedTiles, "finish", lambda self, part: None)
        with pytest.raises(AssertionError):
            predicted(store, model(), parts={"d": "test"})
    assert len(list(folder.glob(".*.partial"))) == 1
    predicted(store, model(seed=1), key="other", parts={"d": "test"})
    assert sorted(path.name for path in folder.iterdir()) == ["d", "zarr.json"]


def test_small_images_share_a_batch(make_store, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    store = make_store(((32, 32),) * 4)
    seen = counted(monkeypatch)
    parts: dict[str, Any] = dict.fromkeys("abcd", "test")
    tiles = predicted(store, model(), batch=3, parts=parts)
    assert [len(batch) for batch in seen] == [3, 1]
    # Each with its own pixels.
    reference = Predictor([model().network()], CPU, "float32")
    for name in parts:
        image = Prepared(store[0].prepared("d")).image(name)[...]
        np.testing.assert_allclose(whole(tiles, name), reference.whole(image), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_jobs_that_share_a_fold(make_store, count: int, monkeypatch: Any, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    one, store = (
        make_store(SHAPES, output=tmp_path / "one"),
        make_store(SHAPES, output=tmp_path / "shared"),
    )
    predicted(one, model(), batch=2)
    seen = counted(monkeypatch)
    entries = [shared(store, model(), Share(index, count)) for index in range(count)]
    tiles = [tile for batch in seen for tile in batch]
    assert len(tiles) == len(set(tiles))
    folder = store[0].tiles("d", "m", 0)
    assert Tiles(folder).ids() == []
    images = gather(folder, entries)
    assert content(folder) == content(one[0].tiles("d", "m", 0))
    assert sorted(images) == sorted(PARTS)
    assert gather(folder, entries) == images  # once more: nothing to do


def test_a_missing_share_is_reported(make_store) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)
    entries = shared(store, model(), Share(0, 2))
    folder = store[0].tiles("d", "m", 0)
    with pytest.raises(UserError, match=r"\d of \d tiles of image d are missing; remove") as error:
        gather(folder, [entries, entries])
    assert "\n" not in str(error.value)
    other = shared(store, model(seed=1), Share(1, 2), key="other")
    with pytest.raises(UserError, match=r"used different settings"):
        gather(folder, [entries, other])


def shared(store: Any, network: ModelFile, share: Share, key: str = "key") -> dict[str, Any]:
    section = PredictSection(tile=40, dtype="float32", precision="float32")
    return predict_fold(
        data_of(store, [Member(Path("0.pt"), network, f"{key} 0")], PARTS),
        PredictSettings.made(predict=section, device="cpu"),
        PredictionResources(2, 1e9, threads=1),
        share,
    )


def test_too_little_disk_is_an_error_at_the_start(make_store, monkeypatch: Any) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("unet.prediction.tiles.predict.free_bytes", lambda path: 1000)
    with pytest.raises(UserError, match=r"tiles may need .* GB, but only 1e-06 GB are free; make"):
        predicted(make_store(SHAPES), model())


def test_two_devices_give_what_one_gives(make_store, monkeypatch: Any, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    one, store = (
        make_store(SHAPES, output=tmp_path / "one"),
        make_store(SHAPES, output=tmp_path / "two"),
    )
    predicted(one, model(), batch=2)
    monkeypatch.setattr(
        "unet.prediction.tiles.predict.choose_devices", lambda name, gpus: [CPU, CPU]
    )
    used = set()
    plain = begin

    def watched(predictor: Predictor, windows: np.ndarray, batching: Batching) -> list[Late]:
        used.add(id(batching))
        return plain(predictor, windows, batching)

    monkeypatch.setattr("unet.prediction.tiles.worker.begin", watched)
    predicted(store, model(), batch=2)
    assert content(one[0].tiles("d", "m", 0)) == content(store[0].tiles("d", "m", 0))
    assert len(used) == 2


def test_a_gpu_gets_the_next_batch_before_the_first_is_read(  # type: ignore[no-untyped-def]
    make_store, monkeypatch: Any, tmp_path: Path
) -> None:
    one, other = (
        make_store(SHAPES, output=tmp_path / "one"),
        make_store(SHAPES, output=tmp_path / "two"),
    )
    predicted(one, model(), batch=2)
    monkeypatch.setitem(worker._PIPELINING, "cpu", worker._PIPELINING["cuda"])
    plain, given, two = Lane.begin, [0], threading.Event()

    def begun(self: Lane, image: str, windows: np.ndarray) -> Callable[[], np.ndarray]:
        given[0] += 1
        if given[0] == 2:
            two.set()
        result = plain(self, image, windows)

        def wait() -> np.ndarray:
            assert two.wait(60), "the device waits for the reading of its first result"
            return result()

        return wait

    monkeypatch.setattr(Lane, "begin", begun)
    predicted(other, model(), batch=2)
    assert content(one[0].tiles("d", "m", 0)) == content(other[0].tiles("d", "m", 0))
