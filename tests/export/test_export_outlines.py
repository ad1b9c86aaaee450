"""Outlines of objects along the edges of their pixels, as GeoJSON and as ImageJ ROIs."""

from __future__ import annotations

import json
import uuid
import zipfile

import numpy as np
import pytest
import roifile
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from unet.export import geojson, outlines, rois

LABELS = arrays(
    np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)
)


def outlined(labels, block=outlines.OUTLINE_BLOCK, reads=None):
    """label -> polygons of a whole image."""
    ids = np.unique(labels)
    ids = ids[ids > 0].astype(np.int64)
    high = np.array([np.argwhere(labels == i).max(axis=0) for i in ids]).reshape(-1, 2)

    def read(region):
        if reads is not None:
            reads.append(region)
        return labels[region]

    blocks = outlines.vertex_blocks(labels.shape, block)
    parts = (outlines.corners(read, labels.shape, v) for v in blocks)
    found = list(outlines.completed(parts, blocks, ids, high))
    assert len({label for label, _ in found}) == len(found) == len(ids)
    return dict(found)


def area(ring):
    x, y = ring[:, 0], ring[:, 1]
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


def text(picture):
    """# is label 1, a digit is itself, anything else 0."""
    rows = [[{"#": 1}.get(c, int(c) if c.isdigit() else 0) for c in row] for row in picture.split()]
    return np.array(rows, np.uint32)


def as_shapely(polygons):
    return shapely.MultiPolygon([shapely.Polygon(outer, holes) for outer, *holes in polygons])


def check(labels, found):
    """All that makes outlines right, against the pixels."""
    y, x = np.indices(labels.shape) + 0.5
    for label, polygons in found.items():
        mask = labels == label
        assert sum(area(ring) for polygon in polygons for ring in polygon) == mask.sum()
        whole = as_shapely(polygons)
        assert whole.is_valid, shapely.is_valid_reason(whole)
        np.testing.assert_array_equal(shapely.contains_xy(whole, x, y), mask)
        parts, number = ndimage.label(mask)
        assert len(polygons) == number
        for outer, *holes in polygons:
            assert area(outer) > 0
            assert all(area(hole) < 0 for hole in holes)
            top, left = outer[np.lexsort((outer[:, 0], outer[:, 1]))[0]][::-1]
            # The holes of a part are what is left of the plane without it, but for the outside.
            part = np.pad(parts == parts[top, left], 1)
            assert len(holes) == ndimage.label(~part)[1] - 1
            for ring in (outer, *holes):
                assert len({tuple(p) for p in ring.tolist()}) == len(ring)
                steps = np.roll(ring, -1, axis=0) - ring
                # Upright and level by turns: no corner too many.
                assert ((steps == 0).sum(axis=1) == 1).all()
                assert (np.roll(steps[:, 0] == 0, 1) != (steps[:, 0] == 0)).all()


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(1, 11))
def test_outlines_are_exact_and_the_same_for_all_blocks(labels, block):
    found = outlined(labels, block)
    check(labels, found)
    whole = outlined(labels)
    assert found.keys() == whole.keys()
    for label, polygons in found.items():
        assert [[r.tolist() for r in p] for p in polygons] == [
            [r.tolist() for r in p] for p in whole[label]
        ]


def test_larger_objects():
    noise = np.random.default_rng(0).normal(size=(120, 130))
    for scale in (0.0, 1.0, 4.0):
        mask = (ndimage.gaussian_filter(noise, scale) if scale else noise) > 0
        eight = np.ones((3, 3))
        for around in (None, eight):
            labels = ndimage.label(mask, around)[0].astype(np.uint32)
            found = outlined(labels, 64)
            for label, polygons in found.items():
                rings = [ring for polygon in polygons for ring in polygon]
                assert sum(area(ring) for ring in rings) == (labels == label).sum()
            for label in sorted(found, key=lambda i: -(labels == i).sum())[:5]:
                assert as_shapely(found[label]).is_valid


def test_a_pixel_and_a_square():
    found = outlined(text("....\n.#22\n..22"))
    (((pixel,),), ((square,),)) = found[1], found[2]
    assert pixel.tolist() == [[1, 1], [2, 1], [2, 2], [1, 2]]
    assert square.tolist() == [[2, 1], [4, 1], [4, 3], [2, 3]]


def test_a_ring_has_a_hole_and_what_is_in_it_is_of_its_own():
    labels = text("#####\n#...#\n#.#.#\n#...#\n#####")
    (polygons,) = outlined(labels).values()
    assert [len(p) for p in polygons] == [2, 1]
    check(labels, {1: polygons})


def test_diagonal_contacts_make_rings_that_touch_but_do_not_cross():
    # Two pixels: two polygons. A bay that touches the hole: no longer one ring through a point.
    assert [len(p) for p in outlined(text("#.\n.#"))[1]] == [1, 1]
    assert [len(p) for p in outlined(text(".##\n#.#\n###"))[1]] == [2]
    assert [len(p) for p in outlined(text("####\n#.##\n##.#\n####"))[1]] == [3]
    diamond = text("#####\n##.##\n#.#.#\n##.##\n#####")
    found = outlined(diamond)
    assert [len(p) for p in found[1]] == [2, 1]
    check(diamond, found)


def test_an_image_without_objects():
    assert outlined(np.zeros((5, 6), np.uint32)) == {}


def test_blocks_are_read_with_one_pixel_more():
    labels = np.zeros((100, 64), np.uint32)
    labels[10:90, 5:60] = 3
    reads = []
    found = outlined(labels, 32, reads)
    assert max(max(s.stop - s.start for s in r) for r in reads) == 33
    check(labels, found)


def test_an_object_comes_with_its_last_block():
    labels = np.zeros((64, 64), np.uint32)
    labels[2, 2], labels[40:60, 2:60], labels[5, 30:40] = 1, 2, 3
    blocks = outlines.vertex_blocks(labels.shape, 32)
    done = []

    def parts():
        for block in blocks:
            done.append(block)
            yield outlines.corners(labels.__getitem__, labels.shape, block)

    high = np.array([[2, 2], [59, 59], [5, 39]])
    when = [
        (label, len(done))
        for label, _ in outlines.completed(parts(), blocks, np.array([1, 2, 3]), high)
    ]
    # Of 3 x 3 blocks, the last of which hold the image's last vertices alone.
    assert when == [(1, 1), (3, 2), (2, 5)]
    assert len(done) == len(blocks) == 9


# --- GeoJSON


def written(tmp_path, labels, image="a b"):
    path = tmp_path / "a.geojson"
    with geojson.geojson_writer(path, image) as file:
        for label, polygons in outlined(labels).items():
            file.add(label, polygons, "cell", (1, 2, 3), {"area_px": float(label)})
    return path


def test_geojson_as_qupath_reads_it(tmp_path):
    labels = text("###.2\n#.#2.\n###..")
    value = json.loads(written(tmp_path, labels).read_text())
    assert value["type"] == "FeatureCollection"
    one, two = value["features"]
    for feature in (one, two):
        assert feature["type"] == "Feature"
        assert str(uuid.UUID(feature["id"])) == feature["id"]
    assert one["id"] != two["id"]
    assert one["properties"] == {
        "objectType": "detection",
        "name": "1",
        "classification": {"name": "cell", "color": [1, 2, 3]},
        "measurements": {"area_px": 1.0},
    }
    assert (one["geometry"]["type"], two["geometry"]["type"]) == ("Polygon", "MultiPolygon")
    for feature, size in ((one, 8), (two, 2)):
        found = shapely.from_geojson(json.dumps(feature["geometry"]))
        assert found.is_valid
        assert found.area == size
    outer, hole = one["geometry"]["coordinates"]
    assert outer == [[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]]
    assert hole[0] == hole[-1]
    # As RFC 7946 has it: rings around pixels counter-clockwise, as x and y are written.
    assert shapely.LinearRing(outer).is_ccw
    assert not shapely.LinearRing(hole).is_ccw


def test_the_same_objects_are_the_same_file(tmp_path):
    labels = text("##.22\n##.22")
    first = written(tmp_path, labels).read_bytes()
    assert written(tmp_path, labels).read_bytes() == first
    assert written(tmp_path, labels, "other").read_bytes() != first
    assert [p.name for p in tmp_path.iterdir()] == ["a.geojson"]


def test_geojson_without_objects_and_after_a_failure(tmp_path):
    path = written(tmp_path, np.zeros((3, 3), np.uint32))
    assert json.loads(path.read_text()) == {"type": "FeatureCollection", "features": []}
    with pytest.raises(OSError, match="gone"), geojson.geojson_writer(tmp_path / "b.geojson", "b"):
        raise OSError("gone")
    assert [p.name for p in tmp_path.iterdir()] == ["a.geojson"]


# --- ImageJ


def read_rois(tmp_path, found):
    with rois.roi_writer(tmp_path / "a.zip") as file:
        for label, polygons in found.items():
            file.add(label, polygons)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{label}.roi" for label in found]
    return {int(roi.name): roi for roi in roifile.roiread(tmp_path / "a.zip")}


def test_rois_read_back(tmp_path):
    labels = text("###.2.33\n#.#2..3.\n###..33.")
    found = outlined(labels)
    back = read_rois(tmp_path, found)
    assert sorted(back) == [1, 2, 3]
    assert back[3].roitype == roifile.ROI_TYPE.POLYGON
    np.testing.assert_array_equal(back[3].coordinates(), found[3][0][0])
    for label in (1, 2):
        assert back[label].composite
        paths = back[label].coordinates(multi=True)
        rings = [ring for polygon in found[label] for ring in polygon]
        assert len(paths) == len(rings) == 2
        for path, ring in zip(paths, rings, strict=True):
            np.testing.assert_array_equal(path, [*ring, ring[0]])
    box = back[1]
    assert (box.left, box.top, box.right, box.bottom) == (0, 0, 3, 3)


def test_rois_beyond_16_bits(tmp_path):
    ring = np.array([[40000, 70000], [40010, 70000], [40010, 70001], [40000, 70001]])
    hole = np.array([[1, 1], [1, 2], [2, 2], [2, 1]]) + 99990
    outer = np.array([[0, 0], [10, 0], [10, 10], [0, 10]]) + 99990
    border = np.array([[32760, 0], [32767, 0], [32767, 9], [32760, 9]])
    back = read_rois(tmp_path, {1: [[ring]], 2: [[outer, hole]], 3: [[border]]})
    assert back[1].subpixelresolution
    np.testing.assert_array_equal(back[1].coordinates(), ring)
    np.testing.assert_array_equal(back[2].coordinates(multi=True)[1][:-1], hole)
    assert not back[3].subpixelresolution
    np.testing.assert_array_equal(back[3].coordinates(), border)


def test_a_roi_of_very_many_corners(tmp_path):
    steps = np.arange(40000)
    stairs = np.stack([np.repeat(steps, 2)[1:], np.repeat(steps, 2)[:-1]], axis=1)
    ring = np.concatenate([stairs, [[0, 39999]]])
    (back,) = read_rois(tmp_path, {5: [[ring]]}).values()
    assert back.n_coordinates == len(ring) > 65535
    np.testing.assert_array_equal(back.coordinates(), ring)
