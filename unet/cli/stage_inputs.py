"""Checks whether the inputs of a stage are up to date. Loads neither torch nor dask nor pandas.

Each output has a record of what made it (:mod:`unet.provenance`). If a user runs a stage by hand,
an input is refused if the files that it was made from have changed since, or if the given config
has different settings for it. In the workflow, planning decides what is out of date, and a stage
only warns. Inputs without a record (made by an early version) are accepted.
"""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from unet import provenance
from unet.config.load import load_file
from unet.config.run import Config
from unet.config.stage_settings import SETTINGS
from unet.config.tracked import Settings
from unet.errors import UserError
from unet.paths import COMPARED, Paths

log = logging.getLogger(__name__)

# Settings that are not in any config: they identify the raw files.
_NOT_CONFIGURED = {"fingerprint"}


def check_inputs(args: Namespace, settings: Settings, inputs: Iterable[Path]) -> provenance.MadeBy:
    """Checks the files that a stage is about to read.

    Args:
        args: of the command line. Without ``config`` the workflow has called the stage; then an
            outdated input is only a warning, because planning has accepted it (for example after
            ``snakemake --touch``).
        settings: the stage's settings.
        inputs: the files that the stage reads and that have a record, as in the workflow's rule.

    Returns:
        the record for the stage's outputs (:func:`unet.provenance.made_by_job`).

    Raises:
        UserError: an input is missing; or, by hand, it was made from different files than the
            current ones, or with different settings.
    """
    paths = list(inputs)
    config = None if args.config is None else load_file(args.config)
    seen: set[Path] = set()
    content_id = cache(provenance.content_id)  # many inputs are made from the same files
    changed = [line for path in paths for line in _changed(path, args, config, seen, content_id)]
    # If several processes work together, only the first warns.
    if changed and os.environ.get("RANK", "0") == "0":
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        log.warning("warning: %s%s (used anyway; delete it to remake it)", changed[0], more)
    return provenance.made_by_job(args.output, args.stage, settings.to_json(), paths)


def _changed(
    path: Path,
    args: Namespace,
    config: Config | None,
    seen: set[Path],
    content_id: Callable[[Path], str],
) -> Iterator[str]:
    """A line for each file that this one was made from and that has changed since.

    With a config the first change is an error, and the files that this one was made from are
    checked in the same way.
    """
    if path in seen or not path.is_file():
        return
    seen.add(path)
    record = provenance.read_made_by(path)
    if record is not None and config is not None:
        _check_settings(path, record, config, args)
    if path.suffix == ".pt":
        # A model's inputs are in the record of its history.
        record = provenance.read_made_by(path.with_name("history.csv"))
    if record is None:
        return
    for name, content in record.get("inputs", {}).items():
        source = args.output / name
        if not source.is_file():
            continue
        if content_id(source) != content:
            line = f"{path}: made from a different {name} than the current one"
            if config is not None:
                raise UserError(f"{line}; run scripts/{record['stage']}.py again")
            yield line
        if config is not None:
            yield from _changed(source, args, config, seen, content_id)


def _check_settings(path: Path, record: Mapping[str, Any], config: Config, args: Namespace) -> None:
    stage = record["stage"]
    if stage not in SETTINGS:
        return
    dataset, *rest = path.relative_to(args.output).parts
    model = rest[0] if len(rest) > 1 else ""
    if dataset not in config.datasets:
        raise UserError(f"{path}: {args.config} has no dataset {dataset!r}")
    if model == COMPARED:
        if (model := rest[1]) not in config.datasets[dataset].compare:
            key = f"datasets.{dataset}.compare"
            raise UserError(f"{path}: {args.config} has no masks {model!r} in {key}")
    elif model and model not in {*config.models, *config.models_for(dataset)}:
        raise UserError(f"{path}: {args.config} has no model {model!r}")
    data = config.datasets[dataset]
    if {"synthesize": data.synthetic, "download": data.download}.get(stage, stage) is None:
        return  # the config lists such files in the same way as other images
    wanted = SETTINGS[stage].of(config, dataset, model).to_json()
    found = _difference(_configured(record["settings"]), _configured(wanted))
    if found is not None:
        key, was, now = found
        raise UserError(
            f"{path}: made with different settings than those in {args.config} ({key}: {was}, now "
            f"{now}); run scripts/{stage}.py with this config, or give the config that made it"
        )


def _configured(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _NOT_CONFIGURED}


def _difference(one: Any, other: Any, key: str = "") -> tuple[str, str, str] | None:
    """The first dotted key in which two JSON values differ, and both values as text."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            found = _difference(
                one.get(name, "not given"), other.get(name, "not given"), f"{key}.{name}"
            )
            if found is not None:
                return found
        return None
    if one == other:
        return None
    return key.removeprefix("."), _short(one), _short(other)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def start_of_config(args: Namespace, paths: Paths) -> Path | None:
    """The file that a training starts from by the config, for a stage that is run by hand."""
    from unet.planning.jobs import Run

    config = load_file(args.config).model_copy(update={"output": str(paths.output)})
    return Run(config).start_file(args.dataset, args.model, args.fold)
