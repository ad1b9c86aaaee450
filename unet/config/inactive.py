"""Keys of the config that have no effect given others: the width of a border in a network without
one. In a stage's settings they stand at their default, so that to edit them reruns nothing.

A key belongs here only if the stage's results are the same whatever its value: the seed's random
numbers included (``train.augment.elastic_grid`` draws them even where nothing is deformed).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from unet.config.heads import HEADS
from unet.config.loss_table import BORDER_WEIGHT, DISTANCE, LOSS_TABLE, SIGNED_DISTANCE
from unet.config.presets import AnyArchitecture, Architecture
from unet.config.sections import (
    CHOOSING,
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


def of_train(section: TrainSection, head: str) -> TrainSection:
    """What says nothing beside this loss, optimizer, schedule and head."""
    maps = {*LOSS_TABLE[section.loss].maps, *HEADS[head].maps}
    moot: list[str] = []
    if BORDER_WEIGHT not in maps:
        moot += ["w0", "sigma", "cells"]
    if not maps & {DISTANCE, SIGNED_DISTANCE}:
        moot.append("distance_px")
    if DISTANCE not in HEADS[head].maps:
        moot.append("distance_weight")
    if section.optimizer == "adamw":
        moot.append("momentum")
    if section.schedule != "plateau":
        moot += ["plateau_patience", "plateau_factor"]
    return at_default(section, moot)


def border_width(section: ModelSection) -> int:
    """Of a head without borders, the default."""
    moot = [] if section.head == "border" else ["border_width"]
    return at_default(section, moot).border_width


def of_architecture(arch: AnyArchitecture) -> AnyArchitecture:
    """``groups`` is of norm group alone."""
    if not isinstance(arch, Architecture) or arch.norm == "group":
        return arch
    return replace(arch, groups=Architecture.groups)


def of_split(section: SplitSection) -> SplitSection:
    """In an ensemble each fold validates one part of the images, whatever the share."""
    return at_default(section, ["val"] if section.ensemble else [])


def of_stitch(section: StitchSection, task: str) -> StitchSection:
    """What says nothing beside this method, or where no objects are made."""
    moot: list[str] = []
    if task != "instances":
        moot += ["method", "connectivity", "min_size", "fill_holes", "geojson", "rois"]
    if task != "instances" or section.method != "grow":
        moot.append("grow_px")
    if task != "instances" or section.method != "watershed":
        moot.append("watershed_h")
    return at_default(section, moot)


def of_evaluate(section: EvaluateSection) -> EvaluateSection:
    """Settings of families that are not computed."""
    families, moot = set(section.metrics), []
    if not CHOOSING & families:
        moot.append("topology_class")
    if "topology" not in families:
        moot.append("boundary")
    if "boundary" not in families:
        moot.append("boundary_tolerance")
    return at_default(section, moot)
