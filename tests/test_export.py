"""OME-Zarr, TIFF and the table of objects."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from skimage.measure import regionprops_table

from unet.export import objects, omezarr, tiff

# --- OME-Zarr


def make(path, shape=(300, 700), levels=3, pixel=(0.5, 0.25), names=("background", "cell")):
    pyramid = omezarr.pyramid_of(shape, levels, pixel)
    arrays_ = omezarr.create_image(path, pyramid, "float16", names, {"unet": {"part": "test"}})
    labels = omezarr.create_labels(
        path, pyramid, {"classes": np.uint8, "instances": np.uint32}, names, len(names)
    )
    return pyramid, arrays_, labels


@pytest.mark.parametrize("pixel", [(0.5, 0.25), None])
def test_image_and_labels_are_valid_ome_zarr(tmp_path, pixel):
    make(tmp_path / "a", pixel=pixel)
    group = zarr.open_group(str(tmp_path / "a"), mode="r")
    image = Image.from_zarr(group)
    assert image.labels is not None
    assert list(image.labels.label_paths) == ["classes", "instances"]
    classes = ImageLabel.from_zarr(group["labels/classes"])
    assert classes.attributes.ome.image_label.source.image == "../../"
    units = [axis.unit for axis in image.attributes.ome.multiscales[0].axes]
    assert units == ([None, "micrometer", "micrometer"] if pixel else [None] * 3)
    ome = group.attrs["ome"]
    channels = ome["omero"]["channels"]
    assert [c["label"] for c in channels] == ["background", "cell"]
    assert channels[0]["window"] == {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    assert group["0"].metadata.dimension_names == ("c", "y", "x")
    about = group["labels/classes"].attrs["ome"]["image-label"]
    assert [p["class"] for p in about["properties"]] == ["background", "cell"]


def test_a_volume_is_valid_ome_zarr(tmp_path):
    make(tmp_path / "a", shape=(5, 130, 140), pixel=(2.0, 0.5, 0.5))
    group = zarr.open_group(str(tmp_path / "a"), mode="r")
    Image.from_zarr(group)
    assert group["1"].shape == (2, 5, 65, 70)
    scale = group.attrs["ome"]["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]
    assert scale == {"type": "scale", "scale": [1.0, 2.0, 1.0, 1.0]}


def test_levels_stop_before_they_are_small():
    assert omezarr.pyramid_of((300, 700), 9, None).shapes == ((300, 700), (150, 350), (75, 175))
    assert omezarr.pyramid_of((300, 700), 2, None).shapes == ((300, 700), (150, 350))
    assert omezarr.pyramid_of((20, 700), 5, None).shapes == ((20, 700),)
    assert omezarr.pyramid_of((127, 127), 5, None).shapes == ((127, 127), (64, 64))


def test_scale_and_translation_say_where_the_pixels_lie():
    pyramid = omezarr.pyramid_of((256, 256), 3, (0.5, 0.25))
    mean = pyramid.multiscales("x", channels=True, averaged=True)[0]["datasets"][2]
    # A mean of 4 x 4 pixels lies at the centre of pixels 0 to 3, that is 1.5 pixels in.
    assert mean["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 2.0, 1.0]},
        {"type": "translation", "translation": [0.0, 0.75, 0.375]},
    ]
    nearest = pyramid.multiscales("x", channels=False, averaged=False)[0]["datasets"][2]
    assert nearest["coordinateTransformations"] == [{"type": "scale", "scale": [2.0, 1.0]}]


def test_shards_are_few_cut_to_the_image_and_smaller_for_many_classes(tmp_path):
    pyramid = omezarr.pyramid_of((3000, 700), 1, None)
    (few,) = omezarr.create_image(tmp_path / "a", pyramid, "float16", ["a", "b"], {})
    assert few.chunks == (1, 512, 512)
    assert few.shards == (2, 2048, 1024)
    (many,) = omezarr.create_image(tmp_path / "b", pyramid, "float16", ["c"] * 200, {})
    assert many.shards == (200, 512, 512)
    regions = omezarr.shard_regions(few, 2)
    assert regions == [np.s_[0:2048, 0:700], np.s_[2048:3000, 0:700]]


@pytest.mark.parametrize("shape", [(300, 701), (129, 128), (3, 131, 150)])
def test_coarser_levels(tmp_path, shape):
    rng = np.random.default_rng(0)
    pyramid, levels, labels = make(tmp_path / "a", shape=shape, levels=2, pixel=None)
    fine = rng.random((2, *shape)).astype(np.float16)
    ids = rng.integers(0, 9, shape).astype(np.uint32)
    levels[0][:] = fine
    labels["instances"][0][:] = ids
    for region in omezarr.shard_regions(levels[1], len(shape)):
        omezarr.reduce_region(levels[0], levels[1], region, averaged=True)
        omezarr.reduce_region(*labels["instances"], region, averaged=False)
    np.testing.assert_array_equal(labels["instances"][1][:], ids[..., ::2, ::2])
    height, width = shape[-2:]
    for y, x in [(0, 0), (10, 20), ((height - 1) // 2, (width - 1) // 2)]:
        part = fine[..., 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(np.float64)
        np.testing.assert_allclose(levels[1][..., y, x], part.mean(axis=(-1, -2)), atol=1e-3)
    assert levels[1].shape == (2, *pyramid.shapes[1])


def test_mean_pairs_by_hand():
    found = omezarr.mean_pairs(np.array([[0, 1, 5], [2, 3, 7], [4, 8, 9]], np.float32))
    np.testing.assert_array_equal(found, [[1.5, 6], [6, 9]])


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
    tiff.write_mask(tmp_path / "m.tif", lambda r: values[r], shape, dtype, pixel)
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
    tiff.write_mask(tmp_path / "m.tif", lambda r: np.ones((4, 5), np.uint8)[r], (4, 5), "u1", None)
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert "unit" not in file.pages[0].description


def test_mask_is_read_in_bands(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_BAND_BYTES", 1000)
    monkeypatch.setattr(tiff, "_STRIP_BYTES", 300)
    seen = []
    values = np.arange(100 * 100).reshape(100, 100).astype(np.uint16)

    def read(region):
        seen.append(region[0].stop - region[0].start)
        return values[region]

    tiff.write_mask(tmp_path / "m.tif", read, (100, 100), np.uint16, None)
    assert max(seen) <= 5
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "m.tif"), values)


def test_a_failed_write_leaves_nothing(tmp_path):
    def read(region):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        tiff.write_mask(tmp_path / "m.tif", read, (4, 5), np.uint8, None)
    assert list(tmp_path.iterdir()) == []


def test_large_masks_are_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "_CLASSIC_BYTES", 10)
    tiff.write_mask(tmp_path / "m.tif", lambda r: np.ones((4, 5), np.uint8)[r], (4, 5), "u1", None)
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert file.is_bigtiff
        assert file.asarray().all()


def test_smallest_dtype():
    found = [tiff.smallest_dtype(*r) for r in [(0, 255), (0, 256), (0, 65536), (-1, 1), (-1, 200)]]
    assert found == [np.uint8, np.uint16, np.uint32, np.int8, np.int16]
    with pytest.raises(ValueError, match="32 bits"):
        tiff.smallest_dtype(0, 2**32)


# --- objects


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        arrays(
            np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)
        ),
        arrays(np.uint16, (3, 4, 5), elements=st.integers(0, 4)),
    ),
    st.integers(1, 6),
)
def test_sums_of_blocks_agree_with_regionprops(labels, block):
    shape = labels.shape
    image = np.random.default_rng(1).random((2, *shape))
    regions = list(omezarr._parts(shape, (block,) * len(shape)))
    parts = [objects.sums(labels[r], image[(slice(None), *r)], r) for r in regions]
    found = objects.add(parts, len(shape), 2)
    expected = regionprops_table(
        labels,
        np.moveaxis(image, 0, -1),
        properties=("label", "area", "centroid", "bbox", "intensity_mean"),
    )
    np.testing.assert_array_equal(found.labels, expected["label"])
    if not len(found.labels):
        return
    np.testing.assert_array_equal(found.size, expected["area"])
    for axis in range(len(shape)):
        np.testing.assert_allclose(
            found.positions[:, axis] / found.size, expected[f"centroid-{axis}"]
        )
        np.testing.assert_array_equal(found.low[:, axis], expected[f"bbox-{axis}"])
        np.testing.assert_array_equal(
            found.high[:, axis] + 1, expected[f"bbox-{axis + len(shape)}"]
        )
    for channel in range(2):
        np.testing.assert_allclose(
            found.intensity[:, channel] / found.size, expected[f"intensity_mean-{channel}"]
        )


def test_rows_by_hand():
    labels = np.zeros((4, 6), np.uint32)
    labels[1:3, 2:5] = 7
    image = np.full((1, 4, 6), 0.25, np.float32)
    found = objects.sums(labels, image, (slice(10, 14), slice(100, 106)))
    (row, absent) = objects.rows("a", found, [(7, 7, "cell"), (9, 200, "gap")], (0.5, 2.0))
    header = objects.columns(2, 1)
    assert dict(zip(header, row, strict=True)) == {
        "image": "a",
        "label": "7",
        "class": "cell",
        "area_px": "6",
        "area_um2": "6",
        "centroid_y_px": "11.500",
        "centroid_x_px": "103.000",
        "centroid_y_um": "5.75",
        "centroid_x_um": "206",
        "bbox_y0": "11",
        "bbox_x0": "102",
        "bbox_y1": "13",
        "bbox_x1": "105",
        "mean_intensity_c0": "0.25",
    }
    assert absent == ["a", "200", "gap", "0", "0"] + [""] * 9
    (unknown,) = objects.rows("a", found, [(7, 7, "cell")], None)
    assert len(unknown) == len(header)
    assert dict(zip(header, unknown, strict=True))["centroid_y_um"] == ""
    assert "volume_um3" in objects.columns(3, 1)
    assert "centroid_z_px" in objects.columns(3, 1)


def test_sums_refuse_another_shape():
    with pytest.raises(ValueError, match="do not fit"):
        objects.sums(np.ones((2, 2), int), np.ones((1, 2, 3)), np.s_[0:2, 0:2])
