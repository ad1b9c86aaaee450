"""Readers: every kind of file gives the pixels that were written, in a fixed order of axes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from unet.errors import UserError
from unet.io.axes import block_shape
from unet.io.formats import stem
from unet.io.images import open_image, open_label, page_count

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 4000, (70, 90), dtype=np.uint16)
BYTES = RNG.integers(0, 255, (70, 90), dtype=np.uint8)
COLOUR = RNG.integers(0, 255, (70, 90, 3), dtype=np.uint8)
STACK = RNG.integers(0, 255, (4, 70, 90), dtype=np.uint8)


def pixels(opened: Any) -> np.ndarray:
    result = opened.array.compute(scheduler="synchronous")
    assert result.shape == opened.shape
    assert result.dtype == opened.dtype
    return result


def tiff(path: Path, data: np.ndarray, **options: Any) -> Path:
    tifffile.imwrite(path, data, **{"photometric": "minisblack", **options})
    return path


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd", "packbits"])
@pytest.mark.parametrize("layout", [{}, {"tile": (32, 48)}, {"rowsperstrip": 8}])
def test_tiff_compressed_and_tiled(tmp_path: Path, compression: str, layout: dict) -> None:
    path = tiff(tmp_path / "a.tif", GREY, compression=compression, **layout)
    opened = open_image(path)
    assert (opened.axes, opened.pixel_size_um, opened.channel_names) == ("CYX", None, ("",))
    assert opened.pages == 1
    np.testing.assert_array_equal(pixels(opened)[0], GREY)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "float32", ">u2", "<f8"])
def test_tiff_types(tmp_path: Path, dtype: str) -> None:
    data = GREY.astype(dtype)
    path = tiff(tmp_path / "a.tif", data, byteorder=">" if dtype.startswith(">") else "<")
    opened = open_image(path)
    assert opened.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(pixels(opened)[0], data)


def test_tiff_bilevel(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", GREY > 2000)
    assert open_image(path).dtype == np.uint8
    np.testing.assert_array_equal(pixels(open_label(path)), GREY > 2000)


def test_tiff_jpeg(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    colour = np.stack([smooth, smooth[::-1], smooth[:, ::-1]], -1)
    path = tiff(tmp_path / "a.tif", colour, photometric="rgb", compression="jpeg", tile=(32, 32))
    opened = open_image(path)
    # JPEG stores YCbCr; the reader must give RGB back, up to the loss.
    assert np.abs(pixels(opened).astype(int) - np.moveaxis(colour, -1, 0)).mean() < 8


def test_tiff_reads_only_the_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.arange(512 * 512, dtype=np.uint32).reshape(512, 512)
    path = tiff(tmp_path / "a.tif", data, tile=(64, 64), compression="zlib")
    monkeypatch.setattr("unet.io.axes.BLOCK_PIXELS", 64 * 64)
    opened = open_image(path)
    assert opened.array.chunksize == (1, 64, 64)
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offsets, counts = file.pages[0].dataoffsets, file.pages[0].databytecounts
    raw[offsets[-1] : offsets[-1] + counts[-1]] = b"\0" * counts[-1]
    path.write_bytes(raw)
    part = opened.array[0, :64, 70:130].compute(scheduler="synchronous")
    np.testing.assert_array_equal(part, data[:64, 70:130])
    with pytest.raises(UserError, match=r"a\.tif: cannot be decoded"):
        opened.array[0, -1, -1].compute(scheduler="synchronous")


def test_tiff_pyramid_gives_level_0(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(GREY, subifds=1, tile=(16, 16), photometric="minisblack")
        writer.write(GREY[::2, ::2], subfiletype=1, tile=(16, 16), photometric="minisblack")
    np.testing.assert_array_equal(pixels(open_image(path))[0], GREY)
    assert page_count(path) == 1


def test_tiff_pickles(tmp_path: Path) -> None:
    opened = open_image(tiff(tmp_path / "a.tif", GREY))
    copy = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(pixels(copy)[0], GREY)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_tiff_rgb(tmp_path: Path, planar: str, tile: tuple[int, int] | None) -> None:
    first = np.moveaxis(COLOUR, -1, 0)
    data = COLOUR if planar == "contig" else first
    path = tiff(tmp_path / "a.tif", data, photometric="rgb", planarconfig=planar, tile=tile)
    opened = open_image(path)
    assert opened.channel_names == ("red", "green", "blue")
    np.testing.assert_array_equal(pixels(opened), first)
    chosen = open_image(path, channels=("blue", 0))
    assert chosen.channel_names == ("blue", "red")
    np.testing.assert_array_equal(pixels(chosen), first[[2, 0]])


def test_tiff_palette(tmp_path: Path) -> None:
    index = (BYTES % 3).astype(np.uint8)
    table = np.zeros((3, 256), np.uint16)
    table[:, 1], table[:, 2] = (65535, 0, 256), (0, 257 * 7, 65535)
    path = tiff(tmp_path / "a.tif", index, photometric="palette", colormap=table)
    np.testing.assert_array_equal(pixels(open_label(path)), index)
    opened = open_image(path)
    assert opened.channel_names == ("red", "green", "blue")
    colours = np.array([[0, 0, 0], [255, 0, 1], [0, 7, 255]], np.uint8)
    np.testing.assert_array_equal(pixels(opened), np.moveaxis(colours[index], -1, 0))


def test_ome_tiff_axes_names_and_pixel_size(tmp_path: Path) -> None:
    meta = {
        "axes": "TCZYX",
        "Channel": {"Name": ["DAPI", "actin", "phase", "x"]},
        "PhysicalSizeX": 650.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
    }
    path = tiff(tmp_path / "a.ome.tif", STACK[None, :, None], metadata=meta)
    opened = open_image(path)
    assert opened.axes == "CYX"
    assert opened.pixel_size_um == (0.5, 0.65)
    assert opened.channel_names == ("DAPI", "actin", "phase", "x")
    np.testing.assert_array_equal(pixels(opened), STACK)
    np.testing.assert_array_equal(pixels(open_image(path, channels=("phase",)))[0], STACK[2])
    with pytest.raises(UserError, match=r"channel 'gfp'.*0 \(DAPI\), 1 \(actin\)"):
        open_image(path, channels=("gfp",))
    with pytest.raises(UserError, match="channel 4"):
        open_image(path, channels=(4,))
    with pytest.raises(UserError, match="twice"):
        open_image(path, channels=(0, "DAPI"))


def test_channels_by_name_in_any_number_and_order(tmp_path: Path) -> None:
    """Files of several microscopes: each has its own channels in its own order."""
    names = ["DAPI", "actin", "phase", "x"]
    for n, order in enumerate([(0, 1, 2, 3), (2, 0), (3, 2, 1, 0), (0, 2, 1)]):
        meta = {"axes": "CYX", "Channel": {"Name": [names[c] for c in order]}}
        path = tiff(tmp_path / f"{n}.ome.tif", STACK[list(order)], metadata=meta)
        opened = open_image(path, channels=("phase", "DAPI"))
        assert opened.channel_names == ("phase", "DAPI")
        np.testing.assert_array_equal(pixels(opened), STACK[[2, 0]])


def test_ome_tiff_z(tmp_path: Path) -> None:
    data = np.stack([STACK, STACK + 1])
    sizes = {f"PhysicalSize{a}": s for a, s in (("X", 0.1), ("Y", 0.2), ("Z", 2.0))}
    path = tiff(tmp_path / "a.ome.tif", data, metadata={"axes": "CZYX", **sizes})
    opened = open_image(path)
    assert (opened.axes, opened.pixel_size_um) == ("CZYX", (2.0, 0.2, 0.1))
    np.testing.assert_array_equal(pixels(opened), data)


def test_channels_last_is_moved_to_the_front(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.moveaxis(STACK, 0, -1), metadata={"axes": "YXC"})
    np.testing.assert_array_equal(pixels(open_image(path)), STACK)


def test_imagej(tmp_path: Path) -> None:
    meta = {"axes": "ZYX", "unit": "um", "spacing": 1.5}
    path = tiff(tmp_path / "a.tif", STACK, imagej=True, metadata=meta, resolution=(4, 2))
    opened = open_image(path)
    assert (opened.axes, opened.pixel_size_um) == ("CZYX", (1.5, 0.5, 0.25))
    np.testing.assert_array_equal(pixels(opened)[0], STACK)
    plain = tiff(tmp_path / "b.tif", BYTES, imagej=True)
    assert open_image(plain).pixel_size_um is None


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [
        ("CENTIMETER", 20_000, 0.5),
        ("INCH", 254_000, 0.1),
        ("INCH", 72, None),  # of a screen, not of a microscope
        ("INCH", 300, None),
        ("NONE", 20_000, None),
    ],
)
def test_resolution_tags(tmp_path: Path, unit: str, per_unit: int, expected: float) -> None:
    path = tiff(
        tmp_path / "a.tif", BYTES, resolution=(per_unit, per_unit), resolutionunit=unit,
        metadata=None,
    )  # fmt: skip
    found = open_image(path).pixel_size_um
    assert found == (None if expected is None else pytest.approx((expected, expected)))


@pytest.mark.parametrize(("value", "expected"), [(0.871, (0.871, 0.871)), (-1.0, None)])
def test_nis_pixel_size(tmp_path: Path, value: float, expected: Any) -> None:
    path = tiff(tmp_path / "a.tif", BYTES, extratags=[(65326, 12, 1, value, True)], metadata=None)
    assert open_image(path).pixel_size_um == expected


def test_undeclared_axes_are_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", STACK)
    with pytest.raises(UserError) as error:
        open_image(path)
    assert str(error.value) == (
        f"{path}: 4 pages of 70 x 90 without declared axes; write layout: stack (pages are "
        "separate images) or axes: CYX / ZYX"
    )
    np.testing.assert_array_equal(pixels(open_image(path, axes="CYX")), STACK)
    np.testing.assert_array_equal(pixels(open_image(path, axes="ZYX"))[0], STACK)
    np.testing.assert_array_equal(pixels(open_label(path, axes="ZYX")), STACK)
    for axes in ("YX", "CZYX"):
        with pytest.raises(UserError, match=f"axes {axes} do not fit"):
            open_image(path, axes=axes)
    with pytest.raises(UserError, match="4 separate images"):
        open_image(path, axes="SYX")


@pytest.mark.parametrize("meta", [None, {}, {"axes": "TYX"}, {"axes": "ZYX"}])
def test_pages_of_a_stack(tmp_path: Path, meta: dict | None) -> None:
    path = tiff(tmp_path / "a.tif", STACK, metadata=meta, compression="zlib")
    assert page_count(path) == 4
    for page in range(4):
        opened = open_image(path, page=page)
        assert (opened.axes, opened.pages) == ("CYX", 4)
        np.testing.assert_array_equal(pixels(opened)[0], STACK[page])
        np.testing.assert_array_equal(pixels(open_label(path, page=page)), STACK[page])
    with pytest.raises(UserError, match="page 4 requested, but the file has 4"):
        open_image(path, page=4)


def test_stack_with_channels(tmp_path: Path) -> None:
    data = np.stack([STACK, STACK[::-1]])
    path = tiff(tmp_path / "a.tif", data)
    assert page_count(path, axes="SCYX") == 2
    np.testing.assert_array_equal(pixels(open_image(path, axes="SCYX", page=1)), STACK[::-1])
    np.testing.assert_array_equal(pixels(open_image(path, axes="CSYX", page=1)), data[:, 1])
    with pytest.raises(UserError, match="axes"):
        open_image(path)


def test_stack_of_rgb(tmp_path: Path) -> None:
    data = np.stack([COLOUR, 255 - COLOUR])
    path = tiff(tmp_path / "a.tif", data, photometric="rgb")
    for axes in (None, "SYX", "SYXC"):
        found = pixels(open_image(path, axes=axes, page=1))
        np.testing.assert_array_equal(found, np.moveaxis(data[1], -1, 0))


def test_pages_of_different_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for data in (GREY, GREY[:20], GREY):
            writer.write(data, metadata=None, photometric="minisblack")
    assert page_count(path) == 3
    np.testing.assert_array_equal(pixels(open_image(path, page=1))[0], GREY[:20])
    np.testing.assert_array_equal(pixels(open_image(path, page=2))[0], GREY)
    with pytest.raises(UserError, match="3 images of different sizes; write layout: stack"):
        open_image(path)
    with pytest.raises(UserError, match="page 3"):
        open_image(path, page=3)


def test_long_time_axis_is_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", STACK, metadata={"axes": "TYX"})
    with pytest.raises(UserError, match="4 time points of 70 x 90; write layout: stack"):
        open_image(path)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_colour_spaces_are_refused(tmp_path: Path, mode: str) -> None:
    Image.fromarray(COLOUR).convert(mode).save(tmp_path / "a.tif", compression="tiff_lzw")
    with pytest.raises(UserError, match=f"{mode} colours; save the file as RGB or grey"):
        open_image(tmp_path / "a.tif")


# PNG


@pytest.mark.parametrize("data", [BYTES, GREY], ids=["8", "16"])
def test_png_grey(tmp_path: Path, data: np.ndarray) -> None:
    Image.fromarray(data).save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert (opened.axes, opened.dtype) == ("CYX", data.dtype)
    np.testing.assert_array_equal(pixels(opened)[0], data)
    np.testing.assert_array_equal(pixels(open_label(tmp_path / "a.png")), data)


def test_png_bilevel_and_colours_of_16_bit(tmp_path: Path) -> None:
    import imagecodecs

    Image.fromarray(GREY > 2000).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(open_label(tmp_path / "a.png")), GREY > 2000)
    wide = np.stack([GREY, GREY + 1, GREY * 3], -1)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(wide))
    np.testing.assert_array_equal(pixels(open_image(tmp_path / "b.png")), np.moveaxis(wide, -1, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha(tmp_path: Path, suffix: str) -> None:
    alpha = np.full((70, 90, 1), 255, np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.concatenate([COLOUR, alpha], -1)).save(path)
    opened = open_image(path)
    assert opened.channel_names == ("red", "green", "blue")
    np.testing.assert_array_equal(pixels(opened), np.moveaxis(COLOUR, -1, 0))
    alpha[3, 4] = 254
    Image.fromarray(np.concatenate([COLOUR, alpha], -1)).save(path)
    with pytest.raises(UserError, match="not fully opaque"):
        open_image(path)
    assert open_image(path, channels=(0, 1, 2)).shape == (3, 70, 90)
    assert open_image(path, channels=("alpha",)).shape == (1, 70, 90)


def test_png_grey_with_alpha(tmp_path: Path) -> None:
    data = np.stack([BYTES, np.full_like(BYTES, 255)], -1)
    Image.fromarray(data).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(open_image(tmp_path / "a.png"))[0], BYTES)
    np.testing.assert_array_equal(pixels(open_label(tmp_path / "a.png")), BYTES)


def test_png_palette(tmp_path: Path) -> None:
    index = (BYTES % 3).astype(np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putdata(index.ravel().tolist())
    image.putpalette([0, 0, 0, 255, 0, 1, 0, 7, 255])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(open_label(tmp_path / "a.png")), index)
    colours = np.array([[0, 0, 0], [255, 0, 1], [0, 7, 255]], np.uint8)
    expected = np.moveaxis(colours[index], -1, 0)
    np.testing.assert_array_equal(pixels(open_image(tmp_path / "a.png")), expected)


def test_colour_label_must_be_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.repeat(BYTES[..., None], 3, -1)).save(path)
    np.testing.assert_array_equal(pixels(open_label(path)), BYTES)
    Image.fromarray(COLOUR).save(path)
    with pytest.raises(UserError, match="3 different values per pixel"):
        open_label(path)


def test_png_is_decoded_once(tmp_path: Path) -> None:
    Image.fromarray(BYTES).save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    first = pixels(opened)
    (tmp_path / "a.png").unlink()
    np.testing.assert_array_equal(pixels(opened), first)


# Labels in several files, channels in several files


def test_mask_folder_first_wins(tmp_path: Path) -> None:
    masks = np.zeros((3, 6, 8), np.uint8)
    masks[0, 0:3, 0:3], masks[1, 2:5, 2:5], masks[2, 5, 7] = 255, 255, 1
    for name, mask in zip("cab", masks, strict=True):
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    (tmp_path / "notes.txt").write_text("no mask")
    expected = np.zeros((6, 8), np.uint32)
    expected[0:3, 0:3] = 3  # c is the last by name
    expected[5, 7] = 2
    expected[2:5, 2:5] = 1
    opened = open_label(tmp_path)
    assert (opened.axes, opened.dtype) == ("YX", np.uint32)
    np.testing.assert_array_equal(pixels(opened), expected)
    Image.fromarray(masks[0, 1:]).save(tmp_path / "d.png")
    with pytest.raises(UserError, match=r"d\.png.*other masks"):
        pixels(open_label(tmp_path))


def test_channel_files(tmp_path: Path) -> None:
    for i, data in enumerate(STACK):
        tiff(tmp_path / f"case_1_{i:04d}.tif", data)
    opened = open_image(tmp_path / "case_1_????.tif")
    np.testing.assert_array_equal(pixels(opened), STACK)
    tiff(tmp_path / "case_1_0002.tif", STACK[0, 1:])
    with pytest.raises(UserError, match="channels differ in shape"):
        open_image(tmp_path / "case_1_????.tif")
    with pytest.raises(UserError, match="no such files"):
        open_image(tmp_path / "case_2_????.tif")


# OME-Zarr


def ome_zarr(path: Path, version: str, data: np.ndarray, axes: list[dict], scale: list) -> Path:
    """Written by hand, as the two versions of the specification say."""
    new = version == "0.5"
    group = zarr.open_group(path, mode="w", zarr_format=3 if new else 2)
    for level, part in enumerate((data, data[..., ::2, ::2])):
        chunks = (1,) * (data.ndim - 2) + (32, 32)
        group.create_array(f"{level}", data=part, chunks=chunks)
    multiscales = [
        {
            "name": "a",
            "axes": axes,
            "datasets": [
                {"path": f"{i}", "coordinateTransformations": [{"type": "scale", "scale": s}]}
                for i, s in enumerate((scale, scale))
            ],
        }
    ]
    omero = {"channels": [{"label": f"ch{i}"} for i in range(data.shape[1])]}
    if new:
        attributes = {"ome": {"version": version, "multiscales": multiscales, "omero": omero}}
        meta = json.loads((path / "zarr.json").read_text())
        (path / "zarr.json").write_text(json.dumps({**meta, "attributes": attributes}))
    else:
        multiscales[0]["version"] = version
        text = json.dumps({"multiscales": multiscales, "omero": omero})
        (path / ".zattrs").write_text(text)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, version: str) -> None:
    axes = [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "c", "type": "channel"},
        {"name": "z", "type": "space", "unit": "micrometer"},
        {"name": "y", "type": "space", "unit": "nanometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    data = np.stack([STACK[:3], STACK[1:]])[None]
    path = ome_zarr(tmp_path / "a.zarr", version, data, axes, [1, 1, 2.0, 250.0, 0.3])
    opened = open_image(path)
    assert (opened.axes, opened.pixel_size_um) == ("CZYX", (2.0, 0.25, 0.3))
    assert opened.channel_names == ("ch0", "ch1")
    np.testing.assert_array_equal(pixels(opened), data[0])
    np.testing.assert_array_equal(pixels(open_image(path, channels=("ch1",)))[0], data[0, 1])


def test_ome_zarr_without_units_or_axes(tmp_path: Path) -> None:
    axes = [{"name": n} for n in ("c", "y", "x")]
    path = ome_zarr(tmp_path / "a.zarr", "0.4", STACK, axes, [1, 0.5, 0.5])
    assert open_image(path).pixel_size_um is None
    meta = json.loads((path / ".zattrs").read_text())
    del meta["multiscales"][0]["axes"]
    (path / ".zattrs").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="declares no axes"):
        open_image(path)
    (path / ".zattrs").write_text("{}")
    with pytest.raises(UserError, match="not an OME-Zarr image"):
        open_image(path)
    (path / ".zattrs").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        open_image(path)


def test_ome_zarr_damaged_chunk(tmp_path: Path) -> None:
    axes = [{"name": n} for n in ("c", "y", "x")]
    path = ome_zarr(tmp_path / "a.zarr", "0.5", STACK, axes, [1, 1, 1])
    (path / "0" / "c" / "1" / "0" / "0").write_bytes(b"damaged")
    opened = open_image(path)
    with pytest.raises(UserError, match=r"a\.zarr: cannot be decoded"):
        pixels(opened)


# Small parts


def test_block_shape_keeps_the_files_chunks_and_a_bound() -> None:
    assert block_shape((1, 256, 256), (3, 10_000, 10_000), "CYX") == (1, 2048, 2048)
    assert block_shape((8, 50_000), (50_000, 50_000), "YX") == (64, 50_000)
    assert block_shape((30_000, 30_000), (30_000, 30_000), "YX") == (30_000, 30_000)
    assert block_shape((64, 64), (70, 90), "YX") == (70, 90)


def test_stem() -> None:
    names = {"a.tif": "a", "a.b.ome.TIF": "a.b", "x.ome.zarr": "x", "a.b": "a.b"}
    assert {name: stem(Path(name)) for name in names} == names
