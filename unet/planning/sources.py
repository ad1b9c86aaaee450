"""The raw files of a run: where they are, and what identifies their content. Loads neither torch
nor dask."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unet.config.run import Config
from unet.config.start_checks import encoder_weights_read, key_of_start
from unet.config.start_keys import is_start_file
from unet.config.sweep import written_models
from unet.errors import UserError
from unet.files import file_sha256, read_json
from unet.paths import Paths
from unet.planning.image_sizes import Images, raw_images
from unet.provenance import content_id, read_made_by

if TYPE_CHECKING:
    from unet.data.raw_files import RawSource


@dataclass(frozen=True)
class SourcePaths:
    """The paths of a dataset's raw files; passed to the manifest stage, never tracked."""

    root: Path
    images: str
    labels: str | None


class Sources:
    """The raw files of all datasets, and the masks of other tools that are compared with them.

    Args:
        config: the run's config.
        paths: the run's paths.
    """

    def __init__(self, config: Config, paths: Paths) -> None:
        self.config = config
        self.paths = paths
        # Each folder is listed once in a run, however many jobs ask.
        self._fingerprints: dict[str, str] = {}
        self._compared: dict[tuple[str, str], str] = {}
        self._listed: dict[str, list[Path]] = {}
        self._raw: dict[str, Images] = {}
        self._weights: dict[Path, str] = {}
        self._starts: dict[str, str] = {}

    def is_synthetic(self, dataset: str) -> bool:
        return self.config.datasets[dataset].synthetic is not None

    def is_downloaded(self, dataset: str) -> bool:
        return self.config.datasets[dataset].download is not None

    def is_there(self, dataset: str) -> bool:
        """Whether the raw files exist at planning, before any stage makes them."""
        from unet.data.download import is_there

        name = self.config.datasets[dataset].download
        return not self.is_synthetic(dataset) and (name is None or is_there(name, self.data_root))

    def made_by_stage(self, dataset: str) -> list[Path]:
        """The sentinel of the stage that makes the raw files; none for a user's own."""
        if self.is_synthetic(dataset):
            return [self.paths.raw_done(dataset)]
        return [self.paths.download_done(dataset)] if self.is_downloaded(dataset) else []

    @property
    def data_root(self) -> Path:
        return Path(os.path.expandvars(self.config.data_root)).expanduser()

    def of(self, dataset: str) -> SourcePaths:
        """The paths of the raw files: below ``data_root``, in the folder of a public dataset, or
        where they are generated."""
        data = self.config.datasets[dataset]
        if data.synthetic is not None:
            return SourcePaths(self.paths.raw(dataset), "images", "labels")
        return SourcePaths(self.data_root / (data.download or ""), data.images or "", data.labels)

    def encoder_weights(self, model: str) -> Path | None:
        """The file with the weights that a model's encoder starts from."""
        given = self.config.models[model].encoder_weights
        if given is None:
            return None
        return self.data_root / Path(os.path.expandvars(given)).expanduser()

    def weights_fingerprint(self, model: str) -> str:
        """Identifies the content of that file; "" without one.

        Raises:
            UserError: the file is missing.
            OSError: it cannot be read.
        """
        path = self.encoder_weights(model)
        if path is None:
            return ""
        if not path.is_file():
            where = "to a file, and name that" if path.is_dir() else "there"
            raise UserError(
                f"config: {self._weights_key(model)}: {_no_file(path)}; save torchvision's state "
                f"dict {where} (docs/models.md)"
            )
        if path not in self._weights:
            self._weights[path] = file_sha256(path)
        return self._weights[path]

    def _weights_key(self, model: str) -> str:
        """The key that names that file, of the model that the user wrote."""
        written = written_models(self.config).get(model, model)
        swept = "encoder_weights" in self.config.models[written].sweep
        return f"models.{written}.{'sweep: ' if swept else ''}encoder_weights"

    def compared(self, dataset: str, tool: str) -> SourcePaths:
        """Where the masks of another tool are."""
        masks = str(Path(self.config.datasets[dataset].compare[tool]).expanduser())
        return SourcePaths(self.data_root, masks, None)

    def start_path(self, start: str) -> Path:
        """The file that ``train.from`` names, from ``data_root`` like those of the datasets."""
        return self.data_root / Path(os.path.expandvars(start)).expanduser()

    def start_content(self, start: str | None, key: str = "train.from") -> str:
        """Identifies the content of the file that a training starts from.

        Args:
            key: of the config, that names the file.

        Raises:
            UserError: it is missing, or belongs to this run, which would not wait for it.
        """
        if start is None:
            return ""
        if start not in self._starts:
            path = self.start_path(start)
            if not path.is_file():
                raise UserError(
                    f"config: {key}: {_no_file(path)}; write the path of a model.pt or of a "
                    "package (.zip), from data_root"
                )
            if wrong := self._in_output(path, start):
                raise UserError(f"config: {key}: {wrong}")
            self._starts[start] = content_id(path)
        return self._starts[start]

    def _in_output(self, path: Path, start: str) -> str:
        """What is wrong with a file to start from in the output folder of this run; "" elsewhere.

        Args:
            start: how the config names the file.
        """
        output = self.paths.output.resolve()
        if output not in path.resolve().parents:
            return ""
        dataset, model = (*path.resolve().relative_to(output).parts, "")[:2]
        trains = dataset in self.config.datasets and not self.config.origins_for(dataset)
        known = (
            (*self.config.models_for(dataset), *self.config.trained_for(dataset)) if trains else ()
        )
        # A model cannot start from itself.
        if model in known and self.config.start_for(dataset, model) != start:
            return (
                f"{path} is a result of this run; write {dataset}/{model}, so that it is trained "
                "first"
            )
        return (
            f"{path} is in the output folder of this run, which may replace it; copy it to another "
            "folder, and write the path of the copy"
        )

    def fingerprint(self, dataset: str) -> str:
        """Identifies the raw files' content (by names, sizes and times; by hashes if touched).

        Raises:
            UserError: a folder is missing or a glob matches nothing.
        """
        if self.is_synthetic(dataset):
            return ""  # the synthesize stage's sentinel identifies them
        if dataset not in self._fingerprints:
            of = self._of_download if self.is_downloaded(dataset) else self._of_files
            self._fingerprints[dataset] = of(dataset)
        return self._fingerprints[dataset]

    def _of_files(self, dataset: str) -> str:
        from unet.data.raw_changes import FolderListing, fingerprint

        inputs, root = self.paths.inputs(dataset), self.of(dataset).root
        if not inputs.is_file():
            return fingerprint(self._files(dataset), root, None)
        note, seen = (inputs.with_name(f".inputs-{name}.json") for name in ("listed", "seen"))
        listed = FolderListing(note, self._source(dataset), inputs)
        known = listed.fingerprint()
        if known is None:
            stored = read_json(inputs)
            known = fingerprint(self._files(dataset), root, stored, seen)
            if known == stored["fingerprint"]:
                listed.keep(known)
        return known

    def _of_download(self, dataset: str) -> str:
        """As before the download, when nothing was known of the files, unless they were edited
        since: otherwise the second run would differ from the first."""
        done, inputs = self.paths.download_done(dataset), self.paths.inputs(dataset)
        if not self.is_there(dataset):
            if done.exists():
                name = self.config.datasets[dataset].download
                raise UserError(
                    f"config: datasets.{dataset}.download: {self.of(dataset).root} is gone; `unet "
                    f"download {name} {self.data_root}` brings it back, or delete {done}"
                )
            return ""  # the download stage's sentinel identifies them
        self._files(dataset)  # a wrong path shows now
        if not inputs.is_file():
            return ""
        now, made = self._of_files(dataset), read_made_by(self.paths.manifest(dataset))
        if now != read_json(inputs)["fingerprint"]:
            return now
        return str(made["settings"].get("fingerprint", "")) if made is not None else ""

    def _source(self, dataset: str) -> RawSource:
        """A dataset's raw files, with the same arguments as in the manifest stage."""
        from unet.data.raw_files import RawSource

        data, raw = self.config.datasets[dataset], self.of(dataset)
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

    def images(self, dataset: str) -> Images:
        """Image sizes estimated from the raw files; empty if a stage is yet to make them."""
        if not self.is_there(dataset):
            return Images()
        if dataset not in self._raw:
            self._raw[dataset] = raw_images(self._files(dataset))
        return self._raw[dataset]

    def _check_written(self, dataset: str) -> None:
        """Checks that results can be written into the images, if that is asked for.

        Raises:
            UserError: they are no OME-Zarr, or have another label of this name.
        """
        models = self.config.models_for(dataset)
        asked = {self.config.stitch_for(dataset, model).write_back for model in models}
        if not (names := sorted(filter(None, asked))):
            return
        from unet.data.layouts import find_pairs
        from unet.io.own_labels import check_target

        key = f"config: datasets.{dataset}: stitch.write_back"
        for pair in find_pairs(self._source(dataset)):
            # A plate may list wells that were never imaged; the manifest leaves them out.
            for name in names if pair.image.exists() or pair.image.suffix else ():
                check_target(pair.image, name.removeprefix("labels/"), key, pair.label)

    def compared_fingerprint(self, dataset: str, tool: str) -> str:
        """Identifies the content of another tool's masks, as :meth:`fingerprint` does for images.

        Raises:
            UserError: the folder is missing, or holds no mask.
        """
        from unet.data.compared_masks import find_compared, label_of, masks_fingerprint

        key = (dataset, tool)
        if key not in self._compared:
            source, task = self.compared(dataset, tool), self.config.datasets[dataset].task
            name = f"config: datasets.{dataset}.compare.{tool}"
            found = find_compared(source.images, source.root, name, label_of(task))
            noted = self.paths.compared_files(dataset, tool)
            self._compared[key] = masks_fingerprint(found, noted)
        return self._compared[key]

    def check(self) -> None:
        """Searches every dataset's raw files, so that a wrong path shows before any job runs.

        Raises:
            UserError: one line per dataset or model whose files are missing.
        """
        lines: list[str] = []
        for model in sorted(encoder_weights_read(self.config)):
            try:
                self.weights_fingerprint(model)
            except UserError as error:
                lines.append(str(error))
            except OSError as error:
                what = f"{error.filename}: {error.strerror}"
                lines.append(f"config: {self._weights_key(model)}: {what}")
        for dataset in sorted(self.config.datasets):
            tools = self.config.datasets[dataset].compare
            checks: list[Callable[[], object]] = []
            if dataset in self.config.with_files:
                checks.append(partial(self.fingerprint, dataset))
            starts = {
                (start, key_of_start(self.config, dataset, model))
                for model in self.config.trained_for(dataset)
                if is_start_file(start := self.config.start_for(dataset, model))
            }
            checks += [partial(self.start_content, *start) for start in sorted(starts)]
            checks += [partial(self.compared_fingerprint, dataset, tool) for tool in tools]
            checks.append(partial(self._check_written, dataset))
            for check in checks:
                try:
                    check()
                except UserError as error:
                    lines.append(str(error))
                except OSError as error:
                    what = f"{error.filename}: {error.strerror}"
                    lines.append(f"config: datasets.{dataset}: {what}")
        if lines:
            raise UserError("\n".join(dict.fromkeys(lines)))


def _no_file(path: Path) -> str:
    """What is at the path of a file that is missing."""
    return f"{path} is a folder" if path.is_dir() else f"no such file: {path}"
