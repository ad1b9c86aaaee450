"""The settings of the stages that apply a model: as requested, otherwise as in the run that trained
it, otherwise the defaults."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.config.choices import METHOD_TABLE
from unet.config.heads import HEADS
from unet.config.sections import PredictSection, StitchSection
from unet.config.stage_settings import PredictSettings, StitchSettings
from unet.errors import UserError
from unet.paths import Paths

if TYPE_CHECKING:
    from unet.config.run import Config
    from unet.models.model_file import ModelFile

log = logging.getLogger("unet")

PACKAGE = ".zip"
# Keys of the section stitch that decide how objects are made.
OBJECT_KEYS = (
    "threshold", "method", "grow_px", "watershed_h", "connectivity", "min_size", "fill_holes",
)  # fmt: skip
# Keys of the section stitch that add files with the objects' outlines.
OUTLINES = ("geojson", "rois")
# The default method for each head: the first method that can use it.
METHOD_OF_HEAD = {method.head or "classes": name for name, method in reversed(METHOD_TABLE.items())}


@dataclass(frozen=True, kw_only=True)
class Requested:
    """What a user asks for; None: as in the run that trained the model, otherwise the default.

    Attributes:
        axes, channels, pixel_size: override those of the files.
        threshold, method, grow_px, min_size, geojson, rois, write_back: keys of the section
            stitch.
        tta, tile: keys of the section predict; float32: compute and store in 32 bits.
        threads: number of CPU threads.
        memory_gb: memory for pixels.
        keep: keep the intermediate files.
        viewed: also write what other programs show: masks as TIFF, reduced levels of OME-Zarr.
        options: whether messages name the options of the command ("--min-size"), not the
            arguments in Python ("min_size").
    """

    axes: str | None = None
    channels: Sequence[int | str] | None = None
    pixel_size: float | Sequence[float] | None = None
    threshold: float | None = None
    method: str | None = None
    grow_px: int | None = None
    min_size: int | None = None
    geojson: bool | None = None
    rois: bool | None = None
    write_back: str | None = None
    tta: bool | None = None
    tile: int | Sequence[int] | None = None
    float32: bool = False
    device: str = "auto"
    threads: int = 1
    memory_gb: float = 4.0
    keep: bool = False
    viewed: bool = True
    options: bool = True

    def word(self, name: str) -> str:
        """An argument's name, for messages."""
        return "--" + name.replace("_", "-") if self.options else name


def model_files(given: Sequence[Path]) -> list[Path]:
    """The model files of the given paths: a file itself, a fold folder's ``model.pt``, or the
    ``model.pt`` of each fold in a model's folder.

    Raises:
        UserError: there is none.
    """
    files: list[Path] = []
    for path in given:
        found = [path]
        if path.is_dir():
            own, folds = path / "model.pt", sorted(path.glob("fold-*/model.pt"))
            found = [own] if own.is_file() else folds
        if not found or not found[0].is_file():
            what = "no model here" if os.path.lexists(path) else "no such file or folder"
            raise UserError(
                f"{path}: {what}; give a model.pt, a package.zip, a fold's folder or a "
                "model's folder in the results, such as results/nuclei/unet-border"
            )
        files += found
    return list(dict.fromkeys(file.resolve() for file in files))


def untrained_folds(given: Sequence[Path]) -> list[str]:
    """A line for each given folder of a model of which fewer folds are trained than the config of
    its run asks for, so that fewer networks predict than the user may think."""
    from unet.config.load import load_file

    lines = []
    for path in given:
        folder = path.resolve()
        name, dataset, paths = folder.name, folder.parent.name, Paths(folder.parent.parent)
        # A fold's own folder is given on purpose.
        if not path.is_dir() or (path / "model.pt").is_file() or not paths.config.is_file():
            continue
        try:
            config = load_file(paths.config)
        except (UserError, OSError):
            continue  # `training_choices` says so
        if dataset not in config.datasets or name not in config.models_for(dataset):
            continue
        folds = config.datasets[dataset].split.to_run
        number = sum(paths.model(dataset, name, fold).is_file() for fold in folds)
        if number < len(folds):
            lines.append(
                f"{path}: {number} of {len(folds)} folds {'is' if number == 1 else 'are'} trained; "
                "the networks of all folds together usually predict better: finish the run "
                f"({paths.config}), then predict again"
            )
    return lines


def head_name(channels: tuple[str, ...]) -> str:
    """The name of the head with these channels."""
    return next((name for name, head in HEADS.items() if head.channels == channels), "classes")


@dataclass(frozen=True)
class TrainingChoices:
    """Settings that the run which trained a model used for its predictions, if they are known.

    Attributes:
        tta: whether predictions were averaged over symmetries; the threshold depends on this.
        stitch: the keys in OBJECT_KEYS and OUTLINES, with the threshold that was used.
    """

    tta: bool = False
    stitch: Mapping[str, Any] = field(default_factory=dict)


def training_choices(file: Path, asked: Requested | None = None) -> TrainingChoices:
    """The settings of the run that trained a model; the defaults for a model that is not in the
    results of a run.

    Args:
        file: ``<output>/<dataset>/<model>/fold-<k>/model.pt``, a package, which may say it, or any
            other path.
        asked: says how messages name the arguments; None: nobody applies the model now.
    """
    if file.suffix == PACKAGE:
        from unet.models.zoo_reading import applied_in_package

        kept = applied_in_package(file)
        return TrainingChoices() if kept is None else _checked(file, TrainingChoices(**kept))
    from unet.config.load import load_file

    folder = file.parent.parent
    name, dataset, paths = folder.name, folder.parent.name, Paths(folder.parent.parent)
    if not os.path.lexists(paths.config):
        return TrainingChoices()
    try:
        found = _choices_in(load_file(paths.config), paths, dataset, name)
    except (UserError, OSError) as error:
        said = str(error).splitlines()[0]
        log.warning("%s", said if str(paths.config) in said else f"{paths.config}: {said}")
        word = (asked or Requested()).word
        log.warning(
            "so the training's settings for threshold, objects and averaging (tta) are unknown; "
            "using defaults: give %s, or fix that file",
            ", ".join(map(word, ("threshold", "method", "grow_px", "tta"))),
        )
        return TrainingChoices()
    if asked is not None and found.stitch:
        log.info(
            "unless options override it, objects%s are made as in %s (dataset %s, model %s)",
            *(" and the mean over symmetries (tta)" if found.tta else "",
              paths.config, dataset, name),
        )  # fmt: skip
    return found


def _checked(package: Path, found: TrainingChoices) -> TrainingChoices:
    """Checks what a package says: it may be damaged."""
    unknown = sorted(set(found.stitch) - {*OBJECT_KEYS, *OUTLINES})
    try:
        StitchSection.model_validate(dict(found.stitch))
    except ValueError:
        unknown = unknown or ["values"]
    if unknown:
        raise UserError(
            f"{package}: its settings for objects are not usable ({unknown[0]}); get it again"
        )
    return found


def _choices_in(config: Config, paths: Paths, dataset: str, name: str) -> TrainingChoices:
    if dataset not in config.datasets or name not in config.models_for(dataset):
        return TrainingChoices()
    done = [paths.segmentation_done(dataset, name, k) for k in config.tested_for(dataset)]
    tta = config.predict_for(dataset, name).tta
    return choices_of_run(config.stitch_for(dataset, name), tta, done)


def choices_of_run(section: StitchSection, tta: bool, sentinels: Sequence[Path]) -> TrainingChoices:
    """The settings of a run, with the threshold that it chose.

    Args:
        section: the config's section stitch.
        sentinels: of the folds' segmentations, with the chosen thresholds; those that do not exist
            are left out.
    """
    from unet.prediction.objects.threshold import DEFAULT_THRESHOLD, carried_threshold

    stitch = section.model_dump(include={*OBJECT_KEYS, *OUTLINES})
    if section.threshold == "auto":
        there = [path for path in sentinels if path.is_file()]
        stitch["threshold"] = carried_threshold(there) if there else DEFAULT_THRESHOLD
    return TrainingChoices(tta, stitch)


def stitch_settings(model: ModelFile, asked: Requested, known: TrainingChoices) -> StitchSettings:
    """Settings of the stitch stage: as requested, otherwise from the run that trained the model,
    otherwise the defaults for the model's head.

    Raises:
        UserError: the method does not fit the model's head.
    """
    kind = head_name(model.head)
    method = asked.method or known.stitch.get("method") or METHOD_OF_HEAD[kind]
    if METHOD_TABLE[method].head not in (None, kind):
        word, fits = asked.word("method"), METHOD_OF_HEAD[kind]
        needs = f"a model with head: {METHOD_TABLE[method].head}, but this one has head: {kind}"
        if asked.method is None:
            raise UserError(
                f"the run that trained the model makes objects by method {method}, which needs "
                f"{needs}; give {word} {fits}"
            )
        raise UserError(f"{word}: {method} needs {needs}; write {word} {fits}, or leave it out")
    given = {"method": asked.method, "min_size": asked.min_size is not None}
    given |= {"geojson": asked.geojson, "rois": asked.rois}
    useless = ", ".join(asked.word(name) for name, is_given in given.items() if is_given)
    if model.task == "semantic" and useless:
        log.warning("%s: no effect, because the model was trained for classes", useless)
    # Objects grow back over their border, plus one pixel for the outline.
    grow_px = int(model.settings.get("border_width", 2)) + 1
    values = {"grow_px": grow_px, **known.stitch, "method": method}
    for name in ("threshold", "min_size", "grow_px", "write_back", *OUTLINES):
        if getattr(asked, name) is not None:
            values[name] = getattr(asked, name)
    if not asked.viewed:
        values |= {"tiff": False, "pyramid": 1, "geojson": False, "rois": False}
    return StitchSettings.made(
        stitch=StitchSection.model_validate(values),
        task=model.task,
        class_names=model.class_names,
        class_values=model.class_values,
        head=model.head,
    )


def predict_settings(asked: Requested, known: TrainingChoices) -> PredictSettings:
    """Settings of the predict stage."""
    values: dict[str, Any] = {"tta": known.tta if asked.tta is None else asked.tta}
    if asked.tile is not None:
        values["tile"] = asked.tile if isinstance(asked.tile, int) else list(asked.tile)
    if asked.float32:
        values |= {"precision": "float32", "dtype": "float32"}
    section = PredictSection.model_validate(values)
    return PredictSettings.made(predict=section, device=asked.device)
