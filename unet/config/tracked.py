"""How a stage's settings (:mod:`unet.config.stage_settings`) are written and read.

They hold no path of the machine and no time stamp, and have the stage's version in them. Of a
section, a key that is new and at its default is left out (:mod:`unet.config.stage_keys`); of the
other keys, each that has a default in its class and is at it.
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
from unet.config.stage_keys import defaults, told
from unet.errors import UserError
from unet.versions import STAGES


class Tracked(BaseModel):
    """Typed values that are written without those that are at their default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    stage: ClassVar[str]

    @property
    def untracked(self) -> frozenset[str]:
        """Keys of the section that change no result of the stage: they are not written."""
        return frozenset()

    @model_serializer(mode="wrap")
    def _written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = dump(self)
        for name, default in defaults(type(self)):
            value = getattr(self, name)
            if isinstance(value, Section):
                found[name] = told(self.stage, value, without=self.untracked)
            elif value == default:
                del found[name]
        return found


class Settings(Tracked):
    """What a stage gets of the config.

    Attributes:
        stage: its name in :data:`unet.versions.STAGES`.
        version: the stage's version constant.
    """

    version: int

    @classmethod
    def of(cls, config: Config, dataset: str = "", model: str = "") -> Self:
        """The settings for a dataset, and for a model where the stage's jobs are of one."""
        return cls.filled(config, dataset)

    @classmethod
    def filled(cls, config: Config, dataset: str, **values: Any) -> Self:
        """These values, and what else the dataset or the run has under the same name."""
        owners = (config.datasets[dataset], config)
        for name in cls.model_fields.keys() - values.keys():
            owner = next((owner for owner in owners if hasattr(owner, name)), None)
            if owner is not None:
                values[name] = getattr(owner, name)
        return cls.made(**values)

    @classmethod
    def made(cls, **values: Any) -> Self:
        """Of the stage's present version; what is not tracked is at its default."""
        new = cls(version=STAGES[cls.stage], **values)
        sections = {name: part for name, part in new if isinstance(part, Section)}
        return new.model_copy(
            update={name: at_default(part, new.untracked) for name, part in sections.items()}
        )

    def with_section(self, **values: Any) -> Self:
        """With other values of the section that has the stage's name."""
        section: Section = getattr(self, self.stage)
        return self.model_copy(update={self.stage: section.model_copy(update=values)})

    def to_json(self) -> dict[str, Any]:
        """Plain values, which :meth:`from_json` reads back."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What ``to_json`` wrote, also in earlier runs.

        Raises:
            UserError: a key is missing or unknown, or has a value that does not fit.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first, *others = lines_of(error, values)
            more = f" (and {len(others)} more)" if others else ""
            raise UserError(f"--settings{first.removeprefix('config')}{more}") from None
