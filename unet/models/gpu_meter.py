"""Measures how a job uses its GPUs, for the costs of the report.

The measurement costs nothing: the stages know already how long they wait for data, and PyTorch
keeps the peak of its memory. No library such as pynvml is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from unet.files import remove, write_json


class GpuMeter:
    """The time and the memory of a job on its GPUs; records nothing on a CPU.

    A GPU counts as busy while it works on a batch, the transfer of its data included, and as idle
    while the job waits for the next batch to be read. Within a batch it may still idle for moments,
    so the share is an upper bound of what nvidia-smi shows.
    """

    def __init__(self) -> None:
        self._devices: list[torch.device] = []
        self._seconds = self._busy = 0.0

    def begin(self, devices: Sequence[torch.device]) -> None:
        """Starts to measure the GPUs among the devices."""
        self._devices = [device for device in devices if device.type == "cuda"]
        for device in self._devices:
            torch.cuda.reset_peak_memory_stats(device)

    def add(self, seconds: float, busy: float) -> None:
        """Adds time.

        Args:
            seconds: in which the GPUs could have computed: a sum over them.
            busy: seconds of these in which they did.
        """
        self._seconds += seconds
        self._busy += min(busy, seconds)

    def write(self, path: Path) -> None:
        """Writes the record as JSON; removes that of an earlier job if no GPU was used.

        Its entries: ``name`` of the first GPU, ``gpus`` (their number), ``seconds`` and
        ``busy_seconds`` (sums over the GPUs), ``memory_mib`` (the peak of the GPU that used the
        most; PyTorch's tensors).
        """
        if not self._devices or self._busy <= 0:
            remove(path)
            return
        peak = max(torch.cuda.max_memory_allocated(device) for device in self._devices)
        record = {
            "name": torch.cuda.get_device_name(self._devices[0]),
            "gpus": len(self._devices),
            "seconds": round(self._seconds, 3),
            "busy_seconds": round(self._busy, 3),
            "memory_mib": round(peak / 2**20, 1),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
