"""Checks that a Keras model's config describes a U-Net, and reads the settings of its layers.

Arrays alone cannot tell a padded convolution from an unpadded one, or ReLU from ELU. So if a file
contains the config, every layer and every connection is compared with those of our U-Net.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet.config.presets import Order
from unet.errors import UserError

_CONVS = ("Conv2D", "Conv3D")
_UPS = ("Conv2DTranspose", "Conv3DTranspose")
_POOLS = ("MaxPooling2D", "MaxPooling3D")
# Layers whose settings do not matter here. Those with "" do nothing in inference.
_PLAIN = {
    "BatchNormalization": "N", "Concatenate": "K", "Softmax": "S", "InputLayer": "",
    "Dropout": "", "SpatialDropout2D": "", "SpatialDropout3D": "", "GaussianNoise": "",
    "GaussianDropout": "",
}  # fmt: skip
# The head's activation, in the convolution or as a separate layer.
_END = {"linear": "", "softmax": "S", "sigmoid": "G"}
# A block of n units, with C convolution, R ReLU, N normalisation.
_UNITS: dict[str, Order] = {"CRN": "act-norm", "CNR": "norm-act", "CR": "act-norm"}


@dataclass(frozen=True)
class Graph:
    """The U-Net that a config describes.

    Attributes:
        order: of activation and normalisation.
        skip_first: whether concatenations are [skip, upsampled].
        norm_eps: of the normalisations.
        depth, convs: poolings, and convolutions per level and path.
        norms: (scale, center) of each normalisation, by name: whether it has gamma and beta.
    """

    order: Order
    skip_first: bool
    norm_eps: float
    depth: int
    convs: int
    norms: dict[str, tuple[bool, bool]]

    def complete(self, weights: Mapping[str, Sequence[np.ndarray]]) -> dict[str, list[np.ndarray]]:
        """Adds gamma = 1 and beta = 0 to the weights of normalisations without them."""
        found: dict[str, list[np.ndarray]] = {}
        for name, arrays in weights.items():
            found[name] = list(arrays)
            scale, center = self.norms.get(name, (True, True))
            if not center:
                found[name].insert(int(scale), np.zeros_like(arrays[-1]))
            if not scale:
                found[name].insert(0, np.ones_like(arrays[-1]))
        return found


def _inputs(node: Any) -> list[str]:
    """Names of the layers in a layer's ``inbound_nodes`` (Keras 2 and 3)."""
    if isinstance(node, dict):
        if "keras_history" in node:
            return [str(node["keras_history"][0])]
        return [name for value in node.values() for name in _inputs(value)]
    if isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            return [node[0]]
        return [name for value in node for name in _inputs(value)]
    return []


def _all(value: Any, number: int) -> bool:
    """Whether a setting is this number along every axis."""
    return set(value if isinstance(value, list) else [value]) == {number}


def _activation(settings: Mapping[str, Any]) -> str:
    value = settings.get("activation") or "linear"
    return value if isinstance(value, str) else str(dict(value).get("class_name", value)).lower()


def _need(layer: Mapping[str, Any], **wanted: bool) -> None:
    """Raises UserError for the first setting that is not as wanted."""
    for key, fits in wanted.items():
        if not fits:
            value = layer["config"].get(key)
            raise UserError(
                f"layer {layer['name']}: {key} is {value}, which our U-Net does not support"
            )


def _letters(layer: Mapping[str, Any]) -> str:
    """What a layer does, in letters: C convolution, H the last convolution, R ReLU, N norm,
    P pooling, U up, K concatenation, S softmax, G sigmoid.

    Raises:
        UserError: our U-Net has no such layer, or not with these settings.
    """
    kind, name, c = str(layer["class_name"]), layer["name"], layer["config"]
    activation = _activation(c)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _CONVS:
        last = _all(c["kernel_size"], 1)
        _need(
            layer,
            padding=last or c["padding"] == "same",
            strides=_all(c["strides"], 1),
            dilation_rate=_all(c.get("dilation_rate", 1), 1),
            groups=c.get("groups", 1) == 1,
            kernel_size=last or _all(c["kernel_size"], 3),
            activation=activation in (_END if last else ("linear", "relu")),
        )
        if last:
            return "H" + _END[activation]
        return "CR" if activation == "relu" else "C"
    if kind in _UPS:
        _need(
            layer,
            kernel_size=_all(c["kernel_size"], 2),
            strides=_all(c["strides"], 2),
            activation=activation == "linear",
            output_padding=c.get("output_padding") is None,
        )
        return "U"
    if kind in _POOLS:
        strides = c.get("strides")
        _need(layer, pool_size=_all(c["pool_size"], 2), strides=strides is None or _all(strides, 2))
        return "P"
    if kind == "ReLU":
        limit = c.get("max_value")
        plain = {key: not c.get(key) for key in ("negative_slope", "threshold")}
        _need(layer, **plain, max_value=limit is None)
        return "R"
    if kind == "Activation":
        _need(layer, activation=activation == "relu" or activation in _END)
        return "R" if activation == "relu" else _END[activation]
    raise UserError(f"layer {name} is a {kind}, which our U-Net does not support")


def graph_of(layers: Sequence[Mapping[str, Any]]) -> Graph:
    """Reads a config's layers.

    Raises:
        UserError: a layer does not belong in a U-Net, or is not connected as in a U-Net.
    """
    text, ends = "", []
    after: dict[str, int] = {}
    skips: set[bool] = set()
    norms: dict[str, tuple[bool, bool]] = {}
    epsilons: dict[float, str] = {}
    for layer in layers:
        name, inputs = str(layer["name"]), _inputs(layer.get("inbound_nodes", []))
        letters = _letters(layer)
        where = [after.get(source, -1) for source in inputs]
        if letters == "P":
            ends.append(len(text))
        if letters == "K":
            # It joins the layer just before it (the upsampled maps) and the end of its level's
            # block (the skip).
            level = len(ends) - 1 - text.count("K")
            skip = ends[level] if 0 <= level < len(ends) else -1
            if sorted(where) != sorted([skip, len(text)]):
                raise UserError(f"layer {name}: joins {inputs}, which a U-Net does not join")
            skips.add(where[0] == skip)
        elif layer["class_name"] != "InputLayer" and where != [len(text)]:
            raise UserError(f"layer {name}: its input is {inputs}, not the layer before it")
        if letters == "N":
            c = layer["config"]
            norms[name] = (bool(c.get("scale", True)), bool(c.get("center", True)))
            epsilons.setdefault(float(c["epsilon"]), name)
        text += letters
        after[name] = len(text)
    if len(epsilons) > 1 or len(skips) > 1:
        raise UserError(
            f"levels differ: epsilons {sorted(epsilons)}, concatenations with the skip first "
            f"{sorted(skips)}; only a network with the same settings everywhere can be imported"
        )
    unit, convs = _unit(text, len(ends))
    head = next(n["config"]["filters"] for n in reversed(layers) if n["class_name"] in _CONVS)
    if text[-1] in "GS" and (text[-1] == "G") != (head == 1):
        raise UserError(
            f"its head has {head} channels with {'softmax' if text[-1] == 'S' else 'sigmoid'}; "
            "only softmax over several channels, or sigmoid on one, can be imported"
        )
    return Graph(
        order=_UNITS[unit],
        skip_first=skips == {True},
        norm_eps=next(iter(epsilons), 1e-3),
        depth=len(ends),
        convs=convs,
        norms=norms,
    )


def _unit(text: str, depth: int) -> tuple[str, int]:
    """(unit, number of units in a block) of the U-Net with these layers.

    Raises:
        UserError: these are not the layers of a U-Net.
    """
    for unit in _UNITS:
        found = re.match(f"(?:{unit})+", text)
        convs = len(found[0]) // len(unit) if found else 0
        block = unit * convs
        whole = (block + "P") * depth + block + ("UK" + block) * depth + "H"
        if depth and convs and text in {whole + end for end in _END.values()}:
            return unit, convs
    raise UserError(
        f"its layers are {text} (C convolution, R ReLU, N BatchNormalization, P pooling, "
        "U transposed convolution, K concatenation, H 1x1 convolution, S softmax, G sigmoid), not "
        "those of a U-Net with blocks of CRN, CNR or CR"
    )
