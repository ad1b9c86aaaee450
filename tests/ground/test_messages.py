"""Words of messages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.errors import time_left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"), (0, "0 s"), (1.2, "1 s"), (59.4, "59 s"), (59.6, "1 min"), (89, "1 min"),
        (91, "2 min"), (1621, "27 min"), (3580, "1 h"), (3600, "1 h"), (4801, "1 h 20 min"),
        (200_000, "55 h 33 min"),
    ],
)  # fmt: skip
def test_time_left(seconds: float, text: str) -> None:
    assert time_left(seconds) == text


@given(st.floats(0, 1e7))
def test_time_left_is_the_time_to_half_its_unit(seconds: float) -> None:
    text = time_left(seconds)
    found = re.fullmatch(r"(?:(\d+) h)? ?(?:(\d+) min)?|(\d+) s", text)
    assert found is not None
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    shown = 3600 * hours + 60 * minutes + rest
    assert abs(shown - seconds) <= (0.5 if "s" in text else 30.0)
