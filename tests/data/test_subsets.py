"""Shares of the training images: nested, whole groups, never empty."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.data.subsets import subset_of

IDS = [f"im{k:02d}" for k in range(16)]
GROUPED = st.dictionaries(
    st.integers(0, 60).map(lambda k: f"im{k}"),
    st.sampled_from(["", "a", "b", "c", "d"]),
    min_size=1,
)
SHARES = st.floats(0.01, 1)


def test_by_hand() -> None:
    assert [len(subset_of(IDS, {}, share, 0, 0)) for share in (0.125, 0.25, 0.5, 1)] == [
        2,
        4,
        8,
        16,
    ]
    # 0.15 * 16 = 2.4: two are closer than three. Half an image: the smaller number.
    assert len(subset_of(IDS, {}, 0.15, 0, 0)) == 2
    assert len(subset_of(IDS, {}, 2.5 / 16, 0, 0)) == 2
    assert len(subset_of(IDS, {}, 0.01, 0, 0)) == 1
    assert subset_of(IDS, {}, 1, 0, 0) == IDS
    assert subset_of([], {}, 0.5, 0, 0) == []


def test_seed_and_fold_draw_other_images() -> None:
    first = subset_of(IDS, {}, 0.25, 0, 0)
    assert subset_of(IDS[::-1], {}, 0.25, 0, 0) == first
    assert subset_of(IDS, {}, 0.25, 1, 0) != first
    assert subset_of(IDS, {}, 0.25, 0, 1) != first


def test_a_new_image_reorders_no_others() -> None:
    before = subset_of(IDS, {}, 0.5, 3, 0)
    after = subset_of([*IDS, "new"], {}, 0.5, 3, 0)
    assert len(set(before) - set(after)) <= 1


@given(GROUPED, SHARES, SHARES, st.integers(0, 5))
def test_nested_and_whole_groups(groups: dict[str, str], one: float, two: float, seed: int) -> None:
    low, high = sorted((one, two))
    small, large = (subset_of(list(groups), groups, share, seed, 0) for share in (low, high))
    assert small
    assert set(small) <= set(large) <= set(groups)
    for group in set(groups.values()) - {""}:
        members = {image for image, own in groups.items() if own == group}
        assert members <= set(small) or not members & set(small)


@pytest.mark.parametrize("share", [0, -0.5, 1.1])
def test_no_such_share(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        subset_of(IDS, {}, share, 0, 0)
