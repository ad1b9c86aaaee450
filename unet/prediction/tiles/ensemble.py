"""The networks that predict a fold (one, or those of several folds), and the images of each one.

Test images get the mean of all networks' probabilities. A validation image of one fold is a
training image of the others, so only its own fold's network predicts it. That way thresholds are
chosen on images that the network was not trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from unet.config.geometry import Footprints, common
from unet.config.sections import PredictSection
from unet.data.records import SplitRecord, ids_of
from unet.errors import UserError
from unet.files import digest, file_sha256
from unet.models.inference import Calibrate, Predictor
from unet.models.model_file import ModelFile
from unet.models.network import Network
from unet.models.read_model import applied_model

HeldOutPart = Literal["test", "val"]


@dataclass(frozen=True)
class Member:
    """A trained network, its file, and the hash of the file."""

    path: Path
    model: ModelFile
    key: str

    @classmethod
    def load(cls, path: Path) -> Member:
        """Reads a ``model.pt`` or a package; see :func:`unet.models.read_model.applied_model` for
        errors."""
        return cls(path, applied_model(path), file_sha256(path))

    @cached_property
    def footprint(self) -> Footprints:
        return self.model.footprint


def held_out(
    rows: Iterable[SplitRecord], folds: Sequence[int]
) -> tuple[dict[str, HeldOutPart], dict[str, int]]:
    """The images that the networks of these folds predict.

    Returns:
        Image id -> why it is predicted; and validation image id -> index in ``folds`` of the only
        network that predicts it.

    Raises:
        ValueError: an image is a test image in only some of the folds, or a validation image in
            two.
    """
    rows = list(rows)
    tested = ids_of(rows, folds[0], "test")
    parts: dict[str, HeldOutPart] = dict.fromkeys(tested, "test")
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
    """Chooses the networks that predict each image.

    Args:
        members: the networks, in order.
        alone: image id -> index of the only network that predicts it; all of them predict the
            other images.
        device: where they run.
        section: engine, precision and test-time augmentation.
        threads: for engines that have their own thread pool.
        calibrate: gives the windows on which the ranges of int8 networks are measured.

    Raises:
        UserError: the networks differ in their input or output channels, no window suits all of
            them, or the engine is not installed.
    """

    def __init__(
        self,
        members: Sequence[Member],
        alone: Mapping[str, int],
        device: torch.device,
        section: PredictSection,
        threads: int = 1,
        calibrate: Calibrate | None = None,
    ) -> None:
        for member in members[1:]:
            check_alike(members[0], member)
        self.members, self.alone = tuple(members), dict(alone)
        head = members[0].model.head
        networks = [member.model.network() for member in members]

        def predictor_of(chosen: list[Network]) -> Predictor:
            return Predictor(
                chosen, device, section.precision, section.tta, head, section.engine, threads,
                calibrate=calibrate,
            )  # fmt: skip

        # The predictors share the networks, so each is on the device only once.
        self._all = predictor_of(networks)
        self._single = [self._all] if len(networks) == 1 else [predictor_of([n]) for n in networks]
        self.device, self.footprint = device, self._all.footprint
        self.precision, self.engine = self._all.precision, self._all.engine

    @property
    def width(self) -> int:
        """Channels of the first level of the widest network."""
        return max(member.model.architecture.width for member in self.members)

    def predictor(self, image: str) -> Predictor:
        """The predictor for this image."""
        return self._single[self.alone[image]] if image in self.alone else self._all

    def key(self, image: str) -> str:
        """Hash of the files of the networks that predict this image, in their order."""
        if image in self.alone:
            return self.members[self.alone[image]].key
        keys = [member.key for member in self.members]
        return keys[0] if len(keys) == 1 else digest(keys)


def check_alike(one: Member, other: Member) -> None:
    """Raises UserError if two networks cannot be averaged."""
    both = f"{one.path} and {other.path}"
    for what, of_one, of_other in (
        ("channels", one.model.in_channels, other.model.in_channels),
        ("heads", list(one.model.head), list(other.model.head)),
    ):
        if of_one != of_other:
            raise UserError(
                f"{both}: their {what} differ ({of_one}, {of_other}), so they cannot be averaged; "
                "train the folds again"
            )
    try:
        common([one.footprint, other.footprint])
    except ValueError:
        raise UserError(
            f"{both}: their layers need different windows, so they cannot be averaged; if preset "
            "auto chose them, copy plan.yaml of one fold into models and train again; if a sweep "
            "did, write split.test beside split.folds, so that all folds choose the same"
        ) from None
