"""Warnings about a dataset: things that look wrong but are used anyway, one line each. Light.

Each stage with warnings calls :func:`write_warnings` once at its end, with its own file
(``warnings.<stage>.json`` next to the dataset's tables, ``warnings.<stage>-<model>.json`` for one
model). The end of the run and the report's page show what :func:`read_warnings` finds: first what
makes all results worthless, so that it is never among the lines left out. Warnings about a single
image are also in the column ``warnings`` of ``manifest.csv``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unet.errors import one_line
from unet.files import read_json, remove, write_json
from unet.paths import Paths, fold_name

log = logging.getLogger(__name__)

# Receives a warning about a whole dataset.
Warn = Callable[[str], None]


# Number of lines per dataset that the console shows.
SHOWN = 10
# In the order of the stages, so that the first cause comes first.
_ORDER = ("manifest", "splits")
_NUMBER = re.compile(r"\d+(\.\d+)?")


def ignore_warning(text: str) -> None:
    """A ``Warn`` that drops the warning."""


def grouped(warnings: Iterable[tuple[str, str]]) -> list[str]:
    """One line for all images with the same warning (numbers may differ).

    Args:
        warnings: (name of an image, warning) pairs.

    Returns:
        such as ``a.tif and 4 more images: one number, 14 separate regions``.
    """
    return [f"{where}: {text}" for where, text in merged(warnings)]


def merged(warnings: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """As :func:`grouped`, with the images (``a.tif and 4 more images``) and the text apart."""
    same: dict[str, list[tuple[str, str]]] = {}
    for name, text in warnings:
        same.setdefault(_NUMBER.sub("#", text), []).append((name, text))
    found = []
    for members in same.values():
        name, text = members[0]
        others = len(members) - 1
        more = f" and {others} more image{'s' if others > 1 else ''}" if others else ""
        # File names can contain line breaks.
        found.append((one_line(f"{name}{more}"), one_line(text)))
    return found


def first_lines(lines: Sequence[str], rest: str, most: int = SHOWN) -> list[str]:
    """The first lines, and the number of those left out.

    Args:
        rest: the file that contains all of them.
    """
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], f"and {len(lines) - most + 1} more, see {rest}"]


def write_warnings(
    path: Path, lines: Sequence[str], first: Sequence[str] = (), **more: Any
) -> None:
    """Replaces a stage's warnings from its last run, and logs the new ones.

    Args:
        first: lines that make all results worthless; they come before those of every stage.
        more: other facts about the dataset for the report.
    """
    urgent = [one_line(line) for line in first]
    lines = [*urgent, *(one_line(line) for line in lines)]
    write_json(path, {"warnings": lines, **({"first": urgent} if urgent else {}), **more})
    for line in first_lines(lines, path.name):
        log.warning("warning: %s", line)


def write_training_warnings(
    paths: Paths,
    dataset: str,
    model: str,
    fold: int,
    lines: Sequence[str],
    settings: Sequence[str] = (),
) -> None:
    """Replaces the warnings about a training; those of the choice of a sweep too.

    Args:
        settings: warnings about settings. They do not name model and fold, so that what all
            trainings have in common is shown once.
    """
    path = _of_training(paths, dataset, model, fold)
    if lines or settings:
        where = f"{model}, fold {fold_name(fold)}: "
        found = [*settings, *(f"{where}{one_line(line)}" for line in lines)]
        write_json(path, {"warnings": found})
    else:
        remove(path)


def training_warnings(paths: Paths, dataset: str, model: str, fold: int) -> list[str]:
    """The warnings about a training, as :func:`write_training_warnings` got them."""
    path = _of_training(paths, dataset, model, fold)
    where = f"{model}, fold {fold_name(fold)}: "
    lines = read_json(path)["warnings"] if path.is_file() else ()
    return [str(line).removeprefix(where) for line in lines]


def _of_training(paths: Paths, dataset: str, model: str, fold: int) -> Path:
    return paths.warnings(dataset, f"train-{model}.{fold_name(fold)}")


def warning_lines(paths: Paths, models: Mapping[str, Collection[str]]) -> list[str]:
    """The warnings of a run for the console, at most ``SHOWN`` per dataset.

    Args:
        models: of each dataset, as in :func:`read_warnings`.
    """
    return [
        f"warning: {dataset}: {line}"
        for dataset, names in models.items()
        for line in first_lines(
            read_warnings(paths.dataset(dataset), names), str(paths.dataset_report_html(dataset))
        )
    ]


def read_warnings(folder: Path, models: Collection[str] = ()) -> list[str]:
    """The warnings about a dataset and these models: first those that make all results worthless,
    then the others in the order of the stages. What several models say in the same words is there
    once.

    Args:
        folder: of the dataset, in the output folder. Results of old versions have no warnings.
        models: of the dataset in the config; warnings about other models are ignored.
    """
    noted = _noted(folder, models)
    lines = [line for key in ("first", "warnings") for one in noted for line in one.get(key, ())]
    return list(dict.fromkeys(map(str, lines)))


def read_facts(folder: Path) -> dict[str, Any]:
    """Other facts in the stages' warning files: ``classes``
    (:func:`unet.data.label_warnings.class_table`) and ``remembered``, which parts of the split come
    from earlier runs."""
    found: dict[str, Any] = {}
    for noted in _noted(folder, ()):
        found.update(noted)
    return {name: value for name, value in found.items() if name not in ("first", "warnings")}


def _noted(folder: Path, models: Collection[str]) -> list[dict[str, Any]]:
    found = []
    for path in folder.glob("warnings.*.json"):
        name = path.name.split(".")[1]
        stage, of_model, model = name.partition("-")
        if not of_model or model in models:
            place = _ORDER.index(stage) if stage in _ORDER else len(_ORDER)
            found.append((place, name, path))
    return [read_json(path) for _, _, path in sorted(found)]
