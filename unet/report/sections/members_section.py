"""The main score of each dataset of a join, beside that of training on it alone."""

from __future__ import annotations

from unet.evaluation.metrics.rows import read_metrics
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.detail_figures import group_plot
from unet.report.explained_plot import ExplainedPlot, in_parts, picture
from unet.report.member_scores import as_groups, mean_of, member_scores, sentence
from unet.report.numbers import NO_VALUE, number


def section(data: DatasetResults) -> PageSection | None:
    joined = data.settings.joined
    if not joined or not data.columns:
        return None
    score, confidence = data.columns[0], data.settings.report.confidence
    alone = {
        (name, model): read_metrics(data.paths.metrics(name, model))
        for name, models in joined.items()
        for model in models
    }
    where = (score, data.models, list(joined), data.statistics)
    found = member_scores(data.metrics, alone, *where)
    if not found:
        return None
    pictures = []
    for models in in_parts(data.models, 3):
        shown = [each for each in found if each.model in models]
        series = as_groups(shown)
        figure = group_plot(series, list(joined), score.label, list(series))
        what = f"{score.label} of the test images by dataset, {', '.join(models)}"
        pictures.append(picture(figure, what, [sentence(e, score, confidence) for e in shown]))
    rows = []
    for each in found:
        gain = NO_VALUE if each.gain is None else number(each.gain.mean)
        parts = (each.rows, each.alone)
        cells = [text for part in parts for text in (number(mean_of(part)), str(len(part)))]
        rows.append((each.dataset, each.model, *cells, gain))
    plot = ExplainedPlot(
        f"{score.label} by dataset",
        "Each mark is a test image, a line the mean of a dataset. Alone: the same model, trained "
        "on this dataset only, and scored on the same images.",
        tuple(sentence(each, score, confidence) for each in found),
        tuple(pictures),
        ("Dataset", "Model", score.label, "images", "alone", "images alone", "difference"),
        tuple(rows),
    )
    return data.section("members", "Datasets", plot=plot)
