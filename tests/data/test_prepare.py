"""The prepare stage: what it writes for each kind of label, what it reuses, what it refuses."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from scripts.prepare import main
from unet.config.data_settings import PrepareSettings
from unet.config.sections import PrepareSection
from unet.data import prepare_image
from unet.data.blocks import Budget
from unet.data.label_maps import instance_maps, semantic_classes
from unet.data.prepare import prepare_dataset
from unet.data.records import ImageRecord, write_manifest
from unet.data.store import Prepared
from unet.errors import UserError
from unet.files import file_sha256, read_json
from unet.paths import Paths

Array = npt.NDArray[Any]
GB = 10**9


def settings(
    task: str = "semantic",
    classes: dict[str, int] | None = None,
    ignore: int | None = None,
    **prepare: Any,
) -> PrepareSettings:
    if task == "semantic" and classes is None:
        classes = {"background": 0, "cell": 255}
    normalize = {"method": "minmax", "low": 1.0, "high": 99.8, "scope": "image"}
    normalize |= prepare.pop("normalize", {})
    return PrepareSettings(
        version=1,
        prepare=PrepareSection(**{"normalize": normalize, "tile": 32, "shard": 2, **prepare}),
        task=task,
        classes=None if classes is None else tuple(classes.items()),
        ignore=ignore,
        axes=None,
        channels=None,
    )


class Folder:
    """Raw files and the manifest's rows for them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = root / "prepared.zarr"

    def add(
        self, name: str, image: Array, label: Array | None = None, **fields: Any
    ) -> ImageRecord:
        """Writes an image [Y, X] or [C, Y, X] and its label [Y, X]."""
        path, label_path = self.root / f"{name}.tif", self.root / f"{name}_label.tif"
        axes = "CYX"[-image.ndim :]
        tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": axes})
        if label is not None:
            tifffile.imwrite(label_path, label)
        shape = image.shape if image.ndim == 3 else (1, *image.shape)
        values: dict[str, Any] = {
            "id": name,
            "image": path.name,
            "label": "" if label is None else label_path.name,
            "axes": "CYX",
            "shape": shape,
            "dtype": str(image.dtype),
            "channels": ("",) * shape[0],
            "sha256": file_sha256(path),
            "label_sha256": "" if label is None else file_sha256(label_path),
        }
        return ImageRecord(**{**values, **fields})

    def prepare(
        self, *records: ImageRecord, memory: int = GB, threads: int = 2, **values: Any
    ) -> dict[str, Any]:
        return prepare_dataset(records, self.root, self.store, settings(**values), threads, memory)

    def files(self, name: str) -> dict[str, tuple[int, int]]:
        """Inode and time of each file of an image's group."""
        paths = [p for p in (self.store / name).rglob("*") if p.is_file()]
        return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_semantic_round_trip(folder: Folder, rng: np.random.Generator) -> None:
    """Odd size, several shards, multi-channel, classes in the config's order, ignore."""
    image = rng.integers(0, 65536, (3, 75, 101)).astype(np.uint16)
    label = rng.choice([0, 7, 255], (75, 101)).astype(np.uint8)
    record = folder.add("a", image, label, pixel_size_um=(0.5, 0.25), group="g")
    classes = {"cell": 255, "background": 0}
    entry = folder.prepare(record, classes=classes, ignore=7)["a"]
    store = Prepared(folder.store)
    pixels, found = store.image("a"), store.classes("a")
    assert found is not None
    assert (pixels.chunks, pixels.shards) == ((3, 32, 32), (3, 64, 64))
    low, high = image.min(axis=(1, 2)), image.max(axis=(1, 2))
    expected = (image - low[:, None, None]) / (high - low).astype(float)[:, None, None]
    np.testing.assert_allclose(pixels[:], expected, atol=1e-6)
    np.testing.assert_array_equal(found[:], np.select([label == 255, label == 0], [0, 1], 255))
    assert store.instances("a") is None
    attrs = store.attrs("a")
    assert attrs["key"] == entry["key"]
    assert attrs["axes"] == "CYX"
    assert attrs["pixel_size_um"] == [0.5, 0.25]
    assert (attrs["group"], attrs["channels"]) == ("g", ["", "", ""])
    assert attrs["display"] == {n: attrs["statistics"][n] for n in ("low", "high")}
    assert entry == {
        "key": attrs["key"],
        "shape": [3, 75, 101],
        "axes": "CYX",
        "pixel_size_um": [0.5, 0.25],
        "labelled": True,
        "group": "g",
        "statistics": attrs["statistics"],
    }


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_instances_round_trip(folder: Folder, dtype: str) -> None:
    label = np.array([[0, 0, 3], [3, 9, 120]]).astype(dtype)
    folder.prepare(folder.add("a", np.ones((2, 3), np.uint8), label), task="instances")
    store = Prepared(folder.store)
    classes, instances = store.classes("a"), store.instances("a")
    assert classes is not None
    assert instances is not None
    assert instances.dtype == np.uint32
    np.testing.assert_array_equal(instances[:], label)
    np.testing.assert_array_equal(classes[:], label > 0)


def test_sparse_annotation_has_no_background(folder: Folder) -> None:
    label = np.array([[0, 5], [0, 2]], np.uint16)
    folder.prepare(folder.add("a", np.ones((2, 2), np.uint8), label), task="instances", ignore=0)
    store = Prepared(folder.store)
    classes, instances = store.classes("a"), store.instances("a")
    assert classes is not None
    assert instances is not None
    np.testing.assert_array_equal(classes[:], [[255, 1], [255, 1]])
    np.testing.assert_array_equal(instances[:], label)


def test_ignored_ids_are_not_instances() -> None:
    classes, instances = instance_maps(np.array([[-1, 0, 4]], np.int32), ignore=-1)
    np.testing.assert_array_equal(classes, [[255, 0, 1]])
    np.testing.assert_array_equal(instances, [[0, 0, 4]])


@pytest.mark.parametrize(
    "label", [np.array([-2], np.int16), np.array([1.5], np.float32), np.array([2**32], np.uint64)]
)
def test_values_that_are_not_ids_are_refused(label: Array) -> None:
    with pytest.raises(UserError, match=r"label value .* is not an instance id"):
        instance_maps(label, ignore=None)


def test_ignore_beyond_the_labels_type_matches_nothing() -> None:
    found = semantic_classes(np.array([0, 255], np.uint8), {"b": 0, "c": 255}, ignore=-1)
    np.testing.assert_array_equal(found, [0, 1])


def test_folder_of_masks(folder: Folder) -> None:
    """One mask file per object (layout dsb2018)."""
    record = folder.add("a", np.ones((4, 4), np.uint8))
    (folder.root / "masks").mkdir()
    for number in range(2):
        mask = np.zeros((4, 4), np.uint8)
        mask[number] = 255
        tifffile.imwrite(folder.root / "masks" / f"{number}.tif", mask)
    folder.prepare(replace(record, label="masks", label_sha256="x"), task="instances")
    instances = Prepared(folder.store).instances("a")
    assert instances is not None
    np.testing.assert_array_equal(instances[:, 0], [1, 2, 0, 0])


def test_pages_of_a_stack(folder: Folder, rng: np.random.Generator) -> None:
    images = rng.integers(0, 255, (3, 6, 5)).astype(np.uint8)
    labels = rng.choice([0, 255], (3, 6, 5)).astype(np.uint8)
    tifffile.imwrite(folder.root / "i.tif", images, photometric="minisblack")
    tifffile.imwrite(folder.root / "l.tif", labels, photometric="minisblack")
    base = ImageRecord("", "i.tif", "l.tif", axes="CYX", shape=(1, 6, 5), dtype="uint8")
    records = [replace(base, id=f"p{k}", page=k) for k in range(3)]
    folder.prepare(*records)
    store = Prepared(folder.store)
    for page, record in enumerate(records):
        classes = store.classes(record.id)
        assert classes is not None
        np.testing.assert_array_equal(classes[:], labels[page] == 255)
        stored = store.attrs(record.id)["statistics"]
        assert stored["max"] == [images[page].max()]


def test_undeclared_value_names_file_and_value(folder: Folder) -> None:
    label = np.array([[0, 255, 128]], np.uint8)
    record = folder.add("a", np.ones((1, 3), np.uint8), label)
    with pytest.raises(UserError, match=r"a_label\.tif: label value 128 is not declared"):
        folder.prepare(record)
    assert Prepared(folder.store).ids() == []
    assert [p.name for p in folder.store.iterdir()] == ["zarr.json"]


def test_files_that_are_not_what_the_manifest_says(folder: Folder) -> None:
    record = folder.add("a", np.ones((4, 5), np.uint8), np.zeros((5, 4), np.uint8))
    with pytest.raises(UserError, match=r"a_label\.tif: has shape \(5, 4\), but its image"):
        folder.prepare(record)
    with pytest.raises(UserError, match=r"a\.tif: .* run the manifest stage again"):
        folder.prepare(replace(record, shape=(1, 4, 4)))


def test_images_of_different_channels_are_refused(folder: Folder) -> None:
    one = folder.add("a", np.ones((4, 5), np.uint8))
    two = folder.add("b", np.ones((2, 4, 5), np.uint8))
    with pytest.raises(UserError, match=r"b\.tif: has 2 channels, but a\.tif has 1"):
        folder.prepare(one, two)


def test_only_usable_images(folder: Folder) -> None:
    good = folder.add("a", np.ones((4, 5), np.uint8))
    bad = ImageRecord("b", "b.tif", status="quarantined", reason="damaged")
    assert list(folder.prepare(good, bad)) == ["a"]
    assert not Prepared(folder.store).attrs("a").get("labelled")
    assert Prepared(folder.store).classes("a") is None
    with pytest.raises(UserError, match="no usable image"):
        folder.prepare(bad)


def test_float_with_negative_values(folder: Folder) -> None:
    image = np.array([[-2.0, 0.0, 2.0]], np.float32)
    folder.prepare(folder.add("a", image))
    np.testing.assert_array_equal(Prepared(folder.store).image("a")[:], [[[0, 0.5, 1]]])


def test_non_finite_values_are_reported(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    image = np.array([[np.nan, 1.0, 2.0]], np.float32)
    folder.prepare(folder.add("a", image))
    np.testing.assert_array_equal(Prepared(folder.store).image("a")[:], [[[0, 0, 1]]])
    assert "a.tif: 1 values are NaN or infinite" in caplog.text


def test_scope_dataset(folder: Folder) -> None:
    """One shift and scale for all images, also with different types; reused for later images."""
    records = [
        folder.add("a", np.array([[0, 100]], np.uint8), np.array([[0, 255]], np.uint8)),
        folder.add("b", np.array([[200, 400]], np.uint16)),
    ]
    scope = {"normalize": {"scope": "dataset"}}
    entries = folder.prepare(*records, **scope)
    store = Prepared(folder.store)
    np.testing.assert_array_equal(store.image("a")[:], [[[0, 0.25]]])
    np.testing.assert_array_equal(store.image("b")[:], [[[0.5, 1]]])
    assert entries["a"]["statistics"] == entries["b"]["statistics"]
    # A new label concerns its image alone; the statistics are those of before.
    before = folder.files("b")
    changed = replace(records[0], label_sha256="new")
    assert folder.prepare(changed, records[1], **scope)["a"]["statistics"]["max"] == [400]
    assert folder.files("b") == before
    # A third image changes all arrays, since the statistics are those of the dataset.
    third = folder.add("c", np.array([[0, 800]], np.uint16))
    folder.prepare(*records, third, **scope)
    np.testing.assert_array_equal(Prepared(folder.store).image("b")[:], [[[0.25, 0.5]]])
    assert folder.files("b") != before


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_same_result_for_any_memory_and_threads(
    folder: Folder, rng: np.random.Generator, dtype: str
) -> None:
    records = [
        folder.add(f"i{k}", (rng.random((70 + k, 130)) * 1000).astype(dtype)) for k in range(2)
    ]
    for scope in ("image", "dataset"):
        normal = {"normalize": {"scope": scope, "method": "zscore"}}
        results = []
        for threads, memory in ((1, GB), (3, GB), (2, 180_000)):
            entries = folder.prepare(*records, threads=threads, memory=memory, **normal)
            pixels = [Prepared(folder.store).image(r.id)[:].tobytes() for r in records]
            results.append((entries, pixels))
            folder.prepare(*records, normalize={"method": "none"})  # nothing is left to reuse
        assert results[0] == results[1] == results[2]


def test_unchanged_images_stay(folder: Folder, rng: np.random.Generator) -> None:
    label = np.zeros((40, 40), np.uint8)
    records = [folder.add(k, rng.integers(0, 255, (40, 40)).astype(np.uint8), label) for k in "abc"]
    folder.prepare(*records[:2])
    before = {k: folder.files(k) for k in "ab"}
    # One more image, one changed, one left out.
    records[1] = replace(records[1], sha256="changed")
    entries = folder.prepare(*records)
    assert folder.files("a") == before["a"]
    assert folder.files("b") != before["b"]
    assert list(entries) == ["a", "b", "c"]
    folder.prepare(records[0])
    assert Prepared(folder.store).ids() == ["a"]
    assert folder.files("a") == before["a"]


@pytest.mark.parametrize(
    "changes",
    [
        {"tile": 64},
        {"shard": 3},
        {"normalize": {"method": "zscore"}},
        {"classes": {"cell": 255, "background": 0}},
        {"ignore": 9},
        {"task": "instances"},
    ],
)
def test_what_determines_the_arrays_is_in_the_key(folder: Folder, changes: dict[str, Any]) -> None:
    record = folder.add("a", np.eye(4, dtype=np.uint8), np.zeros((4, 4), np.uint8))
    keys = {folder.prepare(record)["a"]["key"], folder.prepare(record, **changes)["a"]["key"]}
    assert len(keys) == 2


def test_attributes_from_the_manifest_are_updated(folder: Folder) -> None:
    record = folder.add("a", np.eye(4, dtype=np.uint8))
    first = folder.prepare(record)["a"]
    arrays = {p: v for p, v in folder.files("a").items() if not p.endswith("zarr.json")}
    moved = replace(record, group="g2", pixel_size_um=(0.1, 0.1))
    second = folder.prepare(moved)["a"]
    assert second == {**first, "group": "g2", "pixel_size_um": [0.1, 0.1]}
    attrs = Prepared(folder.store).attrs("a")
    assert (attrs["group"], attrs["pixel_size_um"]) == ("g2", [0.1, 0.1])
    assert attrs["statistics"] == first["statistics"]
    assert arrays.items() <= folder.files("a").items()


def test_remains_of_a_killed_run_are_removed(folder: Folder) -> None:
    record = folder.add("a", np.eye(4, dtype=np.uint8))
    half = folder.store / ".a.kf3.tmp" / "image"
    half.mkdir(parents=True)
    (half / "c").write_bytes(b"half")
    folder.prepare(record)
    assert sorted(p.name for p in folder.store.iterdir()) == ["a", "zarr.json"]


class Recorded:
    """A large virtual image; records the largest number of pixels requested at once."""

    def __init__(self, shape: tuple[int, ...], chunk: int) -> None:
        self.shape, self.ndim, self.dtype = shape, len(shape), np.dtype(np.uint16)
        self.largest, self.pixels = 0, 0
        self._lock = threading.Lock()
        chunks = (1,) * (len(shape) - 2) + (chunk, chunk)
        self.array = da.from_array(self, chunks=chunks, name=False, asarray=False)

    def __getitem__(self, region: tuple[slice, ...]) -> Array:
        size = tuple(s.stop - s.start for s in region)
        with self._lock:
            self.largest = max(self.largest, int(np.prod(size)))
            self.pixels += int(np.prod(size))
        return np.full(size, 3, self.dtype)


def test_memory_is_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image of 8 MB within 2 MB: no computation and no normalised block is large."""
    shape = (1, 2048, 2048)
    image, label = Recorded(shape, 256), Recorded(shape[1:], 256)
    monkeypatch.setattr(
        prepare_image, "open_image", lambda *a, **k: SimpleNamespace(array=image.array)
    )
    monkeypatch.setattr(
        prepare_image, "open_label_of", lambda *a, **k: SimpleNamespace(array=label.array)
    )
    normalised: list[int] = []
    apply = prepare_image.normalize.apply

    def counted(block: Array, params: dict[str, Any]) -> Array:
        normalised.append(block.size)
        return apply(block, params)

    monkeypatch.setattr(prepare_image.normalize, "apply", counted)
    record = ImageRecord("a", "i", "l", axes="CYX", shape=shape, dtype="uint16")
    budget = 2_000_000
    folder.prepare(record, memory=budget, task="instances", tile=128, shard=2)
    pixels = int(np.prod(shape))
    # Two passes over the image (statistics, write), one over the label.
    assert image.pixels == 2 * pixels
    assert label.pixels == pixels
    assert max(normalised) * (2 * 2 + 20) <= budget
    assert max(image.largest, label.largest) == 256 * 256
    instances = Prepared(folder.store).instances("a")
    assert instances is not None
    assert instances[2000, 1000] == 3


def test_too_little_memory_says_what_to_change(folder: Folder) -> None:
    record = folder.add("a", np.zeros((300, 300), np.uint8))
    with pytest.raises(UserError, match=r"a\.tif: needs .* lower prepare.shard or prepare.tile"):
        folder.prepare(record, memory=1000)


def test_budget_lets_tasks_wait_until_there_is_room() -> None:
    budget = Budget(10)
    inside, leave = threading.Semaphore(0), threading.Event()

    def task() -> None:
        with budget.reserve(4, "x"):
            inside.release()
            leave.wait(10)

    threads = [threading.Thread(target=task) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert inside.acquire(timeout=10)
    assert inside.acquire(timeout=10)
    assert not inside.acquire(timeout=0.1)  # 4 + 4 of 10 are taken: the third one waits
    leave.set()
    for thread in threads:
        thread.join()
    assert inside.acquire(timeout=10)


def test_command_line(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    record = folder.add("a", np.eye(8, dtype=np.uint8), 255 * np.eye(8, dtype=np.uint8))
    output = folder.root / "results"
    paths = Paths(output)
    write_manifest(paths.manifest("d"), [record])
    paths.inputs("d").write_text(json.dumps({"root": str(folder.root)}))
    arguments = ["--output", str(output), "--dataset", "d", "--memory-gb", "0.5"]
    assert main([*arguments, "--settings", json.dumps(settings().to_json())]) == 0
    done = read_json(paths.prepared_done("d"))
    assert (done["version"], done["task"], done["channels"]) == (1, "semantic", 1)
    assert done["class_names"] == ["background", "cell"]
    assert done["images"]["a"]["shape"] == [1, 8, 8]
    assert done["images"]["a"]["labelled"] is True
    assert Prepared(paths.prepared("d")).ids() == ["a"]


@pytest.mark.parametrize("scope", ["image", "dataset"])
def test_white_is_zero_as_the_manifest_has_it(
    folder: Folder, rng: np.random.Generator, scope: str
) -> None:
    """Manifests of older versions do not know of it: pixels as stored, under the key of then."""
    pixels = rng.integers(0, 200, (40, 40)).astype(np.uint8)
    record = folder.add("a", pixels)
    other = folder.add("b", pixels // 2)
    tifffile.imwrite(folder.root / record.image, pixels, photometric="miniswhite")
    record = replace(record, sha256=file_sha256(folder.root / record.image))
    normalize = {"normalize": {"scope": scope}}
    stored = folder.prepare(record, other, **normalize)
    was = np.asarray(Prepared(folder.store).image("a")[...])
    folder.prepare(replace(record, sha256="plain"), other, **normalize)
    inverted = folder.prepare(replace(record, inverted=True), other, **normalize)
    now = np.asarray(Prepared(folder.store).image("a")[...])
    assert stored["a"]["key"] != inverted["a"]["key"]
    assert np.corrcoef(was.ravel(), now.ravel())[0, 1] < -0.9
    # What else the dataset's statistics normalise is made again with them.
    assert (stored["b"]["key"] != inverted["b"]["key"]) == (scope == "dataset")
    assert stored["a"]["statistics"]["max"] == [pixels.max()] or scope == "dataset"
