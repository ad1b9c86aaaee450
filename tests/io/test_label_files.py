"""Labels in NumPy files and labels drawn from outlines."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unet.errors import UserError
from unet.export.rois import roi_writer
from unet.io.formats import LABEL_READERS, OUTLINES
from unet.io.images import open_image, open_label
from unet.io.mask_files import MASK_SUFFIXES, open_mask
from unet.io.outline_drawing import Drawing, Outline
from unet.io.outline_files import read_geojson

MASKS = np.array([[0, 1, 1], [2, 2, 0]], np.uint16)


def read(path: Path, shape: tuple[int, ...] = (2, 3), **more: Any) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = open_mask(path, shape, **more).array.compute()
    return found


# --- _seg.npy


def seg(**more: Any) -> dict[str, Any]:
    """What Cellpose writes, in all kinds of values that it uses."""
    return {
        "outlines": MASKS > 1, "colors": np.zeros((2, 3), np.uint8), "masks": MASKS,
        "chan_choose": [0, 0], "filename": "a.tif", "flows": [np.zeros((2, 3)), [], None],
        "ismanual": np.zeros(2, bool), "diameter": np.float64(12.5), "model_path": Path("cpsam"),
        "zdraw": [None], "normalize_params": {"percentile": (1.0, 99.0), "sharpen": 0}, **more,
    }  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
def test_masks_of_cellpose_in_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a_seg.npy"
    whole = np.array(seg(), dtype=object)
    np.save(path, whole)
    head = path.read_bytes()[: len(path.read_bytes()) - len(_pickled(path))]
    path.write_bytes(head + pickle.dumps(whole, protocol=protocol))
    assert np.array_equal(read(path), MASKS)
    assert open_label(path).axes == "YX"


def _pickled(path: Path) -> bytes:
    with path.open("rb") as handle:
        np.lib.format.read_magic(handle)
        np.lib.format.read_array_header_1_0(handle)
        return handle.read()


def test_old_names_of_numpy_modules(tmp_path: Path) -> None:
    path = tmp_path / "a_seg.npy"
    np.save(path, np.array(seg(), dtype=object))
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    # Binary names have a length before them, so that only text protocols can be edited this way.
    body = pickle.dumps(np.array(seg(), dtype=object), protocol=0)
    head = b"\x93NUMPY\x01\x00" + (70).to_bytes(2, "little")
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    path.write_bytes(head + text.ljust(69) + b"\n" + body.replace(b"numpy._core", b"numpy.core"))
    assert np.array_equal(read(path), MASKS)


class _Runs:
    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = (function, args)

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    "function", [os.system, eval, exec, __import__, getattr, np.load, np.memmap]
)
@pytest.mark.parametrize("where", ["inside", "instead"])
def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, function: Callable[..., Any], where: str
) -> None:
    path, ran = tmp_path / "a_seg.npy", tmp_path / "ran"
    evil = _Runs(function, f"touch {ran}" if function is os.system else f"open({str(ran)!r}, 'w')")
    np.save(path, np.array(seg(model=evil) if where == "inside" else evil, dtype=object))
    with pytest.raises(UserError, match=r"a_seg\.npy: is not read: it names .*could run code"):
        read(path)
    assert not ran.exists()


def test_attributes_of_what_stands_for_functions_cannot_be_set(tmp_path: Path) -> None:
    # BUILD with a pair of states calls setattr on the object before it.
    body = b"\x80\x04cnumpy\ndtype\nN}\x8c\x08__call__\x8c\x01xs\x86b."
    path = tmp_path / "a_seg.npy"
    np.save(path, np.array(seg(), dtype=object))
    path.write_bytes(path.read_bytes()[: -len(_pickled(path))] + body)
    with pytest.raises(UserError, match=r"is not read: .*attribute '__call__'"):
        read(path)
    np.save(path, np.array(seg(), dtype=object))
    assert np.array_equal(read(path), MASKS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (seg(masks=None), "no array 'masks'"),
        ([1, 2], "no array 'masks'"),
        (seg(masks=np.zeros((1, 2, 3, 4), np.uint8)), r"shape \(1, 2, 3, 4\)"),
        (seg(masks=np.array(["a"])), "whole numbers"),
    ],
)
def test_a_numpy_file_without_labels(tmp_path: Path, value: Any, message: str) -> None:
    np.save(tmp_path / "a_seg.npy", np.array(value, dtype=object))
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a_seg.npy")


@given(cut=st.integers(0, 400))
@settings(max_examples=30, deadline=None)
def test_a_file_cut_short_is_one_line(cut: int, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("cut") / "a_seg.npy"
    np.save(path, np.array(seg(), dtype=object))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"a_seg\.npy"):
        read(path)


def test_plain_arrays_and_volumes(tmp_path: Path) -> None:
    volume = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", volume)
    assert np.array_equal(read(tmp_path / "a.npy", (2, 3, 4)), volume)
    with pytest.raises(UserError, match=r"no reader for \.npy"):
        open_image(tmp_path / "a.npy")  # it is for labels alone


# --- any format


def test_every_format_of_labels_is_looked_for() -> None:
    assert {".tif", ".png", ".zarr"} | LABEL_READERS.keys() | OUTLINES <= MASK_SUFFIXES


def test_another_shape_names_both(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", MASKS)
    with pytest.raises(UserError, match=r"a\.tif: 2 x 3 pixels, but the image has 3 x 3"):
        open_mask(tmp_path / "a.tif", (3, 3))


def test_a_volume_without_declared_axes_has_those_of_its_image(tmp_path: Path) -> None:
    volume = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    assert np.array_equal(read(tmp_path / "a.tif", (2, 3, 4)), volume)
    with pytest.raises(UserError, match=r"a\.tif"):
        open_mask(tmp_path / "a.tif", (3, 2, 4))


# --- outlines

IDS = hnp.arrays(np.uint32, (9, 11), elements=st.integers(0, 3))


def _geojson(path: Path, polygons: list[Any], **properties: Any) -> Path:
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings},
         "properties": properties}
        for rings in polygons
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), "utf-8")
    return path


def _square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]


def test_polygons_by_hand(tmp_path: Path) -> None:
    # A ring of eight pixels around a hole, and a square of two by two that covers a corner of it.
    path = _geojson(
        tmp_path / "a.geojson", [[_square(0, 0, 3), _square(1, 1, 1)], [_square(2, 2, 2)]]
    )
    found = open_mask(path, (4, 5))
    assert found.array.compute().tolist() == [
        [1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 2, 0], [0, 0, 2, 2, 0],
    ]  # fmt: skip
    assert found.warnings() == [
        "1 of 2 outlines overlap others; pixels that two share belong to the first"
    ]


def test_a_pixel_belongs_to_the_outline_around_its_centre(tmp_path: Path) -> None:
    path = _geojson(tmp_path / "a.geojson", [[_square(0.4, 0.6, 1.2)], [_square(3.6, 0.6, 0.3)]])
    found = open_mask(path, (3, 5))
    assert found.array.compute().tolist() == [[0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert found.warnings() == ["1 of 2 outlines cover no pixel of the image"]


@given(ids=IDS)
@settings(max_examples=40, deadline=None)
def test_what_was_exported_is_read_back(ids: np.ndarray[Any, Any], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("roi")
    polygons = _pixel_rings(ids)
    with roi_writer(folder / "a.zip") as rois:
        for label, rings in polygons.items():
            rois.add(label, rings)
    if polygons:
        back = read(folder / "a.zip", ids.shape)
        assert np.array_equal(back, np.searchsorted([0, *sorted(polygons)], ids))


def _pixel_rings(ids: np.ndarray[Any, Any]) -> dict[int, list[list[np.ndarray[Any, Any]]]]:
    """A square for each pixel: exact, whatever traces outlines."""
    found: dict[int, list[list[np.ndarray[Any, Any]]]] = {}
    for y, x in np.argwhere(ids):
        ring = np.array([[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]])
        found.setdefault(int(ids[y, x]), []).append([ring])
    return dict(sorted(found.items()))


@given(box=st.tuples(*[st.integers(0, 12)] * 4))
def test_parts_are_parts_of_the_whole_drawing(box: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(0)
    shapes = [Outline((rng.uniform(0, 12, (7, 2)),)) for _ in range(4)]
    drawing = Drawing(shapes, [1, 2, 3, 4], (12, 12))
    whole, (a, b, c, d) = drawing[0:12, 0:12], box
    assert np.array_equal(drawing[a:b, c:d], whole[a:b, c:d])


def test_roi_kinds_by_hand(tmp_path: Path) -> None:
    from roifile import ROI_TYPE, ImagejRoi

    kinds = {"rect": ROI_TYPE.RECT, "oval": ROI_TYPE.OVAL, "line": ROI_TYPE.LINE}
    rois = [
        ImagejRoi(roitype=kind, name=name, left=4 * k, top=0, right=4 * k + 4, bottom=4)
        for k, (name, kind) in enumerate(kinds.items())
    ]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for roi in rois:
            archive.writestr(f"{roi.name}.roi", roi.tobytes())
    found = open_mask(tmp_path / "a.zip", (4, 12))
    drawn = found.array.compute()
    assert np.count_nonzero(drawn == 1) == 16
    # The centres of the four corner pixels lie outside the circle of radius 2 (2 * 1.5**2 > 4).
    assert np.count_nonzero(drawn == 2) == 12
    assert found.warnings() == ["1 of 3 entries are no outlines of objects and left out"]
    rois[0].tofile(tmp_path / "b.roi")
    assert np.count_nonzero(read(tmp_path / "b.roi", (4, 12))) == 16


def test_classes_of_outlines(tmp_path: Path) -> None:
    classes = {"background": 0, "cell": 255}
    path = _geojson(tmp_path / "a.geojson", [[_square(0, 0, 1)]], classification={"name": "cell"})
    assert read(path, (1, 2), classes=classes).tolist() == [[255, 0]]
    path = _geojson(tmp_path / "a.geojson", [[_square(0, 0, 1)]])
    with pytest.raises(UserError, match=r"an outline has no class; .* background, cell"):
        open_mask(path, (1, 2), classes=classes)


def test_annotations_around_detections_are_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    around = json.loads(_geojson(path, [[_square(0, 0, 9)]], objectType="annotation").read_text())
    inner = json.loads(_geojson(path, [[_square(1, 1, 2)]], objectType="cell").read_text())
    path.write_text(json.dumps(around["features"] + inner["features"]))
    assert [len(read_geojson(path)[0]), read_geojson(path)[1]] == [1, 1]
    path.write_text(json.dumps(around["features"]))
    assert [len(read_geojson(path)[0]), read_geojson(path)[1]] == [1, 0]


@pytest.mark.parametrize("suffix", [".geojson", ".zip", ".roi"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff{", b"[1, 2]", b'{"a": 1}'])
def test_files_without_outlines(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\{suffix}"):
        open_mask(path, (4, 4))


def test_no_objects_and_volumes(tmp_path: Path) -> None:
    path = _geojson(tmp_path / "a.geojson", [])
    assert not read(path, (2, 2)).any()
    with pytest.raises(
        UserError, match="outlines are flat, but the image is a volume of 2 x 2 x 2"
    ):
        open_mask(path, (2, 2, 2))
