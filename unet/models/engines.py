"""Inference engines: PyTorch, and OpenVINO and ONNX Runtime if they are installed.

An engine turns a network into a function of windows. To add one, write a function here, and add a
line to `ENGINES` and one to `unet.config.engine_table`, which says what it needs. All engines
except ``torch`` run on the CPU only. They compile the network for each shape of window, which takes
a second or two; this pays off from a few megapixels on.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet.config.engine_table import ENGINE_TABLE
from unet.errors import UserError
from unet.models.exact import any_threads
from unet.models.network import Network
from unet.models.onnx_file import converted, quiet

# Windows [N, C, *S] float32 on the device -> scores [N, K, *S'] there, float32 or smaller.
Forward = Callable[[Tensor], Tensor]
# An example window [1, C, *S] -> a function that computes one window of this shape.
Compile = Callable[[Tensor], Callable[[np.ndarray], np.ndarray]]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context to run the network in; with bfloat16, the weights stay float32."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


_tf32_lock = threading.Lock()
_tf32_before: list[tuple[bool, bool]] = []


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Switches TF32 (10 bits of mantissa) on or off for float32 products on NVIDIA GPUs.

    PyTorch's default is on for convolutions. These are settings of the whole process: several
    threads may be in this context at once if they want the same value, and when the last one
    leaves, the old settings are restored.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # torch.export reads these settings, and they must not be mixed with the newer fp32_precision.
    # Some versions of torch warn at each use.
    warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
    with _tf32_lock:
        _tf32_before.append((matmul.allow_tf32, cudnn.allow_tf32))
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        with _tf32_lock:
            # The last one to leave pops the settings found by the first.
            before = _tf32_before.pop()
            if not _tf32_before:
                matmul.allow_tf32, cudnn.allow_tf32 = before


def memory_format(network: Network) -> torch.memory_format:
    """Channels last: convolutions on the CPU and on tensor cores are fastest in this layout."""
    return torch.channels_last if network.arch.dims == 2 else torch.channels_last_3d


def _torch(network: Network, device: torch.device, precision: str, threads: int) -> Forward:
    layout = memory_format(network)

    def forward(x: Tensor) -> Tensor:
        with any_threads(x) if precision == "float32" else autocast(precision, device):
            scores: Tensor = network(x.contiguous(memory_format=layout))
        return scores

    return forward


def _openvino(network: Network, device: torch.device, precision: str, threads: int) -> Forward:
    import openvino

    core = openvino.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }

    @cache
    def traced(*sizes: int) -> Any:
        with quiet():
            example = torch.zeros(1, network.in_channels, *sizes)
            return openvino.convert_model(network, example_input=example)

    def compile_for(window: Tensor) -> Callable[[np.ndarray], np.ndarray]:
        # Tracing takes 1 s on the smallest window and 20 s on a large one. The trace is valid for
        # any size, except for networks whose layers depend on the size.
        model = traced(*(fp.smallest for fp in network.footprint)).clone()
        model.reshape(list(window.shape))
        if list(model.outputs[0].shape)[2:] != output_sizes(network, window.shape[2:]):
            model = traced(*window.shape[2:])
        compiled = core.compile_model(model, "CPU", hints)
        return lambda x: np.asarray(compiled(x)[0])

    return _by_shape(compile_for)


def _onnxruntime(network: Network, device: torch.device, precision: str, threads: int) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3

    def compile_for(window: Tensor) -> Callable[[np.ndarray], np.ndarray]:
        # Passed in memory, which works for networks of up to 2 GB.
        session = onnxruntime.InferenceSession(
            converted(network, window).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        return lambda x: np.asarray(session.run(None, {"x": x})[0])

    return _by_shape(compile_for)


def _by_shape(compile_for: Compile) -> Forward:
    """Computes window by window; compiles the network when a shape is first seen."""
    known: dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] = {}

    def forward(x: Tensor) -> Tensor:
        shape = tuple(x.shape[1:])
        if shape not in known:
            known[shape] = compile_for(torch.zeros(1, *shape))
        compute, windows = known[shape], np.ascontiguousarray(x.numpy())
        # Copied, because the next window overwrites the engine's buffer.
        scores = [compute(windows[i : i + 1]).copy() for i in range(len(windows))]
        return torch.from_numpy(np.concatenate(scores))

    return forward


def output_sizes(network: Network, sizes: Sequence[int]) -> list[int]:
    """Spatial sizes of the scores for a window of these sizes."""
    return [n - 2 * fp.margin for n, fp in zip(sizes, network.footprint, strict=True)]


Make = Callable[[Network, torch.device, str, int], Forward]
ENGINES: dict[str, Make] = {"torch": _torch, "openvino": _openvino, "onnxruntime": _onnxruntime}


def check_engine(name: str, device: torch.device) -> None:
    """Checks that an engine can be used here.

    Raises:
        UserError: it is not installed, or does not support this device.
    """
    from importlib.util import find_spec

    missing = [package for package in ENGINE_TABLE[name].packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"predict.engine: {name} needs {', '.join(missing)}, which is not installed; run "
            "pip install 'unet-pipeline[engines]', or write torch"
        )
    if name != "torch" and device.type != "cpu":
        raise UserError(
            f"predict.engine: {name} runs on the CPU only, the device is {device.type}; write "
            "torch, or device: cpu"
        )


def forward_of(
    name: str, network: Network, device: torch.device, precision: str, threads: int = 1
) -> Forward:
    """The function that computes the network's scores.

    Args:
        network: on the device and in evaluation mode.
        threads: for engines with their own thread pool (PyTorch's threads are set by the caller).
    """
    return ENGINES[name](network, device, precision, threads)
