"""Networks as ONNX: for one shape of window (the engine), or for any accepted size (files)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unet.errors import UserError

# Larger files need a second one for the weights (a limit of Protocol Buffers), with some space for
# the layers.
LARGEST = 2**31 - 2**24


@contextmanager
def quiet() -> Iterator[None]:
    """Hides the messages of the compilers, which mean nothing to a user."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "openvino", "nncf")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def converted(
    network: nn.Module,
    window: Tensor,
    *,
    names: tuple[str, str] = ("x", "scores"),
    dynamic: Mapping[int, Any] | None = None,
) -> Any:
    """The network as an ONNX model (``onnx.ModelProto``) with its weights.

    Args:
        network: in evaluation mode.
        window: an example [N, C, *S].
        names: of the input and the output.
        dynamic: axes of the input whose size may change, as symbols of ``torch.export``; None: the
            model is for the window's shape only.

    Raises:
        ValueError: the network cannot be converted.
    """
    with quiet():
        program = torch.onnx.export(
            network, (window,), dynamo=True, input_names=[names[0]], output_names=[names[1]],
            dynamic_shapes=None if dynamic is None else (dict(dynamic),), verbose=False,
        )  # fmt: skip
    if program is None:
        raise ValueError("the network cannot be exported to ONNX")
    return program.model_proto


def dynamic_onnx(
    network: nn.Module, channels: int, least: Sequence[int], steps: Sequence[int], *, batch: bool
) -> bytes:
    """An ONNX file for any accepted size; the same bytes whenever the same network is given.

    Args:
        network: in evaluation mode, from [N, C, *S] to [N, K, *S].
        channels: C.
        least, steps: accepted sizes of each spatial axis: the smallest, and what is added to it; a
            multiple of ``steps``.
        batch: whether N may be any number; 1 otherwise.

    Raises:
        UserError: it would be larger than a single file may be.
    """
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    if size > LARGEST:
        raise UserError(
            f"export.weights: {size / 1e9:.1f} GB of weights do not fit an ONNX file (2 GB); "
            "write [torchscript]"
        )
    dim: Any = torch.export.Dim
    dynamic: dict[int, Any] = {0: dim("batch", min=1)} if batch else {}
    for axis, (first, step) in enumerate(zip(least, steps, strict=True), start=2):
        count = dim("zyx"[axis - 2 - len(least)], min=-(-first // step))
        dynamic[axis] = step * count if step > 1 else count
    # Neither 1, which would be taken for a fixed size, nor the same size along two axes.
    window = [
        first + (axis + 1) * step
        for axis, (first, step) in enumerate(zip(least, steps, strict=True))
    ]
    example = torch.zeros(2 if batch else 1, channels, *window)
    found = converted(network, example, names=("input", "output"), dynamic=dynamic)
    _drop_origins(found)
    content: bytes = found.SerializeToString(deterministic=True)
    return content


def _drop_origins(model: Any) -> None:
    """Removes what PyTorch notes about the code that made a model: lines of code and the folders
    of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info,
                 *graph.initializer, *model.functions):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
