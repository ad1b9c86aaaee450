"""Files of outlines that hold no outline, other geometries, or far more than they seem to."""

from __future__ import annotations

import json
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from roifile import ROI_TYPE, ImagejRoi

from unet.errors import UserError
from unet.io import outline_files
from unet.io.mask_files import open_mask
from unet.io.outline_files import read_geojson

POINT = {"type": "Point", "coordinates": [1, 1]}
LINE = {"type": "LineString", "coordinates": [[0, 0], [3, 3]]}


def square(x: float, y: float, side: float) -> dict[str, Any]:
    corners = [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]
    return {"type": "Polygon", "coordinates": [corners]}


def several(*parts: Any) -> dict[str, Any]:
    return {"type": "GeometryCollection", "geometries": list(parts)}


def features(*geometries: Any) -> dict[str, Any]:
    made = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    return {"type": "FeatureCollection", "features": made}


def written(folder: Path, found: Any) -> Path:
    path = folder / "a.geojson"
    path.write_text(json.dumps(found), "utf-8")
    return path


def zipped(folder: Path, *rois: ImagejRoi) -> Path:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, roi in enumerate(rois):
            archive.writestr(f"{number}.roi", roi.tobytes())
    return path


def oval(side: int) -> ImagejRoi:
    return ImagejRoi(roitype=ROI_TYPE.OVAL, left=0, top=0, right=side, bottom=side)


def line() -> ImagejRoi:
    return ImagejRoi(roitype=ROI_TYPE.LINE, left=0, top=0, right=4, bottom=4)


@pytest.mark.parametrize(
    ("found", "number"),
    [
        (features(POINT), "1 feature"),
        (features(POINT, LINE, several()), "3 features"),
        (features(several(POINT, LINE)), "1 feature"),
        (features({"type": "Circle", "radius": 3}), "1 feature"),
        (several(POINT, LINE), "2 features"),
    ],
)
def test_entries_without_an_outline_are_no_empty_mask(
    tmp_path: Path, found: Any, number: str
) -> None:
    message = rf"a\.geojson: {number}, none of which is the outline of an object; write polygons"
    with pytest.raises(UserError, match=message):
        open_mask(written(tmp_path, found), (4, 4))


def test_rois_without_an_area_are_no_empty_mask(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.zip: 2 features, none of which"):
        open_mask(zipped(tmp_path, line(), line()), (4, 4))


def test_files_that_say_there_are_no_objects(tmp_path: Path) -> None:
    assert not open_mask(written(tmp_path, features()), (4, 4)).array.compute().any()
    assert not open_mask(zipped(tmp_path), (4, 4)).array.compute().any()


def test_a_collection_of_geometries_is_one_object(tmp_path: Path) -> None:
    nested = several(square(0, 0, 1), POINT, several(square(2, 0, 1)))
    mask = open_mask(written(tmp_path, features(nested, square(0, 1, 1))), (2, 4))
    assert mask.array.compute().tolist() == [[1, 0, 1, 0], [2, 0, 0, 0]]
    assert mask.warnings() == []


def test_geometries_without_features_are_objects(tmp_path: Path) -> None:
    mask = open_mask(written(tmp_path, several(square(0, 0, 1), POINT, square(2, 0, 1))), (1, 4))
    assert mask.array.compute().tolist() == [[1, 0, 2, 0]]
    assert mask.warnings() == ["1 of 3 entries are no outlines of objects and left out"]
    assert open_mask(written(tmp_path, square(1, 0, 1)), (1, 3)).array.compute().tolist() == [
        [0, 1, 0]
    ]


@pytest.mark.parametrize("text", ['{"type": "GeometryCollection", "geometries": 5}', "9" * 5000])
def test_what_is_no_geojson_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(f'[{{"type": "Feature", "geometry": {text}}}]', "utf-8")
    with pytest.raises(UserError, match=r"a\.geojson: n"):
        read_geojson(path)


@pytest.mark.parametrize("depth", [200, 5000])
@pytest.mark.parametrize("around", ['{"type": "GeometryCollection", "geometries": [', "["])
def test_deep_nesting_is_one_line(tmp_path: Path, depth: int, around: str) -> None:
    path, end = tmp_path / "a.geojson", "]}" if "{" in around else "]"
    path.write_text(around * depth + json.dumps(square(0, 0, 1)) + end * depth, "utf-8")
    if depth == 200:
        assert len(read_geojson(path)[0]) == 1
    else:
        with pytest.raises(UserError, match=r"a\.geojson: not GeoJSON"):
            read_geojson(path)


def test_large_ovals_take_little_memory(tmp_path: Path) -> None:
    path = zipped(tmp_path, *[oval(30000)] * 300)
    tracemalloc.start()
    start = time.process_time()
    drawn = open_mask(path, (64, 64)).array.compute()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not drawn.any()  # the image is outside of the oval, in the corner of its box
    assert peak < 50e6
    assert time.process_time() - start < 10


def test_large_ovals_are_still_round(tmp_path: Path) -> None:
    drawn = open_mask(zipped(tmp_path, oval(2000)), (2000, 2000)).array.compute() > 0
    centres = np.arange(2000) - 999.5
    inside = centres**2 + centres[:, None] ** 2 <= 1000**2
    assert np.count_nonzero(drawn != inside) < 1e-4 * np.count_nonzero(inside)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("MOST_CORNERS", "a.zip: has 192 corners, but at most 191 corners are read"),
        ("MOST_MEMBERS", "a.zip: has 3 ROIs, but at most 2 ROIs are read"),
        ("MOST_BYTES", "unpacks to 0 MB, but at most 0 MB are read"),
    ],
)
def test_more_than_fits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, message: str
) -> None:
    path = zipped(tmp_path, *[oval(4)] * 3)
    monkeypatch.setattr(outline_files, limit, 2 if limit == "MOST_MEMBERS" else 191)
    with pytest.raises(UserError, match=message):
        open_mask(path, (4, 4))
