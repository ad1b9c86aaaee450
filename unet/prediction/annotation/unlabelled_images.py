"""The images without labels that a model predicted: of a dataset in the results of a run, or of
``unet predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet.config.load import load_file
from unet.config.run import Config
from unet.data.records import ImageRecord, read_manifest
from unet.data.tiling import Slices
from unet.errors import UserError, did_you_mean
from unet.files import read_json
from unet.io.axes import LazyImage
from unet.io.images import open_image
from unet.models.model_file import load_model
from unet.paths import ENSEMBLE, Paths
from unet.prediction.annotation.mask_cautions import (
    MaskCautions,
    cautions_of_predict,
    cautions_of_quality,
)
from unet.prediction.apply.applied_images import short_names
from unet.prediction.apply.result_folder import Output
from unet.prediction.stitch.segmentation import Segmentation
from unet.tables import read_table

USE = (
    "unet annotate chooses among images without labels: predict new ones with predict_with "
    "(docs/apply.md) or unet predict"
)


QUALITY = "quality.csv"


@dataclass(frozen=True, eq=False)
class UnlabelledImages:
    """Images that a model predicted and nobody labelled.

    Attributes:
        name: of the dataset, or of the folder.
        model: that predicted them.
        records: of the images that have a segmentation, by id, sorted.
        root: folder that the records' paths are relative to.
        segmentation: what the model predicted.
        classes: name -> value in label files (task semantic); None for task instances.
        axes: of files that do not declare them, None = as declared.
        channels: those that the model uses, None = all.
        doubts: of whole images, 0 to 1, from the table ``quality.csv``; None without one.
        cautions: what speaks against their masks.
    """

    name: str
    model: str
    records: Mapping[str, ImageRecord]
    root: Path
    segmentation: Segmentation
    classes: Mapping[str, int] | None
    axes: str | None = None
    channels: tuple[int | str, ...] | None = None
    doubts: Mapping[str, float] | None = None
    cautions: MaskCautions = field(default_factory=MaskCautions)

    @property
    def task(self) -> str:
        return "instances" if self.classes is None else "semantic"

    def doubt_from(self, image: str) -> str:
        """Where the doubt of an image comes from: ``quality.csv``, or its ``probabilities``."""
        return QUALITY if self.doubts is not None and image in self.doubts else "probabilities"

    def open(self, image: str) -> LazyImage:
        """The image with all channels of its file, not yet read.

        Raises:
            UserError: it is missing, cannot be read, or has another size than it had.
        """
        record = self.records[image]
        path = self.root / record.image
        found = open_image(path, axes=self.axes, page=record.page, inverted=record.inverted)
        if found.shape[1:] != record.shape[1:]:
            raise UserError(
                f"{path}: has {found.shape[1:]} pixels, but had {record.shape[1:]} when it was "
                "predicted; run again"
            )
        return found

    def predicted(self, image: str, place: Slices) -> NDArray[Any]:
        """Ids of the objects in a region, or class indices (task semantic): [(Z,) Y, X].

        Raises:
            UserError: the image has no objects, or a chunk is damaged.
        """
        classes = self.classes is not None
        found = (self.segmentation.classes if classes else self.segmentation.instances)(image)
        if found is None:
            raise UserError(f"{self.segmentation.path}: {image} has no objects; run again")
        return np.asarray(found[place])


def find_unlabelled(
    results: Path,
    dataset: str,
    model: str | None = None,
    images: Path | None = None,
    axes: str | None = None,
) -> UnlabelledImages:
    """The images to choose from.

    Args:
        results: output folder of a run, or of ``unet predict``.
        dataset: its name; for ``unet predict`` the folder of the images.
        model: name of the model that predicted them; None = the only one.
        images: folder that the manifest's paths are relative to, if it has moved since.
        axes: of files that do not declare them; None = as in the config.

    Raises:
        UserError: there is no such dataset, model or segmentation, or the images have labels.
    """
    if not results.is_dir():
        raise UserError(f"{results}: no such folder; give the results of a run or of unet predict")
    if (results / "predict.json").is_file():
        return _of_predict(results, Path(dataset) if images is None else images, axes)
    paths = Paths(results)
    config = _config(paths)
    if dataset not in config.datasets:
        near = did_you_mean(dataset, config.datasets)
        raise UserError(
            f"{results}: no dataset {dataset!r}; there are: {', '.join(config.datasets)}{near}"
        )
    if not config.origins_for(dataset):
        raise UserError(f"{dataset}: models are trained on its labels; {USE}")
    name = _model(config, dataset, model)
    store = paths.segmentation(dataset, name, ENSEMBLE)
    if not store.is_dir() or not paths.manifest(dataset).is_file():
        raise UserError(f"{store}: segmentation is missing; finish the run first (unet run)")
    section = config.datasets[dataset]
    quality = _first([store.parent.parent / QUALITY, store.parent / QUALITY])
    return _checked(
        UnlabelledImages(
            dataset,
            name,
            {record.id: record for record in read_manifest(paths.manifest(dataset))},
            images or Path(read_json(paths.inputs(dataset))["root"]),
            Segmentation(store),
            section.classes if section.task == "semantic" else None,
            axes or section.axes,
            section.channels,
            None if quality is None else _doubts(quality),
            MaskCautions() if quality is None else cautions_of_quality(quality),
        )
    )


def _config(paths: Paths) -> Config:
    if not paths.config.is_file():
        raise UserError(
            f"{paths.output}: no results here (neither config.yaml nor predict.json); give the "
            "output folder of a run, or of unet predict"
        )
    return load_file(paths.config)


def _model(config: Config, dataset: str, wanted: str | None) -> str:
    """The model's name in paths; a user may leave out where it was trained."""
    known = config.models_for(dataset)
    found = [name for name in known if wanted in (None, name, name.partition("@")[0])]
    if len(found) == 1:
        return found[0]
    if wanted is None or found:
        raise UserError(
            f"{dataset}: {len(known)} models predicted it; choose one with --model: "
            f"{', '.join(known)}"
        )
    near = did_you_mean(wanted, known)
    raise UserError(
        f"--model: no model {wanted!r} predicted {dataset}; there are: {', '.join(known)}{near}"
    )


def _of_predict(results: Path, images: Path, axes: str | None) -> UnlabelledImages:
    out = Output(results)
    if not images.is_dir():
        raise UserError(
            f"{images}: no such folder; for results of unet predict give the folder of the images"
        )
    if not out.segmentation.is_dir():
        raise UserError(f"{out.segmentation}: segmentation is missing; run unet predict again")
    segmentation = Segmentation(out.segmentation)
    ids = segmentation.ids()
    models = [Path(path) for path in read_json(out.done)["models"]]
    classes = None
    if ids and segmentation.instances(ids[0]) is None:
        classes = _class_values(segmentation.attrs(ids[0])["head"], models)
    records = {record.id: record for record in read_manifest(out.manifest)}
    quality = _first([results / QUALITY])
    return _checked(
        UnlabelledImages(
            results.absolute().name,
            ", ".join(short_names(models).values()),
            records,
            images,
            segmentation,
            classes,
            axes,
            doubts=None if quality is None else _doubts(quality),
            cautions=cautions_of_predict(out.done)
            if quality is None
            else cautions_of_quality(quality),
        ),
        f"{images} is not the folder that unet predict read; give that one after {results}",
    )


def _class_values(names: Sequence[str], models: Sequence[Path]) -> dict[str, int]:
    """The value of each class in label files, as in the labels of the training; if the model's file
    is gone, its index."""
    if models and models[0].is_file():
        model = load_model(models[0])
        if model.class_values is not None and list(model.class_names) == list(names):
            return dict(zip(names, model.class_values, strict=True))
    return {name: index for index, name in enumerate(names)}


def _checked(
    found: UnlabelledImages, moved: str = "give the folder of the images with --images"
) -> UnlabelledImages:
    """Only the images that were segmented and have no label.

    Args:
        moved: what to do if the images are elsewhere.
    """
    segmented = [image for image in found.segmentation.ids() if image in found.records]
    free = [image for image in segmented if not found.records[image].label]
    if not segmented:
        raise UserError(f"{found.segmentation.path}: has no segmented image; run again")
    if not free:
        raise UserError(f"{found.name}: all {len(segmented)} images have labels; {USE}")
    first = found.root / found.records[free[0]].image
    if not first.exists() and not first.name.count("?"):
        raise UserError(f"{first}: no such image; {moved}")
    records = {image: found.records[image] for image in free}
    return UnlabelledImages(**{**vars(found), "records": records})


def _first(places: Sequence[Path]) -> Path | None:
    """The first file that exists."""
    return next((place for place in places if place.is_file()), None)


def _doubts(path: Path) -> dict[str, float]:
    """The doubt of each image, 0 to 1."""
    table = read_table(path, "quality", ["image", "doubt"], ["doubt"])
    rows = zip(table["image"], table["doubt"], strict=True)
    return {str(image): float(doubt) for image, doubt in rows if doubt == doubt}
