"""What the check found about a dataset: the survey, what it proposes, and what a run will cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from unet.config.learning_curve import compared
from unet.config.presets import ARCHITECTURES
from unet.config.run import Config
from unet.config.sweep import collapsed
from unet.data.survey.facts import DatasetSurvey
from unet.data.survey.findings import Finding
from unet.errors import UserError
from unet.files import read_json
from unet.planning.estimates import Estimate


@dataclass(frozen=True)
class Suggestion:
    """A value that the images suggest for a key, beside what the config has.

    Attributes:
        key: as in the config, such as ``train.patch``.
        now: the config's value; several if its models differ; "" if unknown.
        value: the suggested one.
        reason: why.
    """

    key: str
    now: str
    value: str
    reason: str

    @property
    def same(self) -> bool:
        """Whether the config has the value already."""
        return self.now == self.value


@dataclass(frozen=True)
class Checked:
    """The result of a check; ``check.json`` holds it."""

    survey: DatasetSurvey
    suggestions: tuple[Suggestion, ...] = ()
    estimates: tuple[Estimate, ...] = ()

    @property
    def stops(self) -> tuple[Finding, ...]:
        """The findings with which a training would fail or be useless."""
        return tuple(each for each in self.survey.findings if each.level == "stop")

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "survey": self.survey.to_json(),
            "suggestions": [_plain(each) for each in self.suggestions],
            "estimates": [_plain(each) for each in self.estimates],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Checked:
        """The result that :meth:`to_json` gave."""
        return cls(
            DatasetSurvey.from_json(value["survey"]),
            tuple(Suggestion(**each) for each in value["suggestions"]),
            tuple(Estimate(**each) for each in value["estimates"]),
        )


def _plain(value: Suggestion | Estimate) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def read_checked(path: Path) -> Checked:
    """Reads ``check.json``.

    Raises:
        UserError: it is missing or damaged.
    """
    if not path.exists():
        raise UserError(f"{path}: missing; run `snakemake check` or `unet check` first")
    try:
        return Checked.from_json(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise UserError(f"{path}: damaged ({kind}); remove it and run again") from None


def suggestions(
    config: Config, dataset: str, proposed: Iterable[tuple[str, object, str]]
) -> tuple[Suggestion, ...]:
    """Proposals beside what the config has, for the keys that can be written.

    Args:
        proposed: key, value and reason of each.
    """
    found = []
    for key, value, reason in proposed:
        # A line per model: in a config there is no key for all of them.
        names: Sequence[str] = ("",)
        if "<name>" in key:
            plain = key.rpartition(".")[2]
            names = [m for m in _written(config, dataset) if _free(config, dataset, m, plain)]
        found += [
            Suggestion(
                named := key.replace("<name>", name),
                configured(config, dataset, named),
                text_of(value),
                reason,
            )
            for name in names
        ]
    return tuple(found)


def _written(config: Config, dataset: str) -> list[str]:
    """The models that the report compares, without those that follow from others: they are not in
    the file that people edit."""
    made = config.models.keys() - collapsed(config).models.keys()
    return [model for model in compared(config, dataset) if model not in made]


def _free(config: Config, dataset: str, model: str, key: str) -> bool:
    """Whether another value of a model's key can be written: preset auto chooses its network, not
    every network has every key, and trained weights fit no other network."""
    if key not in {field.name for kind in ARCHITECTURES.values() for field in fields(kind)}:
        return True
    architecture = config.architecture_for(model)
    if architecture is None or config.start_for(dataset, model) is not None:
        return False
    return key in {field.name for field in fields(architecture)}


# Keys of a section, by its name: the function of Config that merges the overrides.
_OF_MODELS = ("train", "predict", "stitch")
_OF_DATASETS = ("prepare", "evaluate")


def configured(config: Config, dataset: str, key: str) -> str:
    """The config's value of a key for a dataset; if its models differ, the value of each.

    Args:
        key: of a section (``train.patch``), a model (``width``) or a dataset (``label_kind``).
    """
    section, _, name = key.partition(".")
    models: Sequence[str] = _written(config, dataset) or compared(config, dataset)
    if section == "models":
        section, _, name = name.rpartition(".")
        models = (section,) if section in models else models
    if section in _OF_DATASETS and name:
        return text_of(_value(getattr(config, f"{section}_for")(dataset), name))
    if section in _OF_MODELS and name:
        merged = getattr(config, f"{section}_for")
        return _joined(
            {
                model: _tried(config, model, key) or text_of(_value(merged(dataset, model), name))
                for model in models
            }
        )
    plain = key.rpartition(".")[2]
    data = config.datasets[dataset]
    if plain in type(data).model_fields:
        return text_of(getattr(data, plain))
    return _joined(
        {model: _tried(config, model, plain) or _of_model(config, model, plain) for model in models}
    )


def _tried(config: Config, model: str, key: str) -> str:
    """The values that a model's sweep tries for a key; "" if it tries none."""
    values = config.model_section(model).sweep.get(key, ())
    return f"{' or '.join(map(text_of, values))} (sweep)" if values else ""


def _of_model(config: Config, model: str, name: str) -> str:
    section = config.model_section(model)
    value = getattr(section, name, None)
    if value is None:
        architecture = config.architecture_for(model.partition("@")[0])
        value = getattr(architecture, name, None)
    return "auto" if value is None and section.preset == "auto" else text_of(value)


def _value(section: object, name: str) -> object:
    for part in name.split("."):
        section = getattr(section, part, None)
    return section


def _joined(values: Mapping[str, str]) -> str:
    if len(set(values.values())) <= 1:
        return next(iter(values.values()), "")
    return ", ".join(f"{model}: {value}" for model, value in values.items())


def text_of(value: object) -> str:
    """A value as it is written in the config."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {text_of(one)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(text_of, value)) + "]"
    return str(value)
