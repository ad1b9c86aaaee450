"""What the estimates of a run (:mod:`unet.planning.estimates`) depend on: the machine, the sizes of
the images, the models and folds. Loads neither torch nor dask nor numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median

from unet.config.presets import AnyArchitecture
from unet.config.run import Config
from unet.data.survey.facts import DatasetSurvey
from unet.paths import ENSEMBLE, Origin, origin_of
from unet.planning.resources import largest


@dataclass(frozen=True)
class Machine:
    """What the estimates assume of this machine.

    Attributes:
        flops: FLOP of the forward pass that a training does per second.
        threads: number of CPU threads.
    """

    flops: float
    threads: int


@dataclass(frozen=True)
class Sizes:
    """Sizes of a dataset's usable images.

    Attributes:
        count: number of images.
        pixels: pixels (voxels) of all images together.
        channels: most channels of an image.
        shape: the median size along each spatial axis.
        largest: pixels of the largest image.
    """

    count: int = 0
    pixels: float = 0.0
    channels: int = 1
    shape: tuple[float, ...] = (1.0, 1.0)
    largest: float = 0.0

    @property
    def values(self) -> float:
        """Pixels times channels."""
        return self.pixels * self.channels

    def scaled(self, factors: Sequence[float]) -> Sizes:
        """The sizes after resampling: each axis times its factor."""
        if len(factors) != len(self.shape):
            return self
        volume = math.prod(factors)
        shape = tuple(max(1.0, n * f) for n, f in zip(self.shape, factors, strict=True))
        return replace(
            self, pixels=self.pixels * volume, largest=self.largest * volume, shape=shape
        )


def sizes_of(survey: DatasetSurvey) -> Sizes:
    """The sizes of the images that a survey found usable."""
    shapes = [image.shape for image in survey.images if image.status == "ok" and image.shape]
    if not shapes:
        return Sizes()
    dims = max(len(shape) for shape in shapes) - 1
    alike = [shape[1:] for shape in shapes if len(shape) == dims + 1]
    pixels = [math.prod(shape[1:]) for shape in shapes]
    return Sizes(
        count=len(shapes),
        pixels=float(sum(pixels)),
        channels=max(shape[0] for shape in shapes),
        shape=tuple(float(median(sizes)) for sizes in zip(*alike, strict=True)),
        largest=float(max(pixels)),
    )


def pixel_size_of(survey: DatasetSurvey) -> tuple[float, ...] | None:
    """The median pixel size in micrometres of the usable images; None if it is unknown."""
    sizes = [i.pixel_size_um for i in survey.images if i.status == "ok" and i.pixel_size_um]
    if not sizes or len({len(size) for size in sizes}) > 1:
        return None
    return tuple(float(median(axis)) for axis in zip(*sizes, strict=True))


@dataclass(frozen=True)
class EstimatedJob:
    """What the estimates of a stage depend on.

    Attributes:
        sizes: of the images, in the pixels that the stage works on.
        enlarged: pixels of the resampled images per pixel of the files.
    """

    config: Config
    dataset: str
    sizes: Sizes
    survey: DatasetSurvey
    machine: Machine
    model: str = ""
    enlarged: float = 1.0

    @cached_property
    def origin(self) -> Origin | None:
        return origin_of(self.model)

    @cached_property
    def architectures(self) -> list[AnyArchitecture | None]:
        """The networks that the model may have: with a sweep, those that it is chosen from."""
        return self.config.architectures_for(self.model)

    @cached_property
    def architecture(self) -> AnyArchitecture | None:
        """The largest of them; None if it is not known yet."""
        return largest(self.architectures, self.sizes.channels, self.outputs)

    @cached_property
    def outputs(self) -> int:
        return len(self.config.head_for(self.dataset, self.model))

    @property
    def folds(self) -> tuple[int, ...]:
        return self.config.folds_for(self.dataset)

    @property
    def tested(self) -> tuple[int, ...]:
        return self.config.tested_for(self.dataset)

    @property
    def networks(self) -> int:
        """Number of networks that predict an image together."""
        if self.origin is not None:
            return len(self.config.folds_for(self.origin.dataset))
        return len(self.folds) if ENSEMBLE in self.tested else 1

    def share(self, *parts: str) -> float:
        """Sum over the folds that are run of the share (0 to 1) of the images in these parts."""
        splits, section = self.survey.splits or {}, self.config.datasets[self.dataset].split
        if known := [counts for fold, counts in splits.items() if fold in self.folds]:
            return sum(
                sum(counts.get(part, 0) for part in parts) / max(1, sum(counts.values()))
                for counts in known
            )
        test = section.test or (1 / section.folds if section.folds else 0.25)
        of = {"test": test, "val": section.val * (1 - test)}
        of["train"] = 1 - test - of["val"]
        return len(self.folds) * sum(of[part] for part in parts)

    @property
    def predicted(self) -> float:
        """Share of the images that is predicted and stitched, over all folds."""
        if self.origin is not None or ENSEMBLE in self.tested:
            return 1.0
        return self.share("val", "test")

    @property
    def labels(self) -> int:
        """Bytes per pixel of the stored labels."""
        if not self.config.datasets[self.dataset].labelled:
            return 0
        return 5 if self.survey.task == "instances" else 1


def resampled(
    job: EstimatedJob, surveys: Mapping[str, DatasetSurvey], origin: Origin | None
) -> EstimatedJob:
    """With images at the pixel size of a model of another dataset."""
    known = surveys.get(origin.dataset) if origin is not None else None
    target = None if known is None else pixel_size_of(known)
    own = pixel_size_of(job.survey)
    if target is None or own is None or len(target) != len(own):
        return job
    factors = [a / b for a, b in zip(own, target, strict=True)]
    if all(abs(factor - 1) < 0.01 for factor in factors):
        return job
    return replace(job, sizes=job.sizes.scaled(factors), enlarged=math.prod(factors))
