"""Keys of the config that have no effect given the other settings, such as the border width of a
network without borders. A stage's settings contain their defaults instead, so that editing them
reruns nothing.

The tables of names say which keys each name reads (``Entry.keys``). A key belongs there only if the
stage's results are the same for any value, including the random numbers that are drawn
(``train.augment.elastic_grid`` draws some even if nothing is deformed).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from unet.config.choices import (
    FAMILY_TABLE,
    METHOD_TABLE,
    OPTIMIZER_TABLE,
    SCHEDULE_TABLE,
    Entry,
)
from unet.config.heads import HEADS
from unet.config.loss_table import LOSS_TABLE
from unet.config.presets import AnyArchitecture, Architecture
from unet.config.sections import (
    EvaluateSection,
    ModelSection,
    Section,
    SplitSection,
    StitchSection,
    TrainSection,
)

S = TypeVar("S", bound=Section)


def at_default(section: S, keys: Iterable[str]) -> S:
    """The section with these keys at their defaults."""
    defaults = {key: type(section).model_fields[key].get_default() for key in keys}
    return section.model_copy(update=defaults)


def _unread(section: Section, *chosen: tuple[Mapping[str, Entry], Collection[str]]) -> list[str]:
    """Keys of the section that are read only by names in these tables that are not chosen."""
    known = {key for table, _ in chosen for entry in table.values() for key in entry.keys}
    read = {key for table, names in chosen for name in names for key in table[name].keys}
    return [key for key in type(section).model_fields if key in known - read]


def reset_train(section: TrainSection, head: str) -> TrainSection:
    """Resets keys that this loss, optimizer, schedule and head do not read, and those of a start
    without one. Without a step, only the start and the validation remain."""
    unread = _unread(
        section,
        (LOSS_TABLE, [section.loss]),
        (OPTIMIZER_TABLE, [section.optimizer]),
        (SCHEDULE_TABLE, [section.schedule]),
        (HEADS, [head]),
    )
    if section.start is None:
        unread += ["freeze", "norm_statistics"]
    elif section.epochs == 0:
        unread += set(TrainSection.model_fields) - {"from", "epochs", "precision", "distance_px"}
    return at_default(section, unread)


def border_width(section: ModelSection) -> int:
    """The border width; the default for a head without borders."""
    return at_default(section, _unread(section, (HEADS, [section.head]))).border_width


def reset_architecture(arch: AnyArchitecture) -> AnyArchitecture:
    """Resets ``groups`` unless the norm is group."""
    if not isinstance(arch, Architecture) or arch.norm == "group":
        return arch
    return replace(arch, groups=Architecture.groups)


def reset_split(section: SplitSection) -> SplitSection:
    """Resets ``val`` for an ensemble, in which each fold validates on one part of the images."""
    return at_default(section, ["val"] if section.ensemble else [])


def reset_stitch(section: StitchSection, task: str) -> StitchSection:
    """Resets keys that this method does not read, and all keys for objects if there are none."""
    if task == "instances":
        return at_default(section, _unread(section, (METHOD_TABLE, [section.method])))
    object_keys = ("method", "connectivity", "min_size", "fill_holes", "geojson", "rois")
    return at_default(section, [*object_keys, *_unread(section, (METHOD_TABLE, []))])


def reset_evaluate(section: EvaluateSection) -> EvaluateSection:
    """Resets keys of families that are not computed."""
    return at_default(section, _unread(section, (FAMILY_TABLE, section.metrics)))
