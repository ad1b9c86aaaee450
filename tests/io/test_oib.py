"""OIB: nothing writes one, so these tests read the OIF with the same files inside, by oiffile."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.format_files import pixels
from tests.microscope_files import write_oif
from unet.errors import UserError
from unet.io.axes import arrange, pages_of
from unet.io.images import open_image
from unet.io.oib_reader import check_chains, read_oib

# [C, Z, T, Y, X]
DATA = np.random.default_rng(0).integers(0, 4000, (2, 4, 3, 50, 60), dtype=np.uint16)
STEPS = {"X": 0.25, "Y": 0.5, "Z": 2.0}


def test_channels_and_sections(tmp_path: Path) -> None:
    raw = read_oib(write_oif(tmp_path / "a.oif", DATA[:, :, :1], STEPS), None)
    assert (raw.axes, raw.names) == ("CZYX", ("dye 1", "CH2"))
    assert raw.pixel_size == pytest.approx({"Z": 2.0, "Y": 0.5, "X": 0.25})
    np.testing.assert_array_equal(raw.array.compute(scheduler="synchronous"), DATA[:, :, 0])


def test_times_are_pages(tmp_path: Path) -> None:
    path = write_oif(tmp_path / "a.oif", DATA[:1], STEPS)
    pages = pages_of(path, read_oib(path, 0), None)
    assert (pages.names, pages.together) == (("t000", "t001", "t002"), True)
    array, axes, _ = arrange(path, read_oib(path, 1), None, 1, label=False)
    assert axes == "CZYX"
    np.testing.assert_array_equal(array.compute(scheduler="synchronous")[0], DATA[0, :, 1])
    with pytest.raises(UserError, match=r"3 images \(t000, t001, t002\); write layout: stack"):
        arrange(path, read_oib(path, None), None, None, label=False)


def test_a_plane_that_is_missing(tmp_path: Path) -> None:
    path = write_oif(tmp_path / "a.oif", DATA[:, :, :1], STEPS)
    next((tmp_path / "a.oif.files").glob("*Z004.tif")).unlink()
    with pytest.raises((UserError, ValueError)) as error:
        read_oib(path, None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"x" * 5000, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)])
def test_no_oib(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.oib").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.oib: cannot be read \(") as error:
        pixels(open_image(tmp_path / "a.oib"))
    assert "\n" not in str(error.value)


def compound(table: list[int], mini: list[int] = []) -> bytes:  # noqa: B006
    """A compound document of a header, a table of sectors, and one of small sectors."""
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    head += struct.pack("<5H6x9I", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, 3, 0, 4096, 1, 1, 0xFFFFFFFE, 0)
    head += struct.pack("<109I", 0, *[0xFFFFFFFF] * 108)
    parts = [np.array([*part, *[0xFFFFFFFF] * (128 - len(part))], "<u4") for part in (table, mini)]
    return head + b"".join(part.tobytes() for part in parts) + bytes(1024)


@pytest.mark.parametrize(
    ("table", "mini"),
    [([0xFFFFFFFD, 0xFFFFFFFE, 3, 2], []), ([0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFE], [1, 2, 0])],
)
def test_sectors_in_a_circle(tmp_path: Path, table: list[int], mini: list[int]) -> None:
    path = tmp_path / "a.oib"
    path.write_bytes(compound(table, mini))
    with pytest.raises(UserError, match=r"a\.oib: its sectors follow each other in a circle"):
        open_image(path)
    path.write_bytes(compound([0xFFFFFFFD, 0xFFFFFFFE, 3, 0xFFFFFFFE], [1, 2, 0xFFFFFFFE]))
    check_chains(path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.oib").write_bytes(compound([0xFFFFFFFD, 0xFFFFFFFE]))
    monkeypatch.setitem(sys.modules, "oiffile", None)
    with pytest.raises(UserError, match=r"oiffile.*pip install 'unet-pipeline\[formats\]'$"):
        open_image(tmp_path / "a.oib")
