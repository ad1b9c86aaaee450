"""Precision and recall of each class over the thresholds of its probability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from unet.evaluation.metrics.precision_recall import PrecisionRecall
from unet.paths import ENSEMBLE
from unet.report import collect
from unet.report.class_numbers import class_curve, curve_finding
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.detail_figures import precision_recall_plot
from unet.report.explained_plot import ExplainedPlot, in_parts, picture
from unet.report.numbers import number

# Most classes with a plot.
SHOWN = 6
# Thresholds in the table of numbers.
LISTED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def section(data: DatasetResults) -> PageSection | None:
    curves: dict[str, dict[str, PrecisionRecall]] = {}
    for name in data.settings.class_names[1:]:
        for model, details in data.details.items():
            curve = class_curve(details.thresholds, name)
            if curve is not None:
                curves.setdefault(name, {})[model] = curve
    if not curves:
        return None
    thresholds = {model: _chosen(data, model) for model in data.details}
    shown = [_plot(data, name, curves[name], thresholds) for name in list(curves)[:SHOWN]]
    return data.section("thresholds", "Thresholds", curves=shown, more=list(curves)[SHOWN:])


def _chosen(data: DatasetResults, model: str) -> list[float]:
    """The threshold of each fold; with more than two classes the most probable one is taken."""
    if len(data.settings.class_names) > 2:
        return []
    where = (data.paths, data.dataset, model)
    folds = data.tested or data.settings.folds or (ENSEMBLE,)
    found = [collect.training(*where, fold, []).threshold for fold in folds]
    return [value for value in found if not math.isnan(value)]


def _plot(
    data: DatasetResults,
    name: str,
    curves: Mapping[str, PrecisionRecall],
    thresholds: Mapping[str, Sequence[float]],
) -> ExplainedPlot:
    sentences, pictures = {}, []
    for model, curve in curves.items():
        images = data.details[model].thresholds.images[name]
        sentences[model] = curve_finding(model, name, curve, thresholds[model], images)
    for part in in_parts(list(curves)):
        figure = precision_recall_plot({m: curves[m] for m in part}, thresholds, data.models)
        what = f"Precision against recall of {name} over thresholds, {', '.join(part)}"
        pictures.append(picture(figure, what, [sentences[m] for m in part]))
    marked = any(thresholds[model] for model in curves)
    return ExplainedPlot(
        f"Pixels of class {name}",
        "Each curve goes over all thresholds of the probability, counting the pixels of all test "
        "images together."
        + (" A mark shows the threshold that was used (of each fold)." if marked else "")
        + " Thin lines join points of equal F1. The highest F1 is that of these test images: do "
        "not choose a threshold by it.",
        tuple(sentences.values()),
        tuple(pictures),
        ("Model", "Threshold", "Precision", "Recall", "F1"),
        tuple(
            (model, f"{t:.2f}", *(number(float(v[curve.at(t)])) for v in
                                  (curve.precision, curve.recall, curve.f1)))
            for model, curve in curves.items()
            for t in LISTED
        ),
    )  # fmt: skip
