"""Slides and microscope files that are TIFFs, laid out by tifffile as their makers do."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from tifffile import TIFF

from tests.format_files import check_bad_files, check_random_damage, manifest_of, pixels
from unet.errors import UserError
from unet.io.images import open_image, page_count

SLIDE = np.random.default_rng(0).integers(0, 255, (160, 224, 3), dtype=np.uint8)
SMALL = np.full((40, 56, 3), 9, np.uint8)
STACK = np.random.default_rng(1).integers(1, 4000, (3, 3, 40, 48), dtype=np.uint16)
TILE = {"tile": (32, 32), "photometric": "rgb", "metadata": None}
STRIP = {"photometric": "rgb", "metadata": None}


def svs(path: Path, number: int = 0, mpp: str = "|MPP = 0.4990") -> Path:
    about = f"Aperio Image Library v12.0.15\n224x160 (32x32) JPEG/RGB Q=30|AppMag = 20{mpp}"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.roll(SLIDE, number, 0), description=about, compression="zlib", **TILE)
        writer.write(SMALL, description="Aperio thumbnail", **STRIP)
        writer.write(SLIDE[::2, ::2], description=about, **TILE)
        writer.write(SMALL * 2, description="Aperio label", subfiletype=1, **STRIP)
        writer.write(SMALL * 3, description="Aperio macro", subfiletype=9, **STRIP)
    return path


def ndpi(path: Path, number: int = 0) -> Path:
    """By hand, for tifffile does not write it: after the entries of a directory, 8 bytes for the
    next one, and the upper halves of the values."""
    raw = bytearray(b"II*\0" + bytes(8))
    link = 4
    for data, magnification in ((np.roll(SLIDE, number, 0), 20.0), (SMALL, -1.0)):
        values = len(raw)
        raw += struct.pack("<3H", 8, 8, 8) + struct.pack("<2I", 22_000, 1) + b"Hamamatsu\0"
        pixels_at = len(raw)
        raw += data.tobytes()
        half, whole, fraction = 3, 4, 5
        tags = [
            (256, half, 1, data.shape[1]), (257, half, 1, data.shape[0]), (258, half, 3, values),
            (259, half, 1, 1), (262, half, 1, 2), (271, 2, 10, values + 14),
            (273, whole, 1, pixels_at), (277, half, 1, 3), (278, half, 1, data.shape[0]),
            (279, whole, 1, data.nbytes), (282, fraction, 1, values + 6),
            (283, fraction, 1, values + 6), (296, half, 1, 3), (65420, whole, 1, 1),
            (65421, 11, 1, struct.unpack("<I", struct.pack("<f", magnification))[0]),
        ]  # fmt: skip
        raw[link : link + 8] = struct.pack("<Q", len(raw))
        raw += struct.pack("<H", len(tags)) + b"".join(struct.pack("<2H2I", *tag) for tag in tags)
        link = len(raw)
        raw += bytes(8 + 4 * len(tags))
    path.write_bytes(raw)
    return path


def scn(path: Path, number: int = 0, areas: int = 1) -> Path:
    def image(name: str, shape: tuple[int, ...], ifds: list[int], nm: int) -> str:
        levels = "".join(f'<dimension sizeX="1" sizeY="1" r="{r}" ifd="{i}"/>'
                         for r, i in enumerate(ifds))  # fmt: skip
        return (
            f'<image name="{name}"><pixels sizeX="{shape[1]}" sizeY="{shape[0]}">{levels}'
            f'</pixels><view sizeX="{shape[1] * nm}" sizeY="{shape[0] * nm}"/></image>'
        )

    parts = [image("macro", SMALL.shape, [0], 16_000), image("area", SLIDE.shape, [1, 2], 500)]
    parts += [image(f"area{n}", (128, 128), [2 + n], 500) for n in range(1, areas)]
    about = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f"<collection>{''.join(parts)}</collection></scn>"
    )
    with tifffile.TiffWriter(path) as writer:
        writer.write(SMALL, description=about, **STRIP)
        writer.write(np.roll(SLIDE, number, 0), **TILE)
        writer.write(SLIDE[::2, ::2], **TILE)
        for _ in range(1, areas):
            writer.write(SLIDE[:128, :128], **TILE)
    return path


def bif(path: Path, number: int = 0) -> Path:
    about = b'<EncodeInfo><iScan ScanRes="0.25" Magnification="40"/></EncodeInfo>'
    xmp = [(700, 7, len(about), about, True)]
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            SMALL, description="Label Image", extratags=xmp, software="ScanOutputManager", **STRIP
        )
        writer.write(SMALL, description="Thumbnail", **STRIP)
        writer.write(np.roll(SLIDE, number, 0), description="level=0 mag=40 quality=90", **TILE)
        writer.write(SLIDE[::2, ::2], description="level=1 mag=20 quality=90", **TILE)
    return path


@pytest.mark.parametrize(
    ("write", "suffix", "size"),
    [
        (svs, ".svs", 0.499),
        (ndpi, ".ndpi", 10_000 / 22_000),
        (scn, ".scn", 0.5),
        (bif, ".bif", 0.25),
    ],
)
def test_slides(tmp_path: Path, write: Any, suffix: str, size: float) -> None:
    path = write(tmp_path / f"a{suffix}")
    opened = open_image(path)
    assert opened.pixel_size_um == pytest.approx((size, size))
    assert opened.channel_names == ("red", "green", "blue")
    np.testing.assert_array_equal(pixels(opened), np.moveaxis(SLIDE, -1, 0))
    assert page_count(path) == 1
    assert any("not stitched" in text for text in opened.warnings) == (suffix == ".bif")


def test_a_slide_without_a_size(tmp_path: Path) -> None:
    assert open_image(svs(tmp_path / "a.svs", mpp="")).pixel_size_um is None
    wrong = open_image(svs(tmp_path / "b.svs", mpp="|MPP = 0"))
    assert wrong.pixel_size_um is None
    assert "impossible" in wrong.size_warnings[0]


def test_other_scanned_areas_are_told(tmp_path: Path) -> None:
    opened = open_image(scn(tmp_path / "a.scn", areas=3))
    assert opened.shape == (3, 160, 224)
    assert "3 scanned areas" in opened.warnings[0]


def lsm(path: Path, number: int = 0, *, scan: int = 0, single: bool = False) -> Path:
    """A stack of three channels, with a thumbnail after each plane; ``scan``: 0 = Z, 3 = time."""
    planes = np.roll(STACK, number, -1)[: 1 if single else None]
    about = np.zeros(1, np.dtype(TIFF.CZ_LSMINFO))
    about["MagicNumber"], about["StructureSize"] = 67127628, about.dtype.itemsize
    about["DimensionX"], about["DimensionY"], about["DimensionChannels"] = 48, 40, 3
    about["DimensionZ"], about["DimensionTime"] = (
        (len(planes), 1) if scan == 0 else (1, len(planes))
    )
    about["VoxelSizeX"] = about["VoxelSizeY"] = 2e-7
    about["VoxelSizeZ"], about["ScanType"] = 1e-6, scan
    with tifffile.TiffWriter(path, byteorder="<") as writer:
        for n, plane in enumerate(planes):
            raw = about.tobytes()
            extra = [(34412, 1, len(raw), raw, True)] if n == 0 else []
            options: dict[str, Any] = {"metadata": None, "photometric": "minisblack"}
            writer.write(plane, planarconfig="separate", extratags=extra, **options)
            writer.write(np.zeros((16, 16), np.uint8), subfiletype=1, **options)
    # The names of the channels follow at the end.
    names = b"".join(struct.pack("<I", len(n) + 1) + n + b"\0" for n in (b"DAPI", b"GFP", b"Cy5"))
    raw = bytearray(path.read_bytes())
    start = raw.index(about.tobytes())
    at = start + sum(np.dtype(kind).itemsize for name, kind in TIFF.CZ_LSMINFO[
        : [name for name, _ in TIFF.CZ_LSMINFO].index("OffsetChannelColors")])  # fmt: skip
    raw[at : at + 4] = struct.pack("<I", len(raw))
    raw += struct.pack("<6I", 24 + 12 + len(names), 3, 3, 24, 36, 0) + bytes(12) + names
    path.write_bytes(raw)
    return path


def test_lsm(tmp_path: Path) -> None:
    opened = open_image(lsm(tmp_path / "a.lsm"))
    assert opened.axes == "CZYX"
    assert opened.pixel_size_um == pytest.approx((1.0, 0.2, 0.2))
    assert opened.channel_names == ("DAPI", "GFP", "Cy5")
    np.testing.assert_array_equal(pixels(opened), STACK.transpose(1, 0, 2, 3))


def test_times_of_one_file_are_one_group(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    folder.mkdir()
    for name in "ab":
        lsm(folder / f"{name}.lsm", number=ord(name), scan=3)
    with pytest.raises(UserError, match="3 time points of 3 x 40 x 48; write layout: stack"):
        open_image(folder / "a.lsm")
    records = manifest_of(folder, "stack")
    assert {key: record.group for key, record in records.items()} == {
        f"{name}-p{time:03d}": name for name in "ab" for time in range(3)
    }
    # Whoever says that they are separate images is believed.
    apart = manifest_of(folder, "stack", axes="SCYX")
    assert {record.group for record in apart.values()} == {""}
    np.testing.assert_array_equal(
        pixels(open_image(folder / "a.lsm", page=2)), np.roll(STACK, ord("a"), -1)[2]
    )


def stk(path: Path, number: int = 0, *, single: bool = False, moved: bool = True) -> Path:
    """Planes one after the other behind a single header, as MetaMorph writes them."""
    planes = np.roll(STACK[:, 0], number, -1)[: 1 if single else None]
    count = len(planes)
    # Calibration as numbered values (UIC1): 4, 5 = size along X, Y; 6 = unit.
    tags = [(33628, 4, 6, [0] * 6, True), (33629, 5, count, [0] * 2 * count, True)]
    tifffile.imwrite(
        path, planes[0], byteorder="<", photometric="minisblack", metadata=None, extratags=tags,
        rowsperstrip=40,
    )  # fmt: skip
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        places = {code: page.tags[code].offset + 8 for code in (33628, 33629)}
        offset = page.tags["StripOffsets"]
    raw[offset.valueoffset : offset.valueoffset + 4] = struct.pack("<I", len(raw))
    raw += planes.tobytes()
    values = len(raw)
    raw += struct.pack("<4I", 25, 100, 25, 100) + struct.pack("<I", 3) + b"um\0\0"
    raw[places[33628] : places[33628] + 4] = struct.pack("<I", len(raw))
    raw += struct.pack("<6I", 4, values, 5, values + 8, 6, values + 16)
    raw[places[33629] : places[33629] + 4] = struct.pack("<I", len(raw))
    for n in range(count):
        raw += struct.pack("<6I", 3 if moved else 0, 2, 2_459_000, 1000 * n, 0, 0)
    path.write_bytes(raw)
    return path


def test_stk(tmp_path: Path) -> None:
    opened = open_image(stk(tmp_path / "a.stk"))
    assert (opened.axes, opened.pixel_size_um) == ("CZYX", (1.5, 0.25, 0.25))
    np.testing.assert_array_equal(pixels(opened)[0], STACK[:, 0])
    path = stk(tmp_path / "b.stk", moved=False)
    assert page_count(path) == 3
    for page in range(3):
        opened = open_image(path, page=page)
        assert opened.pixel_size_um == (0.25, 0.25)
        np.testing.assert_array_equal(pixels(opened)[0], STACK[page, 0])
    path.write_bytes(path.read_bytes()[: 40 * 48 * 2 * 2])
    with pytest.raises(UserError, match=r"^\S+b\.stk: "):
        open_image(path, page=2)


WRITERS = {".svs": svs, ".ndpi": ndpi, ".scn": scn, ".bif": bif, ".lsm": lsm, ".stk": stk}


@pytest.mark.parametrize("suffix", [".svs", ".lsm", ".stk"])
def test_bad_files(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    def write(path: Path, number: int) -> None:
        WRITERS[suffix](path, number, **({} if suffix == ".svs" else {"single": True}))

    check_bad_files(tmp_path / "f", suffix, write, capsys, keep=(0.02, 0.3))


@pytest.mark.parametrize("suffix", WRITERS)
def test_damage(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"a{suffix}")
    check_random_damage(path, lambda p: pixels(open_image(p)))
