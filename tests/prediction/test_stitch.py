"""The stitch stage on tiles and prepared images in memory."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05.image import Image
from scipy import ndimage

from scripts.stitch import main
from unet.config.geometry import Footprint
from unet.config.sections import StitchSection
from unet.config.stage_settings import StitchSettings
from unet.data.tiling import plan
from unet.errors import UserError
from unet.evaluation.metrics.contingency import contingency
from unet.evaluation.metrics.instance import instance_metrics
from unet.files import write_sentinel
from unet.paths import Paths
from unet.prediction.objects import threshold as tuning
from unet.prediction.stitch.segmentation import Segmentation
from unet.prediction.stitch.stitch import Outputs, stitch_dataset
from unet.prediction.stitch.stitch_image import class_map, mask_values
from unet.prediction.tiles.tile_store import create_tiles

HEADS = {2: ("background", "cell"), 3: ("background", "inside", "border")}


class FakeTiles:
    """The methods of unet.prediction.tiles.tile_store.Tiles, on arrays [C, Y, X]."""

    def __init__(self, images, parts=None, head=None, pixel=(0.5, 0.5), dtype="float16"):
        self.images = {i: p.astype(dtype) for i, p in images.items()}
        self.parts, self.head = parts or {}, head
        self.pixel, self.dtype = pixel, dtype

    def ids(self):
        return sorted(self.images)

    def attrs(self, image):
        p = self.images[image]
        return {
            "shape": list(p.shape[1:]),
            "head": list(self.head or HEADS[len(p)]),
            "axes": "CYX",
            "pixel_size_um": None if self.pixel is None else list(self.pixel),
            "part": self.parts.get(image, "test"),
            "channels": ["grey"],
            "dtype": self.dtype,
        }

    def read(self, image, region):
        return self.images[image][(slice(None), *region)].astype(np.float32)


class FakePrepared:
    """The methods of unet.data.store.Prepared, on arrays."""

    def __init__(self, images, classes=None, instances=None):
        self.images, self._classes = images, classes or {}
        self._instances = instances or {}

    def ids(self):
        return sorted(self.images)

    def image(self, image):
        return self.images[image]

    def attrs(self, image):
        return {}

    def sparse(self, image):
        return False

    def classes(self, image):
        return self._classes.get(image)

    def instances(self, image):
        return self._instances.get(image)


def blobs(seed, shape=(90, 130), scale=3.0):
    """Probabilities of two classes, smooth, half of the pixels above 0.5."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), scale)
    field = 1 / (1 + np.exp(-4 * field / field.std()))
    return np.stack([1 - field, field]).astype(np.float32)


def with_border(p):
    """Three classes from two: inside where the foreground is certain."""
    inside = np.clip(p[1] * 2 - 1, 0, 1)
    return np.stack([p[0], inside, 1 - p[0] - inside])


def with_distance(p):
    """Foreground and the distance to its edge from two classes."""
    depth = ndimage.distance_transform_edt(p[1] > 0.5)
    return np.concatenate([p, np.minimum(depth / 6, 1)[None].astype(np.float32)])


def grey(images):
    return {i: np.random.default_rng(9).random((1, *p.shape[1:])) for i, p in images.items()}


def outputs_in(folder):
    return Outputs(
        folder / "segmentation.zarr",
        folder / "segmentation.json",
        folder / "masks",
        folder / "objects.csv",
    )


def settings_of(task="instances", head=HEADS[2], values=None, **section):
    names = ("background", "foreground") if task == "instances" else head
    return StitchSettings(
        version=1, stitch=StitchSection(**section), task=task, class_names=names,
        class_values=values, head=head,
    )  # fmt: skip


def table_of(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_instances_end_to_end(tmp_path):
    images = {"a": blobs(0), "b": blobs(1, (70, 64))}
    prepared = FakePrepared(grey(images))
    out = outputs_in(tmp_path)
    tiles = FakeTiles(images, {"b": "val"})
    found = stitch_dataset(tiles, prepared, out, settings_of(min_size=20), threads=2, block=32)
    store = Segmentation(out.segmentation)
    assert store.ids() == ["a", "b"]
    done = json.loads(out.done.read_text())
    assert done["images"] == found
    assert (done["threshold"], done["head"]) == (0.5, list(HEADS[2]))
    rows = table_of(out.objects)
    for image, p in images.items():
        assert store.attrs(image) == {
            "head": list(HEADS[2]),
            "part": {"a": "test", "b": "val"}[image],
            "axes": "CYX",
            "pixel_size_um": [0.5, 0.5],
        }
        Image.from_zarr(zarr.open_group(str(out.segmentation / image), mode="r"))
        probabilities = store.probabilities(image)
        assert probabilities.dtype == np.float16
        np.testing.assert_array_equal(probabilities[:], p.astype(np.float16))
        ids, classes = store.instances(image)[:], store.classes(image)[:]
        assert (ids.dtype, classes.dtype) == (np.uint32, np.uint8)
        np.testing.assert_array_equal(classes, ids > 0)
        assert found[image]["objects"] == ids.max() > 2
        assert np.bincount(ids.ravel())[1:].min() >= 20
        # Keeps all foreground except small pieces, and adds nothing except filled holes.
        fore = 1 - p[0].astype(np.float16).astype(np.float32) > 0.5
        pieces, _ = ndimage.label(fore)
        assert (ids[(np.bincount(pieces.ravel()) >= 20)[pieces] & fore] > 0).all()
        mask = tifffile.imread(out.masks / f"{image}.tif")
        assert mask.dtype == np.uint16
        np.testing.assert_array_equal(mask, ids)
        mine = [row for row in rows if row["image"] == image]
        assert [int(row["label"]) for row in mine] == list(range(1, ids.max() + 1))
        assert [int(row["area_px"]) for row in mine] == np.bincount(ids.ravel())[1:].tolist()
        assert float(mine[0]["area_um2"]) == int(mine[0]["area_px"]) / 4
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "masks",
        "objects.csv",
        "segmentation.json",
        "segmentation.zarr",
    ]
    names = sorted(p.name for p in out.segmentation.iterdir())
    assert names == ["OME", "a", "b", "zarr.json"]


@pytest.mark.parametrize(
    ("method", "channels", "head"),
    [
        ("components", with_border, HEADS[3]),
        ("grow", with_border, HEADS[3]),
        ("watershed", with_distance, ("background", "foreground", "distance")),
    ],
)
def test_blocks_and_threads_change_nothing(tmp_path, method, channels, head):
    images = {"a": channels(blobs(3, (60, 70), 2.0)), "b": channels(blobs(4, (30, 50)))}
    prepared = FakePrepared(grey(images))
    settings = settings_of(head=head, method=method, grow_px=6, connectivity="full")
    seen = []
    for number, (block, threads) in enumerate([(1024, 1), (33, 2), (19, 1)]):
        out = outputs_in(tmp_path / str(number))
        tiles = FakeTiles(images, head=head)
        found = stitch_dataset(tiles, prepared, out, settings, threads, block)
        seen.append((found, out.objects.read_text(), (out.masks / "a.tif").read_bytes()))
    assert found["a"]["objects"] > 3
    assert all(one == seen[0] for one in seen)


def test_semantic_masks_hold_the_declared_values(tmp_path):
    p = np.zeros((3, 66, 70), np.float32)
    p[0] = 0.4
    p[1, 10:20, 10:30] = 0.6
    p[2, 40:50] = 0.5
    head = ("background", "cell", "wall")
    out = outputs_in(tmp_path)
    tiles = FakeTiles({"a": p}, head=head)
    settings = settings_of("semantic", head, (0, 255, 300))
    found = stitch_dataset(tiles, FakePrepared(grey({"a": p})), out, settings, block=32)
    store = Segmentation(out.segmentation)
    assert store.instances("a") is None
    expected = np.zeros((66, 70), np.uint8)
    expected[10:20, 10:30] = 1
    expected[40:50] = 2
    np.testing.assert_array_equal(store.classes("a")[:], expected)
    mask = tifffile.imread(out.masks / "a.tif")
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, np.array([0, 255, 300])[expected])
    assert found["a"]["objects"] == 3
    rows = table_of(out.objects)
    assert [(r["label"], r["class"], r["area_px"]) for r in rows] == [
        ("0", "background", str(66 * 70 - 900)),
        ("255", "cell", "200"),
        ("300", "wall", "700"),
    ]
    assert rows[1]["centroid_y_px"] == "14.500"


def test_semantic_class_that_is_nowhere_has_a_row(tmp_path):
    p = np.stack([np.ones((20, 30)), np.zeros((20, 30))]).astype(np.float32)
    out = outputs_in(tmp_path)
    stitch_dataset(FakeTiles({"a": p}), FakePrepared(grey({"a": p})), out, settings_of("semantic"))
    assert [r["area_px"] for r in table_of(out.objects)] == ["600", "0"]


def test_class_map():
    p = np.array([[[0.5, 0.2, 0.7]], [[0.5, 0.8, 0.3]]], np.float32)
    assert class_map(p, 0.5).tolist() == [[0, 1, 0]]
    assert class_map(p, 0.25).tolist() == [[1, 1, 1]]
    three = np.array([[[0.4]], [[0.4]], [[0.2]]], np.float32)
    assert class_map(three, 0.9).tolist() == [[0]]


def test_nothing_to_stitch(tmp_path):
    out = outputs_in(tmp_path)
    assert stitch_dataset(FakeTiles({}), FakePrepared({}), out, settings_of()) == {}
    assert out.objects.read_text().startswith("image,label,class,area_px,")
    assert list(out.masks.iterdir()) == []
    assert Segmentation(out.segmentation).ids() == []


def test_image_without_objects(tmp_path):
    p = np.stack([np.ones((40, 30)), np.zeros((40, 30))]).astype(np.float32)
    out = outputs_in(tmp_path)
    found = stitch_dataset(
        FakeTiles({"a": p}, pixel=None), FakePrepared(grey({"a": p})), out, settings_of(), block=16
    )
    assert found["a"]["objects"] == 0
    assert table_of(out.objects) == []
    assert not Segmentation(out.segmentation).instances("a")[:].any()


def test_a_new_run_replaces_all_of_the_old_one(tmp_path):
    out = outputs_in(tmp_path)
    images = {"a": blobs(0), "b": blobs(1)}
    prepared = FakePrepared(grey(images))
    stitch_dataset(FakeTiles(images), prepared, out, settings_of())
    (out.segmentation / ".a.killed.tmp").mkdir()
    (tmp_path / ".masks.killed.tmp").mkdir()
    stitch_dataset(FakeTiles({"b": images["b"]}), prepared, out, settings_of(tiff=False))
    assert Segmentation(out.segmentation).ids() == ["b"]
    assert list(out.masks.iterdir()) == []
    assert list(tmp_path.rglob(".*")) == []


def test_a_failure_leaves_no_sentinel_and_no_temporary_files(tmp_path):
    class Broken(FakeTiles):
        broken = False

        def read(self, image, region):
            if image == "b" and self.broken:
                raise OSError("bad tile")
            return super().read(image, region)

    images = {"a": blobs(0), "b": blobs(1)}
    tiles, prepared, out = Broken(images), FakePrepared(grey(images)), outputs_in(tmp_path)
    stitch_dataset(tiles, prepared, out, settings_of())
    tiles.broken = True
    for threads in (1, 2):
        with pytest.raises(OSError, match="bad tile"):
            stitch_dataset(tiles, prepared, out, settings_of(), threads, block=32)
        assert not out.done.exists()
        assert list(tmp_path.rglob(".*")) == []


def test_tiles_of_another_head_or_shape_are_refused(tmp_path):
    images = {"a": blobs(0)}
    out = outputs_in(tmp_path)
    with pytest.raises(UserError, match=r"image a: predicted for the classes.*predict stage again"):
        stitch_dataset(
            FakeTiles(images, head=("x", "y")), FakePrepared(grey(images)), out, settings_of()
        )
    other = FakePrepared({"a": np.zeros((1, 90, 131))})
    with pytest.raises(UserError, match=r"image a: predicted for the shape \(90, 130\)"):
        stitch_dataset(FakeTiles(images), other, out, settings_of())


def test_settings_from_the_slice():
    slice_ = {
        "version": 3,
        "stitch": StitchSection(method="grow").model_dump(mode="json"),
        "task": "semantic",
        "class_names": ["background", "cell"],
        "class_values": [0, 255],
        "head": ["background", "cell"],
    }
    found = StitchSettings.from_json(json.loads(json.dumps(slice_)))
    assert found.stitch == StitchSection(method="grow")
    assert (found.version, mask_values(found).dtype) == (3, np.uint8)
    with pytest.raises(UserError, match="32 bits"):
        mask_values(StitchSettings.from_json({**slice_, "class_values": [0, 2**40]}))


def test_a_missing_segmentation_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="run the stitch stage"):
        Segmentation(tmp_path / "segmentation.zarr")


def test_the_command_line_on_real_stores(tmp_path):
    paths = Paths(tmp_path)
    p = blobs(6, (70, 90))
    windows = plan((70, 90), 64, (Footprint(16, 16, 0, 0, 16, 33),) * 2)
    attrs = {"head": HEADS[2], "part": "test", "axes": "CYX", "pixel_size_um": [0.5, 0.5]}
    array = create_tiles(paths.tiles("d", "m", 0) / "a", windows, 2, "float16", attrs)
    for tile in windows.tiles:
        core = p[(slice(None), *tile.core)]
        array[(tile.index, slice(None), *(slice(0, n) for n in core.shape[1:]))] = core
    group = zarr.create_group(str(paths.prepared("d"))).create_group("a")
    group.create_array("image", data=np.random.default_rng(0).random((1, 70, 90), np.float32))
    slice_ = {
        "version": 7,
        "stitch": StitchSection().model_dump(mode="json"),
        "task": "instances",
        "class_names": ["background", "foreground"],
        "class_values": None,
        "head": list(HEADS[2]),
    }
    where = ["--output", str(tmp_path), "--dataset", "d", "--model", "m", "--fold", "0"]
    assert main([*where, "--settings", json.dumps(slice_)]) == 2  # nothing says that it is finished
    write_sentinel(paths.tiles_done("d", "m", 0), 3, {"a": {}})
    write_sentinel(paths.prepared_done("d"), 1, {"a": {}})
    assert main([*where, "--settings", json.dumps(slice_)]) == 0
    done = json.loads(paths.segmentation_done("d", "m", 0).read_text())
    assert done["version"] == 7
    store = Segmentation(paths.segmentation("d", "m", 0))
    np.testing.assert_array_equal(store.probabilities("a")[:], p.astype(np.float16))
    ids = tifffile.imread(paths.masks("d", "m", 0) / "a.tif")
    np.testing.assert_array_equal(store.instances("a")[:], ids)
    assert len(table_of(paths.objects("d", "m", 0))) == ids.max() == done["images"]["a"]["objects"]


# --- threshold


def truth_at(p, level):
    """The truth that thresholding at ``level`` gives exactly."""
    return (p[1].astype(np.float16).astype(np.float32) > np.float32(level)).astype(np.uint8)


def test_auto_finds_the_threshold_of_the_validation_images_alone(tmp_path):
    images = {"t": blobs(0), "v": blobs(1), "w": blobs(2)}
    classes = {i: truth_at(p, 0.3 if i == "t" else 0.7) for i, p in images.items()}
    classes["v"][:5] = 255
    prepared = FakePrepared(grey(images), classes)
    tiles = FakeTiles(images, {"v": "val", "w": "val"})
    out = outputs_in(tmp_path)
    settings = settings_of("semantic", threshold="auto")
    stitch_dataset(tiles, prepared, out, settings, threads=2, block=50)
    assert json.loads(out.done.read_text())["threshold"] == 0.7
    np.testing.assert_array_equal(
        Segmentation(out.segmentation).classes("t")[:], truth_at(images["t"], 0.7)
    )


def test_auto_for_instances_finds_the_best_mean_ap(tmp_path):
    images = {"t": blobs(0), "v": blobs(1, (50, 60), 2.0), "w": blobs(2, (40, 40), 2.0)}
    classes = {i: truth_at(p, 0.8) for i, p in images.items()}
    instances = {i: ndimage.label(c)[0].astype(np.uint32) for i, c in classes.items()}
    prepared = FakePrepared(grey(images), classes, instances)
    tiles = FakeTiles(images, {"v": "val", "w": "val"})
    out = outputs_in(tmp_path)
    settings = settings_of(threshold="auto", min_size=0, fill_holes=0)
    stitch_dataset(tiles, prepared, out, settings, threads=1, block=50)
    # 1 - p[0] and p[1] differ only by rounding.
    assert json.loads(out.done.read_text())["threshold"] == 0.8
    assert list(tmp_path.rglob(".*")) == []


def test_iou_curve_is_the_definition():
    p, rng = blobs(5, (40, 30)), np.random.default_rng(0)
    truth = truth_at(p, 0.55) ^ (rng.random((40, 30)) < 0.1)
    truth = np.where(rng.random((40, 30)) < 0.2, 255, truth).astype(np.uint8)
    tiles, prepared = FakeTiles({"a": p}, dtype="float32"), FakePrepared({}, {"a": truth})
    curve = tuning.iou_curve(tiles, prepared, "a", tuning.grid_of((40, 30), 16))
    for level, score in curve.items():
        pred, valid = p[1] > np.float32(level), truth != 255
        both = (pred & (truth == 1))[valid].sum()
        either = (pred | (truth == 1))[valid].sum()
        assert score == pytest.approx(both / either)


def test_iou_without_foreground_is_nan_where_nothing_is_predicted():
    p = np.full((2, 8, 8), 0.5, np.float32)
    tiles = FakeTiles({"a": p})
    prepared = FakePrepared({}, {"a": np.zeros((8, 8), np.uint8)})
    curve = tuning.iou_curve(tiles, prepared, "a", tuning.grid_of((8, 8), 8))
    assert curve[0.45] == 0
    assert np.isnan(curve[0.5])


def test_ties_go_to_the_nearest_to_a_half_then_to_the_lower():
    flat = dict.fromkeys(tuning.CANDIDATES, 0.25)
    assert tuning.best(flat) == 0.5
    assert tuning.best({**flat, 0.4: 0.3, 0.6: 0.3, 0.7: 0.3}) == 0.4
    assert tuning.best({**flat, 0.9: 0.31, 0.6: 0.3}) == 0.9


@pytest.mark.parametrize("parts", [{}, {"a": "val"}])
def test_auto_without_validation_truth_is_a_half_with_a_warning(tmp_path, caplog, parts):
    images = {"a": blobs(0)}
    out = outputs_in(tmp_path)
    stitch_dataset(
        FakeTiles(images, parts), FakePrepared(grey(images)), out, settings_of(threshold="auto")
    )
    assert json.loads(out.done.read_text())["threshold"] == 0.5
    assert "no validation image" in caplog.text


def test_average_precision_agrees_with_the_evaluation():
    rng = np.random.default_rng(0)
    for size in (3, 6, 12):
        truth = rng.integers(0, 5, (6, size)).astype(np.uint32)
        pred = np.where(rng.random((6, size)) < 0.7, truth, rng.integers(0, 6, (6, size)))
        joint = (truth.astype(np.uint64) << np.uint64(32)) | pred.astype(np.uint64)
        ours = tuning.average_precision(*tuning.count_pairs(joint.ravel()))
        rows = {row.metric: row.value for row in instance_metrics(contingency(truth, pred))}
        assert ours == pytest.approx(rows["ap_0.50"])


def test_average_precision_by_hand():
    def ap(truth, pred):
        joint = (np.array(truth, np.uint64) << np.uint64(32)) | np.array(pred, np.uint64)
        return tuning.average_precision(*tuning.count_pairs(joint))

    assert ap([1, 1, 1, 1], [1, 1, 2, 2]) == 0.5  # both halves reach 0.5, one may match
    assert ap([1, 1, 2, 2], [1, 1, 1, 1]) == 0.5
    assert ap([1, 1, 0, 2], [3, 3, 0, 0]) == 0.5
    assert ap([0, 1], [1, 0]) == 0
    assert np.isnan(ap([0, 0], [0, 0]))
    assert np.isnan(ap([], []))
