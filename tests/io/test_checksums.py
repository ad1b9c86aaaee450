"""Checksums: damaged chunks are found and named; undamaged ones are read as usual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from unet.data.store import Prepared, add_image, add_labels, layout_of, new_image
from unet.errors import UserError
from unet.export.ome_zarr_writer import create_image, create_labels, pyramid_of
from unet.io.checksums import CHECKSUM, COMPLETE, _chunks, checked
from unet.prediction.stitch.segmentation import Segmentation


def array(folder: Path, shards: tuple[int, ...] | None = None) -> Any:
    found = zarr.create_array(
        folder, shape=(10, 13), chunks=(3, 4), shards=shards, dtype="float32",
        compressors=(zarr.codecs.BloscCodec(cname="lz4"), CHECKSUM),
    )  # fmt: skip
    found[...] = np.arange(130, dtype=np.float32).reshape(10, 13) + 1
    return checked(zarr.open_array(folder, mode="r"), "remove it")


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_undamaged_chunks_are_read(tmp_path: Path) -> None:
    found = array(tmp_path / "a")
    wanted = np.arange(130).reshape(10, 13) + 1
    np.testing.assert_array_equal(found[...], wanted)
    np.testing.assert_array_equal(found[2:9, 5], wanted[2:9, 5])
    np.testing.assert_array_equal(np.asarray(found), wanted)
    assert isinstance(found, zarr.Array)
    with pytest.raises(IndexError):
        found[11, 0]


@pytest.mark.parametrize(
    ("shards", "file", "start"),
    [(None, "c/1/2", "[3, 8]"), ((6, 8), "c/0/1", "[0, 8]")],
)
def test_a_damaged_chunk_is_named(
    tmp_path: Path, shards: tuple[int, ...] | None, file: str, start: str
) -> None:
    found = array(tmp_path / "a", shards)
    path = tmp_path / "a" / file
    data = bytearray(path.read_bytes())
    data[9] ^= 1  # of a shard: in its first chunk
    path.write_bytes(bytes(data))
    with pytest.raises(UserError) as error:
        found[...]
    assert str(error.value).startswith(f"{path}: damaged, the data of the chunk at {start} of ")
    assert str(error.value).endswith("; remove it")
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(found[7:, :], np.arange(130).reshape(10, 13)[7:, :] + 1)


@pytest.mark.parametrize("shards", [None, (6, 8)])
def test_no_flipped_bit_is_missed(tmp_path: Path, shards: tuple[int, ...] | None) -> None:
    found = array(tmp_path / "a", shards)
    path = tmp_path / "a" / "c/0/0"
    good = path.read_bytes()
    for bit in range(0, 8 * len(good), 7):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(data))
        with pytest.raises(UserError, match="damaged"):
            found[...]
    for length in range(0, len(good), 5):
        path.write_bytes(good[:length])
        with pytest.raises(UserError, match="damaged"):
            found[...]


@given(
    start=st.integers(0, 12), size=st.integers(0, 13), row=st.integers(-10, 9),
    pick=st.sampled_from(["rows", "row", "ellipsis", "steps", "one"]),
)  # fmt: skip
def test_the_chunks_of_a_selection(start: int, size: int, row: int, pick: str) -> None:
    part = slice(start, start + size)
    selection = {
        "rows": (slice(None), part), "row": (row, part), "ellipsis": (..., part),
        "steps": (slice(None, None, 2), part), "one": row,
    }[pick]  # fmt: skip
    touched = np.zeros((10, 13), bool)
    touched[selection] = True
    found = set(_chunks(selection, (10, 13), (3, 4)))
    wanted = {(y // 3 * 3, x // 4 * 4) for y, x in np.argwhere(touched)}
    assert found >= wanted
    if pick != "steps":
        assert found == wanted


@pytest.mark.parametrize("shards", [None, (6, 8)])
def test_a_missing_file_is_reported(tmp_path: Path, shards: tuple[int, ...] | None) -> None:
    folder = tmp_path / "a"
    found = zarr.create_array(
        folder, shape=(10, 13), chunks=(3, 4), shards=shards, dtype="uint8",
        compressors=CHECKSUM, fill_value=0, config=COMPLETE,
    )  # fmt: skip
    found[...] = 0
    found = checked(zarr.open_array(folder, mode="r"), "remove it")
    assert not found[...].any()
    (folder / "c/1/1").unlink()
    first = {None: (3, 4), (6, 8): (6, 8)}[shards]
    found[: first[0]], found[:, : first[1]]
    with pytest.raises(UserError, match=r"c/1/1: damaged, the chunk at .* is missing; remove it"):
        found[first[0] : first[0] + 1, 0 : first[1] + 1]
    # Written without checksums by an older version, which left out chunks of zeros.
    old = zarr.create_array(tmp_path / "old", shape=(4, 4), chunks=(2, 2), dtype="uint8")
    assert not checked(old, "")[...].any()


def test_every_store_has_checksums(tmp_path: Path) -> None:
    layout = layout_of((40, 40), 16, 2)
    with new_image(tmp_path / "prepared.zarr", "a") as group:
        add_image(group, 1, (40, 40), layout)[...] = 1.5
        add_labels(group, "classes", "uint8", (40, 40), layout)[...] = 1
        group.attrs["key"] = "k"
    zarr.open_group(tmp_path / "prepared.zarr", mode="a")
    store = Prepared(tmp_path / "prepared.zarr")
    pyramid = pyramid_of((200, 200), 2, None)
    folder = tmp_path / "segmentation.zarr"
    zarr.create_group(folder)
    create_image(folder / "a", pyramid, "float32", ["x", "y"], {})[0][...] = 0.5
    labels = create_labels(folder / "a", pyramid, {"classes": np.uint8}, ["x", "y"], 2)
    labels["classes"][0][...] = 1
    found = Segmentation(folder)
    cases = [
        (lambda: store.image("a"), store.path / "a" / "image"),
        (lambda: store.classes("a"), store.path / "a" / "classes"),
        (lambda: found.probabilities("a"), folder / "a" / "0"),
        (lambda: found.classes("a"), folder / "a" / "labels/classes/0"),
    ]
    for open_it, path in cases:
        chunk = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "zarr.json")[0]
        open_it()[...]
        spoil(chunk)
        with pytest.raises(UserError, match="damaged") as error:
            open_it()[...]
        assert str(error.value).startswith(f"{chunk}: ")
        store_folder = next(p for p in path.parents if p.suffix == ".zarr")
        assert str(store_folder.with_suffix(".json")) in str(error.value)
