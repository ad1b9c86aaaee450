"""Networks as OpenVINO models, in float32 or with int8 convolutions (NNCF)."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch

from unet.models.network import Network
from unet.models.onnx_file import quiet


def load_openvino() -> Any:
    """The module ``openvino``, without its usage statistics.

    OpenVINO and NNCF send those over the network when they are imported and used, unless the
    package ``openvino_telemetry`` is missing; so it is made to look as if it were.
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


def load_nncf() -> Any:
    """The module ``nncf``, without usage statistics, and without its class of loggers."""
    load_openvino()
    loggers = logging.getLoggerClass()
    try:
        import nncf
    finally:
        logging.setLoggerClass(loggers)
    return nncf


def translated(network: Network, sizes: Sequence[int]) -> Any:
    """The network as an OpenVINO model, traced on a window of these spatial sizes.

    Its input may have any size, unless layers of the network depend on it.
    """
    openvino = load_openvino()
    with quiet():
        example = torch.zeros(1, network.in_channels, *sizes)
        return openvino.convert_model(network, example_input=example)


def quantised(model: Any, windows: Sequence[np.ndarray]) -> Any:
    """The model with convolutions in int8: weights with a scale per output channel, activations
    with one scale per tensor (Jacob et al. 2018, Quantization and training of neural networks for
    efficient integer-arithmetic-only inference).

    The ranges of the activations are measured on the windows. The first layer and the last stay in
    float32. They cost little; the first sees the image itself, whose few bright pixels leave the
    others only some of the 256 levels, and the last gives the scores.

    Args:
        model: of :func:`translated`.
        windows: [1, C, *S] float32 each; their sizes may differ.
    """
    nncf = load_nncf()
    layers = [op for op in model.get_ordered_ops() if "Convolution" in op.get_type_name()]
    ends = [layers[0].get_friendly_name(), layers[-1].get_friendly_name()]
    # Progress bars go to stdout, whatever the level of the log.
    with quiet(), redirect_stdout(io.StringIO()):
        return nncf.quantize(
            model,
            nncf.Dataset(list(windows)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(windows),
            ignored_scope=nncf.IgnoredScope(names=ends),
        )
