"""The work of ``unet check`` and of the stage check: survey, proposals, estimates, page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unet import provenance
from unet.cli.package_findings import package_findings
from unet.cli.start_findings import Images, start_findings
from unet.cli.training_findings import training_findings
from unet.config.check_settings import CheckSettings
from unet.config.data_settings import SplitsSettings
from unet.config.run import Config
from unet.data.dataset_warnings import write_warnings
from unet.data.raw_files import RawSource
from unet.data.records import ImageRecord, SplitRecord, read_splits
from unet.data.survey.facts import DatasetSurvey
from unet.data.survey.findings import Finding, worst_first
from unet.files import write_json
from unet.paths import Paths
from unet.planning.estimated_jobs import Machine
from unet.planning.estimates import estimates
from unet.planning.jobs import Run
from unet.report.checked import Checked, suggestions
from unet.training.auto.proposals import proposals

# Kinds of findings (unet.data.survey.judge) that say how far scores can be trusted, and that no
# other stage warns of. The report repeats them.
ABOUT_SCORES = (
    "same_across_parts", "near_across_parts", "neighbours_across_parts", "sequence",
    "sparse_labels", "masks_same",
)  # fmt: skip


def raw_source(config: Config, dataset: str) -> RawSource:
    """The raw files of a dataset, with the same arguments as in the manifest stage."""
    data, raw = config.datasets[dataset], Run(config).sources.of(dataset)
    required = data.predict_with is None
    where = (raw.root, raw.images, raw.labels)
    return RawSource(*where, data.layout, data.labelled or required, required)


def surveyed(
    config: Config,
    dataset: str,
    threads: int,
    records: Sequence[ImageRecord] | None = None,
    splits: Sequence[SplitRecord] | None = None,
) -> DatasetSurvey:
    """The survey of a dataset; without ``records`` its files are read first."""
    from unet.data.survey.survey import survey_dataset

    source = raw_source(config, dataset)
    return survey_dataset(config, dataset, source, threads=threads, records=records, splits=splits)


def known_splits(paths: Paths, config: Config, dataset: str) -> list[SplitRecord] | None:
    """The rows of ``splits.csv``, if it is up to date; None otherwise.

    The check does not wait for the stage splits, which ends with an error where a dataset cannot be
    split: that error is to be a finding on the page.
    """
    table, manifest = paths.splits(dataset), paths.manifest(dataset)
    made = provenance.read_made_by(table) if table.is_file() else None
    if made is None or made["settings"] != SplitsSettings.of(config, dataset).to_json():
        return None
    name = provenance.name_of(paths.output, manifest)
    if made.get("inputs", {}).get(name) != provenance.content_id(manifest):
        return None
    return read_splits(table)


def judged(
    config: Config,
    dataset: str,
    surveys: Mapping[str, DatasetSurvey],
    machine: Machine,
    starts: Mapping[str, Path] | None = None,
    started: Mapping[str, Sequence[ImageRecord]] | None = None,
) -> Checked:
    """A survey with proposals and estimates; without them if nothing can be trained.

    Args:
        surveys: by dataset; with those of the datasets whose models predict it, if known.
        starts: model -> the file that its training starts from; None: by the config.
        started: the manifests of datasets whose models trainings of this one start from; of those
            without one the survey says what their images are.
    """
    survey = surveys[dataset]
    seen: dict[str, Images] = {name: each.images for name, each in surveys.items()}
    seen.update(started or {})
    of_config = [
        *start_findings(config, dataset, survey, starts, seen),
        *training_findings(config, dataset),
        *package_findings(config, dataset),
    ]
    if of_config:
        survey = replace(survey, findings=tuple(worst_first([*survey.findings, *of_config])))
        surveys = {**surveys, dataset: survey}
    if not any(image.status == "ok" for image in survey.images):
        return Checked(survey)
    proposed = [] if config.origins_for(dataset) else proposals(survey)
    found = [(each.key, each.value, each.reason) for each in proposed]
    costs = estimates(config, dataset, surveys, machine)
    return Checked(survey, suggestions(config, dataset, found), tuple(costs))


def this_machine(device: str, threads: int) -> Machine:
    """The speed of this machine, measured in a second or two."""
    from unet.training.auto.speed import measured_flops

    return Machine(measured_flops(device, threads), threads)


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_checked(
    paths: Paths, config: Config, checked: Checked, made_by: Mapping[str, Any] | None = None
) -> None:
    """Writes ``check.html``, and then ``check.json``; in the workflow also the findings about the
    scores, for the report.

    Args:
        made_by: what made the files (:mod:`unet.provenance`), if a stage of the workflow did.
    """
    from unet.report.check_page import write_check_page

    dataset = checked.survey.dataset
    root = Run(config).sources.of(dataset).root
    write_check_page(paths.check_html(dataset), checked, config.datasets[dataset], root)
    if made_by is None:
        # Without inputs, so that a run of the workflow checks again, with its manifest and split.
        settings = CheckSettings.of(config, dataset).to_json()
        made_by = provenance.made_by("check", settings, {})
    else:
        lines = [_line(each) for each in checked.survey.findings if each.kind in ABOUT_SCORES]
        write_warnings(paths.warnings(dataset, "check"), lines)
    write_json(paths.check_json(dataset), {**checked.to_json(), "made_by": dict(made_by)})


def _line(finding: Finding) -> str:
    return f"{finding.where}: {finding.text}" if finding.where else finding.text
