"""Windows and cores: pure geometry, as properties over sizes, tiles, depths, two and three axes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.architectures import architectures
from unet.config.geometry import Footprint, Footprints, footprint
from unet.config.load import load
from unet.config.presets import Architecture
from unet.config.run import Config
from unet.data.tiling import mirror_index, padded_size, plan, read_window
from unet.errors import UserError
from unet.prediction.tiles.tile_store import Tiles, create_tiles

PADDINGS = st.sampled_from(["valid", "same"])


def footprint_of(padding: str, depth: int) -> Footprint:
    """Along one axis, with 3x3 convolutions and 2x2 poolings."""
    return footprint(Architecture(padding=padding, norm="none", depth=depth))[0]  # type: ignore[arg-type]


@st.composite
def places(
    draw: st.DrawFn, longest: int = 150, deepest: int = 4
) -> tuple[tuple[int, ...], Footprints, int | tuple[int, ...]]:
    """Shape of an image, a network of as many axes (each its own), and a tile for all axes or one
    for each."""
    shape = draw(shapes(longest))
    arch = draw(architectures(dims=(len(shape),)))
    if draw(st.booleans()):
        arch = Architecture(
            padding=arch.padding, norm="none", dims=arch.dims, depth=draw(st.integers(1, deepest))
        )
    each = draw(st.tuples(*[st.integers(1, 220)] * len(shape)))
    return shape, footprint(arch), draw(st.sampled_from([each, each[0]]))


@st.composite
def shapes(draw: st.DrawFn, longest: int = 150) -> tuple[int, ...]:
    axes = draw(st.sampled_from([2, 3]))
    # Three axes of these sizes would make the arrays of the tests large.
    high = longest if axes == 2 else min(longest, 40)
    return tuple(draw(st.lists(st.integers(1, high), min_size=axes, max_size=axes)))


Place = tuple[tuple[int, ...], Footprints, int | tuple[int, ...]]


@given(places())
def test_cores_cover_every_pixel_once(place: Place) -> None:
    shape, fps, tile = place
    layout = plan(shape, tile, fps)
    seen = np.zeros(shape, dtype=np.uint8)
    for item in layout.tiles:
        seen[item.core] += 1
    assert seen.min() == seen.max() == 1
    assert [t.index for t in layout.tiles] == list(range(len(layout.tiles)))
    largest = [
        max(t.core[a].stop - t.core[a].start for t in layout.tiles) for a in range(len(shape))
    ]
    assert list(layout.core) == largest


@given(st.integers(1, 4000), st.integers(1, 1500), PADDINGS, st.integers(1, 5))
def test_windows_lie_on_the_grid_with_their_context(
    size: int, tile: int, padding: str, depth: int
) -> None:
    fp = footprint_of(padding, depth)
    layout = plan((size,), tile, (fp,))
    before, after = padded_size(size, fp)
    assert layout.padded == (size + before + after,)
    assert fp.accepts(layout.padded[0])
    for (span,) in (t.spans for t in layout.tiles):
        assert fp.accepts(span.stop - span.start)
        assert span.stop - span.start == layout.window[0]
        assert (span.start + before) % fp.grid == 0
        # The kept part has the right place in the network's output.
        assert span.offset == span.core_start - span.start - fp.margin
        assert span.offset >= 0
        assert span.offset + span.core_stop - span.core_start <= layout.window[0] - 2 * fp.margin
        if fp.margin:
            continue  # an unpadded network has its context by construction
        assert 0 <= span.start < span.stop <= layout.padded[0]
        assert span.start == 0 or span.core_start - span.start >= fp.halo
        assert span.stop == layout.padded[0] or span.stop - span.core_stop >= fp.halo


@given(st.integers(1, 4000), st.integers(1, 1500), PADDINGS, st.integers(1, 5))
def test_windows_are_no_larger_than_asked_where_the_halo_allows(
    size: int, tile: int, padding: str, depth: int
) -> None:
    fp = footprint_of(padding, depth)
    least = fp.fit(fp.grid + 2 * fp.margin) if fp.margin else 2 * fp.halo + fp.grid
    whole = fp.fit(size + 2 * fp.margin)
    assert plan((size,), tile, (fp,)).window[0] <= max(min(tile, whole), least)


@given(PADDINGS, st.integers(1, 6))
def test_the_smallest_tile_of_the_config_is_kept_to(padding: str, depth: int) -> None:
    """What the config accepts as predict.tile is never exceeded."""
    preset = {"valid": "unet2015", "same": "unet-bn"}[padding]
    fp = footprint_of(padding, depth)
    raw = {
        "datasets": {"d": {"synthetic": {"kind": "nuclei"}, "task": "instances"}},
        "models": {"m": {"preset": preset, "depth": depth}},
        "train": {"patch": fp.fit(64)},
    }

    def config(tile: int) -> Config:
        return load({**raw, "predict": {"tile": tile}})

    accepted = []
    for tile in range(32, 2000, 2):
        try:
            config(tile)
        except UserError:
            continue
        accepted.append(tile)
        break
    smallest = accepted[0]
    assert plan((5000,), smallest, (fp,)).window[0] <= smallest
    if smallest > 32:
        with pytest.raises(UserError, match="at least"):
            config(smallest - fp.grid)


@given(places(deepest=3), st.data())
@settings(max_examples=40)
def test_tile_then_stitch_is_the_identity(place: Place, data: st.DataObject) -> None:
    shape, fps, tile = place
    layout = plan(shape, tile, fps)
    rng = np.random.default_rng(len(layout.tiles))
    truth = rng.random((2, *shape), dtype=np.float32)
    if len(layout.tiles) > 20:
        return  # nothing new, only many files
    with TemporaryDirectory() as folder:
        target = create_tiles(Path(folder) / "image", layout, 2, "float32", {"head": ["a", "b"]})
        for item in layout.tiles:
            window = read_window(truth, item.window)
            # A network that changes nothing, but loses its margin.
            inside = [
                slice(fp.margin, n - fp.margin) for n, fp in zip(window.shape[1:], fps, strict=True)
            ]
            out = window[(slice(None), *inside)]
            core = out[(slice(None), *item.inner)]
            corner = tuple(slice(0, n) for n in core.shape[1:])
            target[(item.index, slice(None), *corner)] = core
        tiles = Tiles(Path(folder))
        assert tiles.ids() == ["image"]
        assert tiles.attrs("image")["shape"] == list(shape)
        assert tiles.cores("image") == [t.core for t in layout.tiles]
        whole = tiles.read("image", tuple(slice(0, n) for n in shape))
        np.testing.assert_array_equal(whole, truth)
        region = []
        for n in shape:
            a = data.draw(st.integers(0, n - 1))
            region.append(slice(a, data.draw(st.integers(a + 1, n))))
        part = tiles.read("image", tuple(region))
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, truth[(slice(None), *region)])


def test_missing_tiles(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the predict stage"):
        Tiles(tmp_path / "none")
    with pytest.raises(UserError, match="has no image 'x'"):
        Tiles(tmp_path).read("x", (slice(0, 1), slice(0, 1)))


@given(st.integers(1, 30), st.integers(0, 200), st.integers(0, 200))
def test_mirrored_as_numpy_does(size: int, before: int, after: int) -> None:
    """numpy reflects again and again where the border is wider than the image."""
    expected = np.pad(np.arange(size), (before, after), mode="reflect")
    np.testing.assert_array_equal(mirror_index(-before, size + after, size), expected)


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=3),
    st.integers(0, 2),
    st.data(),
)
def test_windows_read_as_padded_by_numpy(shape: list[int], lead: int, data: st.DataObject) -> None:
    array = np.random.default_rng(0).random((2,) * lead + tuple(shape), dtype=np.float32)
    window, expected = [], array
    for axis, n in enumerate(shape, start=lead):
        start = data.draw(st.integers(-20, n + 10))
        stop = start + data.draw(st.integers(1, 25))
        window.append((start, stop))
        around = [(0, 0)] * array.ndim
        around[axis] = (max(0, -start), max(0, stop - n))
        expected = np.pad(expected, around, mode="reflect")
        begin = max(0, start)
        expected = np.take(expected, range(begin, begin + stop - start), axis=axis)
    np.testing.assert_array_equal(read_window(array, window), expected)


def test_only_the_part_that_the_window_touches_is_read() -> None:
    class Recorder:
        shape = (1, 100, 100)
        asked: tuple[slice, ...] = ()

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            self.asked = key
            return np.zeros(self.shape)[key]

    source = Recorder()
    assert read_window(source, [(-5, 20), (90, 104)]).shape == (1, 25, 14)
    # Mirrored pixels come from pixels that are read anyway.
    assert source.asked == (slice(None), slice(0, 20), slice(90, 100))


def test_windows_of_a_store(tmp_path: Path) -> None:
    data = np.arange(2 * 13 * 9, dtype=np.float32).reshape(2, 13, 9)
    array = zarr.create_array(tmp_path / "a", shape=data.shape, chunks=(2, 4, 4), dtype="float32")
    array[...] = data
    window = [(-3, 16), (5, 8)]
    np.testing.assert_array_equal(read_window(array, window), read_window(data, window))


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="no pixels"):
        plan((0, 5), 64, (footprint_of("same", 1),) * 2)


def test_numbers_of_axes_must_agree() -> None:
    fp = footprint_of("same", 1)
    with pytest.raises(ValueError, match="for a network of 3 spatial axes"):
        plan((5, 5), 64, (fp,) * 3)
    with pytest.raises(ValueError, match="needs one number or 2"):
        plan((5, 5), (64, 64, 64), (fp,) * 2)


def test_by_hand() -> None:
    """Depth 1: grid 2, halo 8. Two windows of 32 reach 48 pixels, so an image of 50 takes three, as
    small as three can be: 28, since 3 * 28 - 2 * 16 = 52."""
    spans = [t.spans[0] for t in plan((50,), 32, (footprint_of("same", 1),)).tiles]
    found = [(s.start, s.stop, s.core_start, s.core_stop) for s in spans]
    assert found == [(0, 28, 0, 20), (12, 40, 20, 30), (22, 50, 30, 50)]
