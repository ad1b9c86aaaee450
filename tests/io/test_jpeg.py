"""JPEG and JPEG 2000, written by Pillow and imagecodecs."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from tests.format_files import check_bad_files, check_random_damage, manifest_of, pixels
from unet.errors import UserError
from unet.io.images import open_image, open_label

SMOOTH = np.add.outer(np.arange(70) * 2, np.arange(90)).astype(np.uint8)
COLOUR = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]], -1)
WIDE = np.random.default_rng(0).integers(0, 60_000, (70, 90), dtype=np.uint16)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpeg(tmp_path: Path, suffix: str, options: dict) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(SMOOTH).save(path, quality=95, **options)
    opened = open_image(path)
    assert (opened.axes, opened.dtype, opened.channel_names) == ("CYX", np.uint8, ("",))
    assert opened.pixel_size_um is None
    assert np.abs(pixels(opened)[0].astype(int) - SMOOTH).max() < 6
    Image.fromarray(COLOUR).save(path, quality=95, subsampling=0, **options)
    opened = open_image(path)
    assert opened.channel_names == ("red", "green", "blue")
    assert np.abs(pixels(opened).astype(int) - np.moveaxis(COLOUR, -1, 0)).mean() < 2


def test_a_jpeg_label_is_refused(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg: a label as JPEG.*save it as PNG or TIFF$"):
        open_label(tmp_path / "a.jpg")


def test_jpeg_colours_and_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOUR).convert("CMYK").save(path)
    with pytest.raises(UserError, match="CMYK colours; save the file as RGB or grey"):
        open_image(path)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(SMOOTH).save(path, exif=exif)
    opened = open_image(path)
    assert opened.shape == (1, 70, 90)
    assert "Exif orientation" in opened.warnings[0]


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
@pytest.mark.parametrize("data", [SMOOTH, WIDE, COLOUR], ids=["8", "16", "rgb"])
def test_jpeg2000(tmp_path: Path, suffix: str, data: np.ndarray) -> None:
    path, kind = tmp_path / f"a{suffix}", suffix.removeprefix(".")
    path.write_bytes(imagecodecs.jpeg2k_encode(data, reversible=True, level=0, codecformat=kind))
    opened = open_image(path)
    wanted = np.moveaxis(data, -1, 0) if data.ndim == 3 else data[None]
    np.testing.assert_array_equal(pixels(opened), wanted)
    if data.ndim == 3 and kind == "jp2":
        assert opened.channel_names == ("red", "green", "blue")
    if data.ndim == 2:
        np.testing.assert_array_equal(pixels(open_label(path)), data)


def test_jpeg2000_as_pillow_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    alpha = np.full((70, 90, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([COLOUR, alpha], -1)).save(path)
    np.testing.assert_array_equal(pixels(open_image(path)), np.moveaxis(COLOUR, -1, 0))
    Image.fromarray(SMOOTH).save(path, tile_size=(32, 32))
    np.testing.assert_array_equal(pixels(open_image(path))[0], SMOOTH)


def test_a_lossy_jpeg2000_label_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    path.write_bytes(imagecodecs.jpeg2k_encode(SMOOTH, reversible=False, level=40))
    assert np.abs(pixels(open_image(path))[0].astype(int) - SMOOTH).mean() < 6
    with pytest.raises(UserError, match="lossy JPEG 2000"):
        open_label(path)


@pytest.mark.parametrize("suffix", ["jpg", "jp2", "j2k"])
def test_bad_files(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    def write(path: Path, number: int) -> None:
        data = np.roll(COLOUR, number * 9, axis=1)
        if suffix == "jpg":
            Image.fromarray(data).save(path)
        else:
            path.write_bytes(imagecodecs.jpeg2k_encode(data, level=0, codecformat=suffix))

    check_bad_files(tmp_path / "f", f".{suffix}", write, capsys, keep=(0.02, 0.5, 0.9, 0.99))
    write(tmp_path / f"a.{suffix}", 0)
    check_random_damage(tmp_path / f"a.{suffix}", lambda p: pixels(open_image(p)))


def test_false_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(SMOOTH).save(path)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"\xff\xc0")
    raw[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    with pytest.raises(UserError, match="the header claims 65535 x 65535 pixels"):
        open_image(path)
    path = tmp_path / "a.jp2"
    raw = bytearray(imagecodecs.jpeg2k_encode(SMOOTH, level=0))
    at = raw.index(b"\xff\x51")
    raw[at + 6 : at + 14] = b"\x00\x0f\xff\xff\x00\x0f\xff\xff"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"the header claims 1048575 x 1048575 pixels"):
        open_image(path)


def test_manifest_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    folder.mkdir()
    Image.fromarray(SMOOTH).save(folder / "a.jpg")
    (folder / "b.jp2").write_bytes(imagecodecs.jpeg2k_encode(SMOOTH, level=0))
    records = manifest_of(folder)
    assert {key: record.status for key, record in records.items()} == {"a": "ok", "b": "ok"}
