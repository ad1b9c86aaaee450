"""Which device and which precision a process computes with; GPUs are leased, one job to each."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch

from unet.config.sections import Precision
from unet.errors import UserError
from unet.files import take_lock

log = logging.getLogger(__name__)


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """``auto`` takes a GPU where there is one.

    The one place that gives a process its GPU: of several GPUs one that is free, or where a
    scheduler has chosen (CUDA_VISIBLE_DEVICES) the first of its own.

    Args:
        local_rank: number of this process among those that train together on this machine, whose
            GPUs are leased before they start (:func:`lease_together`). Its GPU becomes the current
            one, which they exchange gradients by.

    Raises:
        UserError: ``cuda`` is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda is asked for, but this machine has no usable GPU; write auto")
    if name != "cuda":
        return torch.device(name)
    if local_rank is not None:
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    count = torch.cuda.device_count()
    if count > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return torch.device("cuda", *lease_gpus(count))
    return torch.device("cuda")


def lease_together(name: str, processes: int) -> str | None:
    """Takes a GPU for each of the processes that are to train together, before they start.

    Returns:
        the GPUs, as CUDA_VISIBLE_DEVICES names them to the processes; None where they compute
        without a GPU, or with those that a scheduler has chosen.

    Raises:
        UserError: there are GPUs, but fewer.
    """
    if name == "cpu" or not torch.cuda.is_available():
        return None  # of a processor all have their part
    gpus = _several("train.gpus", processes)
    return None if gpus is None else ",".join(map(str, gpus))


def choose_devices(name: str, gpus: int) -> list[torch.device]:
    """``gpus`` devices of this machine; one where there is no GPU to have several of.

    Raises:
        UserError: as :func:`choose_device`; or there are fewer GPUs.
    """
    if gpus == 1 or name == "cpu" or not torch.cuda.is_available():
        return [choose_device(name)]
    leased = _several("predict.gpus", gpus)
    return [torch.device("cuda", i) for i in (range(gpus) if leased is None else leased)]


def _several(key: str, gpus: int) -> list[int] | None:
    """Leases of this many GPUs; None where a scheduler has chosen which."""
    found = torch.cuda.device_count()
    if found < gpus:
        raise UserError(f"{key}: {gpus} are asked for, this job sees {found}; write {found}")
    return None if "CUDA_VISIBLE_DEVICES" in os.environ else lease_gpus(found, gpus)


# Kept open for the life of the process: the locks go with it, however it ends.
_leases: list[ExitStack] = []


def lease_gpus(
    count: int, wanted: int = 1, folder: Path | None = None, poll_seconds: float = 1.0
) -> list[int]:
    """The indices of GPUs that no other job of this user on this machine holds; waits for them.

    A scheduler that hands out GPUs sets CUDA_VISIBLE_DEVICES; on a workstation nothing does, and
    all jobs would share the first. A job asks once, for all that it needs. While one waits for
    its GPUs, the next wait behind it: none holds a part of what it needs while another does, and
    jobs that need one GPU do not keep those waiting for ever that need several.

    Args:
        count: number of GPUs.
        wanted: how many of them to take, at most ``count``.
        folder: where the lock files are (the temporary folder).
    """
    folder = Path(tempfile.gettempdir()) if folder is None else folder
    free, waits = set(range(count)), False
    with ExitStack() as turn, ExitStack() as held:
        while not _take(folder, "turn", turn):
            waits = _wait(waits, count, poll_seconds)
        while True:
            for index in sorted(free):
                if count - len(free) < wanted and _take(folder, str(index), held):
                    free.remove(index)
            if count - len(free) == wanted:
                _leases.append(held.pop_all())
                return sorted(set(range(count)) - free)
            waits = _wait(waits, count, poll_seconds)


def _take(folder: Path, name: str, held: ExitStack) -> bool:
    """Locks a file as long as ``held`` lasts; False if another process has it."""
    handle = (folder / f"unet-gpu-{os.getuid()}-{name}.lock").open("w")
    if not take_lock(handle.fileno()):
        handle.close()
        return False
    # The launcher of processes that train together takes the place of the one that leases.
    os.set_inheritable(handle.fileno(), True)
    held.enter_context(handle)
    return True


def _wait(waits: bool, count: int, seconds: float) -> bool:
    if not waits:
        log.info("all of the %d GPUs that this job needs are not free yet: waiting", count)
    time.sleep(seconds)
    return True


def gains_by_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (elsewhere it is slower than float32)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_precision(precision: Precision, device: torch.device) -> Precision:
    """``auto`` is bfloat16 where the device gains by it, float32 elsewhere.

    Raises:
        UserError: tf32 on a device that has no such numbers.
    """
    if precision == "auto":
        return "bfloat16" if gains_by_bfloat16(device) else "float32"
    if precision == "tf32" and not (device.type == "cuda" and gains_by_bfloat16(device)):
        raise UserError(
            f"precision: tf32 needs a GPU of compute capability 8.0 or higher, this job has "
            f"{device}; write float32 or auto"
        )
    return precision
