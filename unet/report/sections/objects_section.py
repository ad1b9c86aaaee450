"""Numbers and sizes of true and predicted objects, and which sizes are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from unet.report import object_numbers
from unet.report.console import percent
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.detail_figures import count_plot, found_plot, size_plot
from unet.report.detail_tables import ObjectTable
from unet.report.explained_plot import ExplainedPlot, in_parts, picture
from unet.report.numbers import number
from unet.report.object_numbers import SizeUnit, size_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables = Mapping[str, ObjectTable]


def section(data: DatasetResults) -> PageSection | None:
    details = data.details
    if data.settings.task != "instances" or not any(d.images for d in details.values()):
        return None
    tables = {model: found.objects for model, found in details.items()}
    volumes = any("Z" in record.axes for record in data.records)
    unit = object_numbers.size_unit(tables.values(), volumes)
    has_objects = any(len(object_numbers.true_sizes(t, unit)) for t in tables.values())
    makers = (_sizes, _found) if has_objects else ()
    sized = [make(tables, unit, data.models) for make in makers]
    # Without ``instance`` in evaluate.metrics, a tool's objects are not even counted.
    counted = [
        tool for tool in data.compared if object_numbers.scored_counts(data.metrics, tool)[0]
    ]
    rest = [tool for tool in data.compared if tool not in counted]
    values = {"counts": _counts(data), "sized": sized, "counted": counted, "uncounted": rest}
    return data.section("objects", "Objects", **values)


def _pictures(
    sentences: Mapping[str, str], what: str, draw: Callable[[list[str]], Figure]
) -> tuple[tuple[str, str], ...]:
    """A picture per few models, each with what it shows of them."""
    found = []
    for part in in_parts(list(sentences)):
        texts = [sentences[model] for model in part]
        found.append(picture(draw(list(part)), f"{what}, {', '.join(part)}", texts))
    return tuple(found)


def _counts(data: DatasetResults) -> ExplainedPlot:
    counts = {m: object_numbers.image_counts(d) for m, d in data.details.items()}
    hits: dict[str, int | None] = {
        m: object_numbers.found_number(d.objects) for m, d in data.details.items()
    }
    # A tool's masks have scores, but no table of objects.
    for tool in data.compared:
        scored, found = object_numbers.scored_counts(data.metrics, tool)
        if scored:
            counts[tool], hits[tool] = scored, found
    sentences = {m: object_numbers.count_finding(m, own, hits[m]) for m, own in counts.items()}
    cells = {(m, c.image): c for m, found in counts.items() for c in found}
    images = sorted({image for _, image in cells})
    rows = []
    for image in images:
        own = [cells.get((m, image)) for m in counts]
        true = next(c.true for c in own if c is not None)
        rows.append((image, str(true), *("–" if c is None else str(c.pred) for c in own)))
    return ExplainedPlot(
        "Number of objects in each image",
        "Each mark is a test image. Above the diagonal there are too many predicted objects (false "
        "or split ones), below it too few (missed or merged ones).",
        tuple(sentences.values()),
        _pictures(sentences, "Predicted against true number of objects per test image",
                  lambda models: count_plot({m: counts[m] for m in models}, data.scored)),
        ("Image", "true", *counts),
        tuple(rows),
    )  # fmt: skip


def _sizes(tables: Tables, unit: SizeUnit, every: Sequence[str]) -> ExplainedPlot:
    true = {m: object_numbers.true_sizes(table, unit) for m, table in tables.items()}
    pred = {m: object_numbers.pred_sizes(table, unit) for m, table in tables.items()}
    sentences = {m: object_numbers.size_finding(m, true[m], pred[m], unit) for m in tables}
    # Models may differ in their test images; the plot shows the true objects of the most.
    most = max(true.values(), key=len)
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    rows = []
    for name, own in (("true", most), *pred.items()):
        texts = [size_text(float(q)) for q in own.quantiles(shares)] if len(own) else ["–"] * 5
        rows.append((name, str(len(own)), *texts))
    return ExplainedPlot(
        "Sizes of objects",
        "Objects of all test images; those that the image's border cuts count with what is inside.",
        tuple(sentences.values()),
        _pictures(sentences, "Distribution of object sizes, true and predicted",
                  lambda models: size_plot(most, {m: pred[m] for m in models}, unit.name, every)),
        ("Objects", "n", *(f"{100 * share:.0f} % are below" for share in shares)),
        tuple(rows),
    )  # fmt: skip


def _found(tables: Tables, unit: SizeUnit, every: Sequence[str]) -> ExplainedPlot:
    edges = object_numbers.size_edges(
        max((object_numbers.true_sizes(table, unit) for table in tables.values()), key=len)
    )
    bins = {m: object_numbers.size_bins(table, edges, unit) for m, table in tables.items()}
    sentences = {m: object_numbers.found_finding(m, table, unit) for m, table in tables.items()}
    rows = [
        (model, f"{size_text(b.low)} to {size_text(b.high)}", str(b.n), percent(b.found),
         number(b.iou))
        for model, found in bins.items()
        for b in found
    ]  # fmt: skip
    fewest = min(b.n for found in bins.values() for b in found)
    largest = max(b.n for found in bins.values() for b in found)
    each = f"{fewest}" if fewest == largest else f"{fewest} to {largest}"
    return ExplainedPlot(
        "Which sizes are found",
        "True objects in bins of similar size: the share that is found (IoU at least 0.5, one to "
        f"one), and the mean IoU of those. Each mark stands for {each} objects.",
        tuple(sentences.values()),
        _pictures(sentences, "Share of objects found and their mean IoU by size",
                  lambda models: found_plot({m: bins[m] for m in models}, unit.name, every)),
        ("Model", f"Size ({unit.name})", "Objects", "found", "mean IoU"),
        tuple(rows),
    )  # fmt: skip
