"""Validates a config: returns a :class:`unet.config.run.Config`, or one line per mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unet.config import (
    joined_datasets,
    learning_curve,
    predict_with,
    start_checks,
    start_models,
    sweep,
)
from unet.config.checks import mistakes
from unet.config.messages import lines_of, too_large
from unet.config.run import Config
from unet.config.yaml_file import read_yaml
from unet.errors import UserError


def load(raw: Mapping[str, Any]) -> Config:
    """Validates a raw mapping.

    Raises:
        UserError: with one line per mistake: the key, what was found, what is allowed.
    """
    if found := too_large(raw):
        raise UserError(f"config: {found}")
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        raise UserError("\n".join(lines_of(error, dict(raw)))) from None
    config = sweep.expanded(learning_curve.expanded(start_models.expanded(config, _made(config))))
    lines = joined_datasets.join_mistakes(config)
    if not lines:
        config = joined_datasets.resolved(config)
        lines = predict_with.origin_mistakes(config) or start_checks.origin_mistakes(config)
    if not lines:
        config = predict_with.resolved(config)
        lines = sweep.said_once(mistakes(config), config)
    if lines:
        raise UserError("\n".join(lines))
    return config


def _made(config: Config) -> list[str]:
    """The models that follow from a learning curve or a sweep, in a config that has them all."""
    return [
        made
        for name in config.models
        for made in (*learning_curve.curve_of(config, name), *config.members_of(name))
    ]


def load_file(path: Path) -> Config:
    """Reads and validates a YAML file.

    Raises:
        UserError: the file is missing, is not YAML, or does not contain a valid config.
    """
    return load(read_yaml(path))
