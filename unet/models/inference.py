"""How a network is applied to arrays: device, precision, batches, the whole-image reference.

Training validates with it and prediction runs on it, so both see the very same numbers.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from unet.data.tiling import Plan, plan, read_window
from unet.errors import UserError
from unet.models.geometry import Footprint

log = logging.getLogger(__name__)

N = TypeVar("N", bound=nn.Module)
Precision = Literal["auto", "float32", "bfloat16"]


def choose_device(name: str) -> torch.device:
    """``auto`` takes a GPU where there is one.

    Raises:
        UserError: ``cuda`` is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda is asked for, but this machine has no usable GPU; write auto")
    if (
        name == "cuda"
        and torch.cuda.device_count() > 1
        and "CUDA_VISIBLE_DEVICES" not in os.environ
    ):
        return torch.device("cuda", lease_gpu(torch.cuda.device_count()))
    return torch.device(name)


# Kept open for the life of the process: the lock goes with it, however it ends.
_leases: list[IO[str]] = []


def lease_gpu(count: int, folder: Path | None = None, poll_seconds: float = 1.0) -> int:
    """The index of a GPU that no other job of this user on this machine holds; waits for one.

    A scheduler that hands out GPUs sets CUDA_VISIBLE_DEVICES; on a workstation nothing does, and
    all jobs would share the first.

    Args:
        count: number of GPUs.
        folder: where the lock files are (the temporary folder).
    """
    folder = Path(tempfile.gettempdir()) if folder is None else folder
    while True:
        for index in range(count):
            handle = (folder / f"unet-gpu-{os.getuid()}-{index}.lock").open("w")
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.close()
                continue
            _leases.append(handle)
            return index
        time.sleep(poll_seconds)


def gains_by_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (elsewhere it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """``auto`` is bfloat16 where the device gains by it, float32 elsewhere."""
    if precision == "auto":
        return "bfloat16" if gains_by_bfloat16(device) else "float32"
    return precision


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context to run the network in: weights stay float32, bfloat16 only inside."""
    if precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device ran out of memory (the CPU's allocator says so in words only)."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


# The symmetries of the square as (quarter turns in Y X, flip X).
_SYMMETRIES = [(turns, flip) for turns in range(4) for flip in (False, True)]


def _turn(x: Tensor, turns: int, flip: bool) -> Tensor:
    x = torch.rot90(x, turns, dims=(-2, -1))
    return x.flip(-1) if flip else x


def _turn_back(x: Tensor, turns: int, flip: bool) -> Tensor:
    x = x.flip(-1) if flip else x
    return torch.rot90(x, -turns, dims=(-2, -1))


class Predictor:
    """Applies networks to batches of windows and gives class probabilities.

    Args:
        networks: one, or several of the same footprint whose probabilities are averaged.
        device: where they run.
        precision: see :func:`choose_precision`.
        tta: average over the 8 symmetries of the square (the paper averaged 7 rotated versions).
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        device: torch.device,
        precision: Precision = "auto",
        tta: bool = False,
    ) -> None:
        if not networks:
            raise ValueError("a predictor needs at least one network")
        self.device = device
        self.precision = choose_precision(precision, device)
        self.tta = tta
        self.networks = [to_device(network, device).eval() for network in networks]
        footprints = {network.footprint for network in networks}
        if len(footprints) != 1:
            raise ValueError(f"networks of different footprints cannot be averaged: {footprints}")
        footprint = footprints.pop()
        if not isinstance(footprint, Footprint):
            raise TypeError("networks must carry a Footprint as their attribute `footprint`")
        self.footprint = footprint

    @torch.inference_mode()
    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Class probabilities of windows.

        Args:
            batch: [N, C, *S] float32 windows of an accepted size.

        Returns:
            [N, K, *S'] float32, smaller by the margin for unpadded networks.
        """
        x = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
        views = _SYMMETRIES if self.tta else [(0, False)]
        total: Tensor | None = None
        with autocast(self.precision, self.device):
            for network in self.networks:
                for turns, flip in views:
                    view = _turn(x, turns, flip)
                    scores = network(view.contiguous(memory_format=memory_format(network)))
                    # The softmax is in float32, whatever the network computed in.
                    p = _turn_back(torch.softmax(scores.float(), dim=1), turns, flip)
                    total = p if total is None else total + p
        if total is None:
            raise ValueError("there is no network")
        if len(self.networks) * len(views) > 1:
            total = total / (len(self.networks) * len(views))
        return total.cpu().contiguous().numpy()

    def plan(self, shape: Sequence[int], tile: int) -> Plan:
        """The windows for an image of this spatial shape."""
        return plan(shape, tile, self.footprint)

    def whole(self, image: np.ndarray) -> np.ndarray:
        """The reference: the network applied to the whole image at once.

        Args:
            image: [C, (Z,) Y, X] float32.

        Returns:
            [K, (Z,) Y, X] float32.
        """
        return self.image(
            image, tile=max(image.shape[1:]) + 4 * self.footprint.grid + 2 * self.footprint.margin
        )

    def image(self, image: np.ndarray, tile: int) -> np.ndarray:
        """Predicts an image in memory, window by window; see :meth:`whole` for the shapes."""
        layout = self.plan(image.shape[1:], tile)
        out: np.ndarray | None = None
        for item in layout.tiles:
            p = self(read_window(image, item.window)[None])[0]
            if out is None:
                out = np.empty((p.shape[0], *layout.shape), dtype=np.float32)
            out[(slice(None), *item.core)] = p[(slice(None), *item.inner)]
        if out is None:
            raise ValueError("the image has no tiles")
        return out


def memory_format(network: nn.Module) -> torch.memory_format:
    """Channels last, the layout that convolutions are fastest in on the CPU and on tensor cores."""
    dims = getattr(getattr(network, "arch", None), "dims", 2)
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def to_device(network: N, device: torch.device) -> N:
    """The network on the device, its weights in the layout of :func:`memory_format`."""
    # PyTorch's type stubs lack the overload that takes a memory format.
    move: Any = network.to
    moved: N = move(device=device, memory_format=memory_format(network))
    return moved
