"""LIF, laid out by hand as Leica does it, since no library writes it; read by liffile."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.format_files import check_bad_files, check_random_damage, manifest_of, pixels
from tests.microscope_files import write_lif
from unet.errors import UserError
from unet.io.images import open_image, pages_in

RNG = np.random.default_rng(0)
# [T, C, Z, Y, X]
DATA = RNG.integers(0, 60_000, (3, 2, 4, 50, 60), dtype=np.uint16)
STEPS = {"X": 0.25e-6, "Y": 0.5e-6, "Z": -2e-6}


def test_channels_sections_and_metadata(tmp_path: Path) -> None:
    opened = open_image(write_lif(tmp_path / "a.lif", [DATA[:1]], STEPS))
    assert (opened.axes, opened.dtype, opened.channel_names) == (
        "CZYX",
        np.uint16,
        ("Green", "Red"),
    )
    assert opened.pixel_size_um == pytest.approx((2.0, 0.5, 0.25))
    np.testing.assert_array_equal(pixels(opened), DATA[0])
    np.testing.assert_array_equal(
        opened.array[1, 2, 10:31:3, 5:50].compute(), DATA[0, 1, 2, 10:31:3, 5:50]
    )
    again = pickle.loads(pickle.dumps(opened.array))
    np.testing.assert_array_equal(again[0, 1].compute(), DATA[0, 0, 1])


def test_images_and_times_are_pages(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    images = [DATA[:, :1], DATA[:1, :1, :2, :40, :30]]
    path = write_lif(tmp_path / "i" / "a.lif", images, STEPS)
    names = ("s0-t000", "s0-t001", "s0-t002", "s1")
    assert (pages_in(path).names, pages_in(path).together) == (names, True)
    np.testing.assert_array_equal(pixels(open_image(path, page=2))[0], DATA[2, 0])
    np.testing.assert_array_equal(pixels(open_image(path, page=3))[0], images[1][0, 0])
    with pytest.raises(UserError, match=r"4 images \(s0-t000, .*write layout: stack"):
        open_image(path)
    records = manifest_of(tmp_path / "i", "stack")
    assert {key: record.group for key, record in records.items()} == {f"a-{n}": "a" for n in names}


def test_images_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    path = write_lif(tmp_path / "a.lif", [DATA[:1, :1, :1], DATA[:1, :1, :1, :1]], STEPS)
    assert pages_in(path).names == ("s0",)
    opened = open_image(path)
    assert opened.warnings == (
        "1 image of 2 in this file cannot be read, such as Series001 (its axes are X, so no plane "
        "of Y and X)",
    )
    path = write_lif(path, [DATA[:1, :1, :1, :1]], STEPS)
    with pytest.raises(UserError, match=r"no image that can be read \(its axes are X, so no plane"):
        open_image(path)


def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write(path: Path, number: int = 0) -> None:
        write_lif(path, [np.roll(DATA[:1, :1, :1], number, -1)], STEPS)

    check_bad_files(tmp_path / "f", ".lif", write, capsys, keep=(0.02, 0.5, 0.9), survey=False)
    write(tmp_path / "a.lif")
    check_random_damage(tmp_path / "a.lif", lambda p: pixels(open_image(p)))


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lif(tmp_path / "a.lif", [DATA], STEPS)
    monkeypatch.setitem(sys.modules, "liffile", None)
    with pytest.raises(UserError, match=r"liffile.*pip install 'unet-pipeline\[formats\]'$"):
        open_image(path)
