"""Tensors on the way to a device and back, without waiting for it.

A GPU works in the background while the processor prepares what comes next. Each copy of ordinary
memory, and each number that is read back, makes the processor wait until the GPU is done, and the
GPU then waits for the processor.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Bytes: where a tensor in the buffer may begin, whatever its type.
ALIGNMENT = 16


class Parcel:
    """Tensors in the processor's memory that go to a device together, in one copy.

    Args:
        tensors: by name, of any shapes and types.
        device: where they go. For a device with memory of its own they are packed into one buffer
            at once, so that this work can be done by another thread, ahead of time.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self._tensors, self._device = dict(tensors), device
        self._buffer: Tensor | None = None
        if device.type == "cpu":
            return
        sizes = [_room(t) for t in self._tensors.values()]
        self._starts = list(accumulate(sizes, initial=0))
        # A copy from pinned memory does not make the processor wait.
        self._buffer = torch.empty(
            self._starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda"
        )
        for place, tensor in zip(self._places(self._buffer), self._tensors.values(), strict=True):
            place.copy_(tensor)

    @property
    def size(self) -> int:
        """Bytes that are copied."""
        return 0 if self._buffer is None else self._buffer.numel()

    def opened(self) -> dict[str, Tensor]:
        """The tensors, on the device."""
        if self._buffer is None:
            return self._tensors
        sent = self._buffer.to(self._device, non_blocking=True)
        return dict(zip(self._tensors, self._places(sent), strict=True))

    def _places(self, buffer: Tensor) -> list[Tensor]:
        """The parts of the buffer, with the tensors' types and shapes."""
        return [
            buffer[start : start + t.numel() * t.element_size()].view(t.dtype).view(t.shape)
            for start, t in zip(self._starts, self._tensors.values(), strict=False)
        ]


def _room(tensor: Tensor) -> int:
    size = tensor.numel() * tensor.element_size()
    return -(-size // ALIGNMENT) * ALIGNMENT


class Late:
    """A tensor that a device is still computing, to be read in the processor's memory later.

    Args:
        tensor: on any device; on the CPU it is read as it is.
        stream: copies beside what the device computes next; None: in its turn.
    """

    def __init__(self, tensor: Tensor, stream: torch.cuda.Stream | None = None) -> None:
        self._tensor, self._done = tensor, None
        if tensor.device.type != "cuda":
            return
        self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        tensor = tensor.contiguous()
        # Of the tensor's device, which need not be the current one.
        own = torch.cuda.current_stream(tensor.device)
        if stream is not None:
            stream.wait_stream(own)
            # Its memory is not given to others before the copy is done.
            tensor.record_stream(stream)
        with torch.cuda.stream(stream or own):
            self._tensor.copy_(tensor, non_blocking=True)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    @property
    def copied(self) -> bool:
        """Whether it is copied to memory of its own."""
        return self._done is not None

    def result(self) -> Tensor:
        """The tensor; waits for the work up to it, not for what the device was given later."""
        if self._done is not None:
            self._done.synchronize()
        return self._tensor

    def number(self) -> float:
        """The sum of a vector, in double precision."""
        return float(sum(self.result().tolist()))


def late_sum(values: Sequence[Tensor]) -> Late:
    """A vector of scalars on one device, of which :meth:`Late.number` is to be read."""
    return Late(torch.stack([value.detach() for value in values]))


def transfer_memory(shape: Sequence[int], device: torch.device) -> np.ndarray | None:
    """A float32 array from which copies to the device need not wait; None if all memory is alike
    to it."""
    if device.type != "cuda":
        return None
    found: np.ndarray = torch.empty(tuple(shape), pin_memory=True).numpy()
    return found


class Stopwatch:
    """Seconds between its creation and :meth:`stop`, of the processor's time."""

    def __init__(self) -> None:
        self._started = self._stopped = time.monotonic()

    def stop(self) -> None:
        """The end of the work."""
        self._stopped = time.monotonic()

    def seconds(self) -> float:
        """The time in between; waits for a GPU to get there."""
        return self._stopped - self._started


class GpuStopwatch(Stopwatch):
    """The seconds in which a GPU works on what it is given in between."""

    def __init__(self, device: torch.device) -> None:
        event: Any = torch.cuda.Event  # torch has no types for it
        self._first, self._last = event(enable_timing=True), event(enable_timing=True)
        # Of this device, which need not be the current one.
        self._stream = torch.cuda.current_stream(device)
        self._first.record(self._stream)

    def stop(self) -> None:
        self._last.record(self._stream)

    def seconds(self) -> float:
        self._last.synchronize()
        return float(self._first.elapsed_time(self._last)) / 1000


def stopwatch(device: torch.device) -> Stopwatch:
    """A running stopwatch of the device's work."""
    return GpuStopwatch(device) if device.type == "cuda" else Stopwatch()
