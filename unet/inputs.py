"""Whether the inputs of a stage are what it is asked for. Loads neither torch nor dask nor pandas.

Each output tells what made it (:mod:`unet.provenance`). It is refused where an input of its own is
another one by now, and, by hand, where the given config has other settings for it. What tells
nothing, as it was made by an earlier version, is taken as it is.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unet import provenance, slices
from unet.config import Config
from unet.errors import UserError
from unet.paths import ENSEMBLE, Paths, origin_of

# The slice of a config by the stage that an output tells, its dataset and its model.
_SLICES: dict[str, Callable[[Config, str, str], dict[str, Any]]] = {
    "splits": lambda c, d, m: slices.splits(c, d),
    "prepare": lambda c, d, m: slices.prepare(c, d),
    "prepare_applied": slices.prepare_applied,
    "train": slices.train,
    "predict": slices.predict,
    "stitch": slices.stitch,
    "evaluate": lambda c, d, m: slices.evaluate(c, d),
}


def check(args: Namespace, settings: Mapping[str, Any], config: Config | None = None) -> None:
    """Looks at what a stage is about to read.

    Args:
        args: of its command line.
        settings: its own slice.
        config: the one that is given by hand; None: the workflow calls, which knows the settings
            that all of its files were made with.

    Raises:
        UserError: an input was made from other files than there are, or with other settings.
    """
    if getattr(args, "dataset", None) is None or not hasattr(args, "stage"):
        return
    seen: set[Path] = set()
    for path in _inputs(args, settings, Paths(args.output)):
        _check(path, args, config, seen)


def _inputs(args: Namespace, settings: Mapping[str, Any], paths: Paths) -> Iterator[Path]:
    """The files that the stage reads and that tell what made them."""
    dataset, model = args.dataset, getattr(args, "model", "")
    if args.stage in ("train", "predict", "stitch", "evaluate"):
        yield paths.prepared_done(dataset, model)
    if args.stage in ("train", "predict") and origin_of(model) is None:
        yield paths.splits(dataset)
    if args.stage == "predict":
        folds = settings.get("members", ()) if args.fold == ENSEMBLE else (args.fold,)
        yield from (paths.model(dataset, model, fold) for fold in folds)
    if args.stage == "stitch":
        yield paths.tiles_done(dataset, model, args.fold)
    if args.stage == "evaluate":
        yield from (paths.segmentation_done(dataset, model, fold) for fold in args.folds)
    if args.stage == "report":
        yield from (paths.metrics(dataset, name) for name in settings["models"])


def _check(path: Path, args: Namespace, config: Config | None, seen: set[Path]) -> None:
    if path in seen or not path.is_file():
        return
    seen.add(path)
    record = provenance.read(path)
    if record is not None and config is not None and record["stage"] in _SLICES:
        _check_settings(path, record, config, args)
    if path.suffix == ".pt":
        # What it was trained on stands beside its history.
        record = provenance.read(path.with_name("history.csv"))
    if record is None:
        return
    for name, content in record.get("inputs", {}).items():
        source = args.output / name
        if not source.is_file():
            continue
        if provenance.content_id(source) != content:
            raise UserError(
                f"{path}: made from another {name} than the one that is there; run "
                f"scripts/{record['stage']}.py again"
            )
        if config is not None:
            _check(source, args, config, seen)


def _check_settings(path: Path, record: Mapping[str, Any], config: Config, args: Namespace) -> None:
    dataset, *rest = path.relative_to(args.output).parts
    # Names that the config does not have are those of a dataset or model that it knows no more.
    model = rest[0] if len(rest) > 1 else ""
    try:
        wanted = _SLICES[record["stage"]](config, dataset, model)
    except KeyError as error:
        raise UserError(f"{path}: {args.config} has no {error.args[0]!r}") from None
    found = _difference(record["settings"], json.loads(json.dumps(wanted)))
    if found is not None:
        key, was, now = found
        raise UserError(
            f"{path}: made with other settings than {args.config} has ({key}: {was}, now {now}); "
            f"run scripts/{record['stage']}.py with this config, or give the one that made it"
        )


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
