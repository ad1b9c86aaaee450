"""Imports the weights of the usual padded Keras U-Net into our ``unet-bn``.

The Keras model is the common one: per level and path two 3x3 convolutions with padding ``same``,
each with ReLU and an optional BatchNormalization before or after it; 2x2 max pooling; 2x2
transposed convolution with stride 2; concatenation with the skip; 1x1 convolution with softmax, or
with one channel and sigmoid. With the same weights, our network computes the same up to rounding.

A kernel is [*k, in, out] in Keras and [out, in, *k] here. That of a transposed convolution is
[*k, out, in] in Keras and [in, out, *k] here: the same swap of axes, without mirroring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet.config.presets import Architecture, Order
from unet.errors import UserError
from unet.models.keras_files import KerasFile, read_keras
from unet.models.keras_graph import Graph, graph_of
from unet.models.model_file import ModelFile
from unet.models.unet import UNet
from unet.versions import library_versions

Weights = Mapping[str, Sequence[np.ndarray]]


@dataclass(frozen=True)
class _Layers:
    """A model's layers with weights, by kind, each kind in the model's order."""

    convs: list[tuple[str, Sequence[np.ndarray]]]
    ups: list[tuple[str, Sequence[np.ndarray]]]
    norms: list[tuple[str, Sequence[np.ndarray]]]


def _shapes(arrays: Sequence[np.ndarray]) -> str:
    return ", ".join("x".join(map(str, array.shape)) for array in arrays)


def _sorted(weights: Weights) -> _Layers:
    """Sorts layers into kinds by their shapes, since users choose the names.

    Raises:
        UserError: a layer of another kind.
    """
    layers = _Layers([], [], [])
    for name, arrays in weights.items():
        axes = [array.ndim for array in arrays]
        if axes == [1, 1, 1, 1]:
            layers.norms.append((name, arrays))
        elif axes in ([4], [4, 1], [5], [5, 1]):
            ups = set(arrays[0].shape[:-2]) == {2}
            (layers.ups if ups else layers.convs).append((name, arrays))
        else:
            raise UserError(
                f"layer {name}: arrays of {_shapes(arrays)}; needs a convolution (kernel, bias) or "
                "a BatchNormalization (gamma, beta, moving mean, moving variance)"
            )
    return layers


def architecture_of_weights(weights: Weights, **given: Any) -> Architecture:
    """Derives an architecture from weights: dims, width, depth, convolutions per level, norm.

    Args:
        weights: see :func:`convert`.
        given: values that cannot be derived from weights: ``order``, ``norm_eps``.

    Raises:
        UserError: these are not the weights of a U-Net.
    """
    layers = _sorted(weights)
    depth, levels = len(layers.ups), 2 * len(layers.ups) + 1
    convs, rest = divmod(len(layers.convs) - 1, levels)
    if depth < 1 or convs < 1 or rest or len(layers.norms) not in (0, convs * levels):
        raise UserError(
            f"found {len(layers.convs)} convolutions, {depth} transposed convolutions 2x2 and "
            f"{len(layers.norms)} BatchNormalizations; a U-Net of depth d and two convolutions per "
            "level has 4 d + 3, d and 4 d + 2 (or none)"
        )
    width = layers.convs[0][1][0].shape[-1]
    deepest = layers.ups[0][1][0].shape[-1]
    return Architecture(
        padding="same",
        norm="batch" if layers.norms else "none",
        convs=convs,
        width=width,
        max_width=deepest if deepest < width * 2**depth else None,
        depth=depth,
        dims=layers.convs[0][1][0].ndim - 2,
        **given,
    )


def convert(weights: Weights, arch: Architecture, skip_first: bool = False) -> dict[str, Tensor]:
    """Converts a Keras U-Net's arrays to the state dict of our U-Net.

    Args:
        weights: arrays of each layer that has any, in the model's order:
            ``{layer.name: layer.get_weights() for layer in model.layers if layer.weights}``.
        arch: see :func:`architecture_of_weights`.
        skip_first: the model concatenates [skip, upsampled], not [upsampled, skip].

    Raises:
        UserError: a layer does not fit; names the layer and the shapes found and expected.
        ValueError: the architecture is not the one described in the module's docstring.
    """
    layers = _sorted(weights)
    if not layers.convs:
        raise UserError("found no convolutions; give the weights of a U-Net")
    channels, classes = layers.convs[0][1][0].shape[-2], layers.convs[-1][1][0].shape[-1]
    if arch != replace(
        arch, padding="same", residual=False, up="transposed", deep_supervision=False
    ) or arch.norm not in ("none", "batch"):
        raise ValueError(f"{arch} has layers that the Keras U-Net lacks")
    with torch.device("meta"):
        wanted = UNet(channels, max(classes, 2), arch).state_dict()
    state: dict[str, Tensor] = {}
    convs, ups, norms = _targets(arch)
    for kind, targets, found, read in (
        ("convolution", convs, layers.convs, _kernel),
        ("transposed convolution 2x2", ups, layers.ups, _kernel),
        ("BatchNormalization", norms, layers.norms, _norm),
    ):
        if len(targets) != len(found):
            raise UserError(f"found {len(found)} layers of {kind}; this U-Net has {len(targets)}")
        for target, (name, arrays) in zip(targets, found, strict=True):
            part = read(arrays)
            if target == "heads.0" and classes == 1:
                # The softmax of the scores 0 and z is the sigmoid of z.
                part = {key: torch.cat([torch.zeros_like(v), v]) for key, v in part.items()}
            elif skip_first and target.startswith("expand") and target.endswith("convs.0"):
                kernel = part["weight"]
                part["weight"] = kernel.roll(kernel.shape[1] // 2, dims=1)
            for key, value in part.items():
                _fits(name, target, key, value, wanted[f"{target}.{key}"])
                state[f"{target}.{key}"] = value.contiguous()
    return {key: state[key] for key in wanted}


def _targets(arch: Architecture) -> tuple[list[str], list[str], list[str]]:
    """Names of our convolutions, transposed convolutions and norms, in the Keras model's order."""
    levels = range(arch.depth)
    paths = [*(f"down.{n}" for n in levels), "bridge", *(f"expand.{n}" for n in levels)]
    units = [(path, i) for path in paths for i in range(arch.convs)]
    convs = [f"{path}.convs.{i}" for path, i in units]
    norms = [f"{path}.norms.{i}" for path, i in units] if arch.norm == "batch" else []
    return [*convs, "heads.0"], [f"up.{n}.layers.0" for n in levels], norms


def _kernel(arrays: Sequence[np.ndarray]) -> dict[str, Tensor]:
    kernel = torch.from_numpy(np.array(arrays[0], dtype=np.float32))
    kernel = kernel.permute(kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))
    if len(arrays) > 1:
        return {"weight": kernel, "bias": torch.from_numpy(np.array(arrays[1], dtype=np.float32))}
    # No bias, as is usual before a normalisation. Transposed convolutions are [in, out, *k].
    outputs = kernel.shape[1] if set(kernel.shape[2:]) == {2} else kernel.shape[0]
    return {"weight": kernel, "bias": torch.zeros(outputs)}


def _norm(arrays: Sequence[np.ndarray]) -> dict[str, Tensor]:
    names = ("weight", "bias", "running_mean", "running_var")
    values = (torch.from_numpy(np.array(array, dtype=np.float32)) for array in arrays)
    part = dict(zip(names, values, strict=True))
    return {**part, "num_batches_tracked": torch.tensor(0)}


def _fits(name: str, target: str, key: str, value: Tensor, wanted: Tensor) -> None:
    if value.shape == wanted.shape:
        return

    def keras(shape: Sequence[int]) -> str:
        """A shape in the order of axes that the user knows."""
        order = [*shape[2:], shape[1], shape[0]] if len(shape) > 2 else shape
        return "x".join(map(str, order))

    raise UserError(
        f"layer {name}: {key} is {keras(value.shape)}, this U-Net needs {keras(wanted.shape)} "
        f"({target}); widths must double from level to level"
    )


def _merged(file: KerasFile, given: dict[str, Any]) -> tuple[Graph | None, dict[str, Any]]:
    """The settings in the file's config, or else the given ones.

    Raises:
        UserError: the config is not a U-Net's, or contradicts a given value.
    """
    try:
        graph = None if file.layers is None else graph_of(file.layers)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"its config was not written by Keras ({error!r})") from None
    known: dict[str, Any] = {"order": "act-norm", "skip_first": False, "norm_eps": 1e-3}
    if graph is not None:
        known = {"order": graph.order, "skip_first": graph.skip_first, "norm_eps": graph.norm_eps}
    for key, value in given.items():
        if value is None:
            continue
        if graph is not None and value != known[key]:
            raise UserError(f"{key}: got {value}, but the model has {known[key]}; leave it out")
        known[key] = value
    return graph, known


def load_keras_unet(
    path: Path,
    class_names: Sequence[str],
    *,
    normalize: Mapping[str, Any] | None = None,
    divide_by: float = 1.0,
    order: Order | None = None,
    skip_first: bool | None = None,
    norm_eps: float | None = None,
) -> ModelFile:
    """Imports a Keras file.

    Args:
        path: ``.keras``, ``.h5`` or ``.weights.h5``.
        class_names: of the output's channels; two for a head with one channel and sigmoid.
        normalize: how images are normalised (method and values); None is method none.
        divide_by: the number, such as 255, that the Keras code divided pixels by before it called
            the network. The first layer's weights are divided by it.
        order, skip_first, norm_eps: see :class:`Architecture` and :func:`convert`; for files
            without a config (``.weights.h5``). If omitted, the usual values are assumed.

    Raises:
        UserError: the file cannot be read, or its network is not the one described in the module's
            docstring.
    """
    file = read_keras(path)
    try:
        given = {"order": order, "skip_first": skip_first, "norm_eps": norm_eps}
        graph, known = _merged(file, given)
        weights = file.weights if graph is None else graph.complete(file.weights)
        first = known.pop("skip_first")
        arch = architecture_of_weights(weights, **known)
        if graph is not None and (graph.depth, graph.convs) != (arch.depth, arch.convs):
            raise UserError("the config and the weights belong to different networks")
        state = convert(weights, arch, first)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    classes = len(state["heads.0.bias"])
    if len(class_names) != classes:
        raise UserError(f"--classes: got {len(class_names)} names, {path} has {classes} classes")
    if divide_by <= 0:
        raise UserError(f"--divide-by: got {divide_by}; write a number above 0")
    state["down.0.convs.0.weight"] /= divide_by
    names = tuple(class_names)
    return ModelFile(
        architecture=arch,
        in_channels=state["down.0.convs.0.weight"].shape[1],
        head=names,
        class_names=names,
        class_values=tuple(range(classes)),
        task="semantic",
        normalize=dict(normalize or {"method": "none"}),
        pixel_size_um=None,
        settings={"imported": {"from": path.name, "divide_by": divide_by}},
        versions=library_versions(),
        score=float("nan"),
        step=0,
        weights=state,
    )
