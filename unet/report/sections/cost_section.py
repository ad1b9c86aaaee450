"""What the stages cost: time and memory."""

from __future__ import annotations

from unet.report import costs
from unet.report.dataset_results import DatasetResults, PageSection


def section(data: DatasetResults) -> PageSection | None:
    folds = [*data.settings.folds, *data.tested]
    cost = costs.all_costs(data.paths, data.dataset, data.settings, folds)
    return data.section(
        "cost",
        "Cost",
        cost=cost,
        total=costs.total_cost(cost),
        sweeps=data.settings.sweeps,
    )
