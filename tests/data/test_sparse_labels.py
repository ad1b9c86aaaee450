"""Labels of only some objects (unlabelled: ignore): how they are read, stored and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.test_dataset_warnings import run_manifest
from tests.data.test_labels import CLASSES, INSTANCES, cells, write
from unet.config.data_settings import ManifestSettings, PrepareSettings
from unet.config.heads import IGNORE
from unet.config.load import load
from unet.config.sections import PrepareSection
from unet.data.background_rings import mark_background, resolved
from unet.data.dataset_warnings import read_facts
from unet.data.label_maps import UNLABELLED, instance_maps, semantic_classes
from unet.data.prepare import prepare_dataset
from unet.data.records import read_manifest
from unet.data.store import Prepared
from unet.errors import UserError
from unet.paths import Paths

SPARSE: dict[str, Any] = {**INSTANCES, "unlabelled": "ignore"}


def test_values() -> None:
    block = np.array([[0, 3, 9, 7]], np.uint8)
    classes, ids = instance_maps(block, 9, unlabelled=IGNORE, background=7)
    assert classes.tolist() == [[255, 1, 255, 0]]
    assert ids.tolist() == [[0, 3, 0, 0]]
    found = semantic_classes(block, {"ground": 7, "cell": 3}, 9, sparse=True)
    assert found.tolist() == [[255, 1, 255, 0]]


def test_rings_by_hand() -> None:
    ids = np.zeros((1, 9), np.uint32)
    ids[0, 4] = 1
    classes = np.full(ids.shape, UNLABELLED, np.uint8)
    classes[0, 4], classes[0, 3], classes[0, 8] = 1, IGNORE, 0
    # `ignore` beside the object stays unknown, marked background far from it stays background.
    expected = [255, 255, 0, 255, 1, 0, 0, 255, 0]
    assert resolved(classes, ids, 2, (1.0, 1.0)).tolist() == [expected]
    assert resolved(classes, ids, 2, (1.0, 2.0))[0].tolist() == [255] * 4 + [1, 0, 255, 255, 0]
    nothing = np.zeros_like(ids)
    assert (resolved(classes, nothing, 2, (1.0, 1.0)) != UNLABELLED).all()


@given(st.data())
def test_rings_do_not_depend_on_blocks(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = data.draw(st.sampled_from([(17, 23), (5, 9, 11)]))
    ids = (rng.random(shape) < 0.02).astype(np.uint32) * 5
    classes = np.where(ids > 0, 1, np.where(rng.random(shape) < 0.1, IGNORE, UNLABELLED))
    classes = classes.astype(np.uint8)
    width = data.draw(st.sampled_from([1, 2.5, 4]))
    steps = (2.0, 1.0, 1.0)[-len(shape) :]
    stored = classes.copy()
    block = data.draw(st.tuples(*(st.integers(1, 12) for _ in shape)))
    mark_background(stored, ids, block, width, steps)
    assert np.array_equal(stored, resolved(classes, ids, width, steps))


def prepared(tmp_path: Path, label: np.ndarray, **settings: Any) -> Prepared:
    source = write(tmp_path / "raw", [label])
    run_manifest(source, tmp_path / "out", **{k: v for k, v in settings.items()
                                              if k != "background_px"})  # fmt: skip
    records = read_manifest(Paths(tmp_path / "out").manifest("d"))
    wanted = PrepareSettings.made(
        prepare=PrepareSection(tile=32, shard=1), axes=None, channels=None,
        **{"ignore": None, **settings},
    )  # fmt: skip
    store = tmp_path / f"{len(settings)}.zarr"
    prepare_dataset(records, source.root, store, wanted, threads=1, memory_bytes=10**9)
    return Prepared(store)


def test_stored_labels(tmp_path: Path) -> None:
    _, label = cells()
    label[0:3, 0:3] = 900
    found = prepared(tmp_path, label, **SPARSE, background=900, background_px=3.0)
    classes, ids = (np.asarray(array[:]) for array in (found.classes("0"), found.instances("0")))  # type: ignore[index]
    assert found.sparse("0")
    assert np.array_equal(classes == 1, (label > 0) & (label < 900))
    assert np.array_equal(ids, np.where(label == 900, 0, label))
    assert (classes[0:3, 0:3] == 0).all()
    # Six squares of 12 pixels have rings of 3 pixels with 4 pixels at each corner; one pixel of the
    # rings is marked as background, too.
    assert (classes == 0).sum() == 9 + 6 * (4 * 36 + 4 * 4) - 1
    assert (classes == IGNORE).sum() == label.size - (classes != IGNORE).sum()


def test_default_changes_nothing(tmp_path: Path) -> None:
    _, label = cells()
    plain = prepared(tmp_path, label, **INSTANCES)
    assert not plain.sparse("0")
    assert "unlabelled" not in plain.attrs("0")
    data: dict[str, Any] = {"images": "i", "labels": "l", "task": "instances"}
    models = {"m": {"preset": "unet-bn"}}
    config = load({"datasets": {"d": data}, "models": models})
    sparse = {**data, "unlabelled": "ignore", "background_px": 3}
    other = load({"datasets": {"d": sparse}, "models": models})
    for kind in (ManifestSettings, PrepareSettings):
        written = kind.of(config, "d").to_json()
        assert not {"unlabelled", "background", "background_px", "only_marked"} & set(written)
        assert kind.of(other, "d").to_json()["unlabelled"] == "ignore"


def test_manifest_says_how_much_has_a_label(tmp_path: Path) -> None:
    _, label = cells()
    source = write(tmp_path / "raw", [label])
    lines = run_manifest(source, tmp_path / "out", **SPARSE)
    share = 100 * (label > 0).mean()
    assert len(lines) == 1
    assert f"unlabelled: ignore: {share:.3g} % of the pixels of 1 label" in lines[0]
    assert "count as neither right nor wrong" in lines[0]
    rows = read_facts(Paths(tmp_path / "out").dataset("d"))["classes"]
    assert [row["name"] for row in rows] == ["background", "foreground", "no label"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_nothing_marked_as_background(tmp_path: Path) -> None:
    source = write(tmp_path / "raw", [cells()[1]])
    with pytest.raises(UserError, match="background: no label has a pixel of value 900"):
        run_manifest(source, tmp_path / "out", **SPARSE, background=900, only_marked=True)


def test_values_of_no_class_are_named(tmp_path: Path) -> None:
    label = np.where(cells()[1] > 0, 255, 0).astype(np.uint8)
    label[:3], label[-3:] = 7, 9
    scribbles = {"task": "semantic", "classes": {"ground": 9, "cell": 255}, "unlabelled": "ignore"}
    lines = run_manifest(write(tmp_path / "raw", [label]), tmp_path / "out", **scribbles)
    assert any("values 7 belong to no class and count as unlabelled" in line for line in lines)
    # Without the key such a value is an error.
    assert CLASSES["classes"] == {"background": 0, "cell": 255}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"unlabelled": "ignore"}, "ignore leaves no background to learn; write background_px: 3"),
        ({"background_px": 3}, "background_px: has no effect without unlabelled: ignore"),
        ({"background": 5}, "background: has no effect without unlabelled: ignore"),
        ({"unlabelled": "ignore", "background": 0}, "background: value 0 is that of pixels"),
        ({"unlabelled": "ignore", "background": 7, "ignore": 7}, "background: value 7 is that of"),
        (
            {"unlabelled": "ignore", "background": 7, "task": "semantic",
             "classes": {"a": 0, "b": 1}},
            "task semantic names its background in classes",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_the_config(keys: dict[str, Any], message: str) -> None:
    data = {"images": "i", "labels": "l", "task": "instances", **keys}
    with pytest.raises(UserError, match=message):
        load({"datasets": {"d": data}, "models": {"m": {"preset": "unet-bn"}}})
