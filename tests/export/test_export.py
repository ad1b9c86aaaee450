"""OME-Zarr and TIFF."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from ome_zarr_models import v04, v05
from PIL import Image

from unet.export import ome_zarr_writer, tiff_writer
from unet.export.pyramid import REDUCTIONS, mean_pairs, mode_pairs

# --- OME-Zarr


def make(
    path,
    shape=(300, 700),
    levels=3,
    pixel=(0.5, 0.25),
    names=("background", "cell"),
    version="0.5",
    by="nearest",
):
    pyramid = ome_zarr_writer.pyramid_of(shape, levels, pixel)
    about = {"unet": {"part": "test"}}
    arrays_ = ome_zarr_writer.create_image(path, pyramid, "float16", names, about, version)
    kinds = {"classes": np.uint8, "instances": np.uint32}
    labels = ome_zarr_writer.create_labels(path, pyramid, kinds, names, len(names), version, by)
    return pyramid, arrays_, labels


@pytest.mark.parametrize("by", ["nearest", "mode"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("pixel", [(0.5, 0.25), None])
def test_image_and_labels_are_valid_ome_zarr(tmp_path, pixel, version, by):
    make(tmp_path / "a", pixel=pixel, version=version, by=by)
    group = zarr.open_group(str(tmp_path / "a"), mode="r")
    assert group.metadata.zarr_format == {"0.4": 2, "0.5": 3}[version]
    models = {"0.4": v04, "0.5": v05}[version]
    image = models.Image.from_zarr(group)
    ome = dict(group.attrs) if version == "0.4" else group.attrs["ome"]
    found = image.attributes if version == "0.4" else image.attributes.ome
    assert group.attrs["unet"] == {"part": "test"}
    assert image.labels is not None
    listed = image.labels.attributes if version == "0.4" else image.labels.attributes.ome
    assert list(listed.labels) == ["classes", "instances"]
    for name in ("classes", "instances"):
        label = models.ImageLabel.from_zarr(group["labels"][name])
        about = label.attributes if version == "0.4" else label.attributes.ome
        assert about.image_label.source.image == "../../"
        assert about.image_label.version == version
        assert about.multiscales[0].type == by
        assert len(about.multiscales[0].datasets) == len(found.multiscales[0].datasets) == 3
    units = [axis.unit for axis in found.multiscales[0].axes]
    assert units == ([None, "micrometer", "micrometer"] if pixel else [None] * 3)
    versions = {ome.get("version"), ome["multiscales"][0].get("version")}
    assert versions == {version, None}
    channels = ome["omero"]["channels"]
    assert [c["label"] for c in channels] == ["background", "cell"]
    assert channels[0]["window"] == {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    if version == "0.5":
        assert group["0"].metadata.dimension_names == ("c", "y", "x")
    else:
        assert group["0"].metadata.dimension_separator == "/"
    attrs = group["labels/classes"].attrs
    about = (attrs if version == "0.4" else attrs["ome"])["image-label"]
    assert [p["class"] for p in about["properties"]] == ["background", "cell"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_volume_is_valid_ome_zarr(tmp_path, version):
    make(tmp_path / "a", shape=(5, 130, 140), pixel=(2.0, 0.5, 0.5), version=version)
    group = zarr.open_group(str(tmp_path / "a"), mode="r")
    {"0.4": v04, "0.5": v05}[version].Image.from_zarr(group)
    assert group["1"].shape == (2, 5, 65, 70)
    attrs = group.attrs if version == "0.4" else group.attrs["ome"]
    scale = attrs["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]
    assert scale == {"type": "scale", "scale": [1.0, 2.0, 1.0, 1.0]}


def test_levels_stop_before_they_are_small():
    assert ome_zarr_writer.pyramid_of((300, 700), 9, None).shapes == (
        (300, 700),
        (150, 350),
        (75, 175),
    )
    assert ome_zarr_writer.pyramid_of((300, 700), 2, None).shapes == ((300, 700), (150, 350))
    assert ome_zarr_writer.pyramid_of((20, 700), 5, None).shapes == ((20, 700),)
    assert ome_zarr_writer.pyramid_of((513, 127), 5, None).shapes == ((513, 127), (257, 64))
    # Of one chunk.
    assert ome_zarr_writer.pyramid_of((512, 512), 5, None).shapes == ((512, 512),)
    assert ome_zarr_writer.pyramid_of((64, 64, 64), 5, None).shapes == ((64, 64, 64),)
    assert len(ome_zarr_writer.pyramid_of((65, 128, 128), 5, None).shapes) == 2


def test_scale_and_translation_say_where_the_pixels_lie():
    pyramid = ome_zarr_writer.pyramid_of((1024, 256), 3, (0.5, 0.25))
    mean = pyramid.multiscales("x", "0.5", channels=True, by="mean")[0]["datasets"][2]
    # A mean of 4 x 4 pixels lies at the centre of pixels 0 to 3, that is 1.5 pixels in.
    assert mean["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 2.0, 1.0]},
        {"type": "translation", "translation": [0.0, 0.75, 0.375]},
    ]
    nearest = pyramid.multiscales("x", "0.4", channels=False, by="nearest")[0]["datasets"][2]
    assert nearest["coordinateTransformations"] == [{"type": "scale", "scale": [2.0, 1.0]}]
    mode = pyramid.multiscales("x", "0.4", channels=False, by="mode")[0]["datasets"][1]
    assert mode["coordinateTransformations"][1]["translation"] == [0.25, 0.125]


def test_shards_are_few_cut_to_the_image_and_smaller_for_many_classes(tmp_path):
    pyramid = ome_zarr_writer.pyramid_of((3000, 700), 1, None)
    (few,) = ome_zarr_writer.create_image(tmp_path / "a", pyramid, "float16", ["a", "b"], {})
    assert few.chunks == (1, 512, 512)
    assert few.shards == (2, 2048, 1024)
    (many,) = ome_zarr_writer.create_image(tmp_path / "b", pyramid, "float16", ["c"] * 200, {})
    assert many.shards == (200, 512, 512)
    regions = ome_zarr_writer.write_regions(few.shape[1:], 2)
    assert regions == [np.s_[0:2048, 0:700], np.s_[2048:3000, 0:700]]
    assert ome_zarr_writer.write_regions((512, 512), 200) == [np.s_[0:512, 0:512]]


@pytest.mark.parametrize("channels", [1, 200])
@pytest.mark.parametrize("shape", [(3000, 700), (2049, 10), (70, 300, 65), (5, 6, 7)])
def test_regions_are_whole_shards_and_whole_chunks(tmp_path, shape, channels):
    regions = ome_zarr_writer.write_regions(shape, channels)
    covered = np.zeros(shape, np.uint8)
    for region in regions:
        covered[region] += 1
    assert (covered == 1).all()
    for version in ("0.4", "0.5"):
        pyramid = ome_zarr_writer.pyramid_of(shape, 1, None)
        names = ["c"] * channels
        (array,) = ome_zarr_writer.create_image(
            tmp_path / version, pyramid, "f2", names, {}, version
        )
        unit = array.chunks if version == "0.4" else (array.shards or array.chunks)
        for region in regions:
            for s, n, u in zip(region, shape, unit[1:], strict=True):
                assert s.start % u == 0
                assert s.stop % u == 0 or s.stop == n


def reference(ids, by):
    """Pixel by pixel, by the definition; an odd end has fewer pixels to choose from."""
    height, width = ids.shape[-2:]
    out = np.zeros((*ids.shape[:-2], -(-height // 2), -(-width // 2)), ids.dtype)
    for index in np.ndindex(out.shape):
        *lead, y, x = index
        part = ids[(*lead, slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))].ravel()
        values, counts = np.unique(part, return_counts=True)
        best = values[counts == counts.max()]
        out[index] = part[0] if by == "nearest" else min(best[best > 0], default=0)
    return out


@pytest.mark.parametrize("by", ["nearest", "mode"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("shape", [(150, 201), (3, 128, 131)])
def test_coarser_levels(tmp_path, shape, version, by, monkeypatch):
    # Several shards and chunks in each level, so that their borders are crossed.
    monkeypatch.setattr(ome_zarr_writer, "_CHUNK", {2: 32, 3: 32})
    monkeypatch.setattr(ome_zarr_writer, "_SHARD", {2: 64, 3: 64})
    rng = np.random.default_rng(0)
    pyramid, levels, labels = make(
        tmp_path / "a", shape=shape, levels=2, pixel=None, version=version, by=by
    )
    fine = rng.random((2, *shape)).astype(np.float16)
    ids = rng.integers(0, 4, shape).astype(np.uint32)
    levels[0][:] = fine
    labels["instances"][0][:] = ids
    regions = ome_zarr_writer.write_regions(pyramid.shapes[1], 2)
    assert len(regions) > 1
    for region in regions:
        ome_zarr_writer.reduce_region(levels[0], levels[1], region, "mean")
        ome_zarr_writer.reduce_region(*labels["instances"], region, by)
    read = zarr.open_array(str(tmp_path / "a/labels/instances/1"), mode="r")
    np.testing.assert_array_equal(read[:], reference(ids, by))
    height, width = shape[-2:]
    for y, x in [(0, 0), (10, 20), ((height - 1) // 2, (width - 1) // 2)]:
        part = fine[..., 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(np.float64)
        np.testing.assert_allclose(levels[1][..., y, x], part.mean(axis=(-1, -2)), atol=1e-3)
    assert levels[1].shape == (2, *pyramid.shapes[1])


def test_mean_pairs_by_hand():
    found = mean_pairs(np.array([[0, 1, 5], [2, 3, 7], [4, 8, 9]], np.float32))
    np.testing.assert_array_equal(found, [[1.5, 6], [6, 9]])


def test_mode_by_hand():
    def of(*four):
        return int(mode_pairs(np.array(four, np.uint32).reshape(2, 2))[0, 0])

    assert of(0, 0, 0, 7) == 0  # one of four is not the most frequent
    assert of(0, 7, 7, 0) == 7  # a line of one pixel stays
    assert of(9, 9, 3, 3) == 3
    assert of(0, 0, 3, 2) == 0
    assert of(0, 5, 4, 9) == 4  # all different: the smallest that is not 0
    assert of(8, 5, 4, 9) == 4
    assert of(2, 9, 9, 9) == 9
    assert of(2**32 - 1, 1, 0, 2**32 - 1) == 2**32 - 1
    # A last row or column of its own: the same rule among two, or one.
    np.testing.assert_array_equal(mode_pairs(np.array([[1, 1, 0], [1, 0, 6]])), [[1, 6]])
    np.testing.assert_array_equal(mode_pairs(np.array([[1, 1, 5]])), [[1, 5]])


@settings(max_examples=100, deadline=None)
@given(arrays(np.uint8, (3, 5), elements={"min_value": 0, "max_value": 3}))
def test_mode_is_the_definition(ids):
    np.testing.assert_array_equal(REDUCTIONS["mode"].reduce(ids), reference(ids, "mode"))


# --- TIFF


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1), np.uint8),
        ((61, 70), np.uint8),
        ((1100, 300), np.uint16),
        ((700, 1025), np.uint32),
        ((3, 700, 90), np.uint16),
    ],
)
def test_mask_reads_back_with_its_pixel_size(tmp_path, shape, dtype):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    pixel = (2.0, 0.5, 0.25)[-len(shape) :]
    tiff_writer.write_mask(tmp_path / "m.tif", lambda r: values[r], shape, dtype, pixel)
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        np.testing.assert_array_equal(file.asarray(), values)
        page = file.pages[0]
        assert page.dtype == dtype
        assert page.compression.name == "ADOBE_DEFLATE"
        assert not page.is_tiled
        assert len(file.pages) == (shape[0] if len(shape) == 3 else 1)
        across, down = page.tags["XResolution"].value, page.tags["YResolution"].value
        assert across[0] / across[1] == pytest.approx(4)
        assert down[0] / down[1] == pytest.approx(2)
        about = file.imagej_metadata
        assert about is not None
        assert about["unit"] == "um"
        assert about.get("spacing") == (2.0 if len(shape) == 3 else None)
        assert not file.is_bigtiff
    assert [p.name for p in tmp_path.iterdir()] == ["m.tif"]


def test_mask_without_pixel_size_has_no_unit(tmp_path):
    tiff_writer.write_mask(
        tmp_path / "m.tif", lambda r: np.ones((4, 5), np.uint8)[r], (4, 5), "u1", None
    )
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert "unit" not in file.pages[0].description


def shown_by_imagej(values, page):
    """Colours [..., RGB] in which ImageJ shows 16-bit values: by ShortProcessor.create8BitImage
    with the display range of the description, and the 256 colours beside the pixels."""
    about = dict(line.split("=", 1) for line in page.description.splitlines() if "=" in line)
    low, high = float(about["min"]), float(about["max"])
    scale = 256 / (high - low + 1)
    index = np.minimum((np.maximum(values - low, 0) * scale + 0.5).astype(int), 255)
    return np.array(page.tags[320].value).reshape(3, 256)[:, index].T >> 8


@pytest.mark.parametrize("count", [1, 48, 255, 400, 510, 5000])
def test_every_object_of_a_mask_is_seen_in_imagej(tmp_path, count):
    values = np.arange(count + 1, dtype=np.uint16)[None]
    tiff_writer.write_mask(
        tmp_path / "m.tif", lambda r: values[r], values.shape, np.uint16, None, top=count
    )
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        page = file.pages[0]
        np.testing.assert_array_equal(file.asarray(), values)
        assert page.photometric.name == "MINISBLACK"
        colours = shown_by_imagej(values[0], page)
    assert not colours[0].any()
    assert colours[1:].max(axis=1).min() > 150
    if count <= 255:
        assert len(np.unique(colours, axis=0)) == count + 1
    with Image.open(tmp_path / "m.tif") as opened:
        assert opened.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(opened), values)


def test_classes_keep_their_values_and_have_colours(tmp_path):
    values = np.array([[0, 1, 2, 255]], np.uint8)
    tiff_writer.write_mask(tmp_path / "m.tif", lambda r: values[r], (1, 4), np.uint8, None, top=255)
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        np.testing.assert_array_equal(file.asarray(), values)
        table = np.array(file.pages[0].tags[320].value).reshape(3, 256)
        assert len({tuple(c) for c in table[:, [0, 1, 2, 255]].T}) == 4
        # 8 bits need no range: ImageJ would stretch the colours.
        assert "max=" not in file.pages[0].description
    with Image.open(tmp_path / "m.tif") as opened:
        assert opened.mode == "L"


def test_a_mask_says_what_made_it(tmp_path):
    made = {"stage": "stitch", "settings": {"threshold": 0.5}, "inputs": {"model": "ab\n"}}
    tiff_writer.write_mask(
        tmp_path / "m.tif", lambda r: np.ones((4, 5), "u2")[r], (4, 5), "u2", None, made_by=made
    )
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        page = file.pages[0]
        assert page.software.startswith("unet-pipeline ")
        lines = [line for line in page.description.splitlines() if line.startswith("made_by=")]
        assert json.loads(lines[0].removeprefix("made_by=")) == made
        assert file.is_imagej


def test_mask_is_read_in_bands(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff_writer, "_BAND_BYTES", 1000)
    monkeypatch.setattr(tiff_writer, "_STRIP_BYTES", 300)
    seen = []
    values = np.arange(100 * 100).reshape(100, 100).astype(np.uint16)

    def read(region):
        seen.append(region[0].stop - region[0].start)
        return values[region]

    tiff_writer.write_mask(tmp_path / "m.tif", read, (100, 100), np.uint16, None)
    assert max(seen) <= 5
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), values)


def test_a_failed_write_leaves_nothing(tmp_path):
    def read(region):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        tiff_writer.write_mask(tmp_path / "m.tif", read, (4, 5), np.uint8, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(4, 5), (700, 1300), (512, 1024), (3, 600, 90)])
@pytest.mark.parametrize("slab", [1 << 28, 1])
def test_large_masks_are_bigtiff_in_tiles(tmp_path, monkeypatch, shape, slab):
    monkeypatch.setattr(tiff_writer, "_SLAB_BYTES", slab)
    # Of a row of tiles, two are read at once.
    monkeypatch.setattr(tiff_writer, "_BAND_BYTES", 2 * 512 * 512 * 2)
    values = np.random.default_rng(0).integers(0, 60000, shape, np.uint16)
    seen = []

    def read(region):
        seen.append([s.stop - s.start for s in region])
        return values[region]

    tiff_writer.write_mask(
        tmp_path / "m.tif", read, shape, "u2", (2.0, 0.5, 0.25)[-len(shape) :], 10
    )
    if len(shape) == 2 or slab == 1:
        assert max(n[-2] for n in seen) <= 512
        assert max(n[-1] for n in seen) <= 1024
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert file.is_bigtiff
        page = file.pages[0]
        assert page.is_tiled
        assert page.tile == (512, 512)
        assert page.compression.name == "ADOBE_DEFLATE"
        assert "unit=um" in page.description
        np.testing.assert_array_equal(file.asarray(), values)
    # Region by region, as viewers do.
    store = tifffile.imread(tmp_path / "m.tif", aszarr=True)
    array = zarr.open_array(store, mode="r")
    assert array.chunks[-2:] == (512, 512)
    top, left = shape[-2] // 2, shape[-1] // 3
    np.testing.assert_array_equal(array[..., top:, left:], values[..., top:, left:])
    store.close()


def test_smallest_dtype():
    found = [
        tiff_writer.smallest_dtype(*r) for r in [(0, 255), (0, 256), (0, 65536), (-1, 1), (-1, 200)]
    ]
    assert found == [np.uint8, np.uint16, np.uint32, np.int8, np.int16]
    with pytest.raises(ValueError, match="32 bits"):
        tiff_writer.smallest_dtype(0, 2**32)
