"""Keys of the config that have no effect given others: the width of a border in a network without
one. In a stage's settings they stand at their default, so that to edit them reruns nothing.

The tables of names say which keys each name reads (``Entry.keys``). A key belongs there only if the
stage's results are the same whatever its value: the seed's random numbers included
(``train.augment.elastic_grid`` draws them even where nothing is deformed).
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
    """Keys of the section that only names of these tables read that are not chosen."""
    known = {key for table, _ in chosen for entry in table.values() for key in entry.keys}
    read = {key for table, names in chosen for name in names for key in table[name].keys}
    return [key for key in type(section).model_fields if key in known - read]


def of_train(section: TrainSection, head: str) -> TrainSection:
    """Without what this loss, optimizer, schedule and head do not read."""
    unread = _unread(
        section,
        (LOSS_TABLE, [section.loss]),
        (OPTIMIZER_TABLE, [section.optimizer]),
        (SCHEDULE_TABLE, [section.schedule]),
        (HEADS, [head]),
    )
    return at_default(section, unread)


def border_width(section: ModelSection) -> int:
    """Of a head without borders, the default."""
    return at_default(section, _unread(section, (HEADS, [section.head]))).border_width


def of_architecture(arch: AnyArchitecture) -> AnyArchitecture:
    """``groups`` is of norm group alone."""
    if not isinstance(arch, Architecture) or arch.norm == "group":
        return arch
    return replace(arch, groups=Architecture.groups)


def of_split(section: SplitSection) -> SplitSection:
    """In an ensemble each fold validates one part of the images, whatever the share."""
    return at_default(section, ["val"] if section.ensemble else [])


def of_stitch(section: StitchSection, task: str) -> StitchSection:
    """Without what this method does not read; where no objects are made, without all about them."""
    if task == "instances":
        return at_default(section, _unread(section, (METHOD_TABLE, [section.method])))
    of_objects = ("method", "connectivity", "min_size", "fill_holes", "geojson", "rois")
    return at_default(section, [*of_objects, *_unread(section, (METHOD_TABLE, []))])


def of_evaluate(section: EvaluateSection) -> EvaluateSection:
    """Without settings of families that are not computed."""
    return at_default(section, _unread(section, (FAMILY_TABLE, section.metrics)))
