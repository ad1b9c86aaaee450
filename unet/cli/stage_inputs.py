"""Whether the inputs of a stage are what it is asked for. Loads neither torch nor dask nor pandas.

Each output tells what made it (:mod:`unet.provenance`). By hand it is refused where one of its own
inputs has changed since, or where the given config has other settings for it. In the workflow
planning decides what is out of date, and a stage only warns. What tells nothing, as an earlier
version made it, is taken as it is.
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

log = logging.getLogger(__name__)

# Settings that no config has: what stands for the raw files.
_NOT_CONFIGURED = {"fingerprint"}


def checked(args: Namespace, settings: Settings, inputs: Iterable[Path]) -> provenance.MadeBy:
    """Looks at what a stage is about to read.

    Args:
        args: of its command line. Without ``config`` the workflow calls; then an input that was
            made from other files than there are is a warning: planning knows of it, as after
            ``snakemake --touch``.
        settings: its own.
        inputs: all files that it reads and that tell what made them, as the workflow's rule has
            them.

    Returns:
        what its outputs are made by (:func:`unet.provenance.of_job`).

    Raises:
        UserError: an input is not there; or, by hand, it was made from other files than there are,
            or with other settings.
    """
    paths = list(inputs)
    config = None if args.config is None else load_file(args.config)
    seen: set[Path] = set()
    content_id = cache(provenance.content_id)  # many are made from the same files
    changed = [line for path in paths for line in _changed(path, args, config, seen, content_id)]
    # Of processes that work together the first one speaks.
    if changed and os.environ.get("RANK", "0") == "0":
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        log.warning("warning: %s%s; used as it is, delete it to make it again", changed[0], more)
    return provenance.of_job(args.output, args.stage, settings.to_json(), paths)


def _changed(
    path: Path,
    args: Namespace,
    config: Config | None,
    seen: set[Path],
    content_id: Callable[[Path], str],
) -> Iterator[str]:
    """A line for each file that this one was made from and that is another one now.

    With a config the first is an error, and what the file was made from is looked at as well.
    """
    if path in seen or not path.is_file():
        return
    seen.add(path)
    record = provenance.read_made_by(path)
    if record is not None and config is not None:
        _check_settings(path, record, config, args)
    if path.suffix == ".pt":
        # What it was trained on stands beside its history.
        record = provenance.read_made_by(path.with_name("history.csv"))
    if record is None:
        return
    for name, content in record.get("inputs", {}).items():
        source = args.output / name
        if not source.is_file():
            continue
        if content_id(source) != content:
            line = f"{path}: made from another {name} than the one that is there"
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
    if model and model not in {*config.models, *config.models_for(dataset)}:
        raise UserError(f"{path}: {args.config} has no model {model!r}")
    if stage == "synthesize" and config.datasets[dataset].synthetic is None:
        return  # generated files that a config names as any others
    wanted = SETTINGS[stage].of(config, dataset, model).to_json()
    found = _difference(_configured(record["settings"]), _configured(wanted))
    if found is not None:
        key, was, now = found
        raise UserError(
            f"{path}: made with other settings than {args.config} has ({key}: {was}, now {now}); "
            f"run scripts/{stage}.py with this config, or give the one that made it"
        )


def _configured(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _NOT_CONFIGURED}


def _difference(one: Any, other: Any, key: str = "") -> tuple[str, str, str] | None:
    """The first key, dotted, in which two JSON values differ, with both values as text."""
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
