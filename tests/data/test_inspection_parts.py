"""Large blocks are counted in parts, with the same result."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from unet.data import inspection
from unet.data.inspection import Neighbours, _distinct


@pytest.mark.parametrize("shape", [(50, 70), (6, 20, 30), (1, 100)])
def test_parts_give_the_same(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    block = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint16) * 300
    whole = Neighbours()
    whole.add(block)
    values, counts = _distinct(block)
    monkeypatch.setattr(inspection, "COUNTED", 64)
    parts = Neighbours()
    parts.add(block)
    assert parts == whole
    assert whole.pairs > whole.equal > 0
    found = _distinct(block)
    assert [a.tolist() for a in found] == [values.tolist(), counts.tolist()]
    assert np.unique(block, return_counts=True)[1].tolist() == counts.tolist()


def test_memory_does_not_grow_with_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "COUNTED", 1 << 16)
    block = np.ones((2048, 2048), np.uint8)
    tracemalloc.start()
    try:
        _distinct(block)
        Neighbours().add(block)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One byte for each pixel of the block would be as much as the block itself.
    assert peak < block.nbytes
