"""What made an output: software, stage, settings and inputs, kept beside or in each result.

Planning reads it where Snakemake has no record of a file (moved, renamed, copied, cloned), so this
module loads neither torch nor dask nor pandas. A sentinel JSON has it under the key ``made_by``, a
table in a sidecar ``<table>-metadata.json`` (the place where CSV on the Web looks for metadata,
https://www.w3.org/TR/tabular-data-primer/). A model has its settings in ``model.pt`` itself; the
rest is in the sidecar of its ``history.csv``: images that are only tested must not change the
bytes of a model, which stand for its weights.
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

SOFTWARE = "unet-pipeline"
KEY = "made_by"
# More than a model's plain values take; what says it needs more is no model.
_MAX_PLAIN = 1 << 26

# The stage that makes a file, where its name does not tell.
_MAKERS = {
    "raw.json": "synthesize",
    "prepared.json": "prepare",
    "model.pt": "train",
    "tiles.json": "predict",
    "segmentation.json": "stitch",
    "metrics.csv": "evaluate",
    "history.csv": "train",
}

MadeBy = dict[str, Any]


def made_by(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> MadeBy:
    """What is kept with an output.

    Args:
        stage: as in :data:`unet.versions.STAGES`.
        settings: the slice of the config as the stage was told it.
        inputs: name -> content id (see :func:`inputs_of`).
    """
    return {
        "software": SOFTWARE,
        "version": __version__,
        "stage": stage,
        # As JSON has it: a tuple that is read back is a list.
        "settings": json.loads(json.dumps(settings)),
        "inputs": dict(inputs),
    }


def inputs_of(output: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Content ids of a job's inputs, by their path below the output folder."""
    return {name_of(output, path): content_id(path) for path in paths}


def of_job(output: Path, stage: str, settings: Mapping[str, Any], inputs: Iterable[Path]) -> MadeBy:
    """What a job that begins will have made its outputs by; before it changes its settings.

    With an entry ``models`` (name -> content id), where its results come from models, at first or
    at second hand.

    Args:
        output: the run's output folder, which all inputs are in.
        inputs: those that the workflow's rule names.
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
    """What an input is called: its path below the output folder, wherever that is."""
    return path.relative_to(output).as_posix()


def content_id(path: Path) -> str:
    """What stands for a file's content, by its kind; hex digits.

    Of a sentinel its entry ``content``; of a model the checksums of its tensors, which its archive
    lists at its end (planning must not read gigabytes); of any other file its sha256.

    Raises:
        UserError: it is not there.
        OSError: it cannot be read.
    """
    if not path.exists():
        raise UserError(f"{path}: is not there; run the {maker_of(path)} stage first")
    if path.suffix == ".json" and (content := _json(path).get("content")):
        return str(content)
    if path.suffix == ".pt" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return digest([[i.filename, i.file_size, i.CRC] for i in archive.infolist()])
    return file_sha256(path)


def maker_of(path: Path) -> str:
    """The stage that makes a file."""
    # One of the jobs that share a prediction makes what they all do.
    name = re.sub(r"\.shard-\d+", "", path.name)
    return _MAKERS.get(name, path.stem)


def sidecar(table: Path) -> Path:
    """Where a table's metadata is."""
    return table.with_name(f"{table.name}-metadata.json")


def write_sidecar(table: Path, made: Mapping[str, Any], **more: Any) -> None:
    """Writes a table's metadata; after the table, which a stage may still fail to write.

    Args:
        made: what :func:`made_by` gave.
        more: further entries of the table's metadata.
    """
    about = {"@context": "http://www.w3.org/ns/csvw", "url": table.name}
    write_json(sidecar(table), {**about, **more, KEY: dict(made)})


def read_made_by(path: Path) -> MadeBy | None:
    """What made an output, as far as it tells.

    Args:
        path: a sentinel, a table or a model.

    Returns:
        as :func:`made_by`; of a model the stage and the settings alone; None if there is nothing
        that can be read.
    """
    if path.suffix == ".pt":
        settings = _settings_of_model(path)
        return None if settings is None else {"stage": "train", "settings": settings}
    found = _json(path if path.suffix == ".json" else sidecar(path)).get(KEY)
    sound = isinstance(found, dict) and isinstance(found.get("settings"), dict)
    return found if sound else None


def says_inputs(path: Path) -> bool:
    """Whether a file's inputs are known, so that it was made by a version that notes them."""
    # Those of a model are beside it.
    table = path.with_name("history.csv") if path.suffix == ".pt" else path
    return "inputs" in (read_made_by(table) or {})


def _json(path: Path) -> dict[str, Any]:
    """A mapping; empty where there is none, or it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class _Inert:
    """Takes the place of whatever a pickle asks for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _PlainValues(pickle.Unpickler):
    """Reads the plain values of a model without torch; nothing that the file names is looked up."""

    def find_class(self, module: str, name: str) -> type[_Inert]:
        return _Inert

    def persistent_load(self, pid: Any) -> None:
        return None


def _settings_of_model(path: Path) -> dict[str, Any] | None:
    """The slice of the config that a ``model.pt`` was trained with."""
    try:
        with zipfile.ZipFile(path) as archive:
            (info,) = (i for i in archive.infolist() if i.filename.endswith("/data.pkl"))
            if info.file_size > _MAX_PLAIN:
                return None
            with archive.open(info) as handle:
                settings = json.loads(_PlainValues(handle).load()["settings"])
    except Exception:
        # A pickle that is no model's can raise anything.
        return None
    return settings if isinstance(settings, dict) else None
