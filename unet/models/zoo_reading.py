"""Reads a package of the BioImage Model Zoo as a model.

A package that this pipeline wrote becomes the model file that it was made of: our own network is
built from the values in its description, and the source code in the package is not used. The
library ``bioimageio.spec`` is not needed. Other packages: :mod:`unet.models.foreign_model`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unet.config.presets import architecture_from
from unet.errors import UserError, one_line
from unet.models.foreign_model import foreign_model, foreign_start
from unet.models.model_file import ModelFile, check_finite, check_weights, tensors_in
from unet.models.zoo_archive import Package, open_package, short
from unet.models.zoo_package import OWN, WEIGHTS

AGAIN = "get the package again"


def package_to_apply(path: Path) -> ModelFile:
    """The model of a package, to be applied.

    Raises:
        UserError: the package is damaged, or does something that is not known here.
    """
    package = open_package(path)
    own = _own_values(package)
    return foreign_model(package) if own is None else _own_model(package, own)


def package_to_start(path: Path) -> ModelFile:
    """The weights of a package, to start a training from.

    Raises:
        UserError: the package is damaged, or has no weights of PyTorch.
    """
    package = open_package(path)
    own = _own_values(package)
    return foreign_start(package) if own is None else _own_model(package, own)


def applied_in_package(path: Path) -> dict[str, Any] | None:
    """How the run that trained a model makes objects (``tta`` and keys of the section ``stitch``);
    None if the package does not say it.

    Raises:
        UserError: the package is damaged.
    """
    text = (_own_values(open_package(path)) or {}).get("applied")
    if text is None:
        return None
    try:
        found = json.loads(text)
        return {"tta": bool(found["tta"]), "stitch": dict(found["stitch"])}
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: {OWN}.applied: {one_line(error, 100)}; {AGAIN}") from None


def _own_values(package: Package) -> Mapping[str, Any] | None:
    config = package.about.get("config")
    own = config.get(OWN) if isinstance(config, Mapping) else None
    return own if isinstance(own, Mapping) else None


def _own_model(package: Package, own: Mapping[str, Any]) -> ModelFile:
    name = f"{package.path}: {WEIGHTS['pytorch_state_dict']}"
    content = package.file(package.weights("pytorch_state_dict"), "pytorch_state_dict")
    weights = tensors_in(io.BytesIO(content), name, AGAIN)
    try:
        model = _model_of(own, weights)
        check_weights(model, len(content))
        dims, sizes = model.architecture.dims, model.pixel_size_um
        if sizes is not None and len(sizes) != dims:
            raise ValueError(f"pixel_size_um: got {list(sizes)}, needs {dims} numbers")
    except Exception as error:
        # Any error, since the description may contain any values.
        reason = one_line(error, 160)
        raise UserError(
            f"{package.path}: its description of the network is not usable ({reason}); {AGAIN}"
        ) from None
    check_finite(model, name)
    return model


def _model_of(own: Mapping[str, Any], weights: dict[str, Any]) -> ModelFile:
    def read(key: str, change: Callable[[Any], Any], *default: Any) -> Any:
        """The value of a key, changed; without a default it must be there."""
        if key not in own and not default:
            raise ValueError(f"{key} is missing")
        try:
            return change(own.get(key, *default))
        except Exception as error:
            raise ValueError(f"{key}: {one_line(error, 140)}") from None

    return ModelFile(
        architecture=read("architecture", architecture_from),
        in_channels=read("in_channels", int),
        head=read("head", _listed),
        class_names=read("class_names", _listed),
        class_values=read(
            "class_values", lambda x: x if x is None else tuple(map(int, _listed(x)))
        ),
        task=read("task", lambda x: x),
        normalize=read("normalize", dict),
        pixel_size_um=read(
            "pixel_size_um", lambda x: x if x is None else tuple(map(float, _listed(x)))
        ),
        settings=read("settings", json.loads, "{}"),
        versions=read("versions", dict, {}),
        score=read("score", lambda x: math.nan if x is None else float(x), None),
        step=read("step", int, 0),
        weights=weights,
        appearance=read("appearance", lambda x: None if x is None else json.loads(x), None),
    )


def _listed(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"got {short(value)}, needs a list")
    return tuple(value)
