"""Which class is predicted as which other one."""

from __future__ import annotations

from unet.report.class_numbers import class_confusion, confusion_finding
from unet.report.dataset_results import DatasetResults, PageSection


def section(data: DatasetResults) -> PageSection | None:
    if data.settings.task != "semantic":
        return None
    found = {
        model: class_confusion(details.confusion, data.settings.class_names)
        for model, details in data.details.items()
        if details.confusion.images
    }
    if not found:
        return None
    sentences = [confusion_finding(model, each) for model, each in found.items()]
    return data.section("confusion", "Classes", confusions=found, sentences=sentences)
