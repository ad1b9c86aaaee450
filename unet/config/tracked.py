"""How a stage's settings (:mod:`unet.config.stage_settings`) are written and read.

They contain the stage's version, but no paths and no time stamps. New keys of a section are left
out at their default (:mod:`unet.config.stage_keys`), and so is every other key that is at the
default of its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from unet.config.inactive import at_default
from unet.config.messages import lines_of
from unet.config.run import Config
from unet.config.sections import Section
from unet.config.stage_keys import defaults, written_keys
from unet.errors import UserError
from unet.versions import STAGES


class Tracked(BaseModel):
    """Typed values; those at their default are not written."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    stage: ClassVar[str]

    @property
    def untracked(self) -> frozenset[str]:
        """Keys of the section that change no result of the stage; they are not written."""
        return frozenset()

    @model_serializer(mode="wrap")
    def _written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = dump(self)
        for name, default in defaults(type(self)):
            value = getattr(self, name)
            if isinstance(value, Section):
                found[name] = written_keys(self.stage, value, without=self.untracked)
            elif value == default:
                del found[name]
        return found


class Settings(Tracked):
    """Settings of a stage.

    Attributes:
        stage: its name in :data:`unet.versions.STAGES`.
        version: the stage's version constant.
    """

    version: int

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        """The settings for a dataset, and for a model if the stage runs once per model."""
        return cls.filled(config, dataset)

    @classmethod
    def filled(cls, config: Config, dataset: str, **values: Any) -> Self:
        """Settings with these values; the others are taken from the keys of the same name in the
        dataset or the run."""
        owners = (config.datasets[dataset], config)
        for name in cls.model_fields.keys() - values.keys():
            owner = next((owner for owner in owners if hasattr(owner, name)), None)
            if owner is not None:
                values[name] = getattr(owner, name)
        return cls.made(**values)

    @classmethod
    def made(cls, **values: Any) -> Self:
        """Settings with these values and the stage's current version; untracked keys are set to
        their defaults."""
        new = cls(version=STAGES[cls.stage], **values)
        sections = {name: part for name, part in new if isinstance(part, Section)}
        return new.model_copy(
            update={
                name: at_default(part, new.untracked & type(part).model_fields.keys())
                for name, part in sections.items()
            }
        )

    def with_section(self, **values: Any) -> Self:
        """A copy with other values in the section that has the stage's name."""
        section: Section = getattr(self, self.stage)
        return self.model_copy(update={self.stage: section.model_copy(update=values)})

    def to_json(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_json` reads back."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The settings that ``to_json`` wrote, also in earlier runs.

        Raises:
            UserError: a key is missing or unknown, or has an invalid value.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first, *others = lines_of(error, values)
            more = f" (and {len(others)} more)" if others else ""
            raise UserError(f"--settings{first.removeprefix('config')}{more}") from None
