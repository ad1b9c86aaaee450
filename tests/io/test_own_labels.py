"""Labels that the pipeline wrote into a user's OME-Zarr: what it changes, and what it must not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.data.test_places import attributes, image, plate
from unet.data.layouts import find_pairs, list_files
from unet.data.raw_changes import fingerprint, stamp
from unet.data.raw_files import RawSource
from unet.errors import UserError
from unet.export.written_label import write_label
from unet.files import file_sha256
from unet.io.images import open_label
from unet.io.own_labels import check_target, image_sha256, is_own
from unet.io.zarr_metadata import zarr_attributes


def labels(seed: int = 0) -> list[np.ndarray]:
    """Two levels [20, 30] and [10, 15]."""
    fine = np.random.default_rng(seed).integers(0, 5, (20, 30), dtype=np.uint32)
    return [fine, fine[::2, ::2]]


def write(
    group: Path, name: str = "cells", seed: int = 0, values: np.ndarray | None = None
) -> None:
    write_label(
        group, name, labels(seed), values, by="nearest", about={"stage": "stitch"}, threads=1
    )


def listed(group: Path) -> list[str]:
    return list(zarr_attributes(group / "labels")["labels"])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_label_beside_those_of_the_user(tmp_path: Path, version: str) -> None:
    group = plate(tmp_path / "p.zarr", version) / "A/1/0"
    attributes(group / "labels", {"labels": ["nuclei"]}, version)
    before = {p: p.read_bytes() for p in group.rglob("*") if p.is_file()}
    write(group)
    changed = {p for p, data in before.items() if p.read_bytes() != data}
    assert changed == {group / "labels" / ("zarr.json" if version == "0.5" else ".zattrs")}
    assert listed(group) == ["nuclei", "cells"]
    assert is_own(group / "labels/cells")
    kinds = {"0.4": ".zarray", "0.5": "zarr.json"}
    assert (group / "labels/cells/1" / kinds[version]).is_file()
    opened = open_label(group / "labels/cells")
    np.testing.assert_array_equal(np.asarray(opened.array), labels()[0])
    assert opened.pixel_size_um == (0.5, 0.5)
    scales = zarr_attributes(group / "labels/cells")["multiscales"][0]["datasets"]
    assert [one["coordinateTransformations"][0]["scale"] for one in scales] == [[0.5, 0.5], [1, 1]]
    # The user's label is still the one that is read.
    pairs = find_pairs(RawSource(tmp_path, "p.zarr", layout="plate"))
    assert pairs[0].label == group / "labels/nuclei"
    write(group, seed=1, values=np.array([0, 10, 20, 30, 40], np.uint8))
    again = np.asarray(open_label(group / "labels/cells").array)
    np.testing.assert_array_equal(again, 10 * labels(1)[0])
    assert listed(group) == ["nuclei", "cells"]
    assert not [p.name for p in (group / "labels").iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("given", [True, False])
def test_the_image_counts_as_unchanged(tmp_path: Path, version: str, given: bool) -> None:
    path = plate(tmp_path / "p.zarr", version)
    group = path / "A/1/0"
    if given:
        attributes(group / "labels", {"labels": ["nuclei"]}, version)
    else:
        shutil.rmtree(group / "labels")
    source = RawSource(tmp_path, "p.zarr", layout="plate")
    stamps = {p: stamp(p) for p in list_files(source)}
    sha, value = file_sha256(group), fingerprint(list_files(source), tmp_path, None)
    write(group)
    write(group, "other")
    assert {p: stamp(p) for p in list_files(source)} == stamps
    assert fingerprint(list_files(source), tmp_path, None) == value
    assert image_sha256(group) == sha != file_sha256(group)
    # After it was copied, its content says so.
    os.utime(group)
    assert image_sha256(group) == sha
    # What the user changes is seen.
    (group / "0/extra").write_bytes(b"x")
    assert stamp(group) != stamps[group]
    assert image_sha256(group) != sha


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    group = plate(tmp_path / "p.zarr") / "A/1/0"
    with pytest.raises(UserError, match=r"^k: .*labels/nuclei exists, and this pipeline did not"):
        check_target(group, "nuclei", "k")
    check_target(group, "cells", "k")
    (tmp_path / "a.tif").touch()
    with pytest.raises(UserError, match=r"^k: a\.tif is no OME-Zarr image.*bioformats2raw$"):
        check_target(tmp_path / "a.tif", "cells", "k")
    write(group)
    check_target(group, "cells", "k")
    with pytest.raises(UserError, match="is the label that is read"):
        check_target(group, "cells", "k", group / "labels/cells")
    shutil.rmtree(group / "0")
    image(group, np.zeros((21, 30), np.uint16))
    with pytest.raises(UserError, match="has no longer 20 x 30 pixels"):
        write(group, "more")
    assert not (group / "labels/more").exists()
    assert listed(group) == ["cells"]


def test_axes_units_and_translation_are_those_of_the_image(tmp_path: Path) -> None:
    group = tmp_path / "t.zarr"
    image(group, np.zeros((20, 30), np.uint16))
    names = [("t", "time"), ("c", "channel"), ("y", "space"), ("x", "space")]
    moves = [
        {"type": "scale", "scale": [1, 1, 2, 3]},
        {"type": "translation", "translation": [0, 0, 5, 7]},
    ]
    about = {"path": "0", "coordinateTransformations": moves}
    axes = [
        {"name": n, "type": k, **({"unit": "nanometer"} if k == "space" else {})} for n, k in names
    ]
    attributes(group, {"multiscales": [{"axes": axes, "datasets": [about]}]}, "0.4")
    array = json.loads((group / "0/.zarray").read_text())
    (group / "0/.zarray").write_text(json.dumps({**array, "shape": [1, 1, 20, 30]}))
    write(group)
    (made,) = zarr_attributes(group / "labels/cells")["multiscales"]
    assert made["axes"] == axes[2:]
    assert made["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [2, 3]}, {"type": "translation", "translation": [5, 7]},
    ]  # fmt: skip
    assert made["datasets"][1]["coordinateTransformations"][0]["scale"] == [4, 6]
