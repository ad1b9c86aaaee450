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
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet.config.engine_table import ENGINE_TABLE
from unet.errors import UserError
from unet.models.exact import any_threads
from unet.models.network import Network
from unet.models.onnx_file import converted
from unet.models.openvino_model import load_openvino, quantised, translated
from unet.versions import missing

# Windows [N, C, *S] float32 on the device -> scores [N, K, *S'] there, float32 or smaller.
Forward = Callable[[Tensor], Tensor]
# An example window [1, C, *S] -> a function that computes one window of this shape.
Compile = Callable[[Tensor], Callable[[np.ndarray], np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine is to compute.

    Attributes:
        device: where the network is.
        precision: one of the engine's precisions.
        threads: for engines with their own thread pool (PyTorch's threads are set by the caller).
        windows: gives the windows [1, C, *S] on which int8 networks measure their ranges.
    """

    device: torch.device
    precision: str = "float32"
    threads: int = 1
    windows: Callable[[], Sequence[np.ndarray]] | None = None


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


def _torch(network: Network, options: EngineOptions) -> Forward:
    layout, precision, device = memory_format(network), options.precision, options.device

    def forward(x: Tensor) -> Tensor:
        with any_threads(x) if precision == "float32" else autocast(precision, device):
            scores: Tensor = network(x.contiguous(memory_format=layout))
        return scores

    return forward


def _openvino(network: Network, options: EngineOptions) -> Forward:
    core = load_openvino().Core()
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if options.precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": options.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    smallest = [fp.smallest for fp in network.footprint]
    traced = cache(lambda *sizes: translated(network, sizes))

    @cache
    def in_int8() -> Any:
        # Once for all sizes of windows, so that they all have the same ranges.
        if options.windows is None:
            raise ValueError("int8 needs windows to measure the ranges of the activations")
        return quantised(traced(*smallest).clone(), options.windows())

    def compile_for(window: Tensor) -> Callable[[np.ndarray], np.ndarray]:
        # Tracing takes 1 s on the smallest window and 20 s on a large one. The trace is valid for
        # any size, except for networks whose layers depend on the size.
        model = traced(*smallest).clone()
        model.reshape(list(window.shape))
        any_size = list(model.outputs[0].shape)[2:] == output_sizes(network, window.shape[2:])
        if options.precision == "int8":
            if not any_size:
                raise UserError(
                    "predict.precision: there is no int8 version of this network, whose layers "
                    "depend on the window's size; write float32 or bfloat16"
                )
            model = in_int8().clone()
            model.reshape(list(window.shape))
        elif not any_size:
            model = traced(*window.shape[2:])
        compiled = core.compile_model(model, "CPU", hints)
        return lambda x: np.asarray(compiled(x)[0])

    return _by_shape(compile_for)


def _onnxruntime(network: Network, options: EngineOptions) -> Forward:
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.log_severity_level = 3

    def compile_for(window: Tensor) -> Callable[[np.ndarray], np.ndarray]:
        # Passed in memory, which works for networks of up to 2 GB.
        session = onnxruntime.InferenceSession(
            converted(network, window).SerializeToString(),
            session_options,
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


Make = Callable[[Network, EngineOptions], Forward]
ENGINES: dict[str, Make] = {"torch": _torch, "openvino": _openvino, "onnxruntime": _onnxruntime}


def check_engine(name: str, device: torch.device, precision: str = "float32") -> None:
    """Checks that an engine can be used here, in this precision.

    Raises:
        UserError: it is not installed, or does not support this device.
    """
    engine = ENGINE_TABLE[name]
    for key, value, packages, other in (
        ("engine", name, engine.packages, "torch"),
        ("precision", precision, engine.packages_of.get(precision, ()), "float32"),
    ):
        if absent := missing(packages):
            raise UserError(
                f"predict.{key}: {value} needs {', '.join(absent)}, which is not installed; run "
                f"pip install 'unet-pipeline[engines]', or write {other}"
            )
    if name != "torch" and device.type != "cpu":
        raise UserError(
            f"predict.engine: {name} runs on the CPU only, the device is {device.type}; write "
            "torch, or device: cpu"
        )


def forward_of(name: str, network: Network, options: EngineOptions) -> Forward:
    """The function that computes the network's scores.

    Args:
        network: on the device and in evaluation mode.
    """
    return ENGINES[name](network, options)
