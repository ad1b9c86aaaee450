"""Boundary loss, clDice and the loss of the distance head, by hand and by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from unet.config.heads import IGNORE
from unet.training.losses import ClDice, DistanceLoss, make_loss
from unet.training.losses.shape import soft_skeleton
from unet.training.targets import signed_distances


def sure(classes: Tensor, num_classes: int = 2) -> Tensor:
    """Logits [N, K, *S] that say a class map [N, *S] with certainty."""
    return 200.0 * torch.nn.functional.one_hot(classes, num_classes).movedim(-1, 1)


def phi(target: Tensor) -> dict[str, Tensor]:
    maps = [signed_distances(one.numpy().astype(np.uint8), 2) for one in target]
    return {"signed-distance": torch.from_numpy(np.stack(maps))}


# Boundary loss


def test_boundary_by_hand() -> None:
    # A row of four pixels; the last two are class 1, the very last is ignored. Distances to
    # class 1: 2, 1, and on it 1 to the nearest other, counted negative.
    p = torch.tensor([0.1, 0.4, 0.7, 0.2])
    logits = torch.stack([1 - p, p]).log().view(1, 2, 1, 4)
    target = torch.tensor([[[0, 0, 1, IGNORE]]])
    region = make_loss("ce-dice", 2)(logits, target).item()
    for alpha in (0.01, 2.0):
        value = make_loss("boundary", 2, alpha=alpha)(logits, target, phi(target)).item()
        moved = (2 * 0.1 + 1 * 0.4 - 1 * (0.7 - 1)) / 3
        assert value == pytest.approx(region + alpha * moved, rel=1e-5)


def test_boundary_counts_every_class_but_the_first() -> None:
    logits = torch.randn(1, 3, 2, 2)
    target = torch.tensor([[[0, 1], [2, 2]]])
    maps = torch.randn(1, 3, 2, 2)
    truth = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    moved = sum((maps[0, k] * (logits.softmax(1) - truth)[0, k]).sum() for k in (1, 2)) / 8
    region = make_loss("ce-dice", 3)(logits, target)
    value = make_loss("boundary", 3, alpha=1.0)(logits, target, {"signed-distance": maps})
    torch.testing.assert_close(value, region + moved)


def test_boundary_charges_for_distance() -> None:
    target = torch.zeros(1, 9, 20).long()
    target[0, 3:6, 2:6] = 1
    near, far = target.clone(), target.clone()
    near[0, 3:6, 6] = 1
    far[0, 3:6, 18] = 1
    values = [
        (make_loss("boundary", 2)(sure(wrong), target, phi(target)).item(),
         make_loss("ce-dice", 2)(sure(wrong), target).item())
        for wrong in (near, far)
    ]  # fmt: skip
    assert values[0][1] == pytest.approx(values[1][1])
    # Three pixels of 180 at distance 1, or at 13.
    assert values[1][0] - values[0][0] == pytest.approx(0.01 * 3 * 12 / 180, rel=1e-3)


# clDice


def brute_skeleton(image: NDArray[np.float64], iterations: int) -> NDArray[np.float64]:
    """Algorithm 1 with loops: minimum over the cross, maximum over the square or cube."""
    axes = image.ndim
    square = list(itertools.product((-1, 0, 1), repeat=axes))
    cross = [offset for offset in square if sum(map(abs, offset)) <= 1]

    def over(values: NDArray[np.float64], offsets: list[tuple[int, ...]], best: str) -> NDArray:
        result = np.empty_like(values)
        for pixel in np.ndindex(values.shape):
            near = [tuple(np.add(pixel, offset)) for offset in offsets]
            found = [
                values[at]
                for at in near
                if all(0 <= i < n for i, n in zip(at, values.shape, strict=True))
            ]
            result[pixel] = min(found) if best == "min" else max(found)
        return result

    def opened(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return over(over(values, cross, "min"), square, "max")

    skeleton = np.maximum(image - opened(image), 0)
    for _ in range(iterations):
        image = over(image, cross, "min")
        skeleton = skeleton + (1 - skeleton) * np.maximum(image - opened(image), 0)
    return skeleton


@given(st.integers(0, 2**31), st.integers(1, 4), st.sampled_from([(7, 9), (4, 5, 4)]))
@settings(deadline=None, max_examples=15)
def test_skeleton_equals_algorithm(seed: int, iterations: int, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(seed).random(shape)
    ours = soft_skeleton(torch.from_numpy(image)[None, None], iterations)[0, 0]
    np.testing.assert_allclose(ours.numpy(), brute_skeleton(image, iterations), atol=1e-12)


def test_skeleton_of_a_bar_is_its_middle() -> None:
    bar = torch.zeros(1, 1, 9, 30)
    bar[..., 2:7, 3:27] = 1
    skeleton = soft_skeleton(bar, 5)[0, 0]
    assert (skeleton[4, 6:24] == 1).all()
    # Off the middle row there is nothing but the branches to the corners at both ends.
    assert (skeleton[[0, 1, 2, 3, 5, 6, 7, 8], 6:24] == 0).all()


@pytest.mark.parametrize("shape", [(8, 9), (6, 4, 7)])
def test_skeleton_takes_unknown_pixels_for_the_edge(shape: tuple[int, ...]) -> None:
    image = torch.rand(1, 1, *shape)
    known = torch.zeros(1, 1, *shape, dtype=torch.bool)
    known[..., 1:-2, 2:-1] = True
    ours = soft_skeleton(image, 4, known)
    torch.testing.assert_close(ours[..., 1:-2, 2:-1], soft_skeleton(image[..., 1:-2, 2:-1], 4))
    assert (ours[~known] == 0).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_cldice_by_hand(dims: int) -> None:
    # The truth is a line of 5 pixels, the prediction its first three and two pixels beside it:
    # lines are their own skeletons, in 3D as well. Precision 3 / 5, sensitivity 3 / 5, plus 1.
    target = torch.zeros(1, 7, 9).long()
    target[0, 3, 2:7] = 1
    wrong = torch.zeros(1, 7, 9).long()
    wrong[0, 3, 0:5] = 1
    if dims == 3:
        target, wrong = (
            torch.nn.functional.pad(t[:, None], (0, 0, 0, 0, 1, 1)) for t in (target, wrong)
        )
    logits = sure(wrong)
    connected = ClDice(2, alpha=1.0)(logits, target).item()
    assert connected == pytest.approx(1 - 4 / 6)
    dice = 1 - (2 * 3 + 1) / (5 + 5 + 1)
    value = make_loss("cldice", 2, alpha=0.3)(logits, target).item()
    assert value == pytest.approx(0.7 * dice + 0.3 * (1 - 4 / 6))


def test_cldice_of_another_class() -> None:
    logits, target = torch.randn(1, 3, 12, 12), torch.randint(0, 3, (1, 12, 12))
    order = torch.tensor([0, 2, 1])
    first = ClDice(3, alpha=1.0, thin=1)(logits, target)
    torch.testing.assert_close(first, ClDice(3, alpha=1.0)(logits[:, order], order[target]))


def test_cldice_refuses() -> None:
    with pytest.raises(ValueError, match="thin"):
        ClDice(3, thin=3)


def test_a_gap_costs_more_than_a_thin_place() -> None:
    target = torch.zeros(1, 11, 31).long()
    target[0, 4:7, 2:29] = 1
    gap, thin = target.clone(), target.clone()
    gap[0, 4:7, 15] = 0
    thin[0, 4, 14:17] = 0
    dice, cldice = make_loss("dice", 2), make_loss("cldice", 2)
    assert dice(sure(gap), target).item() == pytest.approx(dice(sure(thin), target).item())
    assert cldice(sure(gap), target).item() > cldice(sure(thin), target).item() + 0.005


# Distance head


def test_distance_by_hand() -> None:
    # Sigmoids 0.5, 0.73 and 0.2 against 0.45, 1 and 0.2: errors 0.05 (below beta), 0.27, 0.
    values = torch.tensor([0.5, 0.73, 0.2, 0.9])
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 1] = math.log(3)
    logits[0, 2, 0] = (values / (1 - values)).log()
    target = torch.tensor([[[1, 1, 0, IGNORE]]])
    maps = {"distance": torch.tensor([[[[0.45, 1.0, 0.2, math.nan]]]])}
    ce = -(2 * math.log(0.75) + math.log(0.25)) / 3
    error = (0.05**2 / (2 * 0.1) + (0.27 - 0.1 / 2)) / 3
    value = DistanceLoss(make_loss("ce", 2), weight=2.0)(logits, target, maps).item()
    assert value == pytest.approx(ce + 2 * error, rel=1e-5)
    alone = DistanceLoss(make_loss("ce", 2), weight=0.0)(logits, target, maps).item()
    assert alone == pytest.approx(ce, rel=1e-5)


def test_distance_needs_the_maps_of_both() -> None:
    assert DistanceLoss(make_loss("ce", 2)).maps == ("distance",)
    assert DistanceLoss(make_loss("border-ce", 2)).maps == ("border-weight", "distance")


def test_distance_refuses() -> None:
    with pytest.raises(ValueError, match="needs 2"):
        DistanceLoss(make_loss("ce", 3))
    with pytest.raises(ValueError, match="weight"):
        DistanceLoss(make_loss("ce", 2), weight=-1.0)
    with pytest.raises(ValueError, match="beta"):
        DistanceLoss(make_loss("ce", 2), beta=0.0)
