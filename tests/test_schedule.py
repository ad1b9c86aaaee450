"""Learning rates by hand, and the optimizers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unet.training.schedule import OPTIMIZERS, SCHEDULES, learning_rate


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [
        ("constant", 0, 0.1),
        ("constant", 99, 0.1),
        ("poly", 0, 0.1),
        ("poly", 50, 0.1 * 0.5**0.9),
        ("cosine", 0, 0.1),
        ("cosine", 50, 0.05),
        ("cosine", 25, 0.1 * (1 + 2**-0.5) / 2),
    ],
)
def test_by_hand(name: str, step: int, expected: float) -> None:
    assert learning_rate(name, 0.1, step, total=100, warmup=0) == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_warmup_rises_in_equal_steps(name: str) -> None:
    rates = [learning_rate(name, 1.0, step, total=100, warmup=4) for step in range(6)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1.0  # the schedule begins where the warm-up ends


@given(
    st.sampled_from(sorted(SCHEDULES)),
    st.integers(1, 500),
    st.integers(0, 600),
    st.floats(1e-6, 10),
)
def test_always_positive_and_never_above_the_given_rate(
    name: str, total: int, warmup: int, lr: float
) -> None:
    rates = [learning_rate(name, lr, step, total, warmup) for step in range(total)]
    assert all(0 < rate <= lr * (1 + 1e-12) for rate in rates)
    after = rates[warmup:]
    assert after == sorted(after, reverse=True)


def test_optimizers() -> None:
    weights = [torch.nn.Parameter(torch.ones(2))]
    sgd = OPTIMIZERS["sgd"](weights, 0.1, 0.9, 0.01)
    assert isinstance(sgd, torch.optim.SGD)
    assert {k: sgd.defaults[k] for k in ("lr", "momentum", "weight_decay", "nesterov")} == {
        "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": False,
    }  # fmt: skip
    assert OPTIMIZERS["sgd"](weights, 0.1, 0.0, 0.0).defaults["momentum"] == 0
    adamw = OPTIMIZERS["adamw"](weights, 0.1, 0.9, 0.01)
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["weight_decay"] == 0.01
