"""What the check says about the weights that trainings start from (``train.from``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from unet.config.run import Config
from unet.config.start_checks import keys_without_start, unused_encoder_weights
from unet.config.start_keys import is_start_file, origin_in_run
from unet.data.records import ImageRecord
from unet.data.survey.facts import DatasetSurvey, SurveyedImage
from unet.data.survey.findings import Finding
from unet.errors import UserError
from unet.planning.jobs import Run
from unet.training.start.start_differences import StartSide, differences

T = TypeVar("T")
Images: TypeAlias = Sequence[SurveyedImage] | Sequence[ImageRecord]


def start_findings(
    config: Config,
    dataset: str,
    survey: DatasetSurvey,
    files: Mapping[str, Path] | None = None,
    seen: Mapping[str, Images] | None = None,
) -> list[Finding]:
    """How the starts of a dataset's trainings differ from them, each line once, and keys that
    need one or have no effect with one.

    Args:
        files: model -> the file that its training starts from; None: by the config.
        seen: the images of other datasets, whose models trainings start from.
    """
    found = [
        Finding("warn", "start_missing", text, key)
        for key, text in keys_without_start(config, dataset)
    ]
    found += [
        Finding("warn", "encoder_unused", text, key)
        for key, text in unused_encoder_weights(config, dataset)
    ]
    for model in config.trained_for(dataset):
        start = config.start_for(dataset, model)
        # The model that shows a start differs from it as its result does.
        if start is None or config.shown_model(model) is not None:
            continue
        path = files.get(model) if files is not None else Run(config).start_file(dataset, model, 0)
        own = replace(
            _of_config(config, dataset, model),
            channels=_channels(survey.images),
            pixel_size_um=_pixel_size(survey.images),
        )
        try:
            theirs = _start(config, start, path, seen or {})
        except UserError as error:
            found.append(Finding("stop", "start_unreadable", str(error), "train.from"))
            continue
        lines = () if theirs is None else differences(theirs, own)
        found += [Finding("warn", "start_differs", line, "train.from") for line in lines]
    return list(dict.fromkeys(found))


def _start(
    config: Config, start: str, path: Path | None, seen: Mapping[str, Images]
) -> StartSide | None:
    """What is known of a start: from its file, or from its own section of the config and the images
    of its dataset."""
    if is_start_file(start):
        if path is None:
            return None
        from unet.models.read_model import read_model
        from unet.training.start.started import side_of

        return side_of(read_model(path))
    origin = origin_in_run(start)
    if origin is None:
        return None
    side, images = _of_config(config, origin.dataset, origin.model), seen.get(origin.dataset, ())
    return replace(
        side,
        channels=_channels(images) or side.channels,
        pixel_size_um=_pixel_size(images) or side.pixel_size_um,
    )


def _of_config(config: Config, dataset: str, model: str) -> StartSide:
    data = config.datasets[dataset]
    normalize = config.prepare_for(dataset).normalize
    arch, size = config.architecture_for(model), data.pixel_size_um
    if not isinstance(size, tuple) and size is not None:
        size = (size,) * (2 if arch is None else arch.dims)
    return StartSide(
        # A sweep may choose another network.
        architecture=None if config.members_of(model) else arch,
        task=data.task,
        head=config.head_for(dataset, model),
        channels=len(data.channels) if data.channels else None,
        pixel_size_um=size,
        normalize=normalize.model_dump(mode="json"),
    )


def _channels(images: Images) -> int | None:
    return _most(image.shape[0] if image.shape else None for image in images)


def _pixel_size(images: Images) -> tuple[float, ...] | None:
    return _most(image.pixel_size_um for image in images)


def _most(values: Iterable[T | None]) -> T | None:
    """The most frequent value that is known."""
    known = Counter(value for value in values if value is not None)
    return known.most_common(1)[0][0] if known else None
