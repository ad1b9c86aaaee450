"""Packages as other programs write them, made by hand: a tiny network as ONNX."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

# Weighted mean of 3x3 pixels; the network's only layer.
KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16
HALO = 2


def onnx_of(kernel: np.ndarray = KERNEL) -> bytes:
    """A padded convolution, [n, 1, y, x] to the same."""
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(kernel[None, None].astype(np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "h", "k"]) for name in "xy"
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = made.SerializeToString()
    return content


def axes(offset: int | None = None, **more: Any) -> list[dict[str, Any]]:
    """The axes of a 2D image, with sizes from 8 in steps of 4; with an offset those of an output.

    Args:
        more: values of the spatial axes.
    """
    space: list[dict[str, Any]] = [
        {"type": "space", "id": letter, "unit": "micrometer", "scale": 0.5} for letter in "yx"
    ]
    for axis in space:
        axis["size"] = {"min": 8, "step": 4}
        if offset is not None:
            axis["size"] = {"tensor_id": "raw", "axis_id": axis["id"], "offset": offset}
        axis |= more
    return [{"type": "batch"}, {"type": "channel", "channel_names": ["c"]}, *space]


def described(**changes: Any) -> dict[str, Any]:
    """A description of the network above, with a sigmoid after it."""
    return {
        "format_version": "0.5.4",
        "type": "model",
        "inputs": [{"id": "raw", "axes": axes(),
                    "preprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                                      {"id": "zero_mean_unit_variance",
                                       "kwargs": {"axes": ["y", "x"]}}]}],
        "outputs": [{"id": "found", "axes": axes(0, halo=HALO),
                     "postprocessing": [{"id": "sigmoid"}]}],
        "weights": {"onnx": {"source": "net.onnx"}},
        **changes,
    }  # fmt: skip


def zipped(path: Path, about: Any, files: Mapping[str, bytes], pack: int = 0) -> Path:
    """A zip file of a description and other files."""
    text = about if isinstance(about, str) else yaml.safe_dump(about)
    with zipfile.ZipFile(path, "w", compression=pack) as archive:
        archive.writestr("bioimageio.yaml", text)
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def state_dict(values: Mapping[str, Any]) -> bytes:
    handle = io.BytesIO()
    torch.save(dict(values), handle)
    return handle.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def npy(values: np.ndarray) -> bytes:
    handle = io.BytesIO()
    np.save(handle, values)
    return handle.getvalue()
