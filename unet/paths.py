"""All paths below the output folder are defined here; nothing is created on import."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# Folds are numbered from 0; this number stands for the networks of all folds together.
ENSEMBLE = -1
_ENSEMBLE_NAME = "ensemble"
# Names of folds in paths, wildcards and tables.
FOLD_PATTERN = rf"\d+|{_ENSEMBLE_NAME}"

# Allowed names of datasets and models: a folder with such a name stays inside the output folder.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def folder_name(text: str) -> str:
    """Checks a dataset's or model's name from a command line (models may be
    ``<model>@<dataset>``).

    Raises:
        ValueError: it is not usable as a folder name, or leads out of the output folder.
    """
    if not all(NAME.fullmatch(part) for part in text.split("@", 1)):
        raise ValueError(f"{text!r} is not a valid name: use letters, digits, '_' and '-'")
    return text


def fold_name(fold: int) -> str:
    """The name of a fold in paths, tables and on the command line."""
    return _ENSEMBLE_NAME if fold == ENSEMBLE else str(fold)


def fold_number(name: str) -> int:
    """The number of the fold with this name.

    Raises:
        ValueError: it is neither a number from 0 nor the name of the ensemble.
    """
    if name == _ENSEMBLE_NAME:
        return ENSEMBLE
    if not name.isdecimal():
        raise ValueError(f"{name!r} is not a fold: write a number from 0, or {_ENSEMBLE_NAME}")
    return int(name)


class Origin(NamedTuple):
    """Where a model was trained that is applied to another dataset."""

    model: str
    dataset: str

    @property
    def name(self) -> str:
        """Its name where it is applied: ``<model>@<dataset>``."""
        return f"{self.model}@{self.dataset}"


# The folder next to a dataset's models with the masks of other tools. `results/<dataset>/compared`
# is laid out like a dataset's folder, so all paths of a model are also those of a tool.
COMPARED = "compared"


def compared_model(tool: str) -> str:
    """What stands for a model's name in paths for the masks of another tool: ``compared/<tool>``.

    This is unambiguous: no name in the config has a slash, and no model is called ``compared``.
    """
    return f"{COMPARED}/{tool}"


def origin_of(model: str) -> Origin | None:
    """Where a model with this name was trained; None for one of the dataset's own models.

    This is unambiguous: no name in the config has an ``@``.
    """
    name, mark, dataset = model.partition("@")
    return Origin(name, dataset) if mark else None


def store_of(sentinel: Path) -> Path | None:
    """The store that a sentinel marks as finished; None for any other file."""
    if sentinel.name == "raw.json":
        return sentinel.with_suffix("")
    # Jobs that share a prediction all write to the same store.
    stem = sentinel.name.split(".")[0]
    sharing = sentinel.match("tiles.shard-*.json")
    if stem not in _STORES or not (sharing or sentinel.name == f"{stem}.json"):
        return None
    return sentinel.with_name(f"{stem}.zarr")


_STORES = ("prepared", "tiles", "segmentation")


@dataclass(frozen=True)
class Paths:
    """Where each stage writes, below ``output``.

    Each path takes what its stage runs once for: dataset, model, fold. Arguments may be Snakemake
    wildcard patterns such as ``"{dataset}"``; a fold is a number, its name or a pattern. For a
    model that is applied to another dataset (``<model>@<dataset>``), the network is in the folder
    where it was trained, and the images are prepared separately. For masks of another tool, the
    model is :func:`compared_model`.
    """

    output: Path

    def _under(self, *parts: str) -> Path:
        return self.output.joinpath(*parts)

    # The run as a whole.
    @property
    def config(self) -> Path:
        return self._under("config.yaml")

    @property
    def report_csv(self) -> Path:
        return self._under("report.csv")

    @property
    def report_html(self) -> Path:
        return self._under("report.html")

    # Per dataset.
    def dataset(self, dataset: str) -> Path:
        return self._under(dataset)

    def raw(self, dataset: str) -> Path:
        return self._under(dataset, "raw")

    def raw_done(self, dataset: str) -> Path:
        return self._under(dataset, "raw.json")

    def download_done(self, dataset: str) -> Path:
        """Says which archives a public dataset was made from; its files are in ``data_root``."""
        return self._under(dataset, "download.json")

    def manifest(self, dataset: str) -> Path:
        return self._under(dataset, "manifest.csv")

    def splits(self, dataset: str) -> Path:
        return self._under(dataset, "splits.csv")

    def inputs(self, dataset: str) -> Path:
        """Size, time and hash of each raw file at the time of the manifest (``inputs.json``)."""
        return self._under(dataset, "inputs.json")

    def warnings(self, dataset: str, stage: str) -> Path:
        """A stage's warnings; not declared to Snakemake, because older results do not have it."""
        return self._under(dataset, f"warnings.{stage}.json")

    def check_json(self, dataset: str) -> Path:
        """What the check found; ``check.html`` shows it."""
        return self._under(dataset, "check.json")

    def check_html(self, dataset: str) -> Path:
        return self._under(dataset, "check.html")

    def prepared(self, dataset: str, model: str = "") -> Path:
        """The prepared images: the dataset's own, or those for a model of another dataset."""
        return self._under(dataset, *_own_folder(model), "prepared.zarr")

    def prepared_done(self, dataset: str, model: str = "") -> Path:
        return self._under(dataset, *_own_folder(model), "prepared.json")

    def joined_inputs(self, member: str) -> tuple[Path, Path, Path]:
        """What a dataset that joins others is made from, of one of them."""
        return self.manifest(member), self.splits(member), self.prepared_done(member)

    def dataset_report_csv(self, dataset: str) -> Path:
        return self._under(dataset, "report.csv")

    def wells(self, dataset: str) -> Path:
        """The numbers of each well, for images of plates; not an output of the workflow."""
        return self._under(dataset, "wells.csv")

    def dataset_report_html(self, dataset: str) -> Path:
        return self._under(dataset, "report.html")

    # Per dataset and model.
    def metrics(self, dataset: str, model: str) -> Path:
        return self._under(dataset, model, "metrics.csv")

    def matches(self, dataset: str, model: str) -> Path:
        """Each true and predicted object with its partner; no rows for task semantic."""
        return self._under(dataset, model, "details", "matches.csv")

    def confusion(self, dataset: str, model: str) -> Path:
        """Pixels of each pair of true and predicted class, per image."""
        return self._under(dataset, model, "details", "confusion.csv")

    def thresholds(self, dataset: str, model: str) -> Path:
        """Pixels of each class and of others by the class's probability, per image."""
        return self._under(dataset, model, "details", "thresholds.csv")

    def details(self, dataset: str, model: str) -> tuple[Path, Path, Path]:
        """All tables of the stage details."""
        where = (dataset, model)
        return self.matches(*where), self.confusion(*where), self.thresholds(*where)

    def compared_files(self, dataset: str, tool: str) -> Path:
        """Size, time and hash of each mask of another tool at the time of the comparison."""
        return self._under(dataset, compared_model(tool), "masks.json")

    def audit(self, dataset: str, model: str) -> Path:
        """The doubts about the labels."""
        return self._under(dataset, model, "audit.csv")

    def audit_outlines(self, dataset: str, model: str) -> Path:
        """Their outlines, for QuPath and Fiji."""
        return self._under(dataset, model, "audit")

    def quality(self, dataset: str, model: str) -> Path:
        """How far a model of another dataset can be believed on each image."""
        return self._under(dataset, model, "quality.csv")

    def package(self, dataset: str, model: str) -> Path:
        """The model as a package of the BioImage Model Zoo."""
        return self._under(dataset, model, f"{dataset}-{model}.bioimageio.zip")

    # Per dataset, model and fold.
    def fold(self, dataset: str, model: str, fold: int | str) -> Path:
        return self._under(dataset, model, _folder_of(fold))

    def model(self, dataset: str, model: str, fold: int | str) -> Path:
        origin = origin_of(model)
        if origin is not None:
            return self.model(origin.dataset, origin.model, fold)
        return self.fold(dataset, model, fold) / "model.pt"

    def history(self, dataset: str, model: str, fold: int | str) -> Path:
        return self.fold(dataset, model, fold) / "history.csv"

    def curves(self, dataset: str, model: str, fold: int | str) -> Path:
        return self.fold(dataset, model, fold) / "curves.png"

    def choice(self, dataset: str, model: str, fold: int | str) -> Path:
        """For a model with a sweep: the models that it was chosen from, and their scores."""
        return self.fold(dataset, model, fold) / "choice.json"

    def start(self, dataset: str, model: str, fold: int | str) -> Path:
        """For a training from trained weights: what was taken, and what it added to them."""
        return self.fold(dataset, model, fold) / "start.json"

    def tiles(self, dataset: str, model: str, fold: int | str) -> Path:
        return self.fold(dataset, model, fold) / "tiles.zarr"

    def tiles_done(self, dataset: str, model: str, fold: int | str) -> Path:
        return self.fold(dataset, model, fold) / "tiles.json"

    def shard_done(self, dataset: str, model: str, fold: int | str, shard: int | str) -> Path:
        """Sentinel of one job's share of the tiles, if several jobs predict a fold."""
        return self.fold(dataset, model, fold) / f"tiles.shard-{shard}.json"

    def segmentation(self, dataset: str, model: str, fold: int | str) -> Path:
        return self.fold(dataset, model, fold) / "segmentation.zarr"

    def segmentation_done(self, dataset: str, model: str, fold: int | str) -> Path:
        return self.fold(dataset, model, fold) / "segmentation.json"

    def masks(self, dataset: str, model: str, fold: int | str) -> Path:
        return self.fold(dataset, model, fold) / "masks"

    def objects(self, dataset: str, model: str, fold: int | str) -> Path:
        return self.fold(dataset, model, fold) / "objects.csv"

    # Not outputs: never declared to Snakemake, so that it neither deletes nor tracks them.
    def checkpoints(self, dataset: str, model: str, fold: int | str) -> Path:
        return self._under("checkpoints", dataset, model, _folder_of(fold))

    def log(self, rule: str, *wildcards: str) -> Path:
        return self._under("logs", rule, ".".join(wildcards or ("all",)) + ".log")

    def benchmark(self, rule: str, *wildcards: str) -> Path:
        return self._under("benchmarks", rule, ".".join(wildcards or ("all",)) + ".tsv")

    def gpu_use(self, rule: str, *wildcards: str) -> Path:
        """What a job measured on its GPUs; jobs on a CPU have none."""
        return self.benchmark(rule, *wildcards).with_suffix(".gpu.json")


def _own_folder(model: str) -> tuple[str, ...]:
    """The folder between the dataset's folder and the prepared store, if there is one."""
    return () if origin_of(model) is None else (model,)


def _folder_of(fold: int | str) -> str:
    return f"fold-{fold if isinstance(fold, str) else fold_name(fold)}"
