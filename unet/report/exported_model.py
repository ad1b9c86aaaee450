"""Exports a trained model: a package of the BioImage Model Zoo, or an ONNX file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.export_section import ExportSection
from unet.data.records import Part, ids_of, read_splits
from unet.errors import UserError
from unet.files import replacing
from unet.models.model_file import ModelFile, load_model
from unet.models.zoo_example import SIDES, example_of
from unet.models.zoo_layers import sizes_of
from unet.models.zoo_package import check_installed, network_onnx, write_package
from unet.paths import Paths
from unet.prediction.apply.chosen_settings import TrainingChoices
from unet.report.zoo_card import Trained, notes_of, texts_of

log = logging.getLogger("unet")
REMEDY = "delete it and prepare the images again"

# How to give a key that a package needs: in the config, or as an option of the command.
HOW = {
    "license": "the licence, such as CC-BY-4.0",
    "authors": "its authors, such as {Ada Example: {}}",
}
OPTIONS = {"license": "--license", "authors": "--author"}


def check_complete(section: ExportSection) -> None:
    """Checks that the section has what a package needs.

    Raises:
        UserError: a key is missing.
    """
    lines = [
        f"export.{key}: missing; a package needs {HOW[key]}. Write it into the config, or give "
        f"{OPTIONS[key]} to unet export"
        for key in section.missing()
    ]
    if lines:
        raise UserError("\n".join(lines))


def export_package(
    out: Path,
    file: Path,
    section: ExportSection,
    trained: Trained,
    image: NDArray[np.float32] | None,
    known: TrainingChoices,
) -> None:
    """Writes the package of a model file.

    Args:
        trained: where the model comes from.
        image: [C, (Z,) Y, X] as before normalisation, for the example in the package; None: a made
            one.
        known: how the run makes objects.

    Raises:
        UserError: a key or a library is missing, or the file is no model.
    """
    check_complete(section)
    check_installed(section.weights)
    model = load_model(file)
    texts = texts_of(model, section, trained)
    for note in notes_of(model):
        log.info("note: %s", note)
    applied = {"tta": known.tta, "stitch": dict(known.stitch)} if known.stitch else None
    write_package(out, model, example_of(model, image), texts, section.weights, applied)
    log.info("%s: %.1f MB, %s", out, out.stat().st_size / 1e6, ", ".join(_formats(section)))


def _formats(section: ExportSection) -> list[str]:
    return ["pytorch_state_dict", *section.weights]


def export_onnx(out: Path, file: Path) -> None:
    """Writes the network of a model file as ONNX: normalised images to probabilities.

    Raises:
        UserError: a library is missing, or the file is no model.
    """
    check_installed(("onnx",))
    model = load_model(file)
    content = network_onnx(model)
    with replacing(out) as temporary:
        temporary.write_bytes(content)
    sizes = sizes_of(model)
    log.info(
        "%s: %.1f MB; normalised images of %s px or more in steps of %s px, [N, C, %s]",
        out, out.stat().st_size / 1e6, _by([s.least for s in sizes]), _by([s.step for s in sizes]),
        ", ".join("ZYX"[-len(sizes) :]),
    )  # fmt: skip


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


def trained_model(paths: Paths, dataset: str, model: str, fold: int, confidence: float) -> Trained:
    """Where a model of a run comes from, with its scores if the run has evaluated it."""
    from unet.report.model_facts import score_values
    from unet.report.paired import Statistics
    from unet.report.score_tables import read_metrics, summarise

    table = paths.metrics(dataset, model)
    scores = []
    if table.is_file():
        task = load_model(paths.model(dataset, model, fold)).task
        scores = score_values(summarise(read_metrics(table), Statistics(confidence)), task)
    return Trained(dataset, model, fold, scores, confidence)


def example_image(paths: Paths, dataset: str, fold: int, file: Path) -> NDArray[np.float32] | None:
    """The middle of an image that the network did not see, as before normalisation; None if there
    is no prepared image.

    The prepared images are normalised; their stored shift and scale take this back.
    """
    from unet.io.zipped_images import StoredImage

    splits, prepared = paths.splits(dataset), paths.prepared(dataset)
    if not splits.is_file() or not prepared.is_dir():
        return None
    rows = read_splits(splits)
    parts: tuple[Part, ...] = ("test", "val", "train")
    for name in (name for part in parts for name in ids_of(rows, fold, part)):
        image = StoredImage(prepared / name, REMEDY)
        if image.has("image"):
            statistics: Any = image.attributes().get("statistics") or {}
            return _raw(image.array("image"), statistics, load_model(file))
    return None


def _raw(array: Any, statistics: dict[str, Any], model: ModelFile) -> NDArray[np.float32]:
    side = SIDES[model.architecture.dims]
    largest = [max(each.least + each.step, side + each.step) for each in sizes_of(model)]
    places = [slice(max(0, (n - m) // 2), max(0, (n - m) // 2) + m) for n, m in
              zip(array.shape[1:], largest, strict=True)]  # fmt: skip
    cut = np.asarray(array[(slice(None), *places)], np.float32)
    if "shift" not in statistics:
        return cut
    axes = (-1,) + (1,) * (cut.ndim - 1)
    scale = np.asarray(statistics["scale"], np.float32).reshape(axes)
    return cut * scale + np.asarray(statistics["shift"], np.float32).reshape(axes)
