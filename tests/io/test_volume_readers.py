"""NRRD and NIfTI, written by pynrrd and nibabel."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest

from tests.format_files import check_bad_files, check_random_damage, manifest_of, pixels
from unet.data.layouts import find_pairs
from unet.data.raw_files import RawSource
from unet.errors import UserError
from unet.io.formats import stem
from unet.io.images import open_image, open_label

# [Z, Y, X]
VOLUME = np.random.default_rng(0).integers(1, 200, (6, 30, 40), dtype=np.int16)


def write_nrrd(path: Path, number: int = 0) -> Path:
    header = {
        "kinds": ["domain"] * 3,
        "space directions": np.diag([0.25, 0.5, 2.0]),
        "space dimension": 3,
        "space units": ["um", "um", "um"],
    }
    nrrd.write(str(path), np.roll(VOLUME, number, 1), header, index_order="C")
    return path


def write_nifti(path: Path, number: int = 0, unit: str = "micron") -> Path:
    image = nibabel.Nifti1Image(np.roll(VOLUME, number, 1).T, np.diag([0.25, 0.5, 2.0, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


WRITERS = {".nrrd": write_nrrd, ".nii": write_nifti, ".nii.gz": write_nifti}


@pytest.mark.parametrize("suffix", WRITERS)
def test_volumes(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"a.b{suffix}")
    opened = open_image(path)
    assert (opened.axes, opened.pixel_size_um) == ("CZYX", (2.0, 0.5, 0.25))
    np.testing.assert_array_equal(pixels(opened)[0], VOLUME)
    np.testing.assert_array_equal(pixels(open_label(path)), VOLUME)
    assert stem(path) == "a.b"


def test_other_axes(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    nrrd.write(str(path), VOLUME, index_order="C")
    with pytest.raises(UserError, match="without declared axes"):
        open_image(path)
    np.testing.assert_array_equal(pixels(open_image(path, axes="ZYX"))[0], VOLUME)
    nrrd.write(str(path), VOLUME[0], index_order="C")
    np.testing.assert_array_equal(pixels(open_image(path))[0], VOLUME[0])
    nrrd.write(str(path), VOLUME, {"kinds": ["domain", "domain", "list"]}, index_order="C")
    np.testing.assert_array_equal(pixels(open_image(path)), VOLUME)
    nrrd.write(str(tmp_path / "b.nhdr"), VOLUME, detached_header=True)
    (tmp_path / "b.nrrd").write_bytes((tmp_path / "b.nhdr").read_bytes())
    with pytest.raises(UserError, match="in another file"):
        open_image(tmp_path / "b.nrrd")
    assert open_image(write_nifti(tmp_path / "c.nii", unit="unknown")).pixel_size_um is None


def test_times_are_pages_of_one_group(tmp_path: Path) -> None:
    folder = tmp_path / "i"
    folder.mkdir()
    data = np.stack([VOLUME.T, VOLUME.T + 1], -1)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), folder / "a.nii.gz")
    records = manifest_of(folder, "stack")
    assert {key: record.group for key, record in records.items()} == {"a-p000": "a", "a-p001": "a"}


def test_scaled_values(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOLUME.T, np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / "a.nii")
    found = pixels(open_image(tmp_path / "a.nii"))
    np.testing.assert_array_equal(found[0], VOLUME * 0.5 + 3)
    assert found.dtype == np.float32


@pytest.mark.parametrize("suffix", WRITERS)
def test_bad_files(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_bad_files(tmp_path / "f", suffix, WRITERS[suffix], capsys, keep=(0.02, 0.5, 0.9))
    path = WRITERS[suffix](tmp_path / f"a{suffix}")
    check_random_damage(path, lambda p: pixels(open_image(p)))


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nrrd(tmp_path / "a.nrrd")
    monkeypatch.setitem(sys.modules, "nrrd", None)
    with pytest.raises(UserError, match=r"pynrrd.*pip install 'unet-pipeline\[formats\]'"):
        open_image(path)


def test_nnunet_with_packed_volumes(tmp_path: Path) -> None:
    """Their suffix has two parts."""
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    for channel in range(2):
        write_nifti(tmp_path / "imagesTr" / f"a_000{channel}.nii.gz", channel)
    write_nifti(tmp_path / "labelsTr" / "a.nii.gz")
    (pair,) = find_pairs(RawSource(tmp_path, ".", layout="nnunet"))
    assert (pair.id, pair.label) == ("a", tmp_path / "labelsTr" / "a.nii.gz")
    assert open_image(pair.image).shape == (2, *VOLUME.shape)
