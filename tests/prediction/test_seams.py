"""The seam score: by hand and against its definition, for any regions; about 1 for exact cores of a
real network, far above 1 for tiles without a halo; from the store to the metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests.architectures import settle
from unet.config.presets import architecture_of
from unet.config.sections import StitchSection
from unet.config.stage_settings import StitchSettings
from unet.data.blending import blended_plan
from unet.data.blocks import Grid, within
from unet.data.tiling import WindowPlan, read_window
from unet.models.build import build
from unet.models.inference import Predictor
from unet.prediction.stitch.seams import LEAST_JUMP, Seam, SeamScore
from unet.prediction.stitch.segmentation import Segmentation
from unet.prediction.stitch.stitch import Outputs, stitch_dataset
from unet.prediction.tiles.tile_store import Tiles, create_tiles

Slices = tuple[slice, ...]


def cores_of(shape: tuple[int, ...], tile: tuple[int, ...]) -> list[Slices]:
    grid = Grid(shape, tile)
    return [grid.region(index) for index in grid]


def score_of(
    p: np.ndarray, cores: list[Slices], grid: tuple[int, ...], block: tuple[int, ...] | None = None
) -> Seam | None:
    seams = SeamScore(p.shape[1:], cores, grid)
    regions = cores_of(p.shape[1:], block or p.shape[1:])
    for region in regions:
        around = seams.around(region)
        # At most one more pixel is read.
        assert within(region, around) == tuple(
            slice(r.start - a.start, r.stop - a.start) for r, a in zip(region, around, strict=True)
        )
        assert all(0 <= r.start - a.start <= 1 for r, a in zip(region, around, strict=True))
        seams.add(seams.jumps(region, p[(slice(None), *around)]))
    return seams.result(len(p))


def by_definition(p: np.ndarray, cores: list[Slices], grid: tuple[int, ...]) -> Seam | None:
    """The definition, line by line over the whole image."""
    here = expected = pixels = 0.0
    count = 0
    for axis, (size, period) in enumerate(zip(p.shape[1:], grid, strict=True)):
        jump = np.abs(np.diff(p.astype(np.float64), axis=axis + 1))
        line = jump.sum(axis=tuple(a for a in range(p.ndim) if a != axis + 1))
        ends = {e for core in cores for e in (core[axis].start, core[axis].stop)} - {0, size}
        for x in sorted(ends):
            others = [y for y in range(1, size) if y not in ends and (y - x) % period == 0]
            before, after = [y for y in others if y < x][-4:], [y for y in others if y > x][:4]
            if others:
                here += line[x - 1]
                expected += float(np.mean([line[y - 1] for y in before + after]))
                pixels += jump.size / (size - 1)
                count += 1
    if not count:
        return None
    return {
        "score": (here / pixels + LEAST_JUMP) / (expected / pixels + LEAST_JUMP),
        "borders": count,
    }


def test_by_hand() -> None:
    # One row of 13 pixels, tiles of 4, a grid of 2: borders 4, 8, 12, beside them lines 2, 6, 10.
    jumps = np.array([9, 1, 9, 6, 9, 2, 9, 3, 9, 3, 9, 0.0])
    p = np.concatenate([[0], np.cumsum(jumps)])[None, None]
    found = score_of(p, cores_of((1, 13), (1, 4)), (1, 2))
    assert found == {"score": pytest.approx((3 + LEAST_JUMP) / (2 + LEAST_JUMP)), "borders": 3}
    # Without a grid the four nearest on each side that are no border.
    found = score_of(p, cores_of((1, 13), (1, 4)), (1, 1))
    assert found is not None
    beside = [(9, 1, 9, 9, 2, 9, 9), (9, 9, 2, 9, 9, 3, 9), (9, 9, 3, 9)]
    expected = sum(sum(j) / len(j) for j in beside)
    assert found["score"] == pytest.approx(9 / expected, rel=1e-5)


def test_nothing_to_compare() -> None:
    p = np.random.default_rng(0).random((2, 12, 9))
    assert score_of(p, cores_of((12, 9), (12, 9)), (4, 4)) is None
    # Every line of the grid is a border.
    assert score_of(p, cores_of((12, 9), (4, 4)), (4, 4)) is None
    assert score_of(p[:, :1, :1], cores_of((1, 1), (4, 4)), (4, 4)) is None
    flat = np.full((2, 12, 9), 0.5)
    assert score_of(flat, cores_of((12, 9), (4, 4)), (2, 2)) == {"score": 1.0, "borders": 4}


@given(
    st.lists(st.integers(1, 14), min_size=2, max_size=3),
    st.integers(1, 3),
    st.booleans(),
    st.data(),
)
@settings(max_examples=60)
def test_any_regions_give_the_definition(
    shape_: list[int], channels: int, overlapping: bool, data: st.DataObject
) -> None:
    shape = tuple(shape_)

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in shape)

    p = np.random.default_rng(channels).random((channels, *shape))
    tile, grid, block = sizes(1, 8), sizes(1, 4), sizes(1, 9)
    cores = cores_of(shape, tile)
    if overlapping:
        cores += [tuple(slice(s.start // 2, s.stop) for s in core) for core in cores]
    expected = by_definition(p, cores, grid)
    for found in (score_of(p, cores, grid), score_of(p, cores, grid, block)):
        if expected is None:
            assert found is None
        else:
            assert found == {
                "score": pytest.approx(expected["score"], rel=1e-9), "borders": expected["borders"]
            }  # fmt: skip


def network(dims: int, padding: str) -> Predictor:
    """Random weights, with scores of about 1 like a trained network."""
    layers: dict[str, Any] = {"width": 8 if dims == 2 else 4, "depth": 1, "up": "nearest"}
    arch = architecture_of("unet-bn", dims=dims, padding=padding, **layers)
    net = build(1, 2, arch, 0).eval()
    settle(net)
    last: Any = net.heads[0]
    side = net.footprint[0].fit(24)
    with torch.no_grad():
        probe = net(torch.randn(1, 1, *(side,) * dims, generator=torch.Generator().manual_seed(0)))
        last.weight /= probe.std(dim=(0, *range(2, probe.ndim))).mean()
    return Predictor([net], torch.device("cpu"), "float32")


def without_halo(layout: WindowPlan) -> list[tuple[tuple[int, int], ...]]:
    """Predicts each core on its own, mirrored at its border to fit the network's grid."""
    return [tuple((s.start, -(-s.stop // 4) * 4) for s in tile.core) for tile in layout.tiles]


def prediction(apply: Predictor, image: np.ndarray, layout: WindowPlan, halo: bool) -> np.ndarray:
    out = np.empty((2, *layout.shape), np.float32)
    for tile, alone in zip(layout.tiles, without_halo(layout), strict=True):
        if halo:
            part = apply(read_window(image, tile.window)[None])[0][(slice(None), *tile.inner)]
        else:
            core = image[(slice(None), *tile.core)]
            window = [(0, b - a) for a, b in alone]
            part = apply(read_window(core, window)[None])[0]
            part = part[(slice(None), *(slice(0, n) for n in core.shape[1:]))]
        out[(slice(None), *tile.core)] = part
    return out


@pytest.mark.parametrize(
    ("shape", "tile", "padding"),
    [((210, 187), 72, "same"), ((300, 280), 80, "valid"), ((44, 50, 46), 24, "same")],
)
def test_exact_tiles_have_no_seam_and_others_do(
    shape: tuple[int, ...], tile: int, padding: str
) -> None:
    apply = network(len(shape), padding)
    grid = tuple(fp.grid for fp in apply.footprint)
    noise = np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)
    image = ndimage.gaussian_filter(noise, [0, *(2,) * len(shape)])
    image /= image.std()
    layout = apply.plan(shape, tile)
    cores = [t.core for t in layout.tiles]
    found = score_of(prediction(apply, image, layout, halo=True), cores, grid)
    assert found is not None
    assert found["borders"] >= 6
    # More than a thousand pixels lie at the borders. Jumps are alike over about 5 px along a line,
    # so some hundreds count, and a jump scatters by about its mean: one standard error is 6 %.
    assert found["score"] == pytest.approx(1, abs=0.15)
    if padding == "same":  # an unpadded network has its halo by construction
        bad = score_of(prediction(apply, image, layout, halo=False), cores, grid)
        assert bad is not None
        assert bad["score"] > 1.8


class FakePrepared:
    """The part of the prepared store that stitch reads."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image

    def image(self, image: str) -> np.ndarray:
        return self._image

    def attrs(self, image: str) -> dict[str, Any]:
        return {}


def stitched(folder: Path, p: np.ndarray, layout: WindowPlan, **attrs: Any) -> dict[str, Any]:
    head = ["background", "cell"]
    about = {
        "head": head, "part": "test", "axes": "CYX", "pixel_size_um": None, "grid": [4, 4], **attrs
    }  # fmt: skip
    target = create_tiles(folder / "tiles" / "a", layout, 2, "float32", about)
    for tile in layout.tiles:
        part = p[(slice(None), *tile.core)]
        target[(tile.index, slice(None), *(slice(0, n) for n in part.shape[1:]))] = part
    outputs = Outputs(
        folder / "segmentation.zarr", folder / "segmentation.json", folder / "masks",
        folder / "objects.csv",
    )  # fmt: skip
    settings_ = StitchSettings.made(
        stitch=StitchSection(), task="semantic", class_names=head, class_values=None, head=head
    )
    prepared: Any = FakePrepared(np.zeros((1, *layout.shape), np.float32))
    entries = stitch_dataset(Tiles(folder / "tiles"), prepared, outputs, settings_, threads=2)
    done = json.loads(outputs.done.read_text(encoding="utf-8"))
    assert done["images"] == entries
    return dict(entries["a"])


def test_stitching_notes_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Shards so small that borders lie within them and between them.
    monkeypatch.setattr(
        "unet.export.ome_zarr_writer._layout", lambda shape, channels: ((16, 16), (32, 32))
    )
    apply = network(2, "same")
    shape = (150, 131)
    p = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    layout = apply.plan(shape, 56)
    cores = [t.core for t in layout.tiles]
    entry = stitched(tmp_path / "some", p, layout)
    expected = by_definition(p, cores, (4, 4))
    assert expected is not None
    assert entry["seam"]["borders"] == expected["borders"] > 4
    assert entry["seam"]["score"] == pytest.approx(expected["score"], rel=1e-9)
    store = Segmentation(tmp_path / "some" / "segmentation.zarr")
    assert store.seam_score("a") == entry["seam"]["score"]
    np.testing.assert_array_equal(store.probabilities("a")[:], p)

    assert stitched(tmp_path / "one", p, apply.plan(shape, 1000))["seam"] is None
    assert Segmentation(tmp_path / "one" / "segmentation.zarr").seam_score("a") is None

    # Blended windows: the borders are where windows start and end.
    layout = blended_plan(shape, 48, apply.footprint, 0.5)
    entry = stitched(tmp_path / "blended", p, layout, blend="gaussian")
    found = Segmentation(tmp_path / "blended" / "segmentation.zarr").probabilities("a")[:]
    expected = by_definition(found, [t.core for t in layout.tiles], (4, 4))
    assert expected is not None
    assert entry["seam"]["score"] == pytest.approx(expected["score"], rel=1e-6)


def test_a_store_without_its_sentinel_has_no_score(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "segmentation.zarr"))
    assert Segmentation(tmp_path / "segmentation.zarr").seam_score("a") is None
