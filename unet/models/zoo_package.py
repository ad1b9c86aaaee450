"""Writes a model as a package of the BioImage Model Zoo (https://bioimage.io): one zip file.

The description follows the format that ``bioimageio.spec`` defines. The same model, image and texts
give the same bytes: no time, no folder of this machine is in the package.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from unet.config.export_section import packages_for
from unet.errors import UserError, one_line
from unet.files import canonical, replacing
from unet.models import zoo_network
from unet.models.model_file import ModelFile
from unet.models.network import parameter_counts
from unet.models.onnx_file import dynamic_onnx, quiet
from unet.models.zoo_example import Example, cover_of
from unet.models.zoo_layers import listed_network, network_arguments, sizes_of
from unet.models.zoo_network import ListedNetwork
from unet.models.zoo_steps import Step, steps_of
from unet.versions import missing

# bioimageio.core 0.11.0 reads it too, although it is made for 0.5.12: docs/export.md.
FORMAT = "0.5.14"
DESCRIPTION = "bioimageio.yaml"
SOURCE = "unet_network.py"
WEIGHTS = {"pytorch_state_dict": "weights.pt", "torchscript": "weights.torchscript.pt",
           "onnx": "weights.onnx"}  # fmt: skip
# The key below `config` that holds what this pipeline needs to read the model back.
OWN = "unet_pipeline"
# How far the outputs of other programs and machines may be off.
TOLERANCE = {"relative_tolerance": 1e-3, "absolute_tolerance": 1e-4,
             "mismatched_elements_per_million": 100}  # fmt: skip
# Packages that writing needs, by the format of the weights ("": always).
# Lists and mappings of plain values on one line each: a network has dozens of layers.
STYLE: dict[str, Any] = {"default_flow_style": None, "width": 100}
# The earliest time that a zip file can hold.
NO_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Texts:
    """What people say about a model, as the format has it.

    Attributes:
        name, description, license, authors, cite, tags: fields of the description.
        readme: the text of README.md.
        details: more entries of ``config.bioimageio``: training, evaluations.
        own: more entries below the key ``OWN``.
    """

    name: str
    description: str
    license: str
    authors: list[dict[str, Any]]
    cite: list[dict[str, Any]]
    tags: list[str]
    readme: str
    details: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)


def check_installed(weights: tuple[str, ...]) -> None:
    """Checks that a package can be written here.

    Raises:
        UserError: a library is missing.
    """
    if absent := missing(packages_for(weights)):
        raise UserError(
            f"export needs {', '.join(absent)}, which is not installed; run "
            "pip install 'unet-pipeline[zoo]'"
        )


def write_package(
    path: Path,
    model: ModelFile,
    example: Example,
    texts: Texts,
    weights: tuple[str, ...],
    applied: Mapping[str, Any] | None = None,
) -> None:
    """Writes the package; it appears whole or not at all.

    Args:
        weights: formats besides ``pytorch_state_dict``.
        applied: how the run that trained the model makes objects; see :func:`own_values`.

    Raises:
        UserError: a library is missing, or the texts do not fit the format.
    """
    check_installed(weights)
    network = listed_network(model)
    made = {"pytorch_state_dict": _state_dict(network)}
    made |= {name: CONVERT[name](network, model) for name in CONVERT if name in weights}
    files = {WEIGHTS[name]: content for name, content in made.items()}
    files[SOURCE] = Path(zoo_network.__file__).read_bytes()
    files["test_input.npy"] = _npy(example.image[None])
    files["test_output.npy"] = _npy(example.output[None])
    files["cover.png"] = cover_of(model, example)
    files["README.md"] = texts.readme.encode()
    about = _description(model, texts, files, tuple(made))
    about["config"][OWN] = {**own_values(model, applied), **texts.own}
    text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True, **STYLE)
    with replacing(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in {DESCRIPTION: text.encode(), **files}.items():
                entry = zipfile.ZipInfo(name, NO_TIME)
                # Unpacked files can be read by all, as usual; the default is the owner alone.
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content)
        _check_format(about)


def _npy(values: np.ndarray) -> bytes:
    handle = io.BytesIO()
    np.save(handle, np.ascontiguousarray(values))
    return handle.getvalue()


def _state_dict(network: ListedNetwork) -> bytes:
    handle = io.BytesIO()
    torch.save(network.state_dict(), handle)
    return handle.getvalue()


def _torchscript(network: ListedNetwork, model: ModelFile) -> bytes:
    sizes = [each.least for each in sizes_of(model)]
    with quiet(), torch.no_grad():
        example = torch.zeros(1, model.in_channels, *sizes)
        # The trace holds for any accepted size: nothing in the network depends on the size but by
        # arithmetic, which is traced. The tests compare other sizes.
        trace: Any = torch.jit.trace
        script = trace(network, example, check_trace=False)
        made = io.BytesIO()
        torch.jit.save(script, made)
    return _without_origins(made.getvalue())


def _without_origins(archive: bytes) -> bytes:
    """An archive of TorchScript without the tables that say which lines of code, in which folder
    of this machine, made it."""
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(kept, "w") as new:
        for info in old.infolist():
            if not info.filename.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(info.filename, NO_TIME), old.read(info))
    return kept.getvalue()


def network_onnx(model: ModelFile) -> bytes:
    """The network as an ONNX file: normalised images [N, C, *S] ("input") to probabilities
    ("output"), for any accepted size.

    Raises:
        UserError: a library is missing, or the weights are too large for one file.
    """
    check_installed(("onnx",))
    return _onnx(listed_network(model), model)


def _onnx(network: ListedNetwork, model: ModelFile) -> bytes:
    sizes = sizes_of(model)
    steps, least = [each.step for each in sizes], [each.least for each in sizes]
    return dynamic_onnx(network, model.in_channels, least, steps, batch=_any_batch(model))


CONVERT: dict[str, Callable[[ListedNetwork, ModelFile], bytes]] = {
    "torchscript": _torchscript,
    "onnx": _onnx,
}


def _any_batch(model: ModelFile) -> bool:
    # Two volumes at once are seldom what fits in memory.
    return model.architecture.dims == 2


def _description(
    model: ModelFile, texts: Texts, files: Mapping[str, bytes], formats: tuple[str, ...]
) -> dict[str, Any]:
    def file(name: str) -> dict[str, str]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    steps, _ = steps_of(model.normalize, model.architecture.dims)
    bioimageio = {"reproducibility_tolerance": [TOLERANCE], **_facts(model), **texts.details}
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": texts.name,
        "description": texts.description,
        "authors": texts.authors,
        "cite": texts.cite,
        "license": texts.license,
        "tags": texts.tags,
        "documentation": file("README.md"),
        "covers": [file("cover.png")],
        "inputs": [_input(model, steps) | {"test_tensor": file("test_input.npy")}],
        "outputs": [_output(model) | {"test_tensor": file("test_output.npy")}],
        "weights": {name: file(WEIGHTS[name]) | _weights(name, model, file) for name in formats},
        "config": {"bioimageio": bioimageio},
    }


def _weights(name: str, model: ModelFile, file: Callable[[str], Any]) -> dict[str, Any]:
    version = torch.__version__.partition("+")[0]
    if name == "pytorch_state_dict":
        kwargs = {"callable": ListedNetwork.__name__, "kwargs": network_arguments(model)}
        return {"architecture": file(SOURCE) | kwargs, "pytorch_version": version}
    parent = {"parent": "pytorch_state_dict"}
    if name == "torchscript":
        return {**parent, "pytorch_version": version}
    return {**parent, "opset_version": OPSET}


# That of PyTorch's exporter.
OPSET = 20


def _space(model: ModelFile) -> list[dict[str, Any]]:
    letters = "zyx"[-model.architecture.dims :]
    axes: list[dict[str, Any]] = [{"type": "space", "id": letter} for letter in letters]
    if model.pixel_size_um is not None:
        for axis, size, halo in zip(
            axes, model.pixel_size_um, (size.halo for size in sizes_of(model)), strict=True
        ):
            axis |= {"unit": "micrometer", "scale": _scale(float(size), halo)}
    return axes


def _scale(size: float, halo: int) -> float:
    """The pixel size, or the next float above it with which ``halo * size / size`` is exactly the
    halo: the zoo computes this and wants a whole number."""
    while halo * size / size != halo:
        size = math.nextafter(size, math.inf)
    return size


def _batch(model: ModelFile) -> dict[str, Any]:
    return {"type": "batch"} | ({} if _any_batch(model) else {"size": 1})


def _input(model: ModelFile, steps: list[Step]) -> dict[str, Any]:
    space = _space(model)
    for axis, size in zip(space, sizes_of(model), strict=True):
        axis["size"] = {"min": size.least, "step": size.step}
    names = [f"channel{n}" for n in range(model.in_channels)]
    return {
        "id": "input",
        "axes": [_batch(model), {"type": "channel", "channel_names": names}, *space],
        "data": {"type": "float32"},
        # As ours: the border pixel is not repeated.
        "pad": {"mode": "reflect"},
        "preprocessing": steps,
    }


def _output(model: ModelFile) -> dict[str, Any]:
    space = _space(model)
    for axis, size in zip(space, sizes_of(model), strict=True):
        axis["size"] = {"tensor_id": "input", "axis_id": axis["id"]}
        axis |= {"halo": size.halo} if size.halo else {}
    channels = {"type": "channel", "channel_names": list(model.head)}
    return {
        "id": "output",
        "description": "probabilities",
        "axes": [_batch(model), channels, *space],
        "data": {"type": "float32", "range": [0.0, 1.0]},
    }


def _facts(model: ModelFile) -> dict[str, Any]:
    arch = model.architecture
    kind = f"{arch.dims}D U-Net" if arch.kind == "unet" else "sliding-window classifier"
    total, _ = parameter_counts(model.network())
    return {
        "architecture_type": kind,
        "architecture_description": canonical(arch.to_json()),
        "task": "instance segmentation" if model.task == "instances" else "semantic segmentation",
        "model_parameter_count": total,
    }


def own_values(model: ModelFile, applied: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What this pipeline needs besides the weights to read the model back, as plain values.
    Long nested ones are JSON text.

    Args:
        applied: ``tta`` and the keys of the section ``stitch`` that the run uses, if known.
    """
    return {
        "architecture": model.architecture.to_json(),
        "in_channels": model.in_channels,
        "head": list(model.head),
        "class_names": list(model.class_names),
        "class_values": None if model.class_values is None else list(model.class_values),
        "task": model.task,
        "normalize": model.normalize,
        "pixel_size_um": None if model.pixel_size_um is None else list(model.pixel_size_um),
        "score": None if math.isnan(model.score) else float(model.score),
        "step": model.step,
        "versions": dict(model.versions),
        "settings": canonical(model.settings),
        "appearance": None if model.appearance is None else canonical(model.appearance),
        "applied": None if applied is None else canonical(applied),
    }


# Field of the description -> the key of the config that it is from.
_KEYS = {name: f"export.{name}" for name in
         ("name", "description", "license", "authors", "cite", "tags")}  # fmt: skip
# What the format says in many words: it lists hundreds of licences.
_WORDS = {"export.license": "not a licence of https://spdx.org/licenses; write one such as MIT"}


def _check_format(about: Mapping[str, Any]) -> None:
    """Validates a description as the zoo does, without its files and without a network.

    Raises:
        UserError: a text of the user does not fit the format.
    """
    from bioimageio.spec import InvalidDescr, ValidationContext, build_description

    with ValidationContext(perform_io_checks=False):
        found = build_description(dict(about))
    if not isinstance(found, InvalidDescr):
        return
    errors = [error for detail in found.validation_summary.details for error in detail.errors]
    first = errors[0]
    key = next((_KEYS[part] for part in first.loc if part in _KEYS), "")
    if not key:
        raise ValueError(f"the package's description is not valid: {one_line(first.msg, 200)}")
    value = one_line(repr(about[key.removeprefix("export.")]), 100)
    wrong = _WORDS.get(key) or one_line(first.msg, 160)
    raise UserError(f"config: {key}: {wrong} (got {value})")
