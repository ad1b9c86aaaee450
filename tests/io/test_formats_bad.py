"""Bad files give a one-line error that names the file, before anything large is allocated."""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from unet.data.raw_changes import SPECIAL, Hashes, stamp
from unet.errors import UserError
from unet.files import file_sha256
from unet.io.images import open_image, open_label

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 4000, (70, 90), dtype=np.uint16)
BYTES = RNG.integers(0, 255, (70, 90), dtype=np.uint8)
STACK = RNG.integers(0, 255, (4, 70, 90), dtype=np.uint8)


def pixels(opened: Any) -> np.ndarray:
    return opened.array.compute(scheduler="synchronous")


def tiff(path: Path, data: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, data, **{"photometric": "minisblack", **options})
    return path


@pytest.mark.parametrize("suffix", ["tif", "png"])
@pytest.mark.parametrize("keep", [0, 5, 40, 0.5, 0.99])
def test_cut_short(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(BYTES).save(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(UserError, match=rf"^{path}: ") as error:
        pixels(open_image(path))
    assert "\n" not in str(error.value)


def test_cut_short_in_the_last_page_only(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for data in STACK:
            writer.write(data, compression="zlib", metadata=None, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        start, count = file.pages[3].dataoffsets[0], file.pages[3].databytecounts[0]
        tags = file.pages[3].tags["StripByteCounts"]
    raw = bytearray(path.read_bytes())
    raw[tags.valueoffset : tags.valueoffset + 4] = struct.pack("<I", len(raw))
    path.write_bytes(raw)
    assert start + count <= len(raw)
    np.testing.assert_array_equal(pixels(open_image(path, page=2))[0], STACK[2])
    with pytest.raises(UserError, match="cut short"):
        open_image(path, page=3)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_not_an_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404</html>" * 20)
    with pytest.raises(UserError, match=name):
        open_image(tmp_path / name)


def test_other_suffixes_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no reader for \.bmp; .*\.png, .*\.tif"):
        open_image(tmp_path / "a.bmp")
    with pytest.raises(UserError, match="no such file"):
        open_image(tmp_path / "b.tif")


@pytest.mark.parametrize("side", [40_000, 2**20])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_absurd_tiff_header(tmp_path: Path, side: int, compression: str | None) -> None:
    path = tiff(tmp_path / "a.tif", GREY, metadata=None, compression=compression)
    with tifffile.TiffFile(path) as file:
        tags = [file.pages[0].tags[n] for n in ("ImageWidth", "ImageLength", "RowsPerStrip")]
    raw = bytearray(path.read_bytes())
    for tag in tags:
        code, most = {3: ("<H", 65535), 4: ("<I", 2**32 - 1)}[int(tag.dtype)]
        packed = struct.pack(code, min(side, most))
        raw[tag.valueoffset : tag.valueoffset + len(packed)] = packed
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"the header claims|cut short"):
        open_image(path)


@pytest.mark.parametrize("side", [40_000, 2**20])
def test_absurd_png_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(BYTES).save(path)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", side, side)
    path.write_bytes(raw)
    with pytest.raises(UserError, match="the header claims"):
        open_image(path)


# Files that are none


def special(path: Path, kind: str) -> Path:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    [("pipe", "a named pipe"), ("device", "a device"), ("socket", "a socket"), ("dir", "a folder")],
)
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_special_files_are_refused_without_waiting(
    tmp_path: Path, suffix: str, kind: str, told: str
) -> None:
    path = special(tmp_path / f"a{suffix}", kind)
    with pytest.raises(UserError, match=f"not a regular file \\({told}\\)"):
        open_image(path)
    if kind != "dir":
        with pytest.raises(UserError, match="not a regular file"):
            open_label(path)
        with pytest.raises(UserError, match="not a regular file"):
            file_sha256(path)
        assert stamp(path) == SPECIAL
        assert Hashes().of(path) == ""


def test_a_mask_that_is_not_a_file_is_not_left_out(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "1.tif", np.ones((8, 8), np.uint8))
    special(tmp_path / "2.tif", "pipe")
    with pytest.raises(UserError, match=r"2.tif: not a regular file"):
        open_label(tmp_path).array.compute()


def test_a_chunk_that_is_not_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(path / "0", shape=(8, 8), chunks=(4, 8), dtype="u1", zarr_format=2)
    array[:] = 1
    scale = [{"type": "scale", "scale": [1, 1]}]
    multiscales = {
        "version": "0.4",
        "axes": [{"name": name, "type": "space"} for name in "yx"],
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    (path / ".zattrs").write_text(json.dumps({"multiscales": [multiscales]}))
    chunk = next(p for p in (path / "0").rglob("1.0"))
    chunk.unlink()
    special(chunk, "pipe")
    with pytest.raises(UserError, match=r"a.zarr: cannot be decoded .*1.0: not a regular file"):
        open_image(path).array.compute()
