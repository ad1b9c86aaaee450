"""Provenance: the software, stage, settings and inputs that made each output.

Planning reads it if Snakemake has no record of a file (because it was moved, renamed, copied or
cloned), so this module loads neither torch nor dask nor pandas. A sentinel JSON has the record
under the key ``made_by``, a table in a sidecar ``<table>-metadata.json`` (where CSV on the Web
looks for metadata, https://www.w3.org/TR/tabular-data-primer/). ``model.pt`` contains the settings
of its training; the inputs are in the sidecar of ``history.csv``, because the bytes of a model
identify its weights, and images that are only tested must not change them.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unet import __version__
from unet.errors import UserError
from unet.files import digest, file_sha256, write_json
from unet.paths import COMPARED

SOFTWARE = "unet-pipeline"
KEY = "made_by"
# A model's plain values are far smaller than this; a file that claims more is not a model.
_MAX_PLAIN = 1 << 26

# The stage that makes a file, if it is not the file's stem.
_MAKERS = {
    "raw.json": "synthesize",
    "prepared.json": "prepare",
    "model.pt": "train",
    "tiles.json": "predict",
    "segmentation.json": "stitch",
    "metrics.csv": "evaluate",
    "matches.csv": "details",
    "confusion.csv": "details",
    "thresholds.csv": "details",
    "history.csv": "train",
    "choice.json": "choose",
    "masks.json": "compare",
}

MadeBy = dict[str, Any]


def made_by(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> MadeBy:
    """The record that is saved with an output.

    Args:
        stage: as in :data:`unet.versions.STAGES`.
        settings: the stage's settings.
        inputs: name -> content id (see :func:`inputs_of`).
    """
    return {
        "software": SOFTWARE,
        "version": __version__,
        "stage": stage,
        # As they will be read back from JSON: tuples become lists.
        "settings": json.loads(json.dumps(settings)),
        "inputs": dict(inputs),
    }


def inputs_of(output: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Content ids of a job's inputs, by their path below the output folder."""
    return {name_of(output, path): content_id(path, output) for path in paths}


def made_by_job(
    output: Path, stage: str, settings: Mapping[str, Any], inputs: Iterable[Path]
) -> MadeBy:
    """The record for the outputs of a job that starts now.

    It has an entry ``models`` (name -> content id) if the results come from models, directly or
    through other inputs.

    Args:
        output: the run's output folder, which contains all inputs.
        settings: those that the job was started with.
        inputs: the inputs of the workflow's rule.
    """
    paths = list(inputs)
    made = made_by(stage, settings, inputs_of(output, paths))
    models: dict[str, str] = {}
    for path in paths:
        name = name_of(output, path)
        if path.suffix == ".pt":
            models[name] = made["inputs"][name]
        else:
            models.update((read_made_by(path) or {}).get("models", {}))
    return {**made, "models": models} if models else made


def name_of(output: Path, path: Path) -> str:
    """The name of an input: its path relative to the output folder."""
    return path.relative_to(output).as_posix()


def content_id(path: Path, output: Path | None = None) -> str:
    """Identifies a file's content; hex digits. ``output``: the output folder, to name the stage
    that makes a missing file.

    For a sentinel: its entry ``content``. For a model: a hash of its tensors' checksums, which are
    listed at the end of its archive (planning must not read gigabytes). For any other file: its
    sha256.

    Raises:
        UserError: the file is missing.
        OSError: it cannot be read.
    """
    if not path.exists():
        raise UserError(f"{path}: missing; run the {stage_of(path, output)} stage first")
    if path.suffix == ".json" and (content := _json(path).get("content")):
        return str(content)
    if path.suffix == ".pt" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return digest([[i.filename, i.file_size, i.CRC] for i in archive.infolist()])
    return file_sha256(path)


def stage_of(path: Path, output: Path | None = None) -> str:
    """The stage that makes a file."""
    # Jobs that share a prediction have the same stage.
    name = re.sub(r"\.shard-\d+", "", path.name)
    # <dataset>/compared/<tool>/...; the output folder itself may have that name, too.
    if output is not None and path.relative_to(output).parts[1:2] == (COMPARED,):
        return "compare"
    return _MAKERS.get(name, path.stem)


def sidecar(table: Path) -> Path:
    """The path of a table's metadata."""
    return table.with_name(f"{table.name}-metadata.json")


def write_sidecar(table: Path, made: Mapping[str, Any], **more: Any) -> None:
    """Writes a table's metadata. Call it after the table itself was written.

    Args:
        made: the record of :func:`made_by`.
        more: further entries of the table's metadata.
    """
    about = {"@context": "http://www.w3.org/ns/csvw", "url": table.name}
    write_json(sidecar(table), {**about, **more, KEY: dict(made)})


def read_made_by(path: Path) -> MadeBy | None:
    """The record of an output.

    Args:
        path: a sentinel, a table or a model.

    Returns:
        as :func:`made_by`; for a model that was trained only the stage and the settings; None if
        there is no readable record.
    """
    if path.suffix == ".pt":
        # The model of a sweep is a copy: it contains the settings of the one that was chosen.
        table = _json(sidecar(path.with_name("history.csv"))).get(KEY)
        if isinstance(table, dict) and table.get("stage") == "choose":
            return table if isinstance(table.get("settings"), dict) else None
        settings = _settings_of_model(path)
        return None if settings is None else {"stage": "train", "settings": settings}
    found = _json(path if path.suffix == ".json" else sidecar(path)).get(KEY)
    sound = isinstance(found, dict) and isinstance(found.get("settings"), dict)
    return found if sound else None


def records_inputs(path: Path) -> bool:
    """Whether a file's record has its inputs; early versions did not write them."""
    # A model's inputs are in the record of its history.
    table = path.with_name("history.csv") if path.suffix == ".pt" else path
    return "inputs" in (read_made_by(table) or {})


def _json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file; empty if the file is missing, damaged or not a mapping."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class _Inert:
    """Replaces every class that a pickle refers to."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _PlainValues(pickle.Unpickler):
    """Reads the plain values of a model without torch; imports nothing that the file names."""

    def find_class(self, module: str, name: str) -> type[_Inert]:
        return _Inert

    def persistent_load(self, pid: Any) -> None:
        return None


def _settings_of_model(path: Path) -> dict[str, Any] | None:
    """The settings that a ``model.pt`` was trained with."""
    try:
        with zipfile.ZipFile(path) as archive:
            (info,) = (i for i in archive.infolist() if i.filename.endswith("/data.pkl"))
            if info.file_size > _MAX_PLAIN:
                return None
            with archive.open(info) as handle:
                settings = json.loads(_PlainValues(handle).load()["settings"])
    except Exception:
        # A pickle that is not from a model can raise anything.
        return None
    return settings if isinstance(settings, dict) else None
