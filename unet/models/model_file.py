"""Reads and writes ``model.pt``: only tensors and plain values (torch's ``weights_only=True``)."""

from __future__ import annotations

import math
import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from unet.config.geometry import Footprints, footprint
from unet.config.heads import head_of
from unet.config.layers import layers_of, parameters
from unet.config.presets import AnyArchitecture, architecture_from
from unet.errors import UserError, how_many, one_line
from unet.files import canonical, replacing
from unet.models.build import NETWORKS
from unet.models.network import Network

FORMAT = 2
TASKS = ("semantic", "instances")
# No network has more. A damaged file could claim so many that building them never ends.
MAX_LAYERS = 1000


@dataclass(frozen=True)
class ModelFile:
    """A trained network, and everything needed to apply it elsewhere.

    Attributes:
        architecture: the network's layers.
        in_channels: C of the images.
        head: names of the output's classes, in the order of its channels.
        class_names, class_values: of the dataset it was trained on (values None for instances).
        task: semantic or instances.
        normalize: the section ``prepare.normalize``; with scope dataset also ``statistics``, its
            values (:func:`unet.data.normalize.describe`).
        pixel_size_um: of the training images ((Z,) Y, X), None = unknown.
        settings: the part of the config that the training used.
        versions: of the libraries and of the stages.
        score: the validation score of these weights.
        step: the training step of these weights.
        weights: the network's state.
        appearance: what the training images look like
            (:class:`unet.data.appearance.TrainingAppearance` as plain values), so that others can
            be compared with them; None in files of older versions.
    """

    architecture: AnyArchitecture
    in_channels: int
    head: tuple[str, ...]
    class_names: tuple[str, ...]
    class_values: tuple[int, ...] | None
    task: str
    normalize: dict[str, Any]
    pixel_size_um: tuple[float, ...] | None
    settings: dict[str, Any]
    versions: dict[str, str]
    score: float
    step: int
    weights: dict[str, Tensor]
    appearance: dict[str, Any] | None = None

    @property
    def footprint(self) -> Footprints:
        """What windows need, per spatial axis ((Z) Y X)."""
        return footprint(self.architecture)

    def network(self) -> Network:
        """The network with its weights, in evaluation mode."""
        build = NETWORKS[self.architecture.kind]
        network = build(self.in_channels, len(self.head), self.architecture)
        network.load_state_dict(self.weights)
        return network.eval()


def save_tensors(path: Path, value: dict[str, Any]) -> None:
    """Saves tensors and plain values; the file appears whole or not at all."""
    # Into a file that Python opened: given a path, torch reports a full disk poorly, and stores the
    # file's name in the archive.
    with replacing(path) as temporary, temporary.open("wb") as handle:
        torch.save(value, handle)


def _check_archive(file: BinaryIO) -> None:
    """Checks what torch does not check: the checksums (a flipped bit would change a weight), and
    that the file is an uncompressed archive, so that torch never opens a bare pickle or a zip bomb.

    Raises:
        ValueError: a check failed.
    """
    if not zipfile.is_zipfile(file):
        file.seek(0)
        pickled = file.read(1) == pickle.PROTO
        kind = "a pickle, which could run code" if pickled else "not an archive, or cut short"
        raise ValueError(f"{kind}; it must contain only tensors, as written by the train stage")
    with zipfile.ZipFile(file) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("its archive is compressed, which torch never does")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"damaged: the checksum of {damaged} is wrong")


def load_tensors(path: Path) -> dict[str, Any]:
    """Loads a file written by :func:`save_tensors`; nothing in the file is ever executed.

    Raises:
        UserError: the file is missing or damaged, or contains more than tensors and plain values.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; give the model file in it, such as {path / 'model.pt'}")
    if not path.is_file():
        raise UserError(f"{path}: no such model file; run the train stage")
    with path.open("rb") as file:
        return tensors_in(file, str(path), "train it again")


def tensors_in(file: BinaryIO, name: str, remedy: str) -> dict[str, Any]:
    """The tensors and plain values of an open file; nothing in it is ever executed.

    Args:
        name: of the file, for messages.
        remedy: what to do about a damaged file.

    Raises:
        UserError: the file is damaged, or contains more than tensors and plain values.
    """
    try:
        _check_archive(file)
        file.seek(0)
        with warnings.catch_warnings():
            # torch warns about unusual pickles; our one line says enough.
            warnings.simplefilter("ignore")
            value = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = one_line(error, 160)
        raise UserError(f"{name}: refused, it contains more than tensors ({reason})") from None
    except Exception as error:
        reason = one_line(error, 160)
        raise UserError(f"{name}: not a readable model file ({reason}); {remedy}") from None
    if not isinstance(value, dict):
        raise UserError(f"{name}: not a model file of this pipeline; {remedy}")
    return value


def save_model(path: Path, model: ModelFile) -> None:
    """Writes ``model.pt`` atomically."""
    value = dict(vars(model))
    value["architecture"] = model.architecture.to_json()
    # Nested settings are stored as text, which every version of torch reads the same way.
    value["settings"] = canonical(model.settings)
    value["normalize"] = canonical(model.normalize)
    if value.pop("appearance") is not None:
        value["appearance"] = canonical(model.appearance)
    save_tensors(path, {"format": FORMAT, **value})


def load_model(path: Path) -> ModelFile:
    """Reads ``model.pt``.

    Raises:
        UserError: as :func:`load_tensors`; or the file has another format, or unusable weights.
    """
    import json

    value = load_tensors(path)
    if value.pop("format", None) != FORMAT:
        raise UserError(f"{path}: not a model file of format {FORMAT}; train it again")
    try:
        value["architecture"] = architecture_from(value["architecture"])
        value["settings"] = json.loads(value["settings"])
        value["normalize"] = json.loads(value["normalize"])
        if value.get("appearance") is not None:
            value["appearance"] = json.loads(value["appearance"])
        model = ModelFile(**value)
        check_weights(model, path.stat().st_size)
    except Exception as error:
        # Any error, since the file may contain any values.
        reason = one_line(error, 160)
        raise UserError(f"{path}: not a model file of this pipeline ({reason})") from None
    check_finite(model, str(path))
    return model


def check_finite(model: ModelFile, name: str) -> None:
    """Raises UserError if a weight is NaN or infinite; ``name`` is that of the file."""
    bad = [name for name, tensor in model.weights.items() if not bool(tensor.isfinite().all())]
    if bad:
        raise UserError(
            f"{name}: NaN or infinite weights (in {bad[0]}, {len(bad)} of {len(model.weights)} "
            "tensors); train it again with a smaller train.lr"
        )


def _check_classes(model: ModelFile) -> None:
    """Raises ValueError if the classes do not fit the task or the network's outputs."""
    if model.task not in TASKS:
        raise ValueError(f"task: got {model.task!r}, needs {' or '.join(TASKS)}")
    names, values = model.class_names, model.class_values
    if head_of(model.head).channels is None and len(names) != len(model.head):
        raise ValueError(
            f"class_names: got {how_many(len(names), 'name')}, but the network has "
            f"{how_many(len(model.head), 'output')}"
        )
    if values is not None and len(values) != len(names):
        raise ValueError(
            f"class_values: got {how_many(len(values), 'value')}, but there are {len(names)} "
            "classes"
        )


def check_weights(model: ModelFile, size: int) -> None:
    """Checks that a model's values are consistent, before a network is built from it.

    Args:
        size: of the file, in bytes.

    Raises:
        Exception: the weights do not fit the architecture, are larger than the file, or a value has
            the wrong type.
    """
    if not all(isinstance(tensor, Tensor) for tensor in model.weights.values()):
        raise ValueError("weights that are not tensors")
    if sum(t.numel() * t.element_size() for t in model.weights.values()) > size:
        raise ValueError("it claims more weights than the file contains")
    for name in ("settings", "normalize", "versions"):
        if not isinstance(getattr(model, name), dict):
            raise ValueError(f"{name} is not a mapping")
    if not isinstance(model.appearance, dict | None):
        raise ValueError("appearance is not a mapping")
    names = (*model.head, *model.class_names, model.task)
    if not model.head or not all(isinstance(name, str) for name in names):
        raise ValueError("names that are not text")
    _check_classes(model)
    if not all(0 < size < math.inf for size in model.pixel_size_um or ()):
        raise ValueError(f"pixel_size_um: got {model.pixel_size_um}, needs numbers above 0")
    arch = model.architecture
    if not 1 <= arch.most_layers <= MAX_LAYERS:
        raise ValueError(f"{arch.most_layers} layers")
    # From the list of layers: a network of many takes long to build, and to measure.
    layers = layers_of(arch, model.in_channels, len(model.head))
    if parameters(layers) > sum(tensor.numel() for tensor in model.weights.values()):
        raise ValueError("its weights do not fit its architecture")
    with torch.device("meta"):  # shapes only: no memory
        network = NETWORKS[arch.kind](model.in_channels, len(model.head), arch)
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if wanted != {name: tuple(tensor.shape) for name, tensor in model.weights.items()}:
        raise ValueError("its weights do not fit its architecture")
