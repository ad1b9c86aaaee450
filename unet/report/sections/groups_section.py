"""The main score of each group of images: which group fails."""

from __future__ import annotations

from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.detail_figures import group_plot
from unet.report.explained_plot import ExplainedPlot, in_parts, picture
from unet.report.group_numbers import GroupScore, group_finding, group_scores, worst_first
from unet.report.numbers import number

# Most groups in the plot; the table has all.
SHOWN = 24


def section(data: DatasetResults) -> PageSection | None:
    if not data.columns:
        return None
    score = data.columns[0]
    found = group_scores(data.metrics, score, data.scored)
    order = worst_first(found, score)
    if len(order) < 2:
        return None
    sentences = {model: group_finding(model, groups, score) for model, groups in found.items()}
    pictures = []
    for models in in_parts(list(found)):
        figure = group_plot({m: found[m] for m in models}, order[:SHOWN], score.label, data.scored)
        what = f"{score.label} of the test images by group, {', '.join(models)}"
        pictures.append(picture(figure, what, [sentences[m] for m in models]))
    shown = f" The {SHOWN} worst of {len(order)} groups are shown." if len(order) > SHOWN else ""
    cells = {(m, g.group): g for m, groups in found.items() for g in groups}
    rows = [(name, *_cells([cells.get((m, name)) for m in found])) for name in order]
    plot = ExplainedPlot(
        f"{score.label} of each group, the worst first",
        f"Each mark is a test image, a line the mean of a group.{shown}",
        tuple(sentences.values()),
        tuple(pictures),
        ("Group", *(head for model in found for head in (model, "images"))),
        tuple(rows),
    )
    return data.section("groups", "Groups", plot=plot)


def _cells(groups: list[GroupScore | None]) -> list[str]:
    return [
        text
        for group in groups
        for text in (("–", "0") if group is None else (number(group.mean), str(len(group.scores))))
    ]
