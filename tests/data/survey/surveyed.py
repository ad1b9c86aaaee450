"""Makes small datasets and surveys them, for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from unet.config.load import load
from unet.config.run import Config
from unet.data.raw_files import RawSource
from unet.data.survey.facts import DatasetSurvey
from unet.data.survey.survey import survey_dataset

# Another dataset, whose model predicts those that are not trained on.
_OTHER = {"synthetic": {"kind": "membranes"}, "task": "instances"}


def config_of(base: Path, data: dict[str, Any]) -> Config:
    """A config with the dataset ``d``, as a user would write it."""
    data = {key: value for key, value in data.items() if value is not None}
    head = "classes" if data.get("task", "semantic") == "semantic" else "border"
    datasets: dict[str, Any] = {"d": data}
    if "predict_with" in data:
        datasets["other"], head = _OTHER, "border"
    model = {"preset": "auto", "head": head}
    if "Z" in data.get("axes", ""):
        model |= {"preset": "unet-bn", "dims": 3}
    models = {"m": model}
    return load({"data_root": str(base), "datasets": datasets, "models": models})


def source_of(base: Path, config: Config) -> RawSource:
    data = config.datasets["d"]
    required = data.predict_with is None
    labelled = data.labelled or required
    assert data.images is not None
    found = RawSource.below(base, data.images, data.labels, data.layout)
    where = (found.root, found.images, found.labels)
    return RawSource(*where, data.layout, labelled, required)


def survey(base: Path, **data: Any) -> DatasetSurvey:
    """The survey of a dataset of instances (unless ``task`` is given) in images/ and labels/. It
    is also checked that it survives JSON."""
    data = {"images": "images", "task": "instances", **data}
    if "predict_with" not in data and data.get("layout", "folders") in ("folders", "stack"):
        data.setdefault("labels", "labels")
    data = {key: value for key, value in data.items() if value is not None}
    config = config_of(base, data)
    found = survey_dataset(config, "d", source_of(base, config), threads=2)
    assert DatasetSurvey.from_json(json.loads(json.dumps(found.to_json()))) == found
    return found


def kinds(found: DatasetSurvey) -> set[tuple[str, str]]:
    """(level, kind) of all findings."""
    return {(finding.level, finding.kind) for finding in found.findings}


def scene(seed: int = 0, side: int = 96, cells: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A noisy uint16 image of bright discs that do not touch, and the discs numbered from 1."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.uint16)
    y, x = np.indices(labels.shape)
    number = 0
    for _ in range(300):
        if number == cells:
            break
        (v, u), r = rng.integers(10, side - 10, 2), rng.integers(5, 9)
        if not labels[(y - v) ** 2 + (x - u) ** 2 <= (r + 2) ** 2].any():
            number += 1
            labels[(y - v) ** 2 + (x - u) ** 2 <= r**2] = number
    image = (labels > 0) * 3000.0 + 500 + rng.normal(0, 150, labels.shape)
    return image.clip(0, 65535).astype(np.uint16), labels


def write(base: Path, name: str, image: np.ndarray, label: np.ndarray | None = None) -> None:
    """Writes images/<name>.tif and, if given, labels/<name>.tif."""
    for folder, array in (("images", image), ("labels", label)):
        if array is not None:
            (base / folder).mkdir(exist_ok=True, parents=True)
            kind = "rgb" if array.ndim == 3 and array.shape[-1] == 3 else "minisblack"
            tifffile.imwrite(base / folder / f"{name}.tif", array, photometric=kind)
