"""What masks mean and how to score them, without a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from unet.config.choices import FAMILY_TABLE
from unet.config.sections import EvaluateSection
from unet.errors import ArgumentError, UserError, did_you_mean
from unet.evaluation.families import MASK_FAMILIES

TASKS = ("instances", "semantic")
SIDES = ("predicted", "truth", "both")
UNLABELLED = ("background", "ignore")
OBJECT_CLASSES = ("background", "foreground")
# As many as in a config; higher class indices mean something else.
MOST_CLASSES = 200


@dataclass(frozen=True)
class MaskScoring:
    """What masks mean and how to score them.

    Attributes:
        task: "instances" (values are ids of objects) or "semantic" (values are classes).
        classes: task semantic: name -> value in the masks; the first one is the background.
        ignore: value in the truth whose pixels do not count.
        unlabelled: what pixels of the truth without a label are (value 0; task semantic: values of
            no class): "background", or "ignore" if nobody labelled them.
        metrics: families of metrics (`MASK_FAMILIES`) or one of them, None = all that fit the task.
        binary: whose masks are only foreground and background, so that the connected components
            are the objects: "predicted", "truth", "both" or None. Task instances.
        boundary_tolerance: of the family boundary, such as "2 px" or "0.5 um".

    Raises:
        UserError: these do not fit together.
        ArgumentError: one of them has a wrong value.
    """

    task: str = "instances"
    classes: Mapping[str, int] | None = None
    ignore: int | None = None
    metrics: str | Sequence[str] | None = None
    binary: str | None = None
    boundary_tolerance: str = "2 px"
    unlabelled: str = "background"
    section: EvaluateSection = field(init=False)

    def __post_init__(self) -> None:
        self._check_values()
        if self.task == "instances" and self.classes is not None:
            raise UserError("classes: they need task semantic; task instances has ids of objects")
        if self.task == "semantic" and self.binary is not None:
            raise UserError("binary: it is for objects; leave it out with task semantic")
        if self.task == "semantic" and len(self.classes or ()) < 2:
            raise UserError(
                "classes: task semantic needs at least two, name and value in the masks, such as "
                "background 0 and cell 255"
            )
        object.__setattr__(self, "section", self._section())

    def _check_values(self) -> None:
        if self.task not in TASKS:
            raise ArgumentError(f"task: got {self.task!r}; write instances or semantic")
        if self.binary is not None and self.binary not in SIDES:
            raise ArgumentError(f"binary: got {self.binary!r}; write one of {', '.join(SIDES)}")
        if self.unlabelled not in UNLABELLED:
            known = " or ".join(UNLABELLED)
            raise ArgumentError(f"unlabelled: got {self.unlabelled!r}; write {known}")
        if self.ignore is not None:
            object.__setattr__(self, "ignore", whole("ignore", self.ignore))
        if self.classes is not None:
            object.__setattr__(self, "classes", _checked_classes(self.classes))

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the class index."""
        return OBJECT_CLASSES if self.classes is None else tuple(self.classes)

    def _section(self) -> EvaluateSection:
        known = ", ".join(MASK_FAMILIES)
        given = tuple(MASK_FAMILIES) if self.metrics is None else self.metrics
        if not isinstance(given, str | list | tuple | set | frozenset):
            raise ArgumentError(f"metrics: got {given!r}; write a list of some of {known}")
        wanted = (given,) if isinstance(given, str) else tuple(given)
        for name in wanted:
            if not isinstance(name, str):
                raise ArgumentError(f"metrics: no family {name!r}; there are: {known}")
            if name in FAMILY_TABLE and name not in MASK_FAMILIES:
                raise UserError(
                    f"metrics: {name} needs probabilities, which masks do not hold; choose from "
                    f"{known} (a run's stage evaluate computes {name})"
                )
            if name not in MASK_FAMILIES:
                close = did_you_mean(name, MASK_FAMILIES)
                raise ArgumentError(f"metrics: no family {name!r}; there are: {known}{close}")
        if self.task == "semantic" and not {"pixel", "boundary"} & set(wanted):
            raise UserError(
                f"metrics: {', '.join(wanted) or 'none'} cannot score task semantic, which has no "
                "objects; write pixel or boundary"
            )
        try:
            return EvaluateSection(metrics=wanted, boundary_tolerance=self.boundary_tolerance)
        except ValueError:
            raise UserError(
                f"metrics {list(wanted)}, boundary_tolerance {self.boundary_tolerance!r}: write at "
                "least one family, and a distance such as 2 px or 0.5 um"
            ) from None


def whole(name: str, value: Any) -> int:
    """A whole number, NumPy's too.

    Raises:
        ArgumentError: it is something else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ArgumentError(f"{name}: got {value!r}; write a whole number")
    return int(value)


def _checked_classes(classes: Any) -> dict[str, int]:
    wanted = "write each name with its own value, such as {'background': 0, 'cell': 255}"
    if not isinstance(classes, Mapping):
        raise ArgumentError(f"classes: got {classes!r}; {wanted}")
    found = {name: whole(f"classes: {name}", value) for name, value in classes.items()}
    if not all(isinstance(name, str) and name for name in found):
        raise ArgumentError(f"classes: got {classes!r}; {wanted}")
    if len(set(found.values())) < len(found):
        raise ArgumentError(f"classes: got {classes!r}, one value twice; {wanted}")
    if len(found) > MOST_CLASSES:
        raise ArgumentError(f"classes: got {len(found)}; at most {MOST_CLASSES} are possible")
    return found
