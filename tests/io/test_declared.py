"""What files declare about their pixels: impossible sizes, which value is black, chunks
that are elsewhere."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from unet.errors import UserError
from unet.io.images import open_image, open_label
from unet.io.pixel_size import Declared, micrometres, read_sizes, unlike_others

GREY = np.random.default_rng(0).integers(0, 4000, (40, 50), dtype=np.uint16)
BYTES = (GREY // 16).astype(np.uint8)
VOLUME = np.stack([GREY] * 3)


def pixels(opened: Any) -> np.ndarray:
    return np.asarray(opened.array.compute(scheduler="synchronous"))


def size_and_warning(path: Path) -> tuple[tuple[float, ...] | None, str]:
    opened = open_image(path)
    return opened.pixel_size_um, "; ".join((*opened.warnings, *opened.size_warnings))


# Units


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("µm", 1.0), ("μm", 1.0), ("\\u00B5m", 1.0), ("Âµm", 1.0), (" Micron ", 1.0),
        ("nanometer", 1e-3), ("Å", 1e-4), ("\u212b", 1e-4), ("mm", 1e3), ("Mm", 1e12),
        ("inch", 25_400.0), ("furlong", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_units(unit: str | None, expected: float | None) -> None:
    assert micrometres(1.0, unit) == expected


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, -math.inf, 1e30, 1e-30, "abc", [1]])
def test_impossible_sizes_are_ignored_with_a_warning(value: Any) -> None:
    sizes, warnings = read_sizes([Declared("Y", 0.5, "um"), Declared("X", value, "um")], "YX")
    assert sizes == {"Y": 0.5}
    assert len(warnings) == 1
    assert "pixel size along X" in warnings[0]
    assert "which is impossible" in warnings[0]
    assert "write pixel_size_um" in warnings[0]


def test_undeclared_sizes_give_no_warning() -> None:
    declared = [Declared("Y", None, "um"), Declared("X", 1.0, None), Declared("Z", 2, "pixel")]
    assert read_sizes(declared, "ZYX") == ({}, ())


# OME


def ome(path: Path, data: np.ndarray, axes: str, **metadata: Any) -> Path:
    tifffile.imwrite(path, data, metadata={"axes": axes, **metadata}, photometric="minisblack")
    return path


def test_ome_units_are_those_of_each_axis(tmp_path: Path) -> None:
    path = ome(
        tmp_path / "a.ome.tif", VOLUME, "ZYX", PhysicalSizeX=250, PhysicalSizeXUnit="nm",
        PhysicalSizeY=0.25, PhysicalSizeZ=0.002, PhysicalSizeZUnit="mm",
    )  # fmt: skip
    size, warning = size_and_warning(path)
    assert size == pytest.approx((2.0, 0.25, 0.25))
    assert warning == ""


def test_an_axis_without_a_size_is_reported(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", VOLUME, "ZYX", PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    size, warning = size_and_warning(path)
    assert size is None
    assert "none along Z: it is treated as unknown; write pixel_size_um" in warning
    flat = ome(tmp_path / "b.ome.tif", GREY, "YX", PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    assert size_and_warning(flat) == ((0.5, 0.5), "")


def test_a_plane_is_not_warned_about_its_depth(tmp_path: Path) -> None:
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 0.0}
    assert size_and_warning(ome(tmp_path / "a.ome.tif", GREY, "YX", **sizes)) == ((0.5, 0.5), "")


def test_a_unit_of_one_axis_that_is_wrong(tmp_path: Path) -> None:
    path = ome(
        tmp_path / "a.ome.tif", GREY, "YX", PhysicalSizeX=0.5, PhysicalSizeY=0.5,
        PhysicalSizeYUnit="nm",
    )  # fmt: skip
    size, warning = size_and_warning(path)
    assert size == pytest.approx((0.0005, 0.5))
    assert "far from square" in warning


def test_a_screens_resolution_in_ome_is_reported(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", GREY, "YX", PhysicalSizeX=352.8, PhysicalSizeY=352.8)
    size, warning = size_and_warning(path)
    assert size == (352.8, 352.8)  # the file says so in a unit of its own
    assert "352.8 um (72 dots per inch, as of a screen or printer)" in warning


# Tags and ImageJ


@pytest.mark.parametrize("dpi", [72, 96, 150, 300])
def test_a_printers_resolution_is_ignored_with_a_warning(tmp_path: Path, dpi: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, resolution=(dpi, dpi), resolutionunit="INCH", metadata=None)
    size, warning = size_and_warning(path)
    assert size is None
    assert warning.count("pixel size along Y, X") == 1
    assert f"{dpi} dots per inch" in warning
    assert "it is ignored; write pixel_size_um" in warning


def test_imagej_units(tmp_path: Path) -> None:
    def written(unit: str, per_unit: float, **more: Any) -> tuple[Any, str]:
        path = tmp_path / f"{unit.strip(chr(92))}.tif"
        metadata = {"axes": "ZYX", "unit": unit, "spacing": 2.0, **more}
        tifffile.imwrite(
            path, VOLUME, imagej=True, metadata=metadata, resolution=(per_unit, per_unit)
        )
        return size_and_warning(path)

    assert written("\\u00B5m", 2) == ((2.0, 0.5, 0.5), "")
    size, warning = written("inch", 72)
    assert size is None
    assert "along Y, X: the file says 352.8 um (72 dots per inch" in warning
    assert written("pixel", 1) == (None, "")
    size, warning = written("um", 2, spacing=-2.0)
    assert size is None
    assert "the file says -2 um, which is impossible" in warning


# OME-Zarr


def ngff(
    path: Path, data: np.ndarray, scale: list[float], units: list[str | None], axes: str = "yx"
) -> Path:
    described = [
        {"name": name, "type": "space", **({"unit": unit} if unit else {})}
        for name, unit in zip(axes, units, strict=True)
    ]
    steps = [{"type": "scale", "scale": scale}]
    multiscales = {
        "version": "0.4",
        "axes": described,
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
    }
    array = zarr.create_array(path / "0", shape=data.shape, dtype=data.dtype, zarr_format=2,
                              chunks=(1,) * (data.ndim - 2) + (16, 16))  # fmt: skip
    array[:] = data
    (path / ".zattrs").write_text(json.dumps({"multiscales": [multiscales]}))
    return path


def test_ngff_units_are_those_of_each_axis(tmp_path: Path) -> None:
    path = ngff(tmp_path / "a.zarr", GREY, [500, 0.5], ["nanometer", "micrometer"])
    assert size_and_warning(path) == ((0.5, 0.5), "")


@pytest.mark.parametrize(
    ("scale", "units", "told"),
    [
        ([0.5, 0.5], [None, None], "the file says 0.5 without a unit"),
        ([0.5, 0.5], ["micrometer", None], "0.5 um along Y, but none along X"),
        ([0.5, 0.0], ["micrometer", "micrometer"], "along X: the file says 0 micrometer, which"),
        ([0.5, math.nan], ["micrometer", "micrometer"], "which is impossible"),
        ([3, 3], ["furlong", "furlong"], "an unknown unit"),
    ],
)
def test_ngff_scales_that_say_nothing(
    tmp_path: Path, scale: list[float], units: list[str | None], told: str
) -> None:
    size, warning = size_and_warning(ngff(tmp_path / "a.zarr", GREY, scale, units))
    assert size is None
    assert told in warning


def test_one_image_unlike_the_others() -> None:
    sizes: list[tuple[float, ...] | None] = [(0.5, 0.5)] * 4 + [None, (1.0, 1.0), (2.0, 2.0)]
    *others, last = unlike_others(sizes)
    assert others == [""] * 6
    assert last.startswith("pixels of 2 um, 4 times more than the median of the images")
    assert unlike_others([(0.5, 0.5), (5.0, 5.0)]) == ["", ""]  # which of them is wrong?


# Chunks


def moved(path: Path, *, declare: str | None) -> Path:
    """Chunks in nested folders, declared or not."""
    array = path / "0"
    for chunk in [p for p in array.iterdir() if p.name[0].isdigit()]:
        to = array / "/".join(("n", *chunk.name.split(".")))
        to.parent.mkdir(parents=True, exist_ok=True)
        chunk.rename(to)
    for part in list((array / "n").iterdir()):
        part.rename(array / part.name)
    (array / "n").rmdir()
    metadata = json.loads((array / ".zarray").read_text())
    metadata.pop("dimension_separator", None)
    if declare:
        metadata["dimension_separator"] = declare
    (array / ".zarray").write_text(json.dumps(metadata))
    return path


def test_undeclared_nested_chunks_are_read(tmp_path: Path) -> None:
    path = moved(ngff(tmp_path / "a.zarr", GREY, [1, 1], [None, None]), declare=None)
    np.testing.assert_array_equal(pixels(open_image(path))[0], GREY)
    np.testing.assert_array_equal(pixels(open_label(path)), GREY)


def test_chunks_that_are_elsewhere_are_refused(tmp_path: Path) -> None:
    path = moved(ngff(tmp_path / "a.zarr", GREY, [1, 1], [None, None]), declare=".")
    told = r"no chunk is where the metadata says: 0/0.0 is missing, but there is 0/\d/\d;"
    with pytest.raises(UserError, match=told):
        open_image(path)
    with pytest.raises(UserError, match=told):
        open_label(path)


def test_an_array_without_chunks(tmp_path: Path) -> None:
    path = ngff(tmp_path / "a.zarr", np.zeros_like(GREY), [1, 1], [None, None])
    assert not [p for p in (path / "0").iterdir() if p.name[0].isdigit()]  # zarr leaves them out
    label = open_label(path)
    assert label.warnings == ("the file has no stored chunk, so all values are 0",)
    assert not pixels(label).any()
    with pytest.raises(UserError, match=r"a.zarr: no chunk is stored \(0/0.0 is missing\)"):
        open_image(path)


# Which value is black


@pytest.mark.parametrize("data", [GREY, BYTES])
def test_white_is_zero(tmp_path: Path, data: np.ndarray) -> None:
    black = int(np.iinfo(data.dtype).max)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, black - data, photometric="miniswhite", metadata=None)
    opened = open_image(path)
    np.testing.assert_array_equal(pixels(opened)[0], data)
    assert (opened.dtype, opened.inverted) == (data.dtype, True)
    assert f"white is zero in this file (photometric MinIsWhite): its values are read as {black} " \
        "- value" in opened.warnings  # fmt: skip
    # A label's values stay the same, no matter how they are displayed.
    np.testing.assert_array_equal(pixels(open_label(path)), black - data)


def test_white_is_zero_in_bits_and_floats(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    bits = GREY > 2000
    tifffile.imwrite(path, bits, photometric="miniswhite", metadata=None)
    np.testing.assert_array_equal(pixels(open_image(path))[0], ~bits)
    np.testing.assert_array_equal(pixels(open_label(path)), bits)
    tifffile.imwrite(path, GREY.astype(np.float32), photometric="miniswhite", metadata=None)
    with pytest.raises(UserError, match=r"white is zero .* of type float32; save the"):
        open_image(path)


def test_a_palette_gives_a_warning_only_for_images(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    ramp = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    tifffile.imwrite(path, BYTES, photometric="palette", colormap=ramp, metadata=None)
    assert "its colours are read as the channels red, green" in open_image(path).warnings[0]
    assert open_label(path).warnings == ()


def test_white_is_zero_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for data in (GREY, GREY.astype(np.float32)):
        tifffile.imwrite(path, data, photometric="miniswhite", metadata=None)
        opened = open_image(path, inverted=False)
        np.testing.assert_array_equal(pixels(opened)[0], data)
        assert (opened.inverted, opened.warnings) == (False, ())


def test_white_is_zero_in_one_of_the_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a_0000.tif", GREY, metadata=None)
    tifffile.imwrite(tmp_path / "a_0001.tif", GREY, photometric="miniswhite", metadata=None)
    opened = open_image(tmp_path / "a_????.tif")
    np.testing.assert_array_equal(pixels(opened), [GREY, np.iinfo(GREY.dtype).max - GREY])
    assert opened.inverted
    opened = open_image(tmp_path / "a_????.tif", inverted=False)
    np.testing.assert_array_equal(pixels(opened), [GREY, GREY])


@pytest.mark.parametrize("separator", [".", "/"])
def test_chunks_are_searched_among_existing_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    """Even if an empty array could have very many."""
    path, asked = tmp_path / "a.zarr", []
    group = zarr.open_group(path, mode="w", zarr_format=2)
    array = group.create_array(
        "0", shape=(3000, 3000), chunks=(1, 1), dtype="u1",
        chunk_key_encoding={"name": "v2", "separator": separator},
    )  # fmt: skip
    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1, 1]}]
    level = {"path": "0", "coordinateTransformations": scale}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [level]}]
    encode = type(array.metadata).encode_chunk_key

    def counted(metadata: Any, place: tuple[int, ...]) -> str:
        asked.append(place)
        assert len(asked) < 1000
        return encode(metadata, place)

    monkeypatch.setattr(type(array.metadata), "encode_chunk_key", counted)
    assert "no stored chunk" in open_label(path).warnings[0]
    array[2999, 17] = 5
    asked.clear()
    assert open_label(path).warnings == ()
