"""Heat maps of the plates: objects, or classes, and the main score of each well; the numbers go to
``wells.csv``."""

from __future__ import annotations

from unet.files import read_json, remove
from unet.report.dataset_results import DatasetResults, PageSection
from unet.report.plate_figures import plate_plot, result_plots
from unet.report.well_numbers import Well, wells_of, with_objects, with_scores, write_wells


def section(data: DatasetResults) -> PageSection | None:
    table = data.paths.wells(data.dataset)
    models = {model: found for model in data.models if (found := _wells(data, model))}
    if not models:
        remove(table)  # of an earlier run with other files
        return None
    write_wells(table, models)
    maps = result_plots(models, data.settings.task, data.settings.class_names)
    for score in data.columns[:1]:
        title = f"{score.label} of each well"
        if (plot := plate_plot(models, score.label, title, score.label)) is not None:
            maps.append(plot)
    return data.section("plate", "Plate", maps=maps)


def _wells(data: DatasetResults, model: str) -> list[Well]:
    """The wells with the images that the model was tested on, or was applied to."""
    tables = {}
    if any(record.well is not None for record in data.records):
        for fold in data.tested or data.settings.folds:
            done = data.paths.segmentation_done(data.dataset, model, fold)
            if done.is_file():
                entries = read_json(done)["images"].items()
                tested = [image for image, entry in entries if entry["part"] == "test"]
                tables[data.paths.objects(data.dataset, model, fold)] = tested
    wells = wells_of(data.records, (image for images in tables.values() for image in images))
    wells = with_objects(wells, tables, data.settings.task)
    return with_scores(wells, data.metrics, model, data.columns)
