"""The table of objects: sums over blocks, and the measures that follow from them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.measure import perimeter_crofton, regionprops, regionprops_table

from unet.export import object_shape, object_table
from unet.export.collected_sums import CollectedSums
from unet.export.object_sums import Sums, add, read_around, sums
from unet.export.ome_zarr_writer import _parts

LABELS = st.one_of(
    arrays(np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)),
    arrays(np.uint16, (3, 4, 5), elements=st.integers(0, 4)),
)


def summed(labels, image, block, origin=None):
    """Sums over a grid of blocks, as if the image's first pixel were at ``origin``."""
    origin = origin or (0,) * labels.ndim
    parts = []
    for r in _parts(labels.shape, (block,) * labels.ndim):
        around = read_around(labels.__getitem__, labels.shape, r)
        there = tuple(slice(s.start + o, s.stop + o) for s, o in zip(r, origin, strict=True))
        parts.append(sums(around, image[(slice(None), *r)], there))
    return add(parts, labels.ndim, len(image))


def collected(found):
    """As of an image with few objects."""
    dims, channels = found.low.shape[1], found.total.shape[1]
    return CollectedSums.of([found], dims, channels, Path("not needed"))


def table_of(found, size, pixel=None, channels=1, scale=None):
    scale = scale or object_table.Scale.of(None, channels)
    table = object_table.Table("a", collected(found), size, pixel, scale)
    rows = list(table.rows((i, i, "cell") for i in table.labels.tolist()))
    header = object_table.columns(len(size), channels)
    return [dict(zip(header, row, strict=True)) for row in rows]


def blobs(seed, size=(60, 70), scale=2.5):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), scale)
    return ndimage.label(noise > 0.3 * noise.std())[0].astype(np.uint32)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(1, 6))
def test_sums_of_blocks_agree_with_regionprops(labels, block):
    dims = labels.ndim
    image = np.random.default_rng(1).random((2, *labels.shape))
    found = summed(labels, image, block)
    expected = regionprops_table(
        labels,
        np.moveaxis(image, 0, -1),
        properties=(
            "label", "area", "centroid", "bbox", "intensity_mean", "intensity_std",
            "intensity_min", "intensity_max", "moments_central",
        ),
    )  # fmt: skip
    np.testing.assert_array_equal(found.labels, expected["label"])
    if not len(found.labels):
        return
    size = found.size
    np.testing.assert_array_equal(size, expected["area"])
    for axis in range(dims):
        np.testing.assert_allclose(found.positions[:, axis] / size, expected[f"centroid-{axis}"])
        np.testing.assert_array_equal(found.low[:, axis], expected[f"bbox-{axis}"])
        np.testing.assert_array_equal(found.high[:, axis] + 1, expected[f"bbox-{axis + dims}"])
    for c in range(2):
        np.testing.assert_allclose(found.total[:, c] / size, expected[f"intensity_mean-{c}"])
        spread = np.sqrt(found.spread[:, c] / size)
        np.testing.assert_allclose(spread, expected[f"intensity_std-{c}"], atol=1e-12)
        np.testing.assert_array_equal(found.least[:, c], expected[f"intensity_min-{c}"])
        np.testing.assert_array_equal(found.most[:, c], expected[f"intensity_max-{c}"])
    covariance = object_shape.covariances(found)
    for i in range(dims):
        for j in range(dims):
            power = [0] * dims
            power[i] += 1
            power[j] += 1
            moment = expected["moments_central-" + "-".join(map(str, power))]
            np.testing.assert_allclose(covariance[:, i, j], moment / size, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(LABELS, st.integers(1, 6))
def test_faces_by_the_definition(labels, block):
    """Each pixel of a label, and each of its neighbours that is not of it."""
    found = summed(labels, np.zeros((1, *labels.shape)), block)
    inside = np.pad(labels, 1)
    dims = labels.ndim
    walks = [*np.eye(dims, dtype=int).tolist(), *([(1, 1), (1, -1)] if dims == 2 else [])]
    for i, label in enumerate(found.labels):
        for k, walk in enumerate(walks):
            count = 0
            for at in np.argwhere(inside == label):
                for sign in (1, -1):
                    count += inside[tuple(at + sign * np.array(walk))] != label
            assert found.faces[i, k] == count


@pytest.mark.parametrize("size", [(60, 70), (11, 22, 20)])
def test_no_grid_changes_the_table(size):
    labels = blobs(3, size, 2.0)
    image = np.random.default_rng(0).random((2, *size)).astype(np.float32) * 100 + 60000
    whole = summed(labels, image, 1000)
    pixel = (2.0, 0.25, 0.25)[-len(size) :]
    expected = table_of(whole, size, pixel, 2)
    assert len(expected) > 3
    for block in (3, 7, 16) if len(size) == 2 else (5, 16):
        found = summed(labels, image, block)
        for field in fields(Sums):
            one, other = getattr(found, field.name), getattr(whole, field.name)
            if field.name in ("total", "spread"):
                np.testing.assert_allclose(one, other, rtol=1e-9)
            else:
                np.testing.assert_array_equal(one, other)
        assert table_of(found, size, pixel, 2) == expected


@pytest.mark.parametrize("held", [0, 3, 10**6])
def test_many_objects_go_to_disk(tmp_path, monkeypatch, held):
    labels = blobs(1)
    image = np.random.default_rng(0).random((1, *labels.shape))
    parts = []
    for r in _parts(labels.shape, (9, 9)):
        around = read_around(labels.__getitem__, labels.shape, r)
        parts.append(sums(around, image[(slice(None), *r)], r))
    whole = add(parts, 2, 1)
    monkeypatch.setattr("unet.export.collected_sums.STEP", 5)
    path = tmp_path / "sums"
    found = CollectedSums.of(iter(parts), 2, 1, path, held)
    assert path.exists() == (held < 10**6)
    np.testing.assert_array_equal(found.labels, whole.labels)
    count = len(whole.labels)
    for start, stop in ((0, count), (0, 1), (2, 5), (count - 2, count + 9), (count, count + 1)):
        part = found.part(start, stop)
        for field in fields(Sums):
            expected = getattr(whole, field.name)[start:stop]
            np.testing.assert_allclose(getattr(part, field.name), expected, rtol=1e-9)
    # The table in ranges of some objects is that of all at once.
    expected = table_of(whole, labels.shape)
    monkeypatch.setattr(object_table, "RANGE", 4)
    table = object_table.Table("a", found, labels.shape, None, object_table.Scale.of(None, 1))
    rows = table.rows((i, i, "cell") for i in table.labels.tolist())
    assert [list(row.values()) for row in expected] == list(rows)
    np.testing.assert_array_equal(table.high, whole.high)
    table.close()
    assert not path.exists()
    assert len(CollectedSums.of([], 3, 2, path).labels) == 0


def test_far_from_the_origin_nothing_is_lost():
    labels = blobs(4)
    image = np.zeros((1, *labels.shape))
    near, far = summed(labels, image, 16), summed(labels, image, 16, origin=(10**6, 10**6 + 3))
    np.testing.assert_array_equal(near.products, far.products)
    for unit in ((1.0, 1.0), (0.3, 0.7)):
        one, other = object_shape.ellipses(near, unit), object_shape.ellipses(far, unit)
        np.testing.assert_allclose(one.axes, other.axes, rtol=1e-9)
        np.testing.assert_allclose(one.orientation, other.orientation, rtol=1e-9)


def test_intensities_far_from_zero_keep_their_spread():
    labels = np.ones((40, 40), np.uint32)
    image = np.where(np.indices((40, 40)).sum(axis=0) % 2, 1.0, -1.0)[None] + 1e6
    found = summed(labels, image, 7)
    assert found.spread[0, 0] / 1600 == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.5, 0.5), (0.5, 0.2)])
@pytest.mark.parametrize("seed", range(3))
def test_shape_in_2d_agrees_with_regionprops(seed, pixel):
    labels = blobs(seed)
    found = summed(labels, np.zeros((1, *labels.shape)), 20)
    ours = object_shape.ellipses(found, pixel)
    diameter = object_shape.equivalent_diameter(found.size, pixel)
    assert len(found.labels) > 5
    for i, props in enumerate(regionprops(labels, spacing=pixel)):
        major, minor = ours.axes[i]
        assert major == pytest.approx(props.axis_major_length, abs=1e-6)
        assert minor == pytest.approx(props.axis_minor_length, abs=1e-6)
        assert ours.eccentricity[i] == pytest.approx(props.eccentricity, abs=1e-6)
        assert diameter[i] == pytest.approx(props.equivalent_diameter_area, abs=1e-6)
        if ours.orientation[i] == ours.orientation[i]:
            # An axis has two directions.
            away = (ours.orientation[i] - props.orientation) % np.pi
            assert min(away, np.pi - away) < 1e-6
        else:
            assert major == minor
        if pixel[0] == pixel[1]:
            expected = perimeter_crofton(labels == props.label, 4) * pixel[0]
            assert object_shape.perimeter(found.faces, pixel)[i] == pytest.approx(
                expected, abs=1e-9
            )


def test_shape_in_3d_agrees_with_regionprops():
    labels, pixel = blobs(0, (16, 24, 20), 2.0), (2.0, 0.5, 0.4)
    found = summed(labels, np.zeros((1, *labels.shape)), 9)
    ours = object_shape.ellipses(found, pixel)
    diameter = object_shape.equivalent_diameter(found.size, pixel)
    assert len(found.labels) > 3
    for i, props in enumerate(regionprops(labels, spacing=pixel)):
        assert ours.axes[i, 0] == pytest.approx(props.axis_major_length, abs=1e-6)
        assert ours.axes[i, 2] == pytest.approx(props.axis_minor_length, abs=1e-6)
        assert ours.axes[i, 1] <= ours.axes[i, 0]
        assert diameter[i] == pytest.approx(props.equivalent_diameter_area, abs=1e-6)


def test_perimeter_of_a_disk_is_nearly_right_for_any_pixel_size():
    for pixel in [(1.0, 1.0), (0.5, 1.0), (2.0, 0.5)]:
        y, x = np.indices((200, 200)) - 100
        radius = 40.0
        disk = ((y * pixel[0]) ** 2 + (x * pixel[1]) ** 2 <= radius**2).astype(np.uint32)
        disk[[0, -1]], disk[:, [0, -1]] = 0, 0
        found = summed(disk, np.zeros((1, 200, 200)), 64)
        assert object_shape.perimeter(found.faces, pixel)[0] == pytest.approx(
            2 * np.pi * radius, rel=0.06
        )


def test_surface_is_that_of_the_voxels():
    labels = np.zeros((6, 7, 8), np.uint32)
    labels[1:3, 2:5, 3:7] = 1
    found = summed(labels, np.zeros((1, 6, 7, 8)), 4)
    assert object_shape.surface(found.faces, (1, 1, 1)).tolist() == [2 * (2 * 3 + 2 * 4 + 3 * 4)]
    # 4 um high, 1.5 um deep, 2 um wide.
    assert object_shape.surface(found.faces, (2, 0.5, 0.5)).tolist() == [
        2 * (4 * 1.5 + 4 * 2 + 1.5 * 2)
    ]


def test_line_square_and_point():
    labels = np.zeros((20, 40), np.uint32)
    labels[3, 5:35] = 1
    labels[8:12, 8:12] = 2
    labels[15, 15] = 3
    labels[[13, 14, 15, 16], [20, 21, 22, 23]] = 4
    found = summed(labels, np.zeros((1, 20, 40)), 6)
    line, square, point, slant = table_of(found, (20, 40))
    assert line["minor_axis_px"] == "0"
    assert line["eccentricity"] == "1"
    assert float(line["orientation_rad"]) == pytest.approx(np.pi / 2, abs=1e-5)
    assert (square["eccentricity"], square["orientation_rad"]) == ("0", "")
    assert square["major_axis_px"] == square["minor_axis_px"]
    assert (point["major_axis_px"], point["eccentricity"]) == ("0", "0")
    # From the Y axis, downwards, counter-clockwise to the right.
    assert float(slant["orientation_rad"]) == pytest.approx(np.pi / 4, abs=1e-5)
    assert slant["minor_axis_px"] == "0"


def test_rows_by_hand():
    labels = np.zeros((24, 106), np.uint32)
    labels[11:13, 102:105] = 7
    image = np.full((1, 24, 106), 0.25, np.float32)
    image[0, 11, 102] = 0.5
    found = summed(labels, image, 10)
    table = object_table.Table(
        "a", collected(found), (24, 106), (0.5, 2.0), object_table.Scale.of(None, 1)
    )
    row, absent = table.rows([(7, 7, "cell"), (9, 200, "gap")])
    header = object_table.columns(2, 1)
    found_ = dict(zip(header, row, strict=True))
    shapes = {name: found_.pop(name) for name in header[16:]}
    assert found_ == {
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
        "mean_intensity_c0": "0.291667",
        "std_intensity_c0": "0.0931695",
        "min_intensity_c0": "0.25",
    }
    # Variances: 1/4 along Y and 2/3 along X, in pixels.
    assert shapes == {
        "max_intensity_c0": "0.5",
        "touches_border": "0",
        "perimeter_px": f"{np.pi / 4 * (5 + 8 / 2**0.5):.6g}",
        "perimeter_um": shapes["perimeter_um"],
        "equivalent_diameter_px": f"{(24 / np.pi) ** 0.5:.6g}",
        "equivalent_diameter_um": f"{(24 / np.pi) ** 0.5:.6g}",
        "major_axis_px": f"{4 * (2 / 3) ** 0.5:.6g}",
        "major_axis_um": f"{4 * (2 / 3) ** 0.5 * 2:.6g}",
        "minor_axis_px": "2",
        "minor_axis_um": "1",
        "eccentricity": f"{(1 - (1 / 16) / (8 / 3)) ** 0.5:.6g}",
        "orientation_rad": "1.5708",
    }
    assert 9 < float(shapes["perimeter_um"]) < 14
    assert absent == ["a", "200", "gap", "0", "0"] + [""] * (len(header) - 5)
    assert table.measures(7)["area_px"] == 6
    assert not [k for k in table.measures(7) if k.startswith(("bbox", "centroid"))]
    assert table.measures(9) == {}
    unknown = object_table.Table(
        "a", collected(found), (24, 106), None, object_table.Scale.of(None, 1)
    )
    (first, none) = unknown.rows([(7, 7, "cell"), (9, 9, "x")])
    cells = dict(zip(header, first, strict=True))
    assert {cells[name] for name in header if name.endswith(("_um", "_um2"))} == {""}
    assert none[3:5] == ["0", ""]
    assert cells["orientation_rad"] == "1.5708"


def test_intensities_are_those_of_the_file():
    raw = np.array([[0, 100, 50000, 65535]], np.uint16)
    shift, scale = 321.5, 43210.0
    stored = ((raw.astype(np.float32) - np.float32(shift)) / np.float32(scale))[None]
    found = summed(np.array([[1, 1, 2, 2]], np.uint32), stored, 3)
    given = object_table.Scale.of({"shift": [shift], "scale": [scale], "low": [0]}, 1)
    one, two = table_of(found, (1, 4), scale=given)
    names = [f"{what}_intensity_c0" for what in ("mean", "std", "min", "max")]
    assert [one[n] for n in names] == ["50", "50", "0", "100"]
    assert [float(two[n]) for n in names] == pytest.approx([57767.5, 7767.5, 50000, 65535])
    # Statistics of another number of channels are not of this image.
    assert object_table.Scale.of({"shift": [1, 2], "scale": [1, 1]}, 1).shift.tolist() == [0]


@pytest.mark.parametrize("size", [(5, 6), (4, 5, 6)])
def test_touches_border(size):
    labels = np.zeros(size, np.uint32)
    labels[(2,) * len(size)] = 1
    inner, image = tuple(n - 1 for n in size), np.zeros((1, *size))
    assert table_of(summed(labels, image, 3), size)[0]["touches_border"] == "0"
    for axis in range(len(size)):
        for end in (0, inner[axis]):
            at = [2] * len(size)
            at[axis] = end
            other = labels.copy()
            other[tuple(at)] = 1
            assert table_of(summed(other, image, 3), size)[0]["touches_border"] == "1"


def test_columns_of_volumes():
    found = object_table.columns(3, 2)
    assert len(set(found)) == len(found)
    assert {"volume_um3", "centroid_z_px", "surface_um2", "middle_axis_um"} <= set(found)
    assert {"max_intensity_c1", "touches_border"} <= set(found)
    assert not {"perimeter_px", "eccentricity", "orientation_rad"} & set(found)
    labels = blobs(0, (12, 20, 18), 1.5)
    rows = table_of(summed(labels, np.zeros((2, 12, 20, 18)), 8), (12, 20, 18), channels=2)
    assert rows[0]["surface_um2"] == ""
    assert float(rows[0]["surface_px"]) >= 6


def test_sums_refuse_another_shape():
    with pytest.raises(ValueError, match="do not fit"):
        sums(np.ones((4, 4), int), np.ones((1, 2, 3)), np.s_[0:2, 0:2])
