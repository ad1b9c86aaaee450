"""What a training reads, where it writes, and what it may use of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unet.data.store import Prepared
from unet.training.ranks import Ranks


@dataclass(frozen=True)
class TrainingData:
    """The images of one fold.

    Attributes:
        store: the prepared store.
        prepared: its sentinel.
        train, val: ids of the images to learn from and to choose the best weights by.
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
    """Where a training writes: the folder of its checkpoints, ``model.pt`` and ``history.csv``."""

    checkpoints: Path
    model: Path
    history: Path

    @property
    def plan(self) -> Path:
        """What preset auto chose, for the user."""
        return self.model.with_name("plan.yaml")


@dataclass(frozen=True)
class TrainingResources:
    """What changes no weight (threads and the number of processes: to rounding).

    Attributes:
        checkpoint_seconds: time between two checkpoints.
        cache_gb: memory for images and targets, in GB.
        ranks: the processes that train together.
    """

    checkpoint_seconds: float = 30.0
    cache_gb: float = 4.0
    threads: int = 2
    ranks: Ranks = field(default_factory=Ranks)
