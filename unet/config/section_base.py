"""The base class of the config's sections, and common types of values.

A section's class defines its keys: each with its type, range and default, followed by a docstring
that says what the key does. ``make config-docs`` writes the tables of ``config/README.md`` and the
JSON schema from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Gpus = Annotated[int, Field(ge=1, le=64)]


@dataclass(frozen=True)
class Shown:
    """Parts of a key's row in ``config/README.md`` that cannot be derived from the key."""

    values: str = ""
    """The allowed values, in words."""
    default: str = ""
    """The default, in words."""
    reruns: str = ""
    """The first stage that runs again after a change; ``-``: none."""


@dataclass(frozen=True)
class Changes:
    """Marks a key of a dataset or model that contains changes to a section of the config."""

    section: str

    def __get_pydantic_json_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        return {"x-changes": self.section}  # a reference within unet.config.schema


def sections_of(annotation: Any) -> list[type[Section]]:
    """The sections that a key may contain, directly or in a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in sections_of(part)]


def _named_type(annotation: Any) -> Any:
    """The type of the values in a key that is a mapping; None for other keys."""
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is dict:
            return get_args(kind)[1]
    return None


def _takes_number(annotation: Any) -> bool:
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return any(map(_takes_number, get_args(annotation)))
    return annotation in (int, float)


def _takes_null(annotation: Any) -> bool:
    return annotation is Any or type(None) in get_args(annotation)


class Section(BaseModel):
    """Base class of all sections: unknown keys are errors, and values cannot change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    reruns: ClassVar[str] = ""
    """The first stage that runs again when a key changes, unless the key itself says otherwise."""

    @field_validator("*", mode="before")
    @classmethod
    def _number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses true and false for a number: Pydantic reads them as 1 and 0."""
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, bool) and _takes_number(field.annotation):
            raise ValueError(f"must be a number (got {str(value).lower()})")
        return value

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        """Lets ``null`` unset a key, or drop a dataset, model or class; but not if null is one of
        the key's values (``clip_norm: null``)."""
        if not isinstance(value, Mapping):
            return value
        kept = dict(value)
        for key, field in cls.model_fields.items():
            inner, given = _named_type(field.annotation), kept.get(key)
            if key in kept and given is None and not _takes_null(field.annotation):
                del kept[key]
            elif isinstance(given, Mapping) and inner is not None and not _takes_null(inner):
                kept[key] = {name: part for name, part in given.items() if part is not None}
        return kept
