"""Empty tiles: the limit is in the units of the file for every normalisation; what is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.config.sections import NormalizeSection, SkipSection
from unet.data.normalize import NORMALIZE_METHODS, ImageStatistics, apply, describe
from unet.errors import UserError
from unet.prediction.tiles.empty_tiles import Skipper, skipper

HEAD = ("background", "cell")
PLAIN: dict[str, Any] = {"shift": [0.0], "scale": [1.0]}


def statistics_of(image: np.ndarray, method: str) -> dict[str, Any]:
    found = ImageStatistics(len(image), image.dtype)
    found.update(image)
    if found.passes == 2:
        found.select(1.0, 99.8)
        found.refine(image)
    return describe(found, NormalizeSection(method=method))  # type: ignore[arg-type]


def made(section: SkipSection, head: tuple[str, ...] = HEAD, **statistics: Any) -> Skipper:
    found = skipper(section, head, statistics or PLAIN, {"method": "none"})
    assert found is not None
    return found


@given(
    st.sampled_from(sorted(NORMALIZE_METHODS)),
    st.sampled_from(["uint8", "uint16", "float32", "float64"]),
    st.integers(0, 250),
    st.booleans(),
    st.floats(0.01, 1),
    st.integers(0, 10_000),
)
def test_the_limit_is_an_intensity_of_the_file(
    method: str, dtype: str, limit: int, darker: bool, share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 250, (2, 9, 11)).astype(dtype)
    image[1] //= 10
    key = "darker_than" if darker else "brighter_than"
    for channel in (0, 1):
        section = SkipSection(channel=channel, share=share, **{key: limit})
        statistics = statistics_of(image, method)
        rule = skipper(section, HEAD, statistics, {"method": method})
        assert rule is not None
        raw = image[channel]
        empty = np.count_nonzero(raw < limit if darker else raw > limit) >= share * raw.size
        assert rule.empty(apply(image, statistics)) == empty
        # Pixels exactly at the limit are not beyond it, despite rounding.
        pixels = np.full_like(image, limit)
        assert not rule.empty(apply(pixels, statistics))
        pixels[channel] = max(0, limit - 1) if darker else limit + 1
        assert rule.empty(apply(pixels, statistics)) == (limit > 0 or not darker)


def test_share_by_hand() -> None:
    window = np.full((1, 10, 100), 5, np.float32)
    rule = made(SkipSection(brighter_than=4, share=0.999))
    assert rule.empty(window)
    window[0, 0, 0] = 4
    assert rule.empty(window)
    window[0, 0, 1] = 0
    assert not rule.empty(window)
    assert made(SkipSection(brighter_than=4, share=0.9)).empty(window)
    assert not made(SkipSection(darker_than=4)).empty(window)
    assert made(SkipSection(darker_than=6, share=1)).empty(window)
    assert not made(SkipSection(darker_than=5, share=1)).empty(window)


def test_volumes_and_other_channels() -> None:
    window = np.zeros((2, 3, 4, 5), np.float32)
    window[1] = 1
    both: dict[str, Any] = {"shift": [0.0, -9.0], "scale": [1.0, 10.0]}
    assert made(SkipSection(channel=0, darker_than=0.5), **both).empty(window)
    # 1 in the prepared image was 10 * 1 - 9 = 1 in the file.
    assert not made(SkipSection(channel=1, darker_than=1), **both).empty(window)
    assert made(SkipSection(channel=1, darker_than=1.01), **both).empty(window)


def test_nothing_is_skipped_unless_it_is_said() -> None:
    assert skipper(None, HEAD, {}, {}) is None


@pytest.mark.parametrize(
    ("head", "fill", "expected"),
    [
        (HEAD, None, [1, 0]),
        (("cell", "wall", "glass"), None, [1, 0, 0]),
        (("cell", "wall", "glass"), "glass", [0, 0, 1]),
        (("background", "inside", "border"), None, [1, 0, 0]),
        (("background", "foreground", "distance"), None, [1, 0, 0]),
    ],
)
def test_what_empty_tiles_hold(
    head: tuple[str, ...], fill: str | None, expected: list[int]
) -> None:
    values = made(SkipSection(darker_than=1, fill=fill), head).fill(head)
    assert values.dtype == np.float32
    assert values.tolist() == expected


@pytest.mark.parametrize(
    ("section", "head", "statistics", "method", "says"),
    [
        (SkipSection(darker_than=1, fill="wall"), HEAD, PLAIN, "none", "no class 'wall'"),
        # A distance is no class.
        (SkipSection(darker_than=1, fill="distance"), ("background", "foreground", "distance"),
         PLAIN, "none", "there are: background, foreground"),
        (SkipSection(darker_than=1, channel=1), HEAD, PLAIN, "none", "got 1, .* 1 channel"),
        (SkipSection(darker_than=1), HEAD, PLAIN, "clahe", "normalised by 'clahe'"),
        (SkipSection(darker_than=1), HEAD, {}, "zscore", "normalised by 'zscore'"),
    ],
)  # fmt: skip
def test_refused_in_one_line(
    section: SkipSection, head: tuple[str, ...], statistics: Any, method: str, says: str
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        skipper(section, head, statistics, {"method": method})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("predict.skip")
