"""What is known about a trained model: its file, and the results of the run around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.config.geometry import Footprint, footprint
from unet.config.load import load
from unet.config.presets import PRESETS, AnyArchitecture
from unet.config.yaml_file import read_yaml
from unet.errors import UserError
from unet.files import read_json
from unet.paths import Paths
from unet.report.package_facts import Told, told_by

if TYPE_CHECKING:
    from unet.config.run import Config
    from unet.models.model_file import ModelFile
    from unet.report.score_tables import ReportRow

# Values of a preset that users change often; the others tell the presets apart.
_FREE = {"width", "max_width", "depth", "dropout", "dims", "kernels", "pools", "norm_eps"}
PACKAGE = ".zip"
# Keys of a config that say who may use a model and whom to cite.
_TERMS = ("licence", "license", "citation", "doi")


@dataclass(frozen=True)
class Surroundings:
    """The run that a model file lies in: ``<output>/<dataset>/<model>/fold-<k>/model.pt``.

    Attributes:
        config: of the run; None if there is none that can be read.
        raw: the keys of that file, which may be from a newer version.
        note: why there is no config.
        told: what the file itself says of its run, if it is a package.
    """

    paths: Paths
    dataset: str
    model: str
    config: Config | None
    raw: Mapping[str, Any]
    note: str = ""
    told: Told = field(default_factory=Told)

    @classmethod
    def of(cls, file: Path) -> Surroundings:
        """The run around a model file."""
        folder = file.parent.parent
        where = (Paths(folder.parent.parent), folder.parent.name, folder.name)
        if file.suffix == PACKAGE:  # wherever it lies, it speaks for itself
            return cls(*where, None, {}, told=told_by(file))
        config = where[0].config
        if not config.is_file():
            return cls(*where, None, {}, "the model is not in the results of a run")
        raw: dict[str, Any] = {}
        try:
            raw = read_yaml(config)
            loaded = load(raw)
        except (UserError, OSError) as error:
            return cls(*where, None, raw, f"{config} cannot be read: {str(error).splitlines()[0]}")
        known = where[1] in loaded.datasets and where[2] in loaded.models
        note = "" if known else f"{config} has no model {where[2]} on {where[1]}"
        return cls(*where, loaded if known else None, raw, note)


def sizes_in_words(fp: Footprint, dims: int) -> str:
    """The sizes of images that a network takes, for people."""
    what = "images" if dims == 2 else "volumes"
    return (
        f"{what} of any size: large ones are cut into tiles without seams, small ones are padded "
        f"(a tile: {rule_in_words(fp)})"
    )


def rule_in_words(fp: Footprint) -> str:
    """The accepted sizes of a patch or a tile along an axis, in pixels."""
    if fp.grid == 1:
        return f"{fp.smallest} or more"
    return f"{fp.smallest} or more, in steps of {fp.grid}"


def nearest_preset(arch: AnyArchitecture) -> str:
    """The preset whose layers are of the same kind; "" if there is none."""
    for name, preset in PRESETS.items():
        names = {field.name for field in fields(preset)} - _FREE
        same = type(preset) is type(arch)
        if same and all(getattr(preset, key) == getattr(arch, key) for key in names):
            return name
    return ""


def model_facts(files: Sequence[Path]) -> dict[str, Any]:
    """The facts about a model, as plain values in named groups.

    Args:
        files: the ``model.pt`` of each fold, or a package; the first one stands for all where
            they agree.

    Raises:
        UserError: one of them is not a usable model file.
    """
    from unet.models.foreign_model import ForeignModel
    from unet.models.read_model import applied_model

    models = [applied_model(file) for file in files]
    for file, model in zip(files, models, strict=True):
        if isinstance(model, ForeignModel):
            raise UserError(
                f"{file}: made by another program, so its layers are unknown here; its "
                "bioimageio.yaml describes it"
            )
    around = Surroundings.of(files[0])
    return {
        "files": [str(file) for file in files],
        "title": around.told.title or None,
        "network": _network(models[0], around),
        "training": _training(models, files, around),
        "takes": _takes(models[0]),
        "results": _results(models[0], files, around),
        "terms": _terms(around),
        "notes": [around.note] if around.note else [],
    }


def _network(model: ModelFile, around: Surroundings) -> dict[str, Any]:
    import torch

    from unet.models.build import NETWORKS
    from unet.models.network import parameter_counts

    arch = model.architecture
    with torch.device("meta"):  # shapes only
        network = NETWORKS[arch.kind](model.in_channels, len(model.head), arch)
    total, trainable = parameter_counts(network)
    chosen = "" if around.config is None else around.config.models[around.model].preset
    fps = footprint(arch)
    return {
        "preset": chosen or nearest_preset(arch),
        "dims": arch.dims,
        "width": arch.width,
        "depth": arch.depth,
        "parameters": total,
        "trainable": trainable,
        "receptive_field": [fp.receptive_field for fp in fps],
        "halo": [fp.halo or fp.margin for fp in fps],
        "grid": [fp.grid for fp in fps],
    }


def _training(
    models: Sequence[ModelFile], files: Sequence[Path], around: Surroundings
) -> dict[str, Any]:
    from unet.data.records import PARTS, ids_of, read_splits

    model, paths = models[0], around.paths
    folds = [file.parent.name.removeprefix("fold-") for file in files]
    known = around.config is not None
    facts: dict[str, Any] = {
        "dataset": around.dataset if known else around.told.dataset,
        "model": around.model if known else around.told.model,
        "folds": folds if known else around.told.folds,
        "task": model.task,
        "classes": list(model.class_names),
        "outputs": list(model.head),
        "normalize": model.normalize,
        "steps": [each.step for each in models],
        "validation_score": [each.score for each in models],
        "written": [
            datetime.fromtimestamp(file.stat().st_mtime).isoformat(" ", "minutes") for file in files
        ],
        "versions": model.versions,
    }
    splits = paths.splits(around.dataset)
    if known and splits.is_file():
        rows = read_splits(splits)
        facts["images"] = {
            fold: {part: len(ids_of(rows, int(fold), part)) for part in PARTS} for fold in folds
        }
    return facts


def _takes(model: ModelFile) -> dict[str, Any]:
    arch = model.architecture
    fps = footprint(arch)
    return {
        "sizes": sizes_in_words(fps[-1], arch.dims),
        "channels": model.in_channels,
        "pixel_size_um": None if model.pixel_size_um is None else list(model.pixel_size_um),
        "tile_sizes": [[fp.fit(fp.least_tile) + i * fp.grid for i in range(3)] for fp in fps],
    }


def _results(model: ModelFile, files: Sequence[Path], around: Surroundings) -> dict[str, Any]:
    done = [file.with_name("segmentation.json") for file in files]
    thresholds = [read_json(path).get("threshold") for path in done if path.is_file()]
    if files[0].suffix == PACKAGE:
        scores, source = around.told.scores, str(files[0]) if around.told.scores else ""
    else:
        scores, source = _scores(model.task, around)
    return {
        "threshold": thresholds,
        "scores": scores,
        "scores_from": source,
        "scores_of": _scored_folds(around) if scores else None,
    }


def _scored_folds(around: Surroundings) -> int | None:
    """Number of folds whose networks got the scores; None if it is not known."""
    return None if around.config is None else len(around.config.folds_for(around.dataset))


def _scores(task: str, around: Surroundings) -> tuple[list[dict[str, Any]], str]:
    """The main scores of the model, and the file that they are from ("" if there is none)."""
    from unet.report.paired import Statistics
    from unet.report.score_tables import read_metrics, read_report, summarise

    if around.config is None:
        return [], ""
    dataset, model = around.dataset, around.model
    report = around.paths.dataset_report_csv(dataset)
    table = around.paths.metrics(dataset, model)
    rows = read_report(report) if report.is_file() else []
    rows, source = [row for row in rows if row.model == model], report
    if not rows and table.is_file():
        section = around.config.report
        statistics = Statistics(section.confidence, section.bootstrap, around.config.seed)
        rows, source = summarise(read_metrics(table), statistics), table
    if not rows:
        return [], ""
    return score_values(rows, task), str(source)


def score_values(rows: Sequence[ReportRow], task: str) -> list[dict[str, Any]]:
    """The main scores of a model as plain values, from its rows of a report."""
    from unet.report.score_tables import columns_for

    found = {(row.class_, row.metric): row for row in rows}
    scores = []
    for score in columns_for(rows, task):
        row = found[score.class_, score.metric]
        values = {"mean": row.mean, "low": row.low, "high": row.high}
        # JSON has no NaN.
        plain = {key: value if value == value else None for key, value in values.items()}
        about = {"label": score.label, "metric": score.metric, "class": score.class_}
        scores.append({**about, **plain, "images": row.n})
    return scores


def _terms(around: Surroundings) -> dict[str, str]:
    """Licence and citation: those in a package; if the config names them: those of the model, else
    those of its dataset."""
    found: dict[str, str] = dict(around.told.terms)
    for group, name in (("datasets", around.dataset), ("models", around.model)):
        section: Any = around.raw.get(group)
        section = section.get(name) if isinstance(section, Mapping) else None
        given = section if isinstance(section, Mapping) else {}
        found |= {key: str(given[key]) for key in _TERMS if given.get(key)}
    return found
