"""Chooses the device and precision of a process, and leases GPUs so that no two jobs share one."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch

from unet.config.sections import PredictPrecision
from unet.errors import UserError
from unet.files import take_lock

log = logging.getLogger(__name__)


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device of this process; ``auto`` takes a GPU if there is one.

    If a scheduler has set CUDA_VISIBLE_DEVICES, this is the first GPU listed there. Otherwise it is
    a GPU that no other job has leased.

    Args:
        local_rank: number of this process among the processes that train together on this machine.
            Their GPUs are leased before they start (:func:`lease_together`). The GPU becomes
            torch's current device, which NCCL uses to exchange gradients.

    Raises:
        UserError: ``cuda`` is requested, but there is no GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda requested, but this machine has no usable GPU; write auto")
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
    """Leases a GPU for each of the processes that will train together, before they start.

    Returns:
        the value of CUDA_VISIBLE_DEVICES for the processes; None if they compute on the CPU, or on
        the GPUs that a scheduler has chosen.

    Raises:
        UserError: there are GPUs, but fewer than processes.
    """
    if name == "cpu" or not torch.cuda.is_available():
        return None
    gpus = _lease_several("train.gpus", processes)
    return None if gpus is None else ",".join(map(str, gpus))


def choose_devices(name: str, gpus: int) -> list[torch.device]:
    """``gpus`` GPUs of this machine, or the CPU.

    Raises:
        UserError: as :func:`choose_device`; or there are fewer GPUs.
    """
    if gpus == 1 or name == "cpu" or not torch.cuda.is_available():
        return [choose_device(name)]
    leased = _lease_several("predict.gpus", gpus)
    return [torch.device("cuda", i) for i in (range(gpus) if leased is None else leased)]


def _lease_several(key: str, gpus: int) -> list[int] | None:
    """Leases this many GPUs; None if a scheduler has already chosen them."""
    found = torch.cuda.device_count()
    if found < gpus:
        raise UserError(f"{key}: {gpus} requested, this job sees {found}; write {found}")
    return None if "CUDA_VISIBLE_DEVICES" in os.environ else lease_gpus(found, gpus)


# Kept open until the process ends: the system then releases the locks, even after a crash.
_leases: list[ExitStack] = []


def lease_gpus(
    count: int, wanted: int = 1, folder: Path | None = None, poll_seconds: float = 1.0
) -> list[int]:
    """Leases GPUs that no other job of this user on this machine uses; waits until they are free.

    A scheduler that hands out GPUs sets CUDA_VISIBLE_DEVICES. On a workstation nothing does, and
    all jobs would share the first GPU. A job leases all its GPUs in one call. While it waits, later
    jobs queue behind it. So two jobs never block each other with half of their GPUs each, and jobs
    that need one GPU cannot hold up a job that needs several for ever.

    Args:
        count: number of GPUs of the machine.
        wanted: how many of them to take, at most ``count``.
        folder: where the lock files are (default: the temporary folder).

    Returns:
        the indices of the GPUs.
    """
    folder = Path(tempfile.gettempdir()) if folder is None else folder
    free, waiting = set(range(count)), False
    with ExitStack() as turn, ExitStack() as held:
        while not _take(folder, "turn", turn):
            waiting = _wait(waiting, wanted, poll_seconds)
        while True:
            for index in sorted(free):
                if count - len(free) < wanted and _take(folder, str(index), held):
                    free.remove(index)
            if count - len(free) == wanted:
                _leases.append(held.pop_all())
                return sorted(set(range(count)) - free)
            waiting = _wait(waiting, wanted, poll_seconds)


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0  # not on Windows


def _take(folder: Path, name: str, held: ExitStack) -> bool:
    """Locks a file until ``held`` closes; False if another process has locked it."""
    handle = (folder / f"unet-gpu-{_user()}-{name}.lock").open("w")
    if not take_lock(handle.fileno()):
        handle.close()
        return False
    # The process that leases is replaced by the launcher of the training (os.execve).
    os.set_inheritable(handle.fileno(), True)
    held.enter_context(handle)
    return True


def _wait(waiting: bool, wanted: int, seconds: float) -> bool:
    if not waiting:
        log.info("waiting for %d free GPU(s)", wanted)
    time.sleep(seconds)
    return True


def gains_by_bfloat16(device: torch.device) -> bool:
    """Whether the device has bfloat16 arithmetic in hardware (otherwise float32 is faster)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_precision(precision: PredictPrecision, device: torch.device) -> PredictPrecision:
    """The precision to compute in; ``auto`` is bfloat16 if the device is faster with it.

    Raises:
        UserError: tf32 on a device that does not support it.
    """
    if precision == "auto":
        return "bfloat16" if gains_by_bfloat16(device) else "float32"
    if precision == "tf32" and not (device.type == "cuda" and gains_by_bfloat16(device)):
        raise UserError(
            f"precision: tf32 needs a GPU of compute capability 8.0 or higher, this job has "
            f"{device}; write float32 or auto"
        )
    return precision
