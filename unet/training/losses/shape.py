"""Losses of shape: the position of a class's border, and the connectivity of thin structures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unet.config.heads import IGNORE
from unet.config.loss_table import SIGNED_DISTANCE
from unet.training.losses.base import Loss, Maps
from unet.training.losses.entropy import CrossEntropy
from unet.training.losses.overlap import CrossEntropyDice, Dice, probabilities


class Boundary(Loss):
    """Boundary loss (Kervadec et al. 2019, arXiv:1812.07032, eqs. 4 to 6) plus a region term.

    ce-dice + alpha * the mean over valid pixels x and over all classes k except the first of
    phi_k(x) (p_k(x) - t_k(x)), with phi the distance to class k in pixels, negative inside
    (`unet.training.targets.signed_distances`, truncated). A wrong pixel costs its distance to the
    class's border. The paper drops the term with t, which does not depend on p. With this term, the
    loss is 0 for a perfect prediction and never negative. alpha is fixed, 0.01 in the paper.
    """

    maps = (SIGNED_DISTANCE,)

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        alpha: float = 0.01,
    ) -> None:
        super().__init__(num_classes)
        self.region = CrossEntropyDice(num_classes, class_weights)
        self.alpha = alpha

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        predicted, truth = probabilities(logits, target)
        moved = (maps[SIGNED_DISTANCE] * (predicted - truth))[:, 1:].sum()
        count = (target != IGNORE).sum().clamp(min=1) * (self.num_classes - 1)
        return self.region.compute(logits, target, maps) + self.alpha * moved / count


class ClDice(Loss):
    """Soft clDice for tubes and sheets (Shit et al. 2021, arXiv:2003.07311), 2D and 3D.

    (1 - alpha) Dice + alpha (1 - clDice), where clDice is the harmonic mean of the precision
    sum S(p) t / sum S(p) and the sensitivity sum S(t) p / sum S(t) of the soft skeletons S of the
    thin class (algorithms 1 and 2), each with 1 added to numerator and denominator. The sums run
    over the valid pixels of the batch. The skeleton treats ignored pixels like pixels beyond the
    image's edge.

    Args:
        num_classes: K.
        alpha: share of clDice; the paper tries up to 0.5.
        iterations: steps of the skeletonization; at least the radius in pixels of the thickest
            structure, and each costs time.
        thin: index of the thin class, -1 = the last class.

    Raises:
        ValueError: there is no class with this index.
    """

    def __init__(
        self, num_classes: int, alpha: float = 0.5, iterations: int = 5, thin: int = -1
    ) -> None:
        super().__init__(num_classes)
        if not -1 <= thin < num_classes:
            raise ValueError(f"thin: got {thin}, needs -1 to {num_classes - 1}")
        self.dice = Dice(num_classes)
        self.alpha = alpha
        self.iterations = int(iterations)
        self.thin = int(thin) % num_classes

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        known = (target != IGNORE).unsqueeze(1)
        predicted, truth = (
            values[:, self.thin : self.thin + 1] for values in probabilities(logits, target)
        )
        with torch.no_grad():
            true_skeleton = soft_skeleton(truth, self.iterations, known)
        skeleton = soft_skeleton(predicted, self.iterations, known)
        precision = ((skeleton * truth).sum() + 1) / (skeleton.sum() + 1)
        sensitivity = ((true_skeleton * predicted).sum() + 1) / (true_skeleton.sum() + 1)
        connected = 2 * precision * sensitivity / (precision + sensitivity)
        dice = self.dice.compute(logits, target, maps)
        return (1 - self.alpha) * dice + self.alpha * (1 - connected)


class CrossEntropyClDice(Loss):
    """Cross-entropy plus `ClDice`: has a gradient even if prediction and truth do not overlap."""

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float] | None = None,
        alpha: float = 0.5,
        iterations: int = 5,
        thin: int = -1,
    ) -> None:
        super().__init__(num_classes)
        self.cross_entropy = CrossEntropy(num_classes, class_weights)
        self.cldice = ClDice(num_classes, alpha, iterations, thin)

    def compute(self, logits: Tensor, target: Tensor, maps: Maps) -> Tensor:
        cross_entropy = self.cross_entropy.compute(logits, target, maps)
        return cross_entropy + self.cldice.compute(logits, target, maps)


def soft_skeleton(values: Tensor, iterations: int, known: Tensor | None = None) -> Tensor:
    """Soft skeleton of Shit et al. 2021, algorithm 1: what opening removes, over all erosions.

    Args:
        values: [N, C, (Z,) Y, X] in [0, 1].
        iterations: number of erosions.
        known: [N, C, (Z,) Y, X] bool; at other pixels, values are ignored and the result is 0.
    """
    known = torch.ones_like(values, dtype=torch.bool) if known is None else known
    skeleton = torch.zeros_like(values)
    for _ in range(iterations + 1):
        # For values in [0, 1], 1 does not change a minimum, and 0 does not change a maximum.
        eroded = _erode(torch.where(known, values, 1))
        opened = _dilate(torch.where(known, eroded, 0))
        lost = F.relu(values - opened)
        skeleton = skeleton + F.relu(lost - skeleton * lost)
        values = eroded
    return torch.where(known, skeleton, 0)


def _erode(values: Tensor) -> Tensor:
    """Minimum over a pixel and its neighbours along the axes."""
    axes = values.ndim - 2
    pool = F.max_pool2d if axes == 2 else F.max_pool3d
    lowest = None
    for axis in range(axes):
        size = tuple(3 if other == axis else 1 for other in range(axes))
        padding = tuple(side // 2 for side in size)
        pooled = -pool(-values, size, 1, padding)
        lowest = pooled if lowest is None else torch.minimum(lowest, pooled)
    return values if lowest is None else lowest


def _dilate(values: Tensor) -> Tensor:
    """Maximum over a pixel and all its neighbours, diagonals included."""
    pool = F.max_pool2d if values.ndim == 4 else F.max_pool3d
    return pool(values, 3, 1, 1)
