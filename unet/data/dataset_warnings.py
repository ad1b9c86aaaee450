"""What looks wrong in a dataset but is not refused: one line each, where people see it. Light.

A stage that notices something calls :func:`write_warnings` once at its end, with a file of its own
(``warnings.<stage>.json`` beside the dataset's tables; ``warnings.<stage>-<model>.json`` of what
concerns one model). The end of the run and the report's page
show what :func:`read_warnings` finds. What concerns one image is in the column ``warnings`` of
``manifest.csv``, too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unet.errors import one_line
from unet.files import read_json, write_json
from unet.paths import Paths

log = logging.getLogger(__name__)

# Takes a warning about a dataset as a whole.
Warn = Callable[[str], None]


# Lines that a console shows of one dataset.
SHOWN = 10
# In the order of the stages, so that the first cause comes first.
_ORDER = ("manifest", "splits")
_NUMBER = re.compile(r"\d+(\.\d+)?")


def unheard(text: str) -> None:
    """A ``Warn`` that drops what it is told."""


def grouped(warnings: Iterable[tuple[str, str]]) -> list[str]:
    """One line for all images that have the same warning (whatever its numbers).

    Args:
        warnings: (name of an image, warning) pairs.

    Returns:
        such as ``a.tif and 4 more images: one number, 14 separate pieces``.
    """
    same: dict[str, list[tuple[str, str]]] = {}
    for name, text in warnings:
        same.setdefault(_NUMBER.sub("#", text), []).append((name, text))
    lines = []
    for members in same.values():
        name, text = members[0]
        others = len(members) - 1
        more = f" and {others} more image{'s' if others > 1 else ''}" if others else ""
        # Names of files may hold line breaks.
        lines.append(one_line(f"{name}{more}: {text}"))
    return lines


def shown(lines: Sequence[str], rest: str, most: int = SHOWN) -> list[str]:
    """The first lines, and how many there are beside them.

    Args:
        rest: the file that has all of them.
    """
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], f"and {len(lines) - most + 1} more, see {rest}"]


def write_warnings(path: Path, lines: Sequence[str], **more: Any) -> None:
    """Notes a stage's warnings in place of those of its last run, and prints them.

    Args:
        more: other facts about the dataset that the report shows.
    """
    lines = [one_line(line) for line in lines]
    write_json(path, {"warnings": lines, **more})
    for line in shown(lines, path.name):
        log.warning("warning: %s", line)


def warning_lines(paths: Paths, models: Mapping[str, Collection[str]]) -> list[str]:
    """The warnings of a run for the console, some of each dataset.

    Args:
        models: those of each dataset, as in :func:`read_warnings`.
    """
    return [
        f"warning: {dataset}: {line}"
        for dataset, names in models.items()
        for line in shown(
            read_warnings(paths.dataset(dataset), names), str(paths.dataset_report_html(dataset))
        )
    ]


def read_warnings(folder: Path, models: Collection[str] = ()) -> list[str]:
    """The warnings of a dataset and of these models, in the order of the stages.

    Args:
        folder: the dataset's, in the output folder. Results of versions that noted nothing have no
            warnings.
        models: that the config names for it; notes of models that it no longer names stay unread.
    """
    return [str(line) for noted in _noted(folder, models) for line in noted["warnings"]]


def read_facts(folder: Path) -> dict[str, Any]:
    """What the stages noted beside their warnings: ``classes``
    (:func:`unet.data.label_doubts.class_table`) and ``remembered``, what of the split comes from
    earlier runs."""
    found: dict[str, Any] = {}
    for noted in _noted(folder, ()):
        found.update(noted)
    found.pop("warnings", None)
    return found


def _noted(folder: Path, models: Collection[str]) -> list[dict[str, Any]]:
    found = []
    for path in folder.glob("warnings.*.json"):
        name = path.name.split(".")[1]
        stage, of_model, model = name.partition("-")
        if not of_model or model in models:
            place = _ORDER.index(stage) if stage in _ORDER else len(_ORDER)
            found.append((place, name, path))
    return [read_json(path) for _, _, path in sorted(found)]
