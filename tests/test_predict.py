"""The predict stage: tiles equal the whole image, whatever the batch; memory that runs out; what is
kept from one run to the next."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unet.data.store import Prepared, add_image, layout_of, new_image
from unet.data.tiling import plan
from unet.errors import UserError
from unet.models.build import build
from unet.models.geometry import footprint
from unet.models.inference import Predictor
from unet.models.modelfile import ModelFile
from unet.models.network import Network
from unet.models.presets import Architecture, architecture_of
from unet.paths import Paths
from unet.prediction.ensemble import Member
from unet.prediction.predict import (
    BYTES_PER_PIXEL_AND_WIDTH,
    LARGEST,
    Batching,
    auto_tile,
    choose_batch,
    image_key,
    predict_fold,
    predict_image,
)
from unet.prediction.tiles import Tiles
from unet.sections import PredictSection

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


def predicted(
    store: tuple[Paths, dict[str, Any]], *models: ModelFile, key: str = "key", **options: Any
) -> Tiles:
    paths, sentinel = store
    section = {"tile": 40, "dtype": "float32", "precision": "float32", **options}
    batch = section.pop("batch", "auto")
    parts, alone = section.pop("parts", PARTS), section.pop("alone", None)
    settings = {
        "version": 1,
        "predict": PredictSection(**section).model_dump(mode="json"),
        "device": "cpu",
    }
    members = [Member(Path(f"{i}.pt"), m, f"{key} {i}") for i, m in enumerate(models)]
    entries = predict_fold(
        members, paths.prepared("d"), sentinel, parts, settings, paths.tiles("d", "m", 0),
        batch, 1e9, threads=1, alone=alone,
    )  # fmt: skip
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
    # One window where there is room.
    assert auto_tile((500, 300), fps, 64, 1e12) == (512, 304)
    # Otherwise what a third of the memory holds, in windows that compute little twice.
    for memory in (1e9, 1e10, 1e12):
        tile = auto_tile((5000, 3000), fps, 64, memory)
        room = min(memory / 3 / (64 * BYTES_PER_PIXEL_AND_WIDTH), LARGEST[2])
        assert 0.4 * room < np.prod(tile) <= room
        assert plan((5000, 3000), tile, fps).window == tile
    # Never below a window that has something to keep: 96 px of halo on both sides, and 16.
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


def test_of_an_ensemble_one_network_predicts_a_validation_image(make_store) -> None:  # type: ignore[no-untyped-def]
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
    # A third network: what the first two predict alone is still right.
    parts["a"] = "val"
    more = predicted(store, *models, model(seed=2), parts=parts, alone={"b": 0, "c": 1, "a": 2})
    assert {name for name in "bcd" if stamps(more, name) == before[name]} == {"b", "c"}


def stamps(tiles: Tiles, name: str) -> list[int]:
    return sorted(p.stat().st_mtime_ns for p in (tiles.path / name).rglob("*") if p.is_file())


def test_what_is_there_is_kept(make_store) -> None:  # type: ignore[no-untyped-def]
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
    with pytest.raises(UserError, match=r"2 channel\(s\), the model wants 1"):
        predicted(store, model())
    predicted(store, model(channels=2))


class SmallDevice(Network):
    """A network whose device has room for some windows only; gives two equal classes."""

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
    predictor = Predictor([network], CPU, "float32")
    image = np.random.default_rng(0).normal(size=(1, 150, 20)).astype(np.float32)
    plan = predictor.plan(image.shape[1:], 32)
    target = np.full((len(plan.tiles), 2, *plan.core), np.nan, dtype=np.float32)
    batching = Batching(batch)
    with ThreadPoolExecutor(1) as runner:
        predict_image(predictor, image, plan, target, batching, runner)
    out = np.empty((2, 150, 20), dtype=np.float32)
    for tile, values in zip(plan.tiles, target, strict=True):
        core = out[(slice(None), *tile.core)]
        core[...] = values[(slice(None), *(slice(0, n) for n in core.shape[1:]))]
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


def test_a_single_tile_that_does_not_fit_is_told() -> None:
    with pytest.raises(UserError, match=r"predict\.tile: .*single tile; write a smaller tile") as e:
        run_on(SmallDevice(0), 4)
    assert "\n" not in str(e.value)


def test_other_errors_are_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run_on(SmallDevice(0, RuntimeError("shape mismatch")), 4)


def test_choice_of_the_batch() -> None:
    assert choose_batch(5, (64, 64), 8, CPU, 1e9) == 5
    # Windows so large that a larger batch is no faster, or would not fit.
    assert choose_batch("auto", (4096, 4096), 64, CPU, 1e9) == 1
    assert choose_batch("auto", (64, 64), 8, CPU, 1e9) == 16
    assert choose_batch("auto", (64, 64), 8, CPU, 1e4) == 1
    few = choose_batch("auto", (256, 256), 32, CPU, 1e9)
    assert 1 < few < 16


def test_the_key_of_an_image() -> None:
    key = image_key("model", "image", {"a": 1})
    assert image_key("model", "image", {"a": 1}) == key
    others = [("m", "image", {"a": 1}), ("model", "i", {"a": 1}), ("model", "image", {"a": 2})]
    assert key not in [image_key(*other) for other in others]


def test_an_interrupted_image_does_not_appear(make_store, monkeypatch: Any, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    store = make_store(SHAPES)

    def failing(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unet.prediction.predict.predict_image", failing)
        with pytest.raises(KeyboardInterrupt):
            predicted(store, model())
    folder = store[0].tiles("d", "m", 0)
    assert [p.name for p in folder.iterdir()] == ["zarr.json"]
