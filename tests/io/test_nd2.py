"""ND2, laid out by hand as NIS-Elements does it, since no library writes it; read by nd2."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.format_files import check_bad_files, check_random_damage, manifest_of, pixels
from tests.microscope_files import write_nd2
from unet.errors import UserError
from unet.io.images import open_image, pages_in

RNG = np.random.default_rng(0)
# [T, P, Z, C, Y, X]
DATA = RNG.integers(0, 60_000, (3, 2, 4, 2, 50, 60), dtype=np.uint16)
STEP = (0.25, 2.0)


def test_channels_sections_and_metadata(tmp_path: Path) -> None:
    opened = open_image(write_nd2(tmp_path / "a.nd2", DATA[:1, :1], STEP))
    assert (opened.axes, opened.dtype) == ("CZYX", np.uint16)
    assert opened.channel_names == ("channel 0", "channel 1")
    assert opened.pixel_size_um == pytest.approx((2.0, 0.25, 0.25))
    wanted = np.moveaxis(DATA[0, 0], 1, 0)
    np.testing.assert_array_equal(pixels(opened), wanted)
    np.testing.assert_array_equal(
        opened.array[1, 2, 10:31:3, 5:50].compute(), wanted[1, 2, 10:31:3, 5:50]
    )
    again = pickle.loads(pickle.dumps(opened.array))
    np.testing.assert_array_equal(again[0, 1].compute(), wanted[0, 1])


def test_positions_and_times_are_pages(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    path = write_nd2(tmp_path / "i" / "a.nd2", DATA[:, :, :, :1], STEP)
    names = tuple(f"s{s}-t{t:03d}" for s in range(2) for t in range(3))
    assert (pages_in(path).names, pages_in(path).together) == (names, True)
    for page in range(6):
        opened = open_image(path, page=page)
        np.testing.assert_array_equal(pixels(opened)[0], DATA[page % 3, page // 3, :, 0])
    with pytest.raises(UserError, match=r"6 images \(s0-t000, .*write layout: stack"):
        open_image(path)
    records = manifest_of(tmp_path / "i", "stack")
    assert {key: record.group for key, record in records.items()} == {f"a-{n}": "a" for n in names}
    path = write_nd2(tmp_path / "b.nd2", DATA[:1, :, :1, :1], STEP)
    assert (pages_in(path).names, pages_in(path).together) == (("s0", "s1"), False)


def test_one_plane_without_a_size(tmp_path: Path) -> None:
    opened = open_image(write_nd2(tmp_path / "a.nd2", DATA[:1, :1, :1, :1], (0.0, 0.0)))
    assert (opened.axes, opened.pixel_size_um) == ("CYX", None)
    np.testing.assert_array_equal(pixels(opened)[0], DATA[0, 0, 0, 0])


def test_colours(tmp_path: Path) -> None:
    data = RNG.integers(0, 255, (1, 1, 1, 1, 50, 60, 3), dtype=np.uint8)
    opened = open_image(write_nd2(tmp_path / "a.nd2", data, STEP))
    assert (opened.axes, opened.channel_names) == ("CYX", ("red", "green", "blue"))
    np.testing.assert_array_equal(pixels(opened), np.moveaxis(data[0, 0, 0, 0], -1, 0))


def test_a_frame_that_is_missing(tmp_path: Path) -> None:
    path = write_nd2(tmp_path / "a.nd2", DATA[:1, :1], STEP, skip=2)
    with pytest.raises(UserError, match="frame 2 of 4 is missing; it is damaged"):
        open_image(path)


def test_a_false_number_of_frames(tmp_path: Path) -> None:
    path = write_nd2(tmp_path / "a.nd2", DATA[:, :1, :1, :1], STEP, times=4_000_000_000)
    with pytest.raises(UserError, match="the header claims 4000000000 frames, more than the file"):
        open_image(path)


def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write(path: Path, number: int = 0) -> None:
        write_nd2(path, np.roll(DATA[:1, :1, :1, :1], number, -1), STEP)

    check_bad_files(tmp_path / "f", ".nd2", write, capsys, keep=(0.02, 0.5, 0.9), survey=False)
    write(tmp_path / "a.nd2")
    check_random_damage(tmp_path / "a.nd2", lambda p: pixels(open_image(p)))


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nd2(tmp_path / "a.nd2", DATA, STEP)
    monkeypatch.setitem(sys.modules, "nd2", None)
    with pytest.raises(UserError, match=r"nd2.*pip install 'unet-pipeline\[formats\]'$"):
        open_image(path)
