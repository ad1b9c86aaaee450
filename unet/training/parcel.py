"""All that a step needs on its device, sent in one copy; and its loss, read without waiting.

A GPU works in the background while the processor prepares the next step. Each copy of ordinary
memory, and each number that is read back, makes the processor wait until the GPU is done, and the
GPU then waits for the processor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

# Bytes: where a tensor in the buffer may begin, whatever its type.
ALIGNMENT = 16


class Parcel:
    """Tensors in the processor's memory that go to a device together.

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


class LateNumber:
    """The sum of numbers that a device is still computing: to be read later.

    Args:
        values: scalars on one device.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        self._values = torch.stack([value.detach() for value in values])
        self._done: torch.cuda.Event | None = None
        if self._values.device.type == "cuda":
            pinned = torch.empty(self._values.shape, dtype=self._values.dtype, pin_memory=True)
            self._values = pinned.copy_(self._values, non_blocking=True)
            # Reading waits for the work up to here, not for what is given to the device later.
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def read(self) -> float:
        """The sum, in double precision."""
        if self._done is not None:
            self._done.synchronize()
        return float(sum(self._values.tolist()))
