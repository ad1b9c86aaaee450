"""Reads Keras files without Keras: the arrays of each layer, and the layers' settings.

Three formats: ``.keras`` (a zip of ``config.json`` and ``model.weights.h5``), ``.weights.h5``
(``save_weights`` of Keras 3) and ``.h5`` (``save`` and ``save_weights`` of Keras 2, and ``save`` of
Keras 3). Needs the optional package h5py.

Keras itself can load a weights-only file only into an existing model; here, the arrays tell which
U-Net they belong to. Keras also builds the layers that a file names before anyone can check them.
Here, only arrays and JSON are read, so nothing in a file is executed, not even a Lambda layer.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet.errors import UserError, one_line

try:
    import h5py
except ImportError:
    h5py = None

Arrays = list[np.ndarray]
Layers = list[dict[str, Any]]
# The members of a .keras archive that are read, and how many times its size they may unpack to.
_MEMBERS = ("config.json", "model.weights.h5")
MAX_EXPANSION = 50
# The group with the layers in the newer layout (Keras 3, and Keras 2.12 to 2.15).
_ROOTS = ("layers", "_layer_checkpoint_dependencies")
_KINDS = "give a .keras, .h5 or .weights.h5 file"


@dataclass(frozen=True)
class KerasFile:
    """The content of a file.

    Attributes:
        weights: the arrays of each layer that has any. Layers are in the model's order, and the
            arrays of a layer in the order of Keras's ``get_weights``.
        layers: each layer's entry in the model's config (class_name, name, config, inbound_nodes),
            in the model's order; None for files with weights only.
    """

    weights: dict[str, Arrays]
    layers: Layers | None


def read_keras(path: Path) -> KerasFile:
    """Reads ``.keras``, ``.weights.h5`` or ``.h5``; the format is detected from the content.

    Raises:
        UserError: h5py or the file is missing, the format is unknown, or the model is not a graph
            of layers.
    """
    if h5py is None:
        raise UserError(f"{path}: a Keras file needs the package h5py; run pip install h5py")
    if not path.is_file():
        raise UserError(f"{path}: no such file; {_KINDS}")
    try:
        return _of_archive(path) if zipfile.is_zipfile(path) else _of_hdf5(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        reason = one_line(error, 160)
        raise UserError(f"{path}: not a readable Keras file ({reason}); {_KINDS}") from None


def _of_archive(path: Path) -> KerasFile:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(archive.getinfo(name).file_size for name in _MEMBERS)
        # Weights hardly compress at all, so this archive must be a zip bomb.
        if unpacked > MAX_EXPANSION * path.stat().st_size:
            raise UserError(f"refused, it unpacks to {unpacked} bytes; save the model again")
        layers = _layers(json.loads(archive.read("config.json")))
        with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
            return KerasFile(_by_class(file, layers), layers)


def _of_hdf5(path: Path) -> KerasFile:
    with h5py.File(path, "r") as file:
        if "model_weights" not in file and not {"layer_names", "layer_names0"} & set(file.attrs):
            return KerasFile(_by_class(file, None), None)
        config = file.attrs.get("model_config")
        layers = None if config is None else _layers(json.loads(config))
        root = _member(file, "model_weights") if "model_weights" in file else file
        return KerasFile(_by_name(root), layers)


def _layers(config: Any) -> Layers:
    layers = config.get("config", {}).get("layers") if isinstance(config, dict) else None
    if not isinstance(layers, list):
        kind = config.get("class_name") if isinstance(config, dict) else config
        raise UserError(
            f"the model is a {kind}, which does not list its layers; rebuild it with "
            "keras.Model(inputs, outputs), load its weights and save that"
        )
    return layers


def _array(node: Any) -> np.ndarray:
    """A dataset's values.

    Raises:
        UserError: they are stored in another file, or are not numbers.
    """
    if not isinstance(node, h5py.Dataset) or node.external or node.is_virtual:
        name = getattr(node, "name", node)
        raise UserError(f"refused, {name} is not an array stored in this file")
    if node.dtype.kind not in "fiu":
        raise UserError(f"{node.name} has the type {node.dtype}, needs numbers")
    return np.asarray(node[...], dtype=np.float32)


def _member(group: Any, name: str) -> Any:
    """A member of a group.

    Raises:
        UserError: it is missing, or a link to somewhere else (such as another file).
    """
    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or part not in group:
            raise UserError(f"has no {name}; save the model again")
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise UserError(f"refused, {group.name}/{part} is a link")
        group = group[part]
    return group


def _names(group: Any, key: str) -> list[str]:
    """A list of names in a group's attributes; Keras splits long lists (key0, key1, ...)."""
    parts = [group.attrs[key]] if key in group.attrs else []
    while f"{key}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{key}{len(parts)}"])
    found = [name for part in parts for name in part]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in found]


def _by_name(file: Any) -> dict[str, Arrays]:
    """The older layout: a group per layer, named after the layer; lists give the order."""
    groups = {layer: _member(file, layer) for layer in _names(file, "layer_names")}
    found = {
        layer: [_array(_member(group, name)) for name in _names(group, "weight_names")]
        for layer, group in groups.items()
    }
    return {layer: arrays for layer, arrays in found.items() if arrays}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts conv2d_10 after conv2d_9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _by_class(file: Any, layers: Layers | None) -> dict[str, Arrays]:
    """The newer layout: a group per layer, named by class and counter (conv2d, conv2d_1, ...).

    The config gives the layers' own names and their order. Without it, the group names are kept:
    their counters give the order within each class.
    """
    found = next((name for name in _ROOTS if name in file), None)
    if found is None:
        raise UserError(f"contains no layers; {_KINDS}")
    root = _member(file, found)
    names = (
        {name: name for name in sorted(root, key=_natural)}
        if layers is None
        else dict(zip(_counted(layers), (str(n["name"]) for n in layers), strict=True))
    )
    weights = {}
    for key in filter(root.__contains__, names):
        group = _member(root, key)
        if any(child in group for child in _ROOTS):
            raise UserError(
                f"{names[key]} is a model within the model; save the inner model separately"
            )
        variables = _member(group, "vars") if "vars" in group else {}
        if arrays := [_array(_member(variables, k)) for k in sorted(variables, key=_natural)]:
            weights[names[key]] = arrays
    return weights


def _counted(layers: Layers) -> Iterator[str]:
    """The layers' group names in a weights file, numbered as in Keras's saving_lib."""
    seen: Counter[str] = Counter()
    for layer in layers:
        name = re.sub(r"\W+", "", str(layer["class_name"]))
        name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
        name = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
        yield f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1
