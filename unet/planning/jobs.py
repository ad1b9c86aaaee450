"""Inputs, settings and targets of a run. Loads neither torch nor dask.

This is the Snakefile's logic, in a place where it can be tested.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from unet.config.check_settings import CheckAllSettings, CheckSettings
from unet.config.compare_settings import CompareSettings
from unet.config.data_settings import ManifestSettings
from unet.config.export_settings import ExportSettings
from unet.config.run import Config
from unet.config.sections import CHOOSING
from unet.config.shown_config import chosen_keys
from unet.config.stage_settings import (
    SETTINGS,
    ReportAllSettings,
    ReportSettings,
    TrainSettings,
)
from unet.config.start_keys import is_start_file, origin_in_run
from unet.config.sweep import collapsed, swept
from unet.errors import UserError
from unet.files import canonical, locked
from unet.paths import ENSEMBLE, Paths, compared_model, fold_name, fold_number, origin_of
from unet.planning.report_inputs import explaining_tables, report_inputs
from unet.planning.sources import Sources


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
        self.sources = Sources(config, self.paths)
        self._settings: dict[tuple[str, str, str | None], str] = {}
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

    @property
    def chosen_pattern(self) -> str:
        """Matches the models that are chosen among those of a sweep, not trained."""
        return "|".join(swept(self.config)) or r"(?!)"  # which matches nothing

    @property
    def trained_pattern(self) -> str:
        """Matches all other models that belong to a dataset."""
        names = "|".join(swept(self.config))
        return (rf"(?!(?:{names})/)" if names else "") + "[A-Za-z0-9_-]+"

    @property
    def joined_pattern(self) -> str:
        """Matches the datasets that join others."""
        return "|".join(self.config.joining) or r"(?!)"

    @property
    def read_pattern(self) -> str:
        """Matches all other datasets, whose files are read."""
        names = "|".join(self.config.joining)
        return (rf"(?!(?:{names})/)" if names else "") + "[A-Za-z0-9_-]+"

    def joined_inputs(self, dataset: str) -> list[Path]:
        """What a dataset that joins others is made from."""
        members = self.config.datasets[dataset].weights
        return [path for name in members for path in self.paths.joined_inputs(name)]

    def tried(
        self, path: Callable[[str, str, int | str], Path], dataset: str, model: str, fold: str = ""
    ) -> list[Path]:
        """The file ``path`` of each model of a sweep, of one fold or (default) of all."""
        folds = [fold] if fold else self.folds(dataset)
        return [path(dataset, m, k) for m in self.config.members_of(model) for k in folds]

    def start_file(self, dataset: str, model: str, fold: int | str) -> Path | None:
        """The file with the weights that a training starts from; None: random weights.

        Of a model of the run: that of the same fold if there is one (always on the same dataset,
        where another fold may have been trained on the images that this one tests), else that of
        the first fold.
        """
        start = self.config.start_for(dataset, model)
        if start is None:
            return None
        origin = origin_in_run(start)
        if origin is None:
            return self.sources.start_path(start)
        folds, number = self.folds(origin.dataset), fold_number(str(fold))
        chosen = number if number in folds else folds[0]
        return self.paths.model(origin.dataset, origin.model, chosen)

    def start_inputs(self, dataset: str, model: str, fold: str) -> list[Path]:
        """The model of the run that a training starts from, which must be trained first."""
        path = self.start_file(dataset, model, fold)
        return (
            [] if path is None or is_start_file(self.config.start_for(dataset, model)) else [path]
        )

    def deciding(self, dataset: str, model: str, fold: str) -> list[Path]:
        """The histories by which a fold chooses a model of a sweep: its own, or those of all folds
        if they test the same images."""
        alone = "" if self.config.datasets[dataset].split.same_test else fold
        return self.tried(self.paths.history, dataset, model, alone)

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
        return [self.paths.check_json(name) for name in names if name in self.config.with_files]

    def start_manifests(self, dataset: str) -> dict[str, Path]:
        """The manifests of the other datasets of the run whose models trainings of this one start
        from, by dataset. Not their checks: two datasets may start from each other."""
        config = self.config
        starts = (origin_in_run(config.start_for(dataset, m)) for m in config.trained_for(dataset))
        names = dict.fromkeys(each.dataset for each in starts if each is not None)
        known = [name for name in names if name in config.with_files and name != dataset]
        return {name: self.paths.manifest(name) for name in known}

    def report_inputs(self, dataset: str) -> list[Path]:
        """What the dataset's report is made from, see :mod:`unet.planning.report_inputs`."""
        settings = ReportSettings.of(self.config, dataset)
        where = (self.paths, dataset, settings)
        return [*report_inputs(*where), *explaining_tables(*where)]

    def prepared_for(self, dataset: str) -> str:
        """The model whose prepared images hold the labels; "" for a dataset with models of its
        own, which share them."""
        models = self.config.models_for(dataset) if self.config.origins_for(dataset) else ("",)
        return models[0]

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

    def export_inputs(self, dataset: str, model: str) -> dict[str, list[Path]]:
        """What the stage export reads: the network, the model's scores if there are labels, the
        thresholds that were chosen, and an image to test it with."""
        settings, paths = ExportSettings.of(self.config, dataset, model), self.paths
        labelled = self.config.datasets[dataset].labelled
        return {
            "model": [paths.model(dataset, model, settings.fold)],
            "scores": [paths.metrics(dataset, model)] if labelled else [],
            "thresholds": [paths.segmentation_done(dataset, model, k) for k in settings.tested],
            "splits": [paths.splits(dataset)],
            "prepared": [paths.prepared_done(dataset)],
        }

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
            if self.folds(dataset) and self.config.export_for(dataset, model).write:
                found.append(paths.package(dataset, model))
        for dataset, data in self.config.datasets.items():
            found += [paths.metrics(dataset, compared_model(tool)) for tool in data.compare]
            settings = ReportSettings.of(self.config, dataset)
            found += explaining_tables(paths, dataset, settings)
        return found

    def settings(self, stage: str, dataset: str, model: str | None = None) -> str:
        """A stage's settings as canonical JSON (see :mod:`unet.config.stage_settings`)."""
        # All folds share them.
        key = (stage, dataset, model)
        if key not in self._settings:
            made = SETTINGS[stage].of(self.config, dataset, model or "")
            # A start replaces the encoder's weights.
            if isinstance(made, TrainSettings) and made.train.start is None:
                weights = self.sources.weights_fingerprint(model or "")
                made = made.model_copy(update={"encoder_weights": weights})
            if isinstance(made, TrainSettings) and is_start_file(made.train.start):
                start = self.config.start_for(dataset, model or "")
                made = made.model_copy(update={"fingerprint": self.sources.start_content(start)})
            if isinstance(made, ManifestSettings):
                made = made.model_copy(update={"fingerprint": self.sources.fingerprint(dataset)})
            if isinstance(made, CompareSettings):
                there = self.sources.compared_fingerprint(dataset, model or "")
                made = made.model_copy(update={"fingerprint": there})
            if isinstance(made, CheckSettings):
                tools = self.config.datasets[dataset].compare
                masks = {tool: self.sources.compared_fingerprint(dataset, tool) for tool in tools}
                made = made.with_masks(dataset, masks).with_starts(self.start_contents(dataset))
            self._settings[key] = canonical(made.to_json())
        return self._settings[key]

    def start_contents(self, dataset: str) -> dict[str, str]:
        """Model -> what identifies the content of the file that its training starts from."""
        starts = {m: self.config.start_for(dataset, m) for m in self.config.trained_for(dataset)}
        return {m: self.sources.start_content(s) for m, s in starts.items() if is_start_file(s)}

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
            left_out = {"train": chosen_keys(self.config)}
            dumped = collapsed(self.config).model_dump(mode="json", exclude=left_out)
            text = yaml.safe_dump(dumped, sort_keys=False)
            temporary.write_text(text, encoding="utf-8")
