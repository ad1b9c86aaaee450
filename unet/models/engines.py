"""What computes a network's scores: PyTorch, or OpenVINO or ONNX Runtime where they are installed.

An engine turns a network into a function of windows; a new one is a function here, a line in
`ENGINES`, and one in `unet.config.engine_table` that says what it needs. All but ``torch`` are for
CPUs only: they translate the network once per shape of the windows, which takes a second or two,
and are faster from some megapixels on.
"""

from __future__ import annotations

import logging
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

# Windows [N, C, *S] float32 on the device -> scores [N, K, *S'] there, float32 or smaller.
Forward = Callable[[Tensor], Tensor]
# One shape of windows [1, C, *S] -> what computes one window of it.
Translate = Callable[[Tensor], Callable[[np.ndarray], np.ndarray]]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context to run the network in: weights stay float32, bfloat16 only inside."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


_tf32_lock = threading.Lock()
_tf32_before: list[tuple[bool, bool]] = []


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Products of float32 are exact to float32 here, or with ``allowed`` may be in TF32 (10 bits of
    mantissa), as PyTorch's convolutions on NVIDIA GPUs are unless they are told otherwise.

    The settings are those of the process. Threads may be in here at once if they want the same;
    when the last one leaves, the settings are as they were.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # The newer names (fp32_precision) must not be mixed with these, which torch.export reads; some
    # versions say at each use that there are newer ones.
    warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
    with _tf32_lock:
        _tf32_before.append((matmul.allow_tf32, cudnn.allow_tf32))
        matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        with _tf32_lock:
            # What was found first is left last.
            before = _tf32_before.pop()
            if not _tf32_before:
                matmul.allow_tf32, cudnn.allow_tf32 = before


def memory_format(network: Network) -> torch.memory_format:
    """Channels last, the layout that convolutions are fastest in on the CPU and on tensor cores."""
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
    def recorded(*sizes: int) -> Any:
        with quiet():
            example = torch.zeros(1, network.in_channels, *sizes)
            return openvino.convert_model(network, example_input=example)

    def translate(window: Tensor) -> Callable[[np.ndarray], np.ndarray]:
        # Recorded in a run on the smallest window, which takes a second (on a large one twenty),
        # for windows of any size; but for networks whose layers depend on the size.
        model = recorded(*(fp.smallest for fp in network.footprint)).clone()
        model.reshape(list(window.shape))
        if list(model.outputs[0].shape)[2:] != output_sizes(network, window.shape[2:]):
            model = recorded(*window.shape[2:])
        compiled = core.compile_model(model, "CPU", hints)
        return lambda x: np.asarray(compiled(x)[0])

    return _by_shape(translate)


def _onnxruntime(network: Network, device: torch.device, precision: str, threads: int) -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3

    def translate(window: Tensor) -> Callable[[np.ndarray], np.ndarray]:
        with quiet():
            program = torch.onnx.export(
                network, (window,), dynamo=True, input_names=["x"], verbose=False
            )
        if program is None:
            raise ValueError("the network cannot be translated to ONNX")
        # In memory: a network of up to 2 GB.
        session = onnxruntime.InferenceSession(
            program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return lambda x: np.asarray(session.run(None, {"x": x})[0])

    return _by_shape(translate)


def _by_shape(translate: Translate) -> Forward:
    """Window by window, each shape translated when it is first seen."""
    known: dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] = {}

    def forward(x: Tensor) -> Tensor:
        shape = tuple(x.shape[1:])
        if shape not in known:
            known[shape] = translate(torch.zeros(1, *shape))
        compute, windows = known[shape], np.ascontiguousarray(x.numpy())
        # Copied: the engine's own buffer is written again by the next window.
        scores = [compute(windows[i : i + 1]).copy() for i in range(len(windows))]
        return torch.from_numpy(np.concatenate(scores))

    return forward


def output_sizes(network: Network, sizes: Sequence[int]) -> list[int]:
    """Of the scores for a window of these spatial sizes."""
    return [n - 2 * fp.margin for n, fp in zip(sizes, network.footprint, strict=True)]


@contextmanager
def quiet() -> Iterator[None]:
    """The translators' chatter is of no use to a user."""
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


Make = Callable[[Network, torch.device, str, int], Forward]
ENGINES: dict[str, Make] = {"torch": _torch, "openvino": _openvino, "onnxruntime": _onnxruntime}


def check_engine(name: str, device: torch.device) -> None:
    """Whether an engine can be used here.

    Raises:
        UserError: it is not installed, or not for this device.
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
            f"predict.engine: {name} runs on processors alone, the device is {device.type}; write "
            "torch, or device: cpu"
        )


def forward_of(
    name: str, network: Network, device: torch.device, precision: str, threads: int = 1
) -> Forward:
    """What computes the scores of this network, which is on the device and in evaluation mode.

    Args:
        threads: of the engines that have their own (PyTorch's are set by its caller).
    """
    return ENGINES[name](network, device, precision, threads)
