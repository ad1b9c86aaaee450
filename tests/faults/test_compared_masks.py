"""Odd masks of other tools: each is scored, or refused in one line that names the file and says
what to write instead. Nothing is half-written, and nothing in a file is executed."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.faults.stages import Ended, Lab
from tests.faults.tallies import Tally

pytestmark = pytest.mark.faults


class Evil:
    """Unpickling it leaves a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


class Address:
    """A type of objects that claims to hold plain numbers, and an address for one."""

    def __reduce__(self) -> tuple[Any, ...]:
        made = np.zeros(1).__reduce__()
        return made[0], made[1], (1, (1, 1), Lying(), False, bytes(range(65, 73)))


class Lying:
    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)


def tif(change: Callable[[np.ndarray], Any]) -> Callable[[Path, np.ndarray], None]:
    return lambda stem, labels: tifffile.imwrite(
        stem.with_suffix(".tif"), change(labels), photometric="minisblack"
    )


def png(share: float, colours: int = 0) -> Callable[[Path, np.ndarray], None]:
    def write(stem: Path, labels: np.ndarray) -> None:
        pixels = labels.astype(np.uint8)
        if colours:
            pixels = np.stack([pixels + k for k in range(colours)], axis=-1).astype(np.uint8)
        data = BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        whole = data.getvalue()
        stem.with_suffix(".png").write_bytes(whole[: int(share * len(whole))])

    return write


def geojson(found: Any) -> Callable[[Path, np.ndarray], None]:
    return lambda stem, _: stem.with_suffix(".geojson").write_text(json.dumps(found)) and None


def polygon(*corners: tuple[float, float], **more: Any) -> dict[str, Any]:
    shape = {"type": "Polygon", "coordinates": [corners]}
    feature = {"type": "Feature", "properties": {}, "geometry": shape, **more}
    return {"type": "FeatureCollection", "features": [feature]}


def seg(made: Callable[[np.ndarray], Any]) -> Callable[[Path, np.ndarray], None]:
    def write(stem: Path, labels: np.ndarray) -> None:
        np.save(f"{stem}_seg.npy", made(labels), allow_pickle=True)

    return write


def bare_pickle(stem: Path, _: np.ndarray) -> None:
    Path(f"{stem}_seg.npy").write_bytes(pickle.dumps(Evil()))


def two(stem: Path, labels: np.ndarray) -> None:
    for ending in ("_cp_masks", "_pred"):
        tifffile.imwrite(f"{stem}{ending}.tif", labels)


def archive(size: int) -> Callable[[Path, np.ndarray], None]:
    def write(stem: Path, _: np.ndarray) -> None:
        with zipfile.ZipFile(stem.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("a.roi", bytes(size))

    return write


POINT = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}
IDS = r"is not an instance id .*; write a whole number for each object, 0 for the background"
TRIANGLE = ((10, 10), (60, 10), (10, 60))
# What is written for each test image -> the error, as a regular expression.
REFUSED: dict[str, tuple[Callable[[Path, np.ndarray], None], str]] = {
    "no file": (lambda stem, _: None, "holds no mask .*; write a folder or a glob of masks"),
    "another shape": (tif(lambda a: a[1:]), r"\.tif: 159 x 160 pixels, but the image has 160 x"),
    "fractions": (tif(lambda a: a / 2), rf"\.tif: label value \d+\.5 {IDS}"),
    "NaN": (tif(lambda a: np.where(a > 0, a, np.nan)), rf"\.tif: label value nan {IDS}"),
    "negative": (tif(lambda a: a.astype(np.int32) - 1), rf"\.tif: label value -1 {IDS}"),
    "beyond uint32": (tif(lambda a: a.astype(np.uint64) << 40), rf"\.tif: label value .* {IDS}"),
    "complex": (tif(lambda a: a.astype(np.complex64)), "complex64; write whole numbers"),
    "colours": (png(1, colours=3), r"\.png: "),
    "a PNG cut short": (png(0.5), r"\.png: cannot be decoded"),
    "an empty file": (lambda stem, _: stem.with_suffix(".tif").touch(), r"\.tif: the file is emp"),
    "no GeoJSON": (geojson("x"), r"\.geojson: no features; write a GeoJSON FeatureCollection"),
    "two corners": (geojson(polygon((1, 2), (3, 4))), "fewer than three corners"),
    "texts": (geojson(polygon(("a", "b"), ("c", "d"), ("e", "f"))), "not pairs of numbers"),  # type: ignore[arg-type]
    "far away": (geojson(polygon((1e300, 1), (2, 1e300), (3, 3))), "are not in pixels"),
    "two masks": (two, "no mask can be used: .*several masks could be theirs.*; narrow the glob"),
    "code in _seg.npy": (
        seg(lambda a: {"masks": a, "flows": Evil()}),
        r"_seg\.npy: is not read: .* could run code; export the masks as TIFF or PNG instead",
    ),
    "a bare pickle": (bare_pickle, r"_seg\.npy: not a NumPy file"),
    "no array in _seg.npy": (seg(lambda a: {"masks": None}), r"_seg\.npy: has no array 'masks'"),
    "an archive that is a bomb": (archive(300_000_000), "unpacks to 300 MB.*; give label images"),
    "no outline": (
        geojson({"type": "FeatureCollection", "features": [POINT, POINT]}),
        r"\.geojson: 2 features, none of which is the outline of an object; write polygons",
    ),
    "a type that lies": (
        seg(lambda a: {"masks": Address()}),
        r"_seg\.npy: is not read: .* labels need whole numbers; export the masks",
    ),
    "no ROI": (archive(3), r"\.zip: no ImageJ ROIs"),
}
# -> the warning.
TAKEN: dict[str, tuple[Callable[[Path, np.ndarray], None], str]] = {
    "gaps between ids": (tif(lambda a: a.astype(np.uint32) * 1000), ""),
    "whole numbers as floats": (tif(lambda a: a.astype(np.float32)), ""),
    "foreground": (tif(lambda a: a > 0), "number the objects"),
    "no features": (geojson({"type": "FeatureCollection", "features": []}), "without objects"),
    "outside": (geojson(polygon((900, 900), (950, 900), (950, 950))), "cover no pixel"),
    "half outside": (geojson(polygon((-50, -50), (9, -50), (9, 9))), "exactly the same mask"),
    "properties that are none": (geojson(polygon(*TRIANGLE, properties=[1])), "the same mask"),
    "a _seg.npy": (seg(lambda a: {"masks": a, "flows": []}), ""),
}


def compare(
    lab: Lab, folder: Path, write: Callable[[Path, np.ndarray], None]
) -> tuple[Path, Ended]:
    """Writes a mask for each image and runs the stage on them; the output folder, and its end."""
    masks = folder / "masks"
    masks.mkdir()
    for path in sorted((lab.raw / "labels").glob("*.tif")):
        write(masks / path.stem, np.roll(tifffile.imread(path), 1, axis=0))
    output = lab.before("compare", folder / "results")
    return output, lab.run("compare", output, ["--masks", str(masks)])


def compared(output: Path) -> list[Path]:
    """What the stage has written, without its log."""
    found = [*(output / "d" / "compared").rglob("*"), output / "d" / "warnings.compare-t.json"]
    return [path for path in found if path.is_file()]


@pytest.mark.parametrize("name", REFUSED)
def test_masks_that_are_refused(lab: Lab, tmp_path: Path, tally: Tally, name: str) -> None:
    write, message = REFUSED[name]
    output, done = compare(lab, tmp_path, write)
    assert done.code == 2, done.said
    assert len(done.errors) == 1, done.said
    start = rf"error: datasets\.d\.compare\.t: .*({message})"
    assert re.match(start, done.errors[0]), done.errors[0]
    assert "Traceback" not in done.said
    assert "Warning" not in done.said
    assert compared(output) == []
    assert not list(lab.folder.rglob("executed"))
    tally(
        "another tool's masks cannot be used",
        "another shape, fractions, NaN, negative, complex, colours, cut short, no outlines, two "
        "masks of an image, code in a `_seg.npy`, an archive that is a bomb, a `_seg.npy` that "
        "lies about its types",
        "one line that names the file and says what to write; nothing is written or executed",
    )


@pytest.mark.parametrize("name", TAKEN)
def test_odd_masks_that_are_scored(lab: Lab, tmp_path: Path, tally: Tally, name: str) -> None:
    write, warning = TAKEN[name]
    output, done = compare(lab, tmp_path, write)
    assert done.code == 0, done.said
    found = json.loads((output / "d" / "warnings.compare-t.json").read_text())["warnings"]
    assert any(warning in line for line in found) if warning else found == []
    tally(
        "another tool's masks are odd",
        "ids with gaps, whole numbers as floats, foreground only, no outline or some outside of "
        "the image",
        "scored; a warning says what looks wrong",
    )
