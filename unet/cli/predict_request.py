"""The arguments of ``unet predict``, and the models, images and settings that they stand for."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
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
    from unet.data.file_names import Found
    from unet.models.model_file import ModelFile

log = logging.getLogger("unet")

# Keys of the section stitch that decide how objects are made.
OBJECT_KEYS = (
    "threshold", "method", "grow_px", "watershed_h", "connectivity", "min_size", "fill_holes",
)  # fmt: skip
# Keys of the section stitch that add files with the objects' outlines.
OUTLINES = ("geojson", "rois")
# Names of the results in the output folder, and files that show that this command wrote them.
RESULTS = ("masks", "segmentation.zarr", "work", *OUTLINES)
MARKERS = ("predict.json", "work/images.csv")
# The default method for each head: the first method that can use it.
METHOD_OF_HEAD = {method.head or "classes": name for name, method in reversed(METHOD_TABLE.items())}


def add_request(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet predict``."""
    p.add_argument(
        "model", type=Path, metavar="MODEL",
        help="model.pt, the results folder of a fold, or that of a model (all its folds together)",
    )  # fmt: skip
    p.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders or globs")
    p.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    p.add_argument(
        "--model", dest="with_model", type=Path, action="append", default=[], metavar="MODEL",
        help="one more model, whose probabilities are averaged with the first one's (repeatable)",
    )  # fmt: skip
    p.add_argument("--threshold", type=_share, help="minimum foreground probability")
    p.add_argument("--min-size", type=_count, help="drop objects smaller than this (image pixels)")
    p.add_argument("--method", choices=sorted(METHOD_TABLE), help="how objects are made")
    p.add_argument("--grow-px", type=_count, help="method grow: largest distance (image pixels)")
    p.add_argument(
        "--geojson", action=argparse.BooleanOptionalAction,
        help="also write outlines of objects as GeoJSON (QuPath, GIS)",
    )  # fmt: skip
    p.add_argument(
        "--rois", action=argparse.BooleanOptionalAction,
        help="also write outlines of objects as ImageJ ROIs",
    )  # fmt: skip
    p.add_argument(
        "--tta", action=argparse.BooleanOptionalAction,
        help="average over 8 symmetries (takes 8 times as long)",
    )  # fmt: skip
    p.add_argument("--tile", type=_sizes, help="largest window in px, or one per axis: 64,256,256")
    p.add_argument("--float32", action="store_true", help="compute and store in 32 bits")
    p.add_argument(
        "--pixel-size", type=_lengths, metavar="UM",
        help="micrometres per pixel, or one value per axis (2,0.5,0.5); overrides the files",
    )  # fmt: skip
    p.add_argument("--axes", type=_axes, help="axes of files that do not declare them, such as CYX")
    p.add_argument("--channels", type=_names, help="channels to use, numbers from 0 or names: 0,2")
    p.add_argument("--stack", action="store_true", help="each page of a file is an image")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to run")
    p.add_argument("--threads", type=_positive, default=os.cpu_count() or 1, help="CPU threads")
    p.add_argument("--memory-gb", type=_length, default=4.0, help="memory for pixels (default 4)")
    p.add_argument(
        "--keep", action="store_true", help="keep OUT/work: a later call predicts only new images"
    )
    p.add_argument(
        "--page", action=argparse.BooleanOptionalAction, default=True,
        help="write index.html and overview.png, to look at the result",
    )  # fmt: skip
    p.add_argument("--log", type=Path, help="also write all messages to this file")


def _number(text: str, least: float, most: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least < value < most:
        raise argparse.ArgumentTypeError(f"got {text}; write {what}")
    return value


def _share(text: str) -> float:
    return _number(text, 0, 1, "a number above 0 and below 1")


def _length(text: str) -> float:
    return _number(text, 0, float("inf"), "a number above 0")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text}; write a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"got {text}; write a whole number above 0")
    return int(text)


def _sizes(text: str) -> int | list[int]:
    found = [_positive(part) for part in text.split(",")]
    if not all(8 <= size <= 16384 for size in found) or len(found) > 3:
        raise argparse.ArgumentTypeError(f"got {text}; write 8 to 16384, or such a number per axis")
    return found[0] if len(found) == 1 else found


def _lengths(text: str) -> float | list[float]:
    found = [_length(part) for part in text.split(",")]
    return found[0] if len(found) == 1 else found


def _axes(text: str) -> str:
    letters = text.upper()
    known = set(letters) <= set("SCZYX") and {"Y", "X"} <= set(letters)
    if not known or len(set(letters)) < len(letters):
        raise argparse.ArgumentTypeError(
            f"got {text}; write Y, X and, if present, C, Z or S once each, such as CYX"
        )
    return letters


def _names(text: str) -> list[int | str]:
    return [int(part) if part.isdecimal() else part for part in text.split(",")]


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
            raise UserError(
                f"{path}: no model here; give a model.pt, a fold's folder or a model's folder in "
                "the results, such as results/nuclei/unet-border"
            )
        files += found
    return list(dict.fromkeys(file.resolve() for file in files))


def image_files(given: Sequence[str], output: Path) -> list[tuple[str, Path]]:
    """Id and path of each image of the files, folders and globs, sorted by id.

    Args:
        output: folder for the results. Files that this command wrote, to this or another folder,
            are skipped.

    Raises:
        UserError: one of the patterns matches no image.
    """
    from unet.data.file_names import find, safe_id, spelling, warn_of_label_names

    def warn(text: str) -> None:
        log.warning("warning: %s", text)

    found: dict[Path, Found] = {}
    for pattern in given:
        for item in find(pattern, Path.cwd(), "IMAGES", warn):
            found.setdefault(item.path.absolute(), item)
    written = _written(found, output)
    if written:
        log.info(
            "skipped %d files that are results of this command, such as %s",
            *(len(written), written[0]),
        )
    for path in written:
        del found[path]
    names = {path: item.name for path, item in found.items()}
    if not names:
        raise UserError(
            f"IMAGES: all {len(written)} files are results of this command, such as {written[0]}; "
            "give images"
        )
    warn_of_label_names(list(found.values()), "IMAGES", warn)
    if len({spelling(name) for name in names.values()}) < len(names):
        # The same names occur in different folders: include the folders.
        top = top_folder(list(names))
        names = {p: p.relative_to(top).with_name(_last(n)).as_posix() for p, n in names.items()}
    return sorted((safe_id(name), path) for path, name in names.items())


def _written(paths: Iterable[Path], output: Path) -> list[Path]:
    """The paths that this command wrote, to this output folder or another one."""
    ours = {output.absolute().resolve(): True}

    def is_ours(folder: Path) -> bool:
        folder = folder.resolve()
        if folder not in ours:
            ours[folder] = any((folder / marker).is_file() for marker in MARKERS)
        return ours[folder]

    return [
        path
        for path in paths
        if any(part.name in RESULTS and is_ours(part.parent) for part in (path, *path.parents))
    ]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def top_folder(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in paths]))


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


def training_choices(file: Path) -> TrainingChoices:
    """The settings of the run that trained a model; the defaults for a model that is not in the
    results of a run.

    Args:
        file: ``<output>/<dataset>/<model>/fold-<k>/model.pt``, or any other path.
    """
    from unet.config.load import load_file

    folder = file.parent.parent
    name, dataset, paths = folder.name, folder.parent.name, Paths(folder.parent.parent)
    if not os.path.lexists(paths.config):
        return TrainingChoices()
    try:
        return _choices_in(load_file(paths.config), paths, dataset, name)
    except (UserError, OSError) as error:
        said = str(error).splitlines()[0]
        log.warning("%s", said if str(paths.config) in said else f"{paths.config}: {said}")
        log.warning(
            "so the training's settings for threshold, objects and averaging (tta) are unknown; "
            "using defaults: give --threshold, --method, --grow-px, --tta, or fix that file"
        )
        return TrainingChoices()


def _choices_in(config: Config, paths: Paths, dataset: str, name: str) -> TrainingChoices:
    from unet.prediction.objects.threshold import DEFAULT_THRESHOLD, carried_threshold

    if dataset not in config.datasets or name not in config.models_for(dataset):
        return TrainingChoices()
    section = config.stitch_for(dataset, name).model_dump(include={*OBJECT_KEYS, *OUTLINES})
    if section["threshold"] == "auto":
        done = [paths.segmentation_done(dataset, name, k) for k in config.tested_for(dataset)]
        there = [path for path in done if path.is_file()]
        section["threshold"] = carried_threshold(there) if there else DEFAULT_THRESHOLD
    tta = config.predict_for(dataset, name).tta
    log.info(
        "unless options override it, objects%s are made as in %s (dataset %s, model %s)",
        *(" and the mean over symmetries (tta)" if tta else "", paths.config, dataset, name),
    )
    return TrainingChoices(tta, section)


def stitch_settings(
    model: ModelFile, args: argparse.Namespace, known: TrainingChoices
) -> StitchSettings:
    """Settings of the stitch stage: from the command line, otherwise from the run that trained the
    model, otherwise the defaults for the model's head.

    Raises:
        UserError: the method does not fit the model's head.
    """
    kind = head_name(model.head)
    method = args.method or known.stitch.get("method") or METHOD_OF_HEAD[kind]
    if METHOD_TABLE[method].head not in (None, kind):
        raise UserError(
            f"--method: {method} needs a model with head: {METHOD_TABLE[method].head}, but this "
            f"one has head: {kind}; write --method {METHOD_OF_HEAD[kind]}, or leave it out"
        )
    options = {"--method": args.method, "--min-size": args.min_size is not None}
    options |= {"--geojson": args.geojson, "--rois": args.rois}
    useless = ", ".join(name for name, given in options.items() if given)
    if model.task == "semantic" and useless:
        log.warning("%s: no effect, because the model was trained for classes", useless)
    # Objects grow back over their border, plus one pixel for the outline.
    grow_px = int(model.settings.get("border_width", 2)) + 1
    values = {"grow_px": grow_px, **known.stitch, "method": method}
    for name in ("threshold", "min_size", "grow_px", *OUTLINES):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    return StitchSettings.made(
        stitch=StitchSection.model_validate(values),
        task=model.task,
        class_names=model.class_names,
        class_values=model.class_values,
        head=model.head,
    )


def predict_settings(args: argparse.Namespace, known: TrainingChoices) -> PredictSettings:
    """Settings of the predict stage."""
    values: dict[str, Any] = {"tta": known.tta if args.tta is None else args.tta}
    if args.tile is not None:
        values["tile"] = args.tile
    if args.float32:
        values |= {"precision": "float32", "dtype": "float32"}
    section = PredictSection.model_validate(values)
    return PredictSettings.made(predict=section, device=args.device)
