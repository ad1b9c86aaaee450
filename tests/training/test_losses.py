"""What holds for all losses, the table of their needs, cross-entropies and overlaps by hand."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unet.config.heads import IGNORE
from unet.config.loss_table import LOSS_TABLE, class_weight_losses
from unet.errors import UserError
from unet.training.losses import LOSSES, Dice, DistanceLoss, Loss, make_loss
from unet.training.targets import signed_distances

WEIGHTS = {"weighted-ce": [0.5, 1.0, 2.0]}


def build(name: str, **numbers: float) -> Loss:
    return make_loss(name, 3, WEIGHTS.get(name), **numbers)


CASES: dict[str, Callable[[], Loss]] = {
    **{name: lambda name=name: build(name) for name in LOSSES},
    "focal of classes": lambda: make_loss("focal", 3, [0.5, 1.0, 2.0], gamma=0.5),
    "focal tversky": lambda: build("tversky", gamma=0.75),
    "distance": lambda: DistanceLoss(make_loss("ce-dice", 2)),
    "distance and boundary": lambda: DistanceLoss(make_loss("boundary", 2), weight=3.0),
}
every_loss = pytest.mark.parametrize("case", sorted(CASES))


def batch(loss: Loss, seed: int = 0, dims: int = 2) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits, target with ignored pixels, and every map there is."""
    classes = 2 if isinstance(loss, DistanceLoss) else 3
    generator = torch.Generator().manual_seed(seed)
    shape = (2, *(4, 5, 3)[:dims])
    logits = torch.randn(2, 3, *shape[1:], generator=generator)
    target = torch.randint(0, classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.2] = IGNORE
    distances = [signed_distances(one.numpy().astype(np.uint8), classes, 3.0) for one in target]
    return (
        logits,
        target,
        {
            "border-weight": torch.rand(2, 1, *shape[1:], generator=generator) * 3,
            "signed-distance": torch.from_numpy(np.stack(distances)),
            "distance": torch.rand(2, 1, *shape[1:], generator=generator),
        },
    )


# What holds for all


@every_loss
@pytest.mark.parametrize("dims", [2, 3])
def test_gradient(case: str, dims: int) -> None:
    loss = CASES[case]()
    logits, target, maps = batch(loss, seed=1, dims=dims)
    logits = logits.double().requires_grad_()
    assert (target == IGNORE).any()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, maps), (logits,), fast_mode=dims == 3)


@every_loss
def test_ignored_pixels_do_not_matter(case: str) -> None:
    loss = CASES[case]()
    logits, target, maps = batch(loss)
    ignored = target == IGNORE
    assert ignored.any()
    logits.requires_grad_()
    value = loss(logits, target, maps)
    (gradient,) = torch.autograd.grad(value, logits)
    hidden = ignored.unsqueeze(1).expand_as(gradient)
    assert (gradient[hidden] == 0).all()
    assert (gradient[~hidden] != 0).any()
    other = torch.where(hidden, torch.full_like(logits, 7.0), logits)
    other[:, 0] += hidden[:, 0] * 3.0
    wild = {
        name: torch.where(ignored.unsqueeze(1), torch.nan, values) for name, values in maps.items()
    }
    torch.testing.assert_close(loss(other, target, wild), value)


@every_loss
@pytest.mark.parametrize("dims", [2, 3])
def test_all_ignored_is_zero(case: str, dims: int) -> None:
    loss = CASES[case]()
    logits, target, maps = batch(loss, dims=dims)
    logits.requires_grad_()
    value = loss(logits, torch.full_like(target, IGNORE), maps)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", LOSS_TABLE)
def test_perfect_prediction_is_zero_and_wrong_is_not(name: str) -> None:
    target = torch.tensor([[[0, 1, 2], [1, 1, IGNORE]]])
    truth = F.one_hot(target.where(target != IGNORE, 0), 3).permute(0, 3, 1, 2)
    phi = signed_distances(target[0].numpy().astype(np.uint8), 3)
    maps = {"border-weight": torch.ones(1, 1, 2, 3), "signed-distance": torch.from_numpy(phi)[None]}
    right, wrong = (200.0 * truth).requires_grad_(), 200.0 * truth.roll(1, 1)
    value = build(name)(right, target, maps)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert right.grad is not None
    assert right.grad.isfinite().all()
    assert build(name)(wrong, target, maps).item() > 0.3


@every_loss
def test_float32_under_autocast(case: str) -> None:
    loss = CASES[case]()
    logits, target, maps = batch(loss)
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, target, maps)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.float(), target, maps))


@given(st.integers(0, 2**31), st.sampled_from(sorted(CASES)), st.sampled_from([2, 3]))
@settings(deadline=None, max_examples=60)
def test_not_negative_and_blind_to_order(seed: int, case: str, dims: int) -> None:
    loss = CASES[case]()
    logits, target, maps = batch(loss, seed, dims)
    value = loss(logits, target, maps)
    assert value.ndim == 0
    assert value.item() >= 0
    flipped = {name: values.flip(0, 2) for name, values in maps.items()}
    torch.testing.assert_close(loss(logits.flip(0, 2), target.flip(0, 1), flipped), value)


@every_loss
def test_maps_are_needed_and_checked(case: str) -> None:
    loss = CASES[case]()
    logits, target, maps = batch(loss)
    value = loss(logits, target, {name: maps[name] for name in loss.maps} or None)
    torch.testing.assert_close(value, loss(logits, target, maps))
    for name in loss.maps:
        rest = {other: values for other, values in maps.items() if other != name}
        with pytest.raises(ValueError, match=f"needs the map '{name}'"):
            loss(logits, target, rest)
        for wrong in (maps[name][:, 0], maps[name][:1], maps[name].repeat(1, 2, 1, 1)):
            with pytest.raises(ValueError, match=f"map {name}"):
                loss(logits, target, {**maps, name: wrong})


@every_loss
def test_no_state_to_save(case: str) -> None:
    assert len(CASES[case]().state_dict()) == 0


def test_wrong_shapes() -> None:
    loss = build("ce")
    logits, target, _ = batch(loss)
    for wrong in ((logits[:, :2], target), (logits, target[:1])):
        with pytest.raises(ValueError, match="needs"):
            loss(*wrong)
    with pytest.raises(ValueError, match="smooth"):
        Dice(2, smooth=0.0)
    with pytest.raises(ValueError, match="num_classes"):
        make_loss("ce", 1)


# The table


def test_table_and_classes_agree() -> None:
    assert tuple(LOSSES) == tuple(LOSS_TABLE)
    for name, info in LOSS_TABLE.items():
        loss = build(name)
        assert loss.maps == info.maps, name
        arguments = inspect.signature(LOSSES[name]).parameters
        if info.class_weights != "refused":
            assert "class_weights" in arguments, name
        for key, option in info.options.items():
            assert arguments[key].default == option.default, (name, key)
            assert option.accepts(option.default), (name, key)


@pytest.mark.parametrize("name", [name for name in LOSS_TABLE if LOSS_TABLE[name].options])
def test_options_have_an_effect(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (1, 12, 12), generator=generator)
    logits = torch.randn(1, 3, 12, 12, generator=generator) + 2 * F.one_hot(target, 3).movedim(
        -1, 1
    )
    phi = signed_distances(target[0].numpy().astype(np.uint8), 3)
    maps = {"signed-distance": torch.from_numpy(phi)[None]}
    default = build(name)(logits, target, maps)
    for key, option in LOSS_TABLE[name].options.items():
        other = 1.0 if key in ("iterations", "thin") else option.high
        if other == option.default:
            other /= 2
        assert build(name, **{key: other})(logits, target, maps) != default, key


def test_class_weights_have_an_effect() -> None:
    for name in class_weight_losses():
        loss = make_loss(name, 3, [1.0, 2.0, 3.0])
        logits, target, maps = batch(loss)
        even = make_loss(name, 3, [1.0, 1.0, 1.0])
        assert loss(logits, target, maps) != even(logits, target, maps), name


def test_table_needs_no_torch() -> None:
    code = "import sys, unet.config.loss_table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("cross-entropy", None, "write one of"),
        ("weighted-ce", None, "write 3 of them"),
        ("weighted-ce", [1.0, 2.0], "write 3 finite"),
        ("weighted-ce", [1.0, -2.0, 1.0], "write 3 finite"),
        ("weighted-ce", [1.0, math.nan, 1.0], "write 3 finite"),
        ("ce", [1.0, 1.0, 1.0], "leave them out"),
        ("dice", [1.0, 1.0, 1.0], "leave them out"),
    ],
)
def test_make_loss_refuses_weights(name: str, weights: list[float] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_loss(name, 3, weights)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("ce", {"gamma": 1.0}, "option 'gamma', takes none"),
        ("focal", {"share": 0.5}, "option 'share', takes gamma"),
        ("focal", {"gamma": -1.0}, "gamma: got -1.0, write from 0 to 10"),
        ("focal", {"gamma": math.nan}, "gamma: got nan"),
        ("topk", {"share": 0.0}, "share: got 0.0, write above 0 to 1"),
        ("cldice", {"iterations": 2.5}, "iterations: got 2.5, write a whole number from 1 to 100"),
        ("cldice", {"iterations": math.inf}, "iterations: got inf"),
        ("cldice", {"thin": 3}, "thin: got 3, write a whole number from -1 to 2"),
    ],
)
def test_make_loss_refuses_numbers(name: str, numbers: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_loss(name, 3, **numbers)


# By hand: two pixels, two classes; probabilities of class 1 are 1/4 and 9/10

LOGITS = torch.tensor([[0.75, 0.1], [0.25, 0.9]]).log().view(1, 2, 1, 2)
TARGET = torch.tensor([[[0, 1]]])
WEIGHT = {"border-weight": torch.tensor([[[[11.0, 1.0]]]])}


def test_ce_by_hand() -> None:
    expected = -(math.log(0.75) + math.log(0.9)) / 2
    assert make_loss("ce", 2)(LOGITS, TARGET).item() == pytest.approx(expected)


def test_weighted_ce_by_hand() -> None:
    expected = -(3 * math.log(0.75) + 1 * math.log(0.9)) / 4
    loss = make_loss("weighted-ce", 2, [3.0, 1.0])
    assert loss(LOGITS, TARGET).item() == pytest.approx(expected)


def test_only_classes_of_weight_zero() -> None:
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    value = make_loss("weighted-ce", 2, [0.0, 1.0])(logits, torch.zeros(1, 3, 3).long())
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_border_ce_by_hand() -> None:
    expected = -(11 * math.log(0.75) + 1 * math.log(0.9)) / 2
    assert make_loss("border-ce", 2)(LOGITS, TARGET, WEIGHT).item() == pytest.approx(expected)


def test_class_weights_of_border_ce_by_hand() -> None:
    """wc takes the place of the 1 in the map: 11 and 1 become 10 + wc of each pixel's class."""
    first, second = (int(t) for t in TARGET.ravel())
    wc = [0.5, 3.0]
    expected = -((10 + wc[first]) * math.log(0.75) + wc[second] * math.log(0.9)) / 2
    loss = make_loss("border-ce", 2, wc)(LOGITS, TARGET, WEIGHT)
    assert loss.item() == pytest.approx(expected)


def test_border_ce_divides_by_valid_pixels_only() -> None:
    target = torch.tensor([[[0, IGNORE]]])
    loss = make_loss("border-ce", 2)(LOGITS, target, WEIGHT)
    assert loss.item() == pytest.approx(-11 * math.log(0.75))


def test_border_ce_with_weights_of_one_is_ce() -> None:
    logits, target, maps = batch(build("ce"))
    maps["border-weight"] = torch.ones_like(maps["border-weight"])
    value = build("border-ce")(logits, target, maps)
    torch.testing.assert_close(value, build("ce")(logits, target))


def test_dice_by_hand() -> None:
    # Class 1: overlap 0.9, sizes 0.25 + 0.9 and 1, smooth 1. Class 0: 0.75, 0.75 + 0.1 and 1.
    one = (2 * 0.9 + 1) / (1.15 + 1 + 1)
    zero = (2 * 0.75 + 1) / (0.85 + 1 + 1)
    assert make_loss("dice", 2)(LOGITS, TARGET).item() == pytest.approx(1 - one)
    both = Dice(2, include_background=True)(LOGITS, TARGET)
    assert both.item() == pytest.approx(1 - (one + zero) / 2)


def test_dice_per_sample_or_batch() -> None:
    logits = LOGITS.permute(3, 1, 2, 0).contiguous()  # the two pixels as two samples
    target = TARGET.permute(2, 1, 0)
    batched = Dice(2)(logits, target)
    assert batched.item() == pytest.approx(make_loss("dice", 2)(LOGITS, TARGET).item())
    first, second = 1 / (0.25 + 1), (2 * 0.9 + 1) / (0.9 + 1 + 1)
    single = Dice(2, batch=False)(logits, target)
    assert single.item() == pytest.approx(1 - (first + second) / 2)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ce-dice", ("ce", "dice")),
        ("topk-dice", ("topk", "dice")),
        ("ce-cldice", ("ce", "cldice")),
    ],
)
def test_sums(name: str, parts: tuple[str, str]) -> None:
    logits, target, _ = batch(build(name))
    expected = sum(build(part)(logits, target) for part in parts)
    torch.testing.assert_close(build(name)(logits, target), expected)


@pytest.mark.parametrize("name", ["ce-dice", "ce-cldice"])
def test_class_weights_of_sums_are_those_of_ce(name: str) -> None:
    logits, target, _ = batch(build(name))
    weights = [1.0, 2.0, 3.0]
    change = make_loss(name, 3, weights)(logits, target) - build(name)(logits, target)
    expected = make_loss("weighted-ce", 3, weights)(logits, target) - build("ce")(logits, target)
    torch.testing.assert_close(change, expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 4.0]])
def test_ce_is_torchs_mean(dims: int, weights: list[float] | None) -> None:
    loss = make_loss("ce" if weights is None else "weighted-ce", 3, weights)
    logits, target, _ = batch(loss, dims=dims)
    reference = F.cross_entropy(
        logits,
        target,
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=IGNORE,
    )
    torch.testing.assert_close(loss(logits, target), reference)


def test_focal_by_hand() -> None:
    first, second = -(0.25**2) * math.log(0.75), -(0.1**2) * math.log(0.9)
    assert make_loss("focal", 2)(LOGITS, TARGET).item() == pytest.approx((first + second) / 2)
    weighted = make_loss("focal", 2, [3.0, 1.0])(LOGITS, TARGET)
    assert weighted.item() == pytest.approx((3 * first + second) / 4)
    root = make_loss("focal", 2, gamma=0.5)(LOGITS[..., :1], TARGET[..., :1])
    assert root.item() == pytest.approx(-0.5 * math.log(0.75))


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 4.0]])
def test_focal_with_gamma_0_is_ce(weights: list[float] | None) -> None:
    loss = make_loss("focal", 3, weights, gamma=0.0)
    logits, target, _ = batch(loss)
    plain = make_loss("ce" if weights is None else "weighted-ce", 3, weights)
    torch.testing.assert_close(loss(logits, target), plain(logits, target))


def test_topk_by_hand() -> None:
    # Probability of the true class at ten pixels; the hardest of them is ignored.
    true = torch.tensor([0.9, 0.8, 0.2, 0.7, 0.01, 0.6, 0.95, 0.3, 0.5, 0.85])
    logits = torch.stack([true, 1 - true]).log().view(1, 2, 2, 5)
    target = torch.zeros(1, 2, 5).long()
    target[0, 0, 4] = IGNORE
    for share, hardest in (
        (0.3, [0.2, 0.3, 0.5]),  # 2.7 of 9 pixels
        (0.15, [0.2]),  # 1.35
        (0.01, [0.2]),  # at least one
        (1.0, [p for p in true.tolist() if p > 0.1]),
    ):
        expected = -sum(math.log(p) for p in hardest) / len(hardest)
        value = make_loss("topk", 2, share=share)(logits, target)
        assert value.item() == pytest.approx(expected, rel=1e-5)


def test_topk_of_all_is_ce() -> None:
    logits, target, _ = batch(build("ce"))
    value = build("topk", share=1.0)(logits, target)
    torch.testing.assert_close(value, build("ce")(logits, target))


def test_tversky_by_hand() -> None:
    # Class 1: overlap 0.9, extra 0.25, missed 0.1, smooth 1.
    index = 1 - (0.9 + 1) / (0.9 + 0.3 * 0.25 + 0.7 * 0.1 + 1)
    assert make_loss("tversky", 2)(LOGITS, TARGET).item() == pytest.approx(index)
    focal = make_loss("tversky", 2, gamma=0.75)(LOGITS, TARGET)
    assert focal.item() == pytest.approx(index**0.75)
    even = make_loss("tversky", 2, alpha=0.5)(LOGITS, TARGET)
    assert even.item() == pytest.approx(Dice(2, smooth=2.0)(LOGITS, TARGET).item())
