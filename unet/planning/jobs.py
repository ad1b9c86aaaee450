"""Sources, fingerprints, inputs and targets of a run. Loads neither torch nor dask.

This is the Snakefile's logic, in a place where it can be tested.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from unet.config.check_settings import CheckAllSettings, CheckSettings
from unet.config.compare_settings import CompareSettings
from unet.config.data_settings import ManifestSettings
from unet.config.learning_curve import collapsed
from unet.config.run import Config
from unet.config.sections import CHOOSING
from unet.config.stage_settings import SETTINGS, ReportAllSettings, ReportSettings
from unet.errors import UserError
from unet.files import canonical, locked, read_json
from unet.paths import ENSEMBLE, Paths, compared_model, fold_name, fold_number, origin_of
from unet.planning.report_inputs import explaining_tables, report_inputs
from unet.planning.resources import Images, raw_images

if TYPE_CHECKING:
    from unet.data.raw_files import RawSource


@dataclass(frozen=True)
class SourcePaths:
    """The paths of a dataset's raw files; passed to the manifest stage, never tracked."""

    root: Path
    images: str
    labels: str | None


def offer_interpreter() -> None:
    """Puts the running interpreter's folder first on PATH, so that jobs use the same ``python`` as
    the workflow even if no environment is activated."""
    folder = str(Path(sys.executable).parent)
    known = os.environ.get("PATH", "").split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([folder, *(p for p in known if p != folder)])


class Run:
    """A validated config with its paths.

    Args:
        config: the run's config.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.paths = Paths(Path(config.output))
        self._fingerprints: dict[str, str] = {}
        self._compared: dict[tuple[str, str], str] = {}
        self._listed: dict[str, list[Path]] = {}
        self._settings: dict[tuple[str, str, str | None], str] = {}
        self._raw: dict[str, Images] = {}
        # Locks that this process keeps until it ends.
        self._locks = ExitStack()

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """All (dataset, model), sorted."""
        return [(d, m) for d in sorted(self.config.datasets) for m in self.config.models_for(d)]

    def folds(self, dataset: str) -> tuple[int, ...]:
        """The folds that are trained; none for a dataset that models of others predict."""
        return self.config.folds_for(dataset)

    def tested(self, dataset: str) -> tuple[int, ...]:
        """The folds that are predicted and evaluated: the trained ones, or their ensemble."""
        return self.config.tested_for(dataset)

    def members(self, dataset: str, fold: str, model: str = "") -> tuple[int, ...]:
        """The folds whose networks predict the fold with this name."""
        origin, number = origin_of(model), fold_number(fold)
        trained = self.folds(dataset if origin is None else origin.dataset)
        return trained if number == ENSEMBLE else (number,)

    def networks(self, dataset: str, model: str, fold: str = fold_name(ENSEMBLE)) -> list[Path]:
        """The model files that predict the fold with this name."""
        members = self.members(dataset, fold, model)
        return [self.paths.model(dataset, model, member) for member in members]

    def splits(self, dataset: str) -> list[Path]:
        """The table of training and test images; none if all images are tested."""
        return [] if self.config.origins_for(dataset) else [self.paths.splits(dataset)]

    def shards(self, dataset: str, model: str, fold: str) -> list[Path]:
        """The sentinels of the jobs that share the prediction of a fold; none for a single job."""
        count = self.config.predict_for(dataset, model).shards
        if count == 1:
            return []
        return [self.paths.shard_done(dataset, model, fold, shard) for shard in range(count)]

    def thresholds(self, dataset: str, model: str) -> list[Path]:
        """For a model that was trained on another dataset: the files with the thresholds that were
        chosen there; none if the config sets a threshold."""
        origin = origin_of(model)
        if origin is None or self.config.stitch_for(dataset, model).threshold != "auto":
            return []
        folds = self.tested(origin.dataset)
        return [self.paths.segmentation_done(origin.dataset, origin.model, k) for k in folds]

    def threshold_scores(self, dataset: str, model: str) -> list[Path]:
        """For a model that was trained on another dataset: the scores with the thresholds that
        metrics chose there."""
        origin = origin_of(model)
        if origin is None or not CHOOSING.intersection(self.config.evaluate_for(dataset).metrics):
            return []
        return [self.paths.metrics(origin.dataset, origin.model)]

    def origin_checks(self, dataset: str) -> list[Path]:
        """The checks of the datasets whose models predict this one."""
        names = dict.fromkeys(origin.dataset for origin in self.config.origins_for(dataset))
        return [self.paths.check_json(name) for name in names]

    def report_inputs(self, dataset: str) -> list[Path]:
        """What the dataset's report is made from, see :mod:`unet.planning.report_inputs`."""
        settings = ReportSettings.of(self.config, dataset)
        where = (self.paths, dataset, settings)
        return [*report_inputs(*where), *explaining_tables(*where)]

    def compared_source(self, dataset: str, tool: str) -> SourcePaths:
        """Where the masks of another tool are."""
        root = Path(os.path.expandvars(self.config.data_root)).expanduser()
        masks = str(Path(self.config.datasets[dataset].compare[tool]).expanduser())
        return SourcePaths(root, masks, None)

    def prepared_for(self, dataset: str) -> str:
        """The model whose prepared images hold the labels; "" for a dataset with models of its
        own, which share them."""
        models = self.config.models_for(dataset) if self.config.origins_for(dataset) else ("",)
        return models[0]

    def compared_fingerprint(self, dataset: str, tool: str) -> str:
        """Identifies the content of another tool's masks, as :meth:`fingerprint` does for images.

        Raises:
            UserError: the folder is missing, or holds no mask.
        """
        from unet.data.compared_masks import find_compared, label_of, masks_fingerprint

        key = (dataset, tool)
        if key not in self._compared:
            source, task = self.compared_source(dataset, tool), self.config.datasets[dataset].task
            name = f"config: datasets.{dataset}.compare.{tool}"
            found = find_compared(source.images, source.root, name, label_of(task))
            noted = self.paths.compared_files(dataset, tool)
            self._compared[key] = masks_fingerprint(found, noted)
        return self._compared[key]

    def compared_results(self, dataset: str, tool: str) -> list[Path]:
        """The stores that the comparison makes besides its table of scores."""
        model, folds = compared_model(tool), self.tested(dataset)
        return [self.paths.segmentation(dataset, model, fold) for fold in folds]

    @cached_property
    def judged(self) -> list[tuple[str, str]]:
        """All (dataset, model of another dataset) whose results the stage quality judges."""
        return [(d, m) for d, m in self.pairs if self.config.origins_for(d)]

    def quality_inputs(self, dataset: str, model: str) -> list[Path]:
        """What the stage quality reads: the segmentations of the dataset and of the one that the
        model was trained on, the prepared images of both, the networks, and the scores there."""
        origin = origin_of(model)
        if origin is None:
            return []
        tested = self.tested(origin.dataset)
        paths = self.paths
        return [
            *(paths.segmentation_done(dataset, model, fold) for fold in self.tested(dataset)),
            paths.prepared_done(dataset, model),
            *self.networks(dataset, model),
            *(paths.segmentation_done(origin.dataset, origin.model, fold) for fold in tested),
            paths.prepared_done(origin.dataset),
            paths.metrics(origin.dataset, origin.model),
        ]

    def results(self, dataset: str, model: str, fold: str) -> list[Path]:
        """The results of a segmented fold for the user; ``segmentation.json`` is their sentinel."""
        where = (dataset, model, fold)
        masks = [self.paths.masks(*where)] if self.config.stitch_for(dataset, model).tiff else []
        return [self.paths.segmentation(*where), self.paths.objects(*where), *masks]

    @cached_property
    def targets(self) -> list[Path]:
        """The results of a whole run for the user: reports, models, segmentations, scores."""
        paths, found = self.paths, [self.paths.report_csv, self.paths.report_html]
        for dataset, model in self.pairs:
            found += [paths.model(dataset, model, fold) for fold in self.folds(dataset)]
            tested = self.tested(dataset)
            found += [paths.segmentation_done(dataset, model, fold) for fold in tested]
            if self.config.datasets[dataset].labelled:
                found.append(paths.metrics(dataset, model))
        for dataset, data in self.config.datasets.items():
            found += [paths.metrics(dataset, compared_model(tool)) for tool in data.compare]
            settings = ReportSettings.of(self.config, dataset)
            found += explaining_tables(paths, dataset, settings)
        return found

    def is_synthetic(self, dataset: str) -> bool:
        return self.config.datasets[dataset].synthetic is not None

    def source(self, dataset: str) -> SourcePaths:
        """The paths of the raw files: below ``data_root``, or where they are generated."""
        data = self.config.datasets[dataset]
        if data.synthetic is not None:
            return SourcePaths(self.paths.raw(dataset), "images", "labels")
        root = Path(os.path.expandvars(self.config.data_root)).expanduser()
        return SourcePaths(root, data.images or "", data.labels)

    def fingerprint(self, dataset: str) -> str:
        """Identifies the raw files' content (by names, sizes and times; by hashes if touched).

        Raises:
            UserError: a folder is missing or a glob matches nothing.
        """
        from unet.data.raw_changes import FolderListing, fingerprint

        if self.is_synthetic(dataset):
            return ""  # the synthesize stage's sentinel identifies them
        if dataset not in self._fingerprints:
            inputs, root = self.paths.inputs(dataset), self.source(dataset).root
            if not inputs.is_file():
                value = fingerprint(self._files(dataset), root, None)
                return self._fingerprints.setdefault(dataset, value)
            note, seen = (inputs.with_name(f".inputs-{name}.json") for name in ("listed", "seen"))
            listed = FolderListing(note, self._source(dataset), inputs)
            known = listed.fingerprint()
            if known is None:
                stored = read_json(inputs)
                known = fingerprint(self._files(dataset), root, stored, seen)
                if known == stored["fingerprint"]:
                    listed.keep(known)
            self._fingerprints[dataset] = known
        return self._fingerprints[dataset]

    def _source(self, dataset: str) -> RawSource:
        """A dataset's raw files, with the same arguments as in the manifest stage."""
        from unet.data.raw_files import RawSource

        data, raw = self.config.datasets[dataset], self.source(dataset)
        required = data.predict_with is None
        where = (raw.root, raw.images, raw.labels)
        return RawSource(*where, data.layout, data.labelled or required, required)

    def _files(self, dataset: str) -> list[Path]:
        """All raw files.

        Raises:
            UserError: a folder is missing or a glob matches nothing.
        """
        from unet.data.layouts import list_files

        if dataset not in self._listed:
            try:
                self._listed[dataset] = list_files(self._source(dataset))
            except UserError as error:
                raise UserError(f"config: datasets.{dataset}: {error}") from None
        return self._listed[dataset]

    def raw_images(self, dataset: str) -> Images:
        """Image sizes estimated from the raw files; empty if they are generated."""
        if self.is_synthetic(dataset):
            return Images()
        if dataset not in self._raw:
            self._raw[dataset] = raw_images(self._files(dataset))
        return self._raw[dataset]

    def check_sources(self) -> None:
        """Searches every dataset's raw files, so that a wrong path shows before any job runs.

        Raises:
            UserError: one line per dataset whose files are missing.
        """
        lines = []
        for dataset in sorted(self.config.datasets):
            tools = self.config.datasets[dataset].compare
            checks = [partial(self.fingerprint, dataset)]
            checks += [partial(self.compared_fingerprint, dataset, tool) for tool in tools]
            for check in checks:
                try:
                    check()
                except UserError as error:
                    lines.append(str(error))
                except OSError as error:
                    what = f"{error.filename}: {error.strerror}"
                    lines.append(f"config: datasets.{dataset}: {what}")
        if lines:
            raise UserError("\n".join(lines))

    def settings(self, stage: str, dataset: str, model: str | None = None) -> str:
        """A stage's settings as canonical JSON (see :mod:`unet.config.stage_settings`)."""
        # All folds share them.
        key = (stage, dataset, model)
        if key not in self._settings:
            made = SETTINGS[stage].of(self.config, dataset, model or "")
            if isinstance(made, ManifestSettings):
                made = made.model_copy(update={"fingerprint": self.fingerprint(dataset)})
            if isinstance(made, CompareSettings):
                there = self.compared_fingerprint(dataset, model or "")
                made = made.model_copy(update={"fingerprint": there})
            if isinstance(made, CheckSettings):
                tools = self.config.datasets[dataset].compare
                masks = {tool: self.compared_fingerprint(dataset, tool) for tool in tools}
                made = made.with_masks(dataset, masks)
            self._settings[key] = canonical(made.to_json())
        return self._settings[key]

    def settings_all(self) -> str:
        """Settings of the report over all datasets, as canonical JSON."""
        return canonical(ReportAllSettings.of(self.config).to_json())

    def settings_check(self) -> str:
        """Settings of the check over all datasets, as canonical JSON."""
        return canonical(CheckAllSettings.of(self.config).to_json())

    def begin(self) -> None:
        """Locks the output folder for this process, and writes the config into it.

        Snakemake's own lock only separates runs in the same working folder; this one also separates
        runs in different working folders with the same output.

        Raises:
            UserError: another run uses the folder, or it is not writable.
        """
        try:
            self._locks.enter_context(locked(self.paths.output / ".lock", "running here"))
            atexit.register(self._end, os.getpid())
            self.write_config()
        except OSError as error:
            where = error.filename or self.paths.output
            raise UserError(f"{where}: {error.strerror or error}") from None

    def _end(self, process: int) -> None:
        # Forked processes must not release the locks.
        if os.getpid() == process:
            self._locks.close()

    def write_config(self) -> None:
        """Writes ``results/config.yaml``: the merged and validated config of the run."""
        import yaml

        from unet.files import replacing

        with replacing(self.paths.config) as temporary:
            # Keys that preset auto will choose must not look as if the user had set them.
            chosen = {"patch", "batch"} - self.config.train.model_fields_set
            auto = any(model.preset == "auto" for model in self.config.models.values())
            left_out = {"train": chosen} if auto else {}
            dumped = collapsed(self.config).model_dump(mode="json", exclude=left_out)
            text = yaml.safe_dump(dumped, sort_keys=False)
            temporary.write_text(text, encoding="utf-8")
