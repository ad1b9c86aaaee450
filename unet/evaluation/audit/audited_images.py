"""Which images can be audited, and with the networks of which fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unet.data.store import Prepared
from unet.evaluation.blockwise import ScoredPair, open_pair
from unet.prediction.stitch.segmentation import Segmentation


@dataclass(frozen=True, eq=False)
class AuditedImage:
    """A labelled image with a prediction by networks that were not trained on it."""

    image: str
    fold: int
    part: str
    axes: str
    prepared: Prepared
    segmentation: Segmentation
    task: str

    def open(self) -> ScoredPair:
        """Its arrays; for errors see :func:`unet.evaluation.blockwise.open_pair`."""
        return open_pair(self.prepared, self.segmentation, self.image, self.task)


def audited_images(
    folds: Mapping[int, Segmentation], prepared: Prepared, task: str
) -> list[AuditedImage]:
    """The labelled images that are predicted, by id; each with one fold.

    A test image's label was not used at all; that of a validation image chose the best epoch and
    the threshold, but did not train. So the fold that tests an image comes first.
    """
    found: dict[str, AuditedImage] = {}
    for number, segmentation in sorted(folds.items()):
        for image in segmentation.ids():
            attrs = segmentation.attrs(image)
            part, axes = attrs["part"], attrs["axes"]
            known = found.get(image)
            if known is not None and (known.part == "test" or part != "test"):
                continue
            if prepared.classes(image) is not None:
                found[image] = AuditedImage(image, number, part, axes, prepared, segmentation, task)
    return [found[image] for image in sorted(found)]


def labelled_images(prepared: Prepared) -> int:
    """Number of images with labels, whether they are predicted or not."""
    return sum(prepared.classes(image) is not None for image in prepared.ids())
