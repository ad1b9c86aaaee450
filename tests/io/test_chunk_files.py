"""Chunks that are read and written without zarr are those that zarr reads and writes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from unet.io.chunk_files import ChunkFiles


def made(folder: Path, codec: Any, shape: Any, chunks: Any, shards: Any, dtype: str) -> Any:
    return zarr.create_array(
        str(folder), shape=shape, chunks=chunks, shards=shards, dtype=dtype, fill_value=0,
        compressors=(codec, Crc32cCodec()), config={"write_empty_chunks": True},
    )  # fmt: skip


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 3), st.sampled_from(["u1", "u4", "f2", "f4"]))
def test_bytes_and_pixels_are_those_of_zarr(data: st.DataObject, dims: int, dtype: str) -> None:
    chunks = tuple(data.draw(st.integers(1, 4)) for _ in range(dims))
    counts = tuple(data.draw(st.integers(1, 4)) for _ in range(dims))
    shape = tuple(data.draw(st.integers(1, 6)) for _ in range(dims))
    side = tuple(c * n for c, n in zip(chunks, counts, strict=True))
    codec = data.draw(st.sampled_from([BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"),
                                       BloscCodec(cname="zstd", shuffle="bitshuffle"),
                                       ZstdCodec(level=1)]))  # fmt: skip
    about = (codec, shape, chunks, side if data.draw(st.booleans()) else None, dtype)
    # Whole files, cut to the array.
    unit = about[3] or chunks
    firsts = [data.draw(st.integers(0, (n - 1) // u)) for n, u in zip(shape, unit, strict=True)]
    lasts = [
        data.draw(st.integers(a, (n - 1) // u)) for a, n, u in zip(firsts, shape, unit, strict=True)
    ]
    region = tuple(
        slice(a * u, min((b + 1) * u, n))
        for a, b, n, u in zip(firsts, lasts, shape, unit, strict=True)
    )
    pixels = np.random.default_rng(0).integers(0, 9, [s.stop - s.start for s in region])
    with TemporaryDirectory() as folder:
        theirs, ours = Path(folder, "theirs"), Path(folder, "ours")
        expected, array = made(theirs, *about), made(ours, *about)
        expected[region] = pixels.astype(dtype)
        files = ChunkFiles.of(array)
        assert files is not None
        files.write(region, pixels)
        assert files_in(ours) == files_in(theirs)
        expected[...], array[...] = 0, 0
        expected[region], array[region] = pixels.astype(dtype), pixels.astype(dtype)
        for _ in range(4):
            part = tuple(
                data.draw(
                    st.integers(0, n - 1) | st.slices(n).filter(lambda s: s.step in (None, 1))
                )
                for n in shape[: data.draw(st.integers(1, dims))]
            )
            found = files.read(part)
            if found is None:
                assert not any(isinstance(p, slice) for p in part)
                assert len(part) == dims
                continue
            np.testing.assert_array_equal(found, expected[part])
            assert (found.dtype, found.flags.writeable) == (np.dtype(dtype), True)


def test_a_chunk_that_is_missing_in_a_shard_is_empty(tmp_path: Path) -> None:
    array = made(tmp_path, ZstdCodec(), (4, 6), (2, 3), (4, 6), "u1")
    array[:2, :3] = 7
    files = ChunkFiles.of(array)
    assert files is not None
    np.testing.assert_array_equal(files.read(...), array[...])


@pytest.mark.parametrize(
    "serializer",
    [
        BytesCodec(endian="big"),
        ShardingCodec(
            chunk_shape=(2, 2),
            codecs=(BytesCodec(), ZstdCodec(), Crc32cCodec()),
            index_location="start",
        ),
        ShardingCodec(chunk_shape=(2, 2), codecs=(BytesCodec(), ZstdCodec())),
    ],
)
def test_other_layouts_are_left_to_zarr(tmp_path: Path, serializer: Any) -> None:
    more = () if isinstance(serializer, ShardingCodec) else (ZstdCodec(), Crc32cCodec())
    array = zarr.create_array(
        str(tmp_path), shape=(4, 4), chunks=(4, 4), dtype="u2", serializer=serializer,
        compressors=more, filters=None,
    )  # fmt: skip
    assert ChunkFiles.of(array) is None


@pytest.mark.parametrize("selection", [np.array([0, 2]), (slice(None, None, 2), 0), -1, (..., 1)])
def test_other_selections_are_left_to_zarr(tmp_path: Path, selection: Any) -> None:
    files = ChunkFiles.of(made(tmp_path, ZstdCodec(), (4, 6), (2, 3), None, "u1"))
    assert files is not None
    assert files.read(selection) is None
