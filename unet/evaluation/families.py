"""The families of metrics that can be named in ``evaluate.metrics``.

To add one, write a function that takes a fold and returns a function that scores one image, a line
in `FAMILIES`, and one in `unet.config.choices.FAMILY_TABLE` that describes it. What it needs of the
image's blocks is in `block_parts.py`: it is computed in one pass for all families.
"""

from __future__ import annotations

from collections.abc import Callable

from unet.errors import UserError
from unet.evaluation.block_parts import TABLE, confusion_matrix, outlines, reliability_sums
from unet.evaluation.fold import Case, Fold, Scored, Scorer
from unet.evaluation.membrane_cells import isbi2012, topology
from unet.evaluation.metrics.boundary import Tolerance, boundary_metrics
from unet.evaluation.metrics.calibration import calibration_metrics
from unet.evaluation.metrics.contingency import Contingency
from unet.evaluation.metrics.instance import INSTANCES, instance_metrics
from unet.evaluation.metrics.object_errors import object_metrics
from unet.evaluation.metrics.pixel import foreground_means, pixel_metrics
from unet.evaluation.metrics.rand import rand_metrics
from unet.evaluation.metrics.rows import SEAM_SCORE, Score


def pixel(fold: Scored) -> Scorer:
    """Metrics of the class map, per class, from a confusion matrix summed over blocks."""

    matrix = confusion_matrix(len(fold.class_names))
    return Scorer(lambda case: pixel_metrics(case.totals[matrix], fold.class_names), (matrix,))


def _of_table(metrics: Callable[[Contingency], list[Score]]) -> Callable[[Scored], Scorer | None]:
    """A family of object metrics, from the table of ids; None for task semantic."""

    def family(fold: Scored) -> Scorer | None:
        if fold.task != "instances":
            return None
        return Scorer(lambda case: metrics(case.totals[TABLE]), (TABLE,))

    return family


def boundary(fold: Scored) -> Scorer:
    """Distances between outlines: per class except the first, and of the objects. Images with
    sparse labels have none."""
    tolerance = Tolerance.parse(fold.settings.boundary_tolerance)
    if tolerance.unit == "um":
        for image in fold.ids("test"):
            if not fold.open(image).pixel_size_um:
                raise UserError(
                    f"evaluate.boundary_tolerance: {fold.settings.boundary_tolerance}, but the "
                    f"pixel size of image {image} is unknown; write a distance in px, or "
                    "datasets.<name>.pixel_size_um"
                )
    names = fold.class_names
    found = outlines(len(names))

    def score(case: Case) -> list[Score]:
        if case.pair.sparse:
            return []  # outlines on unlabelled pixels may be right
        spacing = case.pair.pixel_size_um
        classes, objects = case.totals[found]
        rows: list[Score] = []
        for k, surfaces in classes.items():
            rows += boundary_metrics(names[k], surfaces, tolerance, spacing)
        hd95 = "hd95_px" if spacing is None else "hd95_um"
        rows += foreground_means(rows, names, ("boundary_f1", hd95))
        if objects is not None:
            rows += boundary_metrics(INSTANCES, objects, tolerance, spacing)
        return rows

    return Scorer(score, (found,))


def calibration(fold: Fold) -> Scorer:
    """How reliable the probabilities are."""
    names = fold.class_names
    sums = reliability_sums(names)
    return Scorer(lambda case: calibration_metrics(case.totals[sums], names), (sums,))


def seams(fold: Fold) -> Scorer:
    """The seam score of images with several tiles. Not a family in the config, because it does not
    depend on the labels."""

    def score(case: Case) -> list[Score]:
        found = fold.segmentation.seam_score(case.pair.image)
        return [] if found is None else [Score("", SEAM_SCORE, found)]

    return Scorer(score)


# The families that compare masks, so they need no probabilities.
MASK_FAMILIES: dict[str, Callable[[Scored], Scorer | None]] = {
    "pixel": pixel,
    "instance": _of_table(instance_metrics),
    "objects": _of_table(object_metrics),
    "rand": _of_table(rand_metrics),
    "boundary": boundary,
}

# A family of metrics: takes a fold and returns a function that scores one image, or None if the
# family does not apply.
FAMILIES: dict[str, Callable[[Fold], Scorer | None]] = {
    **MASK_FAMILIES,
    "calibration": calibration,
    "topology": topology,
    "isbi2012": isbi2012,
}
