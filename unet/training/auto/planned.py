"""Preset ``auto`` in a training: makes a plan for the device, or loads an earlier attempt's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from unet.config.presets import AnyUNet
from unet.config.stage_settings import TrainSettings
from unet.models.devices import choose_precision
from unet.models.network import Network
from unet.training.auto.choose import choose_plan, fingerprint_of, keep_plan, kept_plan, write_plan
from unet.training.auto.memory import Numerics, step_bytes
from unet.training.auto.plan_file import TrainingPlan
from unet.training.ranks import Ranks
from unet.training.training_job import TrainingData

log = logging.getLogger(__name__)


def device_memory(device: torch.device, memory_gb: float) -> float:
    """Bytes that a step may take: the free memory of a GPU; on the CPU, the config's limit."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return 1e9 * memory_gb


def spare_memory(
    network: Network, patch: Sequence[int], rows: int, device: torch.device, precision: str
) -> float:
    """Bytes of a GPU's memory that a training leaves free, by a cautious estimate; 0 if it shares
    its memory with the processor, or if there is no estimate for the network.

    Args:
        rows: patches per step on this device.
    """
    arch = network.arch
    if device.type != "cuda" or not isinstance(arch, AnyUNet):
        return 0.0
    numerics = Numerics("cuda", precision)
    step = step_bytes(arch, network.in_channels, network.num_classes, patch, rows, numerics)
    return device_memory(device, 0.0) - step


def planned(
    settings: TrainSettings,
    data: TrainingData,
    device: torch.device,
    ranks: Ranks,
    kept: Path,
    shown: Path,
) -> TrainingPlan:
    """The plan for a training, the same in all of its processes.

    Args:
        kept: file with the plan of the first attempt, in the folder of the checkpoints.
        shown: where the plan is written for the user.

    Raises:
        UserError: a given patch does not fit the images.
    """
    plan: TrainingPlan | None = None
    if ranks.first:
        plan = kept_plan(kept)
        if plan is None:
            precision = choose_precision(settings.train.precision, device)
            plan = choose_plan(
                fingerprint_of(data.open(), data.prepared, data.train),
                settings.train,
                device_memory(device, settings.memory_gb or 0.0),
                numerics=Numerics("cuda" if device.type == "cuda" else "cpu", precision),
                processes=ranks.size,
                outputs=len(settings.head_names),
                anisotropic=settings.anisotropic,
                given=settings.given or (),
            )
            keep_plan(kept, plan)
        for reason in plan.reasons:
            log.info("auto: %s", reason)
        write_plan(shown, plan)
    agreed: TrainingPlan = ranks.from_first(plan)
    return agreed
