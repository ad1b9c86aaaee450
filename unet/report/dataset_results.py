"""What the stages found out about a dataset, for the sections of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup

from unet.config.stage_settings import ReportSettings
from unet.data.records import ImageRecord, read_manifest, read_splits
from unet.evaluation.audit.audit_summary import AuditSummary
from unet.evaluation.audit.doubts import Doubt
from unet.evaluation.metrics.rows import MetricRow
from unet.export.mark_colours import Rgb
from unet.paths import Paths, compared_model, fold_number
from unet.report import collect, overlays, score_tables
from unet.report.detail_tables import Details, read_details
from unet.report.page_file import render
from unet.report.paired import Statistics
from unet.report.score_tables import MeanScore, ReportRow
from unet.report.shared_doubts import read_audits


@dataclass(frozen=True)
class PageSection:
    """A section of a page.

    Attributes:
        id: of its element; links and tests use it.
        title: in the list of links at the top of the page.
        html: the whole ``<section>``.
    """

    id: str
    title: str
    html: Markup


@dataclass(frozen=True, eq=False)
class DatasetResults:
    """The results of a dataset. What several sections need is read once.

    Attributes:
        metrics: the rows of all models, then of all tools whose masks are compared with theirs;
            one per test image, class and metric.
        rows: their means over the images.
    """

    paths: Paths
    dataset: str
    settings: ReportSettings
    metrics: Sequence[MetricRow]
    rows: Sequence[ReportRow]
    statistics: Statistics

    @property
    def models(self) -> tuple[str, ...]:
        return self.settings.models

    @property
    def compared(self) -> tuple[str, ...]:
        """The tools whose masks are compared with those of the models."""
        return self.settings.compared

    @property
    def scored(self) -> tuple[str, ...]:
        """The models, then the tools: all names in the column ``model`` of :attr:`metrics`."""
        return (*self.models, *self.compared)

    def model_path(self, name: str) -> str:
        """What :class:`unet.paths.Paths` takes for one of :attr:`scored`: a tool's results have a
        folder of their own, with the same files as those of a model."""
        return compared_model(name) if name in self.compared else name

    @cached_property
    def columns(self) -> list[MeanScore]:
        """The main scores that were measured; the first one ranks images and models."""
        return score_tables.columns_for(self.rows, self.settings.task)

    @cached_property
    def records(self) -> list[ImageRecord]:
        """The rows of the manifest.

        Raises:
            UserError: it is missing or unreadable.
        """
        return read_manifest(self.paths.manifest(self.dataset))

    @cached_property
    def splits(self) -> dict[int, dict[str, list[str]]]:
        """Fold -> part -> sorted image ids; none if models of other datasets predict."""
        if self.settings.applied is not None:
            return {}
        rows = read_splits(self.paths.splits(self.dataset))
        return collect.split_counts(rows, self.settings.folds)

    @cached_property
    def details(self) -> dict[str, Details]:
        """Model -> the tables behind its scores; models without them are left out.

        Raises:
            UserError: a table is damaged.
        """
        applied = self.settings.applied
        scored = self.models if applied is None or applied.labelled else ()
        return read_details(self.paths, self.dataset, scored)

    @cached_property
    def audits(self) -> list[tuple[AuditSummary, list[Doubt]]]:
        """The audits of the models that have one; none if models of other datasets predict.

        Raises:
            UserError: a table is damaged.
        """
        if self.settings.applied is not None:
            return []
        return read_audits(self.paths, self.dataset, self.models)

    @property
    def tested(self) -> tuple[int, ...]:
        """The tested folds, if they differ from the trained ones (the ensemble); else none."""
        return tuple(map(fold_number, self.settings.tested))

    @property
    def classes(self) -> list[tuple[str, Rgb]]:
        """Name and colour of each class."""
        names = enumerate(self.settings.class_names)
        return [(name, overlays.class_colour(k)) for k, name in names]

    def section(self, id: str, title: str, **values: Any) -> PageSection:
        """The section with the template ``sections/<id>.html.j2``, which also gets ``data`` (this
        object), ``task``, ``models``, ``columns``, ``classes`` and ``applied`` (whether models of
        another dataset predict)."""
        common = {
            "data": self,
            "task": self.settings.task,
            "models": self.models,
            "columns": self.columns,
            "classes": self.classes,
            "applied": self.settings.applied is not None,
        }
        html = render(f"sections/{id}.html.j2", **{**common, **values})
        return PageSection(id, title, Markup(html))
