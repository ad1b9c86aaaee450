"""The inputs, the outputs and the resources of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unet.data.store import Prepared
from unet.models.gpu_meter import GpuMeter
from unet.training.ranks import Ranks


@dataclass(frozen=True)
class TrainingData:
    """The images of one fold.

    Attributes:
        store: the prepared store.
        prepared: its sentinel.
        train, val: ids of the images to train on, and of those that select the best weights; of
            joined datasets in the order of the config.
    """

    store: Path
    prepared: Mapping[str, Any]
    train: Sequence[str]
    val: Sequence[str]

    @property
    def first(self) -> Mapping[str, Any]:
        """The sentinel's entry of the first training image."""
        entry: Mapping[str, Any] = self.prepared["images"][self.train[0]]
        return entry

    def open(self) -> Prepared:
        return Prepared(self.store)


@dataclass(frozen=True)
class TrainingOutputs:
    """Paths of the checkpoints' folder, ``model.pt`` and ``history.csv``."""

    checkpoints: Path
    model: Path
    history: Path

    @property
    def plan(self) -> Path:
        """The plan of preset ``auto``, for the user."""
        return self.model.with_name("plan.yaml")


@dataclass(frozen=True)
class TrainingResources:
    """Settings that do not change the weights (threads and processes: except for rounding).

    Attributes:
        checkpoint_seconds: time between two checkpoints.
        cache_gb: memory for images and targets, in GB.
        threads: CPU threads of all processes together.
        ranks: the processes that train together.
        meter: measures this process's GPU.
    """

    checkpoint_seconds: float = 30.0
    cache_gb: float = 4.0
    threads: int = 2
    ranks: Ranks = field(default_factory=Ranks)
    meter: GpuMeter = field(default_factory=GpuMeter)
