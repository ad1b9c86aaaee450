"""Layout, whole-or-nothing groups, cleaning, and the read side of the prepared store."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from unet.data.blocks import Grid, ReadPlan, plan_reads
from unet.data.store import (
    Prepared,
    add_image,
    add_labels,
    clean,
    layout_of,
    new_image,
    update_attrs,
)
from unet.errors import UserError

SIZES = st.integers(1, 700)


def put(store: Path, name: str, key: str, shape: tuple[int, ...] = (5, 7)) -> None:
    layout = layout_of(shape, 4, 2)
    with new_image(store, name) as group:
        add_image(group, 1, shape, layout)[:] = 1.5
        add_labels(group, "classes", "uint8", shape, layout)[:] = 1
        group.attrs["key"] = key


@pytest.mark.parametrize(
    ("shape", "chunk", "shard"),
    [
        ((5000, 5000), (512, 512), (2048, 2048)),
        ((1022, 1024), (512, 512), (1024, 1024)),
        ((340, 360), (340, 360), (340, 360)),
        ((100, 1300), (100, 512), (100, 1536)),
        ((30, 600, 600), (8, 176, 176), (8, 704, 704)),
        ((3, 600, 40), (3, 176, 40), (3, 704, 40)),
    ],
)
def test_layout_by_hand(
    shape: tuple[int, ...], chunk: tuple[int, ...], shard: tuple[int, ...]
) -> None:
    layout = layout_of(shape, tile=512, shard=4)
    assert (layout.chunk, layout.shard) == (chunk, shard)


@given(y=SIZES, x=SIZES, tile=st.integers(32, 300), shard=st.integers(1, 5))
def test_shards_are_whole_chunks_cut_to_the_image(y: int, x: int, tile: int, shard: int) -> None:
    layout = layout_of((y, x), tile, shard)
    for size, c, s in zip((y, x), layout.chunk, layout.shard, strict=True):
        assert c <= min(tile, size)
        assert s % c == 0
        assert s <= min(shard * tile, math.ceil(size / c) * c)


@given(shape=st.tuples(SIZES, SIZES), step=st.tuples(SIZES, SIZES))
def test_blocks_cover_once(shape: tuple[int, int], step: tuple[int, int]) -> None:
    seen = np.zeros(shape, np.uint8)
    for region in Grid(shape, step).regions():
        seen[region] += 1
    assert (seen == 1).all()


def test_walk_prefers_holding_then_whole_rows_then_single_shards() -> None:
    shape, shard = (1, 1000, 1000), (1, 100, 100)
    chunks = ((1,), (100,) * 10, (100,) * 10)

    def walk(allowed: float) -> Any:
        return plan_reads(shape, np.dtype("uint8"), chunks, shard, int(allowed))

    assert (walk(1e9).held, walk(1e9).step) == (True, (1, 100, 1000))
    # Held 1 MB + 21 bytes for each of 100 x 500 pixels.
    assert walk(2.15e6) == ReadPlan(True, (1, 100, 500), 2_050_000)
    # Not even a single shard besides the held image; a row decoded again takes 22 bytes per pixel.
    assert walk(1.2e6) == ReadPlan(False, (1, 100, 500), 1_100_000)
    assert (walk(3e5).held, walk(3e5).step) == (False, (1, 100, 100))
    assert walk(1).step == (1, 100, 100)
    for allowed in (1e9, 2.15e6, 1.2e6, 3e5):
        assert walk(allowed).peak <= allowed


def test_walk_counts_the_whole_chunks_that_a_region_decodes() -> None:
    # One chunk of 1000 x 1000 (a PNG): every region decodes all of it, so holding costs no more.
    chunks = ((1,), (1000,), (1000,))
    found = plan_reads((1, 1000, 1000), np.dtype("uint8"), chunks, (1, 100, 100), 1_300_000)
    assert found.held
    assert found.peak >= 1_000_000
    # Chunks of 150 under steps of 100: a step touches two of them.
    chunks = ((1,), (150,) * 6 + (100,), (1000,))
    found = plan_reads((1, 1000, 1000), np.dtype("uint8"), chunks, (1, 100, 1000), 1)
    assert found.peak == 300 * 1000 + 100 * 1000 * 21


def test_image_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    clean(tmp_path, {})

    def fails_halfway() -> None:
        with new_image(tmp_path, "a") as group:
            add_image(group, 1, (4, 4), layout_of((4, 4), 32, 1))[:] = 1
            assert not (tmp_path / "a").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails_halfway()
    assert [p.name for p in tmp_path.iterdir()] == ["zarr.json"]


def test_clean_keeps_what_is_wanted_and_removes_the_rest(tmp_path: Path) -> None:
    for name, key in (("same", "1"), ("stale", "1"), ("unwanted", "1"), ("broken", "1")):
        put(tmp_path, name, key)
    (tmp_path / "broken" / "zarr.json").write_text("{")
    hidden = tmp_path / ".same.xyz.tmp"
    hidden.mkdir()
    (hidden / "half").write_text("written")
    wanted = {"same": "1", "stale": "2", "broken": "1", "new": "1"}
    kept = clean(tmp_path, wanted)
    assert kept == {"same": {"key": "1"}}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["same", "zarr.json"]


def test_small_images_of_many_are_files(tmp_path: Path) -> None:
    clean(tmp_path, {})
    for name, zipped in (("file", True), ("folder", False), ("stale", True)):
        with new_image(tmp_path, name, zipped) as group:
            add_image(group, 1, (5, 7), layout_of((5, 7), 8, 2))[:] = 1.5
            group.attrs.update({"key": "1"})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "file.zip",
        "folder",
        "stale.zip",
        "zarr.json",
    ]
    (tmp_path / "broken.zip").write_bytes(b"PK")
    kept = clean(tmp_path, {"file": "1", "folder": "1", "stale": "2", "broken": "1"})
    assert kept == {"file": {"key": "1"}, "folder": {"key": "1"}}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.zip", "folder", "zarr.json"]
    update_attrs(tmp_path, "file", {"group": "g"})
    store = Prepared(tmp_path)
    assert store.ids() == ["file", "folder"]
    assert store.attrs("file") == {"key": "1", "group": "g"}
    assert (store.image("file")[:] == store.image("folder")[:]).all()
    assert store.classes("file") is None
    with pytest.raises(UserError, match="has no image"):
        store.image("stale")


def test_stores_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Their chunks lie in a folder for each axis."""
    clean(tmp_path, {})
    group = zarr.create_group(tmp_path / "a", attributes={"key": "1"})
    array = group.create_array("image", shape=(1, 5, 7), chunks=(1, 4, 4), dtype="float32")
    array[:] = 1.5
    assert (tmp_path / "a" / "image" / "c" / "0" / "1" / "0").is_file()
    assert clean(tmp_path, {"a": "1"}) == {"a": {"key": "1"}}
    assert (Prepared(tmp_path).image("a")[:] == 1.5).all()


def test_read_side(tmp_path: Path) -> None:
    clean(tmp_path, {})
    put(tmp_path, "b", "2")
    put(tmp_path, "a", "1")
    (tmp_path / ".c.tmp").mkdir()
    (tmp_path / ".c.tmp" / "zarr.json").write_text("{}")
    store = Prepared(tmp_path)
    assert store.ids() == ["a", "b"]
    image = store.image("a")
    assert isinstance(image, zarr.Array)
    assert (image.shape, image.dtype, image.chunks, image.shards) == (
        (1, 5, 7),
        np.float32,
        (1, 4, 4),
        (1, 8, 8),
    )
    np.testing.assert_array_equal(image[:], np.full((1, 5, 7), 1.5))
    classes = store.classes("a")
    assert classes is not None
    assert classes.dtype == np.uint8
    assert store.instances("a") is None
    assert store.attrs("b") == {"key": "2"}


def test_a_single_chunk_has_no_shard(tmp_path: Path) -> None:
    with new_image(tmp_path, "a") as group:
        array = add_image(group, 2, (30, 40), layout_of((30, 40), 64, 4))
    assert (array.chunks, array.shards) == ((2, 30, 40), None)


def test_missing_store_or_image_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the prepare stage"):
        Prepared(tmp_path / "none")
    clean(tmp_path, {})
    with pytest.raises(UserError, match="no image 'x' among its 0; run the prepare stage"):
        Prepared(tmp_path).image("x")
