"""CZI, written by Zeiss's own library."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from pylibCZIrw import czi

from tests.format_files import check_bad_files, check_random_damage, manifest_of, pixels
from unet.errors import UserError
from unet.io.images import open_image, pages_in

RNG = np.random.default_rng(0)
# [T, C, Z, Y, X]
DATA = RNG.integers(0, 60_000, (3, 2, 4, 50, 60), dtype=np.uint16)
# Metres.
SCALE = {"scale_x": 0.25e-6, "scale_y": 0.5e-6, "scale_z": 2e-6}


def write(path: Path, data: np.ndarray, scenes: int = 1, **options: object) -> Path:
    """Each scene has other values, beside the one before."""
    with czi.create_czi(str(path), exist_ok=True, **options) as file:
        for s in range(scenes):
            for t, c, z in np.ndindex(*data.shape[:3]):
                plane = {"T": t, "C": c, "Z": z}
                pixels = data[t, c, z] + np.array(s, data.dtype)
                pixels = pixels if pixels.ndim == 3 else pixels[..., None]
                file.write(pixels, plane=plane, scene=s, location=(100 * s, 7))
        file.write_metadata(channel_names={0: "DAPI", 1: "GFP"}, **SCALE)
    return path


def write_plane(path: Path, number: int) -> None:
    write(path, np.roll(DATA[:1, :1, :1], number, -1))


@pytest.mark.parametrize("compression", [None, "zstd1:ExplicitLevel=2"])
def test_channels_sections_and_metadata(tmp_path: Path, compression: str | None) -> None:
    path = write(tmp_path / "a.czi", DATA[:1], compression_options=compression)
    opened = open_image(path)
    assert (opened.axes, opened.dtype, opened.channel_names) == ("CZYX", np.uint16, ("DAPI", "GFP"))
    assert opened.pixel_size_um == pytest.approx((2.0, 0.5, 0.25))
    np.testing.assert_array_equal(pixels(opened), DATA[0])
    region = opened.array[1, 2, 10:31:3, 5:50]
    np.testing.assert_array_equal(
        region.compute(scheduler="synchronous"), DATA[0, 1, 2, 10:31:3, 5:50]
    )
    again = pickle.loads(pickle.dumps(opened.array))
    np.testing.assert_array_equal(again[0, 1].compute(), DATA[0, 0, 1])


def test_times_and_scenes_are_pages(tmp_path: Path) -> None:
    (tmp_path / "i").mkdir()
    path = write(tmp_path / "i" / "a.czi", DATA[:, :1], scenes=2)
    names = ("s0-t000", "s0-t001", "s0-t002", "s1-t000", "s1-t001", "s1-t002")
    found = pages_in(path)
    assert (found.names, found.together) == (names, True)
    for page, _ in enumerate(names):
        opened = open_image(path, page=page)
        np.testing.assert_array_equal(pixels(opened)[0], DATA[page % 3, 0] + page // 3)
    with pytest.raises(UserError, match=r"6 images \(s0-t000, s0-t001, .*write layout: stack"):
        open_image(path)
    with pytest.raises(UserError, match="page 6 requested, but the file has 6"):
        open_image(path, page=6)
    records = manifest_of(tmp_path / "i", "stack")
    assert {key: record.group for key, record in records.items()} == {f"a-{n}": "a" for n in names}
    assert all(record.status == "ok" for record in records.values())


def test_sections_of_one_scene_are_pages(tmp_path: Path) -> None:
    path = write(tmp_path / "a.czi", DATA[:1])
    assert (len(pages_in(path).names), pages_in(path).together) == (4, False)
    np.testing.assert_array_equal(pixels(open_image(path, page=2)), DATA[0, :, 2])


def test_scenes_alone_are_no_group(tmp_path: Path) -> None:
    path = write(tmp_path / "a.czi", DATA[:1, :1, :1], scenes=2)
    assert (pages_in(path).names, pages_in(path).together) == (("s0", "s1"), False)


def test_a_mosaic_is_composed(tmp_path: Path) -> None:
    path, plane = tmp_path / "a.czi", DATA[0, 0, 0]
    with czi.create_czi(str(path)) as file:
        for y in (0, 25):
            for x in (0, 30):
                tile = np.ascontiguousarray(plane[y : y + 25, x : x + 30, None])
                file.write(tile, location=(x - 300, y + 40))
    np.testing.assert_array_equal(pixels(open_image(path))[0], plane)
    assert open_image(path).pixel_size_um is None


def test_colours(tmp_path: Path) -> None:
    colours = RNG.integers(0, 255, (1, 1, 1, 50, 60, 3), dtype=np.uint8)
    opened = open_image(write(tmp_path / "a.czi", colours))
    assert (opened.axes, opened.channel_names) == ("CYX", ("red", "green", "blue"))
    # They are stored as blue, green, red.
    np.testing.assert_array_equal(pixels(opened), np.moveaxis(colours[0, 0, 0, ..., ::-1], -1, 0))


def test_channels_of_several_types(tmp_path: Path) -> None:
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        file.write(DATA[0, 0, 0, ..., None], plane={"C": 0})
        file.write(DATA[0, 1, 0, ..., None].astype(np.uint8), plane={"C": 1})
    opened = open_image(path)
    assert opened.dtype == np.uint16
    np.testing.assert_array_equal(pixels(opened)[1], DATA[0, 1, 0].astype(np.uint8))
    with czi.create_czi(str(path), exist_ok=True) as file:
        file.write(DATA[0, 0, 0, ..., None], plane={"C": 0})
        file.write(np.zeros((50, 60, 3), np.uint8), plane={"C": 1})
    with pytest.raises(UserError, match=r"channels of grey values and of colours \(Gray16, Bgr24"):
        open_image(path)


def test_other_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The library reads these axes but writes none.
    write_plane(tmp_path / "a.czi", 0)
    box = {"T": (0, 1), "Z": (0, 1), "C": (0, 1), "H": (0, 3)}
    monkeypatch.setattr(czi.CziReader, "total_bounding_box", property(lambda _: box))
    with pytest.raises(UserError, match="3 phases; save each as a file of its own"):
        open_image(tmp_path / "a.czi")


def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_bad_files(tmp_path / "f", ".czi", write_plane, capsys, keep=(0.02, 0.5, 0.9))
    write_plane(tmp_path / "a.czi", 0)
    check_random_damage(tmp_path / "a.czi", lambda p: pixels(open_image(p)))


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plane(tmp_path / "a.czi", 0)
    monkeypatch.setitem(sys.modules, "pylibCZIrw.czi", None)
    with pytest.raises(UserError, match=r"pylibCZIrw.*pip install 'unet-pipeline\[formats\]'$"):
        open_image(tmp_path / "a.czi")
