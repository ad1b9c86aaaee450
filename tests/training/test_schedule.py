"""Learning rates by hand, and the optimizers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unet.training.schedule import OPTIMIZERS, SCHEDULES, learning_rate, plateau_factor


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


NAN = float("nan")


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], 1.0),
        ([1.0, 0.9, 0.8, 0.7], 1.0),
        ([1.0, 1.0], 1.0),  # one validation without a better loss, patience is two
        ([1.0, 1.0, 1.0], 0.5),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 0.25),
        ([1.0, 1.0, 1.0, 0.5, 0.6, 0.6], 0.25),
        ([1.0, 1.0, 0.5, 0.6], 1.0),
        ([1.0, NAN, 1.0, NAN, 1.0], 0.5),  # not validated: no say
        ([1.0, 0.9999, 0.9998], 0.5),  # better by less than the threshold is no better
    ],
)
def test_plateau_by_hand(losses: list[float], expected: float) -> None:
    assert plateau_factor(losses, patience=2, factor=0.5) == expected


@given(st.lists(st.floats(0.01, 10), max_size=40), st.integers(1, 5))
def test_plateau_agrees_with_torch(losses: list[float], patience: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # torch counts the bad ones that it tolerates, we those that it takes.
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, threshold=1e-3, min_lr=0, eps=0
    )
    for loss in losses:
        theirs.step(loss)
    assert plateau_factor(losses, patience, 0.5) == pytest.approx(optimizer.param_groups[0]["lr"])
