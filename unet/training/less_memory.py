"""What a training does when the device runs out of memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from unet.config.sections import TrainSection
from unet.errors import UserError, is_out_of_memory
from unet.models.network import Network
from unet.models.norms import copy_statistics, restore_statistics

log = logging.getLogger(__name__)

T = TypeVar("T")


def save_memory_if_needed(
    compute: Callable[[], T],
    network: Network,
    settings: TrainSection,
    device: torch.device,
    processes: int,
) -> T:
    """Calls ``compute``; if the device runs out of memory, sets ``network.recompute`` and calls it
    again.

    A smaller batch would save memory, too, but then the weights would depend on what else used the
    device at the time.

    Raises:
        UserError: that is too much for the device, too.
    """
    can_recompute = network.can_recompute and not network.recompute and processes == 1
    before = copy_statistics(network) if can_recompute else {}
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if not can_recompute:
            raise UserError(_too_large(settings)) from None
    # After the except block, so that the error no longer keeps tensors in memory.
    restore_statistics(network, before)
    network.recompute = True
    log.warning(
        "out of memory on the device: continuing with activations computed twice instead of kept; "
        "the weights will be %s, each step takes longer",
        reproducibility(device),
    )
    return save_memory_if_needed(compute, network, settings, device, processes)


def reproducibility(device: torch.device) -> str:
    """How much two trainings on the device differ: a GPU adds up in another order each time, unless
    deterministic algorithms are switched on."""
    exact = device.type == "cpu" or torch.are_deterministic_algorithms_enabled()
    return "the same" if exact else "the same except for rounding, as always on a GPU"


def _too_large(s: TrainSection) -> str:
    found = f"train.batch: the device has no memory for {s.batch} patches of {s.patch} px"
    if s.batch == 1:
        return f"{found}; write a smaller train.patch, or a model of less width"
    half = s.batch // 2
    return (
        f"{found}; write batch: {half} with accumulate: {-(-s.batch * s.accumulate // half)}, "
        "or a smaller train.patch"
    )
