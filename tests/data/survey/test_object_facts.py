"""Objects of small labels, counted by hand; and what must hold for any label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unet.data.survey.object_facts import (
    diameter,
    numbered,
    object_facts,
    summary,
    unlabelled_share,
)

# 1 is a ring with a hole, at no edge; 2 touches 3; 4 is in two pieces, one of them at the edge; 9
# meets itself over a corner only.
LABEL = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 4],
        [0, 1, 1, 1, 0, 2, 2, 0, 0, 0],
        [0, 1, 0, 1, 0, 2, 3, 0, 4, 0],
        [0, 1, 1, 1, 0, 0, 3, 0, 4, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 9, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 9, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ],
    np.uint16,
)


def test_counted_by_hand() -> None:
    facts = object_facts(numbered(LABEL))
    assert facts.area.tolist() == [8, 3, 2, 3, 2]
    assert facts.touching.tolist() == [False, True, True, False, False]
    assert facts.at_edge.tolist() == [False, False, False, True, False]
    assert facts.holes.tolist() == [True, False, False, False, False]
    assert facts.pieces.tolist() == [1, 1, 1, 2, 1]


def test_summary() -> None:
    found = summary([object_facts(numbered(LABEL))], 2, ["empty"])
    assert (found.count, found.per_image, found.area[1]) == (5, (5, 5.0, 5), 3.0)
    assert found.touching == pytest.approx(0.4)
    assert found.at_edge == pytest.approx(0.2)
    assert (found.with_holes, found.in_pieces, found.empty_images) == (1, 1, ("empty",))
    assert found.diameter[1] == pytest.approx(2 * (3 / np.pi) ** 0.5)


def test_a_region_cuts_objects_at_its_edge() -> None:
    region = object_facts(numbered(LABEL), whole=False)
    # 4 is in two pieces, but one of them goes on outside of the region.
    assert region.pieces.tolist() == [1, 1, 1, 1, 1]
    alone = summary([region], 2)
    assert (alone.count, alone.per_image, alone.at_edge, alone.in_pieces) == (5, None, None, 0)
    both = summary([region, object_facts(numbered(LABEL[:4]))], 2)
    assert (both.count, both.per_image, both.at_edge) == (9, (4, 4.0, 4), 0.75)


def test_without_objects() -> None:
    found = summary([object_facts(numbered(np.zeros((4, 4), np.uint8)))], 2)
    assert (found.count, found.per_image, found.touching) == (0, (0, 0.0, 0), 0.0)
    assert summary([], 2).count == 0


def test_a_hole_between_two_objects_belongs_to_neither() -> None:
    label = np.array([[1, 1, 2, 2], [1, 0, 0, 2], [1, 1, 2, 2]], np.uint8)
    assert object_facts(numbered(label)).holes.tolist() == [False, False]


def test_a_volume() -> None:
    label = np.zeros((5, 5, 5), np.uint8)
    label[1:4, 1:4, 1:4] = 7
    label[2, 2, 2] = 0
    facts = object_facts(numbered(label))
    assert (facts.area.tolist(), facts.holes.tolist()) == ([26], [True])
    assert not facts.at_edge.any()
    label[2, 2, 3] = 0  # a channel to the outside
    label[2, 2, 4] = 0
    assert not object_facts(numbered(label)).holes.any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int32, np.float32])
def test_numbers_do_not_depend_on_the_type(dtype: type) -> None:
    assert numbered(LABEL.astype(dtype)).tolist() == numbered(LABEL).tolist()
    assert numbered(LABEL.astype(dtype), ignore=9).max() == 4


def test_components_of_a_binary_mask() -> None:
    mask = ((LABEL > 0) * 255).astype(np.uint8)
    # 2 and 3 become one; the pieces of 4 are two; 9 stays one, over its corner.
    assert numbered(mask, binary=True).max() == 5


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 3))
)
def test_turning_a_label_changes_nothing(label: np.ndarray) -> None:
    one, other = (object_facts(numbered(a)) for a in (label, np.rot90(label).copy()))
    for name in ("area", "touching", "at_edge", "holes", "pieces"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert int(one.area.sum()) == np.count_nonzero(label)


def _field(labelled: int, dark: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """16 equal squares, of which some are labelled."""
    rng = np.random.default_rng(0)
    label, everything = (np.zeros((100, 100), np.int32) for _ in range(2))
    for number in range(16):
        y, x = 8 + 23 * (number // 4), 8 + 23 * (number % 4)
        everything[y : y + 10, x : x + 10] = 1
        if number < labelled:
            label[y : y + 10, x : x + 10] = number + 1
    return 500 + (-300 if dark else 300) * everything + rng.normal(0, 10, label.shape), label


@pytest.mark.parametrize("dark", [False, True])
def test_objects_without_a_label_are_found(dark: bool) -> None:
    assert unlabelled_share(*_field(16, dark)) == 0
    few = unlabelled_share(*_field(4, dark))
    assert few is not None
    assert 2 < few < 4  # 12 squares without a label beside 4
    image, none = _field(0, dark)
    assert unlabelled_share(image, none) is None


def test_objects_that_brightness_does_not_set_apart() -> None:
    _, label = _field(8)
    assert unlabelled_share(np.random.default_rng(1).normal(0, 10, label.shape), label) is None


def test_diameters() -> None:
    assert diameter(np.pi * 25, 2) == pytest.approx(10)
    assert diameter(4 / 3 * np.pi * 125, 3) == pytest.approx(10)
