"""The networks that predict a fold: one, or those of several folds, and which image each one sees.

Test images are predicted by the mean of all networks' probabilities. A validation image trained all
of them but one, so that one alone predicts it: what is chosen on validation images (thresholds) is
chosen on images that the network had not learned from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from unet.config.geometry import Footprints, footprint
from unet.config.sections import PredictSection
from unet.data.records import SplitRecord, ids_of
from unet.errors import UserError
from unet.files import digest, file_sha256
from unet.models.inference import Predictor
from unet.models.model_file import ModelFile, load_model
from unet.models.network import Network

Held = Literal["test", "val"]


@dataclass(frozen=True)
class Member:
    """A trained network with its file and the hash of that."""

    path: Path
    model: ModelFile
    key: str

    @classmethod
    def load(cls, path: Path) -> Member:
        """Reads a ``model.pt``; see :func:`unet.models.model_file.load_model` for its errors."""
        return cls(path, load_model(path), file_sha256(path))

    @cached_property
    def footprint(self) -> Footprints:
        return footprint(self.model.architecture)


def held_out(
    rows: Iterable[SplitRecord], folds: Sequence[int]
) -> tuple[dict[str, Held], dict[str, int]]:
    """The images that the networks of these folds predict.

    Returns:
        image id -> why it is predicted, and validation image id -> index in ``folds`` of the one
        network that predicts it.

    Raises:
        ValueError: an image is tested in one of the folds, but not in another, or validates two.
    """
    rows = list(rows)
    tested = ids_of(rows, folds[0], "test")
    parts: dict[str, Held] = dict.fromkeys(tested, "test")
    alone: dict[str, int] = {}
    for index, fold in enumerate(folds):
        if ids_of(rows, fold, "test") != tested:
            raise ValueError(f"folds {folds[0]} and {fold} test different images")
        for image in ids_of(rows, fold, "val"):
            if image in alone:
                raise ValueError(f"image {image} validates folds {folds[alone[image]]} and {fold}")
            parts[image], alone[image] = "val", index
    return parts, alone


class Ensemble:
    """Applies to each image the networks that are to predict it.

    Args:
        members: the networks, in order.
        alone: image id -> index of the one network that predicts it; all predict the others.
        device: where they run.
        section: engine, precision and test-time augmentation.
        threads: of engines that have their own.

    Raises:
        UserError: the networks differ in their channels, in or out, or in their footprint; the
            engine is not there.
    """

    def __init__(
        self,
        members: Sequence[Member],
        alone: Mapping[str, int],
        device: torch.device,
        section: PredictSection,
        threads: int = 1,
    ) -> None:
        for member in members[1:]:
            _check_alike(members[0], member)
        self.members, self.alone = tuple(members), dict(alone)
        head = members[0].model.head
        networks = [member.model.network() for member in members]

        def of(chosen: list[Network]) -> Predictor:
            return Predictor(
                chosen, device, section.precision, section.tta, head, section.engine, threads
            )

        # They share the networks: each is on the device once.
        self._all = of(networks)
        self._single = [self._all] if len(networks) == 1 else [of([n]) for n in networks]
        self.device, self.footprint = device, self._all.footprint
        self.precision, self.engine = self._all.precision, self._all.engine

    @property
    def width(self) -> int:
        """Channels of the first level, of the widest."""
        return max(member.model.architecture.width for member in self.members)

    def predictor(self, image: str) -> Predictor:
        """What predicts this image."""
        return self._single[self.alone[image]] if image in self.alone else self._all

    def key(self, image: str) -> str:
        """Hash of the files of the networks that predict this image, in their order."""
        if image in self.alone:
            return self.members[self.alone[image]].key
        keys = [member.key for member in self.members]
        return keys[0] if len(keys) == 1 else digest(keys)


def _check_alike(one: Member, other: Member) -> None:
    both = f"{one.path} and {other.path}"
    for what, of_one, of_other in (
        ("channels", one.model.in_channels, other.model.in_channels),
        ("heads", list(one.model.head), list(other.model.head)),
    ):
        if of_one != of_other:
            raise UserError(
                f"{both}: their {what} differ ({of_one}, {of_other}), so that they cannot be "
                "averaged; train the folds again"
            )
    if one.footprint != other.footprint:
        raise UserError(
            f"{both}: their layers need different windows, so that they cannot be averaged; where "
            "preset auto chose them, copy plan.yaml of one fold into models and train again"
        )
