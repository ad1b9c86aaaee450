"""Sweeps: ``models.<name>.sweep: {width: [16, 32]}`` stands for a model per combination of values.

These models are only trained. ``<name>`` itself is, for each dataset, the one with the best
validation score (the stage ``choose``). :func:`expanded` puts them into the config at load, and
:func:`collapsed` takes them out again. :meth:`unet.config.run.Config.models_for` leaves them out,
:meth:`~unet.config.run.Config.trained_for` has them in place of ``<name>``. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from unet.config import learning_curve, made_models, start_models
from unet.config.messages import SYNONYMS, lines_of
from unet.config.recipes import expanded as recipe_values
from unet.config.run import Config, merge, overlaid
from unet.config.sections import ModelSection, TrainSection
from unet.config.swept_names import combinations, member_name
from unet.errors import UserError

# More models than this are a mistake rather than a plan.
MOST = 100
# Why a key cannot be swept.
_TARGET = "it changes what the network learns, so the validation scores cannot be compared"
_LATER = "it changes nothing in training, so it has no validation score"
REFUSED = {
    "head": _TARGET,
    "border_width": _TARGET,
    "predict": _LATER,
    "stitch": _LATER,
    "learning_curve": "it is no setting of a training",
    "sweep": "it is no setting of a training",
    "train.subset": "more images are no choice; write learning_curve to see what they bring",
    "train.from": "its values are no names; write a model for each start",
    "train.show_start": _LATER,
    "train.checkpoint_seconds": _LATER,
    "train.cache_gb": _LATER,
    "train.gpus": _LATER,
    "train.compile": _LATER,
}


def sweeps_of(config: Config, dataset: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The sweeps of a dataset: model -> the models that it is chosen from, with their values."""
    if config.origins_for(dataset):
        return {}
    return {m: made for m in config.models_for(dataset) if (made := config.members_of(m))}


def swept(config: Config) -> tuple[str, ...]:
    """The models that are chosen, not trained."""
    return tuple(name for name, section in config.models.items() if section.sweep)


def expanded(config: Config) -> Config:
    """The config with the models of all sweeps. A config that has them already stays as it is.

    Raises:
        UserError: one line per key that cannot be swept, value that is not allowed, and name that
            two combinations would get, that is taken, or that is not allowed.
    """
    lines: list[str] = []
    models = dict(config.models)
    for name in swept(config):
        section, key = config.models[name], f"config: models.{name}.sweep"
        wrong = _wrong_keys(section) or _wrong_values(config, name)
        if not wrong:
            made = {
                member_name(name, values): _with_values(section, values)
                for values in combinations(section.sweep)
            }
            wrong = _wrong_names(config, name, made)
            models.update(made)
        lines += [f"{key}: {text}" if text else text for text in wrong]
    if lines:
        raise UserError("\n".join(lines))
    return config.model_copy(update={"models": models}) if swept(config) else config


def collapsed(config: Config) -> Config:
    """Without the models that follow from a sweep, from a learning curve, or from a start."""
    made = {member for name in swept(config) for member in config.members_of(name)}
    # A dataset may train one of them as a model like any other, but by its name alone.
    models = {name: section for name, section in config.models.items() if name not in made}
    trained = learning_curve.collapsed(config.model_copy(update={"models": models}))
    return start_models.collapsed(trained)


def sweep_models(config: Config) -> dict[str, str]:
    """The models that follow from a sweep -> the models that are chosen from them."""
    return {member: name for name in swept(config) for member in config.members_of(name)}


def written_models(config: Config) -> dict[str, str]:
    """The models that follow from others -> the models that the user wrote."""
    return {
        **sweep_models(config),
        **learning_curve.curve_models(config),
        **start_models.shown_models(config),
    }


def said_once(lines: Sequence[str], config: Config) -> list[str]:
    """The messages, with one for the whole sweep in place of the same for each of its models."""
    made = {**start_models.shown_models(config), **learning_curve.curve_models(config)}
    found = made_models.said_once(lines, made)
    for name in swept(config):
        of = config.members_of(name)
        # Longest first: the name of one may begin like that of another.
        order = sorted(of, key=len, reverse=True)
        short = {line: _with_name(line, order, name) for line in found}
        for text in dict.fromkeys(short.values()):
            alike = [line for line, brief in short.items() if brief == text]
            at = found.index(alike[0])
            if len(alike) < len(of) and alike == [text]:
                continue  # it is about other models
            found = [line for line in found if line not in alike]
            if len(alike) < len(of):
                # Only some values are wrong: nobody wrote the keys of these models.
                text = f"config: models.{name}.sweep: {alike[0].removeprefix('config: ')}"
            found.insert(at, text)
    return found


def _with_name(line: str, order: Sequence[str], name: str) -> str:
    for member in order:
        line = re.sub(rf"(?<![\w-]){re.escape(member)}(?![\w-])", name, line)
    return line


def _wrong_keys(section: ModelSection) -> list[str]:
    if section.learning_curve:
        return ["cannot be used together with learning_curve; choose first, then write the curve"]
    lines = []
    of_model = set(ModelSection.model_fields) - {"train", *REFUSED}
    of_train = {f"train.{name}" for name in TrainSection.model_fields} - set(REFUSED)
    for key, values in section.sweep.items():
        first = ".".join(key.split(".")[:2])
        if first in REFUSED or key.partition(".")[0] in REFUSED:
            why = REFUSED.get(first) or REFUSED[key.partition(".")[0]]
            lines.append(f"{key}: cannot be swept: {why}")
        elif key not in of_model and first not in of_train:
            near = _meant(key, of_model, of_train) or "; write such as width or train.lr"
            lines.append(f"no key {key!r} of a model{near}")
        elif not values:
            lines.append(f"{key}: the list is empty; write the values to try")
        elif any(isinstance(value, Mapping) for value in values):
            lines.append(f"{key}: a value is a mapping; sweep the keys in it (such as {key}.<key>)")
    total = len(combinations(section.sweep))
    if not lines and total > MOST:
        lines.append(f"makes {total} models, at most {MOST} are allowed; write fewer values")
    return lines


def _meant(key: str, of_model: Collection[str], of_train: Collection[str]) -> str:
    """The end of a message about an unknown key: the one that is probably meant; "" if none is."""
    name, *inner = key.removeprefix("train.").split(".")
    # Without train., which all its keys would have in common.
    known = {each.removeprefix("train."): each for each in of_train}
    if not key.startswith("train."):
        known = {**known, **{each: each for each in of_model}}
    name = SYNONYMS.get(name, name)
    if name in known:
        return f"; did you mean {'.'.join([known[name], *inner])}?"
    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {known[near[0]]}?" if near else ""


def _wrong_values(config: Config, name: str) -> list[str]:
    """Values that are not allowed, each alone; then combinations that are not allowed."""
    section = config.models[name]
    if _refusals(config, section, {}):
        return []  # the model's own mistakes are reported later, once
    alone = [{key: value} for key, values in section.sweep.items() for value in values]
    lines: list[str] = []
    for tried in alone if len(section.sweep) > 1 else ():
        # A preset may need other keys, so alone only the keys of train are checked.
        lines += [] if "preset" in section.sweep else _refusals(config, section, tried)
    if not lines:
        for tried in combinations(section.sweep):
            lines += _refusals(config, section, tried)
    return list(dict.fromkeys(lines))


def _refusals(config: Config, section: ModelSection, values: Mapping[str, Any]) -> list[str]:
    raw = _raw(section, values)
    try:
        made = ModelSection.model_validate(raw)
        raw = merge(config.train.model_dump(), recipe_values(made.train))
        overlaid(config.train, recipe_values(made.train))
    except ValidationError as error:
        prefix = () if error.title == "ModelSection" else ("train",)
        given = ", ".join(f"{key}: {value}" for key, value in values.items())
        found = [line.removeprefix("config: ") for line in lines_of(error, raw, prefix)]
        return [f"{line} in {given}" for line in found]
    return []


def _raw(section: ModelSection, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a model with these values, as a user would write them."""
    raw = section.model_dump(exclude_unset=True, exclude={"sweep", "learning_curve"})
    train: Any = raw.get("train", {})
    raw["train"] = {"recipe": train} if isinstance(train, str) else dict(train)
    for key, value in values.items():
        over = value
        for part in reversed(key.split(".")):
            over = {part: over}
        raw = merge(raw, over)
    return raw


def _with_values(section: ModelSection, values: Mapping[str, Any]) -> ModelSection:
    return ModelSection.model_validate(_raw(section, values))


def _wrong_names(config: Config, name: str, made: Mapping[str, ModelSection]) -> list[str]:
    lines, known = [], set[str]()
    for values in combinations(config.models[name].sweep):
        member = member_name(name, values)
        if member in known:
            lines.append(f"two combinations make the model {member}; write different values")
        elif wrong := made_models.name_mistake(config, name, member, made[member]):
            lines.append(wrong)
        known.add(member)
    return list(dict.fromkeys(lines))
