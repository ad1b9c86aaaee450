"""Losses against values worked out by hand, and what holds for all of them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unet.errors import UserError
from unet.training.losses import IGNORE, LOSSES, Dice, Loss, make_loss

NAMES = sorted(LOSSES)
WEIGHTED = {"weighted-ce": [0.5, 1.0, 2.0]}


def build(name: str, classes: int = 3) -> Loss:
    weights = WEIGHTED.get(name)
    return make_loss(name, classes, None if weights is None else weights[:classes])


def batch(seed: int = 0, classes: int = 3, dims: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, *(4, 5, 3)[:dims])
    logits = torch.randn(2, classes, *shape[1:], generator=generator)
    target = torch.randint(0, classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = IGNORE
    return logits, target, torch.rand(shape, generator=generator) * 3


# Two pixels, two classes: probabilities of class 1 are 1/4 and 9/10.
LOGITS = torch.tensor([[0.75, 0.1], [0.25, 0.9]]).log().view(1, 2, 1, 2)
TARGET = torch.tensor([[[0, 1]]])


def test_ce_by_hand() -> None:
    expected = -(math.log(0.75) + math.log(0.9)) / 2
    assert make_loss("ce", 2)(LOGITS, TARGET).item() == pytest.approx(expected)


def test_weighted_ce_by_hand() -> None:
    expected = -(3 * math.log(0.75) + 1 * math.log(0.9)) / 4
    loss = make_loss("weighted-ce", 2, [3.0, 1.0])
    assert loss(LOGITS, TARGET).item() == pytest.approx(expected)


def test_border_ce_by_hand() -> None:
    weight = torch.tensor([[[11.0, 1.0]]])
    expected = -(11 * math.log(0.75) + 1 * math.log(0.9)) / 2
    assert make_loss("border-ce", 2)(LOGITS, TARGET, weight).item() == pytest.approx(expected)


def test_border_ce_divides_by_valid_pixels_only() -> None:
    weight = torch.tensor([[[11.0, 1.0]]])
    target = torch.tensor([[[0, IGNORE]]])
    loss = make_loss("border-ce", 2)(LOGITS, target, weight)
    assert loss.item() == pytest.approx(-11 * math.log(0.75))


def test_dice_by_hand() -> None:
    # Class 1: overlap 0.9, sizes 0.25 + 0.9 and 1, smooth 1. Class 0: 0.75, 0.75 + 0.1 and 1.
    one = (2 * 0.9 + 1) / (1.15 + 1 + 1)
    zero = (2 * 0.75 + 1) / (0.85 + 1 + 1)
    assert make_loss("dice", 2)(LOGITS, TARGET).item() == pytest.approx(1 - one)
    both = Dice(2, include_background=True)(LOGITS, TARGET)
    assert both.item() == pytest.approx(1 - (one + zero) / 2)


def test_dice_weight_counts_pixels() -> None:
    weight = torch.tensor([[[2.0, 3.0]]])
    expected = 1 - (2 * 3 * 0.9 + 1) / (2 * 0.25 + 3 * 0.9 + 3 + 1)
    assert make_loss("dice", 2)(LOGITS, TARGET, weight).item() == pytest.approx(expected)


def test_dice_per_sample_or_batch() -> None:
    logits = LOGITS.permute(3, 1, 2, 0).contiguous()  # the two pixels as two samples
    target = TARGET.permute(2, 1, 0)
    batched = Dice(2)(logits, target)
    assert batched.item() == pytest.approx(make_loss("dice", 2)(LOGITS, TARGET).item())
    first, second = 1 / (0.25 + 1), (2 * 0.9 + 1) / (0.9 + 1 + 1)
    single = Dice(2, batch=False)(logits, target)
    assert single.item() == pytest.approx(1 - (first + second) / 2)


def test_ce_dice_is_the_sum() -> None:
    logits, target, weight = batch()
    parts = make_loss("ce", 3)(logits, target, weight) + build("dice")(logits, target, weight)
    torch.testing.assert_close(build("ce-dice")(logits, target, weight), parts)
    heavy = make_loss("ce-dice", 3, [1.0, 2.0, 3.0])(logits, target)
    parts = make_loss("weighted-ce", 3, [1.0, 2.0, 3.0])(logits, target)
    torch.testing.assert_close(heavy, parts + build("dice")(logits, target))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 4.0]])
def test_ce_is_torchs_mean(dims: int, weights: list[float] | None) -> None:
    logits, target, _ = batch(dims=dims)
    loss = make_loss("ce" if weights is None else "weighted-ce", 3, weights)
    reference = F.cross_entropy(
        logits,
        target,
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=IGNORE,
    )
    torch.testing.assert_close(loss(logits, target), reference)


@pytest.mark.parametrize("name", NAMES)
def test_gradient(name: str) -> None:
    logits, target, weight = (tensor[..., :2, :2].double() for tensor in batch(seed=1))
    target = target.long()
    assert (target == IGNORE).any()
    loss = build(name)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight), (logits,))


@pytest.mark.parametrize("name", NAMES)
def test_ignored_pixels_do_not_matter(name: str) -> None:
    logits, target, weight = batch()
    ignored = target == IGNORE
    assert ignored.any()
    loss = build(name)
    logits.requires_grad_()
    value = loss(logits, target, weight)
    (gradient,) = torch.autograd.grad(value, logits)
    hidden = ignored.unsqueeze(1).expand_as(gradient)
    assert (gradient[hidden] == 0).all()
    assert (gradient[~hidden] != 0).any()
    other = torch.where(hidden, torch.full_like(logits, 7.0), logits)
    other[:, 0] += hidden[:, 0] * 3.0
    wild = torch.where(ignored, torch.nan, weight)
    torch.testing.assert_close(loss(other, target, wild), value)


@pytest.mark.parametrize("name", NAMES)
def test_all_ignored_is_zero(name: str) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = torch.full((2, 4, 4), IGNORE)
    value = build(name)(logits, target, torch.ones(2, 4, 4))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_only_classes_of_weight_zero() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    value = make_loss("weighted-ce", 2, [0.0, 1.0])(logits, torch.zeros(1, 3, 3).long())
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_perfect_prediction_is_zero_and_wrong_is_not(name: str) -> None:
    target = torch.tensor([[[0, 1, 2], [1, 1, IGNORE]]])
    truth = F.one_hot(target.where(target != IGNORE, 0), 3).permute(0, 3, 1, 2)
    weight = torch.ones(1, 2, 3)
    assert build(name)(200.0 * truth, target, weight).item() == pytest.approx(0, abs=1e-6)
    assert build(name)(200.0 * truth.roll(1, 1), target, weight).item() > 0.3


@pytest.mark.parametrize("name", NAMES)
def test_weight_of_ones_is_no_weight(name: str) -> None:
    logits, target, weight = batch()
    loss = build(name)
    ones = loss(logits, target, torch.ones_like(weight))
    if loss.needs_weight:
        with pytest.raises(ValueError, match="weight map"):
            loss(logits, target)
        loss = build("ce")
    torch.testing.assert_close(loss(logits, target), ones)


@pytest.mark.parametrize("name", NAMES)
def test_float32_under_autocast(name: str) -> None:
    logits, target, weight = batch()
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = build(name)(half, target, weight)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, build(name)(half.float(), target, weight))


@given(st.integers(0, 2**31), st.sampled_from(NAMES))
@settings(deadline=None, max_examples=40)
def test_not_negative_and_blind_to_order(seed: int, name: str) -> None:
    logits, target, weight = batch(seed)
    loss = build(name)
    value = loss(logits, target, weight)
    assert value.ndim == 0
    assert value.item() >= 0
    flipped = loss(logits.flip(0, 2), target.flip(0, 1), weight.flip(0, 1))
    torch.testing.assert_close(flipped, value)


def test_losses_have_no_state_to_save() -> None:
    assert all(len(build(name).state_dict()) == 0 for name in NAMES)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("cross-entropy", None, "write one of"),
        ("weighted-ce", None, "write 3 of them"),
        ("weighted-ce", [1.0, 2.0], "write 3 finite"),
        ("weighted-ce", [1.0, -2.0, 1.0], "write 3 finite"),
        ("weighted-ce", [1.0, math.nan, 1.0], "write 3 finite"),
        ("ce", [1.0, 1.0, 1.0], "leave them out"),
        ("border-ce", [1.0, 1.0, 1.0], "leave them out"),
        ("dice", [1.0, 1.0, 1.0], "leave them out"),
    ],
)
def test_make_loss_refuses(name: str, weights: list[float] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_loss(name, 3, weights)


def test_wrong_shapes() -> None:
    logits, target, weight = batch()
    loss = build("ce")
    for wrong in ((logits[:, :2], target, weight), (logits, target[:1], weight)):
        with pytest.raises(ValueError, match="needs"):
            loss(*wrong)
    with pytest.raises(ValueError, match="weight"):
        loss(logits, target, weight[:, :2])
    with pytest.raises(ValueError, match="smooth"):
        Dice(2, smooth=0.0)
    with pytest.raises(ValueError, match="num_classes"):
        make_loss("ce", 1)
