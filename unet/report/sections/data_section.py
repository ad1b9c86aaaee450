"""The images and labels, how they are split, and what was left out."""

from __future__ import annotations

from unet.report import collect
from unet.report.dataset_results import DatasetResults, PageSection

# Number of ids per part of a split, and of quarantined files, to list; the tables have all.
LISTED = 200


def section(data: DatasetResults) -> PageSection | None:
    records = data.records
    objects = collect.objects_fact(records) if data.settings.task == "instances" else None
    return data.section(
        "data",
        "Data" if data.settings.applied else "Data and split",
        facts=[
            *collect.facts(records),
            *([objects] if objects else []),
            *collect.noted_facts(data.paths, data.dataset),
        ],
        splits=data.splits,
        quarantined=[record for record in records if record.status == "quarantined"],
        listed=LISTED,
    )
