"""What a run was made with: the config that differs from the defaults, and hashes of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unet.config.load import load
from unet.config.shown_config import changed_keys
from unet.config.yaml_file import read_yaml
from unet.errors import UserError
from unet.files import file_sha256
from unet.paths import Paths
from unet.provenance import read_made_by


@dataclass(frozen=True)
class RunRecord:
    """What a run was made with.

    Attributes:
        changed: key, value and default of what differs from the defaults.
        hashes: what it is, the file's path in the output folder, its hash.
    """

    changed: tuple[tuple[str, str, str], ...]
    hashes: tuple[tuple[str, str, str], ...]


def run_record(paths: Paths) -> RunRecord:
    """That of the whole run."""
    return RunRecord(_changed(paths), _config_hash(paths))


def dataset_record(paths: Paths, dataset: str, models: Sequence[str]) -> RunRecord:
    """That of a dataset: also its inputs and models, as the records of its scores name them."""
    found: dict[str, tuple[str, str, str]] = {}
    tables = [paths.manifest(dataset), *(paths.metrics(dataset, model) for model in models)]
    for table in tables:
        made = read_made_by(table) or {}
        for what, entries in (("input", made.get("inputs")), ("model", made.get("models"))):
            found.update({file: (what, file, str(key)) for file, key in (entries or {}).items()})
    return RunRecord(_changed(paths), (*_config_hash(paths), *found.values()))


def _config_hash(paths: Paths) -> tuple[tuple[str, str, str], ...]:
    if not paths.config.is_file():
        return ()
    return (("config", paths.config.name, file_sha256(paths.config)),)


def _changed(paths: Paths) -> tuple[tuple[str, str, str], ...]:
    """Nothing if the config is missing, or is one that this version does not accept."""
    try:
        return tuple(changed_keys(load(read_yaml(paths.config))))
    except (UserError, OSError):
        return ()
