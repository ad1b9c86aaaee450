"""``unet export``: a trained model as a package or an ONNX file for other programs."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet.cli.stage import run
from unet.errors import UserError
from unet.paths import Paths

if TYPE_CHECKING:
    from unet.config.export_section import ExportSection
    from unet.report.model_facts import Surroundings

log = logging.getLogger("unet")

PACKAGE, ONNX = ".zip", ".onnx"


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unet export``."""
    p.description = (
        "Writes a trained model for other programs. FILE.zip: a package of the BioImage Model Zoo "
        "(PyTorch, TorchScript, ONNX, description, scores, test image). FILE.onnx: the network "
        "alone, for normalised images of the sizes that it prints. Texts come from the section "
        "export of the run's config, if the model is in the results of a run, and from the "
        "options."
    )
    p.epilog = (
        "examples:\n"
        "  unet export results/nuclei/unet-border -o nuclei.bioimageio.zip\n"
        '  unet export model.pt -o model.zip --license CC-BY-4.0 --author "Ada Example"\n'
        "  unet export results/nuclei/unet-border/fold-1 -o nuclei.onnx"
    )
    p.add_argument(
        "model", type=Path, metavar="MODEL",
        help="model.pt, the results folder of a fold, or that of a model",
    )  # fmt: skip
    p.add_argument(
        "-o", "--output", type=Path, metavar="FILE", dest="file", required=True,
        help="file to write, ending in .zip or .onnx",
    )  # fmt: skip
    p.add_argument(
        "--fold",
        type=int,
        metavar="N",
        help="fold of a model's folder (default: export.fold, or the first)",
    )
    p.add_argument("--license", metavar="SPDX", help="licence of the model, such as CC-BY-4.0")
    p.add_argument(
        "--author", action="append", metavar="NAME", help="who made the model; may be repeated"
    )
    p.add_argument("--name", help="title of the model")
    p.add_argument("--description", help="what the model does")


def command(args: argparse.Namespace) -> int:
    """Runs ``unet export``; returns the exit code."""
    return run(args, _export, "run the same command to start again")


def _export(args: argparse.Namespace, _: Paths) -> None:
    from unet.prediction.apply.chosen_settings import model_files, training_choices
    from unet.report.exported_model import (
        check_complete,
        example_image,
        export_onnx,
        export_package,
        trained_model,
    )
    from unet.report.model_facts import Surroundings
    from unet.report.zoo_card import Trained

    if args.file.suffix not in (PACKAGE, ONNX):
        raise UserError(f"{args.file}: write a name that ends in {PACKAGE} or {ONNX}")
    _check_output(args.file)
    files = model_files([args.model])
    if files[0].suffix in (PACKAGE, ONNX):
        raise UserError(
            f"{args.model}: is made for other programs already; give a model.pt, a fold's folder "
            "or a model's folder"
        )
    around = Surroundings.of(files[0])
    section = _section(args, around)
    file = _one(files, args.fold, args.model, around)
    if args.file.suffix == ONNX:
        export_onnx(args.file, file)
        return
    check_complete(section)
    if around.config is None:
        export_package(args.file, file, section, Trained(), None, training_choices(file))
        return
    fold = int(file.parent.name.removeprefix("fold-"))
    where, level = (around.dataset, around.model), around.config.report.confidence
    trained = trained_model(around.paths, *where, fold, level)
    image = example_image(around.paths, around.dataset, fold, file)
    export_package(args.file, file, section, trained, image, training_choices(file))


def _check_output(path: Path) -> None:
    """Checks that a file can be written, before the work: its name, and a file beside it, which is
    removed at once. A folder that does not exist yet is not made.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with suppress(FileNotFoundError):
            path.lstat()  # refuses names that are too long
        if path.is_dir():
            raise UserError(f"{path}: is a folder; write the name of a file")
        folder = next(each for each in path.absolute().parents if os.path.lexists(each))
        with tempfile.NamedTemporaryFile(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); write a file in another folder"
        ) from None


def _section(args: argparse.Namespace, around: Surroundings) -> ExportSection:
    """The section export of the run's config, with the options of the command.

    Raises:
        UserError: a text does not fit the format of packages.
    """
    from pydantic import ValidationError

    from unet.config.export_section import ExportSection
    from unet.config.licences import licence_mistake
    from unet.config.messages import lines_of

    section = ExportSection()
    if around.config is not None:
        section = around.config.export_for(around.dataset, around.model)
    elif around.paths.config.is_file():
        log.warning("warning: %s; so its texts are not used", around.note)
    given: dict[str, Any] = {key: getattr(args, key) for key in ("license", "name", "description")}
    given["authors"] = None if args.author is None else {name: {} for name in args.author}
    given = {key: value for key, value in given.items() if value is not None}
    try:
        # The config's own values are checked, so what is wrong is from an option.
        section = ExportSection.model_validate(section.model_dump() | given)
    except ValidationError as error:
        lines = lines_of(error, given)
        raise UserError("\n".join(map(_with_option, lines))) from None
    if section.license is not None and (wrong := licence_mistake(section.license)):
        key = "--license" if "license" in given else f"{around.paths.config}: export.license"
        raise UserError(f"{key}: {wrong}")
    return section


def _with_option(line: str) -> str:
    """A line about a key of the section, with the name of the option instead."""
    return "--" + line.removeprefix("config: ").replace("authors", "author", 1)


def _one(files: Sequence[Path], fold: int | None, given: Path, around: Surroundings) -> Path:
    """The file of the fold: that of the given file or folder, if it is a fold's own; else the
    wanted one, by default the first.

    Raises:
        UserError: there is no such fold.
    """
    if given.is_file() or (given / files[0].name).is_file():
        own = files[0].parent.name
        if fold is not None and (given.is_file() or own != f"fold-{fold}"):
            what = "is a file" if given.is_file() else f"is {own}"
            raise UserError(
                f"--fold: {given} {what}, but --fold chooses from the folds in a model's folder; "
                "give that folder, or leave out --fold"
            )
        return files[0]
    key = "--fold"
    if fold is None and around.config is not None:
        fold = around.config.export_for(around.dataset, around.model).fold
        key = f"{around.paths.config}: export.fold"
    there = {file.parent.name: file for file in files}
    if fold is None:
        return files[0]
    if f"fold-{fold}" not in there:
        more = "" if key == "--fold" else "; choose one with --fold, or change that key"
        raise UserError(f"{key}: no fold {fold} in {given}; there are: {', '.join(there)}{more}")
    return there[f"fold-{fold}"]
